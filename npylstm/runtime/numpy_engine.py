"""The reference back end: each layer's NumPy forward pass, in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from npylstm.arrays import Array
from npylstm.errors import NpylstmError
from npylstm.graph.state import State
from npylstm.runtime.engines import Stream
from npylstm.runtime.streams import RunningStream, RunningStreams, Streams
from npylstm.spec import LayerSpec, ModelSpec

__all__ = ["Node", "NumpyEngine"]


def silent() -> np.errstate:
    """Return a context where inf and nan raise no warning, as in the frameworks."""
    return np.errstate(over="ignore", invalid="ignore", divide="ignore")


class Node:
    """A layer with its packed weights."""

    def __init__(self, spec: LayerSpec) -> None:
        self.name = spec.name
        self.layer = spec.layer
        self.packed = spec.layer.pack(spec.factors())

    def compute(
        self, inputs: Sequence[Array], state: Mapping[str, Array], mask: Array | None
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        """Compute the layer; inf and nan raise no warning, as in the frameworks."""
        with silent():
            return self.forward(inputs, state, mask)

    def forward(
        self, inputs: Sequence[Array], state: Mapping[str, Array], mask: Array | None
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        """Compute the layer inside of :func:`silent`."""
        options = {} if mask is None or not self.layer.uses_mask else {"mask": mask}
        try:
            return self.layer.forward(self.packed, inputs, state, **options)
        except NpylstmError as error:
            error.args = (f"{self.name}: {error}",)
            raise


class NumpyEngine:
    """Computes a spec edge by edge."""

    name = "numpy"

    def __init__(self, spec: ModelSpec, weights: NumpyEngine | None = None) -> None:
        self._spec = spec
        self._nodes: Mapping[str, Node] = (
            weights._nodes if weights else {layer.name: Node(layer) for layer in spec.layers}
        )
        self.in_numpy = frozenset(self._nodes)
        self._calls = [(e.name, self._nodes[e.layer], e.inputs, e.outputs) for e in spec.edges]

    def run(
        self, inputs: Mapping[str, Array], state: State, mask: Array | None = None
    ) -> tuple[dict[str, Array], State]:
        tensors, after = self._walk(inputs, state, mask)
        return {name: tensors[name] for name in self._spec.outputs}, after

    def prepared_call(self, shapes: Sequence[tuple[int, ...]], threads: int = 1) -> None:
        return None

    @property
    def checked_inputs(self) -> frozenset[str]:
        return frozenset()

    def with_spec(self, spec: ModelSpec) -> NumpyEngine:
        return NumpyEngine(spec, self)

    def stream(self, spec: ModelSpec, batch: int) -> Stream:
        return RunningStream(self, spec, batch)

    def streams(self, spec: ModelSpec, capacity: int) -> Streams:
        return RunningStreams(self, spec, capacity)

    def trace(
        self, inputs: Mapping[str, Array], state: State, mask: Array | None = None
    ) -> dict[str, Any]:
        """Return the gates and states of the recurrent layers at every step."""
        tensors, _ = self._walk(inputs, state, mask)
        gates: dict[str, Any] = {}
        for edge in self._spec.edges:
            node = self._nodes[edge.layer]
            if not node.layer.is_recurrent:
                continue
            read = [tensors[t] for t in edge.inputs]
            with silent():
                kept = node.layer.trace(node.packed, read, state.get(edge.name, {}), mask)
            name = edge.name
            gates |= (
                {f"{name}/{k}": v for k, v in kept.items()}
                if isinstance(kept, dict)
                else {name: kept}
            )
        return gates

    def _walk(
        self, inputs: Mapping[str, Array], state: State, mask: Array | None
    ) -> tuple[dict[str, Array], State]:
        """Return all tensors, and the state after the last step."""
        tensors = dict(inputs)
        after: State = {}
        with silent():
            for name, node, reads, writes in self._calls:
                read = [tensors[t] for t in reads]
                made, carried = node.forward(read, state.get(name, {}), mask)
                tensors.update(zip(writes, made, strict=True))
                if carried:
                    after[name] = carried
        return tensors, after
