"""Streams for any engine: the state is an argument and a result of every call."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from npylstm.arrays import Array
from npylstm.ops.base import zeros
from npylstm.runtime.engines import Engine, State
from npylstm.spec import ModelSpec

__all__ = ["DenseStates", "RunningStream", "RunningStreams"]


class RunningStream:
    """One state, passed through :meth:`Engine.run`."""

    def __init__(self, engine: Engine, spec: ModelSpec, batch: int) -> None:
        self._engine = engine
        shapes = spec.state_shapes()
        self._state: State = {k: zeros(v, batch, spec.dtype) for k, v in shapes.items()}

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        outputs, self._state = self._engine.run(inputs, self._state)
        return {name: y.copy() for name, y in outputs.items()}  # it may be the state or the input

    def read(self) -> dict[str, dict[str, Array]]:
        return {k: {n: a.copy() for n, a in v.items()} for k, v in self._state.items()}

    def write(self, state: State) -> None:
        self._state = {k: {n: np.array(a) for n, a in v.items()} for k, v in state.items()}

    def stepper(self, sizes: Mapping[str, tuple[int, ...]]) -> None:
        return None

    def loop(self, x: Array, steps: int, last: int, carry: bool) -> None:
        return None


class DenseStates:
    """One array per state, one row per stream."""

    def __init__(self, spec: ModelSpec, capacity: int) -> None:
        self.arrays = {
            call: zeros(shapes, capacity, spec.dtype)
            for call, shapes in spec.state_shapes().items()
        }

    def read(self, rows: Array) -> dict[str, dict[str, Array]]:
        return {k: {n: a[rows] for n, a in v.items()} for k, v in self.arrays.items()}

    def write(self, rows: Array, state: State) -> None:
        for call, entries in self.arrays.items():
            for name, array in entries.items():
                array[rows] = state[call][name]


class RunningStreams(DenseStates):
    """Many states: rows are gathered into a batch, computed, and scattered back."""

    def __init__(self, engine: Engine, spec: ModelSpec, capacity: int) -> None:
        super().__init__(spec, capacity)
        self._engine = engine

    def advance(self, rows: Array, inputs: Mapping[str, Array]) -> dict[str, Array]:
        outputs, after = self._engine.run(inputs, self.read(rows))
        self.write(rows, after)
        return {name: y.copy() for name, y in outputs.items()}
