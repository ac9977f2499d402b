"""A Keras model as a graph: layers with their raw configs, and calls that join them.

:mod:`npylstm_converters.keras.layers` translates the layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

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
]  # fmt: skip

PATH_SEPARATOR = "\x1f"  # separates the names of a model and of its layer; no name contains it

REVERSED = "turned around"  # not a Keras class: a sequence reversed along time
MODELS = ("Model", "Functional", "Sequential")


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
    arguments
        Named arguments without tensors, other than None and False.
    problem
        The part that is not supported.
    numbers
        Positional arguments that are numbers.
    place
        When Keras runs it: for each enclosing model and itself the depth, the layer and the call's
        number. Depths run in falling order; the order within one depth is undefined.
    positional, told
        All positional arguments, with a :class:`Slot` for each of ``inputs``; all named arguments
        without tensors.
    """

    layer: str
    number: int
    inputs: tuple[Tensor, ...]
    options: Mapping[str, tuple[Tensor, ...]] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""
    numbers: tuple[float, ...] = ()
    positional: tuple[Any, ...] = ()
    told: Mapping[str, Any] = field(default_factory=dict)
    place: tuple[Place, ...] = ()

    @property
    def reads(self) -> tuple[Tensor, ...]:
        """All input tensors, those of named arguments last."""
        return (*self.inputs, *(t for tensors in self.options.values() for t in tensors))


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

    def layer(self, name: str) -> RawLayer:
        """Return a layer by name."""
        return next(layer for layer in self.layers if layer.name == name)

    def leaves(self, prefix: str = "") -> Iterator[tuple[str, RawLayer]]:
        """Yield all layers that are not models, with paths, including those of nested models."""
        for layer in self.layers:
            if layer.inner is not None:
                yield from layer.inner.leaves(f"{prefix}{layer.name}{PATH_SEPARATOR}")
            else:
                yield f"{prefix}{layer.name}", layer

    def models(self, prefix: str = "") -> Iterator[str]:
        """Yield the paths of all nested models: prefixes of their layers' paths."""
        for layer in self.layers:
            if layer.inner is not None:
                path = f"{prefix}{layer.name}{PATH_SEPARATOR}"
                if layer.is_model:
                    yield path
                yield from layer.inner.models(path)


def display_path(path: str) -> str:
    """Return a path of :meth:`Graph.leaves` in readable form: ``encoder.lstm``."""
    return path.replace(PATH_SEPARATOR, ".")
