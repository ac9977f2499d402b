"""Build tf_keras models in a fraction of the time, with the same numbers.

tf_keras calls each layer with symbolic tensors, to learn the shapes of its outputs, before it ever computes
a number. There it traces a loop over the steps, and, for LSTM and GRU, three functions with their gradients: for
the CPU, for cuDNN, and one that chooses. Shapes need one step only, and without a GPU the CPU's function alone runs.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any


def build_quickly() -> None:
    """Let the recurrent layers of tf_keras trace one step for shapes, and only what a CPU runs."""
    tensorflow: Any = importlib.import_module("tensorflow")
    backend: Any = importlib.import_module("tf_keras.src.backend")
    for kind in ("lstm", "gru"):
        module: Any = importlib.import_module(f"tf_keras.src.layers.rnn.{kind}")
        setattr(module, f"{kind}_with_backend_selection", getattr(module, f"standard_{kind}"))
    if not hasattr(backend.rnn, "every_step"):
        backend.rnn = _one_step_for_shapes(backend.rnn, tensorflow)


def _one_step_for_shapes(every_step: Callable[..., Any], tensorflow: Any) -> Callable[..., Any]:
    def rnn(
        step_function: Any, inputs: Any, initial_states: Any, go_backwards: bool = False,
        mask: Any = None, constants: Any = None, unroll: bool = False, input_length: Any = None,
        time_major: bool = False, zero_output_for_mask: bool = False, return_all_outputs: bool = True,
    ) -> Any:  # fmt: skip
        options = {
            "go_backwards": go_backwards, "constants": constants, "time_major": time_major,
            "zero_output_for_mask": zero_output_for_mask, "return_all_outputs": return_all_outputs,
        }  # fmt: skip
        for_shapes = not tensorflow.executing_eagerly() and str(
            tensorflow.compat.v1.get_default_graph().name
        ).endswith("_scratch_graph")
        if not for_shapes or tensorflow.nest.is_nested(inputs):
            return every_step(
                step_function, inputs, initial_states, mask=mask, unroll=unroll,
                input_length=input_length, **options,
            )  # fmt: skip
        axis = 0 if time_major else 1

        def first_step(x: Any) -> Any:
            return (
                x if x is None else tensorflow.expand_dims(tensorflow.gather(x, 0, axis=axis), axis)
            )

        last, outputs, states = every_step(
            step_function,
            first_step(inputs),
            initial_states,
            mask=first_step(mask),
            unroll=True,
            **options,
        )
        if return_all_outputs:
            steps = inputs.shape[axis]
            count = tensorflow.shape(inputs)[axis] if steps is None else steps
            outputs = tensorflow.repeat(outputs, count, axis)
        return last, outputs, states

    rnn.every_step = every_step  # type: ignore[attr-defined]
    return rnn
