"""The slices of Python, as the operation StridedSlice holds them in numbers and bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from npylstm_converters.errors import Refusal

__all__ = ["strided_slice"]

_FIRST, _LAST = -(1 << 62), (1 << 62) - 1  # bounds of slices that run to an end

Entry = int | str  # a number, or the tensor that is one


@dataclass
class _Parts:
    """What a slice does with each axis: axes behind an ellipsis are counted from the end."""

    bounds: list[tuple[int, Entry, Entry, int]] = field(default_factory=list)
    indices: list[tuple[int, Entry]] = field(default_factory=list)
    inserted: list[int] = field(default_factory=list)  # axes of the result


def strided_slice(
    call: Any, x: str, begin: str, end: str, strides: str, *, begin_mask: int = 0,
    end_mask: int = 0, ellipsis_mask: int = 0, new_axis_mask: int = 0, shrink_axis_mask: int = 0,
) -> str:  # fmt: skip
    """Return what ``x[begin:end:strides, ...]`` means; bit k of a mask is about entry k."""
    begins, ends = _entries(call, begin, "begin"), _entries(call, end, "end")
    steps = call.axes(strides, "strides")
    count = len(steps)
    if len(begins) != count or len(ends) != count:
        raise Refusal(f"expected {count} bounds, got {len(begins)} and {len(ends)}")

    def has(mask: int, k: int) -> bool:
        return bool(mask >> k & 1)

    whole = [k for k in range(count) if has(ellipsis_mask, k)]
    at = whole[0] if whole else count
    parts = _Parts()
    for k in range(count):
        if k == at:
            continue
        behind = range(k, count)
        read = [j for j in behind if not has(new_axis_mask, j)]
        kept = [j for j in behind if has(new_axis_mask, j) or not has(shrink_axis_mask, j)]
        before = [j for j in range(k) if not has(new_axis_mask, j)]
        kept_before = [j for j in range(k) if has(new_axis_mask, j) or not has(shrink_axis_mask, j)]
        axis = len(before) if k < at else -len(read)
        if has(new_axis_mask, k):
            parts.inserted.append(len(kept_before) if k < at else -len(kept))
        elif has(shrink_axis_mask, k):
            parts.indices.append((axis, begins[k]))
        else:
            forwards = steps[k] > 0
            first = (0 if forwards else _LAST) if has(begin_mask, k) else begins[k]
            last = (_LAST if forwards else _FIRST) if has(end_mask, k) else ends[k]
            if (first, last, steps[k]) != (0, _LAST, 1):
                parts.bounds.append((axis, first, last, steps[k]))
    return _written(call, x, parts)


def _written(call: Any, x: str, parts: _Parts) -> str:
    made = x
    if parts.bounds:
        axes, firsts, lasts, steps = zip(*parts.bounds, strict=True)
        inputs = [_vector(call, firsts), _vector(call, lasts), call.integers(axes)]
        final = not parts.indices and not parts.inserted
        made = call.emit(
            "Slice", made, *inputs, call.integers(steps), part="" if final else "slice"
        )
    front = sorted((entry for entry in parts.indices if entry[0] >= 0), reverse=True)
    back = sorted((entry for entry in parts.indices if entry[0] < 0), key=lambda entry: entry[0])
    for k, (axis, index) in enumerate([*front, *back]):
        if axis == 0 and index in (0, -1) and made in call.lowering.last_of:
            made, index = call.lowering.last_of[made], -1
        chosen = call.integers(index) if isinstance(index, int) else index
        final = k == len(parts.indices) - 1 and not parts.inserted
        made = call.emit("Gather", made, chosen, part="" if final else f"index{k}", axis=axis)
    if parts.inserted:
        made = call.emit("Unsqueeze", made, call.integers(parts.inserted))
    return made


def _entries(call: Any, value: str, what: str) -> list[Entry]:
    """Return the bounds: numbers where they are constant."""
    constants = call.lowering.constants
    if value in constants:
        return [int(entry) for entry in np.ravel(constants[value]).tolist()]
    parts = call.lowering.parts.get(value)
    if parts is None:
        raise Refusal(f"{what}: expected numbers, or a vector of numbers put together")
    return [int(constants[name]) if name in constants else name for name in parts]


def _vector(call: Any, entries: Sequence[Entry]) -> str:
    """Return a tensor of bounds."""
    made: str
    if all(isinstance(entry, int) for entry in entries):
        made = call.integers(entries)
        return made
    axis = call.integers([0])
    parts = [
        call.integers([entry])
        if isinstance(entry, int)
        else call.emit("Unsqueeze", entry, axis, part="bound")
        for entry in entries
    ]
    made = call.emit("Concat", *parts, part="bounds", axis=0)
    return made
