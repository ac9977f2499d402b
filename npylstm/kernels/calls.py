"""One call of an operation in a program: offsets of its tensors, states and scratch memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from npylstm.kernels.library import KernelLibrary
from npylstm.kernels.packing import VectorType

__all__ = ["Call", "Place", "Sizes"]

Sizes = tuple[int, ...]


class Place(NamedTuple):
    """A tensor or a state in its buffer; offsets are in elements."""

    name: tuple[str, ...]
    start: int
    stop: int
    shape: Sizes

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.stop - self.start

    @property
    def rows(self) -> int:
        """Number of rows along the last axis."""
        return math.prod(self.shape[:-1])


class Call(NamedTuple):
    """The input of the function that fills a row.

    Attributes
    ----------
    inputs, outputs
        Places in the work buffer.
    states
        Places in the state buffer, in the order of the operation's states.
    mask
        Place of a recurrent operation's mask; empty if there is none.
    library
        The compiled kernels.
    vector
        Their vectors, of the model's dtype.
    reserve
        Reserves so many elements of the work buffer for this call, and returns the offset.
    flag
        Reserves an element that is zero until this kernel sets it, and returns the offset.
    half
        First column of the output if two operations share it; None if not.
    """

    inputs: tuple[Place, ...]
    outputs: tuple[Place, ...]
    states: tuple[Place, ...]
    mask: Place
    library: KernelLibrary
    vector: VectorType
    reserve: Callable[[int], int]
    flag: Callable[[], int]
    half: int | None = None
