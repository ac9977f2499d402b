"""Layers that keep the shape: activations, and the identity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from npylstm.activations import Activation
from npylstm.errors import FormatError
from npylstm.ops.base import Array, Operation, Shape, Time, format_shape, not_along, one_input
from npylstm.ops.sizes import broadcast, keep_batch

__all__ = ["ActivationLayer", "Identity", "PReLU", "Rescaling"]


@dataclass(frozen=True)
class ActivationLayer(Operation):
    """Apply an activation function to every element (softmax: along its axis)."""

    kind: ClassVar[str] = "activation"
    per_step: ClassVar[bool] = True

    activation: Activation

    def output_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        shape = one_input(inputs)
        axis, name = self.activation.axis, self.activation.name
        if axis is not None:
            if not -len(shape) <= axis < len(shape):
                raise FormatError(
                    f"{name}: axis {axis} does not fit an input {format_shape(shape)}"
                )
            keep_batch(shape, axis % len(shape), f"computes {name}")
        return (shape,)

    def stream(self, times: Sequence[Time], shapes: Sequence[Shape]) -> tuple[Time, ...]:
        if self.activation.axis is not None:
            not_along(times, self.activation.axis % len(shapes[0]), f"{self.activation.name}")
        return super().stream(times, shapes)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        return (self.activation(inputs[0]),), {}


@dataclass(frozen=True)
class Identity(Operation):
    """Hand the input on: what dropout and noise layers do in inference."""

    kind: ClassVar[str] = "identity"
    per_step: ClassVar[bool] = True

    def output_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        return (one_input(inputs),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        return (inputs[0],), {}


@dataclass(frozen=True)
class Rescaling(Operation):
    """``y = scale * x + offset``, computed in float64."""

    kind: ClassVar[str] = "rescaling"
    per_step: ClassVar[bool] = True

    scale: float = 1.0
    offset: float = 0.0

    def output_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        return (one_input(inputs),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        y = inputs[0].astype(np.float64) * self.scale + self.offset
        return (y.astype(inputs[0].dtype),), {}


@dataclass(frozen=True)
class PReLU(Operation):
    """``y = x`` above zero and ``alpha * x`` below, with slopes that were learned.

    ``alpha`` lies along the axes from ``axis`` on; a size of one serves the whole axis.

    Weights
    -------
    ``alpha`` (shape).

    References
    ----------
    He et al.: Delving Deep into Rectifiers, ICCV 2015.
    """

    kind: ClassVar[str] = "prelu"
    per_step: ClassVar[bool] = True

    shape: tuple[int, ...]
    axis: int = 1

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"alpha": self.shape}

    def output_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        shape = one_input(inputs)
        along = shape[self.axis : self.axis + len(self.shape)]
        if len(along) != len(self.shape) or broadcast([along, self.shape]) != along:
            raise FormatError(
                f"slopes {format_shape(self.shape)} on axis {self.axis} do not fit an input "
                f"{format_shape(shape)}"
            )
        return (shape,)

    def stream(self, times: Sequence[Time], shapes: Sequence[Shape]) -> tuple[Time, ...]:
        for axis, size in enumerate(self.shape, self.axis):
            if size > 1:
                not_along(times, axis, "a slope for each step")
        return super().stream(times, shapes)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        x = inputs[0]
        behind = x.ndim - self.axis - len(self.shape)
        alpha = packed["alpha"].reshape(self.shape + (1,) * behind)
        return (np.where(x > 0, x, alpha * x),), {}
