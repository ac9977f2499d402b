"""What is proven: agreement within rounding, with outputs that can tell one model from another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from npylstm.activations import TABLE, Activation
from npylstm.arrays import Array
from npylstm.errors import UnprovenError
from npylstm.parity.comparison import Comparison
from npylstm.parity.corrections import Correction, count_different
from npylstm.parity.trial import FAILURES, compared_outputs
from npylstm.parity.variants import Tape
from npylstm.spec import ModelSpec

__all__ = ["check_evidence", "proves"]


def check_evidence(spec: ModelSpec, comparisons: Sequence[Comparison]) -> tuple[str, ...]:
    """Name outputs that agree, and of which nothing is proven all the same.

    Values that are nan agree with all nan, the zeros of a dead relu with a thousand wrong models,
    and what a chaotic model gives with anything.

    Raises
    ------
    UnprovenError
        If that holds for every output.
    """
    bounds = _bounds(spec)
    agreeing = dict.fromkeys(c.output for c in comparisons)
    failed = {c.output for c in comparisons if not c.passed}
    told = {c.output for c in comparisons if _telling(c, bounds).any()}
    empty = tuple(name for name in agreeing if name not in failed | told)
    if empty and len(empty) == len(agreeing):
        raise UnprovenError(
            f"{spec.name}: {' and '.join(empty)}: no value of any case can prove anything: all are "
            "nan, infinite, at the bound of a function (such as the zeros of a dead relu), or no "
            "larger than what rounding changes in this model; give other inputs, or check the "
            "weights that were trained"
        )
    return empty


def proves(spec: ModelSpec, tapes: Sequence[Tape], correction: Correction) -> bool:
    """Whether a corrected model gives the outputs of all examples, and these can tell.

    The one judgement of what is proven. A correction that only resembles what was done proves
    nothing, nor does a fit with as many free numbers as there are data, nor agreement with outputs
    that a hundred wrong models give: zeros of a dead relu, ones of a saturated sigmoid.
    """
    if correction.resembles is not None or (correction.free and correction.free >= correction.data):
        return False
    try:
        compared = compared_outputs(spec, tapes, correction)
    except FAILURES:
        return False
    return all(c.passed for c in compared) and _tell(spec, tapes, compared)


# Values that outputs must have, away from the bounds of functions, to tell one model from another.
# A single one agrees by chance with a hundred candidates in a thousand diagnoses; two do not.
_FEWEST_VALUES = 2


def _tell(spec: ModelSpec, tapes: Sequence[Tape], compared: Sequence[Comparison]) -> bool:
    """Whether an output that differed has different values that are no bounds of a function."""
    by_output: dict[str, list[Comparison]] = {}
    for c in compared:
        by_output.setdefault(c.output, []).append(c)
    bounds = _bounds(spec)
    for name, parts in by_output.items():
        if all(_agrees(tapes[c.case].outputs[name], c) for c in parts):
            continue
        values = np.concatenate([c.framework[_telling(c, bounds)] for c in parts])
        if count_different(values[:, None]) >= _FEWEST_VALUES:
            return True
    return False


def _agrees(ours: Array, comparison: Comparison) -> bool:
    with np.errstate(invalid="ignore"):
        off = np.abs(ours.astype(np.float64) - comparison.framework)
    same = (ours == comparison.framework) | (np.isnan(ours) & np.isnan(comparison.framework))
    return bool((same | (off <= comparison.allowed)).all())


def _telling(comparison: Comparison, bounds: Array) -> Array:
    """Which values tell something: large against their tolerance, and no bound of a function."""
    values = comparison.framework.astype(np.float64)
    apart: Array = comparison.telling
    with np.errstate(invalid="ignore"):
        for bound in bounds:
            apart = apart & (np.abs(values - bound) > comparison.allowed)
    return apart


def _bounds(spec: ModelSpec) -> Array:
    """The values at which activation functions saturate: those of the model, and all others."""
    functions = {Activation.of(name) for name, row in TABLE.items() if row.elementwise}
    functions |= {
        a for n in spec.layers for a in vars(n.layer).values() if isinstance(a, Activation)
    }
    far = np.array([-1e6, 1e6])
    with np.errstate(over="ignore", invalid="ignore"):
        ends = np.concatenate([a(far) for a in functions if a.row.elementwise])
    return np.unique(ends[np.abs(ends) < 1e4])
