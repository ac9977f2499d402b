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
from npylstm.layers.base import Array, Layer
from npylstm.layers.dense import Dense
from npylstm.layers.lstm import LSTM
from npylstm.layers.pointwise import ActivationLayer, Identity
from npylstm.layers.shaping import Flatten, RepeatVector, Reshape
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
        if isinstance(layer, LSTM):
            parts = list(layer.pack(spec.weights).values())  # W, U, b
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
    ) -> None:
        self._parameters = parameters
        self._rows: list[Array] = []
        self._places: dict[str, Place] = {}
        self.states: list[Place] = []
        self.work_size = self.state_size = 0
        self.reads = [self._place(name, sizes) for name, sizes in inputs.items()]
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

    def _activation(self, edge: Edge, activation: Activation, field: str) -> tuple[int, int]:
        code = activation.row.code
        assert code is not None  # is_native has seen to it
        return code, self._parameters.activations[edge.layer, field]

    def _lower_alias(self, layer: Layer, edge: Edge, sizes: list[Sizes]) -> None:
        """Row-major reshaping moves nothing: the output is the input, seen otherwise."""
        source = self._places[edge.inputs[0]]
        self._places[edge.outputs[0]] = source._replace(shape=sizes[0])

    def _lower_dense(self, layer: Dense, edge: Edge, sizes: list[Sizes]) -> None:
        x, y = self._places[edge.inputs[0]], self._place(edge.outputs[0], sizes[0])
        code, at = self._activation(edge, layer.activation, "activation")
        self._emit(
            kernels.DENSE, X=x.start, Y=y.start, PARAM=self._parameters.weights[edge.layer],
            ROWS=math.prod(sizes[0][:-1]), IN=layer.features, UNITS=layer.units,
            CODE=code, CODE_PARAM=at,
        )  # fmt: skip

    def _lower_activation(self, layer: ActivationLayer, edge: Edge, sizes: list[Sizes]) -> None:
        x, y = self._places[edge.inputs[0]], self._place(edge.outputs[0], sizes[0])
        code, at = self._activation(edge, layer.activation, "activation")
        self._emit(
            kernels.ACTIVATE, X=x.start, Y=y.start, ROWS=math.prod(sizes[0][:-1]),
            IN=sizes[0][-1], CODE=code, CODE_PARAM=at,
        )  # fmt: skip

    def _lower_repeat(self, layer: RepeatVector, edge: Edge, sizes: list[Sizes]) -> None:
        x, y = self._places[edge.inputs[0]], self._place(edge.outputs[0], sizes[0])
        batch, times, features = sizes[0]
        self._emit(kernels.REPEAT, X=x.start, Y=y.start, ROWS=batch, IN=features, UNITS=times)

    def _lower_lstm(self, layer: LSTM, edge: Edge, sizes: list[Sizes]) -> None:
        x = self._places[edge.inputs[0]]
        steps, batch = x.shape[:2] if layer.time_major else x.shape[1::-1]
        units, features = layer.units, layer.features
        state = self.state_size
        for name in layer.state_shapes():
            end = self.state_size + batch * units
            self.states.append(Place((edge.layer, name), self.state_size, end, (batch, units)))
            self.state_size = end
        y = self._place(edge.outputs[0], sizes[0])
        code, at = self._activation(edge, layer.activation, "activation")
        rcode, rat = self._activation(edge, layer.recurrent_activation, "recurrent_activation")
        block = kernels.STEP_BLOCK * kernels.ROW_BLOCK
        along_steps, along_rows = (batch, 1) if layer.time_major else (1, steps)
        self._emit(
            kernels.LSTM, X=x.start, Y=y.start, PARAM=self._parameters.weights[edge.layer],
            ROWS=batch, STEPS=steps, IN=features, UNITS=units,
            X_ROW=along_rows * features, X_STEP=along_steps * features,
            Y_ROW=along_rows * units, Y_STEP=along_steps * units,
            REVERSE=layer.go_backwards, SEQUENCES=layer.return_sequences,
            CODE=code, CODE_PARAM=at, RECURRENT_CODE=rcode, RECURRENT_CODE_PARAM=rat,
            STATE=state, SCRATCH=self._reserve(block * (4 * units + features)),
        )  # fmt: skip
        h, c = state, state + batch * units
        fetched = [] if layer.return_sequences else [(y.start, h)]
        if layer.return_state:
            fetched += [
                (self._place(name, size).start, source)
                for name, size, source in zip(edge.outputs[1:], sizes[1:], (h, c), strict=True)
            ]
        for target, source in fetched:
            self._emit(kernels.FETCH, X=source, Y=target, ROWS=batch, UNITS=units)


_LOWER: dict[type[Layer], Callable[[Program, Any, Edge, list[Sizes]], None]] = {
    LSTM: Program._lower_lstm,
    Dense: Program._lower_dense,
    ActivationLayer: Program._lower_activation,
    RepeatVector: Program._lower_repeat,
    Flatten: Program._lower_alias,
    Reshape: Program._lower_alias,
    Identity: Program._lower_alias,
}


def is_native(layer: Layer) -> bool:
    """Whether the layer, with its activations, has a kernel."""
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
