"""JSON files that hold weights: their keys, their sizes, their numbers, none of them trusted."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from npylstm import FormatError
from npylstm.arrays import Array
from npylstm.ops.shapes import format_shape
from npylstm_converters.errors import Refusal

__all__ = [
    "is_json", "listed_shape", "read_choice", "read_numbers", "read_object", "read_size",
    "top_keys",
]  # fmt: skip

_LARGEST = 16 << 20  # bytes; the worst JSON takes Python thirty times as much memory
_MOST_AXES = 32
_KEY = re.compile(r'"([^"\\\n]{1,200})"\s{0,20}:')


def is_json(head: bytes) -> bool:
    """Return whether a file with these first bytes may be a JSON object."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n")
    return text.startswith(b"{") and b"\0" not in head


def top_keys(path: str | os.PathLike[str]) -> set[str]:
    """Return the keys of a JSON object in a file; of a damaged one, all that look like keys.

    Parameters
    ----------
    path
        Any file.

    Returns
    -------
    set
        Empty if the file is no JSON object or is too large.

    Raises
    ------
    OSError
        If it cannot be opened.
    """
    data = _read(path)
    text = data.decode("utf-8-sig", "replace")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return set(_KEY.findall(text))
    return set(document) if isinstance(document, dict) else set()


def _read(path: str | os.PathLike[str]) -> bytes:
    """Return the bytes of a file; none if it is too large."""
    if os.path.getsize(path) > _LARGEST:
        return b""
    with open(path, "rb") as stream:
        return stream.read(_LARGEST)


def read_object(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises
    ------
    FormatError
        If it is damaged, too large or no object, or an object in it has one key twice.
    OSError
        If it cannot be opened.
    """
    label = os.fspath(path)
    if os.path.exists(path) and not os.path.isfile(path):  # opening a pipe would block
        raise FormatError(f"{label}: expected a file")
    size = os.path.getsize(path)
    if size > _LARGEST:
        raise FormatError(f"{label}: expected up to {_LARGEST} bytes of JSON, got {size}")
    try:
        document = json.loads(_read(path).decode("utf-8-sig"), object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{label}: not JSON, or damaged: {error}") from None
    if not isinstance(document, dict):
        raise FormatError(f"{label}: expected a JSON object, got {type(document).__name__}")
    return document


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"an object has the key {twice!r:.80} twice")
    return document


def read_size(name: str, value: Any, least: int = 1) -> int:
    """Return a size that a document states.

    Raises
    ------
    FormatError
        If it is no integer, or smaller than ``least``.
    """
    if type(value) is not int or value < least:
        raise FormatError(f"{name}: expected an integer from {least} on, got {value!r:.80}")
    return value


def read_choice(name: str, value: Any, choices: Collection[str]) -> str:
    """Return a word that a document states.

    Raises
    ------
    Refusal
        If it is none of the known ones.
    """
    if not isinstance(value, str) or value not in choices:
        raise Refusal(f"{name} {value!r:.80} is not supported, only {', '.join(choices)}")
    return value


def listed_shape(name: str, value: Any) -> tuple[int, ...]:
    """Return the shape of nested lists, by the first entry of each.

    Raises
    ------
    FormatError
        If a list is empty, or they are nested too deep.
    """
    shape: list[int] = []
    while isinstance(value, list):
        shape.append(len(value))
        if not value or len(shape) > _MOST_AXES:
            raise FormatError(f"{name}: expected numbers in up to {_MOST_AXES} levels of lists")
        value = value[0]
    return tuple(shape)


def read_numbers(name: str, value: Any, shape: Sequence[int]) -> Array:
    """Return nested lists of numbers as an array.

    Parameters
    ----------
    name
        For messages.
    value
        What the document holds.
    shape
        The shape that the lists must have.

    Returns
    -------
    Array
        float32.

    Raises
    ------
    FormatError
        If a list has another length, or an entry is no finite number.
    """
    flat = value if isinstance(value, list) else [value]
    if shape and (not isinstance(value, list) or len(value) != shape[0]):
        raise _wrong(name, value, shape)
    for size in shape[1:]:
        if not all(isinstance(part, list) and len(part) == size for part in flat):
            part = next(p for p in flat if not isinstance(p, list) or len(p) != size)
            raise _wrong(name, part, shape)
        flat = [entry for part in flat for entry in part]
    for entry in flat:
        if type(entry) not in (int, float):
            raise FormatError(f"{name}: expected a number, got {_clipped(entry)}")
    try:
        with np.errstate(over="ignore"):
            array = np.array(flat, np.float64).astype(np.float32)
    except OverflowError:
        raise FormatError(f"{name}: expected finite numbers of float32") from None
    if not np.isfinite(array).all():
        raise FormatError(f"{name}: expected finite numbers of float32")
    return array.reshape(tuple(shape))


def _wrong(name: str, part: Any, shape: Sequence[int]) -> FormatError:
    got = f"a list of {len(part)}" if isinstance(part, list) else _clipped(part)
    return FormatError(f"{name}: expected numbers of shape {format_shape(shape)}, found {got}")


def _clipped(value: Any) -> str:
    """Return a value for a message; lists and objects by their type, which may be nested deep."""
    return type(value).__name__ if isinstance(value, (list, Mapping)) else f"{value!r:.80}"
