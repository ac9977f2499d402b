"""Fill rows for products of two tensors.

The last axis of the rows and of the columns are those of a matrix; the kernel goes through all
others, which both tensors or one of them have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from npylstm.kernels.bind_layers import BLOCK_ROWS
from npylstm.kernels.bind_views import View, axis_columns, bits, loops, unread
from npylstm.kernels.calls import Call
from npylstm.kernels.packing import Columns

__all__ = ["bind_dot", "bind_matmul"]

Rows = list[dict[str, int]]


class _Axis(NamedTuple):
    """An axis of a product: its size, and its distances in both tensors and in the output."""

    size: int
    x: int = 0
    other: int = 0
    y: int = 0


def bind_matmul(operation: Any, call: Call) -> Rows:
    """Return rows for the pairs of matrices, with leading axes broadcast."""
    shape = call.outputs[0].shape
    x, other = (
        np.broadcast_to(unread(place), (*shape[:-2], *place.shape[-2:])) for place in call.inputs
    )
    *leading, row = (
        _Axis(size, *at)
        for size, *at in zip(shape[:-1], x.strides, (*other.strides[:-2], 0),
                             unread(call.outputs[0]).strides, strict=False)
    )  # fmt: skip
    terms = _Axis(x.shape[-1], x.strides[-1], other.strides[-2])
    return _bound(call, leading, row, terms, _Axis(shape[-1], other=other.strides[-1]))


def bind_dot(operation: Any, call: Call) -> Rows:
    """Return rows for the products of each sample, with the lengths of vectors if necessary."""
    x, other = (unread(place) for place in call.inputs)
    a, b = operation.along([x.shape, other.shape])
    y = list(unread(call.outputs[0]).strides)
    sample = _Axis(len(x), x.strides[0], other.strides[0], y.pop(0))
    rows = [
        _Axis(x.shape[k], x.strides[k], 0, y.pop(0)) for k in range(1, x.ndim) if k != a
    ]  # fmt: skip
    columns = [
        _Axis(other.shape[k], 0, other.strides[k], y.pop(0)) for k in range(1, other.ndim) if k != b
    ]
    row, column = (axes.pop() if axes else _Axis(1) for axes in (rows, columns))
    terms = _Axis(x.shape[a], x.strides[a], other.strides[b])
    made = _bound(call, [sample, *columns, *rows], row, terms, column)
    own = {"NORMALIZE": int(operation.normalize), "EPSILON": bits(operation.epsilon)}
    return [each | own for each in made]


def _bound(call: Call, leading: Sequence[_Axis], row: _Axis, terms: _Axis, column: _Axis) -> Rows:
    axes = [*leading]
    while axes and _continues(axes[-1], row):  # one matrix of more rows
        row = row._replace(size=row.size * axes.pop().size)
    span, block = Columns(1, column.size, call.vector).size, max(1, min(row.size, BLOCK_ROWS))
    # Zeros, the second matrix, and a block of the result and of the first.
    scratch = call.reserve(span + terms.size * span + block * (span + terms.size))
    sizes, *distances = zip(*axes, strict=True) if axes else ((), (), (), ())
    starts = [place.start for place in (*call.inputs, *call.outputs)]
    views = [View(start, sizes, at) for start, at in zip(starts, distances, strict=True)]
    return [
        axis_columns(inner, X=x, OTHER=other, Y=y)
        | {
            "X": x.start, "OTHER": other.start, "Y": y.start, "SCRATCH": scratch,
            "BLOCK_ROWS": block, "MATRIX_ROWS": row.size, "TERMS": terms.size,
            "COLUMNS": column.size, "X_ROW": row.x, "X_TERM": terms.x, "OTHER_TERM": terms.other,
            "OTHER_COLUMN": column.other, "Y_ROW": row.y,
        }
        for inner, (x, other, y) in loops(sizes, *views)
    ]  # fmt: skip


def _continues(axis: _Axis, row: _Axis) -> bool:
    return axis.other == 0 and (axis.x, axis.y) == (row.size * row.x, row.size * row.y)
