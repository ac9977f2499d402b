"""The model file: one plain ``.npz`` that ``numpy.load(path, allow_pickle=False)`` opens.

========================== =========================================================
key                        content
========================== =========================================================
``npylstm/spec``           the graph as UTF-8 JSON (uint8)
``LAYER/W_i`` ...          weights, one array per gate
``case/0/input/NAME``      a recorded case: an input of the framework
``case/0/output/NAME``     an output of the framework
``case/0/state/LAYER/h``   the initial state, if it was not zero
``case/0/lengths``         the lengths of its sequences, if they differed
``case/0/purpose``         a word for what the case tests
========================== =========================================================

Files are not trusted: sizes are compared with the spec before an array is allocated,
checksums are verified, and object arrays and unknown keys raise an error.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import math
import os
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from npylstm.arrays import Array
from npylstm.errors import FormatError
from npylstm.io.document import graph_from_json
from npylstm.spec import Case, LayerSpec, ModelSpec

__all__ = ["Archive", "Source", "atomic_write", "is_model", "read", "save", "write_arrays"]

SPEC_KEY = "npylstm/spec"
_CASE = re.compile(r"case/(\d{1,6})/(input|output|state|lengths|purpose)(?:/(.+))?")
_SINGLE = ("lengths", "purpose")  # parts of a case without a tensor name
_LONGEST_WORD = 40  # characters of a purpose
_NUMBERS = "fiub"  # kinds of NumPy dtypes

_MAX_SPEC_BYTES = 2 << 20  # Python needs up to thirty times as much memory for JSON
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


class Archive:
    """An untrusted ``.npz``, read member by member.

    Parameters
    ----------
    source
        A path, the bytes of a file, or an open binary file, which is read from its current
        position to its end and stays open.

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
            self.close()
            raise FormatError(f"{self.name}: not an .npz file: {error or 'damaged'}") from None

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()

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
    """Check a zip file for bombs before reading it.

    Parameters
    ----------
    stream
        The open file.
    claimed
        Sum of the members' sizes, if known.

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


def read_npy(path: str | os.PathLike[str]) -> Array:
    """Read a ``.npy`` of numbers.

    Raises
    ------
    FormatError
        If it is damaged or holds anything else.
    OSError
        If it cannot be opened.
    """
    with open(path, "rb") as stream:
        try:
            header = _read_header(stream)
            declared = math.prod(header.shape) * header.dtype.itemsize
            held = max(0, os.fstat(stream.fileno()).st_size - header.size)
            if declared != held:
                raise FormatError(f"declares {declared} bytes of data, the file holds {held}")
            return header.view(stream.read())
        except _DAMAGE as error:
            raise FormatError(f"{path}: not a .npy file of numbers: {error}") from None


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


def is_model(path: str | os.PathLike[str]) -> bool:
    """Whether a file is an npylstm model, judged by its keys only.

    Raises
    ------
    OSError
        If it cannot be opened.
    """
    if os.path.isdir(path):
        return False
    with open(path, "rb") as stream:
        if stream.read(2) != b"PK":
            return False
    try:
        with Archive(path) as archive:
            return SPEC_KEY in archive.keys
    except FormatError:
        return False


def read(source: Source) -> ModelSpec:
    """Read and validate a model file.

    Parameters
    ----------
    source
        A file of :func:`save`: a path, its bytes, or an open binary file.

    Returns
    -------
    ModelSpec
        With its recorded cases.

    Raises
    ------
    FormatError
        If anything in the file is missing, unexpected, damaged or inconsistent.
    OSError
        If the file cannot be opened.
    """
    with Archive(source) as archive:
        name = archive.name
        if SPEC_KEY not in archive.keys:
            raise FormatError(f"{name}: no {SPEC_KEY}, so this is not an npylstm model")
        try:
            return _read_model(archive)
        except FormatError as error:
            named = str(error).startswith(name)
            raise FormatError(str(error) if named else f"{name}: {error}") from None


def _read_model(archive: Archive) -> ModelSpec:
    shape, dtype = archive.header(SPEC_KEY)
    if dtype != np.uint8 or len(shape) != 1 or shape[0] > _MAX_SPEC_BYTES:
        raise FormatError(f"{SPEC_KEY}: expected up to {_MAX_SPEC_BYTES} bytes of JSON")
    try:
        text = archive.array(SPEC_KEY).tobytes().decode("utf-8")
        document = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{SPEC_KEY}: not JSON: {error}") from None
    if not isinstance(document, dict):
        raise FormatError(f"{SPEC_KEY}: expected a JSON object")
    try:
        graph = graph_from_json(document)
    except RecursionError:
        raise FormatError(f"{SPEC_KEY}: layers inside layers, too deep") from None
    layers = []
    unread = archive.keys - {SPEC_KEY}
    for name, layer in graph.pop("layers"):
        weights = {}
        for key, expected in layer.weight_shapes().items():
            path = f"{name}/{key}"
            if path not in archive.keys:
                raise FormatError(f"{path}: missing, expected shape {expected}")
            found, dtype = archive.header(path)
            if found != expected or dtype != graph["dtype"]:
                raise FormatError(
                    f"{path}: expected shape {expected} of {graph['dtype']}, got {found} of {dtype}"
                )
            weights[key] = archive.array(path)
            unread.discard(path)
        layers.append(LayerSpec(name, layer, weights))
    model = ModelSpec(layers=tuple(layers), **graph)
    cases = _read_cases(archive, unread)
    if unread:
        raise FormatError(f"unexpected key {sorted(unread)[0]!r}")
    return model.with_cases(cases)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _read_cases(archive: Archive, unread: set[str]) -> list[Case]:
    """Read recorded cases and remove their keys from ``unread``."""
    found: dict[int, dict[str, dict[str, Any]]] = {}
    for key in sorted(unread):
        match = _CASE.fullmatch(key)
        if match and (match[2] in _SINGLE) is (match[3] is None):
            kinds: dict[str, dict[str, Any]] = {"input": {}, "output": {}, "state": {}}
            parts = found.setdefault(int(match[1]), kinds | {"lengths": {}, "purpose": {}})
            read = archive.word if match[2] == "purpose" else archive.array
            parts[match[2]][match[3] or ""] = read(key)
            unread.discard(key)
    cases = []
    for _, parts in sorted(found.items()):
        state: dict[str, dict[str, Array]] = {}
        for path, array in parts["state"].items():
            layer, _, name = path.partition("/")
            state.setdefault(layer, {})[name] = array
        lengths, purpose = parts["lengths"].get(""), parts["purpose"].get("", "")
        cases.append(Case(parts["input"], parts["output"], state, lengths, purpose))
    return cases


def save(spec: ModelSpec, path: str | os.PathLike[str]) -> None:
    """Write a model to ``path``; equal specs give the same bytes.

    Parameters
    ----------
    spec
        The model, with its recorded cases.
    path
        The file to create, or to replace when the new one is complete.
    """
    arrays: dict[str, Array] = {}
    document = json.dumps(spec.to_json(), ensure_ascii=False, indent=1, allow_nan=False)
    arrays[SPEC_KEY] = np.frombuffer(document.encode("utf-8"), np.uint8)
    for layer in spec.layers:
        # In the order of declaration, as in the papers.
        arrays |= {f"{layer.name}/{k}": layer.weights[k] for k in layer.layer.weight_shapes()}
    for number, case in enumerate(spec.cases):
        arrays |= {f"case/{number}/input/{k}": v for k, v in case.inputs.items()}
        if case.purpose:
            arrays[f"case/{number}/purpose"] = np.array(case.purpose)
        if case.lengths is not None:
            arrays[f"case/{number}/lengths"] = case.lengths
        arrays |= {f"case/{number}/output/{k}": v for k, v in case.outputs.items()}
        for name, entries in case.state.items():
            arrays |= {f"case/{number}/state/{name}/{k}": v for k, v in entries.items()}
    write_arrays(arrays, path)


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
