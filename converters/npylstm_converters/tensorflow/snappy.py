"""Snappy's block format, which LevelDB tables may be compressed with."""

from __future__ import annotations

from npylstm import FormatError
from npylstm_converters.toolkit.wire import read_varint

__all__ = ["decompress"]

_MOST = 64  # bytes that one element of a byte or more can add
_LONG = 60  # lengths of literals from here on are stored in 1 to 4 bytes


def decompress(data: memoryview) -> bytes:
    """Return the uncompressed bytes.

    Raises
    ------
    FormatError
        If the bytes are damaged.
    """
    size, position = read_varint(data, 0)
    if size > _MOST * len(data):
        raise FormatError(f"snappy: {len(data)} bytes cannot hold {size}")
    made = bytearray()
    while position < len(data):
        position = _element(data, position, made)
        if len(made) > size:
            break
    if len(made) != size:
        raise FormatError(f"snappy: expected {size} bytes, got {len(made)}")
    return bytes(made)


def _element(data: memoryview, position: int, made: bytearray) -> int:
    """Append a literal or a copy, and return the position behind it."""
    tag = data[position]
    position += 1
    kind = tag & 3
    if kind == 0:
        length = (tag >> 2) + 1
        if length > _LONG:
            extra = length - _LONG
            length = _number(data, position, extra) + 1
            position += extra
        if length > len(data) - position:
            raise FormatError(f"snappy: a literal of {length} bytes is cut off")
        made += data[position : position + length]
        return position + length
    length = (tag >> 2) + 1
    width = {1: 1, 2: 2, 3: 4}[kind]
    offset = _number(data, position, width)
    if kind == 1:
        length, offset = (tag >> 2 & 7) + 4, offset | tag >> 5 << 8
    if not 0 < offset <= len(made):
        raise FormatError(f"snappy: a copy from {offset} bytes before, of {len(made)}")
    part = bytes(made[len(made) - offset :][:length])
    made += (part * (length // offset + 1))[:length]  # a copy may overlap what it makes
    return position + width


def _number(data: memoryview, position: int, width: int) -> int:
    part = data[position : position + width]
    if len(part) != width:
        raise FormatError("snappy: the last element is cut off")
    return int.from_bytes(part, "little")
