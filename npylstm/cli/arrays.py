"""Read and write arrays: ``.npy``, ``.npz`` and ``.csv``."""

from __future__ import annotations

import errno
import io
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from npylstm.arrays import Array
from npylstm.errors import FormatError, ShapeError
from npylstm.io import npz
from npylstm.ops.shapes import format_shape
from npylstm.spec import TensorSpec

__all__ = [
    "STANDARD",
    "print_csv",
    "read_example",
    "read_inputs",
    "read_outputs",
    "read_state",
    "write",
]

STANDARD = "-"  # standard input or output


def read_inputs(path: str, expected: Sequence[TensorSpec], what: str = "input") -> dict[str, Array]:
    """Read a model's inputs.

    Parameters
    ----------
    path
        ``.npy``: one array. ``.npz``: one array per input, by name (for one input, any name).
        ``.csv``: one sample per row if the columns are the values of a sample; otherwise one
        sequence, one time step per row; the first line may name the columns. ``-``: any of these
        from standard input.
    expected
        The model's inputs.
    what
        What they are, for messages.

    Raises
    ------
    FormatError
        If the file is damaged or of another kind.
    ShapeError
        If the inputs are not those of the model.
    """
    suffix, source = _opened(path)
    names = [t.name for t in expected]
    if suffix == ".npz":
        with npz.Archive(source) as archive:
            found = {key: archive.array(key) for key in sorted(archive.keys)}
        if len(names) == 1 and len(found) == 1:
            return {names[0]: next(iter(found.values()))}
        if set(found) != set(names):
            raise ShapeError(f"{path}: expected arrays {sorted(names)}, got {sorted(found)}")
        return found
    if len(names) > 1:
        raise ShapeError(f"{path}: expected an .npz with the arrays {sorted(names)}")
    if suffix == ".npy":
        return {names[0]: npz.read_npy(source)}
    return {names[0]: _read_csv(source, path, expected[0], what)}


def _opened(path: str) -> tuple[str, str | io.BytesIO]:
    """Return the suffix of a file of arrays, and the file; ``-`` is standard input."""
    if path == STANDARD:
        data = sys.stdin.buffer.read()
        if not data:
            raise FormatError("-: standard input is empty, expected .npy, .npz or CSV")
        kinds = {b"\x93NUMPY": ".npy", b"PK": ".npz"}
        suffix = next((kind for magic, kind in kinds.items() if data.startswith(magic)), ".csv")
        return suffix, io.BytesIO(data)
    if not os.path.exists(path):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    suffix = Path(path).suffix.lower()
    if suffix not in (".npy", ".npz", ".csv"):
        raise FormatError(f"{path}: expected a .npy, .npz or .csv file")
    return suffix, path


def read_outputs(path: str, expected: Sequence[TensorSpec]) -> dict[str, Array]:
    """Read outputs of another program: one array, or one per output by name.

    Raises
    ------
    FormatError
        If the file is damaged or of another kind.
    ShapeError
        If the outputs are not those of the model.
    """
    return read_inputs(path, expected, "output")


def read_state(path: str) -> dict[str, dict[str, Array]]:
    """Read an initial state from an ``.npz`` with keys ``LAYER/h``, ``LAYER/c``."""
    state: dict[str, dict[str, Array]] = {}
    with npz.Archive(path) as archive:
        for key in sorted(archive.keys):
            layer, _, name = key.partition("/")
            state.setdefault(layer, {})[name] = archive.array(key)
    return state


def _table(source: str | io.BytesIO, path: str) -> Array:
    """Read the numbers of a CSV file; a first line of names only is left out."""
    try:
        data = source.getvalue() if isinstance(source, io.BytesIO) else Path(source).read_bytes()
        lines = data.decode("utf-8-sig").splitlines()
        first = next((k for k, line in enumerate(lines) if line.strip()), 0)
        names = not any(map(_is_number, lines[first].split(","))) if lines else False
        rows = [line for line in lines[first + names :] if line.strip()]
        if not rows:
            raise ValueError("there are none")
        table: Array = np.loadtxt(rows, delimiter=",", ndmin=2)
    except (ValueError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: expected rows of numbers with commas: {error}") from None
    return table


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _read_csv(source: str | io.BytesIO, path: str, expected: TensorSpec, what: str) -> Array:
    table = _table(source, path)
    inner = expected.shape[1:]
    sample = [d for d in inner if isinstance(d, int)]
    if len(sample) == len(inner) and np.prod(sample) == table.shape[1]:
        return table.reshape(len(table), *sample)
    if len(inner) == 2 and inner[1] == table.shape[1]:
        return table[None]
    raise ShapeError(
        f"{path}: {table.shape[1]} columns do not fit the {what} {format_shape(expected.shape)}"
    )


def read_example(path: str) -> Any:
    """Read arrays of any shape: one, or those of an ``.npz`` by name."""
    suffix, source = _opened(path) if path == STANDARD else (Path(path).suffix, path)
    if suffix != ".npz":
        return npz.read_npy(source)
    with npz.Archive(source) as archive:
        return {key: archive.array(key) for key in archive.keys}


def write(outputs: Mapping[str, Array], path: str) -> None:
    """Write outputs in the format of the suffix.

    Raises
    ------
    FormatError
        If the suffix is unknown, or the format holds only one of several outputs.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".npz":
        npz.write_arrays(outputs, path)
        return
    if suffix not in (".npy", ".csv"):
        raise FormatError(f"{path}: expected a .npy, .npz or .csv file")
    if len(outputs) > 1:
        raise FormatError(f"{path}: the model has outputs {sorted(outputs)}, write an .npz")
    (array,) = outputs.values()
    with npz.atomic_write(path) as stream:
        if suffix == ".npy":
            np.save(stream, array, allow_pickle=False)
        else:
            np.savetxt(stream, _rows(array), delimiter=",", fmt="%.9g")


def _rows(array: Array) -> Array:
    """Return an array with one row for each sample; there may be none."""
    return array.reshape(len(array), math.prod(array.shape[1:]))


def print_csv(outputs: Mapping[str, Array]) -> None:
    """Print outputs, one sample per row; each of several behind a line with its name."""
    for name, array in outputs.items():
        if len(outputs) > 1:
            print(f"# {name} {format_shape(array.shape)}")
        np.savetxt(sys.stdout, _rows(array), delimiter=",", fmt="%.9g")
