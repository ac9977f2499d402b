"""Streams of models that run as one native segment: a step is one native call."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from npylstm.arrays import Array
from npylstm.errors import ShapeError
from npylstm.graph.state import State, map_state, zero_state
from npylstm.kernels.library import ADVANCE, GENERATE
from npylstm.kernels.packing import aligned
from npylstm.ops.shapes import BATCH, resize_axis
from npylstm.runtime.program import Program
from npylstm.runtime.program_buffers import ProgramBuffers
from npylstm.runtime.segment import Segment
from npylstm.runtime.streams import Streams
from npylstm.spec import ModelSpec

__all__ = ["NativeStream", "NativeStreams"]

# Rows of a pool per program: tensors stay in the cache, and the number of programs is bounded.
_BLOCK = 64


class NativeStream:
    """One state, in a buffer of the kernels."""

    def __init__(self, segment: Segment, spec: ModelSpec, batch: int) -> None:
        self._segment = segment
        self._buffer: Array | None = None
        # Sizes and buffers of the last calls: of pushes and of single steps, by turns.
        self._laid_out: list[tuple[dict[str, tuple[int, ...]], ProgramBuffers]] = []
        self._views = zero_state(spec.state_shapes(), batch, spec.dtype)

    def _attach(self, program: Program) -> Array:
        """Return the state buffer; its layout is the same in all programs of one batch size."""
        if self._buffer is None:
            self._buffer = aligned(program.state_size, program.parameters.vector.dtype)
            for place in program.states:
                call, name = place.name
                view = self._buffer[place.start : place.stop].reshape(place.shape)
                view[...] = self._views[call][name]
                self._views[call][name] = view
        return self._buffer

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        buffers = self._buffers_for({name: x.shape for name, x in inputs.items()})
        for name, view in buffers.x.items():
            view[...] = inputs[name]
        buffers.run()
        return {name: y.copy() for name, y in buffers.y.items()}

    def _buffers_for(self, sizes: dict[str, tuple[int, ...]]) -> ProgramBuffers:
        for known, buffers in self._laid_out:
            if known == sizes:
                return buffers
        buffers = self.stepper(sizes)
        self._laid_out = [(sizes, buffers), *self._laid_out[:1]]
        return buffers

    def read(self) -> State:
        return map_state(np.copy, self._views)

    def write(self, state: State) -> None:
        for call, entries in self._views.items():
            for name, view in entries.items():
                view[...] = state[call][name]

    def stepper(self, sizes: Mapping[str, tuple[int, ...]]) -> ProgramBuffers:
        program = self._segment.program_for(sizes)
        return ProgramBuffers(program, self._attach(program))

    def loop(self, x: Array, steps: int, last: int, carry: bool) -> Array | None:
        batch, window, features = x.shape
        buffers = self.stepper({self._segment.reads[0]: x.shape})
        if buffers.program.checks:
            return None
        (source,), (target,) = buffers.program.reads, buffers.program.writes
        buffers.x[source.name[0]][...] = x
        initial = None if carry else buffers.state.copy()
        out = np.empty((steps, batch, features), x.dtype)
        self._segment.parameters.library.bind(
            GENERATE, *buffers.arguments, 0 if initial is None else initial.ctypes.data,
            buffers.state.size,
            source.start, batch, window, features, target.start + last,
            (target.stop - target.start) // batch, out.ctypes.data, steps, x.itemsize,
        )()  # fmt: skip
        return out


class NativeStreams(Streams):
    """Many states in dense arrays; a kernel copies blocks of rows to and from programs."""

    def __init__(self, segment: Segment, spec: ModelSpec, capacity: int) -> None:
        super().__init__(spec, capacity)
        self._segment = segment
        (source,), (target,) = spec.inputs, spec.output_specs
        self._steps_first = source.shape[0] != BATCH
        self._gives_steps = target.shape[0] != BATCH
        # All states in one buffer, each (capacity, size).
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
        if self._steps_first and len(x) > 1:
            return self._step_by_step(rows, name, x)
        count = len(rows)
        sizes = [min(count, _BLOCK), count % _BLOCK or min(count, _BLOCK)]
        whole, rest = (
            self._segment.program_for({name: _resized(x.shape, count, n)}) for n in sizes
        )
        (target,) = whole.writes
        y = np.empty(_resized(target.shape, sizes[0], count), x.dtype)
        pair = [ProgramBuffers(program) for program in (whole, rest)]
        described = [self._describe(buffers) for buffers in pair]
        given, rows = rows, np.ascontiguousarray(rows, np.int64)
        x = np.ascontiguousarray(x)
        before = self.read(given) if whole.checks else {}
        parameters = self._segment.parameters
        parameters.library.bind(
            ADVANCE, *(d.ctypes.data for d in described), parameters.buffer.ctypes.data,
            self._pool.ctypes.data, rows.ctypes.data, count, sizes[0], x.ctypes.data,
            x.nbytes // count, y.ctypes.data, y.nbytes // count, x.itemsize,
        )()  # fmt: skip
        try:
            for buffers in pair:
                buffers.check()
        except ShapeError:
            self.write(given, before)
            raise
        return {target.name[0]: y}

    def _step_by_step(self, rows: Array, name: str, x: Array) -> dict[str, Array]:
        """Advance inputs whose first axis is time: a row's steps are not contiguous."""
        before = self.read(rows)
        try:
            made = [self.advance(rows, {name: x[t : t + 1]}) for t in range(len(x))]
        except ShapeError:
            self.write(rows, before)
            raise
        if not self._gives_steps:
            return made[-1]
        return {output: np.concatenate([step[output] for step in made]) for output in made[-1]}

    def _describe(self, buffers: ProgramBuffers) -> Array:
        """Return the description of a program that :func:`npylstm.kernels.layers.advance` reads."""
        operations, table, _, state, work = buffers.arguments
        (source,), (target,) = buffers.program.reads, buffers.program.writes
        places = buffers.program.states
        numbers = [operations, table, state, work, source.start, target.start, len(places)]
        for place in places:
            numbers += (self._starts[place.name], place.start, place.shape[1])
        return np.array(numbers, np.int64)


def _resized(shape: tuple[int, ...], batch: int, other: int) -> tuple[int, ...]:
    """Return a shape with another batch size; only a time axis of size one may be before it."""
    return resize_axis(shape, shape.index(batch), other)
