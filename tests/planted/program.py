"""A model as plain data: the oracle runs it, the mistakes change it.

``read_spec`` reads the names, configs and arrays of an ``npylstm.ModelSpec`` and nothing else of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
State = Mapping[str, Mapping[str, Array]]
Outputs = dict[str, Array]

CELLS = ("lstm", "gru", "simple_rnn")
GATES = {"lstm": "ifco", "gru": "zrh", "simple_rnn": "h"}


@dataclass(frozen=True)
class Layer:
    """A layer: its kind, config and weights; ``parts`` are the two directions of a bidirectional one.

    ``slips`` are switches of the oracle for mistakes that no config expresses.
    """

    kind: str
    config: Mapping[str, Any]
    weights: Mapping[str, Array]
    parts: Mapping[str, Layer] = field(default_factory=dict)
    slips: Mapping[str, Any] = field(default_factory=dict)

    def config_with(self, **changes: Any) -> Layer:
        return replace(self, config={**self.config, **changes})

    def weights_with(self, changes: Mapping[str, Array]) -> Layer:
        return replace(self, weights={**self.weights, **changes})

    def slips_with(self, **changes: Any) -> Layer:
        return replace(self, slips={**self.slips, **changes})

    def parts_with(self, way: str, part: Layer) -> Layer:
        return replace(self, parts={**self.parts, way: part})

    @property
    def gates(self) -> str:
        return GATES[self.kind]

    @property
    def recurrent(self) -> bool:
        return self.kind in CELLS or bool(self.parts)

    @property
    def cells(self) -> dict[str, Layer]:
        """The recurrent cells by direction: "" for a layer of one direction; none in other layers."""
        return dict(self.parts) or ({"": self} if self.kind in CELLS else {})

    def with_cell(self, way: str, cell: Layer) -> Layer:
        return self.parts_with(way, cell) if way else cell

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of all weights, those of the parts included."""
        own = {k: w.shape for k, w in self.weights.items()}
        return own | {f"{way}/{k}": s for way, p in self.parts.items() for k, s in p.shapes.items()}


@dataclass(frozen=True)
class Call:
    """One call of a layer; the tensors by name."""

    layer: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Program:
    """Layers by name and their calls in order of computation."""

    layers: Mapping[str, Layer]
    calls: tuple[Call, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def with_layer(self, name: str, layer: Layer) -> Program:
        return replace(self, layers={**self.layers, name: layer})

    def cells(self) -> Iterator[tuple[str, str, Layer]]:
        """Layer name, direction and cell of every recurrent cell."""
        for name, layer in self.layers.items():
            for way, cell in layer.cells.items():
                yield name, way, cell

    def heads(self) -> list[str]:
        """Layers whose main output is an output of the model."""
        return [c.layer for c in self.calls if c.outputs[0] in self.outputs]


@dataclass(frozen=True)
class Data:
    """What a model is called with."""

    inputs: Mapping[str, Array]
    state: State | None = None
    lengths: Array | None = None
    mask: Array | None = None


@dataclass(frozen=True)
class Run:
    """Somebody's program: the model, what it is called with, and what is done to the outputs."""

    program: Program
    data: Data
    finish: tuple[Callable[[Outputs], Outputs], ...] = ()
    precision: str = ""  # "float16", "bfloat16": every value stored so; "tf32": factors of products

    def layer(self, name: str, layer: Layer) -> Run:
        return replace(self, program=self.program.with_layer(name, layer))

    def inputs(self, **changes: Any) -> Run:
        return replace(self, data=replace(self.data, **changes))

    def then(self, function: Callable[[Outputs], Outputs]) -> Run:
        return replace(self, finish=(*self.finish, function))


def read_spec(spec: Any) -> Program:
    """Read the data of an ``npylstm.ModelSpec``."""
    layers = {
        layer.name: _layer(layer.kind, layer.config, dict(layer.weights)) for layer in spec.layers
    }
    calls = tuple(Call(e.layer, tuple(e.inputs), tuple(e.outputs)) for e in spec.edges)
    return Program(layers, calls, tuple(t.name for t in spec.inputs), tuple(spec.outputs))


def _layer(kind: str, config: Mapping[str, Any], weights: Mapping[str, Array]) -> Layer:
    if kind != "bidirectional":
        return Layer(kind, config, weights)
    parts = {
        way: _layer(
            config[f"{way}_layer"]["kind"],
            config[f"{way}_layer"]["config"],
            {k.partition("/")[2]: w for k, w in weights.items() if k.startswith(f"{way}/")},
        )
        for way in ("forward", "backward")
    }
    return Layer(kind, {"merge_mode": config["merge_mode"]}, {}, parts)
