"""A run of edges that are all native: a program over flat buffers, laid out for each size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from npylstm.batching import cut
from npylstm.engine import State
from npylstm.engine.frame import Frame
from npylstm.engine.lowering import Parameters, Program
from npylstm.engine.team import Team, processors
from npylstm.layers.base import Array
from npylstm.spec import Edge, ModelSpec

__all__ = ["Segment"]

_MAX_PROGRAMS = 64  # sets of input sizes that a segment keeps laid out
# Numbers in buffers that are kept from call to call: of every program, or of the last ones only.
_SMALL_SIZE, _LARGE_SIZE, _MAX_LARGE = 1 << 17, 1 << 22, 2
_SLICE = 32  # rows that go through at a time where all of them would need more than that
# Multiplications that are worth a team of threads: to start one takes as long as a tenth of them.
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
        self._large: list[Frame] = []
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
    ) -> Callable[[Array], Array]:
        """Lay out calls with one input of this shape and one output; the state begins at zero.

        With the batch as the first axis of both, many rows go through in slices: their tensors
        stay closer, and need less memory. Threads share the units of a single large sequence.
        """
        (name,), (made,) = self.reads, self.writes
        program = self.program_for({name: shape})
        if batch_first and program.work_size > _LARGE_SIZE and shape[0] > _SLICE:
            return self._sliced(shape, program)
        members = min(threads, processors()) if program.shared >= _SHARED_SIZE else 1
        if members > 1:
            return self._shared(program, members)

        def run(x: Array) -> Array:
            frame = self._take(program)
            _give(frame, name, x)
            frame.run()
            y: Array = frame.y[made].copy()
            self._give_back(program, frame)
            return y

        return run

    def _sliced(self, shape: tuple[int, ...], whole: Program) -> Callable[[Array], Array]:
        (name,), (made,), (target,) = self.reads, self.writes, whole.writes
        slices = cut(shape[0], _SLICE)
        programs = [self.program_for({name: (s.stop - s.start, *shape[1:])}) for s in slices]

        def run(x: Array) -> Array:
            y = np.empty(target.shape, self.params.dtype)
            for part, program in zip(slices, programs, strict=True):
                frame = self._take(program)
                _give(frame, name, x[part])
                frame.run()
                y[part] = frame.y[made]
                self._give_back(program, frame)
            return y

        return run

    def _shared(self, program: Program, members: int) -> Callable[[Array], Array]:
        (name,), (made,) = self.reads, self.writes
        kept: list[Team] = []

        def run(x: Array) -> Array:
            try:
                team = kept.pop()
            except IndexError:
                team = Team(Frame(program, self.params), members)
            _give(team.frame, name, x)
            team.run()
            team.frame.check()
            y: Array = team.frame.y[made].copy()
            if program.work_size <= _LARGE_SIZE:
                kept.append(team)
            return y

        return run

    def _take(self, program: Program) -> Frame:
        """Take buffers that no other thread uses."""
        kept = program.frames if program.work_size <= _SMALL_SIZE else self._large
        try:  # to ask first whether there are any would leave time for another thread
            frame: Frame = kept.pop()
        except IndexError:
            return Frame(program, self.params)
        return frame if frame.program is program else Frame(program, self.params)

    def _give_back(self, program: Program, frame: Frame) -> None:
        if program.work_size <= _SMALL_SIZE:
            program.frames.append(frame)
        elif len(self._large) < _MAX_LARGE and program.work_size <= _LARGE_SIZE:
            self._large.append(frame)


def _give(frame: Frame, name: str, x: Array) -> None:
    """Give a frame its input, and a state of zero."""
    frame.x[name][...] = x
    frame.state.fill(0)
