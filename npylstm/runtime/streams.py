"""Streams for any engine: the state is an argument and a result of every call."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np

from npylstm.arrays import Array
from npylstm.graph.state import State, map_state, take_rows, zero_state
from npylstm.runtime.engines import Engine
from npylstm.spec import ModelSpec

__all__ = ["RunningStream", "RunningStreams", "Streams"]


class RunningStream:
    """One state, passed through :meth:`Engine.run`."""

    def __init__(self, engine: Engine, spec: ModelSpec, batch: int) -> None:
        self._engine = engine
        self._state = zero_state(spec.state_shapes(), batch, spec.dtype)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        outputs, self._state = self._engine.run(inputs, self._state)
        return {name: y.copy() for name, y in outputs.items()}  # it may be the state or the input

    def read(self) -> State:
        return map_state(np.copy, self._state)

    def write(self, state: State) -> None:
        self._state = map_state(np.array, state)

    def stepper(self, sizes: Mapping[str, tuple[int, ...]]) -> None:
        return None

    def loop(self, x: Array, steps: int, last: int, carry: bool) -> None:
        return None


class Streams(ABC):
    """States of many streams: one array per state, one row per stream."""

    def __init__(self, spec: ModelSpec, capacity: int) -> None:
        self.arrays = zero_state(spec.state_shapes(), capacity, spec.dtype)

    @abstractmethod
    def advance(self, rows: Array, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run these rows (n,), each with its row of the inputs; return every output."""

    def read(self, rows: Array) -> State:
        """Return a copy of the states of these rows."""
        return take_rows(self.arrays, rows)

    def write(self, rows: Array, state: State) -> None:
        """Replace the states of these rows with complete, checked ones."""
        for call, entries in self.arrays.items():
            for name, array in entries.items():
                array[rows] = state[call][name]


class RunningStreams(Streams):
    """Many states: rows are gathered into a batch, computed, and scattered back."""

    def __init__(self, engine: Engine, spec: ModelSpec, capacity: int) -> None:
        super().__init__(spec, capacity)
        self._engine = engine

    def advance(self, rows: Array, inputs: Mapping[str, Array]) -> dict[str, Array]:
        outputs, after = self._engine.run(inputs, self.read(rows))
        self.write(rows, after)
        return {name: y.copy() for name, y in outputs.items()}
