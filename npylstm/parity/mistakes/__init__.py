"""The table of known mistakes: one row each. The function of a row documents how it happens.

Rows are in order of cost; mistakes of one tier are tried together. If several corrections explain
the outputs equally well, the first row is reported first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from npylstm.parity.corrections import Correction, Subject
from npylstm.parity.mistakes import (
    biases,
    cells,
    conventions,
    fits,
    layers,
    masks,
    outputs,
    sequences,
    states,
)  # fmt: skip

__all__ = ["KINDS", "MISTAKES", "Mistake"]


class Mistake(NamedTuple):
    """A known mistake: its kind, its tier, and a function that yields its corrections."""

    kind: str
    tier: int
    find: Callable[[Subject], Iterator[Correction]]
    fitted: bool = False


MISTAKES: tuple[Mistake, ...] = (
    # Reading the outputs, or calling the model, in another way.
    Mistake("output_order", 1, outputs.output_order),
    Mistake("time_shift", 1, sequences.time_shift),
    Mistake("sequence_order", 1, sequences.sequence_order),
    Mistake("layout", 1, sequences.layout),
    Mistake("state_swapped", 1, states.state_swapped),
    Mistake("initial_state", 1, states.initial_state),
    Mistake("mask", 1, masks.mask),
    Mistake("logits", 1, outputs.logits),
    # One change of a layer.
    Mistake("direction", 1, sequences.direction),
    Mistake("direction", 1, sequences.both_forwards),
    Mistake("directions_swapped", 1, layers.directions_swapped),
    Mistake("merge_mode", 1, conventions.merge_mode),
    Mistake("last_step", 1, sequences.last_step),
    Mistake("padding", 1, conventions.padding),
    Mistake("epsilon", 1, conventions.epsilon),
    Mistake("training_mode", 1, layers.training_mode),
    Mistake("training_mode", 1, outputs.output_dropout),
    Mistake("normalization_swapped", 1, layers.normalization_swapped),
    Mistake("reset_after", 1, conventions.reset_after),
    Mistake("update_gate_inverted", 1, conventions.update_gate_inverted),
    Mistake("forget_bias", 1, conventions.forget_bias),
    Mistake("bias_missing", 1, cells.bias_missing),
    Mistake("bias_missing", 1, layers.layer_bias),
    Mistake("bias_doubled", 1, cells.bias_doubled),
    Mistake("bias_doubled", 1, layers.layer_bias_doubled),
    # One change of a layer with many candidates.
    Mistake("gates_permuted", 2, cells.gates_permuted),
    Mistake("kernel_transposed", 2, cells.kernel_transposed),
    Mistake("kernel_transposed", 2, layers.layer_kernel_transposed),
    Mistake("recurrent_kernel_transposed", 2, cells.recurrent_kernel_transposed),
    Mistake("recurrent_activation", 2, cells.recurrent_activation),
    Mistake("activation", 2, layers.activation),
    Mistake("layers_swapped", 2, layers.layers_swapped),
    Mistake("weights_stale", 2, layers.weights_of_another_layer),
    Mistake("reduced_precision", 2, outputs.reduced_precision),
    Mistake("reduced_precision", 2, outputs.float16_outputs),
    # Rarer or more expensive.
    Mistake("initial_state", 3, states.state_reset),
    Mistake("initial_state", 3, states.state_reset_inside),
    Mistake("gates_permuted", 3, cells.gates_of_one_letter_permuted),
    Mistake("kernel_transposed", 3, cells.kernel_in_other_order),
    Mistake("recurrent_kernel_transposed", 3, cells.recurrent_kernel_in_other_order),
    Mistake("last_step", 3, sequences.other_step),
    Mistake("normalization_swapped", 3, layers.normalization_permuted),
    # Fitted to the outputs.
    Mistake("reduced_precision", 4, biases.two_biases_rounded, fitted=True),
    Mistake("scaling", 4, fits.scaling, fitted=True),
    Mistake("weights_stale", 4, fits.weights_stale, fitted=True),
    Mistake("scaling", 4, fits.scaling_of_inputs, fitted=True),
    Mistake("bias_missing", 4, biases.one_bias_missing, fitted=True),
)

KINDS = tuple(dict.fromkeys(mistake.kind for mistake in MISTAKES))
TIERS = max(mistake.tier for mistake in MISTAKES)
