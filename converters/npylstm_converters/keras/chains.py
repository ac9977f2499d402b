"""Weights-only files of Keras 1 and 2 without an architecture: a chain of layers, as the user says.

The arrays tell a layer's class and sizes. What they do not tell must be said; what is left to
Keras' defaults is told in the provenance.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from npylstm import FormatError, UnsupportedError
from npylstm_converters.chain import Step, parse_steps
from npylstm_converters.errors import Reasons, Refusal
from npylstm_converters.keras.activations import LAYERS as ACTIVATION_LAYERS
from npylstm_converters.keras.config import Writer
from npylstm_converters.keras.files import Container
from npylstm_converters.keras.layers import TRANSLATORS
from npylstm_converters.keras.legacy import WITH_ARRAYS, LegacyStore
from npylstm_converters.keras.tensors import Source, role_of
from npylstm_converters.keras.weights import snake_case

__all__ = ["ask_for_chain", "describe", "with_chain"]

Config = dict[str, Any]

_GATES = {4: "LSTM", 3: "GRU", 1: "SimpleRNN"}
_RECURRENT = tuple(_GATES.values())
_NEEDS_STEPS = (
    *_RECURRENT, "Bidirectional", "TimeDistributed", "Conv1D", "MaxPooling1D", "AveragePooling1D",
    "GlobalMaxPooling1D", "GlobalAveragePooling1D", "UpSampling1D", "ZeroPadding1D", "Cropping1D",
    "SpatialDropout1D",
)  # fmt: skip
# Layers that take sequences and single vectors alike, and give what they take.
_EITHER = (
    "InputLayer", "Activation", "Dropout", "AlphaDropout", "GaussianDropout", "GaussianNoise",
    "ActivityRegularization", "BatchNormalization", "LayerNormalization", "UnitNormalization",
    "Masking", "Rescaling", "PReLU", *ACTIVATION_LAYERS,
)  # fmt: skip
# What recording needs and inference does not.
_REQUIRED: dict[str, tuple[str, float]] = {
    "Dropout": ("rate", 0.5), "SpatialDropout1D": ("rate", 0.5), "AlphaDropout": ("rate", 0.5),
    "GaussianDropout": ("rate", 0.5), "GaussianNoise": ("stddev", 0.5),
}  # fmt: skip
_NUMBER = re.compile(r"_[0-9]+$")


@dataclass(frozen=True)
class Found:
    """A layer that a file shows.

    Attributes
    ----------
    name
        As the file has it.
    class_name
        As the arrays show it, or the name where there are none; ``"?"`` where neither does.
    config
        What the arrays show of it.
    sizes
        The same for people: ``3 -> 20``.
    features
        The size of the last axis of what it reads, as far as it shows.
    asked
        What they do not show: option to example.
    """

    name: str
    class_name: str
    config: Config = field(default_factory=dict)
    sizes: str = ""
    asked: Mapping[str, str] = field(default_factory=dict)
    features: int | None = None

    def __str__(self) -> str:
        return f"{self.name}: {self.class_name}({self.sizes})"


def find_layers(store: LegacyStore, writer: Writer) -> list[Found]:
    """Tell layers from the names and shapes of their arrays, in the order of the file."""
    return [_judge(name, sources, writer) for name, sources in store.listed().items()]


def _judge(name: str, sources: Sequence[Source], writer: Writer) -> Found:
    halves: dict[str, list[Source]] = {"forward": [], "backward": []}
    for source in sources:
        for part in source.path.split("/")[::-1]:
            way = next((w for w in halves if part.startswith(f"{w}_")), None)
            if way is not None:
                halves[way].append(source)
                break
    if sources and len(halves["forward"]) == len(halves["backward"]) == len(sources) / 2:
        inner = _judge(name, halves["forward"], writer)
        if inner.class_name in _RECURRENT:
            config = {"layer": _entry(inner), "merge_mode": "concat"}
            asked = {**inner.asked, "merge_mode": "concat"}
            return replace(inner, class_name="Bidirectional", config=config, asked=asked)
    shapes = {role_of(source.path, name): source.shape for source in sources}
    if len(shapes) < len(sources):  # several layers in one
        return Found(name, "?", sizes=", ".join(f"{s.path} {s.shape}" for s in sources))
    for judge in (_weightless, _recurrent, _keras1, _matrix, _others):
        found = judge(name, shapes, writer)
        if found is not None:
            return found
    return Found(name, "?", sizes=", ".join(f"{k} {v}" for k, v in shapes.items()))


Shapes = Mapping[str, tuple[int, ...]]


def _weightless(name: str, shapes: Shapes, writer: Writer) -> Found | None:
    if shapes:
        return None
    stem = _NUMBER.sub("", name)
    if stem == "input":
        return Found(name, "InputLayer")
    class_name = next((c for c in TRANSLATORS if snake_case(c) == stem), "?")
    asked = {
        "Activation": {"activation": "linear"}, "RepeatVector": {"n": "1"},
        "Reshape": {"target_shape": "1"}, "Masking": {"mask_value": "0"},
        "MaxPooling1D": {"pool_size": "2"}, "AveragePooling1D": {"pool_size": "2"},
    }  # fmt: skip
    return Found(name, class_name, asked=asked.get(class_name, {}))


def _gates_default(writer: Writer) -> dict[str, str]:
    """What to ask where the version does not tell which gates are Keras' default."""
    known = writer.recurrent_default if writer.version != "2" else None
    return {} if known else {"recurrent_activation": "sigmoid"}


def _recurrent(name: str, shapes: Shapes, writer: Writer) -> Found | None:
    if not {"kernel", "recurrent_kernel"} <= set(shapes) <= {"kernel", "recurrent_kernel", "bias"}:
        return None
    kernel, recurrent = shapes["kernel"], shapes["recurrent_kernel"]
    if len(kernel) != 2 or len(recurrent) != 2 or not recurrent[0]:
        return None
    units, gates = recurrent[0], recurrent[1] / recurrent[0]
    class_name = _GATES.get(int(gates)) if gates == int(gates) else None
    if class_name is None:
        return None
    config: Config = {"units": units, "use_bias": "bias" in shapes}
    asked = {} if class_name == "SimpleRNN" else _gates_default(writer)
    if class_name == "GRU":
        config["reset_after"] = shapes.get("bias") in ((2, 3 * units), (6 * units,))
        if "bias" not in shapes:
            del config["reset_after"]
            asked = {**asked, "reset_after": "false"}
    if shapes.get("bias") in ((8 * units,), (6 * units,)):
        asked = {}  # cuDNN's layers, whose gates are always sigmoid
        config["recurrent_activation"] = "sigmoid"
    asked = {**asked, "output": "sequences or last"}
    return Found(name, class_name, config, f"{kernel[0]} -> {units}", asked, kernel[0])


def _keras1(name: str, shapes: Shapes, writer: Writer) -> Found | None:
    class_name = {12: "LSTM", 9: "GRU", 3: "SimpleRNN"}.get(len(shapes))
    first = next((s for role, s in shapes.items() if role in ("W_i", "W_z", "W")), ())
    if class_name is None or len(first) != 2 or not any(role[0] == "U" for role in shapes):
        return None
    asked = {"output": "sequences or last"}
    sizes = f"{first[0]} -> {first[1]}"
    return Found(name, class_name, {"units": first[1]}, sizes, asked, first[0])


def _matrix(name: str, shapes: Shapes, writer: Writer) -> Found | None:
    if not set(shapes) <= {"kernel", "bias", "W", "b"}:
        return None
    kernel = shapes.get("kernel", shapes.get("W", ()))
    config: Config = {"use_bias": len(shapes) == 2}
    linear = {"activation": "linear"}
    if len(kernel) == 2 and "embedding" in name:
        return _embedding(name, kernel)
    if len(kernel) == 2:
        config["units"] = kernel[1]
        sizes = f"{kernel[0]} -> {kernel[1]}"
        return Found(name, "Dense", config, sizes, linear, kernel[0])
    if len(kernel) in (3, 4):
        config |= {"filters": kernel[-1], "kernel_size": kernel[0]}
        sizes = f"{kernel[-2]} -> {kernel[-1]}, kernel {kernel[0]}"
        return Found(name, "Conv1D", config, sizes, {**linear, **_SLIDING}, kernel[-2])
    return None


_SLIDING = {"padding": "valid", "strides": "1", "dilation_rate": "1"}


def _embedding(name: str, shape: tuple[int, ...]) -> Found:
    config = {"input_dim": shape[0], "output_dim": shape[1]}
    return Found(name, "Embedding", config, f"{shape[0]} ids -> {shape[1]}", {"mask_zero": "false"})


def _others(name: str, shapes: Shapes, writer: Writer) -> Found | None:
    table: dict[str, tuple[set[str], set[str]]] = {  # arrays that must be there, and that may
        "Embedding": ({"embeddings"}, set()),
        "BatchNormalization": ({"moving_mean", "moving_variance"}, {"gamma", "beta"}),
        "LayerNormalization": ({"gamma", "beta"}, set()),
        "PReLU": ({"alpha"}, set()),
    }
    for class_name, (must, may) in table.items():
        if not must <= set(shapes) <= must | may:
            continue
        shape = next(iter(shapes.values()))
        if class_name == "Embedding" and len(shape) == 2:
            return _embedding(name, shape)
        config: Config = {}
        if class_name == "BatchNormalization":
            config = {"scale": "gamma" in shapes, "center": "beta" in shapes}
        asked = {"epsilon": "0.001"} if "Normalization" in class_name else {}
        listed = ", ".join(map(str, shape))
        return Found(name, class_name, config, listed, asked, shape[-1] if shape else None)
    return None


def _entry(found: Found) -> Config:
    return {"class_name": found.class_name, "config": {"name": found.name, **found.config}}


def with_chain(container: Container, text: str) -> Container:
    """Make the document of a Sequential model of what the user says.

    Raises
    ------
    UnsupportedError
        Listing what was not said, or does not fit.
    FormatError
        If the file holds an architecture or does not name its layers, or the text cannot be read.
    """
    if container.document is not None or not isinstance(container.store, LegacyStore):
        raise FormatError("layers: only for weights-only files of Keras 1 and 2 (.h5)")
    steps, reasons = parse_steps(text), Reasons()
    found = {f.name: f for f in find_layers(container.store, container.writer)}
    chosen = [
        found.get(step.word) or _made(step.word, f"{step.word.lower()}_{number}")
        for number, step in enumerate(steps, 1)
    ]
    notes = [f"layers: {' -> '.join(map(str, steps))}, as stated"]
    assumed: list[str] = []
    entries = []
    for number, (step, layer) in enumerate(zip(steps, chosen, strict=True)):
        try:
            behind = chosen[number + 1 :]
            entries.append(_configured(step, layer, behind, container.writer, assumed))
        except Refusal as error:
            reasons.add(f"{step.word}: {error}")
    for name, layer in found.items():
        weights = layer.sizes and name not in {step.word for step in steps}
        if weights:
            reasons.add(f"{layer}: is not in layers")
        elif name not in {step.word for step in steps} and layer.class_name != "InputLayer":
            notes.append(f"{name}: holds no arrays and is left out, as stated")
    reasons.raise_if_any()
    first = next((layer for layer in chosen if layer is not None and layer.sizes), None)
    if first is None:
        raise FormatError("layers: names no layer that has weights")
    timed = any(layer is not None and layer.class_name in _NEEDS_STEPS for layer in chosen)
    entries[0]["config"]["batch_input_shape"] = _input_shape(first, timed)
    document = {"class_name": "Sequential", "config": {"name": "sequential", "layers": entries}}
    said = tuple(_statements(steps, chosen, entries))
    return replace(
        container, document=document, notes=(*notes, *assumed), by_name=True, stated=said,
        assumed=tuple(assumed),
    )  # fmt: skip


def _statements(
    steps: Sequence[Step], chosen: Sequence[Found | None], entries: Sequence[Config]
) -> Iterator[str]:
    """Say in sentences what a chain states beyond what the file proves."""
    for step, layer, entry in zip(steps, chosen, entries, strict=True):
        config = entry["config"]
        if layer is not None and "output" in layer.asked:
            inner = config["layer"]["config"] if "layer" in config else config
            gives = "every step" if inner.get("return_sequences") else "the last step"
            yield f"{step.word} gives {gives}"
        for name, value in _said(step).items():
            if name != "return_sequences":
                yield f"{step.word}: {name} is {value}"
        if layer is not None and not layer.sizes:
            yield f"{step.word} stands at place {steps.index(step) + 1} of {len(steps)}"
    yield "no other layer stands between those of the chain"


def _made(word: str, name: str) -> Found | None:
    """A layer without weights, by its class."""
    return Found(name, word) if word in TRANSLATORS and word not in WITH_ARRAYS else None


def _input_shape(first: Found, timed: bool) -> list[int | None]:
    if first.class_name == "Embedding":
        return [None, None]
    return [None, None, first.features] if timed else [None, first.features]


def _configured(
    step: Step, layer: Found | None, behind: Sequence[Found | None], writer: Writer,
    assumed: list[str],
) -> Config:  # fmt: skip
    """Put together what the arrays show and what the user says."""
    if layer is None:
        raise Refusal("is no layer of the file and no class of Keras that needs no weights")
    if layer.class_name == "?":
        raise Refusal(f"holds {layer.sizes or 'no arrays'}, which shows no layer that is supported")
    said = _said(step)
    asked = dict(layer.asked)
    recurrent = asked.pop("output", None) is not None
    if recurrent and "return_sequences" not in said:
        sequences = _read_as_sequence(behind)
        if sequences is None:
            raise Refusal(
                f"what it gives is not in the file: write {step.word}(sequences) or "
                f"{step.word}(last)"
            )
        said["return_sequences"] = sequences
    _, arguments = ACTIVATION_LAYERS.get(layer.class_name, ("", ()))
    if arguments and not said:
        assumed.append(f"{step.word}: {', '.join(arguments)} by default, as nothing else was said")
    missing = [name for name in asked if name not in said]
    if missing:
        raise Refusal(
            f"its {', '.join(missing)} cannot be told from the file: write {_suggested(layer)}, say"
        )
    if recurrent and "activation" not in said:
        assumed.append(f"{step.word}: activation tanh, Keras' default, as nothing else was said")
        default = writer.recurrent_default or "sigmoid"
        if "recurrent_activation" not in {**said, **layer.config}:
            assumed.append(f"{step.word}: recurrent_activation {default}, the default of its Keras")
    return _joined(layer, said, writer)


def _said(step: Step) -> Config:
    """Options of a step, none of them said twice."""
    said = {name: _value(text) for name, text in step.options.items()}
    for value in step.values:
        name = "return_sequences" if value in ("sequences", "last") else "activation"
        if name in said:
            raise Refusal(f"says its {name} twice: {step}")
        said[name] = value == "sequences" if name == "return_sequences" else value
    return said


def _read_as_sequence(behind: Sequence[Found | None]) -> bool | None:
    """Whether what follows takes a sequence; None where it may take either."""
    for layer in behind:
        if layer is None or layer.class_name not in _EITHER:
            name = layer.class_name if layer is not None else ""
            return True if name in _NEEDS_STEPS else False if name == "RepeatVector" else None
    return None


def _joined(layer: Found, said: Config, writer: Writer) -> Config:
    entry = _entry(layer)
    outer = entry["config"]
    outer |= dict([_REQUIRED[layer.class_name]] if layer.class_name in _REQUIRED else [])
    inner = outer["layer"]["config"] if layer.class_name == "Bidirectional" else outer
    if layer.class_name in (*_RECURRENT, "Bidirectional"):
        kind = outer["layer"]["class_name"] if layer.class_name == "Bidirectional" else None
        if (kind or layer.class_name) != "SimpleRNN":
            inner.setdefault("recurrent_activation", writer.recurrent_default or "sigmoid")
        inner.setdefault("activation", "tanh")
    for name, value in said.items():
        (outer if name == "merge_mode" else inner)[name] = value
    if layer.class_name in ACTIVATION_LAYERS:
        outer.pop("activation", None)
    return entry


def _value(text: str) -> Any:
    """Read a number, true or false, or a word."""
    words: dict[str, Any] = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    readers: tuple[Callable[[str], Any], ...] = (int, float)
    for read in readers:
        try:
            return read(text)
        except ValueError:
            continue
    return text


def _suggested(found: Found, writer: Writer | None = None) -> str:
    """Write a layer with an answer to everything that the file does not say."""
    asked = dict(found.asked)
    if writer is not None and found.class_name in (*_RECURRENT, "Bidirectional"):
        kind = found.class_name
        if kind == "Bidirectional":
            kind = found.config["layer"]["class_name"]
        asked.setdefault("activation", "tanh")
        if kind != "SimpleRNN" and "recurrent_activation" not in found.config:
            asked.setdefault("recurrent_activation", writer.recurrent_default or "sigmoid")
    options = [
        "last" if k == "output" else v if k == "activation" else f"{k}={v}"
        for k, v in asked.items()
    ]
    return f"{found.name}({', '.join(options)})" if options else found.name


def _command(container: Container, source: str | os.PathLike[str]) -> str:
    assert isinstance(container.store, LegacyStore)  # whoever asks has seen to it
    words = []
    found = find_layers(container.store, container.writer)
    for number, layer in enumerate(found):
        certain = _read_as_sequence(found[number + 1 :]) is not None
        if "output" in layer.asked and certain:
            layer = replace(layer, asked={k: v for k, v in layer.asked.items() if k != "output"})
        if layer.class_name != "InputLayer" and (layer.sizes or layer.class_name != "?"):
            words.append(_suggested(layer, container.writer))
    chain = " -> ".join(words)
    return f'npylstm convert {shlex.quote(os.fspath(source))} MODEL.npz --layers "{chain}"'


def ask_for_chain(container: Container, source: str | os.PathLike[str]) -> str:
    """Say what is missing, and how to give it."""
    if not isinstance(container.store, LegacyStore):
        return (
            "holds weights only; give the architecture, the text of model.to_json(), by "
            "--architecture model.json"
        )
    return (
        "holds weights only; give the architecture, the text of model.to_json(), by --architecture "
        f"model.json, or complete this: {_command(container, source)}"
    )


def describe(container: Container, source: str | os.PathLike[str]) -> dict[str, Any]:
    """List the layers of a weights-only file, and the command to complete."""
    if not isinstance(container.store, LegacyStore):
        raise UnsupportedError([ask_for_chain(container, source)])
    found = find_layers(container.store, container.writer)
    writer = container.writer
    notes = [f"written by {writer.framework} {writer.version}: {writer.evidence}"]
    notes += [
        f"{f.name}: holds no arrays, and its name is no class of Keras': say its class, such as "
        "Dropout, or leave it out"
        for f in found
        if f.class_name == "?" and not f.sizes
    ]
    return {
        "format": container.format,
        "what": "a weights-only file",
        "modules": [str(f) for f in found if f.class_name != "InputLayer"],
        "asked": [_question(f, k, v) for f in found for k, v in f.asked.items()],
        "notes": notes,
        **_command_that_runs(container, source),
    }


def _question(found: Found, option: str, value: str) -> str:
    if option == "output":
        answers = "sequences (every step) or last (the last step)"
        return f"{found.name}: what does it give? {answers}."
    return f"{found.name}: {option} is not in the file: such as {value}."


def _command_that_runs(container: Container, source: str | os.PathLike[str]) -> dict[str, str]:
    """The suggested command, or the reason why no chain fits."""
    command = _command(container, source)
    try:
        with_chain(container, command.rpartition("--layers ")[2].strip('"'))
    except (UnsupportedError, FormatError) as error:
        reason = f"no chain of these layers fits: {error}"
        return {"command": "", "advice": f"{reason}. Give the architecture by --architecture"}
    return {"command": command, "advice": ""}
