"""The kernel that moves elements: transposes, slices, joins, repeats and fills."""

from __future__ import annotations

from npylstm.kernels.arguments import MOVE as M
from npylstm.kernels.arguments import RANK
from npylstm.kernels.jit import jit, kernel
from npylstm.kernels.simd import copy, number, offset

__all__ = ["distance", "move"]

# Elements of both axes of a tile: its lines stay in the L1 cache while a transposition reads them.
_TILE = 16


@jit
def distance(row, sizes, distances, k):
    """Return how far the k-th entry of all axes but the last two is from the first.

    ``sizes`` and ``distances`` are the first of their columns.
    """
    at = 0
    for axis in range(RANK - 3, -1, -1):
        size = row[sizes + axis]
        if size > 1:
            at += k % size * row[distances + axis]
            k //= size
    return at


@kernel
def move(row, params, state, work):
    """Copy elements from their places in a tensor or a parameter to those in another tensor."""
    outer, inner = row[M.SIZE4], row[M.SIZE5]
    x_row, x_step, y_row, y_step = row[M.X_AT4], row[M.X_AT5], row[M.Y_AT4], row[M.Y_AT5]
    value = type(work[0])(number(row[M.VALUE]))
    source = offset(params, row[M.W]) if row[M.IN_PARAMS] else offset(work, row[M.X])
    for k in range(row[M.ROWS]):
        y = offset(work, row[M.Y] + distance(row, M.SIZE0, M.Y_AT0, k))
        if row[M.IS_NUMBER]:
            for i in range(outer):
                for j in range(inner):
                    y[i * y_row + j * y_step] = value
            continue
        x = offset(source, distance(row, M.SIZE0, M.X_AT0, k))
        if x_step == 1 and y_step == 1:
            for i in range(outer):
                copy(offset(y, i * y_row), offset(x, i * x_row), inner)
        elif outer > 1 and abs(x_row) < abs(x_step):
            _transpose(y, y_row, y_step, x, x_row, x_step, outer, inner)
        else:
            for i in range(outer):
                for j in range(inner):
                    y[i * y_row + j * y_step] = x[i * x_row + j * x_step]


@jit
def _transpose(y, y_row, y_step, x, x_row, x_step, outer, inner):
    """Copy tile by tile."""
    for i0 in range(0, outer, _TILE):
        for j0 in range(0, inner, _TILE):
            for j in range(j0, min(j0 + _TILE, inner)):
                for i in range(i0, min(i0 + _TILE, outer)):
                    y[i * y_row + j * y_step] = x[i * x_row + j * x_step]
