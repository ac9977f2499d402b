"""The layers of a weights-only file, inferred from the names and shapes of its arrays."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from npylstm_converters.keras.config import ACTIVATION_LAYERS, Writer
from npylstm_converters.keras.layers import TRANSLATORS
from npylstm_converters.keras.tensors import Source, role_of
from npylstm_converters.keras.weights import ListedStore, snake_case

__all__ = [
    "DEFAULTS", "EITHER", "RECURRENT", "Config", "InferredLayer", "by_word", "entry_of",
    "find_layers", "flattened_steps", "reads_sequence",
]  # fmt: skip

Config = dict[str, Any]

_GATES = {4: "LSTM", 3: "GRU", 1: "SimpleRNN"}
RECURRENT = tuple(_GATES.values())
_NEEDS_STEPS = (
    *RECURRENT, "Bidirectional", "TimeDistributed", "Conv1D", "MaxPooling1D", "AveragePooling1D",
    "GlobalMaxPooling1D", "GlobalAveragePooling1D", "UpSampling1D", "ZeroPadding1D", "Cropping1D",
    "SpatialDropout1D",
)  # fmt: skip
# Layers that accept sequences and vectors, and keep the rank.
EITHER = (
    "InputLayer", "Activation", "Dropout", "AlphaDropout", "GaussianDropout", "GaussianNoise",
    "ActivityRegularization", "BatchNormalization", "LayerNormalization", "UnitNormalization",
    "Masking", "Rescaling", "PReLU", *ACTIVATION_LAYERS,
)  # fmt: skip
# Keras' defaults for layers without arrays.
DEFAULTS: dict[str, dict[str, str]] = {
    "MaxPooling1D": {"strides": "none", "padding": "valid"},
    "AveragePooling1D": {"strides": "none", "padding": "valid"},
    "UpSampling1D": {"size": "2"}, "ZeroPadding1D": {"padding": "1"},
    "Cropping1D": {"cropping": "1"},
}  # fmt: skip
_NUMBER = re.compile(r"_[0-9]+$")


@dataclass(frozen=True)
class InferredLayer:
    """A layer inferred from a file.

    Attributes
    ----------
    name
        Its name in the file.
    class_name
        Inferred from the arrays, or from the name if it has none; ``"?"`` if unknown.
    config
        The part of its config that the arrays determine.
    sizes
        The same in readable form: ``3 -> 20``.
    features
        The size of the last axis of its input, if known.
    asked
        Options that the arrays do not determine: option to example.
    label
        Its name in the model, if the file has another one.
    stored
        Its whole config, if the file holds it.
    """

    name: str
    class_name: str
    config: Config = field(default_factory=dict)
    sizes: str = ""
    asked: Mapping[str, str] = field(default_factory=dict)
    features: int | None = None
    label: str = ""
    stored: Config | None = None

    def __str__(self) -> str:
        named = f" ({self.label!r} in the model)" if self.label not in ("", self.name) else ""
        return f"{self.name}{named}: {self.class_name}({self.sizes})"

    @property
    def gives(self) -> int | None:
        """The size of the last axis of its output, if known."""
        if self.class_name == "Bidirectional" and "layer" in self.config:
            return 2 * int(self.config["layer"]["config"]["units"])
        names = ("units", "filters", "output_dim")
        return next((int(self.config[n]) for n in names if n in self.config), self.features)

    @property
    def reads_steps(self) -> bool:
        """Whether its input is a sequence, judged by its class or name."""
        named = _NUMBER.sub("", self.name) == "time_distributed"
        return named or self.class_name in _NEEDS_STEPS


def find_layers(store: ListedStore, writer: Writer) -> list[InferredLayer]:
    """Return the layers in the order of the file, from the names and shapes of their arrays."""
    found = [_judge(name, sources, writer) for name, sources in store.listed().items()]
    labelled = [replace(layer, label=store.labels.get(layer.name, "")) for layer in found]
    return [_stored(layer, store.configs.get(layer.name)) for layer in labelled]


def _stored(layer: InferredLayer, entry: Mapping[str, Any] | None) -> InferredLayer:
    """Return the layer with the class and the config from the file; the user states nothing."""
    if entry is None:
        return layer
    class_name = str(entry.get("class_name"))
    return replace(layer, class_name=class_name, stored=dict(entry["config"]), asked={})


def by_word(layers: Sequence[InferredLayer]) -> dict[str, InferredLayer]:
    """Return layers by their names in the file, and by their unique names in the model."""
    words = Counter([*(f.name for f in layers), *(f.label for f in layers if f.label != f.name)])
    own = {f.label: f for f in layers if f.label and words[f.label] == 1}
    return own | {f.name: f for f in layers}


def _judge(name: str, sources: Sequence[Source], writer: Writer) -> InferredLayer:
    halves: dict[str, list[Source]] = {"forward": [], "backward": []}
    for source in sources:
        for part in source.path.split("/")[::-1]:
            way = next((w for w in halves if part.startswith(f"{w}_")), None)
            if way is not None:
                halves[way].append(source)
                break
    if sources and len(halves["forward"]) == len(halves["backward"]) == len(sources) / 2:
        inner = _judge(name, halves["forward"], writer)
        if inner.class_name in RECURRENT:
            config = {"layer": entry_of(inner), "merge_mode": "concat"}
            asked = {**inner.asked, "merge_mode": "concat"}
            return replace(inner, class_name="Bidirectional", config=config, asked=asked)
    shapes = {role_of(source.path, name): source.shape for source in sources}
    if len(shapes) < len(sources):  # several layers in one group
        return InferredLayer(name, "?", sizes=", ".join(f"{s.path} {s.shape}" for s in sources))
    for judge in (_weightless, _recurrent, _keras1, _matrix, _others):
        found = judge(name, shapes, writer)
        if found is not None:
            return found
    return InferredLayer(name, "?", sizes=", ".join(f"{k} {v}" for k, v in shapes.items()))


Shapes = Mapping[str, tuple[int, ...]]


def _weightless(name: str, shapes: Shapes, _: Writer) -> InferredLayer | None:
    if shapes:
        return None
    stem = _NUMBER.sub("", name)
    if stem in ("input", "input_layer"):
        return InferredLayer(name, "InputLayer")
    class_name = next((c for c in TRANSLATORS if snake_case(c) == stem), "?")
    asked = {
        "Activation": {"activation": "linear"}, "RepeatVector": {"n": "1"},
        "Reshape": {"target_shape": "1"}, "Masking": {"mask_value": "0"},
        "MaxPooling1D": {"pool_size": "2"}, "AveragePooling1D": {"pool_size": "2"},
    }  # fmt: skip
    return InferredLayer(name, class_name, asked=asked.get(class_name, {}))


def _gates_default(writer: Writer) -> dict[str, str]:
    """Return the question about the gates' activation if the version does not determine it."""
    known = writer.recurrent_default if writer.version != "2" else None
    return {} if known else {"recurrent_activation": "sigmoid"}


def _recurrent(name: str, shapes: Shapes, writer: Writer) -> InferredLayer | None:
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
        asked = {}  # cuDNN layers: the gates' activation is always sigmoid
        config["recurrent_activation"] = "sigmoid"
    asked = {**asked, "output": "sequences or last"}
    return InferredLayer(name, class_name, config, f"{kernel[0]} -> {units}", asked, kernel[0])


def _keras1(name: str, shapes: Shapes, _: Writer) -> InferredLayer | None:
    class_name = {12: "LSTM", 9: "GRU", 3: "SimpleRNN"}.get(len(shapes))
    first = next((s for role, s in shapes.items() if role in ("W_i", "W_z", "W")), ())
    if class_name is None or len(first) != 2 or not any(role[0] == "U" for role in shapes):
        return None
    asked = {"output": "sequences or last"}
    sizes = f"{first[0]} -> {first[1]}"
    return InferredLayer(name, class_name, {"units": first[1]}, sizes, asked, first[0])


def _matrix(name: str, shapes: Shapes, _: Writer) -> InferredLayer | None:
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
        return InferredLayer(name, "Dense", config, sizes, linear, kernel[0])
    if len(kernel) in (3, 4):
        config |= {"filters": kernel[-1], "kernel_size": kernel[0]}
        sizes = f"{kernel[-2]} -> {kernel[-1]}, kernel {kernel[0]}"
        return InferredLayer(name, "Conv1D", config, sizes, {**linear, **_SLIDING}, kernel[-2])
    return None


_SLIDING = {"padding": "valid", "strides": "1", "dilation_rate": "1"}


def _embedding(name: str, shape: tuple[int, ...]) -> InferredLayer:
    config = {"input_dim": shape[0], "output_dim": shape[1]}
    return InferredLayer(
        name, "Embedding", config, f"{shape[0]} ids -> {shape[1]}", {"mask_zero": "false"}
    )


def _others(name: str, shapes: Shapes, _: Writer) -> InferredLayer | None:
    table: dict[str, tuple[set[str], set[str]]] = {  # required and optional arrays
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
        return InferredLayer(name, class_name, config, listed, asked, shape[-1] if shape else None)
    return None


def entry_of(found: InferredLayer) -> Config:
    """Return a layer's config entry, as far as its arrays or the file determine it."""
    if found.stored is not None:
        return {"class_name": found.class_name, "config": {**found.stored, "name": found.name}}
    return {"class_name": found.class_name, "config": {"name": found.name, **found.config}}


def reads_sequence(layer: InferredLayer, behind: Sequence[InferredLayer | None]) -> bool | None:
    """Whether the layers behind read a sequence; None if they accept both."""
    for number, other in enumerate(behind):
        if other is not None and other.reads_steps:
            return True
        if other is not None and other.class_name in EITHER:
            continue
        if other is not None and other.class_name == "RepeatVector":
            return False
        if other is not None and other.class_name == "Flatten":
            return True if flattened_steps(layer, behind[number + 1 :]) else None
        break
    return None


def flattened_steps(layer: InferredLayer, behind: Sequence[InferredLayer | None]) -> int | None:
    """Return the number of steps that a Flatten joins, from the input size of the layer behind."""
    reader = next((f for f in behind if f is not None and f.class_name not in EITHER), None)
    if reader is None or not reader.features or not layer.gives:
        return None
    steps, rest = divmod(reader.features, layer.gives)
    return steps if steps > 1 and not rest else None
