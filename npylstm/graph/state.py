"""Carried state: one type, and how it is made, copied and cut.

A state maps a call to its arrays by name: ``{"lstm": {"h": (batch, units), "c": (batch, units)}}``.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from npylstm.arrays import Array, zeros

__all__ = ["State", "StateShapes", "join_states", "map_state", "take_rows", "zero_state"]

State = dict[str, dict[str, Array]]
StateShapes = Mapping[str, Mapping[str, tuple[int, ...]]]


def zero_state(shapes: StateShapes, batch: int, dtype: Any) -> State:
    """Return the initial state of zeros; ``shapes`` have no batch axis."""
    return {call: zeros(entries, batch, dtype) for call, entries in shapes.items()}


def map_state(function: Callable[[Array], Any], state: Mapping[str, Mapping[str, Array]]) -> State:
    """Return the state with a function applied to every array."""
    return {
        call: {name: function(array) for name, array in entries.items()}
        for call, entries in state.items()
    }


def join_states(states: Sequence[State]) -> State:
    """Return the state of all rows of several states, in order."""
    return {
        call: {name: np.concatenate([s[call][name] for s in states]) for name in entries}
        for call, entries in states[0].items()
    }


def take_rows(state: Mapping[str, Mapping[str, Array]], rows: Any) -> State:
    """Return the state of some rows of the batch: an index, a slice or an array of indices."""
    return map_state(operator.itemgetter(rows), state)
