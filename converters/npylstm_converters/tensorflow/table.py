"""LevelDB tables, the form of TensorFlow's ``.index``: keys and values in blocks with checksums.

A block holds entries whose keys share a beginning with the key before. The last block lists the
others; the file's last bytes say where it is.
"""

from __future__ import annotations

from collections.abc import Iterator

from npylstm import FormatError
from npylstm_converters.tensorflow.crc32c import masked_crc32c
from npylstm_converters.tensorflow.snappy import decompress
from npylstm_converters.toolkit.wire import read_varint

__all__ = ["MAGIC", "read_table"]

MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")  # the last bytes of a table
_FOOTER = 48
_TRAILER = 5  # behind each block: a byte for its compression, and a checksum
_PLAIN, _SNAPPY = 0, 1
_MOST_KEY_BYTES = 1 << 26  # of all keys, written out


def read_table(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Yield the keys and values of a table.

    Parameters
    ----------
    data
        The file.

    Raises
    ------
    FormatError
        If it is damaged: sizes, checksums and the order of the keys are checked.
    """
    if len(data) < _FOOTER or not data.endswith(MAGIC):
        raise FormatError("does not end as a table of LevelDB, which an .index is")
    body, footer = memoryview(data)[:-_FOOTER], memoryview(data)[-_FOOTER:]
    _, position = _handle(footer, 0)  # of the block of metadata, which TensorFlow leaves empty
    where, _ = _handle(footer, position)
    end, count = 0, 0
    before: bytes | None = None
    for _, handle in _entries(_block(body, where)):
        (offset, size), _ = _handle(handle, 0)
        if offset < end:
            raise FormatError(f"block at {offset}: overlaps the one before")
        end = offset + size + _TRAILER
        for key, value in _entries(_block(body, (offset, size))):
            if before is not None and key <= before:
                raise FormatError(f"key {key!r:.80}: is not behind {before!r:.80}")
            before, count = key, count + len(key)
            if count > _MOST_KEY_BYTES:
                raise FormatError(f"expected up to {_MOST_KEY_BYTES} bytes of keys")
            yield key, value


def _handle(data: memoryview, position: int) -> tuple[tuple[int, int], int]:
    """Return offset and size of a block, and the position behind them."""
    offset, position = read_varint(data, position)
    size, position = read_varint(data, position)
    return (offset, size), position


def _block(body: memoryview, where: tuple[int, int]) -> memoryview:
    """Return the bytes of a block, after a check of its checksum."""
    offset, size = where
    if offset + size + _TRAILER > len(body):
        raise FormatError(f"block at {offset}: {size} bytes are not there")
    stored = body[offset : offset + size + 1]
    checksum = int.from_bytes(body[offset + size + 1 : offset + size + _TRAILER], "little")
    if masked_crc32c(stored) != checksum:
        raise FormatError(f"block at {offset}: its checksum differs, so the file is damaged")
    compression = stored[-1]
    if compression == _SNAPPY:
        return memoryview(decompress(stored[:-1]))
    if compression != _PLAIN:
        raise FormatError(f"block at {offset}: compression {compression}: expected 0 or 1")
    return stored[:-1]


def _entries(block: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 - 4 * restarts
    if len(block) < 4 or end < 0:
        raise FormatError("a block is too short for its restarts")
    entries, position, key = block[:end], 0, b""
    while position < end:
        shared, position = read_varint(entries, position)
        own, position = read_varint(entries, position)
        size, position = read_varint(entries, position)
        if shared > len(key) or own + size > end - position:
            raise FormatError(f"an entry behind key {key!r:.80} is cut off")
        key = key[:shared] + bytes(entries[position : position + own])
        yield key, entries[position + own : position + own + size]
        position += own + size
