"""What the objects in a pickle become: tensors, containers, numbers, and nothing that runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from npylstm import FormatError

__all__ = ["DTYPES", "Global", "NumpyArray", "NumpyType", "Opaque", "QuantizedTensor", "Storage",
           "Tensor", "check_type", "checked_key", "integers"]  # fmt: skip

# torch's names of element types, and NumPy's type strings.
DTYPES: dict[str, str] = {
    "float64": "f8", "float32": "f4", "float16": "f2", "bfloat16": "u2", "int64": "i8",
    "int32": "i4", "int16": "i2", "int8": "i1", "uint8": "u1", "bool": "?", "qint8": "i1",
}  # fmt: skip

_MOST_AXES = 32
_MOST_KEY_PARTS = 100
_LARGEST_KEY = 1 << 60  # larger numbers can be chosen to have equal hashes
_PLAIN = (str, int, float, bytes, type(None))


class Global(NamedTuple):
    """A global name in a pickle."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True)
class Storage:
    """A reference to a storage in the file; ``dtype`` is None if the tensor has it."""

    key: str
    dtype: str | None
    count: int
    start: int = 0  # offset of a view, in elements
    shown: int = -1  # number of elements in the view
    data: bytes | memoryview | None = field(default=None, repr=False, compare=False)  # if inside


@dataclass(frozen=True, eq=False, repr=False)
class Tensor:
    """A tensor as the pickle describes it, not checked and not read."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: str
    negative: bool = False  # the storage holds the negated values

    def __repr__(self) -> str:
        return f"<tensor of size {self.size}>"


@dataclass(frozen=True, eq=False, repr=False)
class QuantizedTensor(Tensor):
    """A tensor of 8-bit codes, which stand for ``scale * (code - zero_point)``.

    Attributes
    ----------
    scale, zero_point
        Numbers; with an axis, tensors or tuples with an entry for each index along it.
    axis
        None for one scale.
    """

    scale: float | Tensor | tuple[float, ...] = 1.0
    zero_point: int | Tensor | tuple[int, ...] = 0
    axis: int | None = None


@dataclass(slots=True)
class NumpyType:
    """An element type of NumPy."""

    descr: str
    order: str = "<"

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.order + self.descr)


@dataclass(eq=False, slots=True)
class NumpyArray:
    """A NumPy array; None before its state is set, or if it holds objects."""

    array: Any = None


@dataclass(eq=False, slots=True, repr=False)
class Opaque:
    """Represents an object of a class that is not known here, which is not created.

    Attributes
    ----------
    name
        Its class, or the function that would return it.
    arguments
        The arguments of the call; None for the class or function itself.
    state
        What the pickle sets as its state.
    items, parts
        Items of a mapping and of a sequence that the pickle adds to it.
    """

    name: Global
    arguments: tuple[Any, ...] | None = None
    state: Any = None
    items: dict[Any, Any] | None = None
    parts: list[Any] | None = None

    def __repr__(self) -> str:
        return f"<{self.name}>"

    @property
    def attributes(self) -> Mapping[Any, Any]:
        """Its attributes by name: the state, or the first part of a state with slots."""
        state = self.state
        if isinstance(state, tuple) and state:
            state = state[0]
        return state if isinstance(state, dict) else {}

    def children(self) -> list[Any]:
        """Return everything that the pickle has put into it."""
        return [self.arguments, self.state, self.items, self.parts]


def check_type(value: Any, kind: type | tuple[type, ...], what: str) -> Any:
    """Return the value if it is of a type; True and False are not integers here.

    Raises
    ------
    FormatError
        If it is not.
    """
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        raise FormatError(f"pickle: expected {what}, got {type(value).__name__}")
    return value


def integers(value: Any, what: str) -> tuple[int, ...]:
    """Return one integer for each axis."""
    if len(check_type(value, (tuple, list), what)) > _MOST_AXES:
        raise FormatError(f"pickle: {what} of {len(value)} axes")
    return tuple(check_type(v, int, what) for v in value)


def checked_key(value: Any) -> Any:
    """Return a key that can be hashed in little time.

    Foreign objects and tensors are equal to themselves only. A key of many parts, or a number that
    can be chosen to have the hash of others, becomes an :class:`Opaque` of its own.

    Raises
    ------
    FormatError
        If it is no key.
    """
    todo, seen = [value], 0
    while todo:
        part = todo.pop()
        seen += 1
        if isinstance(part, (tuple, frozenset)):
            todo += list(part)[:_MOST_KEY_PARTS]
        elif isinstance(part, (Opaque, Tensor)):
            continue
        elif not isinstance(part, _PLAIN):
            raise FormatError(f"pickle: a {type(part).__name__} as a key")
        large = isinstance(part, (int, float)) and abs(part) > _LARGEST_KEY
        if large or seen > _MOST_KEY_PARTS:
            return Opaque(Global("pickle", "key"), (value,))
    return value
