"""Read and write ``.npz`` and ``.npy`` files.

Files are not trusted: declared sizes are compared with the file before an array is allocated,
checksums are verified, and object arrays raise an error.
"""

from __future__ import annotations

import ast
import contextlib
import io
import math
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from npylstm.arrays import Array
from npylstm.errors import FormatError
from npylstm.io.stand_ins import reason_against

__all__ = [
    "Archive", "NotAnArchiveError", "Source", "atomic_write", "check_zip_bomb", "read_npy",
    "write_arrays",
]  # fmt: skip

_LONGEST_WORD = 40  # characters of a text
_NUMBERS = "fiub"  # kinds of NumPy dtypes

_MAX_HEADER_BYTES = 10_000
# Deflate shrinks real weights by a tenth. A larger file that claims to grow twentyfold is a zip
# bomb; so is one whose directory alone is as long as a model.
_BOMB_BYTES = 16 << 20
_BOMB_RATIO = 20
_MAX_DIRECTORY_BYTES = 4 << 20

# All errors of zipfile and literal_eval for damaged bytes.
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError, IndexError, OverflowError,
    NotImplementedError, RuntimeError, SyntaxError, TypeError, MemoryError, OSError,
)  # fmt: skip


Source = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes]


def _open(source: Source) -> tuple[str, IO[bytes]]:
    """Return the name of a source for messages, and a stream of its bytes."""
    if isinstance(source, (str, os.PathLike)):
        return str(Path(source)), open(source, "rb")
    if hasattr(source, "read"):
        name = getattr(source, "name", None)
        label, data = name if isinstance(name, str) else "file", source.read()
        wanted = "a file opened for reading bytes (mode 'rb')"
    else:
        label, data, wanted = "bytes", source, "a path, bytes or an open binary file"
    try:
        return label, io.BytesIO(memoryview(data))
    except (TypeError, BufferError):
        raise FormatError(f"{label}: expected {wanted}, got {type(data).__name__}") from None


class NotAnArchiveError(FormatError):
    """A file is of another kind."""


class Archive:
    """An untrusted ``.npz``, read member by member; an open file is read to its end and stays open.

    Raises
    ------
    FormatError
        If it is not a zip file, or is damaged.
    OSError
        If it cannot be opened.
    """

    def __init__(self, source: Source) -> None:
        self.name, self._stream = _open(source)
        try:
            check_zip_bomb(self._stream)
            self._zip = zipfile.ZipFile(self._stream)
            infos = self._zip.infolist()
            self._members = {i.filename.removesuffix(".npy"): i for i in infos}
            if len(self._members) != len(infos):
                raise FormatError("a key is in the file twice")
            check_zip_bomb(self._stream, sum(i.file_size for i in infos))
        except FormatError as error:
            self.close()
            raise FormatError(f"{self.name}: {error}") from None
        except _DAMAGE as error:
            reason = reason_against(self._stream)
            is_other = not reason and self._stream.seek(0, os.SEEK_END) and not self._is_zip()
            self.close()
            kind = NotAnArchiveError if is_other else FormatError
            what = f"it {reason}" if reason else error or "damaged"
            raise kind(f"{self.name}: not an .npz file: {what}") from None

    def _is_zip(self) -> bool:
        self._stream.seek(0)
        return self._stream.read(2) == b"PK"

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()

    @property
    def holds_arrays(self) -> bool:
        """Whether a member is named as an array."""
        return any(info.filename.endswith(".npy") for info in self._members.values())

    @property
    def keys(self) -> set[str]:
        """Names of all arrays."""
        return set(self._members)

    def header(self, key: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Return shape and dtype of an array, without reading it."""
        header = self._header(key)
        return header.shape, header.dtype

    def array(self, key: str) -> Array:
        """Read an array and verify its checksum."""
        header = self._header(key)
        info = self._members[key]
        with self._damage_named(key):
            return header.view(self._zip.read(info)[header.size :])

    def word(self, key: str) -> str:
        """Read a short text, stored as an array without axes."""
        header = self._header(key, kinds="U")
        if header.shape or header.dtype.itemsize > 4 * _LONGEST_WORD:
            raise FormatError(
                f"{self.name}: {key}: expected a text of up to {_LONGEST_WORD} characters, "
                f"got {header.dtype} of shape {header.shape}"
            )
        info = self._members[key]
        with self._damage_named(key):
            return str(header.view(self._zip.read(info)[header.size :])[()])

    def _header(self, key: str, kinds: str = _NUMBERS) -> _Header:
        info = self._members[key]
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise FormatError(f"{self.name}: {key}: expected a stored or deflated member")
        with self._damage_named(key), self._zip.open(info) as stream:
            header = _read_header(stream, kinds)
        held = max(0, info.file_size - header.size)
        declared = math.prod(header.shape) * header.dtype.itemsize
        if declared != held:
            raise FormatError(
                f"{self.name}: {key}: declares {declared} bytes of data, the file holds {held}"
            )
        return header

    @contextlib.contextmanager
    def _damage_named(self, key: str) -> Iterator[None]:
        try:
            yield
        except FormatError as error:
            raise FormatError(f"{self.name}: {key}: {error}") from None
        except _DAMAGE as error:
            raise FormatError(
                f"{self.name}: {key}: damaged: {error or type(error).__name__}"
            ) from None


def check_zip_bomb(stream: IO[bytes], claimed: int = 0) -> None:
    """Check a zip file for bombs; ``claimed`` is the sum of its members' sizes, if known.

    Raises
    ------
    FormatError
        If its directory is too long, or its members claim to be far larger than the file.
    """
    size = stream.seek(0, os.SEEK_END)
    if claimed > _BOMB_BYTES + _BOMB_RATIO * size:
        raise FormatError(f"{size} bytes claim to hold {claimed}")
    # zipfile reads the whole directory at once; only this private function returns its length.
    end = zipfile._EndRecData(stream)  # type: ignore[attr-defined]
    directory = end[zipfile._ECD_SIZE] if end else 0  # type: ignore[attr-defined]
    if directory > _MAX_DIRECTORY_BYTES:
        raise FormatError(
            f"expected a list of members up to {_MAX_DIRECTORY_BYTES} bytes, got {directory}"
        )


def read_npy(source: Source) -> Array:
    """Read a ``.npy`` of numbers.

    Raises
    ------
    FormatError
        If it is damaged or holds anything else.
    OSError
        If it cannot be opened.
    """
    name, stream = _open(source)
    with stream:
        try:
            header = _read_header(stream)
            declared = math.prod(header.shape) * header.dtype.itemsize
            held = max(0, stream.seek(0, os.SEEK_END) - header.size)
            if declared != held:
                raise FormatError(f"declares {declared} bytes of data, the file holds {held}")
            stream.seek(header.size)
            return header.view(stream.read())
        except _DAMAGE as error:
            raise FormatError(f"{name}: not a .npy file of numbers: {error}") from None


class _Header(NamedTuple):
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran_order: bool
    size: int  # bytes before the data

    def view(self, data: bytes) -> Array:
        """Return the bytes after the header as an array."""
        flat = np.frombuffer(data, self.dtype)
        return flat.reshape(self.shape, order="F" if self.fortran_order else "C")


def _read_header(stream: IO[bytes], kinds: str = _NUMBERS) -> _Header:
    """Read the header of a ``.npy``, format versions 1 and 2.

    Magic, version, length, then a Python literal such as
    ``{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }``.
    """
    magic = stream.read(8)
    if magic[:6] != b"\x93NUMPY" or magic[6:] not in (b"\x01\x00", b"\x02\x00"):
        raise FormatError("not an array of .npy format 1 or 2")
    width = 2 if magic[6] == 1 else 4
    length = int.from_bytes(stream.read(width), "little")
    if length > _MAX_HEADER_BYTES:
        raise FormatError(f"expected a header of up to {_MAX_HEADER_BYTES} bytes, got {length}")
    literal = ast.literal_eval(stream.read(length).decode("latin-1"))
    match literal:
        case {"descr": str(descr), "fortran_order": bool(fortran), "shape": tuple(shape)}:
            dtype = np.dtype(descr)
        case _:
            raise FormatError(f"expected descr, fortran_order and shape, got {literal!r:.80}")
    if dtype.hasobject:
        raise FormatError("holds Python objects, expected numbers")
    if dtype.kind not in kinds or not all(type(d) is int and d >= 0 for d in shape):
        what = "numbers" if kinds == _NUMBERS else "a text"
        raise FormatError(f"expected {what} of a shape, got {dtype} of {shape!r:.80}")
    return _Header(shape, dtype, fortran, 8 + width + length)


def write_arrays(arrays: Mapping[str, Array], path: str | os.PathLike[str]) -> None:
    """Write an ``.npz`` with fixed time stamps; the file is replaced only when complete."""
    with atomic_write(path) as stream, zipfile.ZipFile(stream, "w") as archive:
        for key, array in arrays.items():
            member = zipfile.ZipInfo(f"{key}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.asarray(array, order="C"), allow_pickle=False)
            archive.writestr(member, buffer.getvalue())


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a temporary file beside ``path``; rename it to ``path`` if no error occurs."""
    import tempfile

    target = Path(path)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def _umask() -> int:
    """Return the process's umask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
