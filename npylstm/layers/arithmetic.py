"""Arithmetic between tensors, with numbers, along axes, and matrix products."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from npylstm.errors import FormatError
from npylstm.layers.base import (
    FIXED,
    Array,
    Dim,
    Layer,
    Shape,
    Time,
    format_shape,
    joined,
    not_along,
    one_input,
)
from npylstm.layers.sizes import broadcast, keep_batch

__all__ = ["Arithmetic", "Constant", "Elementwise", "MatMul", "Reduce"]

_BINARY: dict[str, Callable[[Any, Any], Array]] = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "power": np.power,
}

_UNARY: dict[str, Callable[[Array], Array]] = {
    "abs": np.abs,
    "cos": np.cos,
    "log": np.log,
    "log1p": np.log1p,
    "expm1": np.expm1,
    "negative": np.negative,
    "reciprocal": np.reciprocal,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "sign": np.sign,
    "sin": np.sin,
    "sqrt": np.sqrt,
    "square": np.square,
}

_REDUCTIONS = ("mean", "sum", "max", "min", "norm")


def _one_of(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise FormatError(f"{name}: expected one of {', '.join(known)}, got {value!r:.40}")


def _aligned(times: Sequence[Time], shapes: Sequence[Shape]) -> Time:
    """The time axis of what is broadcast together, last axes aligned."""
    rank = max(map(len, shapes))
    return joined(
        [
            time + rank - len(shape) if isinstance(time, int) else time
            for time, shape in zip(times, shapes, strict=True)
        ]
    )


@dataclass(frozen=True)
class Arithmetic(Layer):
    """Combine inputs element by element, from left to right, by NumPy's rule of broadcasting.

    Parameters
    ----------
    operation
        ``add``, ``subtract``, ``multiply``, ``divide``, ``maximum``, ``minimum`` or ``power``.
    number
        An operand that is a number, taken in the inputs' type; it stands behind the inputs.
    number_first
        It stands before them: ``1 - x``.
    """

    kind: ClassVar[str] = "arithmetic"

    operation: str
    number: float | None = None
    number_first: bool = False

    def __post_init__(self) -> None:
        _one_of("operation", self.operation, tuple(_BINARY))

    def output_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        if len(inputs) + (self.number is not None) < 2:
            raise FormatError(f"{self.operation}: expected two operands")
        return (broadcast(inputs),)

    def stream(self, times: Sequence[Time], shapes: Sequence[Shape]) -> tuple[Time, ...]:
        return (_aligned(times, shapes),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        operands: list[Any] = list(inputs)
        if self.number is not None:
            at = 0 if self.number_first else len(operands)
            operands.insert(at, inputs[0].dtype.type(self.number))
        y = operands[0]
        for operand in operands[1:]:
            y = _BINARY[self.operation](y, operand)
        return (y,), {}


@dataclass(frozen=True)
class Elementwise(Layer):
    """Apply a function to every element; those that models use as activations are elsewhere."""

    kind: ClassVar[str] = "elementwise"
    per_step: ClassVar[bool] = True

    function: str

    def __post_init__(self) -> None:
        _one_of("function", self.function, tuple(_UNARY))

    def output_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        return (one_input(inputs),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        return (_UNARY[self.function](inputs[0]),), {}


@dataclass(frozen=True)
class Reduce(Layer):
    """Take the mean, sum, largest or smallest value along axes, or the length (Euclid's norm).

    Sums run in float64.
    """

    kind: ClassVar[str] = "reduce"

    operation: str
    axes: tuple[int, ...]
    keepdims: bool = False

    def __post_init__(self) -> None:
        _one_of("operation", self.operation, _REDUCTIONS)

    def output_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        shape = one_input(inputs)
        for axis in self.axes:
            keep_batch(shape, axis, f"takes the {self.operation}")
        kept: list[Dim] = []
        for k, size in enumerate(shape):
            if k not in self.axes:
                kept.append(size)
            elif self.keepdims:
                kept.append(1)
        return (tuple(kept),)

    def stream(self, times: Sequence[Time], shapes: Sequence[Shape]) -> tuple[Time, ...]:
        for axis in self.axes:
            not_along(times, axis, f"takes the {self.operation}")
        (time,) = times
        if isinstance(time, int) and not self.keepdims:
            time -= sum(axis < time for axis in self.axes)
        return (time,)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        x = inputs[0]
        if self.operation in ("max", "min"):
            extreme = x.max if self.operation == "max" else x.min
            return (extreme(axis=self.axes, keepdims=self.keepdims),), {}
        wide = x.astype(np.float64, copy=False)
        if self.operation == "norm":
            length = np.sqrt((wide * wide).sum(axis=self.axes, keepdims=self.keepdims))
            return (np.asarray(length, x.dtype),), {}
        total = wide.mean if self.operation == "mean" else wide.sum
        return (np.asarray(total(axis=self.axes, keepdims=self.keepdims), x.dtype),), {}


@dataclass(frozen=True)
class MatMul(Layer):
    """Multiply two tensors as stacks of matrices, as ``numpy.matmul`` does."""

    kind: ClassVar[str] = "matmul"

    def output_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        if len(inputs) != 2 or any(len(shape) < 2 for shape in inputs):
            listed = ", ".join(map(format_shape, inputs))
            raise FormatError(f"expected two inputs of at least 2 axes, got {listed}")
        a, b = inputs
        if a[-1] != b[-2]:
            raise FormatError(f"cannot multiply {format_shape(a)} by {format_shape(b)}")
        keep_batch(a, len(a) - 1, "multiplies")
        return ((*broadcast([a[:-2], b[:-2]]), a[-2], b[-1]),)

    def stream(self, times: Sequence[Time], shapes: Sequence[Shape]) -> tuple[Time, ...]:
        a, b = (len(shape) for shape in shapes)
        not_along(times[:1], a - 1, "sums")
        not_along(times[1:], b - 2, "sums")
        return (_aligned(times, shapes),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        return (np.matmul(inputs[0], inputs[1]),), {}


@dataclass(frozen=True)
class Constant(Layer):
    """A tensor that is part of the model and depends on no input: ``value`` (shape)."""

    kind: ClassVar[str] = "constant"

    shape: tuple[int, ...]

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"value": self.shape}

    def output_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        if inputs:
            raise FormatError(f"expected no input, got {len(inputs)}")
        return (self.shape,)

    def stream(self, times: Sequence[Time], shapes: Sequence[Shape]) -> tuple[Time, ...]:
        return (FIXED,)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        return (packed["value"],), {}
