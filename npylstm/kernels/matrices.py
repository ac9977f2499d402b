"""The kernel of products of two tensors: pairs of matrices, the second packed first."""

from __future__ import annotations

import math

from numba import float64

from npylstm.kernels.arguments import MATRICES as M
from npylstm.kernels.jit import jit, kernel
from npylstm.kernels.moves import distance
from npylstm.kernels.packing import PANEL
from npylstm.kernels.run_time_packing import fill, pack_panels, vectors_of
from npylstm.kernels.simd import call, copy, number, offset, width

__all__ = ["multiply_matrices"]


@jit
def _normalize(x, count, terms, x_row, x_term, epsilon):
    """Divide rows of ``x`` by their lengths, or by ``epsilon`` if a length is less."""
    for r in range(count):
        total = 0.0
        for k in range(terms):
            value = float64(x[r * x_row + k * x_term])
            total += value * value
        length = math.sqrt(total)
        length = epsilon if length < epsilon else length
        for k in range(terms):
            x[r * x_row + k * x_term] /= length


@jit
def _normalize_packed(w, terms, columns, epsilon):
    """Divide columns of a packed matrix by their lengths."""
    lanes = width(w)
    panel = PANEL * lanes
    size = vectors_of(w, columns) * lanes
    for j in range(columns):
        first = j - j % panel
        _normalize(
            offset(w, first * terms + j - first), 1, terms, 0, min(panel, size - first), epsilon
        )


@jit
def _rows(row, x, scratch, first, n):
    """Return rows of a matrix with contiguous terms: where they are, or copied and normalized."""
    terms, x_row, x_term = row[M.TERMS], row[M.X_ROW], row[M.X_TERM]
    here = offset(x, first * x_row)
    if x_term == 1 and not row[M.NORMALIZE]:
        return here
    for r in range(n):
        for k in range(terms):
            scratch[r * terms + k] = here[r * x_row + k * x_term]
    if row[M.NORMALIZE]:
        _normalize(scratch, n, terms, terms, 1, number(row[M.EPSILON]))
    return scratch


@jit
def _product(row, x, y, packed, zeros, z, copied):
    """Multiply a matrix by a packed one, in blocks of rows."""
    terms, columns, vectors = row[M.TERMS], row[M.COLUMNS], vectors_of(y, row[M.COLUMNS])
    span = vectors * width(y)
    is_copied = row[M.X_TERM] != 1 or row[M.NORMALIZE]
    x_row = terms if is_copied else row[M.X_ROW]
    for first in range(0, row[M.MATRIX_ROWS], row[M.BLOCK_ROWS]):
        n = min(row[M.BLOCK_ROWS], row[M.MATRIX_ROWS] - first)
        here = _rows(row, x, copied, first, n)
        call(row[M.MULTIPLY],
             (z, span, zeros, 0, n, here, x_row, terms, packed, 0, vectors))  # fmt: skip
        for r in range(n):
            copy(offset(y, (first + r) * row[M.Y_ROW]), offset(z, r * span), columns)


@kernel
def multiply_matrices(row, params, state, work):
    """:class:`npylstm.ops.products.MatMul` and :class:`npylstm.ops.products.Dot`."""
    terms, columns = row[M.TERMS], row[M.COLUMNS]
    span = vectors_of(work, columns) * width(work)
    zeros = offset(work, row[M.SCRATCH])
    packed = offset(zeros, span)
    z = offset(packed, terms * span)
    copied = offset(z, row[M.BLOCK_ROWS] * span)
    fill(zeros, 0, span)
    is_packed = -1
    for k in range(row[M.ROWS]):
        x_first = row[M.X] + distance(row, M.SIZE0, M.X_AT0, k)
        other_first = row[M.OTHER] + distance(row, M.SIZE0, M.OTHER_AT0, k)
        y_first = row[M.Y] + distance(row, M.SIZE0, M.Y_AT0, k)
        for i in range(row[M.SIZE4]):
            for j in range(row[M.SIZE5]):
                other = other_first + i * row[M.OTHER_AT4] + j * row[M.OTHER_AT5]
                if other != is_packed:  # one matrix for several
                    pack_panels(packed, offset(work, other), terms, columns,
                                row[M.OTHER_TERM], row[M.OTHER_COLUMN])  # fmt: skip
                    if row[M.NORMALIZE]:
                        _normalize_packed(packed, terms, columns, number(row[M.EPSILON]))
                    is_packed = other
                x = offset(work, x_first + i * row[M.X_AT4] + j * row[M.X_AT5])
                y = offset(work, y_first + i * row[M.Y_AT4] + j * row[M.Y_AT5])
                _product(row, x, y, packed, zeros, z, copied)
