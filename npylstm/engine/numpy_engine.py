"""The reference back end: every layer's own NumPy forward pass, one after the other."""

from __future__ import annotations

from collections.abc import Mapping

from npylstm.engine import State
from npylstm.layers.base import Array
from npylstm.layers.lstm import LSTM, Gates
from npylstm.spec import ModelSpec

__all__ = ["NumpyEngine"]


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
        tensors = dict(inputs)
        after: dict[str, dict[str, Array]] = {}
        for edge in self._spec.edges:
            outputs, carried = self.call(edge.layer, [tensors[t] for t in edge.inputs], state)
            tensors |= dict(zip(edge.outputs, outputs, strict=True))
            if carried:
                after[edge.layer] = carried
        return {name: tensors[name] for name in self._spec.outputs}, after

    def call(
        self, layer: str, inputs: list[Array], state: State
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        """Compute one layer."""
        return self._layers[layer].forward(self._packed[layer], inputs, state.get(layer, {}))

    def trace(self, inputs: Mapping[str, Array], state: State) -> dict[str, Gates]:
        """Compute everything that happens inside the recurrent layers."""
        tensors = dict(inputs)
        gates: dict[str, Gates] = {}
        for edge in self._spec.edges:
            layer, read = self._layers[edge.layer], [tensors[t] for t in edge.inputs]
            if isinstance(layer, LSTM):
                gates[edge.layer] = layer.gates(
                    self._packed[edge.layer], read[0], state[edge.layer]
                )
            outputs, _ = self.call(edge.layer, read, state)
            tensors |= dict(zip(edge.outputs, outputs, strict=True))
        return gates
