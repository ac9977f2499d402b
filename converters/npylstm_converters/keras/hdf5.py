"""HDF5, read by a child process under limits (:mod:`hdf5_reader` has the reasons)."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from npylstm import NpylstmError
from npylstm_converters.errors import DamagedError

__all__ = ["Dataset", "File", "open_file", "open_files"]

_READER = Path(__file__).with_name("hdf5_reader.py")


class _Reader:
    """The child process: started once per file, it returns one array per request."""

    def __init__(self, path: Path, label: str) -> None:
        if importlib.util.find_spec("h5py") is None:
            raise NpylstmError(f"{label}: reading it needs h5py; pip install 'npylstm[keras]'")
        self._label = label
        self._process = subprocess.Popen(
            [sys.executable, str(_READER), str(path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            # A thread per core would take more address space than a small file may.
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        # Without a limit on processor time, a wall-clock limit applies.
        patience = 60 + (path.stat().st_size >> 24)
        self._clock = threading.Timer(patience, self._process.kill)
        self._clock.daemon = True
        self._clock.start()

    def inventory(self) -> dict[str, Any]:
        """Return the inventory, the first reply."""
        listed: dict[str, Any] = json.loads(self._answer("the file"))
        return listed

    def array(self, path: str) -> bytes:
        """Request an array and return it."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the missing reply raises the error
            self._process.stdin.write(json.dumps(path).encode() + b"\n")
            self._process.stdin.flush()
        return self._answer(path)

    def _answer(self, what: str) -> bytes:
        assert self._process.stdout is not None
        head = self._process.stdout.read(9)
        payload = self._process.stdout.read(int.from_bytes(head[1:], "little")) if head else b""
        if head[:1] == b"-":
            raise DamagedError(f"{self._label}: damaged HDF5: {payload.decode('utf-8', 'replace')}")
        if len(head) < 9 or len(payload) < int.from_bytes(head[1:], "little"):
            raise DamagedError(f"{self._label}: damaged HDF5: {what} cannot be read")
        return payload

    def close(self) -> None:
        """End the process."""
        self._clock.cancel()
        self._process.kill()
        self._process.communicate()


@contextlib.contextmanager
def open_file(path: Path, label: str) -> Iterator[File]:
    """Open an HDF5 file; its arrays can be read while the context lasts.

    Parameters
    ----------
    path
        The file.
    label
        Its name in messages.

    Raises
    ------
    DamagedError
        If it is damaged, refers to other files, or takes too much memory or time to read.
    NpylstmError
        If h5py is not installed.
    """
    reader = _Reader(path, label)
    try:
        yield File(reader, reader.inventory(), label)
    finally:
        reader.close()


@contextlib.contextmanager
def open_files(paths: Sequence[Path], label: str) -> Iterator[File]:
    """Open one file, or several whose groups and arrays together are one.

    Raises
    ------
    DamagedError, NpylstmError
        As :func:`open_file`; or if two files have the same array.
    """
    with contextlib.ExitStack() as stack:
        if len(paths) == 1:
            yield stack.enter_context(open_file(paths[0], label))
            return
        files = [stack.enter_context(open_file(p, f"{label}: {p.name}")) for p in paths]
        listed: dict[str, dict[str, Any]] = {"groups": {}, "arrays": {}}
        readers = _Readers()
        for file in files:
            for group, attributes in file._listed["groups"].items():
                listed["groups"].setdefault(group, {}).update(attributes)
            for key, entry in file._listed["arrays"].items():
                if key in readers:
                    raise DamagedError(f"{file.label}: {key}: is in another file, too")
                listed["arrays"][key], readers[key] = entry, file._reader
        yield File(readers, listed, label)


class _Readers(dict[str, "_Reader | _Readers"]):
    """The reader of each array."""

    def array(self, path: str) -> bytes:
        """Request an array and return it."""
        return self[path].array(path)


@dataclass(frozen=True)
class Dataset:
    """An array in the file, not read yet. ``path`` has slashes on all systems."""

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    _reader: _Reader | _Readers
    _key: str

    def read(self) -> npt.NDArray[Any]:
        """Read the numbers."""
        data = self._reader.array(self._key)
        if len(data) != math.prod(self.shape) * self.dtype.itemsize:
            raise DamagedError(f"{self.path}: damaged HDF5: {len(data)} bytes for {self.shape}")
        return np.frombuffer(data, self.dtype).reshape(self.shape)


class File:
    """Groups, attributes and arrays of an HDF5 file, relative to one of its groups."""

    def __init__(
        self, reader: _Reader | _Readers, listed: Mapping[str, Any], label: str, root: str = ""
    ) -> None:
        self._reader, self._listed, self._root = reader, listed, root
        self.label = label

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if self._root else name

    def attribute(self, name: str) -> str | None:
        """Return a text attribute, or None."""
        value = self._listed["groups"][self._root].get(name)
        return value if isinstance(value, str) else None

    def names(self, attribute: str) -> list[str] | None:
        """Return a list of names; Keras splits long ones: ``attribute0``, ``attribute1``, ..."""
        attributes = self._listed["groups"][self._root]
        if isinstance(attributes.get(attribute), list):
            return list(attributes[attribute])
        chunks: list[str] = []
        for number in range(len(attributes)):
            chunk = attributes.get(f"{attribute}{number}")
            if not isinstance(chunk, list):
                return chunks if number else None
            chunks += chunk
        return chunks or None

    def group(self, name: str) -> File | None:
        """Return a sub-group, or None."""
        path = self._path(name)
        if path not in self._listed["groups"]:
            return None
        return File(self._reader, self._listed, f"{self.label}: {name}", path)

    def dataset(self, name: str) -> Dataset | None:
        """Return an array by its path below this group, or None."""
        path = self._path(name)
        entry = self._listed["arrays"].get(path)
        return self._dataset(path, name, entry) if entry else None

    def walk(self) -> tuple[list[str], list[Dataset]]:
        """Return the paths of all groups and all arrays below this group."""
        prefix = self._path("")
        groups = [g[len(prefix) :].replace("\\", "/") for g in self._below("groups", prefix)]
        arrays = [
            self._dataset(path, path[len(prefix) :], self._listed["arrays"][path])
            for path in self._below("arrays", prefix)
        ]
        return groups, arrays

    def written(self) -> list[str]:
        """Return the paths of all groups below this group in the order of writing."""
        prefix = self._path("")
        return [g[len(prefix) :] for g in self._listed["groups"] if g.startswith(prefix) and g]

    def _below(self, kind: str, prefix: str) -> list[str]:
        return sorted(p for p in self._listed[kind] if p.startswith(prefix) and p != self._root)

    def _dataset(self, key: str, path: str, entry: Mapping[str, Any]) -> Dataset:
        try:
            dtype = np.dtype(entry["dtype"])
        except TypeError:
            dtype = np.dtype(object)  # an unsupported type: reading it is an error
        shown = path.replace("\\", "/")
        return Dataset(shown, tuple(entry["shape"]), dtype, self._reader, key)
