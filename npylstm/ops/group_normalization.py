"""Normalization by statistics of groups of features, and of neighbouring features."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from npylstm.arrays import Array
from npylstm.errors import FormatError
from npylstm.ops.axis_map import AxisMap, check_axis
from npylstm.ops.base import Operation
from npylstm.ops.checks import one_input, positive, positive_number
from npylstm.ops.normalization import Normalization
from npylstm.ops.shapes import Shape, format_shape

__all__ = ["GroupNormalization", "LocalResponseNormalization"]


@dataclass(frozen=True)
class GroupNormalization(Normalization):
    """``y = (x - mean) / sqrt(variance + epsilon) * gamma + beta`` for each group of features.

    Mean and variance are of each sample, over the features of the group and all axes but the first,
    computed in float64. One group for each feature is instance normalization.

    Parameters
    ----------
    features, groups
        The features of a group are neighbours.
    axis
        Of the features; -1 is the last.
    epsilon
        Above 0.
    scale, center
        Whether there is ``gamma``, ``beta``.

    Weights
    -------
    With ``scale`` ``gamma``, with ``center`` ``beta``, both (features,).

    References
    ----------
    Wu, He: Group Normalization, ECCV 2018.
    Ulyanov, Vedaldi, Lempitsky: Instance Normalization, 2016.
    """

    kind: ClassVar[str] = "group_normalization"
    keeps_shape: ClassVar[bool] = True

    features: int
    groups: int
    axis: int
    epsilon: float
    scale: bool = True
    center: bool = True

    def __post_init__(self) -> None:
        positive("features", self.features)
        positive("groups", self.groups)
        positive_number("epsilon", self.epsilon)
        if self.features % self.groups:
            raise FormatError(f"groups: expected a divisor of {self.features}, got {self.groups}")

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        return dict.fromkeys(["gamma"] * self.scale + ["beta"] * self.center, (self.features,))

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        shape = one_input(inputs)
        axis = check_axis(shape, self.axis, from_back=True)
        if axis == 0 or shape[axis] != self.features:
            raise FormatError(
                f"expected {self.features} features on axis {self.axis}, behind the first, got an "
                f"input {format_shape(shape)}"
            )
        return (shape,)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        rank = len(shapes[0])
        return (AxisMap.same(rank, dict.fromkeys(range(1, rank), "takes the mean")),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        (x,) = inputs
        axis = self.axis % x.ndim
        first = np.moveaxis(x.astype(np.float64), axis, 1)  # (batch, features, ...)
        grouped = first.reshape(len(x), self.groups, -1)
        off = grouped - grouped.mean(axis=2, keepdims=True)
        spread = np.sqrt(np.mean(off * off, axis=2, keepdims=True) + self.epsilon)
        y = np.moveaxis((off / spread).reshape(first.shape), 1, axis)
        along = (self.features,) + (1,) * (x.ndim - 1 - axis)
        if self.scale:
            y = y * packed["gamma"].reshape(along)
        if self.center:
            y = y + packed["beta"].reshape(along)
        return (y.astype(x.dtype),), {}


@dataclass(frozen=True)
class LocalResponseNormalization(Operation):
    """``y = x / (bias + alpha / n * sum of squares) ** beta`` over ``n`` neighbouring features.

    Features beyond the ends count as zero; ``n = before + 1 + after`` everywhere. Sums are computed
    in float64.

    Parameters
    ----------
    before, after
        How many neighbours before and after each feature.
    alpha, beta, bias
        See above.
    axis
        Of the features; -1 is the last.

    References
    ----------
    Krizhevsky, Sutskever, Hinton: ImageNet Classification with Deep Convolutional Neural Networks,
    NIPS 2012.
    """

    kind: ClassVar[str] = "local_response_normalization"
    keeps_shape: ClassVar[bool] = True

    before: int
    after: int
    alpha: float = 1e-4
    beta: float = 0.75
    bias: float = 1.0
    axis: int = -1

    def __post_init__(self) -> None:
        if min(self.before, self.after) < 0:
            raise FormatError(f"before: expected 0 or more, got {self.before}, {self.after}")
        for name in ("alpha", "beta", "bias"):
            if not math.isfinite(getattr(self, name)):
                raise FormatError(f"{name}: expected a number, got {getattr(self, name)}")

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        shape = one_input(inputs)
        check_axis(shape, self.axis, from_back=True)
        return (shape,)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        rank = len(shapes[0])
        return (AxisMap.same(rank, {self.axis % rank: "sums neighbours"}),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        x = np.moveaxis(inputs[0].astype(np.float64), self.axis, -1)
        size = self.before + 1 + self.after
        padded = np.pad(x * x, [(0, 0)] * (x.ndim - 1) + [(self.before, self.after)])
        total = np.lib.stride_tricks.sliding_window_view(padded, size, axis=-1).sum(axis=-1)
        y = x / (self.bias + self.alpha / size * total) ** self.beta
        return (np.moveaxis(y, -1, self.axis).astype(inputs[0].dtype),), {}
