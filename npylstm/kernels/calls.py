"""One call of an operation in a program: where its tensors, states and scratch memory are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

__all__ = ["Call", "Place", "Sizes"]

Sizes = tuple[int, ...]


class Place(NamedTuple):
    """Where a tensor or a state is in its buffer, in elements."""

    name: tuple[str, ...]
    start: int
    stop: int
    shape: Sizes

    @property
    def size(self) -> int:
        """How many elements it has."""
        return self.stop - self.start

    @property
    def rows(self) -> int:
        """How many rows it has along its last axis."""
        return math.prod(self.shape[:-1])


class Call(NamedTuple):
    """What the row of a call is computed from.

    Attributes
    ----------
    inputs, outputs
        Places in the work buffer.
    states
        Places in the state buffer, in the order of the operation's states.
    mask
        Place of a recurrent operation's mask; empty where there is none.
    dtype
        Of the model.
    reserve
        Reserves so many elements of the work buffer, and returns the offset.
    half
        Where the output begins if two operations share it, each with its columns; None if not.
    """

    inputs: tuple[Place, ...]
    outputs: tuple[Place, ...]
    states: tuple[Place, ...]
    mask: Place
    dtype: str
    reserve: Callable[[int], int]
    half: int | None = None
