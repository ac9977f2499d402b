"""A run of edges that are all native: a program over flat buffers, laid out for each size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from npylstm.engine import State
from npylstm.engine.frame import Frame
from npylstm.engine.lowering import Parameters, Program
from npylstm.layers.base import Array
from npylstm.spec import Edge, ModelSpec

__all__ = ["Segment"]

_MAX_PROGRAMS = 64  # sets of input sizes that a segment keeps laid out
_KEPT_SIZE = 1 << 22  # numbers that a program's buffers may have to be kept from call to call


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

    def shortcut(self, shape: tuple[int, ...]) -> Callable[[Array], Array]:
        """Lay out calls with one input of this shape; the state begins at zero."""
        (name,) = self.reads
        program = self.program_for({name: shape})

        def run(x: Array) -> Array:
            frame = self._take(program)
            frame.first_x[...] = x
            frame.state.fill(0)
            frame.run()
            y: Array = frame.first_y.copy()
            self._give_back(program, frame)
            return y

        return run

    def _take(self, program: Program) -> Frame:
        """Take buffers that no other thread uses."""
        try:
            frame: Frame = program.frames.pop()
        except IndexError:
            frame = Frame(program, self.params)
        return frame

    def _give_back(self, program: Program, frame: Frame) -> None:
        if program.work_size <= _KEPT_SIZE:
            program.frames.append(frame)
