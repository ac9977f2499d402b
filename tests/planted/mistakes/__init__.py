"""The mistakes that people make, by the name that a diagnosis gives them: one row a kind."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np

from planted.mistakes import data, semantics, weights
from planted.mistakes.base import Plant, Planting
from planted.mistakes.unknown import unknown
from planted.program import Run

__all__ = ["FITTED", "TABLE", "Planting", "plantings"]

TABLE: dict[str, Plant] = {
    "gates_permuted": weights.gates_permuted,
    "kernel_transposed": weights.kernel_transposed,
    "recurrent_kernel_transposed": weights.recurrent_kernel_transposed,
    "bias_missing": weights.bias_missing,
    "bias_doubled": weights.bias_doubled,
    "forget_bias": weights.forget_bias,
    "activation": semantics.activation,
    "recurrent_activation": semantics.recurrent_activation,
    "reset_after": semantics.reset_after,
    "update_gate_inverted": semantics.update_gate_inverted,
    "state_swapped": semantics.state_swapped,
    "initial_state": semantics.initial_state,
    "direction": semantics.direction,
    "directions_swapped": weights.directions_swapped,
    "merge_mode": semantics.merge_mode,
    "sequence_order": semantics.sequence_order,
    "layout": data.layout,
    "time_shift": data.time_shift,
    "last_step": semantics.last_step,
    "mask": semantics.mask,
    "padding": semantics.padding,
    "epsilon": semantics.epsilon,
    "training_mode": semantics.training_mode,
    "normalization_swapped": weights.normalization_swapped,
    "layers_swapped": weights.layers_swapped,
    "weights_stale": weights.weights_stale,
    "scaling": data.scaling,
    "reduced_precision": data.reduced_precision,
    "output_order": data.output_order,
    "logits": semantics.logits,
}

FITTED = ("scaling", "weights_stale")


def plantings(kind: str, run: Run, seed: int) -> Iterator[Planting]:
    """Yield every form of a mistake that fits the model; the same for the same seed.

    Beside the kinds of the vocabulary there are ``unknown`` and ``pair``: two mistakes at once.
    """
    plant = {"unknown": unknown, "pair": _pairs}.get(kind) or TABLE[kind]
    yield from plant(run, np.random.default_rng([seed, zlib.crc32(kind.encode())]))


def _pairs(run: Run, rng: np.random.Generator, count: int = 8) -> Iterator[Planting]:
    """Draw a few of the many pairs of mistakes of different kinds."""
    for _ in range(count):
        first, second = rng.choice([*TABLE], 2, replace=False)
        seed = int(rng.integers(1 << 30))
        one = _one(str(first), run, seed)
        two = one and _one(str(second), one.run, seed)
        if one and two:
            text = f"{first} {one.variant} + {second} {two.variant}"
            yield Planting("pair", text, two.run, provable=False, listed=False)


def _one(kind: str, run: Run, seed: int) -> Planting | None:
    forms = [p for p in plantings(kind, run, seed) if p.provable]
    return forms[seed % len(forms)] if forms else None
