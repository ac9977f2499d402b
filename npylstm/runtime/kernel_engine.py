"""The engine of compiled kernels: consecutive layers with kernels run in one compiled call.

The edges of a spec are divided into segments. Consecutive layers with kernels are one native
segment: a program over flat buffers. Layers without a kernel run in NumPy between segments.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from npylstm.arrays import Array
from npylstm.graph.state import State
from npylstm.kernels.library import KernelLibrary
from npylstm.lazy import lazy_property
from npylstm.ops.shapes import BATCH
from npylstm.runtime.engines import Stream
from npylstm.runtime.native_streams import NativeStream, NativeStreams
from npylstm.runtime.numpy_engine import Node
from npylstm.runtime.parameters import Parameters
from npylstm.runtime.program import is_native, kernels_of
from npylstm.runtime.rewriting import rewritten
from npylstm.runtime.segment import Segment
from npylstm.runtime.streams import RunningStream, RunningStreams, Streams
from npylstm.spec import Edge, ModelSpec

__all__ = ["KernelEngine"]


class KernelEngine:
    """Computes a spec segment by segment.

    Parameters
    ----------
    spec
        The graph with its weights.
    library
        The compiled kernels. Those that the spec needs are loaded, or compiled, here.
    weights
        An engine with the same layers, or more: its weights are shared.
    """

    def __init__(
        self, spec: ModelSpec, library: KernelLibrary, weights: KernelEngine | None = None
    ) -> None:
        self.name, self._library = library.name, library
        self._spec, graph = spec, rewritten(spec)
        layers = {layer.name: layer for layer in graph.layers}
        self._operations = {name: layer.layer for name, layer in layers.items()}
        self._parameters: Parameters
        self._others: Mapping[str, Node]
        if weights is not None and self._operations.items() <= weights._operations.items():
            self._parameters, self._others = weights._parameters, weights._others
        else:
            native = [layer for layer in graph.layers if is_native(layer, spec.dtype)]
            kernels = {kernel for layer in native for kernel in kernels_of(layer, spec.dtype)}
            if native:
                library.prepare(kernels, spec.dtype)
            self._parameters = Parameters(native, spec.dtype, library)
            self._others = {
                layer.name: Node(layer)
                for layer in graph.layers
                if not is_native(layer, spec.dtype)
            }
        self._runs: list[Segment | Edge] = []
        for is_segment, edges in itertools.groupby(
            graph.edges, lambda edge: is_native(layers[edge.layer], spec.dtype)
        ):
            if is_segment:
                self._runs.append(Segment(tuple(edges), graph, spec.outputs, self._parameters))
            else:
                self._runs.extend(edges)
        self.in_numpy = frozenset(self._others)

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

    def prepared_call(
        self, shapes: Sequence[tuple[int, ...]], threads: int = 1
    ) -> Callable[[Sequence[Array]], list[Array]] | None:
        segment, names = self._whole(), [t.name for t in self._spec.inputs]
        if segment is None or set(segment.reads) != {*names}:
            return None
        tensors = (*self._spec.inputs, *self._spec.output_specs)
        batch_first = all(t.shape[:1] == (BATCH,) for t in tensors)
        inputs = dict(zip(names, shapes, strict=True))
        return segment.prepared_call(inputs, self._spec.outputs, batch_first, threads)

    @lazy_property
    def checked_inputs(self) -> frozenset[str]:
        segment = self._whole()
        return segment.checked if segment is not None else frozenset()

    def with_spec(self, spec: ModelSpec) -> KernelEngine:
        return KernelEngine(spec, self._library, self)

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
