"""The data of an output's plots: samples of values, residuals, histograms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from npylstm.arrays import Array
from npylstm.parity.comparison import Comparison

__all__ = ["EQUAL", "Residual", "Sample", "bins", "by_case", "by_step", "histogram", "sample"]

_WORST = 24  # values with the largest differences that a sample always holds
_COLUMNS = 160  # points along the steps
EQUAL = 1e-5  # ratios of error and tolerance below this are counted together


@dataclass(frozen=True)
class Sample:
    """Values of an output from the framework and from npylstm.

    Attributes
    ----------
    framework, ours
        (n,) finite values.
    failed
        (n,) whether they differ by more than rounding explains.
    total, infinite
        The number of values, and of those omitted because one side is not finite.
    """

    framework: Array
    ours: Array
    failed: Array
    total: int
    infinite: int


def sample(parts: Sequence[Comparison], most: int) -> Sample:
    """Return about ``most`` values at equal distances, and those that differ most."""
    total = sum(p.ours.size for p in parts)
    stride = max(1, -(-total // most))
    chosen: list[tuple[Array, Array, Array]] = []
    infinite = 0
    for part in parts:
        ratios = part.error_ratios.reshape(-1)
        theirs, ours = (a.reshape(-1).astype(np.float64) for a in (part.framework, part.ours))
        finite = np.isfinite(theirs) & np.isfinite(ours)
        infinite += int(np.count_nonzero(~finite))
        picked = np.zeros(ratios.size, bool)
        picked[::stride] = True
        if ratios.size > _WORST:
            picked[np.argpartition(ratios, -_WORST)[-_WORST:]] = True
        picked &= finite
        chosen.append((theirs[picked], ours[picked], ratios[picked] > 1))
    framework, ours, failed = (np.concatenate(arrays) for arrays in zip(*chosen, strict=True))
    return Sample(framework, ours, failed, total, infinite)


@dataclass(frozen=True)
class Residual:
    """Shares of the tolerance along the steps of one case, or over the cases.

    Attributes
    ----------
    case
        The number of the case; None if the points are cases.
    places, largest, rms
        (n,) the number of the step or case, the largest share and the rms share there.
    """

    case: int | None
    places: Array
    largest: Array
    rms: Array


def by_step(parts: Sequence[Comparison], axis: int) -> tuple[Residual, ...]:
    """Return the residuals over the steps of every case with more than one step."""
    return tuple(
        _residual(part.case, np.moveaxis(part.error_ratios, axis, 0))
        for part in parts
        if part.ours.size and part.ours.shape[axis] > 1
    )


def by_case(parts: Sequence[Comparison]) -> Residual:
    """Return the residuals over the cases."""
    found = [_residual(None, part.error_ratios.reshape(1, -1)) for part in parts]
    return Residual(
        None,
        np.array([part.case for part in parts]),
        np.concatenate([r.largest for r in found]),
        np.concatenate([r.rms for r in found]),
    )


def _residual(case: int | None, ratios: Array) -> Residual:
    """Return the measures of each row, or of groups of rows if there are too many."""
    rows = ratios.reshape(len(ratios), -1)
    starts = np.arange(0, len(rows), max(1, -(-len(rows) // _COLUMNS)))
    ends = np.append(starts[1:], len(rows))
    runs = [rows[a:b] for a, b in zip(starts, ends, strict=True)]
    with np.errstate(over="ignore"):
        rms = [float(np.sqrt(np.mean(np.square(r)))) if r.size else 0.0 for r in runs]
    return Residual(case, starts, np.array([r.max(initial=0.0) for r in runs]), np.array(rms))


def bins(top: float) -> Array:
    """Return edges of half powers of ten, from ``EQUAL`` to a share of ``top`` or more."""
    high = min(max(top, 10.0), 1e12)
    return np.arange(2 * np.log10(EQUAL), 2 * np.ceil(np.log10(high)) + 1) / 2


def histogram(parts: Sequence[Comparison]) -> tuple[Array, Array]:
    """Count values by their share of the tolerance.

    Returns
    -------
    counts
        (bins + 1,) First the values that are equal or below ``EQUAL``; the last bin includes values
        above the last edge.
    edges
        (bins + 1,) decimal logarithms.
    """
    ratios = [part.error_ratios.reshape(-1) for part in parts]
    finite = [float(s[np.isfinite(s)].max(initial=0.0)) for s in ratios]
    edges = bins(max(finite, default=0.0))
    counts = np.zeros(len(edges), np.int64)
    for part in ratios:
        small = part < EQUAL
        counts[0] += np.count_nonzero(small)
        # 1 itself passes: it belongs to the bin below.
        logs = np.log10(np.maximum(part[~small], EQUAL))
        index = np.clip(np.searchsorted(edges, logs, side="left"), 1, len(edges) - 1)
        counts += np.bincount(index, minlength=len(edges))
    return counts, edges
