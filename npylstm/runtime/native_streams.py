"""Streams of models that run as one native segment: a step is one native call."""

from __future__ import annotations

import math
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
_MOST_PREPARED = 16  # shapes of inputs with a prepared call
# Places of addresses among the arguments of npylstm.kernels.layers.advance.
_ROWS, _X, _Y = 4, 7, 9


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
            self._buffer = aligned(program.state_size, program.parameters.dtype)
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
        self._prepared: dict[tuple[int, ...], _Advance] = {}
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
        prepared = self._prepared.get(x.shape)
        if prepared is None:
            if len(self._prepared) >= _MOST_PREPARED:
                self._prepared.clear()
            prepared = _Advance(self._segment, name, x.shape, len(rows), self._pool, self._starts)
            self._prepared[x.shape] = prepared
        given, rows = rows, np.ascontiguousarray(rows, np.int64)
        before = self.read(given) if prepared.checks else {}
        try:
            y = prepared.run(rows, np.ascontiguousarray(x))
        except ShapeError:
            self.write(given, before)
            raise
        return {prepared.output: y}

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


class _Advance:
    """A prepared call for as many rows of a pool as the input has; used by one thread at a time.

    Attributes
    ----------
    output
        Name of the output.
    checks
        Whether kernels check values.
    """

    def __init__(
        self, segment: Segment, name: str, shape: tuple[int, ...], count: int, pool: Array,
        starts: Mapping[tuple[str, ...], int],
    ) -> None:  # fmt: skip
        sizes = [min(count, _BLOCK), count % _BLOCK or min(count, _BLOCK)]
        programs = [segment.program_for({name: _resized(shape, count, n)}) for n in sizes]
        self._pair = [ProgramBuffers(program) for program in programs]
        self._described = [_describe(buffers, starts) for buffers in self._pair]
        (target,) = programs[0].writes
        self.output, self.checks = target.name[0], bool(programs[0].checks)
        self._made, self._dtype = _resized(target.shape, sizes[0], count), pool.dtype
        parameters, size = segment.parameters, pool.itemsize
        self._call = parameters.library.bind(
            ADVANCE, *(d.ctypes.data for d in self._described), parameters.buffer.ctypes.data,
            pool.ctypes.data, 0, count, sizes[0], 0, math.prod(shape) // count * size, 0,
            math.prod(self._made) // count * size, size,
        )  # fmt: skip

    def run(self, rows: Array, x: Array) -> Array:
        """Advance these rows (n,) int64; both arrays are contiguous."""
        y = np.empty(self._made, self._dtype)
        arguments = self._call.arguments  # type: ignore[attr-defined]  # see KernelLibrary.bind
        arguments[_ROWS], arguments[_X], arguments[_Y] = (a.ctypes.data for a in (rows, x, y))
        self._call()
        if self.checks:
            for buffers in self._pair:
                buffers.check()
        return y


def _describe(buffers: ProgramBuffers, starts: Mapping[tuple[str, ...], int]) -> Array:
    """Return the description of a program that :func:`npylstm.kernels.layers.advance` reads."""
    operations, table, _, state, work = buffers.arguments
    (source,), (target,) = buffers.program.reads, buffers.program.writes
    places = buffers.program.states
    numbers = [operations, table, state, work, source.start, target.start, len(places)]
    for place in places:
        numbers += (starts[place.name], place.start, place.shape[1])
    return np.array(numbers, np.int64)


def _resized(shape: tuple[int, ...], batch: int, other: int) -> tuple[int, ...]:
    """Return a shape with another batch size; only a time axis of size one may be before it."""
    return resize_axis(shape, shape.index(batch), other)
