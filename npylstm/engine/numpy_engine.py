"""The reference back end: every layer's own NumPy forward pass, one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from npylstm.engine import State
from npylstm.layers.base import Array, Layer
from npylstm.layers.lstm import LSTM, Gates
from npylstm.spec import ModelSpec

__all__ = ["NumpyEngine", "compute"]


def compute(
    layer: Layer, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
) -> tuple[tuple[Array, ...], dict[str, Array]]:
    """Compute one layer; inf and nan pass as they do in the frameworks, without a warning."""
    with np.errstate(over="ignore", invalid="ignore"):
        return layer.forward(packed, inputs, state)


class NumpyEngine:
    """Runs a spec edge by edge."""

    name = "numpy"

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._layers = {layer.name: layer.layer for layer in spec.layers}
        self._packed = {layer.name: layer.layer.pack(layer.weights) for layer in spec.layers}

    def run(
        self, inputs: Mapping[str, Array], state: State
    ) -> tuple[dict[str, Array], dict[str, dict[str, Array]]]:
        tensors, after = self._walk(inputs, state)
        return {name: tensors[name] for name in self._spec.outputs}, after

    def trace(self, inputs: Mapping[str, Array], state: State) -> dict[str, Gates]:
        """Compute everything that happens inside the recurrent layers."""
        tensors, _ = self._walk(inputs, state)
        gates: dict[str, Gates] = {}
        for edge in self._spec.edges:
            layer = self._layers[edge.layer]
            if isinstance(layer, LSTM):
                packed, x = self._packed[edge.layer], tensors[edge.inputs[0]]
                with np.errstate(over="ignore", invalid="ignore"):
                    gates[edge.layer] = layer.gates(packed, x, state[edge.layer])
        return gates

    def _walk(
        self, inputs: Mapping[str, Array], state: State
    ) -> tuple[dict[str, Array], dict[str, dict[str, Array]]]:
        """Compute every tensor, and the state after the last step."""
        tensors = dict(inputs)
        after: dict[str, dict[str, Array]] = {}
        for edge in self._spec.edges:
            name, read = edge.layer, [tensors[t] for t in edge.inputs]
            outputs, carried = compute(
                self._layers[name], self._packed[name], read, state.get(name, {})
            )
            tensors |= dict(zip(edge.outputs, outputs, strict=True))
            if carried:
                after[name] = carried
        return tensors, after
