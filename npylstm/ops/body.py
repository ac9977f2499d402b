"""The graph of one step, inside of an operation that repeats it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from npylstm.arrays import Array
from npylstm.errors import FormatError, NpylstmError, SizeMismatchError
from npylstm.ops.axis_map import At
from npylstm.ops.base import Operation
from npylstm.ops.shapes import Shape

__all__ = ["Body", "Flow", "StepPlan"]


class Flow(NamedTuple):
    """For a tensor, the axes of the inputs that its axes are parallel to, and those it mixes."""

    sources: tuple[frozenset[At], ...]
    mixed: Mapping[At, str]


class Call(NamedTuple):
    """One call of an operation: its name, and the names of tensors."""

    layer: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Body:
    """A graph of operations without state.

    Parameters
    ----------
    inputs
        Names of the input tensors.
    layers
        Names and operations; a weight of an operation is a weight of the body under
        ``LAYER/WEIGHT``.
    calls
        In topological order.
    outputs
        Names of the output tensors.
    """

    inputs: tuple[str, ...]
    layers: tuple[tuple[str, Operation], ...]
    calls: tuple[Call, ...]
    outputs: tuple[str, ...]

    def __post_init__(self) -> None:
        known, names = {*self.inputs}, {name for name, _ in self.layers}
        for call in self.calls:
            missing = [t for t in call.inputs if t not in known]
            if missing or call.layer not in names:
                raise FormatError(f"body: {call.layer} reads {missing or 'no layer'}")
            known |= {*call.outputs}
        unknown = [t for t in self.outputs if t not in known]
        if unknown or len(names) < len(self.layers):
            raise FormatError(f"body: no tensor {unknown}, or two layers of one name")

    @property
    def _operations(self) -> dict[str, Operation]:
        return dict(self.layers)

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of all weights by name."""
        return {
            f"{name}/{key}": shape
            for name, operation in self.layers
            for key, shape in operation.weight_shapes().items()
        }

    def shapes(self, inputs: Sequence[Shape]) -> list[Shape]:
        """Return the shapes of the outputs.

        Raises
        ------
        FormatError
            If an operation does not accept its inputs.
        """
        if len(inputs) != len(self.inputs):
            raise FormatError(f"body: expected {len(self.inputs)} inputs, got {len(inputs)}")
        known = self._all_shapes(inputs)
        return [known[name] for name in self.outputs]

    def _all_shapes(self, inputs: Sequence[Shape]) -> dict[str, Shape]:
        operations = self._operations
        known = dict(zip(self.inputs, inputs, strict=True))
        for call in self.calls:
            try:
                made = operations[call.layer].infer_shapes([known[t] for t in call.inputs])
            except SizeMismatchError as error:
                raise SizeMismatchError(f"{call.layer}: {error}", error.sizes) from None
            except NpylstmError as error:
                error.args = (f"{call.layer}: {error}",)
                raise
            known |= dict(zip(call.outputs, made, strict=True))
        return known

    def multiplications(self, inputs: Sequence[tuple[int, ...]]) -> int:
        """Return about how many multiplications the products of a step have."""
        known: dict[str, Any] = self._all_shapes(inputs)
        operations = self._operations
        return sum(
            operations[call.layer].multiplications([known[t] for t in call.inputs])
            for call in self.calls
        )

    def flow(self, shapes: Sequence[Shape], inputs: Sequence[Flow]) -> list[Flow]:
        """Return where the axes of the outputs come from, for known flows of the inputs."""
        operations, known = self._operations, self._all_shapes(shapes)
        flows = dict(zip(self.inputs, inputs, strict=True))
        for call in self.calls:
            operation = operations[call.layer]
            maps = operation.axis_map([known[t] for t in call.inputs])
            for name, axes in zip(call.outputs, maps, strict=True):
                flows[name] = _through(operation.kind, axes, [flows[t] for t in call.inputs])
        return [flows[name] for name in self.outputs]

    def pack(self, weights: Mapping[str, Array]) -> dict[str, Array]:
        """Return the packed weights of all operations, as ``LAYER/ARRAY``."""
        packed: dict[str, Array] = {}
        for name, operation in self.layers:
            own = {key: weights[f"{name}/{key}"] for key in operation.weight_shapes()}
            packed |= {f"{name}/{key}": array for key, array in operation.pack(own).items()}
        return packed

    def to_json(self) -> dict[str, Any]:
        """Return the graph as JSON values."""
        return {
            "inputs": list(self.inputs),
            "layers": [
                {"name": name, "kind": operation.kind, "config": operation.to_json()}
                for name, operation in self.layers
            ],
            "calls": [[c.layer, list(c.inputs), list(c.outputs)] for c in self.calls],
            "outputs": list(self.outputs),
        }

    @classmethod
    def from_json(cls, value: object) -> Body:
        """Return the graph of JSON values.

        Raises
        ------
        FormatError
            If they do not describe one.
        """
        try:
            assert isinstance(value, Mapping)
            layers = tuple(
                (_text(entry["name"]), Operation.read_layer(entry["name"], entry))
                for entry in value["layers"]
            )
            calls = tuple(
                Call(_text(layer), tuple(map(_text, reads)), tuple(map(_text, makes)))
                for layer, reads, makes in value["calls"]
            )
            inputs, outputs = (tuple(map(_text, value[key])) for key in ("inputs", "outputs"))
        except (AssertionError, KeyError, TypeError, ValueError):
            raise FormatError(f"body: expected a graph, got {value!r:.80}") from None
        return cls(inputs, layers, calls, outputs)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _through(kind: str, axes: Any, inputs: Sequence[Flow]) -> Flow:
    """Return the flow of an output of an operation, from those of its inputs."""
    sources = tuple(
        frozenset(at for k, axis in own for at in inputs[k].sources[axis]) for own in axes.sources
    )
    kept = {at for own in axes.sources for at in own}
    mixed: dict[At, str] = {}
    for k, flow in enumerate(inputs):
        if k in axes.unread:
            continue
        mixed |= flow.mixed
        for axis, own in enumerate(flow.sources):
            if (k, axis) in axes.mixed or (k, axis) in axes.carried or (k, axis) not in kept:
                mixed |= dict.fromkeys(own, axes.mixed.get((k, axis), f"computes {kind}"))
    return Flow(sources, mixed)


class StepPlan:
    """A body laid out for fixed sizes: every step runs the same calls on the same arrays.

    Parameters
    ----------
    body
        The graph.
    packed
        Its weights, as :meth:`Body.pack` returns them.
    shapes
        Of the inputs.
    dtype
        Of all arrays.

    Attributes
    ----------
    inputs
        Arrays to fill.
    outputs
        Arrays to read after :meth:`run`.
    """

    def __init__(
        self, body: Body, packed: Mapping[str, Array], shapes: Sequence[tuple[int, ...]], dtype: Any
    ) -> None:
        self.inputs = [np.zeros(shape, dtype) for shape in shapes]
        arrays = dict(zip(body.inputs, self.inputs, strict=True))
        operations = dict(body.layers)
        own: dict[str, dict[str, Array]] = {name: {} for name in operations}
        for key, array in packed.items():
            name, _, rest = key.partition("/")
            own[name][rest] = array
        self._calls: list[Callable[[], object]] = []
        for call in body.calls:
            calls, made = operations[call.layer].prepare(
                own[call.layer], [arrays[t] for t in call.inputs]
            )
            self._calls += calls
            arrays |= dict(zip(call.outputs, made, strict=True))
        self.outputs = [arrays[name] for name in body.outputs]

    def run(self) -> None:
        """Compute one step."""
        for call in self._calls:
            call()
