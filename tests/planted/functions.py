"""Activations, products and roundings of the oracle, in any order of sums and any precision.

The formulas are those of the papers and of the framework documentation (keras.io/api/layers/activations,
pytorch.org/docs/stable/nn.functional); none is taken from npylstm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_erf = np.vectorize(math.erf, otypes=[np.float64])


def _sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


def _softplus(x: Array) -> Array:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _elu(x: Array, alpha: float = 1.0) -> Array:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def _relu(
    x: Array,
    negative_slope: float = 0.0,
    max_value: float | None = None,
    threshold: float = 0.0,
) -> Array:
    y = np.where(x > threshold, x, negative_slope * (x - threshold))
    return y if max_value is None else np.minimum(y, max_value)


def _softmax(x: Array, axis: int = -1) -> Array:
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def _log_softmax(x: Array, axis: int = -1) -> Array:
    shifted = x - x.max(axis=axis, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))


_C = math.sqrt(2 / math.pi)

ACTIVATIONS: dict[str, Callable[..., Array]] = {
    "linear": lambda x: x,
    "tanh": np.tanh,
    "sigmoid": _sigmoid,
    "hard_sigmoid_fifth": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
    "hard_sigmoid_sixth": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "relu": _relu,
    "elu": _elu,
    "selu": lambda x: 1.0507009873554805 * _elu(x, 1.6732632423543772),
    "celu": lambda x, alpha=1.0: np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0) / alpha)),
    "softplus": lambda x: _softplus(x),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "exponential": np.exp,
    "silu": lambda x: x * _sigmoid(x),
    "gelu": lambda x: 0.5 * x * (1 + _erf(x / math.sqrt(2)).astype(x.dtype)),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(_C * (x + 0.044715 * x**3))),
    "mish": lambda x: x * np.tanh(_softplus(x)),
    "hard_silu": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "hard_tanh": lambda x: np.clip(x, -1, 1),
    "log_sigmoid": lambda x: -_softplus(-x),
    "tanh_shrink": lambda x: x - np.tanh(x),
    "soft_shrink": lambda x, threshold=0.5: np.sign(x) * np.maximum(np.abs(x) - threshold, 0),
    "hard_shrink": lambda x, threshold=0.5: np.where(np.abs(x) > threshold, x, 0),
    "squareplus": lambda x, b=4.0: (x + np.sqrt(x * x + b)) / 2,
    "sparse_plus": lambda x: np.where(x <= -1, 0, np.where(x >= 1, x, (x + 1) ** 2 / 4)),
    "sparse_sigmoid": lambda x: np.clip((x + 1) / 2, 0, 1),
    "thresholded_relu": lambda x, theta=1.0: np.where(x > theta, x, 0),
    "softmax": _softmax,
    "log_softmax": _log_softmax,
}


def rounded(x: Array, kind: str) -> Array:
    """Round to ``float16``, ``bfloat16`` (8 bits of mantissa) or ``tf32`` (11), to even; any dtype."""
    if kind == "float16":
        return np.asarray(x).astype(np.float16).astype(np.asarray(x).dtype)
    drop = {"bfloat16": 16, "tf32": 13}[kind]
    bits = np.asarray(x, np.float32).view(np.uint32).astype(np.uint64)
    even = (bits >> np.uint64(drop)) & np.uint64(1)
    bits = bits + np.uint64((1 << (drop - 1)) - 1) + even
    bits &= np.uint64(0xFFFFFFFF ^ ((1 << drop) - 1))
    return bits.astype(np.uint32).view(np.float32).astype(np.asarray(x).dtype)


@dataclass(frozen=True)
class Maths:
    """How numbers are computed.

    Parameters
    ----------
    dtype
        Of every value; float64 for the truth, float32 as the frameworks compute.
    order
        0: as Keras; 1: sums in reverse, gates of one product with ``[x, h]``, sigmoid by tanh;
        2: as PyTorch, the bias on the side of the recurrent product, sums in pieces.
    precision
        ``"float16"`` or ``"bfloat16"``: every value is stored so. ``"tf32"``: the factors of
        products are rounded to 10 bits, as an Ampere GPU does by default for convolutions.
    """

    dtype: type = np.float64
    order: int = 0
    precision: str = ""

    def product(self, a: Array, b: Array) -> Array:
        """``a @ b`` over the last axis of ``a`` and the last but one of ``b``."""
        if self.precision == "tf32":
            a, b = rounded(a, "tf32"), rounded(b, "tf32")
        if self.order == 1:
            return np.matmul(a[..., ::-1], b[..., ::-1, :])
        if self.order == 2 and a.shape[-1] > 3:
            half = a.shape[-1] // 2
            return np.matmul(a[..., half:], b[..., half:, :]) + np.matmul(
                a[..., :half], b[..., :half, :]
            )
        return np.matmul(a, b)

    def affine(self, x: Array, h: Array, W: Array, U: Array, b: Array) -> Array:
        """``x W + h U + b``."""
        if self.order == 1:
            y = self.product(np.concatenate([x, h], -1), np.concatenate([W, U])) + b
        elif self.order == 2:
            y = self.product(x, W) + (self.product(h, U) + b)
        else:
            y = self.product(x, W) + b + self.product(h, U)
        return self.store(y)

    def store(self, x: Array) -> Array:
        """Round a value to the precision in which it is stored."""
        return rounded(x, self.precision) if self.precision in ("float16", "bfloat16") else x

    def activate(self, activation: str | Mapping[str, Any], x: Array) -> Array:
        """Apply an activation given by name, or by name and parameters."""
        name, params = (activation, {}) if isinstance(activation, str) else _split(activation)
        if name == "sigmoid" and self.order == 1:
            y = 0.5 + 0.5 * np.tanh(0.5 * x)
        else:
            y = ACTIVATIONS[name](x, **params)
        return self.store(np.asarray(y, self.dtype))


def _split(activation: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    return activation["name"], {k: v for k, v in activation.items() if k != "name"}
