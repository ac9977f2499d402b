"""Arithmetic with shapes whose sizes may be symbols.

A symbol is a string. ``"batch*steps"`` is the size of the axes ``batch`` and ``steps`` merged in
row-major order; every other string is a name.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

from npylstm.errors import SizeMismatchError

__all__ = [
    "BATCH",
    "STEPS",
    "UNKNOWN",
    "Dim",
    "Shape",
    "batch_axes",
    "between",
    "broadcast",
    "divide",
    "drop_axis",
    "factors",
    "format_shape",
    "holds_batch",
    "keeps_samples_separate",
    "merged",
    "plus",
    "product",
    "resize_axis",
    "size_symbol",
    "split_offset",
    "unmatched_factors",
]

Dim = int | str
Shape = tuple[Dim, ...]
Size = TypeVar("Size", bound=Dim)

BATCH = "batch"
STEPS = "steps"

UNKNOWN = "unknown"  # a size whose formula is too long
_LONGEST = 160


def format_shape(shape: Sequence[Dim | None]) -> str:
    """Format a shape: ``(batch, steps, 3)``."""
    inner = ", ".join(str(d) for d in shape)
    return f"({inner},)" if len(shape) == 1 else f"({inner})"


def drop_axis(shape: Sequence[Size], axis: int) -> tuple[Size, ...]:
    """Return a shape without one of its axes."""
    return (*shape[:axis], *shape[axis + 1 :])


def resize_axis(shape: Sequence[Size], axis: int, size: Size) -> tuple[Size, ...]:
    """Return a shape with another size of one of its axes."""
    return (*shape[:axis], size, *shape[axis + 1 :])


def product(dims: Sequence[Dim]) -> Dim:
    """Multiply sizes; a product with a symbol is a symbol."""
    numbers = math.prod(d for d in dims if isinstance(d, int))
    symbols = [d for d in dims if isinstance(d, str)]
    if not symbols:
        return numbers
    symbol = "*".join([*([str(numbers)] if numbers != 1 else []), *symbols])
    return symbol if len(symbol) <= _LONGEST else UNKNOWN


def factors(dims: Sequence[Dim]) -> list[Dim]:
    """Split merged sizes into their factors, in row-major order, without ones."""
    parts: list[Dim] = []
    for dim in dims:
        for part in [dim] if isinstance(dim, int) else dim.split("*"):
            parts.append(int(part) if isinstance(part, str) and part.isdigit() else part)
    return [p for p in parts if p != 1]


def divide(parts: Sequence[Dim], by: Sequence[Dim]) -> list[Dim] | None:
    """Divide one product of sizes by another; return the remaining factors, or None."""
    left = list(parts)
    for part in by:
        if part in left:
            left.remove(part)
            continue
        numbers = math.prod(d for d in left if isinstance(d, int))
        if not isinstance(part, int) or not part or numbers % part:
            return None
        left = [d for d in left if isinstance(d, str)]
        left[:0] = [numbers // part] if numbers != part else []
    return left


def unmatched_factors(source: Sequence[Dim], target: Sequence[Dim]) -> list[Dim]:
    """Return the factors of two products of sizes that are not in both."""
    mine, theirs = Counter(factors(source)), Counter(factors([d for d in target if d != -1]))
    return [*(mine - theirs).elements(), *(theirs - mine).elements()]


def between(parts: Sequence[Dim], before: Sequence[Dim], after: Sequence[Dim]) -> list[Dim] | None:
    """Remove factors from both ends; return the remaining ones in order, or None."""
    left: list[Dim] | None = _off_front(parts, before)
    if left is not None:
        left = _off_front(left[::-1], after[::-1])
    return None if left is None else left[::-1]


def _off_front(parts: Sequence[Dim], taken: Sequence[Dim]) -> list[Dim] | None:
    left = list(parts)
    for part in taken:
        while part != 1:
            if not left:
                return None
            if left[0] == part:
                del left[0]
                break
            first = left[0]
            if isinstance(first, str) or isinstance(part, str) or not part:
                return None
            if first % part == 0:  # part of an axis
                left[0] = first // part
                break
            if part % first:
                return None
            part //= first
            del left[0]
    return left


def merged(dims: Sequence[Dim]) -> Dim:
    """Merge axes in row-major order; :func:`product` does not keep the order."""
    parts = factors(dims)
    if all(isinstance(p, int) for p in parts):
        return math.prod(int(p) for p in parts)
    symbol = "*".join(map(str, parts))
    return symbol if len(symbol) <= _LONGEST else UNKNOWN


_WITH_OFFSET = re.compile(r"(.+?)([+-][0-9]+)")


def split_offset(size: str) -> tuple[str, int]:
    """Split ``"steps-2"`` into a symbol and a number."""
    match = _WITH_OFFSET.fullmatch(size)
    return (match[1], int(match[2])) if match else (size, 0)


def plus(size: Dim, more: int) -> Dim:
    """Add a number to a size: ``"steps-2"`` plus 2 is ``"steps"``."""
    if isinstance(size, int):
        return size + more
    base, offset = split_offset(size)
    total = offset + more
    return size_symbol(f"{base}{total:+}") if total else base


def size_symbol(text: str) -> str:
    """Return a symbol for a formula; :func:`factors` does not split it."""
    symbol = text.replace("*", ".")
    return symbol if len(symbol) <= _LONGEST else UNKNOWN


def holds_batch(dim: Dim) -> bool:
    """Whether an axis is the batch, or the batch merged with others."""
    return isinstance(dim, str) and BATCH in dim.split("*")


def batch_axes(shape: Shape) -> int:
    """Count the axes that contain the batch; more than one would pair sample with sample."""
    return sum(map(holds_batch, shape))


def keeps_samples_separate(old: Shape, new: Shape) -> bool:
    """Whether a row-major reshape keeps every element in its sample.

    It does if the number of entries before the batch axis does not change.
    """

    def before(shape: Shape) -> tuple[int, Counter[Dim]] | None:
        parts = factors(shape)
        if BATCH not in parts:
            return None
        ahead = parts[: parts.index(BATCH)]
        numbers = math.prod(d for d in ahead if isinstance(d, int))
        return numbers, Counter(d for d in ahead if isinstance(d, str))

    return before(old) == before(new)


def broadcast(shapes: Sequence[Shape]) -> Shape:
    """Apply NumPy's rule of broadcasting to shapes with symbols.

    Raises
    ------
    UnequalError
        If two sizes neither are one nor are known to be equal.
    """
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
    result: list[Dim] = []
    for sizes in zip(*padded, strict=True):
        others = list(dict.fromkeys(d for d in sizes if d != 1))
        if len(others) > 1 or UNKNOWN in others:
            listed = " and ".join(format_shape(shape) for shape in shapes)
            raise SizeMismatchError(f"shapes {listed} do not fit together", (others[0], others[-1]))
        result.append(others[0] if others else 1)
    return tuple(result)
