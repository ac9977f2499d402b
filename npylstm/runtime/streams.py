"""Streams for any engine: the state is an argument and a result of every call."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np

from npylstm.arrays import Array
from npylstm.graph.state import State, map_state, take_rows, zero_state
from npylstm.runtime.engines import Engine
from npylstm.spec import ModelSpec

__all__ = ["RunningStepper", "RunningStream", "RunningStreams", "Streams"]

Sizes = Mapping[str, tuple[int, ...]]


class RunningStream:
    """One state, passed through :meth:`Engine.run`."""

    def __init__(self, engine: Engine, spec: ModelSpec, batch: int) -> None:
        self._engine, self._spec = engine, spec
        self._state = zero_state(spec.state_shapes(), batch, spec.dtype)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return {name: y.copy() for name, y in self.advance(inputs).items()}

    def advance(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Compute the outputs, which may be the state or the inputs themselves."""
        outputs, self._state = self._engine.run(inputs, self._state)
        return outputs

    def read(self) -> State:
        return map_state(np.copy, self._state)

    def write(self, state: State) -> None:
        self._state = map_state(np.array, state)

    def stepper(self, sizes: Sizes) -> RunningStepper | None:
        known = {
            symbol: size
            for tensor in self._spec.inputs
            for symbol, size in zip(tensor.shape, sizes[tensor.name], strict=True)
        }
        y = {}
        for tensor in self._spec.output_specs:
            if any(isinstance(d, str) and d not in known for d in tensor.shape):
                return None
            y[tensor.name] = tuple(known[d] if isinstance(d, str) else d for d in tensor.shape)
        return RunningStepper(self, sizes, y, self._spec.dtype)

    def loop(self, x: Array, steps: int, last: int, carry: bool) -> None:
        return None


class RunningStepper:
    """A stream's call with fixed arrays of inputs and outputs."""

    def __init__(self, stream: RunningStream, x: Sizes, y: Sizes, dtype: str) -> None:
        self._stream = stream
        self.x = {name: np.zeros(shape, dtype) for name, shape in x.items()}
        self.y = {name: np.zeros(shape, dtype) for name, shape in y.items()}

    def run(self) -> None:
        for name, y in self._stream.advance(self.x).items():
            self.y[name][...] = y


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
