"""A Keras model as a graph: layers with their raw configs, and calls that join them.

The configs of Keras 1, 2 and 3 write calls in different forms, which
:mod:`npylstm_converters.keras.calls` reads. :mod:`npylstm_converters.keras.layers` translates the
layers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from npylstm.spec import RESERVED

__all__ = [
    "MODELS",
    "PATH_SEPARATOR",
    "REVERSED",
    "Call",
    "Graph",
    "Keys",
    "Place",
    "RawLayer",
    "Slot",
    "Tensor",
    "display_path",
    "flat",
    "is_custom",
    "safe_name",
    "safe_names",
]  # fmt: skip

PATH_SEPARATOR = "\x1f"  # separates the names of a model and of its layer; no name contains it

REVERSED = "turned around"  # not a Keras class: a sequence reversed along time
MODELS = ("Model", "Functional", "Sequential")
_OPERATIONS = ("TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer")  # layers around an operation
_UNSAFE = re.compile(r"[/\\#]")  # the name of a second call is lstm#2


@dataclass(frozen=True)
class RawLayer:
    """A layer as the config describes it; ``inner`` if it is a model.

    Attributes
    ----------
    custom
        Registered by the user, not one of Keras' own.
    times
        The number of TimeDistributed wrappers around it.
    below
        Path of the layers of ``inner`` in a file, relative to this layer.
    stored
        The class under which the file numbers it, if not its own.
    """

    name: str
    class_name: str
    config: Mapping[str, Any]
    custom: bool = False
    inner: Graph | None = None
    times: int = 0
    below: str = ""
    stored: str = ""

    @property
    def is_input(self) -> bool:
        return self.class_name == "InputLayer"

    @property
    def is_operation(self) -> bool:
        """Whether it is an operation on tensors."""
        return self.class_name.startswith("ops.") or self.class_name in _OPERATIONS

    @property
    def is_model(self) -> bool:
        """Whether it is a model in Keras, not a layer that this importer expands into one."""
        return self.inner is not None and self.class_name in MODELS


@dataclass(frozen=True)
class Tensor:
    """An output of a call of a layer: which layer, which of its calls, which output."""

    layer: str
    call: int = 0
    output: int = 0


Place = tuple[int, str, int]  # the depth, the layer, which call of it


@dataclass(frozen=True)
class Slot:
    """A placeholder for a tensor in the arguments of a call."""

    place: int


@dataclass(frozen=True)
class Call:
    """One call of a layer: on tensors, and with named arguments that may hold tensors.

    Attributes
    ----------
    options
        Named arguments with tensors.
    problem
        The part that is not supported.
    numbers
        Positional arguments that are numbers.
    place
        When Keras runs it: for each enclosing model and itself the depth, the layer and the call's
        number. Depths run in falling order; the order within one depth is undefined.
    positional, keyword_arguments
        All positional arguments, with a :class:`Slot` for each of ``inputs``; all named arguments
        without tensors.
    structures
        Of ``options`` that mix tensors and numbers: lists with a :class:`Slot` for each tensor.
    names
        The names of ``inputs``, where a call passes them in a dictionary.
    masks
        The masks of ``inputs``, None for each one without.
    """

    layer: str
    number: int
    inputs: tuple[Tensor, ...]
    options: Mapping[str, tuple[Tensor, ...]] = field(default_factory=dict)
    problem: str = ""
    numbers: tuple[float, ...] = ()
    positional: tuple[Any, ...] = ()
    keyword_arguments: Mapping[str, Any] = field(default_factory=dict)
    place: tuple[Place, ...] = ()
    structures: Mapping[str, Any] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    masks: tuple[Tensor | None, ...] = ()

    @property
    def reads(self) -> tuple[Tensor, ...]:
        """All input tensors, those of named arguments last."""
        return (*self.inputs, *(t for tensors in self.options.values() for t in tensors))

    @property
    def arguments(self) -> dict[str, Any]:
        """Named arguments without tensors, other than None and False."""
        values = self.keyword_arguments.items()
        return {k: v for k, v in values if any(map(_is_given, flat(v)))}


def _is_given(value: Any) -> bool:
    return isinstance(value, np.ndarray) or value not in (None, False)


class Keys(NamedTuple):
    """The keys of dictionaries of inputs and outputs.

    Attributes
    ----------
    inputs
        By the path of the input layer.
    outputs
        For each key the path of the layer whose main output it is; empty for another tensor.
    """

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


@dataclass(frozen=True)
class Graph:
    """A model: its layers in the config's order, its calls in the order of computation.

    ``input_names`` and ``output_names`` are the keys of dictionaries of inputs and outputs; empty
    for a tensor without a key.
    """

    name: str
    layers: tuple[RawLayer, ...]
    calls: tuple[Call, ...]
    inputs: tuple[str, ...]
    outputs: tuple[Tensor, ...]
    build_shape: tuple[int | None, ...] | None = None
    sequential: bool = False  # returns all outputs of its last layer, not ``outputs``
    input_names: tuple[str, ...] = ()
    output_names: tuple[str, ...] = ()

    @property
    def keys(self) -> Keys:
        """Return the keys of inputs and outputs that dictionaries name."""
        inputs = {n: key for n, key in zip(self.inputs, self.input_names, strict=False) if key}
        named = zip(self.outputs, self.output_names, strict=False)
        outputs = {key: t.layer if t == Tensor(t.layer) else "" for t, key in named if key}
        return Keys(inputs, outputs)

    def leaves(self, prefix: str = "") -> Iterator[tuple[str, RawLayer]]:
        """Yield all layers that are not models, with paths, including those of nested models."""
        for layer in self.layers:
            if layer.inner is not None:
                yield from layer.inner.leaves(f"{prefix}{layer.name}{PATH_SEPARATOR}")
            else:
                yield f"{prefix}{layer.name}", layer


def is_custom(entry: Mapping[str, Any]) -> bool:
    """Whether a serialised object is a custom one, even if it has the name of a Keras class."""
    registered, module = entry.get("registered_name"), entry.get("module", "keras")
    if isinstance(registered, str) and registered != entry.get("class_name"):
        return True
    # Keras writes null for an unknown module of a class.
    own = ("keras", "tf_keras", "tensorflow")
    return module is None or (isinstance(module, str) and module.split(".")[0] not in own)


def display_path(path: str) -> str:
    """Return a path of :meth:`Graph.leaves` in readable form: ``encoder.lstm``."""
    return path.replace(PATH_SEPARATOR, ".")


def safe_name(name: str) -> str:
    """Return a name without the characters that the file uses."""
    return _UNSAFE.sub("_", name)


def safe_names(paths: Sequence[str], keys: Keys | None = None) -> dict[str, str]:
    """Return names that can be keys of the file: no slashes, none that the file reserves.

    Inputs have the keys of a dictionary; a key of an output is the name of no other layer.
    """
    names: dict[str, str] = {}
    taken = {".", "..", *RESERVED}
    inputs = keys.inputs if keys is not None else {}
    own = {path: safe_name(inputs.get(path, display_path(path))) for path in paths}
    outputs = keys.outputs if keys is not None else {}
    reserved = {safe_name(key) for key, path in outputs.items() if path != key}
    taken |= reserved - {own[path] for path in inputs}
    for path in sorted(paths, key=lambda path: path not in inputs):
        name = own[path]
        while name in taken:
            name += "_"
        taken.add(name)
        names[path] = name
    return names


def flat(value: Any) -> Iterator[Any]:
    """Yield the entries of nested lists."""
    if isinstance(value, (list, tuple)):
        for entry in value:
            yield from flat(entry)
    else:
        yield value
