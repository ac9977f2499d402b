"""Reads the bytes of a pickle: numbers and texts, under limits of length and work."""

from __future__ import annotations

import mmap
import struct
from typing import Any

from npylstm import FormatError

__all__ = ["PickleReader"]

_LONGEST_NUMBER = 1000  # bytes
_LONGEST_LINE = 10_000
_LONGEST_TEXT = 16 << 20
# Opcodes, and items that functions iterate over. A state_dict needs about fifty for each tensor.
_MOST_WORK = 1_000_000
_BYTES_A_STEP = 64  # one step for each 64 bytes of text


class PickleReader:
    """The bytes of a pickle, and the position of the next one.

    Parameters
    ----------
    data
        The bytes; more may follow the pickle.
    position
        Offset of its first byte.
    """

    def __init__(self, data: bytes | mmap.mmap, position: int = 0) -> None:
        self._data = data
        self.position = position
        self._work = 0

    def count_work(self, work: int) -> None:
        """Add to the work counter; raise an error beyond the limit."""
        self._work += work
        if self._work > _MOST_WORK:
            raise FormatError(f"pickle: takes more than {_MOST_WORK} steps to build")

    def take(self, count: int) -> bytes:
        """Return the next bytes."""
        if count < 0 or self.position + count > len(self._data):
            raise FormatError("pickle: ends in the middle")
        if count > _LONGEST_TEXT:
            raise FormatError(f"pickle: {count} bytes in one piece")
        self.count_work(count // _BYTES_A_STEP)
        self.position += count
        return self._data[self.position - count : self.position]

    def number(self, form: str) -> Any:
        """Return a number in a form of :mod:`struct`."""
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def data(self, form: str) -> bytes:
        """Return bytes that follow their number."""
        return self.take(self.number(form))

    def text(self, form: str) -> str:
        """Return text that follows the number of its bytes."""
        return _decoded(self.data(form))

    def line(self) -> str:
        """Return the text up to the end of the line."""
        end = self._data.find(b"\n", self.position, self.position + _LONGEST_LINE)
        if end < 0:
            raise FormatError("pickle: ends in the middle of a line")
        return _decoded(self.take(end + 1 - self.position)[:-1])

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
