"""CRC-32C (Castagnoli), the checksum of TensorFlow's checkpoints.

A checksum is linear over GF(2), so long data is cut into strips of equal length, all strips are
read side by side with NumPy, eight bytes a step, and their checksums are joined at the end.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

__all__ = ["crc32c", "masked_crc32c"]

Words = npt.NDArray[np.uint32]

_POLYNOMIAL = 0x82F63B78  # reflected: the lowest bit is the highest power
_STEP = 8  # bytes of a strip that are read at once
_SHORT = 4096  # bytes up to which a loop in Python is faster
_MOST_STRIPS = 4096


def crc32c(data: bytes | memoryview, start: int = 0) -> int:
    """Return the CRC-32C of some bytes.

    Parameters
    ----------
    data
        Any number of bytes.
    start
        The checksum of the bytes before them.

    Returns
    -------
    int
        32 bits.

    Examples
    --------
    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    state = start ^ 0xFFFFFFFF
    view = memoryview(data).cast("B")
    while len(view) > _SHORT:
        strips = min(_MOST_STRIPS, 1 << (len(view) // 64).bit_length() - 1)
        length = len(view) // strips // _STEP * _STEP
        state = _side_by_side(view[: strips * length], strips, state)
        view = view[strips * length :]
    table = _byte_table()
    for byte in view:
        state = table[(state ^ byte) & 0xFF] ^ state >> 8
    return state ^ 0xFFFFFFFF


def masked_crc32c(data: bytes | memoryview, start: int = 0) -> int:
    """Return the checksum as LevelDB and TensorFlow store it: rotated, plus a constant."""
    crc = crc32c(data, start)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _side_by_side(data: memoryview, strips: int, state: int) -> int:
    """Return the state after strips of equal length; their number is a power of two."""
    words = np.frombuffer(data, "<u2").reshape(strips, -1)
    tables = _word_tables()
    states: Words = np.zeros(strips, np.uint32)
    states[0] = state
    for k in range(0, words.shape[1], _STEP // 2):
        low = words[:, k] ^ (states & 0xFFFF)
        high = words[:, k + 1] ^ (states >> 16)
        states = tables[3][low]
        states ^= tables[2][high]
        states ^= tables[1][words[:, k + 2]]
        states ^= tables[0][words[:, k + 3]]
    zeros = _appended_zeros(len(data) // strips)
    while len(states) > 1:
        states = _apply(zeros, states[::2]) ^ states[1::2]
        zeros = _apply(zeros, zeros)
    return int(states[0])


@lru_cache(maxsize=1)
def _byte_table() -> list[int]:
    """Return the states after one byte from state zero."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = _divide(table)
    made: list[int] = table.tolist()
    return made


@lru_cache(maxsize=1)
def _word_tables() -> list[Words]:
    """Return the states after two bytes that 0, 2, 4 and 6 zero bytes follow."""
    table = np.arange(1 << 16, dtype=np.uint32)
    tables = []
    for _ in range(_STEP // 2):
        for _ in range(16):
            table = _divide(table)
        tables.append(table)
    return tables


def _divide(states: Words) -> Words:
    """Return the states after one more zero bit."""
    made: Words = states >> 1 ^ np.where(states & 1, np.uint32(_POLYNOMIAL), np.uint32(0))
    return made


def _appended_zeros(count: int) -> Words:
    """Return the linear map of ``count`` more zero bytes: the state that each bit becomes."""
    made: Words = np.uint32(1) << np.arange(32, dtype=np.uint32)
    power = made
    for _ in range(8):
        power = _divide(power)
    while count:
        if count & 1:
            made = _apply(power, made)
        power = _apply(power, power)
        count >>= 1
    return made


def _apply(linear: Words, states: Words) -> Words:
    """Return a linear map of states: the sum over GF(2) of what their bits become."""
    made: Words = np.zeros_like(states)
    for bit in range(32):
        made ^= np.where(states >> bit & 1, linear[bit], np.uint32(0))
    return made
