"""The native back end: runs of layers with kernels go through one compiled call each.

The edges of a spec are cut into segments. Where every layer of a run has a kernel, the
segment is native: a program over flat buffers. What has none runs in NumPy between them.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from npylstm.engine import State, Stream, Streams
from npylstm.engine.kernels import execute
from npylstm.engine.lowering import Parameters, Program, is_native
from npylstm.engine.numpy_engine import Node
from npylstm.engine.streams import RunningStream, RunningStreams
from npylstm.layers.base import Array
from npylstm.spec import Edge, ModelSpec

__all__ = ["ALL", "NumbaEngine", "Segment"]

ALL = np.zeros(0, np.int64)  # every sequence is as long as its array
_MAX_PROGRAMS = 64  # sets of input sizes that a segment keeps laid out


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
        self._programs: dict[tuple[tuple[int, ...], ...], Program] = {}

    @property
    def params(self) -> Array:
        """All weights, packed."""
        return self._parameters.buffer

    def program(self, tensors: Mapping[str, Array]) -> Program:
        """Lay out a program for inputs of these arrays' sizes."""
        return self.program_for({name: tensors[name].shape for name in self.reads})

    def program_for(self, reads: Mapping[str, tuple[int, ...]]) -> Program:
        """Lay out a program for inputs of these sizes; it is kept."""
        sizes = tuple(reads[name] for name in self.reads)
        program = self._programs.get(sizes)
        if program is None:
            program = Program(self._edges, self._layers, self._parameters, reads, self.writes)
            if len(self._programs) >= _MAX_PROGRAMS:
                self._programs = {}
            self._programs[sizes] = program
        return program

    def run(
        self,
        tensors: dict[str, Array],
        state: State,
        after: dict[str, dict[str, Array]],
        lengths: Array | None,
    ) -> None:
        """Add this segment's outputs to ``tensors`` and its states to ``after``."""
        program = self.program(tensors)
        params = self.params
        work = np.empty(program.work_size, params.dtype)
        carried = np.empty(program.state_size, params.dtype)
        for place in program.reads:
            work[place.start : place.stop] = tensors[place.name[0]].reshape(-1)
        for place in program.states:
            layer, name = place.name
            carried[place.start : place.stop] = state[layer][name].reshape(-1)
        execute(program.table, params, carried, work, ALL if lengths is None else lengths)
        for place in program.writes:
            tensors[place.name[0]] = work[place.start : place.stop].reshape(place.shape).copy()
        for place in program.states:
            layer, name = place.name
            values = carried[place.start : place.stop].reshape(place.shape)
            after.setdefault(layer, {})[name] = values.copy()


class NumbaEngine:
    """Runs a spec segment by segment."""

    name = "numba"

    def __init__(self, spec: ModelSpec, weights: NumbaEngine | None = None) -> None:
        self._spec = spec
        layers = {layer.name: layer for layer in spec.layers}
        if weights is None:
            native = [layer for layer in spec.layers if is_native(layer.layer)]
            self._parameters = Parameters(native, spec.dtype)
            self._others = {
                layer.name: Node(layer) for layer in spec.layers if not is_native(layer.layer)
            }
        else:
            self._parameters, self._others = weights._parameters, weights._others
        self._runs: list[Segment | Edge] = []
        for is_segment, edges in itertools.groupby(
            spec.edges, lambda edge: is_native(layers[edge.layer].layer)
        ):
            if is_segment:
                self._runs.append(Segment(tuple(edges), spec, self._parameters))
            else:
                self._runs.extend(edges)

    def run(
        self, inputs: Mapping[str, Array], state: State, lengths: Array | None = None
    ) -> tuple[dict[str, Array], dict[str, dict[str, Array]]]:
        tensors = dict(inputs)
        after: dict[str, dict[str, Array]] = {}
        for run in self._runs:
            if isinstance(run, Segment):
                run.run(tensors, state, after, lengths)
                continue
            read = [tensors[t] for t in run.inputs]
            node = self._others[run.layer]
            outputs, carried = node.compute(read, state.get(run.name, {}), lengths)
            contiguous = (np.ascontiguousarray(y).reshape(y.shape) for y in outputs)
            tensors |= dict(zip(run.outputs, contiguous, strict=True))
            if carried:
                after[run.name] = carried
        return {name: tensors[name] for name in self._spec.outputs}, after

    def rewired(self, spec: ModelSpec) -> NumbaEngine:
        return NumbaEngine(spec, self)

    def stream(self, spec: ModelSpec, batch: int) -> Stream:
        segment = self._whole()
        if segment is None:
            return RunningStream(self, spec, batch)
        from npylstm.engine.native_streams import NativeStream

        return NativeStream(segment, spec, batch)

    def streams(self, spec: ModelSpec, capacity: int) -> Streams:
        segment = self._whole()
        if segment is None or len(segment.reads) != 1 or len(segment.writes) != 1:
            return RunningStreams(self, spec, capacity)
        from npylstm.engine.native_streams import NativeStreams

        return NativeStreams(segment, spec, capacity)

    def _whole(self) -> Segment | None:
        """The segment that is all of the model, if one is."""
        run = self._runs[0] if len(self._runs) == 1 else None
        makes_all = isinstance(run, Segment) and set(self._spec.outputs) <= set(run.writes)
        return run if isinstance(run, Segment) and makes_all else None
