"""What the objects in a pickle become: tensors, containers, numbers, and nothing that runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from npylstm import FormatError

__all__ = ["DTYPES", "Global", "NumpyArray", "NumpyType", "Opaque", "Storage", "Tensor",
           "check_type", "checked_key", "integers"]  # fmt: skip

# torch's names of element types, and NumPy's type strings.
DTYPES: dict[str, str] = {
    "float64": "f8", "float32": "f4", "float16": "f2", "bfloat16": "u2", "int64": "i8",
    "int32": "i4", "int16": "i2", "int8": "i1", "uint8": "u1", "bool": "?",
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


@dataclass(frozen=True)
class Tensor:
    """A tensor as the pickle describes it, not checked and not read."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: str
    negative: bool = False  # the storage holds the negated values


@dataclass
class NumpyType:
    """An element type of NumPy."""

    descr: str


@dataclass
class NumpyArray:
    """A NumPy array; None before its state is set."""

    array: Any = None


@dataclass
class Opaque:
    """Represents an object of a forbidden class, which is not created: class and attributes."""

    name: Global
    state: dict[Any, Any] = field(default_factory=dict)


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
    """Return a key if it is plain or a small tuple: hashing nested tuples could take forever."""
    todo, seen = [value], 0
    while todo and seen < _MOST_KEY_PARTS:
        part = todo.pop()
        seen += 1
        if isinstance(part, tuple):
            todo += part[:_MOST_KEY_PARTS]
        elif not isinstance(part, _PLAIN) or (
            isinstance(part, (int, float)) and abs(part) > _LARGEST_KEY
        ):
            break
    else:
        if not todo:
            return value
    raise FormatError(f"pickle: a {type(value).__name__} as a key")
