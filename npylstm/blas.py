"""Products that NumPy's BLAS computes in the calling thread, where that takes little more time.

The threads of OpenBLAS wait busily: they take the processor from other work, also between products.
Where no processor is free for them, a product takes a hundred times as long.
"""

from __future__ import annotations

import numpy as np

from npylstm.arrays import Array

__all__ = ["MOST_IN_ONE_THREAD", "matmul", "product"]

# OpenBLAS computes a product with so many multiplications in the calling thread.
MOST_IN_ONE_THREAD = (1 << 19) - 1
# Narrower products, and products of fewer rows, take longer in all than one with threads.
_NARROWEST, _FEWEST_ROWS = 64, 8


def product(x: Array, W: Array) -> Array:
    """Return ``x @ W`` of two matrices, as a new array; W is cut into columns if it is large."""
    if type(W) is not np.ndarray:  # a stand-in defines the operator alone
        return x @ W
    y: Array
    columns = W.shape[1]
    width = MOST_IN_ONE_THREAD // (x.size or 1)
    if width >= columns or width < _NARROWEST or len(x) == 1:
        y = x.dot(W)  # faster than the operator
        return y
    width -= width % 8
    y = np.empty((len(x), columns), x.dtype)
    for k in range(0, columns, width):
        np.matmul(x, W[:, k : k + width], out=y[:, k : k + width])
    return y


def matmul(a: Array, b: Array) -> Array:
    """Return ``a @ b`` of stacks of matrices; those of ``a`` are cut into rows if they are large.

    The bits are nearly always those of one product in one thread.
    """
    made: Array
    if not type(a) is type(b) is np.ndarray or min(a.ndim, b.ndim) < 2:
        made = a @ b
        return made
    rows, columns = a.shape[-2], b.shape[-1]
    height = MOST_IN_ONE_THREAD // (a.shape[-1] * columns or 1)
    if height >= rows or height < _FEWEST_ROWS:
        made = a @ b
        return made
    height -= height % 8
    b = np.ascontiguousarray(b)  # parts of a product with a transposed matrix take longer
    leading = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    made = np.empty((*leading, rows, columns), np.result_type(a, b))
    for k in range(0, rows, height):
        np.matmul(a[..., k : k + height, :], b, out=made[..., k : k + height, :])
    return made
