"""How much rounding a model amplifies: its float64 runs, exact and moved by one unit each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from npylstm.layers.base import Array
from npylstm.model import Model
from npylstm.spec import Case, ModelSpec

__all__ = ["PERTURBATIONS", "float64_runs", "moved", "perturbed"]

# The noise is the larger of two measures: npylstm's own error against the float64 run, and what
# becomes of the float64 run when every weight and input is moved by up to one unit in the last
# place. The second shows how far this model amplifies rounding even where npylstm is lucky, and is
# the only one where npylstm itself computes in float64.
PERTURBATIONS = 2

Outputs = list[Mapping[str, Array]]


def float64_runs(spec: ModelSpec, cases: Sequence[Case]) -> tuple[Outputs, list[Outputs]]:
    """Run the cases in float64: once exactly, and with everything moved.

    Returns
    -------
    exact
        For each case the outputs by name.
    moved
        The same for every one of ``PERTURBATIONS`` perturbed models.
    """
    oracle = Model(spec.with_cases(()).astype("float64"), "numpy")
    exact: Outputs = [oracle.replay(case) for case in cases]
    others: list[Outputs] = []
    for seed in range(PERTURBATIONS):
        other, inputs = perturbed(spec, cases, seed)
        model = Model(other, "numpy")
        others.append([model.replay(case) for case in inputs])
    return exact, others


def moved(array: Array, eps: float, rng: np.random.Generator) -> Array:
    """Move every value by up to one unit in the last place ``eps``; returns float64."""
    other: Array = array.astype(np.float64) * (1 + eps * rng.uniform(-1, 1, array.shape))
    return other


def perturbed(
    spec: ModelSpec, cases: Sequence[Case], seed: int
) -> tuple[ModelSpec, tuple[Case, ...]]:
    """Move every weight, input and state by up to one unit in the last place of the model's type.

    Returns
    -------
    spec, cases
        In float64, without the cases' outputs.
    """
    rng, eps = np.random.default_rng(seed), float(np.finfo(spec.dtype).eps)
    whole = {t.name for t in spec.inputs if t.whole}  # ids are exact

    def move(array: Array) -> Array:
        return moved(array, eps, rng) if array.dtype.kind == "f" else array

    layers = tuple(
        replace(layer, weights={k: move(w) for k, w in layer.weights.items()})
        for layer in spec.layers
    )
    inputs = tuple(
        Case(
            {k: x if k in whole else move(x) for k, x in case.inputs.items()},
            {},
            {k: {n: move(a) for n, a in v.items()} for k, v in case.state.items()},
            case.lengths,
        )
        for case in cases
    )
    return replace(spec, layers=layers, dtype="float64", cases=()), inputs
