"""Reads the bytes of a pickle: numbers and texts, under limits of length and work."""

from __future__ import annotations

import mmap
import struct
from typing import Any

from npylstm import FormatError

__all__ = ["Buffer", "PickleReader"]

Buffer = bytes | mmap.mmap | memoryview

_LONGEST_NUMBER = 1000  # bytes
_LONGEST_LINE = 10_000
# Opcodes, and items that functions iterate over. A state_dict needs about fifty for each tensor.
_MOST_WORK = 4_000_000
# Containers, foreign objects, and entries of the memo. A vocabulary of 400,000 words has one each.
_MOST_OBJECTS = 1_000_000
# Texts and short bytes, which are copied out of the pickle. Longer bytes are views of the file.
_MOST_BYTES = 128 << 20
_LONG_BYTES = 1 << 16


class PickleReader:
    """The bytes of a pickle, and the position of the next one.

    Parameters
    ----------
    data
        The bytes; more may follow the pickle.
    position
        Offset of its first byte.
    """

    def __init__(self, data: Buffer, position: int = 0) -> None:
        self._data = memoryview(data)
        self.position = position
        self._work = self._objects = self._bytes = 0

    def count_work(self, work: int) -> None:
        """Add to the work counter; raise an error beyond the limit."""
        self._work += work
        if self._work > _MOST_WORK:
            raise FormatError(f"pickle: takes more than {_MOST_WORK} steps to build")

    def count_objects(self, count: int) -> None:
        """Count objects that stay in memory; raise an error beyond the limit."""
        self._objects += count
        if self._objects > _MOST_OBJECTS:
            raise FormatError(f"pickle: has more than {_MOST_OBJECTS} objects")

    def count_bytes(self, count: int) -> None:
        """Count bytes that are copied; raise an error beyond the limit."""
        self._bytes += count
        if self._bytes > _MOST_BYTES:
            raise FormatError(f"pickle: has more than {_MOST_BYTES} bytes of texts")

    def count_other(self, other: PickleReader) -> None:
        """Count what the reader of a pickle in this pickle has counted."""
        self.count_work(other._work)
        self._objects += other._objects
        self.count_bytes(other._bytes)

    def opcode(self) -> int:
        """Return the next byte."""
        if self.position >= len(self._data):
            raise FormatError("pickle: ends in the middle")
        self.position += 1
        return self._data[self.position - 1]

    def take(self, count: int) -> bytes:
        """Return the next bytes."""
        self.count_bytes(count if count > 0 else 0)
        return bytes(self._view(count))

    def _view(self, count: int) -> memoryview:
        if count < 0 or self.position + count > len(self._data):
            raise FormatError("pickle: ends in the middle")
        self.position += count
        return self._data[self.position - count : self.position]

    def number(self, form: str) -> Any:
        """Return a number in a form of :mod:`struct`."""
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def data(self, form: str) -> bytes | memoryview:
        """Return bytes that follow their number; if they are many, as a view of the pickle."""
        count = self.number(form)
        return self.take(count) if count < _LONG_BYTES else self._view(count)

    def text(self, form: str) -> str:
        """Return text that follows the number of its bytes."""
        return _decoded(self.take(self.number(form)))

    def old_text(self, form: str) -> str:
        """Return a string of Python 2: bytes that represent text."""
        return self.take(self.number(form)).decode("latin1")

    def line(self) -> str:
        """Return the text up to the end of the line."""
        end = bytes(self._data[self.position : self.position + _LONGEST_LINE]).find(b"\n")
        if end < 0:
            raise FormatError("pickle: ends in the middle of a line")
        return _decoded(self.take(end + 1)[:-1])

    def integer(self, form: str) -> int:
        """Return an integer of any size, which follows the number of its bytes."""
        count = self.number(form)
        if not 0 <= count <= _LONGEST_NUMBER:
            raise FormatError(f"pickle: an integer of {count} bytes")
        return int.from_bytes(self.take(count), "little", signed=True)

    def integer_line(self) -> int | bool:
        """Return an integer or a truth value in the form of protocol 0."""
        text = self.line()
        if text in ("00", "01"):
            return text == "01"
        try:
            if len(text) > _LONGEST_NUMBER:
                raise ValueError
            return int(text.removesuffix("L"))
        except ValueError:
            raise FormatError(f"pickle: expected an integer, got {text[:40]!r}") from None

    def float_line(self) -> float:
        """Return a number in the form of protocol 0."""
        text = self.line()
        try:
            return float(text)
        except ValueError:
            raise FormatError(f"pickle: expected a number, got {text[:40]!r}") from None

    def memo_line(self) -> int:
        """Return the number of a memo in the form of protocol 0."""
        text = self.line()
        if not text.isdigit() or len(text) > 12:
            raise FormatError(f"pickle: expected a memo, got {text[:40]!r}")
        return int(text)


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        raise FormatError("pickle: a string that is not UTF-8") from None
