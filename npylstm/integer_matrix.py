"""Products with weights in 8 bits, computed with integers.

Each row of the input is rounded to 16 bits, with a scale of its own: its largest number is 32512.
The sums of products of integers are exact, whatever their order, so the same rows give the same
integers in every engine, batch and thread. A sum is rounded to float32 once, and multiplied by the
scales of the row and of the column.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from npylstm.arrays import Array
from npylstm.blas import product
from npylstm.errors import FormatError

__all__ = ["LARGEST", "MOST_TERMS", "SMALLEST", "IntegerMatrix", "rounded_rows"]

# What the largest number of a row becomes: 127 * 256. Its high byte is from -127 to 127.
LARGEST = 32512
# Rows whose largest number is smaller count as zeros: their scale would not be a normal number.
SMALLEST = 2.0**-100
# Terms of a sum for which products of unsigned by signed bytes fit 32 bits: 255 * 127 * terms.
MOST_TERMS = 66_000


def rounded_rows(x: Array) -> tuple[Array, Array]:
    """Round rows to 16 bits.

    Parameters
    ----------
    x
        float32 ``(..., terms)``.

    Returns
    -------
    integers
        float32 of the same shape, from -32512 to 32512.
    scale
        float32 ``(..., 1)``, by which they are multiplied; nan if nan or inf is in the row.
    """
    largest = np.abs(x).max(axis=-1, keepdims=True, initial=np.float32(0))
    is_number = (largest >= np.float32(SMALLEST)) & (largest < np.inf)
    safe = np.where(is_number, largest, np.float32(1))
    factor = np.where(is_number, np.float32(LARGEST) / safe, np.float32(0))
    with np.errstate(invalid="ignore"):  # inf * 0
        integers = np.where(is_number, np.rint(x * factor), np.float32(0))
    small = np.where(largest < np.float32(SMALLEST), np.float32(0), np.float32(np.nan))
    scale = np.where(is_number, largest / np.float32(LARGEST), small)
    return integers, scale.astype(np.float32)


class IntegerMatrix:
    """A matrix of integers with a scale for each column, on the right of a product.

    Parameters
    ----------
    integers
        int8 ``(terms, columns)``, from -127 to 127.
    scale
        float32 ``(columns,)``.

    Raises
    ------
    FormatError
        If there are more terms than sums in 32 bits allow, or a number is -128.
    """

    __array_ufunc__ = None  # arrays leave the operator to this class
    ndim = 2
    dtype = np.dtype(np.float32)

    def __init__(self, integers: Array, scale: Array) -> None:
        if len(integers) > MOST_TERMS:
            raise FormatError(
                f"int8: expected up to {MOST_TERMS} terms of a sum, got {len(integers)}; keep this "
                "layer in float32, or store it in bfloat16"
            )
        if integers.size and integers.min() < -127:
            raise FormatError("int8: expected integers from -127 to 127, got -128")
        self.integers, self.scale = integers, scale
        self._wide: Array | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Terms and columns."""
        return self.integers.shape

    def columns(self, which: Any) -> IntegerMatrix:
        """Return some columns, by a slice or by indices."""
        return IntegerMatrix(self.integers[:, which], self.scale[which])

    @staticmethod
    def concatenated(matrices: Sequence[IntegerMatrix]) -> IntegerMatrix:
        """Return the columns of all matrices side by side."""
        return IntegerMatrix(
            np.concatenate([m.integers for m in matrices], axis=1),
            np.concatenate([m.scale for m in matrices]),
        )

    def __rmatmul__(self, x: Array) -> Array:
        """Return ``x @ self``, float32 ``(..., columns)``; x is rounded to 16 bits by row."""
        if self._wide is None:
            self._wide = self.integers.astype(np.float64)
        integers, scale = rounded_rows(np.asarray(x, np.float32))
        rows = integers.reshape(-1, integers.shape[-1]).astype(np.float64)
        sums = product(rows, self._wide).astype(np.float32)  # exact, then rounded
        sums = sums.reshape(*integers.shape[:-1], len(self.scale))
        made: Array = sums * (self.scale * scale)
        return made
