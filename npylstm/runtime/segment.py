"""Consecutive native edges: a program over flat buffers for each set of input sizes."""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from npylstm.arrays import Array
from npylstm.graph.parts import Edge
from npylstm.graph.state import State
from npylstm.runtime.backoff import Backoff
from npylstm.runtime.batching import cut
from npylstm.runtime.parameters import Parameters
from npylstm.runtime.program import Program, checks_values
from npylstm.runtime.program_buffers import ProgramBuffers
from npylstm.runtime.rewriting import Graph
from npylstm.runtime.sharing import useful_threads
from npylstm.runtime.threads import run_together

__all__ = ["Segment"]

Arrays = Sequence[Array]
# Computes rows of the outputs (second list) from rows of the inputs.
Fill = Callable[[Arrays, Arrays], None]

_MAX_PROGRAMS = 64  # sets of input sizes with a kept program
# Kept buffers, in elements: none larger than the first size, all up to the second, and of the
# others the last used, up to the third in total.
_LARGE_SIZE, _SMALL_SIZE, _KEPT_SIZE = 1 << 22, 1 << 17, 1 << 23
# Rows per slice where the whole batch would need more than a large buffer.
_FEWEST_ROWS, _MOST_ROWS = 8, 32


class Segment:
    """Consecutive native edges."""

    def __init__(
        self, edges: Sequence[Edge], graph: Graph, outputs: Sequence[str], parameters: Parameters
    ) -> None:
        made, own = {t for edge in edges for t in edge.outputs}, {*edges}
        later = {t for edge in graph.edges if edge not in own for t in edge.inputs}
        self._edges = edges
        self._layers = {layer.name: layer.layer for layer in graph.layers}
        self.parameters = parameters
        self.reads = tuple(dict.fromkeys(t for e in edges for t in e.inputs if t not in made))
        # Kernels compare the ids that they read with the vocabulary. Where an id may be any number,
        # no other layer may read it.
        reads = Counter(t for edge in graph.edges for t in edge.inputs)
        self.checked = frozenset(
            edge.inputs[0]
            for edge in edges
            if checks_values(self._layers[edge.layer])
            and (self._layers[edge.layer].kind == "embedding" or reads[edge.inputs[0]] == 1)
        )
        self.writes = tuple(sorted(made & (later | {*outputs})))
        # Programs with large kept buffers, one entry for each, the last used at the end.
        self._large: list[Program] = []
        self._programs: dict[tuple[tuple[int, ...] | None, ...], Program] = {}

    def program(self, tensors: Mapping[str, Array], mask: Array | None = None) -> Program:
        """Return the program for the sizes of these arrays, and of the mask if there is one."""
        sizes = {name: tensors[name].shape for name in self.reads}
        return self.program_for(sizes, None if mask is None else mask.shape)

    def program_for(
        self, reads: Mapping[str, tuple[int, ...]], mask: tuple[int, ...] | None = None
    ) -> Program:
        """Return the program for inputs of these sizes, and keep it."""
        sizes = (*(reads[name] for name in self.reads), mask)
        program = self._programs.get(sizes)
        if program is None:
            program = Program(self._edges, self._layers, self.parameters, reads, self.writes, mask)
            if len(self._programs) >= _MAX_PROGRAMS:
                self._programs = {}
            self._programs[sizes] = program
        return program

    def run(
        self,
        tensors: dict[str, Array],
        state: State,
        after: State,
        mask: Array | None,
    ) -> None:
        """Add the segment's outputs to ``tensors`` and its states to ``after``."""
        program = self.program(tensors, mask)
        buffers = self._take(program)
        for name, view in buffers.x.items():
            view[...] = tensors[name]
        for place, view in buffers.states:
            layer, name = place.name
            view[...] = state[layer][name] if layer in state else 0
        if mask is not None:
            buffers.mask[...] = mask
        buffers.run()
        for name, view in buffers.y.items():
            tensors[name] = view.copy()
        for place, view in buffers.states:
            layer, name = place.name
            if layer in state:
                after.setdefault(layer, {})[name] = view.copy()
        self._give_back(program, buffers)

    def prepared_call(
        self, inputs: Mapping[str, tuple[int, ...]], outputs: Sequence[str], batch_first: bool,
        threads: int,
    ) -> Callable[[Arrays], list[Array]] | None:  # fmt: skip
        """Prepare calls with inputs of these shapes, from zero initial state.

        If the batch is the first axis of all tensors, threads may share its rows. Large batches run
        in slices, which need less memory and stay in the cache. None if threads cannot share the
        rows.

        Returns
        -------
        callable
            Of the inputs in this order; returns the outputs in order.
        """
        names, made = tuple(inputs), tuple(outputs)
        program = self.program_for(inputs)
        if threads > 1 and not batch_first:
            return None
        if next(iter(inputs.values()))[0] == 1:
            threads = _sharing_units(program, threads)
        if threads > 1 or (batch_first and _is_large(program, inputs)):
            return self._in_parts(inputs, made, threads)

        def run(x: Arrays) -> list[Array]:
            buffers = self._take(program)
            _set_inputs(buffers, names, x)
            buffers.run()
            y: list[Array] = [buffers.y[name].copy() for name in made]
            self._give_back(program, buffers)
            return y

        def run_one(x: Arrays) -> list[Array]:  # a microsecond counts
            buffers = self._take(program)
            buffers.x[names[0]][...] = x[0]
            buffers.state.fill(0)
            buffers.run()
            y: Array = buffers.y[made[0]].copy()
            self._give_back(program, buffers)
            return [y]

        return run_one if len(names) == len(made) == 1 else run

    def _in_parts(
        self, inputs: Mapping[str, tuple[int, ...]], outputs: Sequence[str], threads: int
    ) -> Callable[[Arrays], list[Array]]:
        batch = next(iter(inputs.values()))[0]
        shapes = {place.name[0]: place.shape for place in self.program_for(inputs).writes}
        slices = cut(batch, -(-batch // threads))
        each = threads // len(slices)
        fillers = [self._filler(_rows(inputs, s), outputs, each) for s in slices]

        def run(x: Arrays) -> list[Array]:
            y = [np.empty(shapes[name], self.parameters.dtype) for name in outputs]
            run_together([
                functools.partial(fill, [a[rows] for a in x], [a[rows] for a in y])
                for fill, rows in zip(fillers, slices, strict=True)
            ])  # fmt: skip
            return y

        return run

    def _filler(
        self, inputs: Mapping[str, tuple[int, ...]], outputs: Sequence[str], threads: int
    ) -> Fill:
        """Prepare calls as :meth:`prepared_call`, by so many threads, that write into outputs."""
        program = self.program_for(inputs)
        if _is_large(program, inputs):
            return self._one_by_one(inputs, outputs)
        threads = _sharing_units(program, threads)
        names, backoff = tuple(inputs), Backoff(program.shared.call)

        def fill(x: Arrays, y: Arrays) -> None:
            buffers = self._take(program)
            _set_inputs(buffers, names, x)
            if threads > 1:
                backoff.run(buffers.run_with, threads)
            else:
                buffers.run_with(1)
            for name, array in zip(outputs, y, strict=True):
                array[...] = buffers.y[name]
            self._give_back(program, buffers)

        return fill

    def _one_by_one(self, inputs: Mapping[str, tuple[int, ...]], outputs: Sequence[str]) -> Fill:
        batch = next(iter(inputs.values()))[0]
        fitting = batch * _LARGE_SIZE // self.program_for(inputs).work_size
        slices = cut(batch, max(_FEWEST_ROWS, min(_MOST_ROWS, fitting)))
        fillers = [self._filler(_rows(inputs, s), outputs, 1) for s in slices]

        def fill(x: Arrays, y: Arrays) -> None:
            for part, filler in zip(slices, fillers, strict=True):
                filler([a[part] for a in x], [a[part] for a in y])

        return fill

    def _take(self, program: Program) -> ProgramBuffers:
        """Return buffers that no other thread uses."""
        try:  # no check before pop(): another thread may take the buffers in between
            buffers: ProgramBuffers = program.unused_buffers.pop()
        except IndexError:
            return ProgramBuffers(program)
        if program.work_size > _SMALL_SIZE:
            with contextlib.suppress(ValueError):  # another thread has removed it
                self._large.remove(program)
        return buffers

    def _give_back(self, program: Program, buffers: ProgramBuffers) -> None:
        if program.work_size > _LARGE_SIZE:
            return
        program.unused_buffers.append(buffers)
        if program.work_size <= _SMALL_SIZE:
            return
        self._large.append(program)
        while sum(p.work_size for p in self._large) > _KEPT_SIZE:
            with contextlib.suppress(IndexError):  # another thread has taken it
                self._large.pop(0).unused_buffers.pop()


def _sharing_units(program: Program, threads: int) -> int:
    """Return how many threads share the program's units."""
    return useful_threads("units", program.shared, min(threads, program.shares))


def _rows(inputs: Mapping[str, tuple[int, ...]], rows: slice) -> dict[str, tuple[int, ...]]:
    return {name: (rows.stop - rows.start, *shape[1:]) for name, shape in inputs.items()}


def _is_large(program: Program, inputs: Mapping[str, tuple[int, ...]]) -> bool:
    batch = next(iter(inputs.values()))[0]
    return program.work_size > _LARGE_SIZE and batch > _FEWEST_ROWS


def _set_inputs(buffers: ProgramBuffers, names: Sequence[str], x: Arrays) -> None:
    """Set the inputs, and the state to zero."""
    for k, name in enumerate(names):
        buffers.x[name][...] = x[k]
    buffers.state.fill(0)
