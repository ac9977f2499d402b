"""The file: one plain ``.npz`` that ``numpy.load(path, allow_pickle=False)`` opens.

========================== =========================================================
key                        content
========================== =========================================================
``npylstm/spec``           the graph as UTF-8 JSON (uint8)
``LAYER/W_i`` ...          weights, one array per gate
``case/0/input/NAME``      a recorded case: what went into the framework
``case/0/output/NAME``     and what the framework gave
``case/0/state/LAYER/h``   the state it began with, where it was not zero
========================== =========================================================

Reading trusts nothing: sizes are compared with the spec before an array is allocated,
checksums are verified, object arrays are refused, and every key must be accounted for.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from npylstm.errors import FormatError
from npylstm.layers.base import Array
from npylstm.spec import Case, LayerSpec, ModelSpec, graph_from_json

__all__ = ["Archive", "is_model", "read", "save", "write_arrays", "written_whole"]

SPEC_KEY = "npylstm/spec"
_CASE = re.compile(r"case/(\d{1,6})/(input|output|state)/(.+)")

_MAX_SPEC_BYTES = 16 << 20
_MAX_HEADER_BYTES = 10_000
# Deflate shrinks real weights by a tenth; a member that claims to grow a hundredfold beyond
# this size is a bomb.
_BOMB_BYTES = 16 << 20
_BOMB_RATIO = 100

# All that zipfile and numpy.lib.format raise on damaged bytes.
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError, IndexError, OverflowError,
    NotImplementedError, RuntimeError, SyntaxError, TypeError, MemoryError,
)  # fmt: skip


class Archive:
    """A ``.npz`` opened for suspicious reading, member by member.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    FormatError
        If it is not a zip file, or is damaged.
    OSError
        If it cannot be opened.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            self._zip = zipfile.ZipFile(self.path)
        except _DAMAGE as error:
            raise FormatError(f"{self.path}: not an .npz file: {error or 'damaged'}") from None
        infos = self._zip.infolist()
        self._members = {i.filename.removesuffix(".npy"): i for i in infos}
        if len(self._members) != len(infos):
            self._zip.close()
            raise FormatError(f"{self.path}: a key stands in the file twice")

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *exc: object) -> None:
        self._zip.close()

    @property
    def keys(self) -> set[str]:
        """Names of all arrays."""
        return set(self._members)

    def header(self, key: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and element type of an array, without reading it."""
        info = self._members[key]
        with self._damage_named(key), self._zip.open(info) as stream:
            shape, dtype, header_bytes = _npy_header(stream)
        size = dtype.itemsize
        for dim in shape:
            size *= dim
        if dtype.hasobject:
            raise FormatError(f"{self.path}: {key}: holds Python objects, expected numbers")
        if size + header_bytes != info.file_size:
            raise FormatError(
                f"{self.path}: {key}: declares {size} bytes of data, the file holds "
                f"{info.file_size - header_bytes}"
            )
        return shape, dtype

    def array(self, key: str) -> Array:
        """Read one array whole, checksum verified."""
        self.header(key)
        info = self._members[key]
        if info.file_size > _BOMB_BYTES and info.file_size > _BOMB_RATIO * info.compress_size:
            raise FormatError(
                f"{self.path}: {key}: {info.compress_size} bytes claim to hold {info.file_size}"
            )
        with self._damage_named(key):
            data = io.BytesIO(self._zip.read(info))
            array: Array = np.lib.format.read_array(
                data, allow_pickle=False, max_header_size=_MAX_HEADER_BYTES
            )
        return array

    @contextlib.contextmanager
    def _damage_named(self, key: str) -> Iterator[None]:
        try:
            yield
        except FormatError:
            raise
        except _DAMAGE as error:
            raise FormatError(
                f"{self.path}: {key}: damaged: {error or type(error).__name__}"
            ) from None


def _npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    version = np.lib.format.read_magic(stream)
    readers = {
        (1, 0): (np.lib.format.read_array_header_1_0, 10),
        (2, 0): (np.lib.format.read_array_header_2_0, 12),
    }
    if version not in readers:
        raise ValueError(f"array format {version} is unknown")
    read_header, _ = readers[version]
    shape, _, dtype = read_header(stream, max_header_size=_MAX_HEADER_BYTES)
    return shape, dtype, stream.tell()


def is_model(path: str | os.PathLike[str]) -> bool:
    """Whether a file says that it is an npylstm model; whether it is sound, reading will tell.

    Raises
    ------
    OSError
        If it cannot be opened.
    """
    with open(path, "rb") as stream:
        if stream.read(2) != b"PK":
            return False
    try:
        with Archive(path) as archive:
            return SPEC_KEY in archive.keys
    except FormatError:
        return False


def read(path: str | os.PathLike[str]) -> ModelSpec:
    """Read and validate a model file.

    Parameters
    ----------
    path
        An ``.npz`` that :func:`save` wrote.

    Returns
    -------
    ModelSpec
        With its recorded cases.

    Raises
    ------
    FormatError
        If anything in the file is missing, superfluous, damaged or contradictory.
    OSError
        If the file cannot be opened.
    """
    with Archive(path) as archive:
        if SPEC_KEY not in archive.keys:
            raise FormatError(f"{path}: no {SPEC_KEY}, so this is not an npylstm model")
        try:
            return _read_model(archive)
        except FormatError as error:
            named = str(error).startswith(str(path))
            raise FormatError(str(error) if named else f"{path}: {error}") from None


def _read_model(archive: Archive) -> ModelSpec:
    shape, dtype = archive.header(SPEC_KEY)
    if dtype != np.uint8 or len(shape) != 1 or shape[0] > _MAX_SPEC_BYTES:
        raise FormatError(f"{SPEC_KEY}: expected up to {_MAX_SPEC_BYTES} bytes of JSON")
    try:
        document = json.loads(archive.array(SPEC_KEY).tobytes().decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{SPEC_KEY}: not JSON: {error}") from None
    if not isinstance(document, dict):
        raise FormatError(f"{SPEC_KEY}: expected a JSON object")
    graph = graph_from_json(document)
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
    cases = _read_cases(archive, unread, model)
    if unread:
        raise FormatError(f"unexpected key {sorted(unread)[0]!r}")
    return model.with_cases(cases)


def _read_cases(archive: Archive, unread: set[str], model: ModelSpec) -> list[Case]:
    """Read recorded cases and take their keys off ``unread``."""
    found: dict[int, dict[str, dict[str, Array]]] = {}
    for key in sorted(unread):
        match = _CASE.fullmatch(key)
        if match:
            parts = found.setdefault(int(match[1]), {"input": {}, "output": {}, "state": {}})
            array = archive.array(key)
            if array.dtype.kind not in "fiub":
                raise FormatError(f"{key}: expected numbers, got {array.dtype}")
            parts[match[2]][match[3]] = array
            unread.discard(key)
    cases = []
    for number, parts in sorted(found.items()):
        state: dict[str, dict[str, Array]] = {}
        for path, array in parts["state"].items():
            layer, _, name = path.rpartition("/")
            state.setdefault(layer, {})[name] = array
        inputs, outputs = {t.name for t in model.inputs}, set(model.outputs)
        if set(parts["input"]) != inputs or set(parts["output"]) != outputs:
            raise FormatError(
                f"case/{number}: expected inputs {sorted(inputs)} and outputs {sorted(outputs)}, "
                f"got {sorted(parts['input'])} and {sorted(parts['output'])}"
            )
        cases.append(Case(parts["input"], parts["output"], state))
    return cases


def save(spec: ModelSpec, path: str | os.PathLike[str]) -> None:
    """Write a model to ``path``; the same spec always gives the same bytes.

    Parameters
    ----------
    spec
        What to write, recorded cases included.
    path
        The file to make or replace. It is replaced only when the new one is complete.
    """
    arrays: dict[str, Array] = {}
    document = json.dumps(spec.to_json(), ensure_ascii=False, indent=1, allow_nan=False)
    arrays[SPEC_KEY] = np.frombuffer(document.encode("utf-8"), np.uint8)
    for layer in spec.layers:
        # In the order of declaration, which is the order of the papers.
        arrays |= {f"{layer.name}/{k}": layer.weights[k] for k in layer.layer.weight_shapes()}
    for number, case in enumerate(spec.cases):
        arrays |= {f"case/{number}/input/{k}": v for k, v in case.inputs.items()}
        arrays |= {f"case/{number}/output/{k}": v for k, v in case.outputs.items()}
        for name, entries in case.state.items():
            arrays |= {f"case/{number}/state/{name}/{k}": v for k, v in entries.items()}
    write_arrays(arrays, path)


def write_arrays(arrays: Mapping[str, Array], path: str | os.PathLike[str]) -> None:
    """Write an ``.npz`` with fixed time stamps, whole or not at all."""
    with written_whole(path) as stream, zipfile.ZipFile(stream, "w") as archive:
        for key, array in arrays.items():
            member = zipfile.ZipInfo(f"{key}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(member, buffer.getvalue())


@contextlib.contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a temporary file beside ``path`` and rename it into place when all went well."""
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
    """The process's umask; there is no way to ask but to set it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
