"""A run of edges that are all native: a program over flat buffers, laid out for each size."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from npylstm.arrays import Array
from npylstm.runtime.batching import Fill, cut, side_by_side
from npylstm.runtime.engines import State
from npylstm.runtime.frame import Frame
from npylstm.runtime.program import Parameters, Program
from npylstm.runtime.thread_group import most_threads
from npylstm.spec import Edge, ModelSpec

__all__ = ["Segment"]

_MAX_PROGRAMS = 64  # sets of input sizes that a segment keeps laid out
# Buffers that are kept from call to call: each with no more numbers than this; all of those with
# so few; of the larger ones the latest, so many numbers together.
_LARGE_SIZE, _SMALL_SIZE, _KEPT_SIZE = 1 << 22, 1 << 17, 1 << 23
_SLICE = 32  # rows that go through at a time where all of them would need more than a large buffer
# Multiplications that are worth a team of threads: below, starting it takes more than it saves.
_SHARED_SIZE = 20_000_000


class Segment:
    """A run of native edges."""

    def __init__(self, edges: Sequence[Edge], spec: ModelSpec, parameters: Parameters) -> None:
        made = {t for edge in edges for t in edge.outputs}
        later = {t for edge in spec.edges if edge not in edges for t in edge.inputs}
        self._edges = edges
        self._layers = {layer.name: layer.layer for layer in spec.layers}
        self._parameters = parameters
        self.reads = tuple(dict.fromkeys(t for e in edges for t in e.inputs if t not in made))
        self.writes = tuple(sorted(made & (later | set(spec.outputs))))
        # Programs with large frames that are kept, one entry for each, the latest last.
        self._large: list[Program] = []
        self._programs: dict[tuple[tuple[int, ...] | None, ...], Program] = {}

    @property
    def params(self) -> Array:
        """All weights, packed."""
        return self._parameters.buffer

    def program(self, tensors: Mapping[str, Array], mask: Array | None = None) -> Program:
        """Lay out a program for inputs of these arrays' sizes, and a mask where there is one."""
        sizes = {name: tensors[name].shape for name in self.reads}
        return self.program_for(sizes, None if mask is None else mask.shape)

    def program_for(
        self, reads: Mapping[str, tuple[int, ...]], mask: tuple[int, ...] | None = None
    ) -> Program:
        """Lay out a program for inputs of these sizes; it is kept."""
        sizes = (*(reads[name] for name in self.reads), mask)
        program = self._programs.get(sizes)
        if program is None:
            program = Program(self._edges, self._layers, self._parameters, reads, self.writes, mask)
            if len(self._programs) >= _MAX_PROGRAMS:
                self._programs = {}
            self._programs[sizes] = program
        return program

    def run(
        self,
        tensors: dict[str, Array],
        state: State,
        after: dict[str, dict[str, Array]],
        mask: Array | None,
    ) -> None:
        """Add this segment's outputs to ``tensors`` and its states to ``after``."""
        program = self.program(tensors, mask)
        frame = self._take(program)
        for name, view in frame.x.items():
            view[...] = tensors[name]
        for place, view in frame.states:
            layer, name = place.name
            view[...] = state[layer][name]
        if mask is not None:
            frame.mask[...] = mask
        frame.run()
        for name, view in frame.y.items():
            tensors[name] = view.copy()
        for place, view in frame.states:
            layer, name = place.name
            after.setdefault(layer, {})[name] = view.copy()
        self._give_back(program, frame)

    def shortcut(
        self, shape: tuple[int, ...], batch_first: bool, threads: int
    ) -> Callable[[Array], Array] | None:
        """Lay out calls with one input of this shape and one output; the state begins at zero.

        With the batch as the first axis of both, threads may share its rows, and many rows go
        through in slices: their tensors stay closer, and need less memory. None if they may not.
        """
        (name,), (made,) = self.reads, self.writes
        program = self.program_for({name: shape})
        if threads > 1 and not batch_first:
            return None
        if threads > 1 or (batch_first and _is_large(program, shape)):
            return self._in_parts(shape, program.writes[0].shape, threads)

        def run(x: Array) -> Array:
            frame = self._take(program)
            _give(frame, name, x)
            frame.run()
            y: Array = frame.y[made].copy()
            self._give_back(program, frame)
            return y

        return run

    def _in_parts(
        self, shape: tuple[int, ...], made: tuple[int, ...], threads: int
    ) -> Callable[[Array], Array]:
        slices = cut(shape[0], -(-shape[0] // threads))
        each = min(threads, most_threads()) // len(slices)
        fill = side_by_side(
            slices, [self._filler((s.stop - s.start, *shape[1:]), each) for s in slices]
        )

        def run(x: Array) -> Array:
            y = np.empty(made, self.params.dtype)
            fill(x, y)
            return y

        return run

    def _filler(self, shape: tuple[int, ...], threads: int) -> Fill:
        """Lay out calls as :meth:`shortcut`, by so many threads; they are given the output, too."""
        (name,), (made,) = self.reads, self.writes
        program = self.program_for({name: shape})
        if _is_large(program, shape):
            return self._one_by_one(shape)
        pays = program.shared >= _SHARED_SIZE
        threads = max(1, min(threads, program.shares)) if pays else 1

        def fill(x: Array, y: Array) -> None:
            frame = self._take(program)
            _give(frame, name, x)
            frame.run_with(threads)
            y[...] = frame.y[made]
            self._give_back(program, frame)

        return fill

    def _one_by_one(self, shape: tuple[int, ...]) -> Fill:
        slices = cut(shape[0], _SLICE)
        fillers = [self._filler((s.stop - s.start, *shape[1:]), 1) for s in slices]

        def fill(x: Array, y: Array) -> None:
            for part, filler in zip(slices, fillers, strict=True):
                filler(x[part], y[part])

        return fill

    def _take(self, program: Program) -> Frame:
        """Take buffers that no other thread uses."""
        try:  # to ask first whether there are any would leave time for another thread
            frame: Frame = program.frames.pop()
        except IndexError:
            return Frame(program, self.params)
        if program.work_size > _SMALL_SIZE:
            with contextlib.suppress(ValueError):  # just given up, by another thread
                self._large.remove(program)
        return frame

    def _give_back(self, program: Program, frame: Frame) -> None:
        if program.work_size > _LARGE_SIZE:
            return
        program.frames.append(frame)
        if program.work_size <= _SMALL_SIZE:
            return
        self._large.append(program)
        while sum(p.work_size for p in self._large) > _KEPT_SIZE:
            with contextlib.suppress(IndexError):  # just taken
                self._large.pop(0).frames.pop()


def _is_large(program: Program, shape: tuple[int, ...]) -> bool:
    return program.work_size > _LARGE_SIZE and shape[0] > _SLICE


def _give(frame: Frame, name: str, x: Array) -> None:
    """Give a frame its input, and a state of zero."""
    frame.x[name][...] = x
    frame.state.fill(0)
