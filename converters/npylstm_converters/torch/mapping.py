"""Memory-mapped files, and uniform errors for damaged ones."""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator

from npylstm import FormatError, NpylstmError, UnsupportedError

__all__ = ["MAX_HEADER", "MAX_PICKLE", "damage_named", "mapped", "span"]

MAX_HEADER = 4 << 20
MAX_PICKLE = 1 << 30

_DAMAGE = (
    zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError, NotImplementedError,
    RuntimeError, OSError, struct.error, OverflowError, MemoryError,
)  # fmt: skip


@contextlib.contextmanager
def damage_named(path: str | os.PathLike[str]) -> Iterator[None]:
    """Prefix errors with the file's name, and convert the libraries' errors to FormatError."""
    label = os.fspath(path)
    try:
        yield
    except UnsupportedError as error:
        raise UnsupportedError([f"{label}: {reason}" for reason in error.reasons]) from None
    except NpylstmError as error:
        raise FormatError(f"{label}: {error}") from None
    except _DAMAGE as error:
        raise FormatError(f"{label}: damaged: {error or type(error).__name__}") from None


def span(data: mmap.mmap, info: zipfile.ZipInfo) -> tuple[int, int]:
    """Return the first and end offset of a member's bytes, after its header."""
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        raise FormatError(f"{info.filename}: is compressed, which torch.save never does")
    header = data[info.header_offset : info.header_offset + 30]
    if len(header) < 30 or header[:4] != b"PK\x03\x04" or info.flag_bits & 1:
        raise FormatError(f"{info.filename}: damaged, or encrypted")
    name, extra = struct.unpack("<2H", header[26:30])
    start = info.header_offset + 30 + name + extra
    if start + info.file_size > len(data):
        raise FormatError(f"{info.filename}: ends behind the file")
    return start, start + info.file_size


def mapped(path: str | os.PathLike[str]) -> mmap.mmap:
    """Return a memory map of a file."""
    with open(path, "rb") as stream:
        return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
