"""A Keras model as a graph: layers with their raw configs, and calls that join them.

Nothing here knows what a layer does: translating them is the business of
:mod:`npylstm_converters.keras.layers`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "INSIDE", "MODELS", "TURN", "Call", "Graph", "Place", "RawLayer", "Slot", "Tensor", "shown",
]  # fmt: skip

INSIDE = "\x1f"  # between a model's name and a layer's in it; no name can hold it

TURN = "turned around"  # what is no layer of Keras': a sequence read from its end
MODELS = ("Model", "Functional", "Sequential")


@dataclass(frozen=True)
class RawLayer:
    """A layer as the config describes it; ``inner`` where it is a model itself.

    Attributes
    ----------
    custom
        Registered by the user, not one of Keras' own.
    times
        How many time axes it is called over, inside a model that is called step by step.
    below
        Where in a file the layers of ``inner`` lie, seen from this one.
    stored
        What the file counts it as, if not as its class.
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
        """Whether it is a model itself, and not a layer that is written out as one here."""
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
    """The place of a tensor among the arguments of a call."""

    place: int


@dataclass(frozen=True)
class Call:
    """One call of a layer: on tensors, and with named arguments that may hold tensors.

    Attributes
    ----------
    options
        Named arguments that hold tensors.
    arguments
        Named arguments that hold none, other than None and False.
    problem
        What is not understood.
    numbers
        Positional arguments that are numbers.
    place
        When Keras runs it: for each model around it and itself the depth, which falls, and which
        call it is. Calls of one depth come one after the other, in whatever order.
    positional, told
        All positional arguments, with a :class:`Slot` for each of ``inputs``; all named ones that
        hold no tensors.
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
        """All tensors, those of arguments last."""
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
    sequential: bool = False  # returns all that its last layer returns, not ``outputs``

    def layer(self, name: str) -> RawLayer:
        """Find a layer by name."""
        return next(layer for layer in self.layers if layer.name == name)

    def leaves(self, prefix: str = "") -> Iterator[tuple[str, RawLayer]]:
        """Walk through all layers that are no models, those of models inside with a path."""
        for layer in self.layers:
            if layer.inner is not None:
                yield from layer.inner.leaves(f"{prefix}{layer.name}{INSIDE}")
            else:
                yield f"{prefix}{layer.name}", layer

    def models(self, prefix: str = "") -> Iterator[str]:
        """Walk through the paths of all models inside, which layers in them begin with."""
        for layer in self.layers:
            if layer.inner is not None:
                path = f"{prefix}{layer.name}{INSIDE}"
                if layer.is_model:
                    yield path
                yield from layer.inner.models(path)


def shown(path: str) -> str:
    """Write a path of :meth:`Graph.leaves` as people read it: ``encoder.lstm``."""
    return path.replace(INSIDE, ".")
