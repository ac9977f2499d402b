"""Operations of traced programs that read and write entries by index.

See :mod:`npylstm_converters.torch.ops`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from npylstm.ops.gathering import Take
from npylstm.ops.indexing import Select, Slice
from npylstm.ops.shaping import Concatenate, Expand, Reshape, Transpose
from npylstm_converters.errors import Refusal
from npylstm_converters.toolkit import array_ops, index_ops
from npylstm_converters.torch import shape_ops
from npylstm_converters.torch.builder import (
    ConstantTensor,
    FilledTensor,
    RangeTensor,
    Ref,
    ScatteredTensor,
    SymbolicSize,
)
from npylstm_converters.torch.calls import Call

__all__ = [
    "arange", "argsort", "copy", "gather", "index", "index_select", "one_hot", "scatter_value",
    "select_scatter", "slice_scatter", "sort", "take_along", "top_k",
]  # fmt: skip


def arange(call: Call, start: Any = 0, step: Any = 1) -> Any:
    """Return ``start, start + step, ...``; a constant if its size is known."""
    import torch

    (size,) = call.traced[0]
    if isinstance(size, int) and isinstance(start, (int, float)) and isinstance(step, (int, float)):
        return ConstantTensor(torch.arange(size, dtype=torch.float64) * step + start)
    if not isinstance(start, (int, float)) or not isinstance(step, (int, float)):
        raise Refusal("with a start or a step that depends on the inputs")
    return RangeTensor(float(start), float(step), (size,))


def index(call: Call, x: Any, indices: Sequence[Any]) -> Any:
    """Return ``x[indices]``: one axis by a tensor, or two of which one counts the rows."""
    given = [(axis, at) for axis, at in enumerate(indices) if at is not None]
    if any(call.is_bool(at) for _, at in given):
        raise Refusal("by truth values: how many entries there are depends on the numbers")
    if len(given) == 1:
        (axis, at) = given[0]
        return _take(call, x, axis, at)
    if len(given) == 2 and given[1][0] == given[0][0] + 1:
        rows = [axis for axis, at in given if _counts(at, x.traced[axis])]
        if rows:
            return _row_by_row(
                call, call.tensor(x), rows[0], *(p for p in given if p[0] != rows[0])
            )
    raise Refusal("by several tensors is not supported, except x[torch.arange(x.size(0)), i]")


def _counts(at: Any, size: Any) -> bool:
    """Whether indices are all entries of an axis, in order."""
    return isinstance(at, RangeTensor) and at.is_whole(size)


def _row_by_row(call: Call, x: Ref, rows: int, other: tuple[int, Any]) -> Ref:
    """Take from every row the entries of its own indices; the rows come first."""
    axis, at = other
    first = min(rows, axis)
    if rows > axis:  # the rows are the second of the two axes
        order = [*range(call.rank(x))]
        order[rows], order[axis] = axis, rows
        x = call.add(Transpose(tuple(order)), x, part="rows")
    made = call.tensor(at)
    return call.add(Take(first + 1, batch_dims=first + 1), x, made) if not first else _refuse()


def _refuse() -> Ref:
    raise Refusal("by several tensors is supported on the first two axes only")


def _take(call: Call, x: Any, axis: int, at: Any) -> Any:
    if isinstance(at, RangeTensor) and at.is_whole(x.traced[axis]):
        return x
    if isinstance(at, ConstantTensor):
        return index_ops.take(call, x, at.value.long().numpy(), axis)
    return index_ops.take(call, x, at, axis)


def index_select(call: Call, x: Any, axis: int, index: Any) -> Any:
    """Take entries along an axis."""
    return _take(call, x, call.axis(x, axis), index)


def gather(call: Call, x: Any, index: Any, axis: Any) -> Any:
    """Take, for every index, the entry at this place."""
    return index_ops.take_along_axis(call, x, index, axis)


def take_along(call: Call, x: Any, index: Any, axis: Any) -> Any:
    """Take, for every index, the entry at this place; the indices are broadcast."""
    index = call.tensor(index)
    if index.traced != call.traced[0]:
        sizes, sources = call.builder.sizes(call.traced[0], [index])
        index = call.add(Expand(sizes), *sources, part="index")
    return gather(call, x, index, axis)


def scatter_value(call: Call, x: Any, axis: int, index: Any, value: Any) -> Any:
    """Write one number at every index."""
    number = call.number(value)
    if number is None:
        raise Refusal("with a value that is a tensor")
    at = call.tensor(index)
    updates = call.builder.ref(FilledTensor(number, at.traced), f"{call.node}_value")
    return index_ops.scatter_elements()(call, x, at, updates, axis)


def one_hot(call: Call, x: Any, num_classes: int) -> Any:
    """Return 1 at the index along a new last axis, else 0."""
    if num_classes < 0:
        raise Refusal("without num_classes: how many there are depends on the numbers")
    return index_ops.one_hot(call, x, num_classes)


def top_k(call: Call, x: Any, k: Any, axis: int = -1, largest: bool = True) -> list[Any]:
    """Return the largest entries and their indices."""
    results = ("values", "indices")
    return [array_ops.top_k(result)(call, x, k, axis, largest) for result in results]


def sort(call: Call, x: Any, axis: int = -1, descending: bool = False) -> list[Any]:
    """Return sorted entries and their indices."""
    return top_k(call, x, None, axis, descending)


def argsort(call: Call, x: Any, axis: int = -1, descending: bool = False) -> Any:
    """Return the indices of the sorted entries."""
    return array_ops.top_k("indices")(call, x, None, axis, descending)


def copy(call: Call, src: Any) -> Any:
    """Return the source in the shape of the output."""
    return shape_ops.expand(call, src)


def select_scatter(call: Call, x: Any, src: Any, axis: int, index: Any) -> Any:
    """Return ``x`` with ``x[index] = src`` along an axis."""
    axis = call.axis(x, axis)
    size = x.traced[axis]
    if isinstance(index, SymbolicSize):
        index = index.size - size
        index = int(index) if getattr(index, "is_Integer", False) else None
    if not isinstance(index, int):
        raise Refusal("by an index that depends on the inputs")
    piece = call.builder.ref(src, f"{call.node}_source")
    if isinstance(size, int):
        return ScatteredTensor.of(x, axis).with_piece(index % size, piece)
    source = call.tensor(x)
    sizes: list[Any] = [(0, k) for k in range(call.rank(piece))]
    one = call.add(Reshape((*sizes[:axis], 1, *sizes[axis:])), piece, part="entry")
    ends = (Slice(axis, 0, index), Slice(axis, index + 1)) if index != -1 else (Slice(axis, 0, -1),)
    parts = [call.add(end, source, part="rest") for end in ends if index or end.start]
    parts.insert(0 if index == 0 else 1, one)
    return call.add(Concatenate(axis), *parts)


def slice_scatter(
    call: Call, x: Any, src: Any, axis: int = 0, start: Any = None, step: int = 1
) -> Any:
    """Return ``x`` with ``x[start:end] = src`` along an axis."""
    axis = call.axis(x, axis)
    size = x.traced[axis]
    start = start or 0
    if start == 0 and src.traced[axis] == size and step == 1:
        return src
    piece = call.builder.ref(src, f"{call.node}_source")
    if not isinstance(start, int) or step != 1:
        raise Refusal("with a bound that depends on the inputs, or with a step")
    if isinstance(size, int):
        whole = ScatteredTensor.of(x, axis)
        first = max(start + size, 0) if start < 0 else start
        for k in range(int(piece.traced[axis])):
            entry = call.add(Select(axis, k), piece, part="entry")
            whole = whole.with_piece(first + k, entry)
        return whole
    raise Refusal("along an axis whose size is free")
