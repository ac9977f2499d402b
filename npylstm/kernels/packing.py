"""The memory layout of weights for the kernels.

Columns of gates are arranged in blocks, so that a cell finds all gates of its units side by side. A
block has as many units as a vector has lanes: first gate, second gate, ... The remaining units are
in narrow blocks of a quarter of a vector, so that few lanes stay empty. Columns are then divided
into panels of vectors; a panel is stored term by term.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from npylstm.arrays import Array
from npylstm.integer_matrix import IntegerMatrix

__all__ = [
    "ALIGNMENT", "GROUP", "PANEL", "ROUNDED_HEAD", "ROUNDED_STEP", "TERMS", "Columns",
    "VectorType", "aligned", "narrow_lanes", "pack_bfloat16", "pack_int8", "pack_product",
    "rounded_size",
]  # fmt: skip

ALIGNMENT = 16  # elements: tensors start on a cache line
PANEL = 4  # vectors of columns in a product
GROUP = 8  # columns of a product that is summed in float64
# Rows that are rounded to 16 bits: elements before the integers, of which the first is the scale,
# and integers in a step of their memory.
ROUNDED_HEAD, ROUNDED_STEP = 16, 64
TERMS = 512  # of a sum of products of 16 by 8 bits: 32512 * 127 * 512 < 2 ** 31


def aligned(size: int, dtype: str) -> Array:
    """Return zeros that start on a cache line."""
    number = np.dtype(dtype)
    buffer = np.zeros(size * number.itemsize + _LINE, np.uint8)
    start = -buffer.ctypes.data % _LINE
    return buffer[start : start + size * number.itemsize].view(number)


_LINE = 64


class VectorType(NamedTuple):
    """The vectors that kernels use: dtype, number of elements, and type of the products' weights.

    ``weights`` is a key of :data:`npylstm.kernels.table.PRODUCTS`.
    """

    dtype: str
    lanes: int
    weights: str


def narrow_lanes(lanes: int) -> int:
    """Return the number of units of a narrow block, for units that do not fill a vector."""
    return max(1, lanes // 4)


class Columns:
    """The order of the columns of ``gates`` times ``units``.

    Attributes
    ----------
    vectors, size
        Number of vectors, and of their elements.
    blocks
        Number of blocks; the remaining units are one more block, which may be empty.
    """

    def __init__(self, gates: int, units: int, vector: VectorType) -> None:
        lanes = vector.lanes
        narrow = narrow_lanes(lanes)
        whole = units // lanes
        parts = -(-(units - whole * lanes) // narrow)
        of = np.arange(whole * lanes + parts * narrow)
        blocks = [of[b * lanes : (b + 1) * lanes] for b in range(whole)]
        rest = whole * lanes
        blocks += [of[rest + p * narrow : rest + (p + 1) * narrow] for p in range(parts)]
        order = [
            np.where(block < units, gate * units + block, -1)
            for block in blocks
            for gate in range(gates)
        ]
        order_flat = np.concatenate(order)
        self.vectors = -(-order_flat.size // lanes)
        self.size = self.vectors * lanes
        self._order = np.full(self.size, -1)
        self._order[: order_flat.size] = order_flat
        self.blocks = whole + 1
        self._lanes = lanes
        self._pack: Any = {"bfloat16": pack_bfloat16, "int8": pack_int8}.get(
            vector.weights, pack_product
        )

    def arrange(self, array: Any) -> Any:
        """Arrange the last axis (gates times units) in this order, with zeros in empty lanes."""
        empty = self._order < 0
        if isinstance(array, IntegerMatrix):
            made = array.columns(self._order)
            return IntegerMatrix(np.where(empty, np.int8(0), made.integers),
                                 np.where(empty, np.float32(0), made.scale))  # fmt: skip
        taken = array[..., self._order]
        return np.where(empty, array.dtype.type(0), taken)

    def pack(self, matrix: Any) -> Array:
        """Arrange and pack a kernel (terms, gates times units)."""
        made: Array = self._pack(self.arrange(matrix), self._lanes)
        return made


def pack_product(matrix: Any, lanes: int) -> Array:
    """Divide columns into panels, each stored row by row; return a flat array."""
    wide = PANEL * lanes
    panels = [matrix[:, c : c + wide].reshape(-1) for c in range(0, matrix.shape[1], wide)]
    return np.concatenate(panels) if panels else matrix.reshape(-1)


def pack_bfloat16(matrix: Array, lanes: int) -> Array:
    """Pack a float32 matrix whose lower bits are zero: two terms in each word, the first low."""
    halves = np.pad(matrix, ((0, len(matrix) % 2), (0, 0))).view(np.uint32) >> np.uint32(16)
    return pack_product((halves[::2] | halves[1::2] << np.uint32(16)).view(np.float32), lanes)


def pack_int8(matrix: IntegerMatrix, lanes: int) -> Array:
    """Pack integers as :mod:`npylstm.kernels.integer_products` reads them."""
    integers = np.pad(matrix.integers, ((0, -len(matrix.integers) % 4), (0, 0)))
    start = -128 * integers.sum(axis=0, dtype=np.int32)
    quads = integers.reshape(-1, 4, integers.shape[1]).swapaxes(1, 2)
    parts = []
    for first in range(0, integers.shape[1], PANEL * lanes):
        columns = slice(first, first + PANEL * lanes)
        parts += [matrix.scale[columns], start[columns].view(np.float32)]
        parts.append(np.ascontiguousarray(quads[:, columns]).view(np.float32).reshape(-1))
    return np.concatenate(parts)


def rounded_size(terms: int) -> int:
    """Return the elements of a row that is rounded to 16 bits."""
    return ROUNDED_HEAD + -(-terms // ROUNDED_STEP) * ROUNDED_STEP // 2
