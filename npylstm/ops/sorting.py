"""Order and running totals along an axis: argmax, the k largest entries, cumulative sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from npylstm.arrays import Array
from npylstm.errors import FormatError, ShapeError
from npylstm.ops.axis_map import AxisMap, check_axis
from npylstm.ops.base import Operation
from npylstm.ops.checks import check_entries, one_input, one_of, positive
from npylstm.ops.shapes import Shape, drop_axis, format_shape, resize_axis

__all__ = ["ArgReduce", "Cumulative", "TopK"]


@dataclass(frozen=True)
class ArgReduce(Operation):
    """The index of the largest or the smallest entry along an axis, as a number.

    The first nan counts as the largest and the smallest, as in NumPy and PyTorch.

    Parameters
    ----------
    operation
        ``max`` or ``min``.
    axis
        From 0 on.
    keepdims
        The axis is kept with size 1.
    last
        Of equal entries the last, not the first.
    skips_nan
        nan counts as neither, as in TensorFlow; of nan alone the first is found.
    orders_zeros
        -0.0 is smaller than 0.0, as in Keras 3.
    """

    kind: ClassVar[str] = "arg_reduce"

    operation: str
    axis: int
    keepdims: bool = False
    last: bool = False
    skips_nan: bool = False
    orders_zeros: bool = False

    def __post_init__(self) -> None:
        one_of("operation", self.operation, ("max", "min"))

    @property
    def returns_indices(self) -> bool:
        return True

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        shape = one_input(inputs)
        check_axis(shape, self.axis)
        kept = resize_axis(shape, self.axis, 1) if self.keepdims else drop_axis(shape, self.axis)
        return (kept,)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        mixed = {self.axis: f"takes the arg{self.operation}"}
        return (AxisMap.without(len(shapes[0]), mixed, self.keepdims),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        check_entries(f"arg{self.operation}", inputs[0].shape, (self.axis,))
        x = np.flip(inputs[0], self.axis) if self.last else inputs[0]
        if self.skips_nan:
            x = np.where(np.isnan(x), -np.inf if self.operation == "max" else np.inf, x)
        if self.orders_zeros:
            x = np.where((x == 0) & np.signbit(x), -np.finfo(x.dtype).tiny, x)
        find = np.argmax if self.operation == "max" else np.argmin
        y = find(x, axis=self.axis, keepdims=self.keepdims)
        y = x.shape[self.axis] - 1 - y if self.last else y
        return (np.asarray(y, inputs[0].dtype),), {}


@dataclass(frozen=True)
class TopK(Operation):
    """The largest or the smallest entries along an axis, in this order, or their indices.

    Of equal entries the first comes first. nan counts as the largest, as in PyTorch.

    Parameters
    ----------
    axis
        From 0 on.
    k
        How many entries; None for all of them (sorting).
    largest
        From the largest on; else from the smallest on.
    indices
        The output contains indices instead of the entries.
    """

    kind: ClassVar[str] = "top_k"

    axis: int
    k: int | None = None
    largest: bool = True
    indices: bool = False

    def __post_init__(self) -> None:
        if self.k is not None:
            positive("k", self.k)

    @property
    def returns_indices(self) -> bool:
        return self.indices

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        shape = one_input(inputs)
        check_axis(shape, self.axis)
        if self.k is None:
            return (shape,)
        size = shape[self.axis]
        if isinstance(size, int) and size < self.k:
            raise ShapeError(
                f"k: expected at most the {size} entries of axis {self.axis} of "
                f"{format_shape(shape)}, got {self.k}"
            )
        return (resize_axis(shape, self.axis, self.k),)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        return (AxisMap.same(len(shapes[0]), {self.axis: "sorts"}),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        x = inputs[0]
        self.output_shapes([x.shape])
        if self.largest:  # backwards, so that of equal entries the first comes first in the end
            order = np.argsort(np.flip(x, self.axis), axis=self.axis, kind="stable")
            order = x.shape[self.axis] - 1 - np.flip(order, self.axis)
        else:
            order = np.argsort(x, axis=self.axis, kind="stable")
        order = order[(slice(None),) * self.axis + (slice(self.k),)]
        y = order if self.indices else np.take_along_axis(x, order, self.axis)
        return (y.astype(x.dtype, copy=False),), {}


_CUMULATIVE: dict[str, tuple[np.ufunc, float | None]] = {
    # operation: function of two numbers, and the total of no entries
    "sum": (np.add, 0.0),
    "prod": (np.multiply, 1.0),
    "max": (np.maximum, None),
    "min": (np.minimum, None),
    "log_sum_exp": (np.logaddexp, None),
}


@dataclass(frozen=True)
class Cumulative(Operation):
    """Combine each entry along an axis with those before it.

    Totals are computed in float64.

    Parameters
    ----------
    operation
        ``sum``, ``prod``, ``max``, ``min`` or ``log_sum_exp``.
    axis
        From 0 on.
    exclusive
        Without the entry itself; for ``sum`` and ``prod``.
    reverse
        With the entries behind it instead.
    """

    kind: ClassVar[str] = "cumulative"
    keeps_shape: ClassVar[bool] = True

    operation: str
    axis: int
    exclusive: bool = False
    reverse: bool = False

    def __post_init__(self) -> None:
        one_of("operation", self.operation, tuple(_CUMULATIVE))
        if self.exclusive and _CUMULATIVE[self.operation][1] is None:
            raise FormatError(f"exclusive: expected sum or prod, got {self.operation}")

    @property
    def computes_integers(self) -> bool:
        return self.operation in ("sum", "prod")

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        shape = one_input(inputs)
        check_axis(shape, self.axis)
        return (shape,)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        return (AxisMap.same(len(shapes[0]), {self.axis: f"computes a running {self.operation}"}),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        combine, nothing = _CUMULATIVE[self.operation]
        wide = inputs[0].astype(np.float64)
        wide = np.flip(wide, self.axis) if self.reverse else wide
        if self.exclusive:
            first = np.full(resize_axis(wide.shape, self.axis, 1), nothing)
            before = wide[(slice(None),) * self.axis + (slice(-1),)]
            wide = np.concatenate([first, before], self.axis)
        y = combine.accumulate(wide, self.axis)
        y = np.flip(y, self.axis) if self.reverse else y
        return (y.astype(inputs[0].dtype),), {}
