"""The table of activation functions.

A row holds an activation's name, its parameters with their defaults, the integer code that
kernels use for it, and its NumPy function. The native loops are in
:mod:`npylstm.kernels.activations`, selected by the same code.

Each name has one formula. Where frameworks give one name to two functions there are
two rows: ``hard_sigmoid_fifth`` (slope 1/5: Keras 1 and 2, TensorFlow.js) and
``hard_sigmoid_sixth`` (slope 1/6: Keras 3, PyTorch).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from npylstm.arrays import Array
from npylstm.errors import FormatError

__all__ = ["LINEAR", "SIGMOID", "TABLE", "TANH", "Activation", "Row"]

SELU_ALPHA = 1.6732632423543772  # Klambauer et al. 2017, "Self-Normalizing Neural Networks"
SELU_SCALE = 1.0507009873554805

_LARGEST = float(np.finfo(np.float32).max)  # largest parameter: the file stores float32

_erf = np.vectorize(math.erf, otypes=[np.float64])  # slow, exact, rarely needed


# NumPy adds an array faster than a Python number.
_ONES = {np.dtype(name): np.ones((), name) for name in ("float32", "float64")}


def _sigmoid(x: Array) -> Array:
    """Return ``1 / (1 + exp(-x))``."""
    y: Array = np.asarray(-x)
    if y.dtype not in _ONES:
        result: Array = 1 / (1 + np.exp(y))
        return result
    np.exp(y, out=y)  # inf gives the exact limit, 0
    y += _ONES[y.dtype]
    return np.reciprocal(y, out=y)


def _softplus(x: Array, beta: float = 1.0, threshold: float = math.inf) -> Array:
    z = x if beta == 1 else beta * x
    y: Array = np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))
    y = y if beta == 1 else y / beta
    return y if threshold == math.inf else np.where(z > threshold, x, y)


def _relu(x: Array, negative_slope: float, max_value: float, threshold: float) -> Array:
    # A slope of zero is a case of its own: 0 * -inf would be nan.
    below = negative_slope * (x - threshold) if negative_slope else np.zeros_like(x)
    # At the threshold itself the frameworks apply the slope.
    return np.minimum(np.where(x <= threshold, below, x), max_value)


def _elu(x: Array, alpha: float) -> Array:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def _gelu(x: Array) -> Array:
    y: Array = 0.5 * x * (1 + _erf(x / math.sqrt(2)).astype(x.dtype))
    return y


def _gelu_tanh(x: Array) -> Array:
    y: Array = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))
    return y


def _softmax(x: Array, axis: int) -> Array:
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    y: Array = e / e.sum(axis=axis, keepdims=True)
    return y


def _log_softmax(x: Array, axis: int) -> Array:
    shifted = x - x.max(axis=axis, keepdims=True)
    y: Array = shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))
    return y


def _celu(x: Array, alpha: float) -> Array:
    return np.maximum(x, 0) + alpha * np.expm1(np.minimum(x, 0) / alpha)


def _sparse_plus(x: Array) -> Array:
    y = np.where(x < 1, 0.25 * (x + 1) * (x + 1), x)
    return np.where(x <= -1, np.zeros_like(x), y)


def _sparse_sigmoid(x: Array) -> Array:
    return np.clip(0.5 * (x + 1), 0, 1)


def _soft_shrink(x: Array, threshold: float) -> Array:
    return np.where(np.abs(x) <= threshold, np.zeros_like(x), x - np.sign(x) * threshold)


def _hard_shrink(x: Array, threshold: float) -> Array:
    return np.where(np.abs(x) <= threshold, np.zeros_like(x), x)


def _thresholded_relu(x: Array, theta: float) -> Array:
    return np.where(x <= theta, np.zeros_like(x), x)  # nan stays nan


def _silu(x: Array) -> Array:
    return x * _sigmoid(x)


def _shrink(x: Array, bias: float, lambd: float) -> Array:
    return np.where(x < -lambd, x + bias, np.where(x > lambd, x - bias, np.zeros_like(x)))


@dataclass(frozen=True)
class Row:
    """One activation: its kernel code, NumPy function and default parameters.

    ``elementwise`` is False where a value depends on its neighbours (softmax).
    ``code`` is None where only the NumPy function exists.
    """

    code: int | None
    numpy: Callable[..., Array]
    params: Mapping[str, float] = field(default_factory=dict)
    elementwise: bool = True


TABLE: dict[str, Row] = {
    # name: code, formula, parameters
    "linear": Row(0, lambda x: x),
    "tanh": Row(1, np.tanh),
    "sigmoid": Row(2, _sigmoid),
    "hard_sigmoid_fifth": Row(3, lambda x: np.clip(0.2 * x + 0.5, 0, 1)),
    "hard_sigmoid_sixth": Row(4, lambda x: np.clip(x + 3, 0, 6) / 6),
    "relu": Row(5, _relu, {"negative_slope": 0.0, "max_value": math.inf, "threshold": 0.0}),
    "elu": Row(6, _elu, {"alpha": 1.0}),
    "selu": Row(7, lambda x: SELU_SCALE * _elu(x, SELU_ALPHA)),
    "softplus": Row(8, _softplus, {"beta": 1.0, "threshold": math.inf}),
    "softsign": Row(9, lambda x: x / (1 + np.abs(x))),
    "exponential": Row(10, np.exp),
    "silu": Row(11, _silu),
    "gelu": Row(12, _gelu),
    "gelu_tanh": Row(13, _gelu_tanh),
    "mish": Row(14, lambda x: x * np.tanh(_softplus(x))),
    "softmax": Row(15, _softmax, {"axis": -1}, elementwise=False),
    # Rare activations have no kernel.
    "log_softmax": Row(16, _log_softmax, {"axis": -1}, elementwise=False),
    "hard_silu": Row(17, lambda x: x * (np.clip(x + 3, 0, 6) / 6)),
    "hard_tanh": Row(18, lambda x: np.clip(x, -1, 1)),
    "celu": Row(19, _celu, {"alpha": 1.0}),
    "log_sigmoid": Row(31, lambda x: -_softplus(-x)),
    "tanh_shrink": Row(None, lambda x: x - np.tanh(x)),
    "soft_shrink": Row(None, _soft_shrink, {"threshold": 0.5}),
    "hard_shrink": Row(None, _hard_shrink, {"threshold": 0.5}),
    "squareplus": Row(None, lambda x, b: (x + np.sqrt(x * x + b)) / 2, {"b": 4.0}),
    "sparse_plus": Row(None, _sparse_plus),
    "sparse_sigmoid": Row(None, _sparse_sigmoid),
    "thresholded_relu": Row(None, _thresholded_relu, {"theta": 1.0}),
    "affine": Row(20, lambda x, alpha, beta: alpha * x + beta, {"alpha": 1.0, "beta": 0.0}),
    "clip": Row(21, np.clip, {"low": -math.inf, "high": math.inf}),
    "hard_sigmoid": Row(22, lambda x, alpha, beta: np.clip(alpha * x + beta, 0, 1),
                        {"alpha": 0.2, "beta": 0.5}),
    "scaled_tanh": Row(23, lambda x, alpha, beta: alpha * np.tanh(beta * x),
                       {"alpha": 1.0, "beta": 1.0}),
    "shrink": Row(None, _shrink, {"bias": 0.0, "lambd": 0.5}),
    # Functions of one number that models use elsewhere than as activations.
    "abs": Row(24, np.abs),
    "acos": Row(None, np.arccos),
    "acosh": Row(None, np.arccosh),
    "asin": Row(None, np.arcsin),
    "asinh": Row(None, np.arcsinh),
    "atan": Row(None, np.arctan),
    "atanh": Row(None, np.arctanh),
    "ceil": Row(None, np.ceil),
    "cos": Row(None, np.cos),
    "cosh": Row(None, np.cosh),
    "erf": Row(None, _erf),
    "exp2": Row(None, np.exp2),
    "expm1": Row(None, np.expm1),
    "floor": Row(None, np.floor),
    "is_inf": Row(None, np.isinf),
    "is_nan": Row(None, np.isnan),
    "log": Row(30, np.log),
    "log10": Row(None, np.log10),
    "log1p": Row(None, np.log1p),
    "log2": Row(None, np.log2),
    "logical_not": Row(None, np.logical_not),
    "negative": Row(25, np.negative),
    "reciprocal": Row(26, np.reciprocal),
    "round": Row(None, np.rint),  # half to even
    "rsqrt": Row(27, lambda x: 1 / np.sqrt(x)),
    "sign": Row(None, np.sign),
    "sin": Row(None, np.sin),
    "sinh": Row(None, np.sinh),
    "sqrt": Row(28, np.sqrt),
    "square": Row(29, np.square),
    "tan": Row(None, np.tan),
    "trunc": Row(None, np.trunc),
}  # fmt: skip


@dataclass(frozen=True)
class Activation:
    """An activation with its parameters.

    Parameters
    ----------
    name
        A name of :data:`TABLE`.
    params
        Values for the row's parameters, in the row's order; empty means the defaults.

    Raises
    ------
    FormatError
        If the name is not in the table or a parameter is not a number.

    Examples
    --------
    >>> import numpy as np
    >>> Activation.of("hard_sigmoid_fifth")(np.float64([-3, 0, 1]))
    array([0. , 0.5, 0.7])
    """

    name: str
    params: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        row = TABLE.get(self.name)
        if row is None:
            known = ", ".join(sorted(TABLE))
            raise FormatError(f"activation: unknown name {self.name!r}, expected one of {known}")
        if not self.params:
            object.__setattr__(self, "params", tuple(row.params.values()))
        if len(self.params) != len(row.params):
            raise FormatError(
                f"activation {self.name}: expected {len(row.params)} parameters, "
                f"got {len(self.params)}"
            )

    @classmethod
    def of(cls, name: str, **params: float) -> Activation:
        """Return the activation of this name; omitted parameters take the table's defaults."""
        return cls._make(name, params)

    @classmethod
    def _make(cls, name: str, params: Mapping[str, Any]) -> Activation:
        row = TABLE.get(name)
        if row is None:
            return cls(name)  # raises, listing the known names
        unknown = sorted(set(params) - set(row.params))
        if unknown:
            raise FormatError(
                f"activation {name}: unknown parameter {unknown[0]!r}, "
                f"expected {sorted(row.params) or 'none'}"
            )
        for key, value in params.items():
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            whole = isinstance(value, int) and not isinstance(value, bool)
            unbounded = value == row.params[key] and math.isinf(value)
            fits = number and (unbounded or abs(value) <= _LARGEST)
            if not fits or (key == "axis" and not whole):
                raise FormatError(
                    f"activation {name}: {key} must be a finite number "
                    f"(axis: an integer), got {value!r:.40}"
                )
        return cls(name, tuple(params.get(key, default) for key, default in row.params.items()))

    @classmethod
    def from_json(cls, value: object) -> Activation:
        """Read ``"tanh"`` or ``{"name": "elu", "alpha": 0.5}``."""
        if isinstance(value, str):
            return cls.of(value)
        if isinstance(value, dict) and isinstance(value.get("name"), str):
            params = {k: math.inf if v is None else v for k, v in value.items() if k != "name"}
            return cls._make(value["name"], params)
        raise FormatError(f"activation: expected a name or {{'name': ...}}, got {value!r}")

    def to_json(self) -> str | dict[str, Any]:
        """Return the JSON value that :meth:`from_json` reads; an infinite bound is null."""
        given = dict(zip(self.row.params, self.params, strict=True))
        changed = {k: v for k, v in given.items() if v != self.row.params[k]}
        if not changed:
            return self.name
        return {"name": self.name, **{k: None if v == math.inf else v for k, v in changed.items()}}

    @property
    def axis(self) -> int | None:
        """The axis along which values depend on each other; None for elementwise activations."""
        return None if self.row.elementwise else int(self.params[0])

    @property
    def row(self) -> Row:
        """The activation's row in the table."""
        return TABLE[self.name]

    def __call__(self, x: Array) -> Array:
        """Apply to an array of any shape; return the same shape and dtype.

        Overflow and inf - inf are part of the formulas: they give the limits, or nan. NumPy warns
        of them unless the caller silences it with :func:`numpy.errstate`, as the engine does.
        """
        y = TABLE[self.name].numpy(x, *self.params)
        return y if y.dtype is x.dtype else y.astype(x.dtype, copy=False)

    def __str__(self) -> str:
        json = self.to_json()
        if isinstance(json, str):
            return json
        return f"{self.name}({', '.join(f'{k}={v}' for k, v in json.items() if k != 'name')})"


LINEAR = Activation("linear")
TANH = Activation("tanh")
SIGMOID = Activation("sigmoid")
