"""HDF5, read with suspicion.

Only what is in the file itself is read: no links to other files, no virtual or external
data. A dataset that claims far more than the file stores is refused before it is allocated.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from npylstm import FormatError

__all__ = ["Dataset", "File", "open_file"]

_MAGIC = b"\x89HDF\r\n\x1a\n"
_SMALL = 16 << 20  # bytes; below this nothing is a bomb
_RATIO = 100
_MAX_DEPTH = 64

# What h5py raises on damaged bytes. A file that cannot be opened at all is an OSError, too.
_DAMAGE = (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError, MemoryError,
           UnicodeError, AttributeError)  # fmt: skip


def looks_like_hdf5(head: bytes) -> bool:
    """Whether the first bytes are HDF5's."""
    return head.startswith(_MAGIC)


@dataclass(frozen=True)
class Dataset:
    """An array in the file, not read yet.

    ``path`` is slash-separated whatever system wrote it.
    """

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    _source: h5py.Dataset

    def read(self) -> npt.NDArray[Any]:
        """Read the numbers."""
        with damage_named(self.path):
            size = self.dtype.itemsize * int(np.prod(self.shape, dtype=object))
            stored = self._source.id.get_storage_size()
            if size > _SMALL and size > _RATIO * stored:
                raise FormatError(f"{self.path}: {stored} bytes claim to hold {size}")
            array: npt.NDArray[Any] = self._source[()]
        return array


@contextlib.contextmanager
def damage_named(what: str) -> Iterator[None]:
    """Turn whatever damaged bytes make h5py raise into one clear error."""
    try:
        yield
    except FormatError:
        raise
    except _DAMAGE as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise FormatError(f"{what}: damaged HDF5: {text}") from None


@contextlib.contextmanager
def open_file(source: Any, label: str) -> Iterator[File]:
    """Open an HDF5 file, given by path or as a stream of its bytes."""
    with damage_named(label):
        handle = h5py.File(source, "r")
    with handle:
        yield File(handle, label)


class File:
    """Groups, attributes and arrays of one HDF5 file; backslashes in names count as slashes."""

    def __init__(self, handle: h5py.File | h5py.Group, label: str) -> None:
        self._handle = handle
        self.label = label

    def attribute(self, name: str) -> Any:
        """An attribute's value, bytes decoded; None if it is not there."""
        with damage_named(f"{self.label}: attribute {name}"):
            value = self._handle.attrs.get(name)
            return value.decode("utf-8") if isinstance(value, bytes) else value

    def names(self, attribute: str) -> list[str] | None:
        """A list of names; Keras cuts long ones into ``attribute0``, ``attribute1``, ..."""
        with damage_named(f"{self.label}: attribute {attribute}"):
            attrs = self._handle.attrs
            chunks = []
            if attribute in attrs:
                chunks.append(attrs[attribute])
            elif f"{attribute}0" in attrs:
                while f"{attribute}{len(chunks)}" in attrs:
                    chunks.append(attrs[f"{attribute}{len(chunks)}"])
            else:
                return None
            values = [v for chunk in chunks for v in np.asarray(chunk).reshape(-1).tolist()]
            return [v.decode("utf-8") if isinstance(v, bytes) else str(v) for v in values]

    def group(self, name: str) -> File | None:
        """A sub-group, or None."""
        with damage_named(f"{self.label}: {name}"):
            _refuse_foreign_links(self._handle, name)
            child = self._handle.get(name)
        return File(child, f"{self.label}: {name}") if isinstance(child, h5py.Group) else None

    def dataset(self, path: str) -> Dataset | None:
        """An array by its path below this group, or None."""
        with damage_named(f"{self.label}: {path}"):
            _refuse_foreign_links(self._handle, path)
            child = self._handle.get(path)
            return _dataset(path, child) if isinstance(child, h5py.Dataset) else None

    def walk(self) -> tuple[list[str], list[Dataset]]:
        """Paths of all groups, and all arrays, below this group."""
        groups: list[str] = []
        datasets: list[Dataset] = []
        with damage_named(self.label):
            _collect(self._handle, "", groups, datasets)
        return groups, datasets


def _collect(group: h5py.Group, prefix: str, groups: list[str], datasets: list[Dataset]) -> None:
    if prefix.count("/") > _MAX_DEPTH:
        raise FormatError(f"{prefix}: groups nest deeper than {_MAX_DEPTH} levels")
    for name in group:
        _refuse_foreign_links(group, name)
        child = group[name]
        path = f"{prefix}{name}".replace("\\", "/")
        if isinstance(child, h5py.Dataset):
            datasets.append(_dataset(path, child))
        elif isinstance(child, h5py.Group):
            groups.append(path)
            _collect(child, f"{path}/", groups, datasets)


def _dataset(path: str, source: h5py.Dataset) -> Dataset:
    if source.external is not None or source.is_virtual:
        raise FormatError(f"{path}: its data lies outside of the file")
    return Dataset(path.replace("\\", "/"), tuple(source.shape or ()), source.dtype, source)


def _refuse_foreign_links(group: h5py.Group, path: str) -> None:
    parts = path.split("/")
    for k in range(1, len(parts) + 1):
        step = "/".join(parts[:k])
        if step in group and isinstance(group.get(step, getlink=True), h5py.ExternalLink):
            raise FormatError(f"{step}: is a link to another file")
