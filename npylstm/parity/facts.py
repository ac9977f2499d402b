"""Describe a mismatch in sentences: its size, its position, and its growth over the steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from npylstm.arrays import Array
from npylstm.parity.comparison import Comparison, by_output
from npylstm.spec import ModelSpec

__all__ = ["describe"]


def describe(spec: ModelSpec, comparisons: Sequence[Comparison]) -> tuple[str, ...]:
    """Return sentences that describe the mismatch of every output."""
    facts: list[str] = []
    parts = by_output(comparisons)
    agreeing = [name for name in spec.outputs if all(c.passed for c in parts.get(name, ()))]
    if agreeing:
        facts.append(f"these outputs agree: {', '.join(agreeing)}")
    for name in spec.outputs:
        failed = [c for c in parts.get(name, ()) if not c.passed]
        if failed:
            facts += _of_output(name, max(failed, key=lambda c: c.max_ratio))
    return tuple(facts)


def _of_output(name: str, worst: Comparison) -> Iterator[str]:
    off, time = worst.difference, worst.time
    with np.errstate(invalid="ignore"):
        size = np.abs(worst.framework[np.isfinite(worst.framework)]).max(initial=0.0)
    yield (
        f"output {name} differs by up to {off.max():.3g} of {size:.3g} (case {worst.case}); "
        f"rounding explains {worst.tolerance:.2g}"
    )
    wrong = worst.error_ratios > 1
    yield f"{np.count_nonzero(wrong)} of {off.size} values differ"
    signed = (worst.framework.astype(np.float64) - worst.ours)[np.isfinite(off)]
    if signed.size > 1 and np.ptp(signed) < 1e-3 * np.abs(signed).max(initial=0.0):
        yield f"the difference is the same everywhere: {signed.mean():.6g}"
    if time is not None and off.shape[time] > 1:
        yield from _over_steps(np.moveaxis(off, time, 0), np.moveaxis(wrong, time, 0))


def _over_steps(off: Array, differs: Array) -> Iterator[str]:
    each = off.reshape(len(off), -1).max(axis=1)
    wrong = np.flatnonzero(differs.reshape(len(off), -1).any(axis=1))
    first, last = int(wrong[0]), int(wrong[-1])
    if len(wrong) == 1:
        yield f"only step {first} of {len(each)} differs"
        return
    yield f"steps {first} to {last} of {len(each)} differ"
    head, tail = float(each[first]), float(each[last])
    if tail > 10 * head > 0:
        yield f"the difference grows from {head:.2g} at step {first} to {tail:.2g} at step {last}"
    elif head > 10 * tail > 0:
        yield f"the difference fades from {head:.2g} at step {first} to {tail:.2g} at step {last}"
