"""Normalization in inference: with stored statistics, or with those of each sample."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from npylstm.arrays import Array
from npylstm.errors import FormatError
from npylstm.ops.axis_map import AxisMap, check_axis
from npylstm.ops.base import Operation
from npylstm.ops.checks import one_input, positive_number
from npylstm.ops.conventions import Convention
from npylstm.ops.shapes import Shape, format_shape

__all__ = [
    "BatchNormalization", "LayerNormalization", "Normalization", "RMSNormalization",
    "UnitNormalization",
]  # fmt: skip


_ROLES = {
    "gamma": "scale",
    "beta": "offset",
    "moving_mean": "mean",
    "moving_variance": "variance",
}

# Defaults of frameworks and papers, the most frequent first.
_EPSILONS = (1e-3, 1e-5, 1e-6, 1e-7, 1e-8, 1e-12, 1e-4, 1e-2)


class Normalization(Operation):
    """What normalizations with an epsilon and weights share."""

    keeps_shape: ClassVar[bool] = True

    epsilon: float

    def weight_role(self, name: str) -> str | None:
        return _ROLES.get(name)

    def conventions(self, weights: Mapping[str, Array]) -> Iterator[Convention]:
        """Yield the other usual epsilons."""
        operation: Any = self  # a dataclass with this field
        for epsilon in _EPSILONS:
            if epsilon != self.epsilon:
                detail = {"from": self.epsilon, "to": epsilon}
                yield Convention("epsilon", detail, replace(operation, epsilon=epsilon))


@dataclass(frozen=True)
class BatchNormalization(Normalization):
    """``y = (x - moving_mean) / sqrt(moving_variance + epsilon) * gamma + beta`` along an axis.

    A negative axis counts from the end.

    Weights
    -------
    ``moving_mean``, ``moving_variance`` (features,), with ``scale`` also ``gamma``, with ``center``
    ``beta``.

    References
    ----------
    Ioffe, Szegedy: Batch Normalization, ICML 2015.
    """

    kind: ClassVar[str] = "batch_normalization"
    keeps_shape: ClassVar[bool] = True

    features: int
    axis: int
    epsilon: float
    scale: bool = True
    center: bool = True

    def __post_init__(self) -> None:
        # Epsilon may be zero: only a variance of zero needs it.
        if not (self.epsilon >= 0 and math.isfinite(self.epsilon)):
            raise FormatError(f"epsilon: expected a number from 0 on, got {self.epsilon}")

    def axis_in(self, shape: Shape | tuple[int, ...]) -> int:
        """Return the axis counted from the front."""
        return self.axis + len(shape) if self.axis < 0 else self.axis

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        names = ["moving_mean", "moving_variance"]
        names += ["gamma"] * self.scale + ["beta"] * self.center
        return dict.fromkeys(names, (self.features,))

    def conventions(self, weights: Mapping[str, Array]) -> Iterator[Convention]:
        """Yield other epsilons, and epsilon added outside the square root."""
        yield from super().conventions(weights)
        variance = weights["moving_variance"]
        outside = (np.sqrt(variance.astype(np.float64)) + self.epsilon) ** 2 - self.epsilon
        detail = {"from": self.epsilon, "to": self.epsilon, "place": "outside the root"}
        changed = {**weights, "moving_variance": outside.astype(variance.dtype)}
        yield Convention("epsilon", detail, self, changed)

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        shape = one_input(inputs)
        if shape[check_axis(shape, self.axis, from_back=True)] != self.features:
            raise FormatError(
                f"expected {self.features} features on axis {self.axis}, "
                f"got an input {format_shape(shape)}"
            )
        return (shape,)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        axis = self.axis_in(shapes[0])
        return (AxisMap.same(len(shapes[0]), {axis: "has statistics for each entry"}),)

    def pack(self, weights: Mapping[str, Array]) -> dict[str, Array]:
        """Compute a factor and a shift from the statistics, in float64."""
        wide = {key: array.astype(np.float64) for key, array in weights.items()}
        with np.errstate(invalid="ignore", divide="ignore"):  # as in the frameworks
            factor = wide.get("gamma", 1.0) / np.sqrt(wide["moving_variance"] + self.epsilon)
        shift = wide.get("beta", 0.0) - wide["moving_mean"] * factor
        return {"factor": np.asarray(factor), "shift": np.asarray(shift)}

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        x = inputs[0]
        along = (-1,) + (1,) * (x.ndim - 1 - self.axis_in(x.shape))
        y = x * packed["factor"].reshape(along) + packed["shift"].reshape(along)
        return (y.astype(x.dtype),), {}


@dataclass(frozen=True)
class LayerNormalization(Normalization):
    """``y = (x - mean) / sqrt(variance + epsilon) * gamma + beta`` over the last axes.

    Mean and variance are of each sample, over the axes of ``shape``, computed in float64.
    ``first_axis``, if set, is the first of these axes. Without ``centered`` the mean is not
    subtracted: ``y = x / sqrt(variance + epsilon) * gamma``.

    Weights
    -------
    With ``scale`` ``gamma``, with ``center`` ``beta``, both of ``shape``.

    References
    ----------
    Ba, Kiros, Hinton: Layer Normalization, 2016.
    """

    kind: ClassVar[str] = "layer_normalization"
    is_stricter: ClassVar[bool] = True
    keeps_shape: ClassVar[bool] = True

    shape: tuple[int, ...]
    epsilon: float
    scale: bool = True
    center: bool = True
    first_axis: int | None = None
    centered: bool = True

    def __post_init__(self) -> None:
        positive_number("epsilon", self.epsilon)
        if not self.shape:
            raise FormatError("shape: expected at least one axis")

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        return dict.fromkeys(["gamma"] * self.scale + ["beta"] * self.center, self.shape)

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        shape = one_input(inputs)
        last = shape[-len(self.shape) :]
        begins = len(shape) - len(self.shape)
        if last != self.shape or self.first_axis not in (None, begins):
            raise FormatError(
                f"axis: expected the last, of sizes {format_shape(self.shape)}, got an input "
                f"{format_shape(shape)}"
            )
        return (shape,)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        rank = len(shapes[0])
        return (
            AxisMap.same(
                rank, dict.fromkeys(range(rank - len(self.shape), rank), "takes the mean")
            ),
        )

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        x = inputs[0].astype(np.float64)
        axes = tuple(range(-len(self.shape), 0))
        off = x - x.mean(axis=axes, keepdims=True)
        spread = np.sqrt(np.mean(off * off, axis=axes, keepdims=True) + self.epsilon)
        y = (off if self.centered else x) / spread
        if self.scale:
            y = y * packed["gamma"]
        if self.center:
            y = y + packed["beta"]
        return (y.astype(inputs[0].dtype),), {}


@dataclass(frozen=True)
class RMSNormalization(Normalization):
    """``y = x / sqrt(mean of x ** 2 + epsilon) * gamma`` over the last axes, those of ``shape``.

    Means are computed in float64.

    Weights
    -------
    With ``scale`` ``gamma`` (shape).

    References
    ----------
    Zhang, Sennrich: Root Mean Square Layer Normalization, NeurIPS 2019.
    """

    kind: ClassVar[str] = "rms_normalization"
    keeps_shape: ClassVar[bool] = True

    shape: tuple[int, ...]
    epsilon: float
    scale: bool = True

    def __post_init__(self) -> None:
        positive_number("epsilon", self.epsilon)
        if not self.shape:
            raise FormatError("shape: expected at least one axis")

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"gamma": self.shape} if self.scale else {}

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        shape = one_input(inputs)
        if shape[-len(self.shape) :] != self.shape:
            raise FormatError(
                f"expected last axes of sizes {format_shape(self.shape)}, got an input "
                f"{format_shape(shape)}"
            )
        return (shape,)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        rank = len(shapes[0])
        axes = range(rank - len(self.shape), rank)
        return (AxisMap.same(rank, dict.fromkeys(axes, "takes the mean")),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        x = inputs[0].astype(np.float64)
        axes = tuple(range(-len(self.shape), 0))
        y = x / np.sqrt(np.mean(x * x, axis=axes, keepdims=True) + self.epsilon)
        y = y * packed["gamma"] if self.scale else y
        return (y.astype(inputs[0].dtype),), {}


@dataclass(frozen=True)
class UnitNormalization(Operation):
    """``y = x / max(norm, epsilon)``, with the norm ``(sum of abs(x) ** p) ** (1 / p)`` over axes.

    Sums are computed in float64.

    Parameters
    ----------
    axes
        Negative axes count from the end.
    epsilon
        Lower bound of the norm: 1e-6 in Keras 2, 1e-12 in Keras 3.
    p
        2 for the Euclidean norm.
    """

    kind: ClassVar[str] = "unit_normalization"
    keeps_shape: ClassVar[bool] = True

    axes: tuple[int, ...] = (-1,)
    epsilon: float = 1e-12
    p: float = 2.0

    def __post_init__(self) -> None:
        positive_number("p", self.p)
        if not self.axes or not self.epsilon > 0:
            raise FormatError(
                f"expected axes and an epsilon above 0, got {self.axes}, {self.epsilon}"
            )

    def _along(self, rank: int) -> tuple[int, ...]:
        return tuple(axis + rank if axis < 0 else axis for axis in self.axes)

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        shape = one_input(inputs)
        for axis in self._along(len(shape)):
            check_axis(shape, axis)
        return (shape,)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        rank = len(shapes[0])
        return (AxisMap.same(rank, dict.fromkeys(self._along(rank), "takes the length")),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        x = inputs[0].astype(np.float64)
        axes = self._along(x.ndim)
        if self.p == 2:
            length = np.sqrt((x * x).sum(axis=axes, keepdims=True))
        else:
            length = (np.abs(x) ** self.p).sum(axis=axes, keepdims=True) ** (1 / self.p)
        return ((x / np.maximum(length, self.epsilon)).astype(inputs[0].dtype),), {}
