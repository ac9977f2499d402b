"""Programs: the operations of a model as rows of integers, for one set of input sizes.

:class:`Program` assigns every tensor an offset in the work buffer and writes rows, one for each
call of a kernel, according to the table of kernels (:mod:`npylstm.kernels.table`). An operation
without a kernel runs in NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from npylstm.arrays import Array
from npylstm.errors import ShapeError
from npylstm.graph.parts import Edge, LayerSpec
from npylstm.kernels.arguments import EMBEDDING, ONE_HOT, RECURRENT, WIDTH
from npylstm.kernels.bind_layers import is_row_of_identity
from npylstm.kernels.calls import Call, Place, Sizes
from npylstm.kernels.library import Kernel
from npylstm.kernels.table import FETCH, STORE, Row, alias, is_alias, row_of
from npylstm.ops.base import Operation
from npylstm.runtime.parameters import Parameters, weights_type
from npylstm.runtime.sharing import Work
from npylstm.runtime.work_buffer import WorkBuffer

__all__ = ["Program", "checks_values", "embedded_ids", "is_native", "kernels_of"]


def is_native(layer: LayerSpec, dtype: str) -> bool:
    """Whether the operation of a layer and its activations have kernels for this dtype."""
    rows = _rows_of(layer, dtype)
    return is_alias(layer.layer) or (bool(rows) and None not in rows)


def _rows_of(layer: LayerSpec, dtype: str) -> list[Row | None]:
    """Return the rows of the kernel table for the parts of a layer."""
    parts = layer.layer.parts().items()
    return [row_of(part, weights_type(layer, prefix, dtype)) for prefix, part in parts]


def checks_values(operation: Operation) -> bool:
    """Whether the kernel compares integers with the vocabulary; all of them floats hold."""
    row = row_of(operation, "float32")
    limit = 2 ** (np.finfo(np.float32).nmant + 1)
    checks = row is not None and (row.columns is ONE_HOT or hasattr(row.columns, "WRONG"))
    return checks and _id_count(operation) < limit


def _id_count(operation: Any) -> int:
    """Return the number of ids of an embedding or of one-hot vectors."""
    return int(operation.depth if operation.kind == "one_hot" else operation.vocabulary)


def kernels_of(layer: LayerSpec, dtype: str) -> set[Kernel]:
    """Return the kernels that programs with this layer may call."""
    kernels = {FETCH.kernel, STORE.kernel} if layer.layer.state_shapes() else set()
    for prefix, part in layer.layer.parts().items():
        kind = weights_type(layer, prefix, dtype)
        row = row_of(part, kind)
        if row is not None:
            kernels.update(row.kernels(kind))
    return kernels


class Program:
    """The rows of operations for one set of input sizes.

    Attributes
    ----------
    parameters
        The model's weights and kernels.
    table
        int64 ``(calls, WIDTH)``, run by :func:`npylstm.kernels.layers.execute`.
    reads, writes
        Places of inputs and outputs in the work buffer.
    mask
        Place of the call's mask in the work buffer; empty if there is none.
    states
        Places in the state buffer, to fill and to read.
    state_size
        Length of the state buffer, in elements.
    unused_buffers
        Buffers that no call uses.
    checks
        Flags in the work buffer that a kernel sets if a value is not accepted: offset of the flag,
        name of the layer, operation, and the place of the values.
    shared_rows
        Indices of the rows whose units threads may share.
    shared, shares
        Multiplications in these rows, and in the smallest of their steps; the maximum number of
        threads.
    """

    def __init__(
        self,
        edges: Sequence[Edge],
        layers: Mapping[str, Operation],
        parameters: Parameters,
        inputs: Mapping[str, Sizes],
        wanted: Sequence[str],
        mask: Sizes | None = None,
    ) -> None:
        self.parameters = parameters
        self._rows: list[Array] = []
        self._places: dict[str, Place] = {}
        self.states: list[Place] = []
        self.unused_buffers: list[Any] = []
        self.checks: list[tuple[int, str, Operation, Place]] = []
        self.shared_rows: list[int] = []
        self.shared, self.shares = Work(0, 0), 0
        self.state_size = 0
        self._work = WorkBuffer()
        self._parts: dict[str, int] = {}  # of the work buffer, by tensor
        self._scratch: list[int] = []
        self.reads = [self._place(name, sizes) for name, sizes in inputs.items()]
        self.mask = Place((), 0, 0, (0,))
        if mask is not None:
            at = self._work.reserve(math.prod(mask))
            self.mask = Place((), at, at + math.prod(mask), mask)
        # Embedded ids that only recurrent layers read: name, and the call of the embedding.
        self._layers, self._embedded = layers, embedded_ids(edges, layers, wanted)
        rows_of_calls: dict[str, int] = {}
        unused = self._unused_after(edges, {*inputs, *wanted})
        for edge, tensors in zip(edges, unused, strict=True):
            rows_of_calls[edge.name] = len(self._rows)
            self._add(edge, layers[edge.layer], tensors)
            for part in (*self._scratch, *(self._parts[name] for name in tensors)):
                self._work.release(part)
            self._scratch = []
        for embedding in self._embedded.values():  # only their ids are read
            unused = (
                EMBEDDING.UNITS if layers[embedding.layer].kind == "embedding" else ONE_HOT.ROWS
            )
            self._rows[rows_of_calls[embedding.name]][unused] = 0
        self.writes = [self._places[name]._replace(name=(name,)) for name in wanted]
        self.table = np.array(self._rows, np.int64).reshape(len(self._rows), WIDTH)

    @property
    def work_size(self) -> int:
        """The length of the work buffer, in elements."""
        return self._work.size

    def _unused_after(self, edges: Sequence[Edge], kept: set[str]) -> list[list[str]]:
        """Return the tensors that no call after each one reads."""
        last: dict[str, int] = {}
        for k, edge in enumerate(edges):
            last.update(dict.fromkeys((*edge.outputs, *edge.inputs), k))
            for tensor in edge.inputs:
                if tensor in self._embedded:  # the layer may read the ids themselves
                    last[self._embedded[tensor].inputs[0]] = k
        unused: list[list[str]] = [[] for _ in edges]
        for tensor, k in last.items():
            if tensor not in kept:
                unused[k].append(tensor)
        return unused

    def _reserve(self, size: int) -> int:
        """Reserve memory that an operation uses while it runs."""
        self._scratch.append(self._work.reserve(size))
        return self._scratch[-1]

    def _place(self, name: str, shape: Sizes) -> Place:
        size = math.prod(shape)
        at = self._parts[name] = self._work.reserve(size)
        self._places[name] = Place((name,), at, at + size, shape)
        return self._places[name]

    def _add(self, edge: Edge, operation: Operation, unused: Sequence[str]) -> None:
        """Write the rows of a call; ``unused`` are the tensors that no later call reads."""
        inputs = [self._places[t] for t in edge.inputs]
        try:
            shapes = operation.infer_shapes([place.shape for place in inputs])
        except ShapeError as error:
            raise ShapeError(f"{edge.layer}: {error}") from None
        sizes: list[Sizes] = [tuple(int(d) for d in shape) for shape in shapes]
        start = alias(operation, inputs)
        if start is not None:
            self._share(edge.inputs[0], edge.outputs[0], start, sizes[0])
            return
        over = self._overwritten(edge, inputs, sizes, unused)
        if over is not None:
            (output,) = edge.outputs
            self._share(over, output, self._places[over].start, sizes[0])
            self._call(edge, operation, inputs, [self._places[output]])
            return
        outputs = [*zip(edge.outputs, operation.output_names(), sizes, strict=True)]
        carried = operation.state_shapes()
        made = [self._place(name, shape) for name, key, shape in outputs if key not in carried]
        states = self._call(edge, operation, inputs, made)
        for name, key, shape in outputs:
            if key in carried:
                source, target = states[key], self._place(name, shape)
                self._copy(FETCH, source.start, target)

    def _share(self, source: str, tensor: str, start: int, shape: Sizes) -> None:
        """Let a tensor be in the memory of another one."""
        name = self._places[source].name
        self._places[tensor] = Place(name, start, start + math.prod(shape), shape)
        self._parts[tensor] = self._parts[source]
        self._work.share(self._parts[source])

    def _overwritten(
        self, edge: Edge, inputs: Sequence[Place], sizes: Sequence[Sizes], unused: Sequence[str]
    ) -> str | None:
        """Return the input whose memory may become the output; None if there is none."""
        row, _ = self.parameters.rows.get((edge.layer, ""), (None, None))
        if row is None or not row.in_place or len(sizes) > 1:
            return None
        # Operands after the second are read when the output holds a part of the result.
        candidates = edge.inputs if len(inputs) <= 2 else edge.inputs[:1]
        for tensor, place in zip(candidates, inputs, strict=False):
            again = len(inputs) > 2 and tensor in edge.inputs[1:]
            alone = not self._work.is_shared(self._parts[tensor])
            if tensor in unused and place.shape == sizes[0] and alone and not again:
                return tensor
        return None

    def _call(
        self, edge: Edge, operation: Operation, inputs: Sequence[Place], outputs: Sequence[Place]
    ) -> dict[str, Place]:
        """Write the rows of an operation; return the places of its states."""
        states: dict[str, Place] = {}
        parts = operation.parts()
        half = 0 if len(parts) > 1 else None
        for (prefix, part), mine in zip(
            parts.items(), operation.inputs_of_parts(inputs), strict=True
        ):
            own = self._lay_out_states(edge, prefix, part, mine)
            mask = part.own_mask(mine) or self.mask
            _, vector = self.parameters.rows[edge.layer, prefix]
            call = Call(
                tuple(mine), tuple(outputs), tuple(own.values()), mask, self.parameters.library,
                vector, self._reserve, lambda: self._work.append(1), half,
            )  # fmt: skip
            self._emit(edge, prefix, part, call)
            states |= own
            if half is not None:
                half += int(part.infer_shapes([place.shape for place in mine])[0][-1])
        return states

    def _lay_out_states(
        self, edge: Edge, prefix: str, part: Operation, inputs: Sequence[Place]
    ) -> dict[str, Place]:
        """Reserve the states of a call; copy initial states that are tensors into them."""
        places: dict[str, Place] = {}
        batch = part.batch_size(inputs[0].shape) if part.state_shapes() else 0
        initial = part.initial_states(inputs)
        for k, (name, shape) in enumerate(part.state_shapes().items()):
            start = self.state_size
            self.state_size += batch * math.prod(shape)
            key = f"{prefix}{name}"
            places[key] = Place((edge.name, key), start, self.state_size, (batch, *shape))
            if initial:
                self._copy(STORE, initial[k].start, places[key])
            else:
                self.states.append(places[key])
        return places

    def _emit(self, edge: Edge, prefix: str, part: Operation, call: Call) -> None:
        row, _ = self.parameters.rows[edge.layer, prefix]
        rows = row.bound(part, call, self.parameters.offsets[edge.layer, prefix])
        for values in rows:
            if edge.inputs and edge.inputs[0] in self._embedded:
                self._read_table(edge, prefix, values)
            self._append(row, edge, part, call, values)

    def _read_table(self, edge: Edge, part: str, values: Array) -> None:
        """Let a recurrent layer read a table in place of embedded ids, if it is small enough."""
        embedding = self._embedded[edge.inputs[0]]
        ids, parameters = _id_count(self._layers[embedding.layer]), self.parameters
        key = (embedding.layer, edge.layer, part)
        weights = parameters.offsets[embedding.layer, ""].get("W")
        table = parameters.table(key, values, weights, ids)
        if table is None:
            del self._embedded[edge.inputs[0]]
            return
        features = values[RECURRENT.IN]
        values[RECURRENT.X_ROW] //= features
        values[RECURRENT.X_STEP] //= features
        values[RECURRENT.X] = self._places[embedding.inputs[0]].start
        values[RECURRENT.TABLE], values[RECURRENT.IN] = table.ctypes.data, ids
        values[RECURRENT.UNKNOWN] = 0 if weights is not None else ids

    def _append(self, row: Row, edge: Edge, part: Operation, call: Call, values: Array) -> None:
        if hasattr(row.columns, "WRONG"):
            self.checks.append((int(values[row.columns.WRONG]), edge.layer, part, call.inputs[0]))
        if row.columns is RECURRENT and values[RECURRENT.SHARED_VECTORS]:
            self.shared_rows.append(len(self._rows))
            vectors, size = int(values[RECURRENT.VECTORS]), call.vector.lanes
            step = vectors * size * int(values[RECURRENT.IN] + values[RECURRENT.SIZE])
            self.shared = Work(
                self.shared.call + int(values[RECURRENT.STEPS]) * step,
                min(step, self.shared.step or step),
            )
            self.shares = max(self.shares, vectors // int(values[RECURRENT.SHARED_VECTORS]))
        self._rows.append(values)

    def _copy(self, row: Row, source: int, target: Place) -> None:
        columns = {"FROM": source, "TO": target.start, "SIZE": target.size}
        parameters = self.parameters
        self._rows.append(row.row(parameters.library, parameters.dtype, columns))


def embedded_ids(
    edges: Sequence[Edge], layers: Mapping[str, Operation], wanted: Sequence[str]
) -> dict[str, Edge]:
    """Return the calls of embeddings that only recurrent layers read, by their output.

    A one-hot vector is the row of an identity matrix.
    """

    def has_only(edge: Edge, columns: Any) -> bool:
        rows = [row_of(part, "float32") for part in layers[edge.layer].parts().values()]
        return bool(rows) and all(row is not None and row.columns is columns for row in rows)

    def embeds(edge: Edge) -> bool:
        is_one_hot = has_only(edge, ONE_HOT) and is_row_of_identity(layers[edge.layer])
        return is_one_hot or has_only(edge, EMBEDDING)

    found = {edge.outputs[0]: edge for edge in edges if embeds(edge)}
    found = {tensor: edge for tensor, edge in found.items() if tensor not in wanted}
    read: set[str] = set()
    for edge in edges:
        read |= {*edge.inputs}
        for tensor in edge.inputs[has_only(edge, RECURRENT) :]:
            found.pop(tensor, None)
    return {tensor: edge for tensor, edge in found.items() if tensor in read}
