"""Cases of what computes element by element, and along axes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import oracle
from operations.case import FIRST, FLAT, MAJOR, MASK, NESTED, OTHER, SEQUENCE, Case, case, of
from operations.oracles import masked_mean, masked_merge, masked_softmax, softmax, softmax_of
from operations.weighted_cases import pooled

from npylstm.activations import TABLE, Activation
from npylstm.ops.arithmetic import Arithmetic, Reduce
from npylstm.ops.convolution import Pool1D
from npylstm.ops.integers import Integers
from npylstm.ops.masking import MaskedMean, MaskedMerge, MaskedSoftmax
from npylstm.ops.pointwise import ActivationLayer, Identity, Rescaling
from npylstm.ops.products import Dot, MatMul

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
