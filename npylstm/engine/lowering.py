"""Lowering: from layers to rows of a native program.

:class:`Parameters` packs all weights into one flat buffer, once per model.
:class:`Program` is laid out once per set of input sizes: it gives every tensor a place
in the work buffer and writes one row per operation. One function per layer kind, in the
table at the end, knows how the kind is packed and which rows it needs; a kind without
one runs in NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from npylstm.activations import SIGMOID, TANH, Activation
from npylstm.arrays import Array
from npylstm.engine import kernel_table as kernels
from npylstm.engine import table
from npylstm.engine.kernel_table import Kernel
from npylstm.engine.packing import ALIGNMENT, PANEL, Columns, aligned
from npylstm.errors import ShapeError
from npylstm.ops.base import Operation
from npylstm.ops.bidirectional import Bidirectional, inside
from npylstm.ops.cells import GRU, LSTM, SimpleRNN
from npylstm.ops.convolution import Conv1D
from npylstm.ops.dense import Dense, Embedding
from npylstm.ops.pointwise import ActivationLayer, Identity
from npylstm.ops.recurrent import Recurrent
from npylstm.ops.shaping import Reshape, Stack
from npylstm.spec import Edge, LayerSpec

__all__ = ["Parameters", "Program", "is_native", "kernels_of"]

# Dense layers up to this size sum in float64.
_NARROW_UNITS = 64
# Units that a layer has at least when threads share it: they meet at every step.
_SHARED_UNITS = 64
# Numbers of input products that are computed ahead, and rows and steps that they may be of: what
# a block of rows works on stays in the second cache.
_BLOCK_SIZE, _BLOCK_ROWS, _BLOCK_STEPS = 32768, 64, 64

Sizes = tuple[int, ...]


class Parameters:
    """All weights of a model in one flat buffer, each layer's where its kernel looks for it.

    Attributes
    ----------
    buffer
        The numbers.
    places
        Where in it the parts of a layer begin, by the name of the layer and of the column of a
        program's table that says so.
    """

    def __init__(self, layers: Sequence[LayerSpec], dtype: str) -> None:
        self._parts: list[tuple[int, Array]] = []
        self._size = 0
        self.dtype = dtype
        self.places: dict[str, dict[str, int]] = {}
        for spec in layers:
            self._add_layer(spec)
        # Activations read their parameters at fixed places behind their offset.
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

    def _add_layer(self, spec: LayerSpec) -> None:
        layer = spec.layer
        if isinstance(layer, Bidirectional):
            for way, half in layer.directions.items():
                own = inside(spec.weights, way)
                self._add_layer(LayerSpec(_half(spec.name, way), half, own))
            return
        parts: dict[str, Array] = {}
        if isinstance(layer, Recurrent):
            parts = _packed_recurrent(layer, layer.pack(spec.weights), self.dtype)
        elif isinstance(layer, Dense):
            columns = Columns(1, layer.units, self.dtype)
            kernel = spec.weights["kernel"]
            bias = spec.weights.get("bias", np.zeros(layer.units, self.dtype))
            narrow = layer.units <= _NARROW_UNITS
            parts = {"W": kernel if narrow else columns.pack(kernel), "BIAS": columns.arrange(bias)}
        elif isinstance(layer, Conv1D):
            parts = _packed_convolution(layer, spec.weights, self.dtype)
        elif isinstance(layer, Embedding):
            parts = {"W": spec.weights["embeddings"]}
        for field in ("activation", "recurrent_activation"):
            activation = getattr(layer, field, None)
            if activation is not None:
                parts[_CODES[field] + "_PARAM"] = np.array(activation.params or (0.0,), self.dtype)
        self.places[spec.name] = {column: self._add(part) for column, part in parts.items()}


_CODES = {"activation": "CODE", "recurrent_activation": "RECURRENT_CODE"}


def _packed_recurrent(
    layer: Recurrent, weights: Mapping[str, Array], dtype: str
) -> dict[str, Array]:
    """What the kernel of a recurrent layer reads, by column."""
    columns, recurrent = _columns(layer, dtype)
    parts = {"W": columns.pack(weights["W"]), "BIAS": columns.arrange(weights["b"])}
    if isinstance(layer, GRU) and not layer.reset_after:
        alone = Columns(1, layer.units, dtype)
        parts["U"] = recurrent.pack(weights["U_gates"])
        parts["RECURRENT_BIAS"] = recurrent.arrange(weights["rb_gates"])
        parts["U_H"] = alone.pack(weights["U_h"])
        return parts
    parts["U"] = columns.pack(weights["U"])
    if isinstance(layer, GRU):
        parts["RECURRENT_BIAS"] = columns.arrange(weights["rb"])
    if isinstance(layer, LSTM) and layer.projection:
        projected = Columns(1, layer.projection, dtype)
        parts["PROJECTION"] = projected.pack(weights["P"])
        parts["PROJECTION_BIAS"] = np.zeros(projected.size, dtype)
    return parts


def _packed_convolution(
    layer: Conv1D, weights: Mapping[str, Array], dtype: str
) -> dict[str, Array]:
    """The kernels of each group, of all taps together or one after another; biases likewise."""
    columns = Columns(1, layer.units // layer.groups, dtype)
    bias = weights.get("bias", np.zeros(layer.units, dtype))
    _, terms = _taps(layer)
    packed = [
        columns.pack(tap)
        for part in np.split(weights["kernel"], layer.groups, axis=2)
        for tap in part.reshape(-1, terms, part.shape[2])
    ]
    biases = [columns.arrange(part) for part in np.split(bias, layer.groups)]
    return {"W": np.concatenate(packed), "BIAS": np.concatenate(biases)}


def _taps(layer: Conv1D) -> tuple[int, int]:
    """How many products make a convolution, and the terms of each."""
    features = layer.features // layer.groups
    return (1, layer.size * features) if layer.dilation == 1 else (layer.size, features)


def _columns(layer: Recurrent, dtype: str) -> tuple[Columns, Columns]:
    """How the gates lie, of the input's product and of the recurrent one."""
    gates = len(layer.gates)
    apart = isinstance(layer, GRU) and not layer.reset_after
    return tuple(Columns(n, layer.units, dtype) for n in (gates, 2 if apart else gates))  # type: ignore[return-value]


def _cell(layer: Recurrent) -> Kernel:
    """The kernel that runs a recurrent layer."""
    if isinstance(layer, GRU):
        return kernels.gru if layer.reset_after else kernels.gru_reset_before
    return kernels.lstm if isinstance(layer, LSTM) else kernels.simple_rnn


def _shared_blocks(layer: Recurrent) -> int:
    """How many blocks of units go together when threads share the layer; 0: they may not.

    Each share begins with a panel. A layer is shared where its kernel takes a row as such.
    """
    if layer.units < _SHARED_UNITS:
        return 0
    if isinstance(layer, LSTM):
        plain = (layer.activation, layer.recurrent_activation) == (TANH, SIGMOID)
        return 1 if plain and not layer.projection else 0
    return PANEL if isinstance(layer, GRU) and layer.reset_after else 0


def _apart(size: int) -> int:
    """How far apart rows of this size are to stand: in whole lines of the cache, an odd number.

    Rows that are a power of two apart would all want the same few places in it.
    """
    lines = -(-size // ALIGNMENT)
    return (lines + 1 - lines % 2) * ALIGNMENT


def _half(name: str, way: str) -> str:
    """What one direction of a bidirectional layer goes by; layer names have no slash."""
    return f"{name}/{way}"


class Place(NamedTuple):
    """Where a tensor or a state lives in its buffer."""

    name: tuple[str, ...]
    start: int
    stop: int
    shape: Sizes


class Program:
    """Operations laid out for one set of input sizes.

    Attributes
    ----------
    table
        int64 ``(operations, WIDTH)``, what :data:`kernels.execute` runs.
    reads, writes
        Places in the work buffer to fill before and to read after.
    mask
        Place in the work buffer of the call's mask; empty where there is none.
    states
        Places in the state buffer, both ways.
    work_size, state_size
        Lengths of the two buffers, in elements.
    frames
        Buffers that are not in use.
    checks
        Where in the work buffer a number other than zero tells of wrong ids, the layer that refuses
        them, by name and itself, and where they are.
    shared, shares
        Multiplications in layers whose units threads may share; in how many parts, at most.
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
        self._parameters = parameters
        self._rows: list[Array] = []
        self._places: dict[str, Place] = {}
        self.states: list[Place] = []
        self.frames: list[Any] = []
        self.checks: list[tuple[int, str, Embedding, Place]] = []
        self.shared = self.shares = 0
        self.work_size = self.state_size = 0
        self.reads = [self._place(name, sizes) for name, sizes in inputs.items()]
        self.mask = Place((), 0, 0, (0,))
        if mask is not None:
            at = self._reserve(math.prod(mask))
            self.mask = Place((), at, at + math.prod(mask), mask)
        for edge in edges:
            layer = layers[edge.layer]
            try:
                shapes = layer.output_shapes([self._places[t].shape for t in edge.inputs])
            except ShapeError as error:
                raise ShapeError(f"{edge.layer}: {error}") from None
            sizes: list[Sizes] = [tuple(int(d) for d in shape) for shape in shapes]
            _LOWER[type(layer)](self, layer, edge, sizes)
        self.writes = [self._places[name]._replace(name=(name,)) for name in wanted]
        self.table = np.array(self._rows, np.int64).reshape(len(self._rows), table.WIDTH)

    def _reserve(self, size: int) -> int:
        at = self.work_size
        self.work_size += -(-size // ALIGNMENT) * ALIGNMENT
        return at

    def _place(self, name: str, shape: Sizes) -> Place:
        size = math.prod(shape)
        at = self._reserve(size)
        self._places[name] = Place((name,), at, at + size, shape)
        return self._places[name]

    def _emit(self, kernel: Kernel, **columns: int) -> None:
        row = np.zeros(table.WIDTH, np.int64)
        columns["OP"] = kernel.address(self._parameters.dtype)
        for name, value in columns.items():
            row[getattr(table, name)] = value
        self._rows.append(row)

    def _weights(self, name: str, layer: Operation) -> dict[str, int]:
        """Columns for the weights of a layer and for its activations."""
        columns = dict(self._parameters.places[name])
        columns["MULTIPLY"] = kernels.multiply.address(self._parameters.dtype)
        for field, column in _CODES.items():
            activation: Activation | None = getattr(layer, field, None)
            if activation is not None:
                code = activation.row.code
                assert code is not None  # is_native has seen to it
                columns[column] = code
        return columns

    def _lower_alias(self, layer: Operation, edge: Edge, sizes: list[Sizes]) -> None:
        """Row-major reshaping moves nothing: the output is the input, seen otherwise."""
        source = self._places[edge.inputs[0]]
        self._places[edge.outputs[0]] = source._replace(shape=sizes[0])

    def _lower_dense(self, layer: Dense, edge: Edge, sizes: list[Sizes]) -> None:
        x, y = self._places[edge.inputs[0]], self._place(edge.outputs[0], sizes[0])
        rows = math.prod(sizes[0][:-1])
        columns = self._weights(edge.layer, layer)
        columns |= {"X": x.start, "Y": y.start, "ROWS": rows}
        columns |= {"IN": layer.features, "UNITS": layer.units}
        if layer.units <= _NARROW_UNITS:
            self._emit(kernels.dense_narrow, **columns)
            return
        of = Columns(1, layer.units, self._parameters.dtype)
        block = min(rows, _BLOCK_ROWS)
        self._emit(
            kernels.dense, **columns, VECTORS=of.vectors, BLOCK_ROWS=block,
            SCRATCH=self._reserve(block * of.size),
        )  # fmt: skip

    def _lower_convolution(self, layer: Conv1D, edge: Edge, sizes: list[Sizes]) -> None:
        x, y = self._places[edge.inputs[0]], self._place(edge.outputs[0], sizes[0])
        axis = 2 if layer.channels_first else 1
        steps, out_steps = x.shape[axis], sizes[0][axis]
        before, after = layer.pads(steps)
        features, (taps, terms) = layer.features // layer.groups, _taps(layer)
        of = Columns(1, layer.units // layer.groups, self._parameters.dtype)
        block, padded = min(out_steps, _BLOCK_ROWS), before + steps + after
        self._emit(
            kernels.convolve, **self._weights(edge.layer, layer), X=x.start, Y=y.start,
            ROWS=x.shape[0], IN=layer.features, UNITS=layer.units, VECTORS=of.vectors,
            IN_STEPS=steps, PADDED_STEPS=padded, OUT_STEPS=out_steps, BEFORE=before,
            STRIDE=layer.stride, TAPS=taps, TAP_STEP=layer.dilation * features, TERMS=terms,
            GROUPS=layer.groups, CHANNELS_FIRST=layer.channels_first, BLOCK_ROWS=block,
            SCRATCH=self._reserve(block * of.size + padded * features),
        )  # fmt: skip

    def _lower_embedding(self, layer: Embedding, edge: Edge, sizes: list[Sizes]) -> None:
        x = self._places[edge.inputs[0]]
        made = [self._place(name, shape) for name, shape in zip(edge.outputs, sizes, strict=True)]
        flag = self._reserve(1)
        self.checks.append((flag, edge.layer, layer, x))
        self._emit(
            kernels.embed, **self._weights(edge.layer, layer), X=x.start, Y=made[0].start,
            ROWS=x.stop - x.start, IN=layer.vocabulary, UNITS=layer.units, SCRATCH=flag,
            MAKES_MASK=layer.mask_zero, MADE_MASK=made[-1].start,
        )  # fmt: skip

    def _lower_activation(self, layer: ActivationLayer, edge: Edge, sizes: list[Sizes]) -> None:
        x, y = self._places[edge.inputs[0]], self._place(edge.outputs[0], sizes[0])
        self._emit(
            kernels.activation, **self._weights(edge.layer, layer), X=x.start, Y=y.start,
            ROWS=math.prod(sizes[0][:-1]), IN=sizes[0][-1],
        )  # fmt: skip

    def _lower_stack(self, layer: Stack, edge: Edge, sizes: list[Sizes]) -> None:
        x, y = self._places[edge.inputs[0]], self._place(edge.outputs[0], sizes[0])
        rows, entries = math.prod(x.shape[: layer.axis]), math.prod(x.shape[layer.axis :])
        self._emit(kernels.repeat, X=x.start, Y=y.start, ROWS=rows, IN=entries, UNITS=layer.times)

    def _lower_recurrent(self, layer: Recurrent, edge: Edge, sizes: list[Sizes]) -> None:
        y = self._place(edge.outputs[0], sizes[0])
        states = self._emit_recurrent(layer, edge.layer, "", edge, edge.inputs, y.start, y)
        self._fetch(edge, sizes, states)

    def _lower_bidirectional(self, layer: Bidirectional, edge: Edge, sizes: list[Sizes]) -> None:
        y = self._place(edge.outputs[0], sizes[0])
        at, states = y.start, []
        for (way, half), mine in zip(
            layer.directions.items(), layer.halves(edge.inputs), strict=True
        ):
            name = _half(edge.layer, way)
            states += self._emit_recurrent(half, name, f"{way}/", edge, mine, at, y)
            at += half.outputs_size
        self._fetch(edge, sizes, states)

    def _emit_recurrent(
        self, layer: Recurrent, name: str, prefix: str, edge: Edge, inputs: Sequence[str],
        at: int, y: Place,
    ) -> list[tuple[int, int, int]]:  # fmt: skip
        """Emit one direction, its output from ``at`` on; returns offsets and sizes of its state."""
        x, given = self._places[inputs[0]], layer.initial_states(inputs)
        mask = self._places[inputs[-1]] if layer.masked else self.mask
        steps, batch = x.shape[:2] if layer.time_major else x.shape[1::-1]
        states = []
        for k, (key, (size,)) in enumerate(layer.state_shapes().items()):
            start, end = self.state_size, self.state_size + batch * size
            if given:
                source = self._places[given[k]].start
                self._emit(kernels.store, X=source, Y=start, ROWS=batch, UNITS=size)
            else:
                place = Place((edge.name, f"{prefix}{key}"), start, end, (batch, size))
                self.states.append(place)
            states.append((start, batch, size))
            self.state_size = end
        along_steps, along_rows = (batch, 1) if layer.time_major else (1, steps)
        if layer.return_sequences:
            y_row, y_step = along_rows * y.shape[-1], along_steps * y.shape[-1]
        else:
            y_row, y_step = y.shape[-1], 0
        columns, recurrent = _columns(layer, self._parameters.dtype)
        hidden = Columns(1, layer.outputs_size, self._parameters.dtype)
        cell = Columns(1, layer.units, self._parameters.dtype)
        block_rows = max(1, min(batch, _BLOCK_ROWS, max(4, _BLOCK_SIZE // columns.size)))
        ahead = max(1, _BLOCK_SIZE // (block_rows * columns.size))
        block_steps = min(steps, _BLOCK_STEPS, ahead)
        padded, x_padded = _apart(hidden.size), _apart(layer.features)
        z_row = _apart(block_steps * columns.size)
        # Old and new hidden states; cell states and what is projected, or recurrent products and
        # what they are made of; the input's part of the gates, and the input of a step.
        scratch = 2 * padded + 2 * _apart(cell.size) + recurrent.size + z_row + x_padded
        masked = mask.stop > mask.start
        shared = 0 if batch > 1 or masked else _shared_blocks(layer)
        if shared:
            self.shared += steps * columns.size * (layer.features + layer.outputs_size)
            self.shares = max(self.shares, columns.vectors // (shared * len(layer.gates)))
        self._emit(
            _cell(layer), **self._weights(name, layer), X=x.start, Y=at, ROWS=batch, STEPS=steps,
            IN=layer.features, UNITS=layer.units, SIZE=layer.outputs_size, PADDED=padded,
            Z_ROW=z_row, X_PADDED=x_padded,
            VECTORS=columns.vectors, RECURRENT_VECTORS=recurrent.vectors,
            PROJECTION_VECTORS=hidden.vectors,
            X_ROW=along_rows * layer.features, X_STEP=along_steps * layer.features,
            Y_ROW=y_row, Y_STEP=y_step, REVERSE=layer.go_backwards, IN_ORDER=bool(prefix),
            MASKED=masked, MASK=mask.start, ZERO_OUTPUT=layer.zero_output_for_mask,
            STATE=states[0][0], CELL_STATE=states[-1][0], BLOCK_ROWS=block_rows,
            BLOCK_STEPS=block_steps, SCRATCH=self._reserve(block_rows * scratch),
            END_BLOCK=columns.blocks, END_VECTOR=columns.vectors, SHARED_BLOCKS=shared,
            SHARED_VECTORS=shared * len(layer.gates),
        )  # fmt: skip
        return states

    def _fetch(self, edge: Edge, sizes: list[Sizes], states: list[tuple[int, int, int]]) -> None:
        """Make tensors of the states, where the layer returns them."""
        for name, shape, (start, batch, size) in zip(
            edge.outputs[1:], sizes[1:], states, strict=False
        ):
            target = self._place(name, shape).start
            self._emit(kernels.fetch, X=start, Y=target, ROWS=batch, UNITS=size)


_LOWER: dict[type[Operation], Callable[[Program, Any, Edge, list[Sizes]], None]] = {
    LSTM: Program._lower_recurrent,
    GRU: Program._lower_recurrent,
    SimpleRNN: Program._lower_recurrent,
    Bidirectional: Program._lower_bidirectional,
    Dense: Program._lower_dense,
    Conv1D: Program._lower_convolution,
    Embedding: Program._lower_embedding,
    ActivationLayer: Program._lower_activation,
    Stack: Program._lower_stack,
    Identity: Program._lower_alias,
    Reshape: Program._lower_alias,
}


def kernels_of(layer: Operation) -> set[Kernel]:
    """Kernels that programs with this layer may call."""
    if isinstance(layer, Bidirectional):
        return set().union(*map(kernels_of, layer.directions.values()))
    if isinstance(layer, Recurrent):
        return {_cell(layer), kernels.multiply, kernels.fetch, kernels.store}
    if isinstance(layer, Dense):
        return {
            kernels.dense_narrow if layer.units <= _NARROW_UNITS else kernels.dense,
            kernels.multiply,
        }
    if isinstance(layer, Conv1D):
        return {kernels.convolve, kernels.multiply}
    if isinstance(layer, Embedding):
        return {kernels.embed}
    if isinstance(layer, ActivationLayer):
        return {kernels.activation}
    return {kernels.repeat} if isinstance(layer, Stack) else set()


def is_native(layer: Operation) -> bool:
    """Whether the layer, with its activations, has a kernel."""
    if isinstance(layer, Bidirectional):
        return layer.merge_mode == "concat" and all(map(is_native, layer.directions.values()))
    if type(layer) not in _LOWER or (isinstance(layer, Stack) and layer.times == 1):
        return False
    recurrent = isinstance(layer, Recurrent)
    for field in _CODES:
        activation: Activation | None = getattr(layer, field, None)
        if activation is None:
            continue
        # A softmax goes over a whole row, but cells see blocks of units.
        whole = activation.axis is None or (activation.axis == -1 and not recurrent)
        if activation.row.code is None or not whole:
            return False
        if isinstance(layer, Conv1D) and layer.groups > 1 and not activation.row.elementwise:
            return False
    return True
