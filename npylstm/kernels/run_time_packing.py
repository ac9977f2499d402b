"""Pack a tensor as weights are packed (:mod:`npylstm.kernels.packing`), for products of tensors."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from npylstm.kernels.jit import jit
from npylstm.kernels.packing import PANEL
from npylstm.kernels.simd import Lanes, copy, lane_count, offset, width

__all__ = ["fill", "pack_panels", "vectors_of"]


@jit
def vectors_of(like, count):
    """Return the number of vectors for so many columns; ``like`` is a pointer to numbers."""
    return (count + width(like) - 1) // width(like)


@jit
def fill(x, value, count):
    """``x[:count] = value``."""
    for k in range(count):
        x[k] = value


@jit
def pack_panels(w, x, terms, columns, x_term, x_column):
    """Pack a matrix (terms, columns) with these distances into panels; empty lanes are zero."""
    lanes = width(w)
    vectors = vectors_of(w, columns)
    for begin in range(0, vectors, PANEL):
        wide = min(PANEL, vectors - begin) * lanes
        first = begin * lanes
        panel, source = offset(w, first * terms), offset(x, first * x_column)
        filled = min(wide, columns - first)
        if x_column == 1:
            for k in range(terms):
                copy(offset(panel, k * wide), offset(source, k * x_term), filled)
        elif x_term == 1:
            _transpose(panel, wide, source, x_column, terms, filled)
        else:
            for k in range(terms):
                for j in range(filled):
                    panel[k * wide + j] = source[k * x_term + j * x_column]
        for k in range(terms if filled < wide else 0):
            fill(offset(panel, k * wide + filled), 0, wide - filled)


@intrinsic
def _square(typingctx: Any, y: Any, y_row: Any, x: Any, x_row: Any) -> Any:
    """Transpose as many rows as a vector has lanes, of one vector each.

    With each step, numbers of rows ``k`` and ``k + distance`` change places, until the distance has
    been every power of two below the number of lanes.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        y, y_row, x, x_row = args
        lanes = lane_count(x.type.pointee)

        def at(first: Any, distance: Any, k: int) -> Any:
            return builder.gep(first, [builder.mul(distance, ir.Constant(distance.type, k))])

        rows = [Lanes.load(builder, at(x, x_row, k), lanes).value for k in range(lanes)]
        distance = lanes // 2
        while distance:
            for k in range(lanes):
                if k & distance:
                    continue
                a, b = rows[k], rows[k + distance]
                for row, skipped in ((k, 0), (k + distance, distance)):
                    lane = [
                        j - distance + skipped + lanes if j & distance else j + skipped
                        for j in range(lanes)
                    ]
                    order = ir.Constant(ir.VectorType(ir.IntType(32), lanes), lane)
                    rows[row] = builder.shuffle_vector(a, b, order)
            distance //= 2
        for k, row in enumerate(rows):
            Lanes(builder, row).store(at(y, y_row, k))
        return context.get_dummy_value()

    return types.void(y, types.int64, y, types.int64), generate


@jit
def _transpose(w, wide, x, x_column, terms, columns):
    """Copy rows of ``x`` to columns of ``w``, a square of as many numbers as a vector at a time."""
    lanes = width(w)
    whole_terms, whole_columns = terms // lanes * lanes, columns // lanes * lanes
    for j in range(0, whole_columns, lanes):
        for k in range(0, whole_terms, lanes):
            _square(offset(w, k * wide + j), wide, offset(x, j * x_column + k), x_column)
    for k in range(terms):
        for j in range(whole_columns if k < whole_terms else 0, columns):
            w[k * wide + j] = x[j * x_column + k]
