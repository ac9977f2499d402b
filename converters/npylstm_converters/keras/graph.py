"""A Keras model as a graph: layers with their raw configs, and calls that join them.

The configs of Keras 1, 2 and 3 write calls in different forms; :func:`read_call` reads all.
:mod:`npylstm_converters.keras.layers` translates the layers.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from npylstm import FormatError, UnsupportedError
from npylstm.spec import RESERVED

__all__ = [
    "MODELS",
    "PATH_SEPARATOR",
    "REVERSED",
    "Call",
    "Graph",
    "Place",
    "RawLayer",
    "Slot",
    "Tensor",
    "display_path",
    "is_custom",
    "read_call",
    "read_tensors",
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

    @property
    def reads(self) -> tuple[Tensor, ...]:
        """All input tensors, those of named arguments last."""
        return (*self.inputs, *(t for tensors in self.options.values() for t in tensors))

    @property
    def arguments(self) -> dict[str, Any]:
        """Named arguments without tensors, other than None and False."""
        values = self.keyword_arguments.items()
        return {k: v for k, v in values if any(e not in (None, False) for e in _flat(v))}


@dataclass(frozen=True)
class Graph:
    """A model: its layers in the config's order, its calls in the order of computation."""

    name: str
    layers: tuple[RawLayer, ...]
    calls: tuple[Call, ...]
    inputs: tuple[str, ...]
    outputs: tuple[Tensor, ...]
    build_shape: tuple[int | None, ...] | None = None
    sequential: bool = False  # returns all outputs of its last layer, not ``outputs``

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


def safe_names(paths: Sequence[str]) -> dict[str, str]:
    """Return names that can be keys of the file: no slashes, none that the file reserves."""
    names: dict[str, str] = {}
    taken = {".", "..", *RESERVED}
    for path in paths:
        name = _UNSAFE.sub("_", display_path(path))
        while name in taken:
            name += "_"
        taken.add(name)
        names[path] = name
    return names


_FIRST = ("inputs", "sequences", "sequence")  # names of a layer's first argument


def read_tensors(value: Any, label: str) -> list[Tensor]:
    """Read ``[["lstm", 0, 0], ...]``, the bare ``["lstm", 0, 0]`` of Keras 3, lists in lists."""
    if isinstance(value, list) and value and isinstance(value[0], str):
        value = [value]
    if isinstance(value, Mapping):
        raise UnsupportedError(
            f"{label}: given by name, {', '.join(map(str, value))}; rebuild the model with a list"
        )
    if not isinstance(value, list) or not value:
        raise FormatError(f"model config: {label}: expected a list of tensors, got {value!r:.80}")
    tensors: list[Tensor] = []
    for entry in value:
        nested = isinstance(entry, list) and entry and isinstance(entry[0], list)
        tensors += read_tensors(entry, label) if nested else [_tensor(entry, label)]
    return tensors


def _tensor(entry: Any, label: str) -> Tensor:
    match entry:
        case [str(layer), int(call), int(output), *_]:
            return Tensor(layer, call, output)
    raise FormatError(f"model config: {label}: expected [layer, call, output], got {entry!r:.80}")


def read_call(layer: str, number: int, node: Any) -> Call:
    """Read one call, in the dialect of Keras 1 and 2 (lists) or 3 (args and kwargs)."""
    if isinstance(node, Mapping) and "args" in node:
        return _read_keras_3(layer, number, node)
    if isinstance(node, Mapping):
        return Call(layer, number, (), problem="is called with inputs by name")
    if isinstance(node, list) and node and isinstance(node[0], str):
        node = [node]  # one tensor, not wrapped
    if not isinstance(node, list):
        raise FormatError(f"model config: {layer}: expected a call, got {node!r:.80}")
    inputs: list[Tensor] = []
    options: dict[str, tuple[Tensor, ...]] = {}
    positional: list[Any] = []
    keywords: dict[str, Any] = {}
    problem = ""
    for entry in _unwrap_list(node):
        if isinstance(entry, list) and entry and entry[0] == "_CONSTANT_VALUE":
            problem = "is called with a number"
            positional.append(entry[2] if len(entry) > 2 else None)
        else:
            positional.append(Slot(len(inputs)))
            inputs.append(_tensor(entry, layer))
        given = entry[3] if len(entry) > 3 else None
        if given is not None and not isinstance(given, Mapping):
            raise FormatError(f"model config: {layer}: expected an object, got {given!r:.80}")
        for key, value in (given or {}).items():
            tensors = tuple(_listed_tensors(value))
            if tensors:
                options[key] = tensors
            else:
                keywords[key] = value
    return Call(layer, number, tuple(inputs), options, problem, (), tuple(positional), keywords)


def _read_keras_3(layer: str, number: int, node: Mapping[str, Any]) -> Call:
    inputs = [*_keras_tensors(layer, node["args"])]
    options: dict[str, tuple[Tensor, ...]] = {}
    problems: list[str] = []
    for value in _flat([node["args"], list(_values(node.get("kwargs")))]):
        if isinstance(value, Mapping) and "class_name" not in value:
            problems.append("is called with inputs by name")
        elif isinstance(value, Mapping) and value["class_name"] != "__keras_tensor__":
            problems.append("is called with a constant")
    kwargs = node.get("kwargs", {})
    if not isinstance(kwargs, Mapping):
        raise FormatError(f"model config: {layer}: kwargs: expected an object, got {kwargs!r:.80}")
    keywords: dict[str, Any] = {}
    for key, value in kwargs.items():
        tensors = tuple(_keras_tensors(layer, value))
        if tensors and not inputs and key in _FIRST:
            inputs += tensors
        elif tensors:
            options[key] = tensors
        else:
            keywords[key] = value
    numbers = tuple(v for v in _flat(node["args"]) if type(v) in (int, float))
    slots = itertools.count()
    given = node["args"] if isinstance(node["args"], list) else [node["args"]]
    positional = tuple(_with_slots(value, slots) for value in given)
    problem = "; ".join(problems)
    return Call(layer, number, tuple(inputs), options, problem, numbers, positional, keywords)


def _unwrap_list(node: list[Any]) -> list[Any]:
    """Return the inner list of ``[[tensor, ...]]``, the form of TensorFlow's functions."""
    if len(node) == 1 and isinstance(node[0], list) and node[0] and isinstance(node[0][0], list):
        inner: list[Any] = node[0]
        return inner
    return node


def _with_slots(value: Any, slots: Iterator[int]) -> Any:
    """Return arguments with a slot for each tensor, in the order of :func:`_keras_tensors`."""
    if isinstance(value, Mapping) and value.get("class_name") == "__keras_tensor__":
        return Slot(next(slots))
    if isinstance(value, (list, tuple)):
        return [_with_slots(entry, slots) for entry in value]
    return value


def _values(arguments: Any) -> Iterator[Any]:
    return iter(arguments.values()) if isinstance(arguments, Mapping) else iter(())


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, (list, tuple)):
        for entry in value:
            yield from _flat(entry)
    else:
        yield value


def _listed_tensors(value: Any) -> Iterator[Tensor]:
    """Find tensors in an argument of Keras 2: ``["lstm", 0, 1]``, or a list of such."""
    match value:
        case [str(layer), int(call), int(output), *_]:
            yield Tensor(layer, call, output)
        case [*entries]:
            for entry in entries:
                yield from _listed_tensors(entry)


def _keras_tensors(layer: str, value: Any) -> Iterator[Tensor]:
    """Find every tensor in the nested arguments of a Keras 3 call."""
    if isinstance(value, Mapping):
        if value.get("class_name") == "__keras_tensor__":
            config = value.get("config")
            history = config.get("keras_history") if isinstance(config, Mapping) else None
            yield _tensor(history, layer)
        else:
            for entry in value.values():
                yield from _keras_tensors(layer, entry)
    elif isinstance(value, (list, tuple)):
        for entry in value:
            yield from _keras_tensors(layer, entry)
