"""Writes LevelDB tables and checkpoints of TensorFlow, byte by byte."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

MAGIC = bytes.fromhex("57fb808b247547db")


def slow_crc32c(data: bytes) -> int:
    """CRC-32C bit by bit, by its definition."""
    state = 0xFFFFFFFF
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (0x82F63B78 if state & 1 else 0)
    return state ^ 0xFFFFFFFF


def masked(data: bytes) -> int:
    crc = slow_crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def varint(value: int) -> bytes:
    made = b""
    while value >= 128:
        made += bytes([value & 127 | 128])
        value >>= 7
    return made + bytes([value])


def field(number: int, value: int | bytes) -> bytes:
    """A field of a message: a varint, or bytes with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def fixed32(number: int, value: int) -> bytes:
    return varint(number << 3 | 5) + value.to_bytes(4, "little")


def block(entries: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Entries that share the beginnings of their keys, and one restart."""
    made, before = b"", b""
    for key, value in entries:
        shared = next(
            (k for k, (a, b) in enumerate(zip(before, key, strict=False)) if a != b),
            min(len(before), len(key)),
        )
        made += varint(shared) + varint(len(key) - shared) + varint(len(value))
        made += key[shared:] + value
        before = key
    return made + bytes(4) + (1).to_bytes(4, "little")


def compress(data: bytes) -> bytes:
    """Snappy: literals, and copies of what lies four to seven bytes before."""
    made, position = varint(len(data)), 0
    while position < len(data):
        for offset in range(4, 8):
            size = 4
            if (
                position >= offset
                and data[position : position + size] == (data[position - offset : position][:size])
            ):
                made += bytes([1 | size - 4 << 2 | offset >> 8 << 5, offset & 255])
                position += size
                break
        else:
            made += bytes([0]) + data[position : position + 1]
            position += 1
    return made


def table(entries: Mapping[bytes, bytes], snappy: bool = False, per_block: int = 3) -> bytes:
    """A table with a few entries in each block."""
    made, handles = b"", []

    def add(data: bytes) -> bytes:
        nonlocal made
        stored = compress(data) if snappy else data
        handle = varint(len(made)) + varint(len(stored))
        kind = bytes([snappy])
        made += stored + kind + masked(stored + kind).to_bytes(4, "little")
        return handle

    keys = sorted(entries)
    for start in range(0, len(keys), per_block):
        part = keys[start : start + per_block]
        handles.append((part[-1], add(block((key, entries[key]) for key in part))))
    meta, index = add(block([])), add(block(handles))
    footer = meta + index
    return made + footer + bytes(40 - len(footer)) + MAGIC


def shape(sizes: Iterable[int]) -> bytes:
    return b"".join(field(2, field(1, size) if size else b"") for size in sizes)


def entry(
    kind: int, sizes: tuple[int, ...], data: bytes, *, shard: int = 0, offset: int = 0
) -> bytes:
    made = field(1, kind) + field(2, shape(sizes))
    made += field(3, shard) if shard else b""
    made += field(4, offset) if offset else b""
    return made + field(5, len(data)) + fixed32(6, masked(data))


def write(
    prefix: Path, arrays: Mapping[str, tuple[int, npt.NDArray[np.generic]]], *,
    snappy: bool = False, header: bytes = field(1, 1),
) -> Path:  # fmt: skip
    """A checkpoint of one file with arrays, each with its number of TensorFlow's types."""
    entries, data = {b"": header}, b""
    for name, (kind, array) in sorted(arrays.items()):
        raw = array.tobytes()
        entries[name.encode()] = entry(kind, array.shape, raw, offset=len(data))
        data += raw
    prefix.parent.mkdir(parents=True, exist_ok=True)
    prefix.with_name(f"{prefix.name}.index").write_bytes(table(entries, snappy))
    prefix.with_name(f"{prefix.name}.data-00000-of-00001").write_bytes(data)
    return prefix
