"""Build tf_keras models in a fraction of the time, with the same numbers.

tf_keras calls each layer with symbolic tensors, to learn the shapes of its outputs, before it ever computes
a number. There it traces a loop over the steps, and, for LSTM and GRU, three functions with their gradients: for
the CPU, for cuDNN, and one that chooses. The shapes follow from the layer's options alone, and without a GPU the
CPU's function alone runs.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any


def build_quickly() -> None:
    """Let the recurrent layers of tf_keras compute shapes without a trace, and run what a CPU runs."""
    tensorflow: Any = importlib.import_module("tensorflow")
    for kind in ("lstm", "gru"):
        module: Any = importlib.import_module(f"tf_keras.src.layers.rnn.{kind}")
        setattr(module, f"{kind}_with_backend_selection", getattr(module, f"standard_{kind}"))
    layers: Any = importlib.import_module("tf_keras").layers
    for layer in (layers.RNN, layers.SimpleRNN, layers.LSTM, layers.GRU):
        if "call" in vars(layer) and not hasattr(layer.call, "computing"):
            layer.call = _shapes_alone(layer, layer.call, tensorflow)


def _shapes_alone(layer: Any, computing: Callable[..., Any], tensorflow: Any) -> Callable[..., Any]:
    v1 = tensorflow.compat.v1

    def symbolic(self: Any, inputs: Any, initial_state: Any, constants: Any) -> Any:
        """Tensors of the shapes and types of the outputs, None if they have to be computed."""
        name = "" if tensorflow.executing_eagerly() else str(v1.get_default_graph().name)
        stacked = hasattr(self.cell, "cells") and self.return_state  # nested states
        if type(self) is not layer or constants or stacked or not name.endswith("_scratch_graph"):
            return None
        x, *states = inputs if isinstance(inputs, (list, tuple)) else (inputs,)
        if not isinstance(x, tensorflow.Tensor) or self.unroll:
            return None
        if states or initial_state is not None:
            self._process_inputs([x, *states] if states else x, initial_state, None)  # checks them
        last = self.cell.cells[-1] if hasattr(self.cell, "cells") else self.cell
        shapes = self.compute_output_shape(x.shape)
        tensors = [
            v1.placeholder(last.compute_dtype, s)
            for s in (shapes if self.return_state else [shapes])
        ]
        return tensors if self.return_state else tensors[0]

    def call(
        self: Any, inputs: Any, mask: Any = None, training: Any = None, initial_state: Any = None
    ) -> Any:
        tensors = symbolic(self, inputs, initial_state, None)
        options = {"mask": mask, "training": training, "initial_state": initial_state}
        return computing(self, inputs, **options) if tensors is None else tensors

    def call_with_constants(
        self: Any, inputs: Any, mask: Any = None, training: Any = None, initial_state: Any = None,
        constants: Any = None,
    ) -> Any:  # fmt: skip
        tensors = symbolic(self, inputs, initial_state, constants)
        options = {"mask": mask, "training": training, "initial_state": initial_state}
        return (
            computing(self, inputs, **options, constants=constants) if tensors is None else tensors
        )

    chosen = call_with_constants if layer.__name__ == "RNN" else call
    chosen.computing = computing  # type: ignore[attr-defined]
    return chosen
