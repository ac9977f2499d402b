"""The memory layout of weights for the kernels.

Columns of gates are arranged in blocks, so that a cell finds all gates of its units side by side. A
block has as many units as a vector has lanes: first gate, second gate, ... The remaining units are
in narrow blocks of a quarter of a vector, so that few lanes stay empty. Columns are then divided
into panels of vectors; a panel is stored term by term.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from npylstm.arrays import Array

__all__ = [
    "ALIGNMENT", "GROUP", "PANEL", "Columns", "VectorType", "aligned", "narrow_lanes",
    "pack_product",
]  # fmt: skip

ALIGNMENT = 16  # elements: tensors start on a cache line
PANEL = 4  # vectors of columns in a product
GROUP = 8  # columns of a product that is summed in float64


def aligned(size: int, dtype: str) -> Array:
    """Return zeros that start on a cache line."""
    number = np.dtype(dtype)
    buffer = np.zeros(size * number.itemsize + _LINE, np.uint8)
    start = -buffer.ctypes.data % _LINE
    return buffer[start : start + size * number.itemsize].view(number)


_LINE = 64


class VectorType(NamedTuple):
    """The vectors that kernels use: dtype and number of elements."""

    dtype: str
    lanes: int


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

    def arrange(self, array: Array) -> Array:
        """Arrange the last axis (gates times units) in this order, with zeros in empty lanes."""
        taken = array[..., self._order]
        return np.where(self._order < 0, array.dtype.type(0), taken)

    def pack(self, matrix: Array) -> Array:
        """Arrange and pack a kernel (terms, gates times units)."""
        return pack_product(self.arrange(matrix), self._lanes)


def pack_product(matrix: Array, lanes: int) -> Array:
    """Divide columns into panels, each stored row by row; return a flat array."""
    wide = PANEL * lanes
    panels = [matrix[:, c : c + wide].reshape(-1) for c in range(0, matrix.shape[1], wide)]
    return np.concatenate(panels) if panels else matrix.reshape(-1)
