"""Which entries of outputs move with which entries of inputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from operations.probe import Probe
from operations.sizes import Array

from npylstm.ops.axis_map import Time


def differs(a: Array, b: Array) -> Array:
    """Where two arrays are not the same; nan is nan."""
    both_nan = np.isnan(a) & np.isnan(b)
    unequal: Array = (a != b) & ~both_nan
    return unequal


def moves(probe: Probe, inputs: Sequence[Array], k: int, where: Array) -> list[Array]:
    """Which entries of each output move if some entries of input ``k`` do."""
    state = probe.state(probe.batch_of(inputs))
    before, _ = probe.run(inputs, state)
    found = [np.zeros(y.shape, bool) for y in before]
    for x in probe.moved(k, inputs[k], where):
        changed = [x.astype(probe.dtype) if n == k else old for n, old in enumerate(inputs)]
        after, _ = probe.run(changed, state)
        for mask, old, new in zip(found, before, after, strict=True):
            mask |= differs(old, new)
    return found


def along(shape: tuple[int, ...], axis: int, index: int) -> Array:
    """Mark all the entries at one index of an axis."""
    where = np.zeros(shape, bool)
    where[(slice(None),) * axis + (index,)] = True
    return where


def dependence(
    probe: Probe, inputs: Sequence[Array], times: Sequence[Time], index: int
) -> list[Array]:
    """Which entries of each output move with one step of each input that has a time axis."""
    found: list[Array] | None = None
    for k, time in enumerate(times):
        if isinstance(time, int):
            made = moves(probe, inputs, k, along(inputs[k].shape, time, index))
            found = made if found is None else [a | b for a, b in zip(found, made, strict=True)]
    assert found is not None
    return found


def relation(matrix: Array) -> str:
    """Name what a table ``[from, to]`` of moves says: none, independent, carried or mixed."""
    if not matrix.any():
        return "none"
    if matrix.shape[0] != matrix.shape[1] or np.tril(matrix, -1).any():
        return "mixed"
    return "carried" if np.triu(matrix, 1).any() else "independent"


def relation_along(steps: Sequence[Array], axis: int) -> str:
    """Name the relation of a time axis to an axis of an output; one table of moves per step."""
    rows = [mask.any(axis=tuple(k for k in range(mask.ndim) if k != axis)) for mask in steps]
    return relation(np.array(rows))
