"""Activation functions as native loops, selected by the codes of the one table.

``exp``, ``sigmoid`` and ``tanh`` are built from multiply-adds so that LLVM turns their
loops into vectors; they stay within two units in the last place. What is rarer calls the C library.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from npylstm.activations import SELU_ALPHA, SELU_SCALE
from npylstm.engine.jit import bits_as_float, fma, jit

__all__ = ["activate", "sigmoid", "tanh"]

_LOG2E = 1 / math.log(2)
_SQRT_HALF = math.sqrt(0.5)
_GELU_SCALE = math.sqrt(2 / math.pi)


def _expm1_reduced(x: Any) -> Any:
    """Reduce ``exp``: return ``q, s`` with ``exp(x) = s * s2 * (1 + q)``; see the overloads."""
    raise NotImplementedError


# exp(x) = 2**n * exp(r), n the integer nearest to x / ln 2, |r| <= ln(2) / 2 = 0.347.
# n: adding 1.5 * 2**(mantissa bits) rounds to an integer in the low bits.
# r: ln 2 is subtracted in two parts, the first short enough for an exact product.
# exp(r) - 1: Taylor polynomial; the first term left out is 0.347**8 / 8! = 5e-9 of float32's
# 6e-8, and 0.347**14 / 14! = 4e-18 of float64's 1e-16.
@overload(_expm1_reduced)
def _overload_expm1_reduced(x: Any) -> Any:
    if x == types.float32:
        f32, i32 = np.float32, np.int32
        log2e, magic = f32(_LOG2E), f32(1.5 * 2**23)
        ln2_hi, ln2_lo = f32(0.693359375), f32(math.log(2) - 0.693359375)
        c2, c3, c4 = f32(1 / 2), f32(1 / 6), f32(1 / 24)
        c5, c6, c7 = f32(1 / 120), f32(1 / 720), f32(1 / 5040)

        def float32_form(x: Any) -> Any:
            n = fma(x, log2e, magic) - magic
            r = fma(n, -ln2_lo, fma(n, -ln2_hi, x))
            q = fma(r, c7, c6)
            q = fma(r, q, c5)
            q = fma(r, q, c4)
            q = fma(r, q, c3)
            q = fma(r, q, c2)
            q = fma(r * r, q, r)
            k = i32(n)
            half = k >> i32(1)
            return (
                q,
                bits_as_float(i32((half + i32(127)) << i32(23))),
                bits_as_float(i32((k - half + i32(127)) << i32(23))),
            )

        return float32_form

    hi = float.fromhex("0x1.62e42fee00000p-1")
    lo = float.fromhex("0x1.a39ef35793c76p-33")
    log2e64, magic64 = _LOG2E, 1.5 * 2**52
    d = [1 / math.factorial(k) for k in range(14)]
    d2, d3, d4, d5, d6, d7 = d[2], d[3], d[4], d[5], d[6], d[7]
    d8, d9, d10, d11, d12, d13 = d[8], d[9], d[10], d[11], d[12], d[13]

    def float64_form(x: Any) -> Any:
        n = fma(x, log2e64, magic64) - magic64
        r = fma(n, -lo, fma(n, -hi, x))
        q = fma(r, d13, d12)
        q = fma(r, q, d11)
        q = fma(r, q, d10)
        q = fma(r, q, d9)
        q = fma(r, q, d8)
        q = fma(r, q, d7)
        q = fma(r, q, d6)
        q = fma(r, q, d5)
        q = fma(r, q, d4)
        q = fma(r, q, d3)
        q = fma(r, q, d2)
        q = fma(r * r, q, r)
        k = np.int64(n)
        half = k >> 1
        return q, bits_as_float((half + 1023) << 52), bits_as_float((k - half + 1023) << 52)

    return float64_form


def _limits(x: Any) -> Any:
    """``like``: the largest arguments of exp and of tanh that make a difference."""
    raise NotImplementedError


@overload(_limits)
def _overload_limits(x: Any) -> Any:
    # exp: beyond it the result is inf, and below its negative 0; tanh: beyond it the result is 1.
    exp_limit, tanh_limit = (
        (np.float32(105), np.float32(10)) if x == types.float32 else (746.0, 20.0)
    )

    def limits(x: Any) -> Any:
        return exp_limit, tanh_limit

    return limits


@jit
def exp(x):
    """``exp(x)``; nan stays nan because no comparison with it is true."""
    limit, _ = _limits(x)
    y = limit if x > limit else x
    y = -limit if y < -limit else y
    q, s1, s2 = _expm1_reduced(y)
    return fma(q, s1, s1) * s2


@jit
def sigmoid(x):
    """``1 / (1 + exp(-x))``."""
    one = type(x)(1)
    return one / (one + exp(-x))


@jit
def tanh(x):
    """``e / (e + 2)`` with ``e = exp(2|x|) - 1``, which keeps its digits near zero."""
    _, limit = _limits(x)
    one = type(x)(1)
    a = abs(x)
    y = limit if a > limit else a
    q, s1, s2 = _expm1_reduced(y + y)
    s = s1 * s2
    e = fma(q, s, s - one)
    r = e / (e + (one + one))
    return -r if x < 0 else r


@jit
def _softplus(x):
    one = type(x)(1)
    positive = x if not x < 0 else type(x)(0)
    return positive + math.log1p(exp(-abs(x))) * one


@jit
def _clip(x, low, high):
    y = low if x < low else x
    return high if y > high else y


@jit
def activate(code, params, z):
    """Apply the activation with ``code`` and ``params`` to the vector ``z`` in place."""
    T = type(z[0])
    zero, one, half = T(0), T(1), T(0.5)
    n = z.size
    if code == 0:
        return
    elif code == 1:
        for j in range(n):
            z[j] = tanh(z[j])
    elif code == 2:
        for j in range(n):
            z[j] = sigmoid(z[j])
    elif code == 3:
        for j in range(n):
            z[j] = _clip(fma(T(0.2), z[j], half), zero, one)
    elif code == 4:
        for j in range(n):
            z[j] = _clip(z[j] + T(3), zero, T(6)) / T(6)
    elif code == 5:
        slope, top, threshold = params[0], params[1], params[2]
        for j in range(n):
            x = z[j]
            below = slope * (x - threshold) if slope != zero else zero
            y = below if x <= threshold else x
            z[j] = top if y > top else y
    elif code == 6 or code == 7:
        alpha = params[0] if code == 6 else T(SELU_ALPHA)
        scale = one if code == 6 else T(SELU_SCALE)
        for j in range(n):
            x = z[j]
            z[j] = scale * (alpha * math.expm1(x) if x < zero else x)
    elif code == 8:
        beta, threshold = params[0], params[1]
        for j in range(n):
            scaled = beta * z[j]
            z[j] = z[j] if scaled > threshold else _softplus(scaled) / beta
    elif code == 9:
        for j in range(n):
            z[j] = z[j] / (one + abs(z[j]))
    elif code == 10:
        for j in range(n):
            z[j] = exp(z[j])
    elif code == 11:
        for j in range(n):
            z[j] = z[j] * sigmoid(z[j])
    elif code == 12:
        for j in range(n):
            z[j] = half * z[j] * (one + T(math.erf(z[j] * T(_SQRT_HALF))))
    elif code == 13:
        for j in range(n):
            x = z[j]
            z[j] = half * x * (one + tanh(T(_GELU_SCALE) * (x + T(0.044715) * x * x * x)))
    elif code == 14:
        for j in range(n):
            z[j] = z[j] * tanh(T(_softplus(z[j])))
    elif code == 15:
        top = z[0]
        for j in range(n):
            top = z[j] if z[j] > top else top
        total = 0.0  # in float64: thousands of terms in a row would lose digits
        for j in range(n):
            z[j] = exp(z[j] - top)
            total += z[j]
        for j in range(n):
            z[j] = T(z[j] / total)
