"""A slow, obvious oracle in float64, which shares no code with npylstm.

Plain loops over samples, steps and units, straight from the papers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def sigmoid(x: float) -> float:
    if x >= 0:
        return 1.0 / (1.0 + math.exp(-x))
    e = math.exp(x)
    return e / (1.0 + e)


def softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


ACTIVATIONS: dict[str, Callable[[float], float]] = {
    "linear": lambda x: x,
    "tanh": math.tanh,
    "sigmoid": sigmoid,
    "hard_sigmoid_fifth": lambda x: min(max(x / 5 + 0.5, 0.0), 1.0),
    "hard_sigmoid_sixth": lambda x: min(max(x / 6 + 0.5, 0.0), 1.0),
    "relu": lambda x: x if x > 0 else 0.0,
    "elu": lambda x: x if x > 0 else math.expm1(x),
    "selu": lambda x: (
        1.0507009873554804934 * (x if x > 0 else 1.6732632423543772848 * math.expm1(x))
    ),
    "softplus": softplus,
    "softsign": lambda x: x / (1 + abs(x)),
    "exponential": math.exp,
    "silu": lambda x: x * sigmoid(x),
    "gelu": lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: (
        0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    ),
    "mish": lambda x: x * math.tanh(softplus(x)),
    "hard_silu": lambda x: x * min(max(x / 6 + 0.5, 0.0), 1.0),
    "hard_tanh": lambda x: min(max(x, -1.0), 1.0),
    "celu": lambda x: x if x > 0 else math.expm1(x),
    "log_sigmoid": lambda x: -softplus(-x),
    "tanh_shrink": lambda x: x - math.tanh(x),
    "soft_shrink": lambda x: 0.0 if abs(x) <= 0.5 else x - math.copysign(0.5, x),
    "hard_shrink": lambda x: 0.0 if abs(x) <= 0.5 else x,
    "squareplus": lambda x: (x + math.sqrt(x * x + 4)) / 2,
    "sparse_plus": lambda x: 0.0 if x <= -1 else (x if x >= 1 else (x + 1) ** 2 / 4),
    "sparse_sigmoid": lambda x: min(max((x + 1) / 2, 0.0), 1.0),
    "thresholded_relu": lambda x: x if x > 1 else 0.0,
    "affine": lambda x: x,
    "affine(alpha=0.75, beta=0.125)": lambda x: 0.75 * x + 0.125,
    "clip": lambda x: x,
    "clip(low=-0.25, high=0.5)": lambda x: min(max(x, -0.25), 0.5),
    "clip(high=0.25)": lambda x: min(x, 0.25),
    "hard_sigmoid": lambda x: min(max(0.2 * x + 0.5, 0.0), 1.0),
    "hard_sigmoid(alpha=0.75, beta=0.25)": lambda x: min(max(0.75 * x + 0.25, 0.0), 1.0),
    "scaled_tanh": math.tanh,
    "scaled_tanh(alpha=1.5, beta=0.5)": lambda x: 1.5 * math.tanh(0.5 * x),
    "shrink": lambda x: x if abs(x) > 0.5 else 0.0,
    "shrink(bias=0.25, lambd=0.125)": lambda x: (
        x + 0.25 if x < -0.125 else x - 0.25 if x > 0.125 else 0.0
    ),
    "abs": abs,
    "acos": lambda x: math.acos(x) if abs(x) <= 1 else math.nan,
    "acosh": lambda x: math.acosh(x) if x >= 1 else math.nan,
    "asin": lambda x: math.asin(x) if abs(x) <= 1 else math.nan,
    "asinh": math.asinh,
    "atan": math.atan,
    "atanh": lambda x: math.atanh(x) if abs(x) < 1 else math.nan,
    "ceil": math.ceil,
    "cosh": math.cosh,
    "erf": math.erf,
    "exp2": lambda x: 2.0**x,
    "floor": math.floor,
    "is_inf": math.isinf,
    "is_nan": math.isnan,
    "log10": lambda x: math.log10(x) if x > 0 else math.nan,
    "log2": lambda x: math.log2(x) if x > 0 else math.nan,
    "logical_not": lambda x: x == 0,
    "round": round,
    "sinh": math.sinh,
    "tan": math.tan,
    "trunc": math.trunc,
    "cos": math.cos,
    "expm1": math.expm1,
    "log": lambda x: math.log(x) if x > 0 else math.nan,
    "log1p": lambda x: math.log1p(x) if x > -1 else math.nan,
    "negative": lambda x: -x,
    "reciprocal": lambda x: 1 / x,
    "rsqrt": lambda x: 1 / math.sqrt(x) if x > 0 else math.nan,
    "sign": lambda x: math.copysign(1, x) if x else x,
    "sin": math.sin,
    "sqrt": lambda x: math.sqrt(x) if x >= 0 else math.nan,
    "square": lambda x: x * x,
}


def activate(name: str, values: list[float]) -> list[float]:
    if name == "softmax":
        top = max(values)
        e = [math.exp(v - top) for v in values]
        return [v / sum(e) for v in e]
    if name == "log_softmax":
        top = max(values)
        total = math.log(sum(math.exp(v - top) for v in values))
        return [v - top - total for v in values]
    return [ACTIVATIONS[name](v) for v in values]


def affine(x: list[float], W: Array, b: Array | None) -> list[float]:
    return [
        math.fsum(
            [float(x[k]) * float(W[k, j]) for k in range(len(x))]
            + ([float(b[j])] if b is not None else [])
        )
        for j in range(W.shape[1])
    ]


def lstm(
    weights: Mapping[str, Array],
    x: Array,
    h0: Array | None = None,
    c0: Array | None = None,
    activation: str = "tanh",
    recurrent: str = "sigmoid",
    backwards: bool = False,
) -> tuple[Array, Array]:
    """All h and the last c: (batch, steps, units) in processing order, (batch, units)."""
    units = weights["U_i"].shape[0]
    batch, steps, _ = x.shape
    hs, cs = np.zeros((batch, steps, units)), np.zeros((batch, units))
    for n in range(batch):
        h = [0.0] * units if h0 is None else [float(v) for v in h0[n]]
        c = [0.0] * units if c0 is None else [float(v) for v in c0[n]]
        for t in range(steps):
            x_t = [float(v) for v in x[n, steps - 1 - t if backwards else t]]
            gate = {}
            for g in "ifco":
                z = affine(
                    x_t + h,
                    np.vstack([weights[f"W_{g}"], weights[f"U_{g}"]]),
                    weights.get(f"b_{g}"),
                )
                gate[g] = activate(activation if g == "c" else recurrent, z)
            c = [gate["f"][j] * c[j] + gate["i"][j] * gate["c"][j] for j in range(units)]
            a = activate(activation, c)
            h = [gate["o"][j] * a[j] for j in range(units)]
            hs[n, t] = h
        cs[n] = c
    return hs, cs


def dense(weights: Mapping[str, Array], x: Array, activation: str = "linear") -> Array:
    rows = x.reshape(-1, x.shape[-1])
    y = [
        activate(activation, affine(list(r), weights["kernel"], weights.get("bias"))) for r in rows
    ]
    return np.array(y).reshape(*x.shape[:-1], -1)


def gru(
    w: Mapping[str, Array], x: Array, h0: Array | None = None, reset_after: bool = True,
    activation: str = "tanh", recurrent: str = "sigmoid",
) -> Array:  # fmt: skip
    """Hidden states (batch, steps, units) of a GRU."""
    batch, steps, _ = x.shape
    units = w["U_h"].shape[0]
    y = np.zeros((batch, steps, units))
    for r in range(batch):
        h = [0.0] * units if h0 is None else [float(v) for v in h0[r]]
        for t in range(steps):
            part = {g: affine(x[r, t], w[f"W_{g}"], w.get(f"b_{g}")) for g in "zrh"}
            back = {g: affine(h, w[f"U_{g}"], w.get(f"rb_{g}")) for g in "zr"}
            z, reset = (
                activate(recurrent, [a + b for a, b in zip(part[g], back[g], strict=True)])
                for g in "zr"
            )
            if reset_after:
                inner = affine(h, w["U_h"], w.get("rb_h"))
                inner = [a * b for a, b in zip(reset, inner, strict=True)]
            else:
                inner = affine([a * b for a, b in zip(reset, h, strict=True)], w["U_h"], None)
            new = activate(activation, [a + b for a, b in zip(part["h"], inner, strict=True)])
            h = [z[j] * h[j] + (1 - z[j]) * new[j] for j in range(units)]
            y[r, t] = h
    return y


def simple_rnn(
    w: Mapping[str, Array], x: Array, h0: Array | None = None, activation: str = "tanh"
) -> Array:
    """Hidden states (batch, steps, units) of a simple recurrent layer."""
    batch, steps, _ = x.shape
    units = w["U_h"].shape[0]
    y = np.zeros((batch, steps, units))
    for r in range(batch):
        h = [0.0] * units if h0 is None else [float(v) for v in h0[r]]
        for t in range(steps):
            a = affine(x[r, t], w["W_h"], w.get("b_h"))
            b = affine(h, w["U_h"], None)
            h = activate(activation, [p + q for p, q in zip(a, b, strict=True)])
            y[r, t] = h
    return y
