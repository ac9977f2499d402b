"""Read the values of a config from JSON, by the type of the field."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from npylstm.activations import Activation
from npylstm.errors import FormatError

__all__ = ["READERS"]


def _read_int(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise FormatError(f"{name}: expected an integer, got {value!r}")
    return value


def _read_bool(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise FormatError(f"{name}: expected true or false, got {value!r}")
    return value


def _read_ints(name: str, value: object) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise FormatError(f"{name}: expected a list of integers, got {value!r}")
    return tuple(_read_int(name, v) for v in value)


def _read_shapes(name: str, value: object) -> tuple[tuple[int, ...], ...]:
    if not isinstance(value, list):
        raise FormatError(f"{name}: expected a list of shapes, got {value!r:.80}")
    return tuple(_read_ints(name, v) for v in value)


def _read_activation(name: str, value: object) -> Activation:
    try:
        return Activation.from_json(value)
    except FormatError as error:
        raise FormatError(f"{name}: {error}") from None


def _read_str(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise FormatError(f"{name}: expected a string, got {value!r:.80}")
    return value


def _read_float(name: str, value: object) -> float:
    if value in ("inf", "-inf"):
        return float(str(value))
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise FormatError(f"{name}: expected a number, got {value!r:.80}")
    return float(value)


def _read_sizes(name: str, value: object) -> tuple[int | tuple[int, int], ...]:
    """Read a target shape: integers, and pairs of an input and its axis."""
    entries = value if isinstance(value, list) else [None]
    if not all(type(v) is int or _is_pair(v) for v in entries):
        raise FormatError(f"{name}: expected integers and pairs of them, got {value!r:.80}")
    sizes: list[Any] = [tuple(v) if isinstance(v, list) else v for v in entries]
    return tuple(sizes)


def _is_pair(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(type(v) is int for v in value)


def _or_null(read: Callable[[str, object], Any]) -> Callable[[str, object], Any]:
    return lambda name, value: None if value is None else read(name, value)


READERS: dict[Any, Callable[[str, object], Any]] = {
    int: _read_int,
    int | None: _or_null(_read_int),
    float: _read_float,
    float | None: _or_null(_read_float),
    bool: _read_bool,
    str: _read_str,
    tuple[int, ...]: _read_ints,
    tuple[int | tuple[int, int], ...]: _read_sizes,
    tuple[tuple[int, ...], ...]: _read_shapes,
    Activation: _read_activation,
}
