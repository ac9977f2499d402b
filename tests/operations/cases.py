"""Configurations of every kind of layer, each option at least once away from its default."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import oracle
from operations import array_cases, cell_cases, normalization_cases, scan_cases, window_cases
from operations.case import (
    FIRST,
    FLAT,
    MAJOR,
    MASK,
    NESTED,
    OTHER,
    SEQUENCE,
    STATE,
    Case,
    Refused,
    case,
    of,
)  # fmt: skip

from npylstm.activations import TABLE, Activation
from npylstm.ops.arithmetic import Arithmetic, Constant, Reduce
from npylstm.ops.attention import Attention, MultiHeadAttention
from npylstm.ops.bidirectional import Bidirectional
from npylstm.ops.cells import GRU, LSTM, SimpleRNN
from npylstm.ops.convolution import Conv1D, Pool1D
from npylstm.ops.dense import Dense, Embedding
from npylstm.ops.external import External
from npylstm.ops.indexing import Flip, Pad, Repeat, Select, SizeOf, Slice
from npylstm.ops.integers import Integers
from npylstm.ops.masking import MaskedMean, MaskedMerge, MaskedSoftmax, Masking
from npylstm.ops.normalization import BatchNormalization, LayerNormalization, UnitNormalization
from npylstm.ops.pointwise import ActivationLayer, Identity, PReLU, Rescaling
from npylstm.ops.products import Dot, MatMul
from npylstm.ops.shapes import Shape
from npylstm.ops.shaping import Concatenate, Expand, Full, Reshape, Stack, Transpose
from npylstm.ops.time_distributed import TimeDistributed

__all__ = ["CASES", "REFUSED"]

Array = np.ndarray[Any, Any]
Weights = Mapping[str, Array]


def softmax(axis: int, name: str = "softmax") -> ActivationLayer:
    return ActivationLayer(Activation.of(name, axis=axis))


def softmax_of(x: Array, axis: int = -1) -> Array:
    e = np.exp(x - x.max(axis, keepdims=True))
    total: Array = e / e.sum(axis, keepdims=True)
    return total


def masked_mean(keepdims: bool) -> Callable[..., Array]:
    """The mean over the steps that are not masked, one sample after the other; nan if all are."""

    def mean(x: Array, mask: Array) -> Array:
        with np.errstate(invalid="ignore"):
            kept = [sample[own != 0] for sample, own in zip(x, mask, strict=True)]
            made = np.array([np.sum(k, axis=0) / np.float64(len(k)) for k in kept])
        return made[:, None] if keepdims else made

    return mean


def masked_softmax(axis: int, nothing: float | None = None) -> Callable[..., Array]:
    """Softmax of the entries that are not masked; of all, or ``nothing``, where all are."""

    def softmax(x: Array, mask: Array) -> Array:
        rows, on = (
            np.moveaxis(a, axis, -1).reshape(-1, x.shape[axis])
            for a in (x, np.broadcast_to(mask != 0, x.shape))
        )
        made = np.zeros(rows.shape)
        for row, own, target in zip(rows, on, made, strict=True):
            if own.any():
                target[own] = softmax_of(row[own])
            else:
                target[:] = 1 / len(row) if nothing is None else nothing
        shape = np.moveaxis(x, axis, -1).shape
        return np.moveaxis(made.reshape(shape), -1, axis)

    return softmax


def masked_merge(operation: str, masked: tuple[int, ...]) -> Callable[..., Array]:
    """Combine, step by step, the tensors that are not masked there."""
    combine = {"multiply": np.prod, "maximum": np.max, "minimum": np.min}[operation]

    def merge(*inputs: Array) -> Array:
        count = len(inputs) - len(masked)
        on = {k: m != 0 for k, m in zip(masked, inputs[count:], strict=True)}
        made = np.zeros(inputs[0].shape)
        for at in np.ndindex(made.shape[:-1]):
            tensors = [x[at] for k, x in enumerate(inputs[:count]) if k not in on or on[k][at]]
            if tensors:
                made[at] = combine(tensors, axis=0)
            elif operation != "multiply":  # all are masked: the first tensor
                made[at] = inputs[0][at]
        return made

    return merge


def attended_by_heads(weights: Any, query: Any, value: Any) -> Any:
    """Multi-head attention of keys that are the values, sample by sample and head by head."""
    w, made = weights, []
    for q, v in zip(query, value, strict=True):
        y = w["output_bias"]
        for h in range(w["query_kernel"].shape[1]):
            a, b, c = (
                x @ w[f"{part}_kernel"][:, h] + w[f"{part}_bias"][h]
                for x, part in ((q, "query"), (v, "key"), (v, "value"))
            )
            y = y + softmax_of(a @ b.T / math.sqrt(a.shape[1])) @ c @ w["output_kernel"][h]
        made.append(y)
    return np.stack(made)


# --- Recurrent -----------------------------------------------------------------------------------

FLAGS: tuple[dict[str, Any], ...] = (
    {},
    {"return_sequences": True},
    {"return_state": True},
    {"return_sequences": True, "return_state": True},
    {"go_backwards": True, "return_sequences": True},
    {"go_backwards": True},
    {"time_major": True},
    {"time_major": True, "return_sequences": True, "return_state": True},
    {"time_major": True, "go_backwards": True, "return_sequences": True},
    {"stateful": True},
    {"use_bias": False, "return_sequences": True},
    {"activation": Activation("relu"), "return_sequences": True},
    {"masked": True},
    {"masked": True, "return_sequences": True},
    {"masked": True, "return_sequences": True, "return_state": True},
    {"masked": True, "zero_output_for_mask": True, "return_sequences": True},
    {"masked": True, "zero_output_for_mask": True},
    {"masked": True, "zero_output_for_mask": True, "time_major": True, "return_sequences": True},
    {"masked": True, "go_backwards": True, "return_sequences": True},
    {"zero_output_for_mask": True},
)


def recurrent() -> Iterator[Case]:
    for kind, states in ((LSTM, 2), (GRU, 1), (SimpleRNN, 1)):
        own: list[dict[str, Any]] = []
        if kind is not SimpleRNN:
            own.append({"recurrent_activation": Activation("hard_sigmoid_fifth")})
            own.append({"recurrent_activation": Activation("softmax"), "return_sequences": True})
        for activation in (*WITH_PARAMETERS, Activation("erf"), Activation("asinh")):
            gates = {} if kind is SimpleRNN else {"recurrent_activation": WITH_PARAMETERS[3]}
            own.append({"activation": activation, **gates})
        if kind is LSTM:
            own.append({"projection": 2, "return_sequences": True, "return_state": True})
            own.append({"projection": 2, "go_backwards": True, "time_major": True})
            own.append({"projection": 5, "masked": True})
        if kind is GRU:
            own.append({"reset_after": False, "return_sequences": True})
            own.append({"reset_after": False, "use_bias": False, "return_state": True})
            own.append({"reset_after": False, "masked": True, "go_backwards": True})
        for flags in (*FLAGS, *own):
            layer = kind(3, 4, **flags)
            masks = (MASK,) if layer.masked else ()
            sequence = MAJOR if layer.time_major else SEQUENCE
            yield case(layer, sequence, *masks, oracle=cell_oracle(layer))
        begin = (STATE,) * states
        both: dict[str, Any] = {"return_sequences": True, "return_state": True}
        yield case(
            kind(3, 4, **both), SEQUENCE, *begin, note="begins-return_sequences-return_state"
        )
        major = kind(3, 4, time_major=True, return_sequences=True)
        yield case(major, MAJOR, *begin, note="begins-time_major-return_sequences")
        masked = kind(3, 4, masked=True, zero_output_for_mask=True, return_sequences=True)
        yield case(masked, SEQUENCE, *begin, MASK, note="begins-masked-zero_output_for_mask")
    projected = LSTM(3, 4, projection=2)
    yield case(projected, SEQUENCE, ("batch", 2), STATE, note="begins-projection")


def cell_oracle(layer: Any) -> Any:
    """An oracle for a layer without a mask, from zeros."""
    usual = {"activation": "tanh", "recurrent_activation": "sigmoid"}
    given = {name: str(getattr(layer, name, value)) for name, value in usual.items()}
    if layer.masked or getattr(layer, "projection", 0):
        return None

    def compute(weights: Weights, x: Array) -> Array:
        x = x.swapaxes(0, 1) if layer.time_major else x
        x = x[:, ::-1] if layer.go_backwards else x
        if isinstance(layer, LSTM):
            y, _ = oracle.lstm(
                weights,
                x,
                activation=given["activation"],
                recurrent=given["recurrent_activation"],
            )
        elif isinstance(layer, GRU):
            y = oracle.gru(weights, x, None, layer.reset_after, *given.values())
        else:
            y = oracle.simple_rnn(weights, x, None, given["activation"])
        if not layer.return_sequences:
            return y[:, -1]
        return y.swapaxes(0, 1) if layer.time_major else y

    return compute


def pair_of(forward: LSTM, backward: LSTM, mode: str) -> Any:
    """An oracle for two layers that read a sequence from both ends: their outputs, merged."""
    merge = {
        "concat": lambda a, b: np.concatenate([a, b], -1), "sum": np.add, "mul": np.multiply,
        "ave": lambda a, b: (a + b) / 2, "none": lambda a, b: (a, b),
    }[mode]  # fmt: skip

    def compute(weights: Weights, x: Array) -> Any:
        a, b = (
            cell_oracle(layer)(
                {k.partition("/")[2]: w for k, w in weights.items() if k.startswith(way)}, x
            )
            for way, layer in (("forward", forward), ("backward", backward))
        )
        return merge(a, b[:, ::-1] if backward.return_sequences else b)

    return compute


def bidirectional() -> Iterator[Case]:
    flags: dict[str, Any]
    for mode in ("concat", "sum", "mul", "ave", "none"):
        for flags in (
            {},
            {"return_sequences": True},
            {"return_sequences": True, "return_state": True},
        ):
            a, b = LSTM(3, 4, **flags), LSTM(3, 4, go_backwards=True, **flags)
            note = "-".join([mode, *flags])
            yield case(Bidirectional(a, b, mode), SEQUENCE, note=note, oracle=pair_of(a, b, mode))
    for note, shapes, flags in (
        ("time_major", (MAJOR,), {"time_major": True, "return_sequences": True}),
        ("masked", (SEQUENCE, MASK), {"masked": True, "return_sequences": True}),
        ("masked-last", (SEQUENCE, MASK), {"masked": True, "zero_output_for_mask": True}),
        ("begins", (SEQUENCE, STATE, ("batch", 5)), {"return_state": True}),
    ):
        forward, backward = GRU(3, 4, **flags), GRU(3, 5, go_backwards=True, **flags)
        yield case(Bidirectional(forward, backward), *shapes, note=f"gru-{note}")
    mixed = Bidirectional(SimpleRNN(3, 4), LSTM(3, 2, go_backwards=True))
    yield case(mixed, SEQUENCE, note="two-kinds")


# --- With weights --------------------------------------------------------------------------------


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


# --- Element by element, and along axes ----------------------------------------------------------

PARAMETERS: dict[str, dict[str, float]] = {
    "relu": {"negative_slope": 0.1, "max_value": 0.5, "threshold": 0.2},
    "elu": {"alpha": 0.5},
    "softplus": {"beta": 2.0, "threshold": 1.0},
    "celu": {"alpha": 0.5},
    "soft_shrink": {"threshold": 0.3},
    "hard_shrink": {"threshold": 0.3},
    "squareplus": {"b": 1.0},
    "thresholded_relu": {"theta": 0.4},
}


WITH_PARAMETERS = (
    Activation.of("affine", alpha=0.75, beta=0.125),
    Activation.of("clip", low=-0.25, high=0.5),
    Activation.of("clip", high=0.25),
    Activation.of("hard_sigmoid", alpha=0.75, beta=0.25),
    Activation.of("scaled_tanh", alpha=1.5, beta=0.5),
    Activation.of("shrink", bias=0.25, lambd=0.125),
)


def activated(name: str) -> Callable[..., Any]:
    return of(lambda x: np.apply_along_axis(lambda row: oracle.activate(name, list(row)), -1, x))


def elementwise() -> Iterator[Case]:
    for name in TABLE:
        positive = name in ("log", "log10", "log1p", "log2", "reciprocal", "rsqrt", "sqrt")
        layer = ActivationLayer(Activation(name))
        yield case(layer, SEQUENCE, oracle=activated(name), positive=positive)
    for name, params in PARAMETERS.items():
        yield case(ActivationLayer(Activation.of(name, **params)), SEQUENCE)
    for activation in WITH_PARAMETERS:
        yield case(ActivationLayer(activation), SEQUENCE, oracle=activated(str(activation)))
    yield case(ActivationLayer(Activation("tanh")), ("batch*steps", 3), note="tanh-merged")
    yield case(softmax(1), SEQUENCE, oracle=of(lambda x: softmax_of(x, 1)))
    yield case(softmax(-2), SEQUENCE, oracle=of(lambda x: softmax_of(x, 1)))
    yield case(softmax(2), SEQUENCE, oracle=of(softmax_of), note="softmax-last")
    yield case(softmax(0), MAJOR, oracle=of(lambda x: softmax_of(x, 0)), note="softmax-time_major")
    yield case(softmax(1, "log_softmax"), SEQUENCE)
    yield case(Identity(), SEQUENCE, oracle=of(lambda x: x))
    yield case(Identity(), MASK, note="values")
    yield case(Integers(), SEQUENCE, oracle=of(lambda x: x))
    yield case(Integers(8), MAJOR, integer={0: (-128, 127)}, oracle=of(lambda x: x))
    yield case(Integers(16, signed=False), MASK, integer={0: (0, 65535)}, note="unsigned")
    yield case(Rescaling(), SEQUENCE)
    yield case(Rescaling(0.5, -2.0), MAJOR, oracle=of(lambda x: 0.5 * x - 2))
    yield from arithmetic()
    yield from along_axes()


def arithmetic() -> Iterator[Case]:
    for name, function in (
        ("add", np.add), ("subtract", np.subtract), ("multiply", np.multiply),
        ("divide", np.divide), ("maximum", np.maximum), ("minimum", np.minimum),
        ("power", np.power), ("average", lambda a, b: (a + b) / 2),
    ):  # fmt: skip
        positive = name in ("divide", "power")
        yield case(Arithmetic(name), SEQUENCE, SEQUENCE, positive=positive, oracle=of(function))
    yield case(Arithmetic("average"), SEQUENCE, SEQUENCE, SEQUENCE, note="three")
    yield case(Arithmetic("add"), SEQUENCE, note="one")
    yield case(Arithmetic("subtract"), SEQUENCE, ("batch", 1, 3), note="broadcast")
    yield case(Arithmetic("multiply"), SEQUENCE, (3,), note="broadcast-weights")
    yield case(Arithmetic("multiply"), MAJOR, FLAT, note="broadcast-time_major")
    yield case(Arithmetic("multiply"), ("batch", 1, "steps"), ("batch", "other", 1), note="outer")
    yield case(Arithmetic("multiply"), NESTED, ("steps", 1, 3), note="no-batch")
    yield case(Arithmetic("add", 2.5), SEQUENCE)
    yield case(Arithmetic("subtract", 1.0, True), SEQUENCE, oracle=of(lambda x: 1 - x))
    yield case(Arithmetic("divide", 3.0), SEQUENCE, oracle=of(lambda x: x / 3))
    yield case(Arithmetic("power", 2.0), SEQUENCE, oracle=of(np.square))
    yield case(Arithmetic("maximum", 0.1, True), SEQUENCE)
    yield case(Arithmetic("average", 4.0), SEQUENCE, SEQUENCE)
    yield case(Arithmetic("add", after_batch=True), SEQUENCE, FLAT)
    yield case(Arithmetic("add", after_batch=True), NESTED, OTHER, note="after_batch-nested")
    yield case(
        Arithmetic("add", after_batch=True), ("batch", 2, "steps"), MASK, note="after_batch-mask"
    )


def along_axes() -> Iterator[Case]:
    for name, function in (
        ("mean", np.mean), ("sum", np.sum), ("max", np.max), ("min", np.min),
        ("norm", np.linalg.norm),
    ):  # fmt: skip
        made = (lambda f: of(lambda x: f(x, axis=2)))(function)
        yield case(Reduce(name, (2,)), SEQUENCE, oracle=made)
        yield case(Reduce(name, (1,), keepdims=True), SEQUENCE)
    yield case(Reduce("sum", (0,)), MAJOR, note="sum-time_major")
    yield case(Reduce("mean", (1, 3)), NESTED, note="mean-two")
    yield case(Reduce("mean", (1,)), NESTED, note="mean-before")
    yield case(Reduce("max", ()), SEQUENCE, note="max-none")
    yield case(MatMul(), SEQUENCE, (3, 4), oracle=of(np.matmul))
    yield case(MatMul(), SEQUENCE, ("batch", 3, 4), oracle=of(np.matmul), note="each")
    yield case(MatMul(), SEQUENCE, FIRST, note="pairs")
    yield case(MatMul(), ("batch", "other", "steps"), SEQUENCE, note="mix")
    yield case(MatMul(), ("batch", 2, 3), FIRST, note="columns")
    yield case(MatMul(), NESTED, ("steps", 3, 2), note="stack")
    yield case(Dot((2, 2)), SEQUENCE, OTHER)
    yield case(Dot((1, 1)), SEQUENCE, SEQUENCE)
    yield case(Dot((-1, -1), True), SEQUENCE, OTHER)
    yield case(Dot((1, 1), True, 3.0), FLAT, FLAT)
    yield case(Dot((2, 1)), SEQUENCE, FLAT)
    yield case(Dot((2, 2)), ("steps", "batch", 3), ("steps", 4, 3), note="batch-second")
    for same in (False, True):
        for operation in ("max", "mean"):
            layer = Pool1D(operation, 2, 1 + same, same=same)
            yield case(layer, SEQUENCE, oracle=of(pooled(layer)))
    for layer in (
        Pool1D("max", 3, 1, padding=(2, 0)),
        Pool1D("mean", 3, 1, padding=(2, 0)),
        Pool1D("mean", 3, 2, padding=(1, 1), count_padding=True),
        Pool1D("max", 2, 1, dilation=2),
        Pool1D("max", 2, 1, dilation=3, channels_first=True),
        Pool1D("mean", 2, 2, channels_first=True),
        Pool1D("max", 1, 1),
    ):
        shape = FIRST if layer.channels_first else SEQUENCE
        yield case(layer, shape, oracle=of(pooled(layer)))
    for keepdims in (False, True):
        mean = MaskedMean(keepdims)
        yield case(mean, SEQUENCE, MASK, oracle=of(masked_mean(keepdims)))
    yield case(MaskedMean(), NESTED, MASK, oracle=of(masked_mean(False)), note="nested")
    each = ("batch", "other", "steps"), ("batch", 1, "steps")
    yield case(MaskedSoftmax(), MASK, MASK, oracle=of(masked_softmax(-1)))
    yield case(MaskedSoftmax(), *each, oracle=of(masked_softmax(-1)), note="each")
    yield case(MaskedSoftmax(1), SEQUENCE, ("batch", "steps", 1), oracle=of(masked_softmax(1)))
    zero = MaskedSoftmax(-1, zero_fully_masked=True)
    yield case(zero, SEQUENCE, SEQUENCE, oracle=of(masked_softmax(-1, nothing=0.0)))
    yield case(MaskedSoftmax(-1, additive=True), SEQUENCE, SEQUENCE)
    yield case(MaskedSoftmax(0), MAJOR, ("steps", "batch", 1), note="time_major")
    for operation in ("multiply", "maximum", "minimum"):
        merge = MaskedMerge(operation, (0, 1))
        oracle = of(masked_merge(operation, (0, 1)))
        yield case(merge, SEQUENCE, SEQUENCE, MASK, MASK, oracle=oracle)
    one, some = MaskedMerge("multiply", (1,)), MaskedMerge("maximum", (0, 2))
    yield case(one, SEQUENCE, SEQUENCE, MASK, oracle=of(masked_merge("multiply", (1,))))
    oracle = of(masked_merge("maximum", (0, 2)))
    yield case(some, SEQUENCE, SEQUENCE, SEQUENCE, MASK, MASK, oracle=oracle)
    yield case(MaskedMerge("minimum", ()), SEQUENCE, SEQUENCE)
    yield case(MaskedMerge("maximum", (0, 1)), FIRST, FIRST, FLAT, FLAT, masks=(2, 3), note="first")
    yield case(MaskedMerge("multiply", (1,)), SEQUENCE, ("batch", 1, 3), ("batch", 1), note="one")


# --- Attention, and layers with layers inside ----------------------------------------------------


def attended(weights: Weights, query: Array, value: Array) -> tuple[Array, Array]:
    scores = softmax_of(np.einsum("bqn,bsn->bqs", query, value))
    return np.einsum("bqs,bsn->bqn", scores, value), scores


def attention() -> Iterator[Case]:
    value: Shape = ("batch", "steps", 5)
    pairs: Shape = ("batch", "other", "steps")
    yield case(Attention(), OTHER, SEQUENCE, oracle=attended)
    yield case(Attention(), SEQUENCE, SEQUENCE, oracle=attended, note="self")
    yield case(Attention(return_scores=True), OTHER, SEQUENCE, oracle=attended)
    yield case(Attention(), OTHER, value, SEQUENCE, note="keys")
    yield case(Attention(scaled=True), OTHER, SEQUENCE)
    yield case(Attention("additive", 3, scaled=True), OTHER, SEQUENCE)
    yield case(Attention("additive"), OTHER, SEQUENCE)
    yield case(Attention("concat"), OTHER, SEQUENCE)
    yield case(Attention("concat", scaled=True), OTHER, SEQUENCE)
    yield case(Attention(causal=True), SEQUENCE, SEQUENCE)
    for masked, shapes in (
        ((0,), [("batch", "other")]),
        ((1,), [MASK]),
        ((0, 1), [("batch", "other"), MASK]),
    ):
        yield case(Attention(masked=masked), OTHER, SEQUENCE, *shapes)
    yield case(Attention(masked=(1,), mask_in_float32=False), OTHER, SEQUENCE, MASK)
    yield case(Attention(masked=(1,), causal=True), SEQUENCE, SEQUENCE, MASK)

    def heads(**options: Any) -> MultiHeadAttention:
        return MultiHeadAttention(3, 3, 3, 2, 4, 5, 6, **options)

    silent: dict[str, Any] = {
        "without_effect": ("key_bias",)
    }  # the same for every key: softmax does not see it
    yield case(heads(), OTHER, SEQUENCE, note="plain", oracle=attended_by_heads, **silent)
    yield case(heads(use_bias=False), OTHER, SEQUENCE, note="use_bias=False")
    apart = MultiHeadAttention(3, 5, 2, 2, 4, 5, 6)
    keys: Shape = ("batch", "steps", 2)
    yield case(apart, OTHER, value, keys, note="keys", **silent)
    yield case(heads(return_scores=True), OTHER, SEQUENCE, note="return_scores", **silent)
    yield case(heads(causal=True), SEQUENCE, SEQUENCE, note="causal", **silent)
    yield case(heads(window=2), SEQUENCE, SEQUENCE, note="window", **silent)
    yield case(heads(window=2, causal=True), SEQUENCE, SEQUENCE, note="window-causal", **silent)
    for rule in ("lowered", "additive", "uniform", "zero"):
        layer = heads(masked=(3,), fully_masked=rule)
        yield case(layer, OTHER, SEQUENCE, pairs, note=f"pairs-{rule}", **silent)
        layer = heads(masked=(0, 1), fully_masked=rule, mask_in_float32=False)
        masks = (("batch", "other"), MASK)
        yield case(layer, OTHER, SEQUENCE, *masks, note=f"masked-{rule}", **silent)
    layer = MultiHeadAttention(3, 5, 2, 2, 4, 5, 6, masked=(2,))
    yield case(layer, OTHER, value, keys, MASK, note="masked-keys", **silent)


def doubled(x: Array, weights: Sequence[Array] = ()) -> Array:
    return sum((2 * x * w for w in weights), 2 * x)


def nested() -> Iterator[Case]:
    inner: Shape = ("batch", "steps", "other", 3)
    yield case(TimeDistributed(Dense(3, 4)), SEQUENCE, oracle=dense_of)
    yield case(TimeDistributed(Reshape(((0, 0), -1))), ("batch", "steps", 2, 3))
    yield case(TimeDistributed(Embedding(6, 4)), ("batch", "steps", 2), integer=(0,))
    yield case(TimeDistributed(Conv1D(3, 4, 2)), ("batch", "steps", 4, 3))
    yield case(TimeDistributed(BatchNormalization(3, 1, 1e-3)), SEQUENCE)
    yield case(TimeDistributed(LSTM(3, 4)), ("batch", "steps", 4, 3))
    yield case(
        TimeDistributed(LSTM(3, 4)), inner, note="lstm-free",
    )  # fmt: skip
    yield case(
        TimeDistributed(LSTM(3, 4, go_backwards=True, return_sequences=True)), inner,
    )  # fmt: skip
    yield case(
        TimeDistributed(softmax(1)), inner, note="softmax-free",
    )  # fmt: skip
    yield case(
        TimeDistributed(Flip((1,))), inner, note="flip-free",
    )  # fmt: skip
    yield case(
        TimeDistributed(Transpose((0, 2, 1))), inner, note="permute-free",
    )  # fmt: skip
    yield case(TimeDistributed(Dense(3, 4)), inner, note="dense-nested")
    masked = TimeDistributed(GRU(3, 4, masked=True, return_state=True))
    yield case(masked, ("batch", "steps", 4, 3), ("batch", "steps", 4))
    yield case(External("f", ((0, 0), (0, 1), 3)).with_function(doubled), SEQUENCE)
    yield case(External("f", ((0, 0), (0, 1), 3), ((3,),)).with_function(doubled), SEQUENCE)
    yield case(
        External("g", ((1, 0), (0, 1), 3)).with_function(lambda a, b: a + b[:, None]),
        SEQUENCE,
        FLAT,
    )


# --- Moving elements about -----------------------------------------------------------------------


def moving() -> Iterator[Case]:
    yield case(Reshape(((0, 0), -1)), SEQUENCE)
    yield case(Reshape(((0, 0), -1)), ("batch", 2, 3), note="fixed")
    yield case(Reshape(((0, 0), -1)), MASK, note="flat")
    yield case(Reshape(((0, 0), -1)), ("batch", "steps", 1), note="ones")
    yield case(Reshape(((0, 0), 3, -1)), SEQUENCE)
    yield case(Reshape(((0, 0), -1, 3)), SEQUENCE)
    yield case(Reshape(((0, 0), -1, 3, 1)), SEQUENCE)
    yield case(Reshape(((0, 0), 2, 3)), ("batch", 6))
    yield case(Reshape(((0, 0), 3, 2)), ("batch", 2, 3))
    yield case(Transpose((0, 2, 1)), SEQUENCE, oracle=of(lambda x: x.swapaxes(1, 2)))
    yield case(Transpose((0, 2, 3, 1)), NESTED)
    yield case(Stack(1, 4), FLAT)
    yield case(Stack(1, 4), MASK, note="free")
    yield case(Select(1, -1), SEQUENCE, oracle=of(lambda x: x[:, -1]))
    yield case(Select(1, 0), SEQUENCE, oracle=of(lambda x: x[:, 0]))
    yield case(Select(2, 1), SEQUENCE, oracle=of(lambda x: x[:, :, 1]))
    yield case(Select(0, -1), MAJOR, oracle=of(lambda x: x[-1]))
    yield case(Select(2, 1), NESTED, note="nested")
    yield case(Slice(1), SEQUENCE)
    yield case(Slice(1, 1), SEQUENCE, oracle=of(lambda x: x[:, 1:]))
    yield case(Slice(1, 1, -1), SEQUENCE, oracle=of(lambda x: x[:, 1:-1]))
    yield case(Slice(1, 1, -1, 2), SEQUENCE, oracle=of(lambda x: x[:, 1:-1:2]))
    yield case(Slice(1, -1), SEQUENCE, oracle=of(lambda x: x[:, -1:]))
    yield case(Slice(1, -2, size=2), SEQUENCE, oracle=of(lambda x: x[:, -2:]))
    yield case(Slice(2, 0, 2), SEQUENCE, oracle=of(lambda x: x[:, :, :2]))
    yield case(Slice(2, 0, None, 2, 2), SEQUENCE, oracle=of(lambda x: x[:, :, ::2]))
    yield case(Slice(0, 0, 4), MAJOR, note="time_major")
    yield case(SizeOf(1), SEQUENCE, oracle=of(lambda x: float(x.shape[1])))
    yield case(SizeOf(2), SEQUENCE, oracle=of(lambda x: 3.0))
    yield case(Transpose((1, 0, 2)), SEQUENCE, oracle=of(lambda x: x.swapaxes(0, 1)))
    yield case(Transpose((2, 0, 1)), MAJOR)
    yield case(Transpose((0, 1, 2)), SEQUENCE)
    yield case(Flip((1,)), SEQUENCE, oracle=of(lambda x: x[:, ::-1]))
    yield case(Flip((2,)), SEQUENCE, oracle=of(lambda x: x[..., ::-1]))
    yield case(Flip((0, 2)), MAJOR)
    yield case(Reshape((-1, 3)), SEQUENCE)
    yield case(Reshape(((0, 0), (0, 1), 3, 1)), SEQUENCE)
    yield case(Reshape((1, (0, 0), (0, 1), 3)), SEQUENCE)
    yield case(Reshape(((1, 0), (1, 1), 3)), ("batch*steps", 3), SEQUENCE, note="lent")
    yield case(Reshape(((0, 0), (0, 1), 2, 3)), ("batch", "steps", 6))
    yield case(Reshape((-1, 3)), MAJOR, note="time_major")
    yield case(Reshape(((0, 0), (0, 2), (0, 1), 3)), NESTED, note="steps-as-others")
    yield case(Reshape(((0, 0), 6, (0, 3))), ("batch", 2, 3, "steps"), note="before-time")
    yield case(Reshape((2, 3, (0, 1), (0, 2))), (6, "batch", "steps"), note="split-before")
    yield case(Reshape((2, -1, 3)), (2, "batch", 3), note="batch-second")
    yield case(Expand((4, (0, 0), 5)), ("batch", 1))
    yield case(Expand(((0, 0), (1, 1), 3)), ("batch", 1, 3), SEQUENCE, note="lent")
    yield case(Expand((2, (0, 0), (0, 1), 3)), ("batch", "steps", 1))
    yield case(Expand(((1, 0), 3)), (1, 3), FLAT, note="batch-lent")
    yield case(Expand(((1, 0), (1, 1), 3)), (3,), SEQUENCE, note="both-lent")
    yield case(Concatenate(2), SEQUENCE, SEQUENCE)
    yield case(Concatenate(-1), SEQUENCE, ("batch", "steps", 2))
    yield case(Concatenate(1), SEQUENCE, OTHER)
    yield case(Concatenate(1), SEQUENCE, SEQUENCE, note="twice")
    yield case(Concatenate(0), MAJOR, (1, "batch", 3))
    for axis in range(4):
        yield case(Stack(axis), SEQUENCE, SEQUENCE)
    yield case(Stack(1), MAJOR, MAJOR, note="time_major")
    yield case(Full(((0, 0), 2), 0.5), SEQUENCE)
    yield case(Full(((0, 0), (0, 1), 2)), SEQUENCE)
    yield case(Full((2, 3), 1.0), SEQUENCE, note="fixed")
    yield case(Repeat(1, 2), SEQUENCE, oracle=of(lambda x: np.repeat(x, 2, 1)))
    yield case(Repeat(2, 3), SEQUENCE, oracle=of(lambda x: np.repeat(x, 3, 2)))
    yield case(Repeat(1, 1), SEQUENCE)
    yield case(Pad(1, 2, 1), SEQUENCE)
    yield case(Pad(1, 2, 0), SEQUENCE)
    yield case(Pad(2, 1, 0), SEQUENCE)
    yield case(Pad(1, 0, 0), SEQUENCE)


CASES: tuple[Case, ...] = (
    *array_cases.CASES,
    *cell_cases.CASES,
    *scan_cases.CASES,
    *window_cases.CASES,
    *normalization_cases.CASES,
    *recurrent(),
    *bidirectional(),
    *weighted(),
    *elementwise(),
    *attention(),
    *nested(),
    *moving(),
)

REFUSED: tuple[Refused, ...] = (
    *array_cases.REFUSED,
    *window_cases.REFUSED,
    *normalization_cases.REFUSED,
    Refused(softmax(0), (SEQUENCE,)),
    Refused(softmax(1), (MAJOR,)),
    Refused(Reduce("mean", (0,)), (SEQUENCE,)),
    Refused(Flip((0,)), (SEQUENCE,)),
    Refused(Select(0, 1), (SEQUENCE,)),
    Refused(Slice(1, 0, 2), (MAJOR,)),
    Refused(Pad(0, 1, 0), (SEQUENCE,)),
    Refused(Repeat(0, 2), (SEQUENCE,)),
    Refused(SizeOf(0), (SEQUENCE,), mixes=False),
    Refused(Concatenate(0), (SEQUENCE, SEQUENCE)),
    Refused(Reshape((3, -1)), (MAJOR,)),
    Refused(Reshape(((0, 1), (0, 0), 3)), (SEQUENCE,)),
    Refused(Reshape(((1, 0), (1, 1), 3)), (("steps*batch", 3), SEQUENCE)),
    Refused(MatMul(), (("steps", "batch"), ("batch", 2))),
    Refused(MatMul(), (("batch", 3), (3, "batch"))),
    Refused(Dot((1, 1)), (MAJOR, MAJOR)),
    Refused(Dot((2, 2)), (MAJOR, MAJOR)),
    Refused(Attention(), (MAJOR, MAJOR)),
    Refused(MaskedMean(), (MAJOR, ("steps", "batch"))),
    Refused(MaskedSoftmax(1), (MAJOR, MAJOR)),
    Refused(UnitNormalization((0, 1)), (MAJOR,)),
    Refused(Masking(), (("steps", 3, "batch"),), options={"masks": (0,)}),
    Refused(LSTM(3, 4), (MAJOR,), mixes=False),
    Refused(LSTM(3, 4, time_major=True), (SEQUENCE,), mixes=False),
    Refused(Bidirectional(GRU(3, 4), GRU(3, 4, go_backwards=True)), (MAJOR,), mixes=False),
    Refused(Conv1D(3, 4, 2), (MAJOR,)),
    Refused(Pool1D("max", 2, 1), (MAJOR,)),
    Refused(Reshape(((0, 0), 9)), (MAJOR,)),
    Refused(External("f", ((0, 1), 3)).with_function(lambda x: x.sum(0)), (SEQUENCE,)),
)
