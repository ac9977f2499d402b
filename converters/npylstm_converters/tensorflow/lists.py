"""Lists of tensors, by which loops of TensorFlow read and write sequences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from npylstm_converters.errors import Refusal

__all__ = [
    "Reserved", "Slot", "Stacked", "Written", "from_tensor", "get_item", "length", "reserve",
    "set_item", "stack",
]  # fmt: skip


@dataclass(frozen=True)
class Stacked:
    """A list of the entries of a tensor along its first axis."""

    tensor: str


@dataclass(frozen=True)
class Reserved:
    """A list that is empty; the tensor is the number of its entries."""

    count: str


@dataclass(frozen=True)
class Slot:
    """A list that a loop writes to, by the number of the loop's value."""

    number: int


@dataclass(frozen=True)
class Written:
    """A list with the entry that one iteration writes."""

    slot: Slot
    index: str
    value: str


def from_tensor(_call: Any, tensor: str, _shape: Any) -> Stacked:
    """Return the list of a tensor's entries."""
    return Stacked(tensor)


def reserve(_call: Any, _shape: Any, count: str) -> Reserved:
    """Return a list that a loop will fill."""
    return Reserved(count)


def get_item(call: Any, items: Any, index: str, _shape: Any) -> str:
    """Return an entry of a list."""
    if not isinstance(items, Stacked):
        raise Refusal("reads a list that a loop has not filled, which is not supported")
    made: str = call.emit("Gather", items.tensor, index, axis=0)
    return made


def set_item(_call: Any, items: Any, index: str, value: str) -> Written:
    """Write an entry of a list."""
    if not isinstance(items, Slot):
        raise Refusal("writes to a list outside a loop, or twice in one, which is not supported")
    return Written(items, index, value)


def stack(_call: Any, items: Any, _shape: Any) -> str:
    """Return the tensor of all entries."""
    if not isinstance(items, Stacked):
        raise Refusal("reads a list that no loop has filled, which is not supported")
    return items.tensor


def length(call: Any, items: Any) -> str:
    """Return the number of entries."""
    if isinstance(items, Reserved):
        return items.count
    if not isinstance(items, Stacked):
        raise Refusal("counts a list while a loop fills it, which is not supported")
    made: str = call.emit("Shape", items.tensor, part="shape")
    count: str = call.emit("Gather", made, call.integers(0), axis=0)
    return count
