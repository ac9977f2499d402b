"""Arithmetic with shapes whose sizes may be symbols.

A symbol is a string. ``"batch*steps"`` is what row-major merging of the axes ``batch`` and
``steps`` gives, in that order; everything else is a name.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from npylstm.errors import FormatError, MixedSamplesError, UnequalError
from npylstm.ops.base import BATCH, Dim, Shape, format_shape

__all__ = [
    "UNKNOWN",
    "axis_of",
    "batch_axes",
    "between",
    "broadcast",
    "divide",
    "expect_batch",
    "factors",
    "holds_batch",
    "keep_batch",
    "merged",
    "name_size",
    "product",
    "split_batch_alike",
]

UNKNOWN = "unknown"  # a size whose formula got too long to be of use
_LONGEST = 160


def product(dims: Sequence[Dim]) -> Dim:
    """Multiply sizes; a product with a symbol is a symbol."""
    numbers = math.prod(d for d in dims if isinstance(d, int))
    symbols = [d for d in dims if isinstance(d, str)]
    if not symbols:
        return numbers
    symbol = "*".join([*([str(numbers)] if numbers != 1 else []), *symbols])
    return symbol if len(symbol) <= _LONGEST else UNKNOWN


def factors(dims: Sequence[Dim]) -> list[Dim]:
    """Take merged sizes apart, in row-major order, without ones."""
    parts: list[Dim] = []
    for dim in dims:
        for part in [dim] if isinstance(dim, int) else dim.split("*"):
            parts.append(int(part) if isinstance(part, str) and part.isdigit() else part)
    return [p for p in parts if p != 1]


def divide(parts: Sequence[Dim], by: Sequence[Dim]) -> list[Dim] | None:
    """Divide one product of sizes by another: the factors that are left; None if it does not go."""
    left = list(parts)
    for part in by:
        if part in left:
            left.remove(part)
            continue
        numbers = math.prod(d for d in left if isinstance(d, int))
        if not isinstance(part, int) or numbers % part:
            return None
        left = [d for d in left if isinstance(d, str)]
        left[:0] = [numbers // part] if numbers != part else []
    return left


def between(parts: Sequence[Dim], before: Sequence[Dim], after: Sequence[Dim]) -> list[Dim] | None:
    """Take factors off both ends, row-major; what is left stands in its order, or None."""
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
            if isinstance(first, str) or isinstance(part, str):
                return None
            if first % part == 0:  # a part of an axis
                left[0] = first // part
                break
            if part % first:
                return None
            part //= first
            del left[0]
    return left


def merged(dims: Sequence[Dim]) -> Dim:
    """Merge axes in row-major order; unlike in :func:`product` the order is kept."""
    parts = factors(dims)
    if all(isinstance(p, int) for p in parts):
        return math.prod(int(p) for p in parts)
    symbol = "*".join(map(str, parts))
    return symbol if len(symbol) <= _LONGEST else UNKNOWN


def name_size(text: str) -> str:
    """Make a symbol of a formula; it is never taken apart again."""
    symbol = text.replace("*", ".")
    return symbol if len(symbol) <= _LONGEST else UNKNOWN


def holds_batch(dim: Dim) -> bool:
    """Whether an axis is the batch, or the batch merged with others."""
    return isinstance(dim, str) and BATCH in dim.split("*")


def batch_axes(shape: Shape) -> int:
    """Count the axes that are the batch or hold it; more than one would pair sample with sample."""
    return sum(map(holds_batch, shape))


def expect_batch(shape: Shape, axis: int = 0) -> None:
    """Refuse an input whose batch is on another axis; shapes without a batch pass."""
    if any(holds_batch(size) for k, size in enumerate(shape) if k != axis):
        raise FormatError(f"expected the batch as axis {axis}, got an input {format_shape(shape)}")


def axis_of(shape: Shape, axis: int) -> int:
    """Check an axis, counted from the front."""
    if not 0 <= axis < len(shape):
        raise FormatError(f"axis {axis} does not fit an input {format_shape(shape)}")
    return axis


def keep_batch(shape: Shape, axis: int, what: str) -> None:
    """Refuse to mix samples: what a model computes for one must not depend on the others.

    The axis is counted from the front.
    """
    if holds_batch(shape[axis_of(shape, axis)]):
        raise MixedSamplesError(
            f"{what} along axis {axis} of {format_shape(shape)}: that is the batch, and samples "
            "would depend on one another (is batch_first as it should be?)"
        )


def split_batch_alike(old: Shape, new: Shape) -> bool:
    """Whether a row-major reshaping leaves every sample's elements with the sample.

    It does if as many elements stand before the batch axis as did.
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
            raise UnequalError(f"shapes {listed} do not fit together", (others[0], others[-1]))
        result.append(others[0] if others else 1)
    return tuple(result)
