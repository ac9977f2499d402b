"""How much rounding a model amplifies: its float64 runs, exact and moved by one unit each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from npylstm.layers import Masking
from npylstm.layers.base import Array
from npylstm.model import Model
from npylstm.spec import Case, LayerSpec, ModelSpec

__all__ = ["PERTURBATIONS", "Widening", "float64_runs"]

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
    runs: list[Outputs] = []
    for seed in (None, *range(PERTURBATIONS)):
        wide = Widening(spec, seed)
        model = Model(wide.spec, "numpy")
        runs.append([model.replay(wide.case(case)) for case in cases])
    return runs[0], runs[1:]


class Widening:
    """Takes a model and its cases to float64, exactly or moved by a unit in the last place each.

    What is compared for equality must stay equal: ids, and the values that mark padding.

    Parameters
    ----------
    spec
        The model.
    seed
        Of the random moves; None: nothing is moved.
    """

    def __init__(self, spec: ModelSpec, seed: int | None = None) -> None:
        self._spec = spec
        self._dtype = np.dtype(spec.dtype)
        self._rng = None if seed is None else np.random.default_rng(seed)
        self._integer = {t.name for t in spec.inputs if t.integer}
        self._padding = [
            self._dtype.type(n.layer.mask_value)
            for n in spec.layers
            if isinstance(n.layer, Masking)
        ]

    @property
    def spec(self) -> ModelSpec:
        """The model, without cases."""
        layers = tuple(map(self.layer, self._spec.layers))
        return replace(self._spec, layers=layers, dtype="float64", cases=())

    def layer(self, named: LayerSpec) -> LayerSpec:
        """Widen a layer: its weights, and a mask value as the model's own type holds it."""
        layer = named.layer
        if isinstance(layer, Masking):
            layer = replace(layer, mask_value=float(self._dtype.type(layer.mask_value)))
        weights = {k: self.array(w) for k, w in named.weights.items()}
        return replace(named, layer=layer, weights=weights)

    def input(self, name: str, array: Array) -> Array:
        """Widen an input."""
        wide: Array = array.astype(np.float64)
        if name in self._integer or array.dtype.kind != "f":
            return wide
        kept = np.isin(array, self._padding)
        return np.where(kept, wide, self.array(array))

    def array(self, array: Array) -> Array:
        """Widen weights or states."""
        wide: Array = array.astype(np.float64)
        if self._rng is None:
            return wide
        eps = float(np.finfo(self._dtype).eps)
        moved: Array = wide * (1 + eps * self._rng.uniform(-1, 1, array.shape))
        return moved

    def case(self, case: Case) -> Case:
        """Widen the inputs and the state of a case; its outputs are left out."""
        inputs = {k: self.input(k, x) for k, x in case.inputs.items()}
        state = {k: {n: self.array(a) for n, a in own.items()} for k, own in case.state.items()}
        return Case(inputs, {}, state, case.lengths)
