"""The native back end: consecutive layers with kernels run in one compiled call.

The edges of a spec are divided into segments. Consecutive layers with kernels are one native
segment: a program over flat buffers. Layers without a kernel run in NumPy between segments.
"""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Callable, Mapping

import numpy as np

from npylstm.arrays import Array
from npylstm.graph.state import State
from npylstm.kernels.loading import Kernel, advance, execute, generate
from npylstm.ops.shapes import BATCH
from npylstm.runtime.engines import Stream
from npylstm.runtime.native_streams import NativeStream, NativeStreams
from npylstm.runtime.numpy_engine import Node
from npylstm.runtime.program import Parameters, is_native, kernels_of
from npylstm.runtime.segment import Segment
from npylstm.runtime.streams import RunningStream, RunningStreams, Streams
from npylstm.spec import Edge, ModelSpec

__all__ = ["NumbaEngine"]


_ENTRIES = (execute, generate, advance)
# Compilation that takes longer prints a notice.
_SILENT_SECONDS = 1.0
_NOTICE = "npylstm: compiling kernels for this machine (once; `npylstm warmup` does it ahead)"


class NumbaEngine:
    """Computes a spec segment by segment."""

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
        self, inputs: Mapping[str, Array], state: State, mask: Array | None = None
    ) -> tuple[dict[str, Array], State]:
        tensors = dict(inputs)
        after: State = {}
        for run in self._runs:
            if isinstance(run, Segment):
                run.run(tensors, state, after, mask)
                continue
            read = [tensors[t] for t in run.inputs]
            node = self._others[run.layer]
            outputs, carried = node.compute(read, state.get(run.name, {}), mask)
            contiguous = (np.ascontiguousarray(y).reshape(y.shape) for y in outputs)
            tensors |= dict(zip(run.outputs, contiguous, strict=True))
            if carried:
                after[run.name] = carried
        return {name: tensors[name] for name in self._spec.outputs}, after

    def _kernels(self) -> set[Kernel]:
        native = (layer.layer for layer in self._spec.layers if is_native(layer.layer))
        return set().union(*map(kernels_of, native))

    def compile(self) -> None:
        """Load all kernels of the model from the disk; compile the missing ones."""
        kernels = self._kernels()
        entries = _ENTRIES if kernels else ()
        missing = [kernel for kernel in kernels if not kernel.load(self._spec.dtype)]
        uncompiled = [entry for entry in entries if not entry.load()]
        if not missing and not uncompiled:
            return
        notice = threading.Timer(_SILENT_SECONDS, print, [_NOTICE], {"file": sys.stderr})
        notice.daemon = True
        notice.start()
        try:
            for kernel in missing:
                kernel.address(self._spec.dtype)
            for entry in uncompiled:
                entry.prepare()
        finally:
            notice.cancel()

    def prepared_call(
        self, shape: tuple[int, ...], threads: int = 1
    ) -> Callable[[Array], Array] | None:
        segment = self._whole()
        if segment is None or len(segment.reads) != 1 or len(segment.writes) != 1:
            return None
        tensors = (*self._spec.inputs, *self._spec.output_specs)
        batch_first = all(t.shape[:1] == (BATCH,) for t in tensors)
        return segment.prepared_call(shape, batch_first, threads)

    def with_spec(self, spec: ModelSpec) -> NumbaEngine:
        return NumbaEngine(spec, self)

    def stream(self, spec: ModelSpec, batch: int) -> Stream:
        segment = self._whole()
        if segment is None:
            return RunningStream(self, spec, batch)
        return NativeStream(segment, spec, batch)

    def streams(self, spec: ModelSpec, capacity: int) -> Streams:
        segment = self._whole()
        if segment is None or len(segment.reads) != 1 or len(segment.writes) != 1:
            return RunningStreams(self, spec, capacity)
        return NativeStreams(segment, spec, capacity)

    def _whole(self) -> Segment | None:
        """The segment that contains the whole model, if there is one."""
        run = self._runs[0] if len(self._runs) == 1 else None
        makes_all = isinstance(run, Segment) and set(self._spec.outputs) <= set(run.writes)
        return run if isinstance(run, Segment) and makes_all else None
