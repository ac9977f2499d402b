"""Elementwise arithmetic, choices, reductions along axes, constants."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from npylstm.arrays import Array
from npylstm.errors import FormatError
from npylstm.ops.axis_map import At, AxisMap, check_axis
from npylstm.ops.base import Operation
from npylstm.ops.checks import check_entries, one_input, one_of
from npylstm.ops.shapes import Dim, Shape, broadcast

__all__ = ["Arithmetic", "Constant", "Reduce", "Where"]

_BINARY: dict[str, Callable[..., Array]] = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "power": np.power,
    "mod": np.mod,
    "fmod": np.fmod,
    "floor_divide": np.floor_divide,
    "atan2": np.arctan2,
    "equal": np.equal,
    "not_equal": np.not_equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
    "logical_xor": np.logical_xor,
}
# Keras allows a merge of one tensor where order does not matter.
_MERGES = ("add", "multiply", "maximum", "minimum", "average")
_OF_INTEGERS = ("add", "subtract", "multiply", "power", "mod", "fmod", "floor_divide")
# A further operand would be compared with 0 or 1.
_OF_TWO = ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")


def _log_sum_exp(x: Array, axis: tuple[int, ...], keepdims: bool) -> Array:
    top = x.max(axis=axis, keepdims=True)
    top = np.where(np.isfinite(top), top, 0)  # inf - inf would be nan
    total = np.log(np.exp(x - top).sum(axis=axis, keepdims=keepdims))
    sum_: Array = total + (top if keepdims else top.squeeze(axis))
    return sum_


# Functions of an array in float64, axes and keepdims.
_REDUCTIONS: dict[str, Callable[..., Any]] = {
    "mean": np.mean,
    "sum": np.sum,
    "prod": np.prod,
    "norm": lambda x, axis, keepdims: np.sqrt((x * x).sum(axis=axis, keepdims=keepdims)),
    "l1": lambda x, axis, keepdims: np.abs(x).sum(axis=axis, keepdims=keepdims),
    "sum_square": lambda x, axis, keepdims: (x * x).sum(axis=axis, keepdims=keepdims),
    "log_sum": lambda x, axis, keepdims: np.log(x.sum(axis=axis, keepdims=keepdims)),
    "log_sum_exp": _log_sum_exp,
    "any": lambda x, axis, keepdims: (x != 0).any(axis=axis, keepdims=keepdims),
    "all": lambda x, axis, keepdims: (x != 0).all(axis=axis, keepdims=keepdims),
}
_EXTREMES = {"max": np.max, "min": np.min}
_SPREADS = ("var", "std")


@dataclass(frozen=True)
class Arithmetic(Operation):
    """Combine inputs element by element, from left to right, with NumPy's broadcasting.

    Parameters
    ----------
    operation
        ``add``, ``subtract``, ``multiply``, ``divide``, ``maximum``, ``minimum``, ``power``,
        ``atan2``, ``floor_divide``; ``mod``, with the sign of the divisor, and ``fmod``, with that
        of the dividend; or ``average``: the sum, divided by the number of operands. Comparisons of
        two operands, ``equal``, ``not_equal``, ``less``, ``less_equal``, ``greater`` and
        ``greater_equal``, and ``logical_and``, ``logical_or`` and ``logical_xor``, for which every
        number but zero is true, give 0 or 1.
    number
        An operand that is a number, cast to the inputs' dtype; it comes after the inputs.
    number_first
        The number comes before the inputs: ``1 - x``.
    after_batch
        New axes for broadcasting are inserted after the first axis, as in Keras, not before it.
    """

    kind: ClassVar[str] = "arithmetic"

    operation: str
    number: float | None = None
    number_first: bool = False
    after_batch: bool = False

    def __post_init__(self) -> None:
        one_of("operation", self.operation, (*_BINARY, "average"))

    @property
    def computes_integers(self) -> bool:
        return self.operation in _OF_INTEGERS

    @property
    def operand(self) -> float | None:
        return self.number

    def with_masks(self, which: Collection[int]) -> Operation:
        from npylstm.ops.masking import MaskedMerge

        return MaskedMerge(self.operation, tuple(sorted(which)))

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        count = len(inputs) + (self.number is not None)
        fewest = 1 if self.operation in _MERGES else 2
        if not inputs or count < fewest or (self.operation in _OF_TWO and count > 2):
            raise FormatError(f"{self.operation}: expected two operands")
        return (broadcast([*self.expanded(inputs)]),)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        rank = max(map(len, shapes))
        sources: list[list[At]] = [[] for _ in range(rank)]
        for k, shape in enumerate(shapes):
            for axis in range(len(shape)):
                first = self.after_batch and axis == 0
                sources[0 if first else axis + rank - len(shape)].append((k, axis))
        return (AxisMap(tuple(map(tuple, sources))),)

    def expanded(self, shapes: Sequence[Shape]) -> Iterator[Shape]:
        """Yield shapes of one rank with ``after_batch``: new axes come after the first."""
        rank = max(map(len, shapes)) if self.after_batch else 0
        for shape in shapes:
            yield (*shape[:1], *(1,) * (rank - len(shape)), *shape[1:])

    def prepare(
        self, packed: Mapping[str, Array], inputs: Sequence[Array]
    ) -> tuple[list[Callable[[], object]], tuple[Array, ...]]:
        operands = self._operands(inputs)
        if len(operands) != 2 or self.operation not in _BINARY:
            return super().prepare(packed, inputs)
        (made,), _ = self.forward(packed, inputs, {})
        made = np.array(made)  # NumPy may have returned an operand
        if _BINARY[self.operation](*operands).dtype != made.dtype:  # booleans
            return super().prepare(packed, inputs)
        return [functools.partial(_BINARY[self.operation], *operands, made)], (made,)

    def _operands(self, inputs: Sequence[Array]) -> list[Any]:
        """Return the inputs, with axes to broadcast them, and the number."""
        shapes = self.expanded([x.shape for x in inputs])
        operands: list[Any] = [x.reshape(s) for x, s in zip(inputs, shapes, strict=True)]
        if self.number is not None:
            at = 0 if self.number_first else len(operands)
            operands.insert(at, inputs[0].dtype.type(self.number))
        return operands

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        operands = self._operands(inputs)
        y = operands[0]
        for operand in operands[1:]:
            y = _BINARY["add" if self.operation == "average" else self.operation](y, operand)
        y = y / len(operands) if self.operation == "average" else y
        return (y.astype(inputs[0].dtype, copy=False),), {}


@dataclass(frozen=True)
class Where(Operation):
    """``x`` where the first input is not zero, ``y`` elsewhere, with NumPy's broadcasting.

    Parameters
    ----------
    x, y
        Numbers, cast to the inputs' dtype. Those that are None are inputs behind the first: ``x``
        before ``y``.
    """

    kind: ClassVar[str] = "where"

    x: float | None = None
    y: float | None = None

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        expected = 1 + (self.x is None) + (self.y is None)
        if len(inputs) != expected:
            raise FormatError(f"expected {expected} inputs, got {len(inputs)}")
        return (broadcast(inputs),)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        return (AxisMap.aligned(shapes),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        condition, *tensors = inputs
        number = condition.dtype.type
        x, y = (tensors.pop(0) if v is None else number(v) for v in (self.x, self.y))
        return (np.where(condition != 0, x, y),), {}


@dataclass(frozen=True)
class Reduce(Operation):
    """Combine the entries along axes.

    Sums are computed in float64.

    Parameters
    ----------
    operation
        ``mean``, ``sum``, ``prod``, ``max``, ``min``; ``norm`` (Euclidean), ``l1``, ``sum_square``;
        ``var``, ``std``; ``log_sum``, ``log_sum_exp``; ``any``, ``all``: 1 if any entry, or every
        entry, is not zero, else 0.
    axes
        From 0 on.
    keepdims
        The axes are kept with size 1.
    ddof
        ``var`` and ``std`` divide by the number of entries minus this (PyTorch: ``correction``).
    """

    kind: ClassVar[str] = "reduce"

    operation: str
    axes: tuple[int, ...]
    keepdims: bool = False
    ddof: int = 0

    def __post_init__(self) -> None:
        one_of("operation", self.operation, (*_REDUCTIONS, *_EXTREMES, *_SPREADS))
        if self.ddof and self.operation not in _SPREADS:
            raise FormatError(f"ddof: expected 0 for {self.operation}, got {self.ddof}")

    @property
    def computes_integers(self) -> bool:
        return self.operation in ("sum", "prod", "l1", "sum_square")

    @property
    def mask_input_count(self) -> int:
        return int(self.operation == "mean")

    def with_masks(self, which: Collection[int]) -> Operation:
        from npylstm.ops.masking import MaskedMean

        return MaskedMean(self.keepdims)

    @property
    def reduction(self) -> tuple[int, int | str] | None:
        one = len(self.axes) == 1 and not self.keepdims and not self.ddof
        return (self.axes[0], self.operation) if one else None

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        shape = one_input(inputs)
        for axis in self.axes:
            check_axis(shape, axis)
        if self.operation in (*_EXTREMES, "log_sum_exp"):
            check_entries(self.operation, shape, self.axes)
        kept: list[Dim] = []
        for k, size in enumerate(shape):
            if k not in self.axes:
                kept.append(size)
            elif self.keepdims:
                kept.append(1)
        return (tuple(kept),)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        mixed = dict.fromkeys(self.axes, f"takes the {self.operation}")
        return (AxisMap.without(len(shapes[0]), mixed, self.keepdims),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        x = inputs[0]
        self.infer_shapes([x.shape])
        if self.operation in _EXTREMES:
            return (_EXTREMES[self.operation](x, axis=self.axes, keepdims=self.keepdims),), {}
        wide = x.astype(np.float64, copy=False)
        combine = self._spread if self.operation in _SPREADS else _REDUCTIONS[self.operation]
        return (np.asarray(combine(wide, axis=self.axes, keepdims=self.keepdims), x.dtype),), {}

    def _spread(self, x: Array, axis: tuple[int, ...], keepdims: bool) -> Array:
        """Return the variance or its root; nan or inf if no entry is left to divide by."""
        off = x - x.mean(axis=axis, keepdims=True)
        count = math.prod(x.shape[k] for k in axis)
        total = (off * off).sum(axis=axis, keepdims=keepdims)
        variance: Array = total / np.float64(max(count - self.ddof, 0))
        return np.sqrt(variance) if self.operation == "std" else variance


@dataclass(frozen=True)
class Constant(Operation):
    """A tensor of the model that depends on no input: ``value`` (shape)."""

    kind: ClassVar[str] = "constant"
    holds_infinity: ClassVar[bool] = True

    shape: tuple[int, ...]

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"value": self.shape}

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        if inputs:
            raise FormatError(f"expected no input, got {len(inputs)}")
        return (self.shape,)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        return (AxisMap(((),) * len(self.shape)),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        return (packed["value"],), {}
