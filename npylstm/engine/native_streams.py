"""Streams of models that are native as a whole: state and buffers stay, a step is one call."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from npylstm.engine import State
from npylstm.engine.kernels import advance, execute, generate
from npylstm.engine.lowering import Program
from npylstm.engine.segment import Segment
from npylstm.engine.streams import DenseStates
from npylstm.layers.base import Array, zeros
from npylstm.spec import ModelSpec

__all__ = ["NativeStream", "NativeStreams"]

# Rows of a pool that are computed at a time: their tensors stay in the cache, and there are no
# more layouts than this.
_BLOCK = 64


class _Stepper:
    """Buffers of a program that stay, seen as the inputs and outputs."""

    def __init__(self, program: Program, params: Array, state: Array) -> None:
        work = np.zeros(program.work_size, params.dtype)
        self._arguments = (program.table, params, state, work)
        self.x, self.y = (
            {p.name[0]: work[p.start : p.stop].reshape(p.shape) for p in places}
            for places in (program.reads, program.writes)
        )

    def run(self) -> None:
        execute(*self._arguments)


class NativeStream:
    """One state in the layout of the kernels."""

    def __init__(self, segment: Segment, spec: ModelSpec, batch: int) -> None:
        self._segment = segment
        self._buffer: Array | None = None
        self._views = {k: zeros(v, batch, spec.dtype) for k, v in spec.state_shapes().items()}

    def _attach(self, program: Program) -> Array:
        """Lay the state out as programs want it; all for one batch size want it alike."""
        if self._buffer is None:
            self._buffer = np.zeros(program.state_size, self._segment.params.dtype)
            for place in program.states:
                call, name = place.name
                view = self._buffer[place.start : place.stop].reshape(place.shape)
                view[...] = self._views[call][name]
                self._views[call][name] = view
        return self._buffer

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        program = self._segment.program(inputs)
        stepper = _Stepper(program, self._segment.params, self._attach(program))
        for name, view in stepper.x.items():
            view[...] = inputs[name]
        stepper.run()
        return {name: y.copy() for name, y in stepper.y.items()}

    def read(self) -> dict[str, dict[str, Array]]:
        return {k: {n: a.copy() for n, a in v.items()} for k, v in self._views.items()}

    def write(self, state: State) -> None:
        for call, entries in self._views.items():
            for name, view in entries.items():
                view[...] = state[call][name]

    def stepper(self, sizes: Mapping[str, tuple[int, ...]]) -> _Stepper:
        program = self._segment.program_for(sizes)
        return _Stepper(program, self._segment.params, self._attach(program))

    def loop(self, x: Array, steps: int, last: int, carry: bool) -> Array:
        batch, window, features = x.shape
        program = self._segment.program({self._segment.reads[0]: x})
        state = self._attach(program)
        work = np.zeros(program.work_size, x.dtype)
        (source,), (target,) = program.reads, program.writes
        work[source.start : source.stop] = x.reshape(-1)
        begin = state[:0] if carry else state.copy()
        places = (source.start, window, target.start + last, (target.stop - target.start) // batch)
        out = np.empty((steps, batch, features), x.dtype)
        params = self._segment.params
        generate(program.table, params, state, begin, work, np.array(places), out)
        return out


class NativeStreams(DenseStates):
    """Many states in dense arrays; a kernel moves blocks of rows to the layout of a program."""

    def __init__(self, segment: Segment, spec: ModelSpec, capacity: int) -> None:
        super().__init__(spec, capacity)
        self._segment = segment
        # All states behind one another, each (capacity, size).
        arrays = [a for entries in self.arrays.values() for a in entries.values()]
        self._pool = np.zeros(sum(a.size for a in arrays), spec.dtype)
        self._starts: dict[tuple[str, ...], int] = {}
        at = 0
        for call, entries in self.arrays.items():
            for name, array in entries.items():
                entries[name] = self._pool[at : at + array.size].reshape(array.shape)
                self._starts[call, name] = at
                at += array.size

    def advance(self, rows: Array, inputs: Mapping[str, Array]) -> dict[str, Array]:
        ((name, x),) = inputs.items()
        count = len(rows)
        sizes = [min(count, _BLOCK), count % _BLOCK or min(count, _BLOCK)]
        whole, rest = (
            self._segment.program_for({name: _resized(x.shape, count, n)}) for n in sizes
        )
        (target,) = whole.writes
        y = np.empty(_resized(target.shape, sizes[0], count), x.dtype)
        work, state = np.empty(whole.work_size, x.dtype), np.empty(whole.state_size, x.dtype)
        advance(
            whole.table, rest.table, self._segment.params, self._pool, *self._places(whole, rest),
            rows, work, state, _BLOCK, x.reshape(count, -1), y.reshape(count, -1),
        )  # fmt: skip
        return {target.name[0]: y}

    def _places(self, *programs: Program) -> list[Array]:
        """Where each program reads and writes: rows of start in the pool, start here, size."""
        tables = []
        for program in programs:
            (source,), (target,) = program.reads, program.writes
            rows = [(source.start, target.start, 0)]
            for place in program.states:
                rows.append((self._starts[place.name], place.start, place.shape[1]))
            tables.append(np.array(rows))
        return tables


def _resized(shape: tuple[int, ...], batch: int, other: int) -> tuple[int, ...]:
    """Put another batch size into a shape; only steps, which are one, may stand before it."""
    axis = shape.index(batch)
    return (*shape[:axis], other, *shape[axis + 1 :])
