"""Weights of TensorFlow.js: a manifest of groups, and the files with their bytes.

The concatenated files of a group contain its concatenated weights, in C order and little-endian,
as floats or quantised. No file outside the folder of the manifest is opened.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from npylstm import FormatError, UnsupportedError
from npylstm.io.stand_ins import check_no_pointer

__all__ = ["Weight", "read_manifest"]

Array = npt.NDArray[Any]

_DTYPES = {"float32": "<f4", "int32": "<i4", "bool": "u1"}
_QUANTISED = {"uint8": "u1", "uint16": "<u2", "float16": "<f2"}
_MOST_AXES = 32
_LARGEST = 1e38  # of scale and minimum, as float32 holds it


@dataclass
class _Group:
    """Files with concatenated bytes, read when the first weight is read."""

    files: tuple[Path, ...]
    size: int = 0
    _bytes: bytes | None = field(default=None, repr=False)

    def read(self) -> bytes:
        if self._bytes is None:
            self._bytes = b"".join(path.read_bytes() for path in self.files)
            if len(self._bytes) != self.size:
                raise FormatError(f"{self.files[0]}: changed while it was read")
        return self._bytes


@dataclass(frozen=True)
class Weight:
    """An array that is read on request."""

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    stored: np.dtype[Any]
    start: int
    group: _Group
    scale: float | None = None
    least: float | None = None

    def read(self) -> Array:
        """Return the array, dequantised if needed.

        ``scale * q + least`` in float64 and rounded once, as TensorFlow.js does.
        """
        data: Array = np.frombuffer(
            self.group.read(), self.stored, math.prod(self.shape), self.start
        )
        array = data.reshape(self.shape)
        if self.scale is not None:
            with np.errstate(over="ignore"):  # the spec refuses what is not finite
                wide = array * np.float64(self.scale) + np.float64(self.least or 0.0)
            array = np.round(wide) if self.dtype.kind == "i" else wide
        with np.errstate(over="ignore", invalid="ignore"):
            made: Array = array.astype(self.dtype)
        return made


def read_manifest(manifest: Any, folder: Path) -> list[Weight]:
    """Return the weights of a manifest, with sizes checked against the files.

    Parameters
    ----------
    manifest
        A list of groups ``{"paths": [...], "weights": [...]}``; one group; or a flat list of
        weights, each with its own paths.
    folder
        The folder of ``model.json``.

    Raises
    ------
    FormatError
        If a path leaves the folder, a file is missing or has another size, or an entry is damaged.
    UnsupportedError
        If a weight is not numeric.
    """
    entries = [manifest] if isinstance(manifest, Mapping) else manifest
    if not isinstance(entries, list) or not all(isinstance(e, Mapping) for e in entries):
        raise FormatError(f"weightsManifest: expected a list of groups, got {manifest!r:.60}")
    groups = [e if "weights" in e else {**e, "weights": [e]} for e in entries]
    files = [_files_of(group, folder) for group in groups]  # all paths, before a file is opened
    weights: list[Weight] = []
    for group, own in zip(groups, files, strict=True):
        weights += _read_group(group, own)
    seen: set[str] = set()
    for weight in weights:
        if weight.path in seen:
            raise FormatError(f"weightsManifest: two weights are named {weight.path!r}")
        seen.add(weight.path)
    return weights


def _files_of(group: Mapping[str, Any], folder: Path) -> tuple[Path, ...]:
    paths = group.get("paths")
    if not isinstance(paths, list) or not all(isinstance(p, str) for p in paths):
        raise FormatError(f"weightsManifest: paths: expected a list of names, got {paths!r:.60}")
    return tuple(_inside(folder, path) for path in paths)


def _read_group(group: Mapping[str, Any], files: tuple[Path, ...]) -> Iterator[Weight]:
    listed = group["weights"]
    for file in files:
        check_no_pointer(file)
    if not isinstance(listed, list) or not all(isinstance(w, Mapping) for w in listed):
        raise FormatError(f"weightsManifest: weights: expected a list, got {listed!r:.60}")
    made = _Group(files)
    for entry in listed:
        weight = _read_weight(entry, made)
        made.size = weight.start + weight.stored.itemsize * math.prod(weight.shape)
        if entry.get("group") != "optimizer":
            yield weight
    _check_sizes(files, made.size, [str(entry.get("name")) for entry in listed])


def _inside(folder: Path, path: str) -> Path:
    """Return the path of a file in the manifest; it must be inside the folder."""
    parts = path.split("/")
    odd = "\\" in path or ":" in path or "\0" in path or path.startswith("/") or not parts[-1]
    if odd or ".." in parts:
        raise FormatError(f"weightsManifest: path {path!r:.80}: expected a file beside model.json")
    try:
        root = os.path.realpath(folder)
        target = os.path.realpath(folder.joinpath(*parts))
    except ValueError:
        raise FormatError(f"weightsManifest: path {path!r:.80}: no name of a file") from None
    if os.path.commonpath([root, target]) != root:
        raise FormatError(f"weightsManifest: path {path!r:.80}: leaves the folder of model.json")
    if not os.path.isfile(target):
        raise FormatError(f"weightsManifest: path {path!r:.80}: no such file beside model.json")
    return Path(target)


def _check_sizes(files: Sequence[Path], expected: int, names: list[str]) -> None:
    found = sum(path.stat().st_size for path in files)
    if found != expected:
        listed = ", ".join(path.name for path in files) or "no file"
        raise FormatError(
            f"{listed}: expected {expected} bytes for {len(names)} weights "
            f"({', '.join(names)[:200]}), got {found}"
        )


def _read_weight(entry: Mapping[str, Any], group: _Group) -> Weight:
    name, shape, dtype = entry.get("name"), entry.get("shape"), entry.get("dtype")
    if not isinstance(name, str) or not name:
        raise FormatError(f"weightsManifest: expected a weight's name, got {name!r:.60}")
    if not isinstance(shape, list) or len(shape) > _MOST_AXES:
        raise FormatError(f"{name}: shape: expected a list of sizes, got {shape!r:.60}")
    if any(type(d) is not int or d < 0 for d in shape):
        raise FormatError(f"{name}: shape: expected sizes from 0 on, got {shape!r:.60}")
    if dtype in ("string", "complex64"):
        raise UnsupportedError(f"{name}: weights of dtype {dtype!r} are not supported")
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise FormatError(f"{name}: dtype: expected one of {', '.join(_DTYPES)}, got {dtype!r:.60}")
    known = np.dtype(_DTYPES[dtype]).newbyteorder("=")
    quantised = entry.get("quantization")
    if quantised is None:
        return Weight(name, tuple(shape), known, np.dtype(_DTYPES[dtype]), group.size, group)
    stored, scale, least = _read_quantisation(name, dtype, quantised)
    return Weight(name, tuple(shape), known, stored, group.size, group, scale, least)


def _read_quantisation(
    name: str, dtype: str, entry: Any
) -> tuple[np.dtype[Any], float | None, float | None]:
    form = entry.get("dtype") if isinstance(entry, Mapping) else None
    if not isinstance(form, str) or form not in _QUANTISED:
        raise FormatError(
            f"{name}: quantization: expected dtype {', '.join(_QUANTISED)}, got {form!r:.60}"
        )
    stored = np.dtype(_QUANTISED[form])
    if form == "float16":
        if dtype != "float32":
            raise FormatError(f"{name}: quantization: float16 of {dtype}, expected of float32")
        return stored, None, None
    numbers = []
    for key in ("scale", "min"):
        value = entry.get(key)
        if type(value) not in (int, float) or not abs(value) <= _LARGEST:
            raise FormatError(f"{name}: quantization: {key}: expected a number, got {value!r:.60}")
        numbers.append(float(value))
    return stored, numbers[0], numbers[1]
