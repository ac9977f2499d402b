"""Weights-only files without an architecture: the user states a chain of layers.

Options that neither the arrays nor the user determine get Keras' defaults and are listed as
assumed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from npylstm import FormatError
from npylstm_converters.errors import Reasons, Refusal
from npylstm_converters.keras.config import ACTIVATION_LAYERS, Writer
from npylstm_converters.keras.files import Container
from npylstm_converters.keras.inferred_layers import (
    DEFAULTS,
    EITHER,
    RECURRENT,
    Config,
    InferredLayer,
    by_word,
    entry_of,
    find_layers,
    flattened_steps,
    reads_sequence,
)
from npylstm_converters.keras.layers import TRANSLATORS
from npylstm_converters.keras.legacy import WITH_ARRAYS
from npylstm_converters.keras.tensors import LORA_ADVICE
from npylstm_converters.keras.weights import ListedStore
from npylstm_converters.toolkit.chain import Step, parse_steps

__all__ = ["with_chain"]

# Keys that recording needs and inference does not.
_REQUIRED: dict[str, tuple[str, float]] = {
    "Dropout": ("rate", 0.5), "SpatialDropout1D": ("rate", 0.5), "AlphaDropout": ("rate", 0.5),
    "GaussianDropout": ("rate", 0.5), "GaussianNoise": ("stddev", 0.5),
}  # fmt: skip


def with_chain(container: Container, text: str) -> Container:
    """Return the container with the config of a Sequential model, built from the user's chain.

    Raises
    ------
    UnsupportedError
        Lists missing and unsuitable options.
    FormatError
        If the file holds an architecture, or the text cannot be read.
    """
    if container.document is not None or not isinstance(container.store, ListedStore):
        raise FormatError("layers: only for weights-only files (.h5, TensorFlow checkpoints)")
    steps, reasons = parse_steps(text), Reasons()
    found = find_layers(container.store, container.writer)
    words = by_word(found)
    chosen = [
        words.get(step.word) or _made(step.word, f"{step.word.lower()}_{number}")
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
    for layer in (f for f in found if f not in chosen):
        if layer.sizes:
            reasons.add(f"{layer}: is not in layers")
        elif layer.class_name != "InputLayer":
            notes.append(f"{layer.name}: holds no arrays and is left out, as stated")
    reasons.raise_if_any()
    first = next((layer for layer in chosen if layer is not None and layer.sizes), None)
    if first is None:
        raise FormatError("layers: names no layer that has weights")
    timed = any(layer is not None and layer.reads_steps for layer in chosen)
    steps_read = _steps_of(chosen)
    if steps_read is not None:
        notes.append(f"inputs have {steps_read} steps, by the size that is read behind Flatten")
    shape = _input_shape(first, timed, steps_read)
    document = _document(entries, shape, container.writer.major)
    said = tuple(_statements(steps, chosen, entries))
    return replace(
        container, document=document, notes=(*container.notes, *notes, *assumed), by_name=True,
        stated=said, assumed=tuple(assumed),
    )  # fmt: skip


def _document(entries: list[Config], shape: list[int | None], major: int) -> Config:
    """Return the config of a Sequential model in the form of its major version of Keras."""
    if major < 3:
        entries[0]["config"]["batch_input_shape"] = shape
    else:
        own = {"name": "input_layer", "batch_shape": shape, "dtype": "float32"}
        entries = [*map(_of_keras3, [{"class_name": "InputLayer", "config": own}, *entries])]
    document = {"class_name": "Sequential", "config": {"name": "sequential", "layers": entries}}
    return document if major < 3 else {"module": "keras", "registered_name": None, **document}


def _of_keras3(entry: Config) -> Config:
    """Return a config with the module of its class, which Keras 3 requires."""
    config = dict(entry["config"])
    if "layer" in config:
        config["layer"] = _of_keras3(config["layer"])
    return {"module": "keras.layers", "registered_name": None, **entry, "config": config}


def _statements(
    steps: Sequence[Step], chosen: Sequence[InferredLayer | None], entries: Sequence[Config]
) -> Iterator[str]:
    """Yield sentences: everything that a chain states and the file does not prove."""
    for step, layer, entry in zip(steps, chosen, entries, strict=True):
        config = entry["config"]
        if layer is not None and "output" in layer.asked:
            inner = config["layer"]["config"] if "layer" in config else config
            gives = "every step" if inner.get("return_sequences") else "the last step"
            yield f"{step.word} gives {gives}"
        for name, value in _said(step).items():
            if name != "return_sequences":
                yield f"{step.word} has {name} {value}"
        if layer is not None and not layer.sizes:
            yield f"{step.word} is layer {steps.index(step) + 1} of {len(steps)}"
    yield "there are no other layers"


def _made(word: str, name: str) -> InferredLayer | None:
    """Return the config of a layer without weights, by its class."""
    return InferredLayer(name, word) if word in TRANSLATORS and word not in WITH_ARRAYS else None


def _input_shape(first: InferredLayer, timed: bool, steps: int | None) -> list[int | None]:
    if first.class_name == "Embedding":
        return [None, steps]
    timed = timed or steps is not None
    return [None, steps, first.features] if timed else [None, first.features]


def _steps_of(chosen: Sequence[InferredLayer | None]) -> int | None:
    """Return the number of input steps if a Flatten fixes it, else None."""
    layer: InferredLayer | None = None
    for number, other in enumerate(chosen):
        if other is None:
            return None
        if other.class_name == "Flatten":
            return flattened_steps(layer, chosen[number + 1 :]) if layer is not None else None
        if other.gives is not None:
            layer = other
        elif other.class_name not in (*EITHER, "SpatialDropout1D"):
            return None
        if other.class_name == "Conv1D":
            return None
    return None


def _configured(
    step: Step, layer: InferredLayer | None, behind: Sequence[InferredLayer | None], writer: Writer,
    assumed: list[str],
) -> Config:  # fmt: skip
    """Return a layer's config from its arrays and the user's options."""
    if layer is None:
        raise Refusal("is no layer of the file and no class of Keras that needs no weights")
    if layer.class_name == "?" and "lora_" in layer.sizes:
        raise Refusal(f"{LORA_ADVICE}; found {layer.sizes}")
    if layer.class_name == "?":
        raise Refusal(f"holds {layer.sizes or 'no arrays'}, which shows no layer that is supported")
    said = _said(step)
    if layer.stored is not None:
        _check_stored(layer.stored, said)
        return entry_of(layer)
    asked = dict(layer.asked)
    recurrent = asked.pop("output", None) is not None
    if recurrent and "return_sequences" not in said:
        sequences = reads_sequence(layer, behind)
        if sequences is None:
            raise Refusal(
                f"what it gives is not in the file: write {step.word}(sequences) or "
                f"{step.word}(last)"
            )
        said["return_sequences"] = sequences
    if layer.class_name in ("Dense", "Conv1D") and "activation" not in said:
        assumed.append(
            f"{step.word}: activation linear, Keras' default, because the chain does not state it"
        )
        asked.pop("activation", None)
    _, arguments = ACTIVATION_LAYERS.get(layer.class_name, ("", ()))
    if arguments and not said:
        assumed.append(
            f"{step.word}: {', '.join(arguments)} by default, because the chain does not state it"
        )
    for option, value in DEFAULTS.get(layer.class_name, {}).items():
        if option not in said:
            assumed.append(
                f"{step.word}: {option} {value}, Keras' default, "
                "because the chain does not state it"
            )
    missing = [name for name in asked if name not in said]
    if missing:
        options = ", ".join(v if k == "activation" else f"{k}={v}" for k, v in asked.items())
        raise Refusal(f"its {', '.join(missing)} is not in the file: write {step.word}({options})")
    if recurrent and "activation" not in said:
        assumed.append(
            f"{step.word}: activation tanh, Keras' default, because the chain does not state it"
        )
        default = writer.recurrent_default or "sigmoid"
        if "recurrent_activation" not in {**said, **layer.config}:
            assumed.append(f"{step.word}: recurrent_activation {default}, the default of its Keras")
    return _joined(layer, said, writer)


def _check_stored(config: Config, said: Config) -> None:
    """Compare the user's options with the config in the file.

    Raises
    ------
    Refusal
        If one contradicts it.
    """
    inner = config.get("layer")
    nested = inner.get("config") if isinstance(inner, Mapping) else None
    known = {**(nested if isinstance(nested, Mapping) else {}), **config}
    for name, value in said.items():
        if name not in known or known[name] != value:
            raise Refusal(
                f"its {name} is {known.get(name)!r:.60} in the file and {value!r:.60} in layers"
            )


def _said(step: Step) -> Config:
    """Return the options of a step, each at most once."""
    said = {name: _value(text) for name, text in step.options.items()}
    for value in step.values:
        name = "return_sequences" if value in ("sequences", "last") else "activation"
        if name in said:
            raise Refusal(f"says its {name} twice: {step}")
        said[name] = value == "sequences" if name == "return_sequences" else value
    return said


def _joined(layer: InferredLayer, said: Config, writer: Writer) -> Config:
    entry = entry_of(layer)
    outer = entry["config"]
    outer |= dict([_REQUIRED[layer.class_name]] if layer.class_name in _REQUIRED else [])
    inner = outer["layer"]["config"] if layer.class_name == "Bidirectional" else outer
    if layer.class_name in (*RECURRENT, "Bidirectional"):
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
    """Return a number, a boolean or a word from its text."""
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
