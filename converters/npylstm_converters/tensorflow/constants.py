"""Arrays that TensorFlow stores inside a graph: TensorProto."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from npylstm import FormatError
from npylstm.arrays import Array
from npylstm_converters.toolkit.wire import Message, signed

__all__ = ["DTYPES", "read_constant"]

# TensorFlow's numbers of the types that are read.
DTYPES: Mapping[int, str] = {
    1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 9: "int64",
    10: "bool", 17: "uint16", 19: "float16", 22: "uint32", 23: "uint64",
}  # fmt: skip
_SHAPE, _CONTENT, _HALF = 2, 4, 13
# The field of a type's numbers: of fixed width, or as varints.
_FIXED = {1: (5, 4), 2: (6, 8)}
_VARINTS = {3: 7, 4: 7, 5: 7, 6: 7, 17: 7, 9: 10, 10: 11, 19: _HALF, 22: 16, 23: 17}
_LARGEST = 1 << 28  # elements: a file of a few bytes may claim any number of copies


def read_constant(message: Message) -> Array | None:
    """Return an array; None for a type that is not read, such as text.

    Raises
    ------
    FormatError
        If its numbers do not fill its shape.
    """
    kind = message.integer(1)
    dims = message.message(_SHAPE, 2).messages(2, 1)
    shape = tuple(signed(dim.integer(1)) for dim in dims)
    if kind not in DTYPES:
        return None
    dtype = np.dtype(DTYPES[kind]).newbyteorder("<")
    count = math.prod(shape)
    if min(shape, default=0) < 0 or not 0 <= count <= _LARGEST:
        raise FormatError(f"a constant of shape {shape}")
    values = _values(message, kind, dtype)
    if 0 < len(values) < count:  # the last one is repeated
        filled = np.full(count, values[-1], dtype)
        filled[: len(values)] = values
        values = filled
    if len(values) != count and count:
        raise FormatError(f"a constant of shape {shape} with {len(values)} numbers")
    return values[:count].reshape(shape).astype(dtype.newbyteorder("="))


def _values(message: Message, kind: int, dtype: np.dtype[Any]) -> Array:
    content = bytes(message.data(_CONTENT) or b"")
    if kind in _FIXED and not content:
        number, size = _FIXED[kind]
        content = message.packed(number, size)
    if content:
        if len(content) % dtype.itemsize:
            raise FormatError(f"a constant with {len(content)} bytes, of {dtype.itemsize} each")
        return np.frombuffer(content, dtype)
    if kind in _FIXED:
        return np.zeros(0, dtype)
    numbers = [signed(n) for n in message.integers(_VARINTS[kind])]
    try:
        if kind == 19:  # the bits of half precision
            return np.array(numbers, np.uint16).view(dtype)
        if kind == 23:
            return np.array([n % (1 << 64) for n in numbers], dtype)
        return np.array(numbers, dtype)
    except (OverflowError, ValueError) as error:
        raise FormatError(f"a constant: {error}") from None
