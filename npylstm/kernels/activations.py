"""Activation functions as native loops, selected by the codes of :mod:`npylstm.activations`.

Most are vector expressions; rare ones call the C library for each number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from npylstm.activations import SELU_ALPHA, SELU_SCALE
from npylstm.kernels.jit import jit
from npylstm.kernels.simd import Lanes, broadcast, each_vector, lane_count
from npylstm.kernels.simd_math import exp, exp_minus_one, sigmoid, tanh
from npylstm.kernels.softmax import softmax_row

__all__ = ["activate"]

_SQRT_HALF = math.sqrt(0.5)
_GELU_SCALE = math.sqrt(2 / math.pi)

_SOFTPLUS, _GELU, _MISH, _SOFTMAX, _LOG_SOFTMAX, _LOG, _LOG_SIGMOID = 8, 12, 14, 15, 16, 30, 31


def _relu(x: Lanes, slope: Lanes, top: Lanes, threshold: Lanes) -> Lanes:
    # Zero times an infinite x would be nan.
    below = slope.choose("==", 0.0, 0.0, slope * (x - threshold))
    return x.choose("<=", threshold, below, x).minimum(top)


def _elu(x: Lanes, alpha: Lanes | float) -> Lanes:
    return x.choose("<", 0.0, exp_minus_one(x.minimum(0.0)) * alpha, x)


def _celu(x: Lanes, alpha: Lanes) -> Lanes:
    return x.maximum(0.0) + alpha * exp_minus_one(x.minimum(0.0) / alpha)


def _gelu_tanh(x: Lanes) -> Lanes:
    return 0.5 * x * (1.0 + tanh(_GELU_SCALE * (x + 0.044715 * x * x * x)))


# By code: an expression of a vector and the activation's parameters.
_EXPRESSIONS: dict[int, Callable[..., Lanes]] = {
    1: tanh,
    2: sigmoid,
    3: lambda x: x.fma(0.2, 0.5).maximum(0.0).minimum(1.0),
    4: lambda x: (x + 3.0).maximum(0.0).minimum(6.0) / 6.0,
    5: _relu,
    6: _elu,
    7: lambda x: SELU_SCALE * _elu(x, SELU_ALPHA),
    9: lambda x: x / (1.0 + abs(x)),
    10: exp,
    11: lambda x: x * sigmoid(x),
    13: _gelu_tanh,
    17: lambda x: x * ((x + 3.0).maximum(0.0).minimum(6.0) / 6.0),
    18: lambda x: x.maximum(-1.0).minimum(1.0),
    19: _celu,
    20: lambda x, alpha, beta: alpha * x + beta,
    21: lambda x, low, high: x.maximum(low).minimum(high),
    22: lambda x, alpha, beta: (alpha * x + beta).maximum(0.0).minimum(1.0),
    23: lambda x, alpha, beta: alpha * tanh(beta * x),
    24: lambda x: abs(x),
    25: lambda x: -x,
    26: lambda x: 1.0 / x,
    27: lambda x: 1.0 / x.sqrt(),
    28: lambda x: x.sqrt(),
    29: lambda x: x * x,
}


@intrinsic
def _express(typingctx: Any, code: Any, params: Any, z: Any, n: Any) -> Any:
    """Apply the expression with this code to ``z[:n]`` in place."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        code, params, z, n = args
        lanes = lane_count(z.type.pointee)
        end = builder.append_basic_block("expressed")
        switch = builder.switch(code, end)
        for number, expression in _EXPRESSIONS.items():
            case = builder.append_basic_block(f"code{number}")
            switch.add_case(ir.Constant(code.type, number), case)
            builder.position_at_end(case)
            count = expression.__code__.co_argcount - 1
            values = []
            for k in range(count):
                at = builder.gep(params, [ir.Constant(n.type, k)])
                values.append(broadcast(builder, builder.load(at), lanes))

            def apply(k: Any, mask: Any) -> None:
                at = builder.gep(z, [k])
                expression(Lanes.load(builder, at, lanes, mask), *values).store(at, mask)  # noqa: B023

            each_vector(builder, lanes, n, apply)
            builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return types.void(code, params, z, types.int64), generate


@jit
def _softplus(x):
    zero = type(x)(0)
    return (x if not x < zero else zero) + math.log1p(math.exp(-abs(x)))


@jit
def activate(code, params, z, n):
    """Apply the activation with ``code`` and ``params`` to ``z[:n]`` in place."""
    T = type(z[0])
    if code == _SOFTPLUS:
        beta, threshold = params[0], params[1]
        for j in range(n):
            scaled = beta * z[j]
            z[j] = z[j] if scaled > threshold else _softplus(scaled) / beta
    elif code == _GELU:
        for j in range(n):
            z[j] = T(0.5) * z[j] * (T(1) + T(math.erf(z[j] * T(_SQRT_HALF))))
    elif code == _MISH:
        for j in range(n):
            z[j] = z[j] * T(math.tanh(_softplus(z[j])))
    elif code == _LOG:
        for j in range(n):
            z[j] = math.log(z[j])
    elif code == _LOG_SIGMOID:
        for j in range(n):
            z[j] = -_softplus(-z[j])
    elif code in (_SOFTMAX, _LOG_SOFTMAX):
        softmax_row(z, z, n, int(code == _LOG_SOFTMAX))
    elif code:
        _express(code, params, z, n)
