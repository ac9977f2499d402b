"""The wire format of protocol buffers, read without schemas.

The caller knows the numbers of the fields. A missing number is 0, a missing text is empty, as in
the format. Nothing is copied: messages are views of the file's bytes.
"""

from __future__ import annotations

from collections.abc import Iterator

from npylstm import FormatError

__all__ = ["Message", "read_varint", "signed"]

_MOST_FIELDS = 1 << 20  # of all messages of one file that are read
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED = {_FIXED64: 8, _FIXED32: 4}

Value = int | memoryview


def read_varint(data: memoryview, position: int) -> tuple[int, int]:
    """Return an integer of 7 bits a byte, lowest first, and the position behind it.

    Raises
    ------
    FormatError
        If it has no end, or is longer than 64 bits.
    """
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise FormatError("a number has no end")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
    if value >> 64 or byte >= 0x80:
        raise FormatError("a number is longer than 64 bits")
    return value, position


def signed(value: int) -> int:
    """Return an integer of 64 bits with its sign."""
    return value - (1 << 64) if value >> 63 else value


class Message:
    """One message: its fields by number.

    Parameters
    ----------
    data
        Its bytes.
    fields
        The fields to keep; all others are skipped.

    Raises
    ------
    FormatError
        If the bytes are no message, or have too many fields.
    """

    def __init__(self, data: bytes | memoryview, *fields: int) -> None:
        self._read(memoryview(data), fields, [_MOST_FIELDS])

    def _read(self, data: memoryview, fields: tuple[int, ...], left: list[int]) -> None:
        self._left = left  # shared with the messages inside
        self._fields: dict[int, list[Value]] = {number: [] for number in fields}
        position = 0
        while position < len(data):
            self._left[0] -= 1
            if self._left[0] < 0:
                raise FormatError(f"more than {_MOST_FIELDS} fields of protocol buffers")
            tag, position = read_varint(data, position)
            value, position = _value(data, position, tag & 7)
            if tag >> 3 in self._fields:
                self._fields[tag >> 3].append(value)

    def integer(self, number: int) -> int:
        """Return a field that is an integer; 0 if it is missing."""
        values = self._fields[number]
        if not values:
            return 0
        if not isinstance(values[-1], int):
            raise FormatError(f"field {number}: expected a number")
        return values[-1]

    def integers(self, number: int) -> list[int]:
        """Return a repeated field of integers, one by one or packed."""
        found: list[int] = []
        for value in self._fields[number]:
            if isinstance(value, int):
                found.append(value)
                continue
            position = 0
            while position < len(value):
                entry, position = read_varint(value, position)
                found.append(entry)
        return found

    def packed(self, number: int, size: int) -> bytes:
        """Return a repeated field of numbers of 4 or 8 bytes: their bytes."""
        return b"".join(
            value.to_bytes(size, "little") if isinstance(value, int) else bytes(value)
            for value in self._fields[number]
        )

    def present(self) -> list[int]:
        """Return the numbers of the fields that are there."""
        return [number for number, values in self._fields.items() if values]

    def data(self, number: int) -> memoryview | None:
        """Return a field that is bytes, or None if it is missing."""
        values = self._fields[number]
        if values and isinstance(values[-1], int):
            raise FormatError(f"field {number}: expected bytes")
        return values[-1] if values and not isinstance(values[-1], int) else None

    def text(self, number: int) -> str:
        """Return a field that is UTF-8; empty if it is missing."""
        return _text(self.data(number) or b"", number)

    def texts(self, number: int) -> list[str]:
        """Return a repeated field that is UTF-8."""
        return [_text(value, number) for value in self._fields[number]]

    def message(self, number: int, *fields: int) -> Message:
        """Return a message in a field; an empty one if it is missing."""
        return self._inside(self.data(number) or memoryview(b""), fields)

    def messages(self, number: int, *fields: int) -> Iterator[Message]:
        """Yield the messages of a repeated field."""
        for value in self._fields[number]:
            if isinstance(value, int):
                raise FormatError(f"field {number}: expected messages")
            yield self._inside(value, fields)

    def _inside(self, data: memoryview, fields: tuple[int, ...]) -> Message:
        inside = Message.__new__(Message)
        inside._read(data, fields, self._left)
        return inside


def _text(value: Value | bytes, number: int) -> str:
    if isinstance(value, int):
        raise FormatError(f"field {number}: expected text")
    try:
        return str(value, "utf-8")
    except UnicodeDecodeError:
        raise FormatError(f"field {number}: expected UTF-8") from None


def _value(data: memoryview, position: int, kind: int) -> tuple[Value, int]:
    """Return a value of a wire type, and the position behind it."""
    if kind == _VARINT:
        return read_varint(data, position)
    if kind == _BYTES:
        size, position = read_varint(data, position)
    elif kind in _FIXED:
        size = _FIXED[kind]
    else:
        raise FormatError(f"wire type {kind}: expected one of protocol buffers")
    if size > len(data) - position:
        raise FormatError(f"a field of {size} bytes, of which {len(data) - position} are there")
    part = data[position : position + size]
    made: Value = part if kind == _BYTES else int.from_bytes(part, "little")
    return made, position + size
