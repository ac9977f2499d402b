"""Programs: the operations of a model as rows of integers, for one set of input sizes.

:class:`Parameters` packs all weights into one flat buffer, once per model. :class:`Program` assigns
every tensor an offset in the work buffer and writes one row per kernel call, according to the table
of kernels (:mod:`npylstm.kernels.table`). An operation without a kernel runs in NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from npylstm.arrays import Array
from npylstm.errors import ShapeError
from npylstm.graph.parts import Edge, LayerSpec
from npylstm.kernels.arguments import RECURRENT, WIDTH
from npylstm.kernels.calls import Call, Place, Sizes
from npylstm.kernels.library import Kernel, KernelLibrary
from npylstm.kernels.packing import ALIGNMENT, aligned
from npylstm.kernels.table import FETCH, STORE, Row, alias, is_alias, row_of
from npylstm.ops.base import Operation

__all__ = ["Parameters", "Program", "checks_values", "is_native", "kernels_of"]


def is_native(operation: Operation) -> bool:
    """Whether the operation and its activations have kernels."""
    parts = operation.parts()
    return is_alias(operation) or (bool(parts) and all(map(row_of, parts.values())))


def checks_values(operation: Operation) -> bool:
    """Whether the kernel compares integers with the vocabulary; all of them floats hold."""
    row = row_of(operation)
    limit = 2 ** (np.finfo(np.float32).nmant + 1)
    checks = row is not None and hasattr(row.columns, "WRONG")
    return checks and (operation.vocabulary_size or limit) < limit


def kernels_of(operation: Operation) -> set[Kernel]:
    """Return the kernels that programs with this operation may call."""
    rows = [row for row in map(row_of, operation.parts().values()) if row is not None]
    if operation.state_shapes():
        rows += [FETCH, STORE]
    return {kernel for row in rows for kernel in row.kernels()}


class Parameters:
    """All weights of a model, packed for the kernels in one flat buffer.

    Attributes
    ----------
    library
        The kernels that they are packed for.
    vector
        Their vectors, of the model's dtype.
    buffer
        The packed weights.
    offsets
        Offsets of the parts of a layer, by its name and the prefix of the part, and by column.
    """

    def __init__(self, layers: Sequence[LayerSpec], dtype: str, library: KernelLibrary) -> None:
        self._parts: list[tuple[int, Array]] = []
        self._size = 0
        self.library, self.vector = library, library.vector_type(dtype)
        self.offsets: dict[tuple[str, str], dict[str, int]] = {}
        for layer in layers:
            for prefix, operation in layer.layer.parts().items():
                row = row_of(operation)
                if row is None:  # an alias
                    continue
                own = {k.removeprefix(prefix): w for k, w in layer.weights.items()
                       if k.startswith(prefix)}  # fmt: skip
                packed = row.packed(operation, own, self.vector)
                self.offsets[layer.name, prefix] = {c: self._add(w) for c, w in packed.items()}
        # Padding: activations read parameters beyond their own.
        self.buffer: Array = aligned(self._size + ALIGNMENT, dtype)
        for at, part in self._parts:
            self.buffer[at : at + part.size] = part.reshape(-1)
        self.buffer.flags.writeable = False
        del self._parts

    def _add(self, array: Array) -> int:
        at = self._size
        self._parts.append((at, array))
        self._size += -(-array.size // ALIGNMENT) * ALIGNMENT
        return at


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
    work_size, state_size
        Lengths of the two buffers, in elements.
    unused_buffers
        Buffers that no call uses.
    checks
        Flags in the work buffer that a kernel sets if a value is not accepted: offset of the flag,
        name of the layer, operation, and the place of the values.
    shared_rows
        Indices of the rows whose units threads may share.
    shared, shares
        Number of multiplications in these rows, and the maximum number of threads.
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
        self.shared = self.shares = 0
        self.work_size = self.state_size = 0
        self.reads = [self._place(name, sizes) for name, sizes in inputs.items()]
        self.mask = Place((), 0, 0, (0,))
        if mask is not None:
            at = self._reserve(math.prod(mask))
            self.mask = Place((), at, at + math.prod(mask), mask)
        for edge in edges:
            self._add(edge, layers[edge.layer])
        self.writes = [self._places[name]._replace(name=(name,)) for name in wanted]
        self.table = np.array(self._rows, np.int64).reshape(len(self._rows), WIDTH)

    def _reserve(self, size: int) -> int:
        at = self.work_size
        self.work_size += -(-size // ALIGNMENT) * ALIGNMENT
        return at

    def _place(self, name: str, shape: Sizes) -> Place:
        size = math.prod(shape)
        at = self._reserve(size)
        self._places[name] = Place((name,), at, at + size, shape)
        return self._places[name]

    def _add(self, edge: Edge, operation: Operation) -> None:
        inputs = [self._places[t] for t in edge.inputs]
        try:
            shapes = operation.infer_shapes([place.shape for place in inputs])
        except ShapeError as error:
            raise ShapeError(f"{edge.layer}: {error}") from None
        sizes: list[Sizes] = [tuple(int(d) for d in shape) for shape in shapes]
        start = alias(operation, inputs)
        if start is not None:
            stop = start + math.prod(sizes[0])
            self._places[edge.outputs[0]] = Place(inputs[0].name, start, stop, sizes[0])
            return
        outputs = [*zip(edge.outputs, operation.output_names(), sizes, strict=True)]
        carried = operation.state_shapes()
        made = [self._place(name, shape) for name, key, shape in outputs if key not in carried]
        states = self._call(edge, operation, inputs, made)
        for name, key, shape in outputs:
            if key in carried:
                source, target = states[key], self._place(name, shape)
                self._copy(FETCH, source.start, target)

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
            call = Call(
                tuple(mine), tuple(outputs), tuple(own.values()), mask, self.parameters.library,
                self.parameters.vector, self._reserve, half,
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
        row = row_of(part)
        assert row is not None  # is_native has checked it
        rows = row.bound(part, call, self.parameters.offsets[edge.layer, prefix])
        for values in rows:
            self._append(row, edge, part, call, values)

    def _append(self, row: Row, edge: Edge, part: Operation, call: Call, values: Array) -> None:
        if hasattr(row.columns, "WRONG"):
            self.checks.append((int(values[row.columns.WRONG]), edge.layer, part, call.inputs[0]))
        if row.columns is RECURRENT and values[RECURRENT.SHARED_VECTORS]:
            self.shared_rows.append(len(self._rows))
            vectors, size = int(values[RECURRENT.VECTORS]), call.vector.lanes
            terms = values[RECURRENT.IN] + values[RECURRENT.SIZE]
            self.shared += int(values[RECURRENT.STEPS] * vectors * size * terms)
            self.shares = max(self.shares, vectors // int(values[RECURRENT.SHARED_VECTORS]))
        self._rows.append(values)

    def _copy(self, row: Row, source: int, target: Place) -> None:
        columns = {"FROM": source, "TO": target.start, "SIZE": target.size}
        parameters = self.parameters
        self._rows.append(row.row(parameters.library, parameters.vector.dtype, columns))
