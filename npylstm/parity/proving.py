"""Decide what is proven: agreement within rounding, of outputs that distinguish models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from npylstm.activations import TABLE, Activation
from npylstm.arrays import Array
from npylstm.errors import UnprovenError
from npylstm.parity.comparison import Comparison, by_output, difference
from npylstm.parity.corrections import Correction, count_different
from npylstm.parity.trial import FAILURES, compared_outputs
from npylstm.parity.variants import CachedRun
from npylstm.spec import ModelSpec

__all__ = ["check_evidence", "proves"]


def check_evidence(spec: ModelSpec, comparisons: Sequence[Comparison]) -> tuple[str, ...]:
    """Return the outputs that agree although their values prove nothing.

    nan agrees with nan in any model, and so do the zeros of a dead relu. The tolerance of a chaotic
    model accepts any values.

    Raises
    ------
    UnprovenError
        If no output proves anything.
    """
    bounds = _bounds(spec)
    agreeing = dict.fromkeys(c.output for c in comparisons)
    failed = {c.output for c in comparisons if not c.passed}
    evident = {c.output for c in comparisons if _is_evidence(c, bounds).any()}
    evident |= _indices(spec)
    empty = tuple(name for name in agreeing if name not in failed | evident)
    if empty and len(empty) == len(agreeing):
        raise UnprovenError(
            f"{spec.name}: {' and '.join(empty)}: no value of any case can prove anything: all are "
            "nan, infinite, at the bound of a function (such as the zeros of a dead relu), or no "
            "larger than what rounding changes in this model; give other inputs, or check the "
            "weights that were trained"
        )
    return empty


def proves(spec: ModelSpec, tapes: Sequence[CachedRun], correction: Correction) -> bool:
    """Return whether a corrected model is proven by the outputs of all examples.

    All proofs are decided here. These prove nothing: a correction that only approximates the other
    program, a fit with as many parameters as data, and agreement with outputs that many wrong
    models give, such as the zeros of a dead relu or the ones of a saturated sigmoid.
    """
    if correction.resembles is not None or (correction.free and correction.free >= correction.data):
        return False
    try:
        compared = compared_outputs(spec, tapes, correction)
    except FAILURES:
        return False
    return all(c.passed for c in compared) and _has_evidence(spec, tapes, compared)


# Different values, away from the bounds of functions, that outputs need to distinguish models.
# One value agrees by chance with a hundred candidates in a thousand diagnoses; two do not.
_FEWEST_VALUES = 2


def _has_evidence(
    spec: ModelSpec, tapes: Sequence[CachedRun], compared: Sequence[Comparison]
) -> bool:
    """Return whether an output that differed has enough different values away from bounds."""
    bounds = _bounds(spec)
    for name, parts in by_output(compared).items():
        before = (difference(tapes[c.case].outputs[name], c.framework) for c in parts)
        if all((off <= c.tolerances).all() for off, c in zip(before, parts, strict=True)):
            continue
        values = np.concatenate([c.framework[_is_evidence(c, bounds)] for c in parts])
        if count_different(values[:, None]) >= _FEWEST_VALUES:
            return True
    return False


def _indices(spec: ModelSpec) -> set[str]:
    """Return the outputs that are positions of entries; 0 and 1 are as good as others there."""
    return {e.outputs[0] for e in spec.edges if spec[e.layer].layer.returns_indices}


def _is_evidence(comparison: Comparison, bounds: Array) -> Array:
    """Return which values are evidence: well above their tolerance, not at a function's bound."""
    values = comparison.framework.astype(np.float64)
    evident: Array = comparison.is_evidence
    with np.errstate(invalid="ignore"):
        for bound in bounds:
            evident = evident & (np.abs(values - bound) > comparison.tolerances)
    return evident


def _bounds(spec: ModelSpec) -> Array:
    """Return the values at which activation functions saturate, those of the model and others."""
    functions = {Activation.of(name) for name, row in TABLE.items() if row.elementwise}
    functions |= {a for n in spec.layers for a in n.layer.activations.values()}
    far = np.array([-1e6, 1e6])
    with np.errstate(over="ignore", invalid="ignore"):
        ends = np.concatenate([a(far) for a in functions if a.row.elementwise])
    return np.unique(ends[np.abs(ends) < 1e4])
