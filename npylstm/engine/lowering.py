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

from npylstm.activations import Activation
from npylstm.engine import kernels
from npylstm.layers import (
    GRU,
    LSTM,
    ActivationLayer,
    Bidirectional,
    Dense,
    Flatten,
    Identity,
    RepeatVector,
    Reshape,
    SimpleRNN,
    View,
)
from npylstm.layers.base import Array, Layer
from npylstm.layers.bidirectional import inside
from npylstm.layers.recurrent import Recurrent
from npylstm.spec import Edge, LayerSpec

__all__ = ["Parameters", "Program", "is_native"]

_ALIGNMENT = 16  # elements: tensors begin on a cache line

Sizes = tuple[int, ...]


class Parameters:
    """All weights of a model in one flat buffer, each layer's where its kernel looks for it."""

    def __init__(self, layers: Sequence[LayerSpec], dtype: str) -> None:
        self._parts: list[Array] = []
        self._size = 0
        self._dtype = dtype
        self.weights: dict[str, int] = {}
        self.activations: dict[tuple[str, ...], int] = {}
        for spec in layers:
            self._add_layer(spec)
        # Activations read their parameters at fixed places behind their offset.
        self._parts.append(np.zeros(_ALIGNMENT, dtype))
        self.buffer: Array = np.concatenate(self._parts)
        self.buffer.flags.writeable = False
        del self._parts

    def _add(self, array: Array) -> int:
        at = self._size
        size = -(-array.size // _ALIGNMENT) * _ALIGNMENT
        padded = np.zeros(size, self._dtype)
        padded[: array.size] = array.reshape(-1)
        self._parts.append(padded)
        self._size += size
        return at

    def _add_layer(self, spec: LayerSpec) -> None:
        layer, parts = spec.layer, []
        if isinstance(layer, Bidirectional):
            for way, half in layer.directions.items():
                own = inside(spec.weights, way)
                self._add_layer(LayerSpec(_half(spec.name, way), half, own))
            return
        if isinstance(layer, Recurrent):
            packed = layer.pack(spec.weights)
            parts = [packed[key] for key in _PACKED[_cell(layer)] if key in packed]
        elif isinstance(layer, Dense):
            bias = spec.weights.get("bias", np.zeros(layer.units, self._dtype))
            parts = [spec.weights["kernel"], bias]
        self.weights[spec.name] = self._add(
            np.concatenate([p.reshape(-1) for p in parts] or [np.zeros(0)])
        )
        for field in ("activation", "recurrent_activation"):
            activation = getattr(layer, field, None)
            if activation is not None:
                values = np.array(activation.params or (0.0,), self._dtype)
                self.activations[spec.name, field] = self._add(values)


# What the kernels look for behind one another.
_PACKED = {
    kernels.LSTM: ("W", "U", "b", "P"),
    kernels.GRU: ("W", "U", "b", "rb"),
    kernels.GRU_RESET_BEFORE: ("W", "U_gates", "b", "rb_gates", "U_h"),
    kernels.SIMPLE_RNN: ("W", "U", "b"),
}


def _cell(layer: Recurrent) -> int:
    """The operation that runs a recurrent layer."""
    if isinstance(layer, GRU):
        return kernels.GRU if layer.reset_after else kernels.GRU_RESET_BEFORE
    return kernels.LSTM if isinstance(layer, LSTM) else kernels.SIMPLE_RNN


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
        int64 ``(operations, WIDTH)``, what :func:`kernels.execute` runs.
    reads, writes
        Places in the work buffer to fill before and to read after.
    mask
        Place in the work buffer of the call's mask; empty where there is none.
    states
        Places in the state buffer, both ways.
    work_size, state_size
        Lengths of the two buffers, in elements.
    """

    def __init__(
        self,
        edges: Sequence[Edge],
        layers: Mapping[str, Layer],
        parameters: Parameters,
        inputs: Mapping[str, Sizes],
        wanted: Sequence[str],
        mask: Sizes | None = None,
    ) -> None:
        self._parameters = parameters
        self._rows: list[Array] = []
        self._places: dict[str, Place] = {}
        self.states: list[Place] = []
        self.work_size = self.state_size = 0
        self.reads = [self._place(name, sizes) for name, sizes in inputs.items()]
        self.mask = Place((), 0, 0, ())
        if mask is not None:
            at = self._reserve(math.prod(mask))
            self.mask = Place((), at, at + math.prod(mask), mask)
        for edge in edges:
            layer = layers[edge.layer]
            shapes = layer.output_shapes([self._places[t].shape for t in edge.inputs])
            sizes: list[Sizes] = [tuple(int(d) for d in shape) for shape in shapes]
            _LOWER[type(layer)](self, layer, edge, sizes)
        self.writes = [self._places[name]._replace(name=(name,)) for name in wanted]
        self.table = np.array(self._rows, np.int64).reshape(len(self._rows), kernels.WIDTH)

    def _reserve(self, size: int) -> int:
        at = self.work_size
        self.work_size += -(-size // _ALIGNMENT) * _ALIGNMENT
        return at

    def _place(self, name: str, shape: Sizes) -> Place:
        size = math.prod(shape)
        at = self._reserve(size)
        self._places[name] = Place((name,), at, at + size, shape)
        return self._places[name]

    def _emit(self, op: int, **columns: int) -> None:
        row = np.zeros(kernels.WIDTH, np.int64)
        row[kernels.OP] = op
        for name, value in columns.items():
            row[getattr(kernels, name)] = value
        self._rows.append(row)

    def _activation(self, name: str, layer: Layer, field: str) -> tuple[int, int]:
        activation: Activation | None = getattr(layer, field, None)
        if activation is None:
            return 0, 0
        code = activation.row.code
        assert code is not None  # is_native has seen to it
        return code, self._parameters.activations[name, field]

    def _lower_alias(self, layer: Layer, edge: Edge, sizes: list[Sizes]) -> None:
        """Row-major reshaping moves nothing: the output is the input, seen otherwise."""
        source = self._places[edge.inputs[0]]
        self._places[edge.outputs[0]] = source._replace(shape=sizes[0])

    def _lower_dense(self, layer: Dense, edge: Edge, sizes: list[Sizes]) -> None:
        x, y = self._places[edge.inputs[0]], self._place(edge.outputs[0], sizes[0])
        code, at = self._activation(edge.layer, layer, "activation")
        self._emit(
            kernels.DENSE, X=x.start, Y=y.start, PARAM=self._parameters.weights[edge.layer],
            ROWS=math.prod(sizes[0][:-1]), IN=layer.features, UNITS=layer.units,
            CODE=code, CODE_PARAM=at,
        )  # fmt: skip

    def _lower_activation(self, layer: ActivationLayer, edge: Edge, sizes: list[Sizes]) -> None:
        x, y = self._places[edge.inputs[0]], self._place(edge.outputs[0], sizes[0])
        code, at = self._activation(edge.layer, layer, "activation")
        self._emit(
            kernels.ACTIVATE, X=x.start, Y=y.start, ROWS=math.prod(sizes[0][:-1]),
            IN=sizes[0][-1], CODE=code, CODE_PARAM=at,
        )  # fmt: skip

    def _lower_repeat(self, layer: RepeatVector, edge: Edge, sizes: list[Sizes]) -> None:
        x, y = self._places[edge.inputs[0]], self._place(edge.outputs[0], sizes[0])
        batch, times, features = sizes[0]
        self._emit(kernels.REPEAT, X=x.start, Y=y.start, ROWS=batch, IN=features, UNITS=times)

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
        x, given = self._places[inputs[0]], layer.begins(inputs)
        mask = self._places[inputs[-1]] if layer.masked else self.mask
        steps, batch = x.shape[:2] if layer.time_major else x.shape[1::-1]
        states = []
        for k, (key, (size,)) in enumerate(layer.state_shapes().items()):
            start, end = self.state_size, self.state_size + batch * size
            if given:
                source = self._places[given[k]].start
                self._emit(kernels.STORE, X=source, Y=start, ROWS=batch, UNITS=size)
            else:
                place = Place((edge.name, f"{prefix}{key}"), start, end, (batch, size))
                self.states.append(place)
            states.append((start, batch, size))
            self.state_size = end
        code, code_at = self._activation(name, layer, "activation")
        rcode, rcode_at = self._activation(name, layer, "recurrent_activation")
        along_steps, along_rows = (batch, 1) if layer.time_major else (1, steps)
        if layer.return_sequences:
            y_row, y_step = along_rows * y.shape[-1], along_steps * y.shape[-1]
        else:
            y_row, y_step = y.shape[-1], 0
        width = len(layer.gates) * layer.units
        block = kernels.STEP_BLOCK * kernels.ROW_BLOCK
        scratch = block * (width + layer.features) + kernels.ROW_BLOCK * width
        self._emit(
            _cell(layer), X=x.start, Y=at, PARAM=self._parameters.weights[name],
            ROWS=batch, STEPS=steps, IN=layer.features, UNITS=layer.units,
            X_ROW=along_rows * layer.features, X_STEP=along_steps * layer.features,
            Y_ROW=y_row, Y_STEP=y_step, REVERSE=layer.go_backwards, IN_ORDER=bool(prefix),
            MASKED=bool(mask.shape), MASK=mask.start, ZERO_OUTPUT=layer.zero_output_for_mask,
            PROJECTION=getattr(layer, "projection", 0),
            CODE=code, CODE_PARAM=code_at, RECURRENT_CODE=rcode, RECURRENT_CODE_PARAM=rcode_at,
            STATE=states[0][0], SCRATCH=self._reserve(scratch),
        )  # fmt: skip
        return states

    def _fetch(self, edge: Edge, sizes: list[Sizes], states: list[tuple[int, int, int]]) -> None:
        """Make tensors of the states, where the layer returns them."""
        for name, shape, (start, batch, size) in zip(
            edge.outputs[1:], sizes[1:], states, strict=False
        ):
            target = self._place(name, shape).start
            self._emit(kernels.FETCH, X=start, Y=target, ROWS=batch, UNITS=size)


_LOWER: dict[type[Layer], Callable[[Program, Any, Edge, list[Sizes]], None]] = {
    LSTM: Program._lower_recurrent,
    GRU: Program._lower_recurrent,
    SimpleRNN: Program._lower_recurrent,
    Bidirectional: Program._lower_bidirectional,
    Dense: Program._lower_dense,
    ActivationLayer: Program._lower_activation,
    RepeatVector: Program._lower_repeat,
    Flatten: Program._lower_alias,
    Reshape: Program._lower_alias,
    Identity: Program._lower_alias,
    View: Program._lower_alias,
}


def is_native(layer: Layer) -> bool:
    """Whether the layer, with its activations, has a kernel."""
    if isinstance(layer, Bidirectional):
        return layer.merge_mode == "concat" and all(map(is_native, layer.directions.values()))
    if type(layer) not in _LOWER:
        return False
    for field in ("activation", "recurrent_activation"):
        activation: Activation | None = getattr(layer, field, None)
        if activation is None:
            continue
        # Gates are activated together: a softmax would mix them.
        whole = activation.axis is None or (activation.axis == -1 and field == "activation")
        if activation.row.code is None or not whole:
            return False
    return True
