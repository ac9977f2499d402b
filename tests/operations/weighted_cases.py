"""Cases of other layers with weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import oracle
from operations.case import FIRST, FLAT, MAJOR, MASK, NESTED, SEQUENCE, Case, case
from operations.oracles import Array, Weights

from npylstm.activations import Activation
from npylstm.ops.arithmetic import Constant
from npylstm.ops.convolution import Conv1D, Pool1D
from npylstm.ops.dense import Dense, Embedding
from npylstm.ops.masking import Masking
from npylstm.ops.normalization import BatchNormalization, LayerNormalization, UnitNormalization
from npylstm.ops.pointwise import PReLU


def dense_of(weights: Weights, x: Array) -> Array:
    y: Array = x @ weights["kernel"] + weights.get("bias", 0.0)
    return y


def looked_up(weights: Weights, x: Array) -> tuple[Array, Array]:
    return weights["embeddings"][x.astype(int)], (x != 0).astype(x.dtype)


def normalized(weights: Weights, x: Array) -> Array:
    off = x - weights["moving_mean"]
    y: Array = off / np.sqrt(weights["moving_variance"] + 1e-3) * weights["gamma"]
    return y + weights["beta"]


def layer_normalized(weights: Weights, x: Array) -> Array:
    off = x - x.mean(-1, keepdims=True)
    y: Array = off / np.sqrt(x.var(-1, keepdims=True) + 1e-3) * weights["gamma"]
    return y + weights["beta"]


def convolved(layer: Conv1D) -> Callable[[Weights, Array], Array]:
    """Convolve with plain loops."""

    def compute(weights: Weights, x: Array) -> Array:
        x = x.swapaxes(1, 2) if layer.channels_first else x
        span, steps = (layer.size - 1) * layer.dilation + 1, x.shape[1]
        before, after = layer.padding
        count = (steps + before + after - span) // layer.stride + 1
        if layer.same:
            count = math.ceil(steps / layer.stride)
            before = max((count - 1) * layer.stride + span - steps, 0) // 2
        y = np.zeros((len(x), count, layer.units))
        per, make = layer.features // layer.groups, layer.units // layer.groups
        for place in range(count):
            for unit in range(layer.units):
                first = unit // make * per
                for k in range(layer.size):
                    t = place * layer.stride + k * layer.dilation - before
                    if 0 <= t < steps:
                        row = x[:, t, first : first + per]
                        y[:, place, unit] += row @ weights["kernel"][k, :, unit]
        y += weights.get("bias", 0.0)
        y = np.tanh(y) if layer.activation.name == "tanh" else y
        return y.swapaxes(1, 2) if layer.channels_first else y

    return compute


def pooled(layer: Pool1D) -> Callable[[Array], Array]:
    """Pool with plain loops."""

    def compute(x: Array) -> Array:
        x = x.swapaxes(1, 2) if layer.channels_first else x
        span, steps = (layer.size - 1) * layer.dilation + 1, x.shape[1]
        before, after = layer.padding
        count = (steps + before + after - span) // layer.stride + 1
        if layer.same:
            count = math.ceil(steps / layer.stride)
            before = max((count - 1) * layer.stride + span - steps, 0) // 2
        rows = []
        for place in range(count):
            first = place * layer.stride - before
            times = [first + k * layer.dilation for k in range(layer.size)]
            inside = x[:, [t for t in times if 0 <= t < steps]]
            if layer.operation == "max":
                rows.append(inside.max(1))
            else:
                size = layer.size if layer.count_padding else inside.shape[1]
                rows.append(inside.sum(1) / size)
        y = np.stack(rows, 1)
        return y.swapaxes(1, 2) if layer.channels_first else y

    return compute


def weighted() -> Iterator[Case]:
    yield case(Dense(3, 4), FLAT, oracle=dense_of)
    yield case(Dense(3, 4), SEQUENCE, oracle=dense_of, note="sequence")
    yield case(Dense(3, 4), MAJOR, oracle=dense_of, note="time_major")
    yield case(Dense(3, 4), NESTED, oracle=dense_of, note="nested")
    yield case(Dense(3, 4), ("batch*steps", 3), oracle=dense_of, note="merged")
    yield case(Dense(3, 40), SEQUENCE, oracle=dense_of, note="wide")
    yield case(Dense(3, 4, use_bias=False), SEQUENCE, oracle=dense_of, note="use_bias=False")
    for name in ("softmax", "tanh", "relu", "log_softmax"):
        made = (
            (lambda n: lambda w, x: oracle.dense(w, x, n))(name) if name != "log_softmax" else None
        )
        yield case(Dense(3, 4, Activation(name)), SEQUENCE, oracle=made)
    yield case(Embedding(6, 4), ("batch",), integer=(0,), oracle=looked_up, note="flat")
    yield case(Embedding(6, 4), MASK, integer=(0,), oracle=looked_up)
    yield case(Embedding(6, 4, mask_zero=True), MASK, integer=(0,), oracle=looked_up)
    yield case(Embedding(6, 4), ("steps", "batch"), integer=(0,), oracle=looked_up, note="major")
    yield case(Masking(), SEQUENCE)
    yield case(Masking(), SEQUENCE, masks=(0,), note="zeros")
    yield case(Masking(1.0), SEQUENCE, masks=(0,), note="ones")
    yield case(Masking(0.5), ("batch", "steps", "other", 2))
    yield case(
        Masking(), FIRST, masks=(0,), note="channels_first",
    )  # fmt: skip
    for options in (
        {},
        {"stride": 2},
        {"dilation": 2},
        {"padding": (2, 0)},
        {"padding": (1, 2), "stride": 2},
        {"padding": (4, 0), "dilation": 2},
        {"same": True},
        {"same": True, "stride": 2},
        {"same": True, "dilation": 2, "channels_first": True},
        {"channels_first": True},
        {"channels_first": True, "padding": (2, 0)},
        {"use_bias": False},
        {"activation": Activation("tanh")},
    ):
        layer = Conv1D(3, 4, 3, **options)
        shape = FIRST if layer.channels_first else SEQUENCE
        yield case(layer, shape, oracle=convolved(layer))
    one = Conv1D(3, 4, 1)
    yield case(one, SEQUENCE, oracle=convolved(one))
    for options in ({}, {"stride": 2, "activation": Activation("tanh")}, {"same": True}):
        grouped = Conv1D(4, 6, 2, groups=2, **options)
        yield case(grouped, ("batch", "steps", 4), oracle=convolved(grouped))
    yield case(Conv1D(4, 6, 2, groups=2, activation=Activation("softmax")), ("batch", "steps", 4))
    yield case(BatchNormalization(3, -1, 1e-3), SEQUENCE, oracle=normalized)
    yield case(BatchNormalization(3, 1, 1e-3), FLAT, oracle=normalized)
    yield case(BatchNormalization(3, 1, 0.0), FIRST)
    yield case(BatchNormalization(3, -1, 1e-3, scale=False), MAJOR, note="scale=False")
    yield case(BatchNormalization(3, -1, 1e-3, center=False), SEQUENCE, note="center=False")
    yield case(LayerNormalization((3,), 1e-3), SEQUENCE, oracle=layer_normalized)
    yield case(LayerNormalization((3,), 1e-3), MAJOR, oracle=layer_normalized, note="time_major")
    yield case(LayerNormalization((4, 3), 1e-3), ("batch", "steps", 4, 3))
    yield case(LayerNormalization((3,), 1e-3, scale=False), SEQUENCE, note="scale=False")
    yield case(LayerNormalization((3,), 1e-3, center=False), SEQUENCE, note="center=False")
    yield case(LayerNormalization((3,), 1e-3, first_axis=2), SEQUENCE, oracle=layer_normalized)
    yield case(LayerNormalization((3,), 1e-3, centered=False), SEQUENCE, note="centered=False")
    yield case(UnitNormalization(), SEQUENCE)
    yield case(UnitNormalization((1,)), SEQUENCE)
    yield case(UnitNormalization((1, -1), 1e-6), SEQUENCE)
    yield case(UnitNormalization((0,)), MAJOR, note="time_major")
    yield case(UnitNormalization((-1,), 5.0), SEQUENCE)
    yield case(PReLU((3,), 1), FLAT)
    yield case(PReLU((3,), 2), SEQUENCE)
    yield case(PReLU((1, 3)), SEQUENCE)
    yield case(PReLU((3,), 1), FIRST, note="channels_first")
    yield case(PReLU((3,), 2), MAJOR, note="time_major")
    yield case(Constant((2, 3)), oracle=lambda weights: weights["value"])
