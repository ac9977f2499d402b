"""Layers that keep the shape: activations, identity, rescaling."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from npylstm.activations import Activation
from npylstm.arrays import Array
from npylstm.errors import FormatError
from npylstm.ops.axis_map import AxisMap, check_axis
from npylstm.ops.base import Operation
from npylstm.ops.checks import one_input
from npylstm.ops.shapes import Shape, broadcast, format_shape

__all__ = ["ActivationLayer", "Identity", "PReLU", "Rescaling", "calls_into"]

_FUNCTIONS: dict[str, Callable[..., Array]] = {
    "tanh": np.tanh, "exponential": np.exp, "negative": np.negative, "sqrt": np.sqrt,
    "square": np.square, "abs": np.abs, "reciprocal": np.reciprocal,
}  # fmt: skip


def calls_into(activation: Activation, x: Array, y: Array) -> list[Callable[[], object]]:
    """Return calls that compute an activation of ``x`` into ``y``; none if it is a rare one."""
    if activation.name in _FUNCTIONS:
        return [functools.partial(_FUNCTIONS[activation.name], x, y)]
    if activation.name == "sigmoid":
        one = np.ones((), x.dtype)
        return [
            functools.partial(np.negative, x, y), functools.partial(np.exp, y, y),
            functools.partial(np.add, y, one, y), functools.partial(np.reciprocal, y, y),
        ]  # fmt: skip
    return []


@dataclass(frozen=True)
class ActivationLayer(Operation):
    """Apply an activation function to every element (softmax: along its axis)."""

    kind: ClassVar[str] = "activation"
    keeps_shape: ClassVar[bool] = True
    uses_matrix_products: ClassVar[bool] = True  # it packs nothing

    activation: Activation

    @property
    def computes_integers(self) -> bool:
        return self.activation.name in ("square", "negative")

    @property
    def keeps_ids(self) -> bool:
        return self.activation.name == "relu"

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        shape = one_input(inputs)
        axis = self.activation.axis
        if axis is not None:
            check_axis(shape, axis, from_back=True)
        return (shape,)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        rank, axis = len(shapes[0]), self.activation.axis
        mixed = {} if axis is None else {axis % rank: f"computes {self.activation.name}"}
        return (AxisMap.same(rank, mixed),)

    def prepare(
        self, packed: Mapping[str, Array], inputs: Sequence[Array]
    ) -> tuple[list[Callable[[], object]], tuple[Array, ...]]:
        made = np.empty_like(inputs[0])
        calls = calls_into(self.activation, inputs[0], made)
        return (calls, (made,)) if calls else super().prepare(packed, inputs)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        x = inputs[0]
        return (self.activation(x) if x.size else x,), {}  # softmax needs an entry along its axis


@dataclass(frozen=True)
class Identity(Operation):
    """Return the input, as dropout and noise layers do in inference."""

    kind: ClassVar[str] = "identity"
    moves_elements: ClassVar[bool] = True
    keeps_shape: ClassVar[bool] = True

    returns_input: ClassVar[bool] = True
    keeps_relative_errors: ClassVar[bool] = True

    def magnitudes(
        self, weights: Mapping[str, Array], inputs: Sequence[Array], shapes: Sequence[Shape]
    ) -> Array | None:
        return inputs[0]

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        return (one_input(inputs),)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        return (AxisMap.same(len(shapes[0])),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        return (inputs[0],), {}


@dataclass(frozen=True)
class Rescaling(Operation):
    """``y = scale * x + offset``, computed in float64."""

    kind: ClassVar[str] = "rescaling"
    keeps_shape: ClassVar[bool] = True

    scale: float = 1.0
    offset: float = 0.0

    def input_value(self, output: float) -> float | None:
        value = np.float32((output - self.offset) / self.scale) if self.scale else np.float32(0)
        after = np.float32(value.astype(np.float64) * self.scale + self.offset)
        return float(value) if after == np.float32(output) else None

    def magnitudes(
        self, weights: Mapping[str, Array], inputs: Sequence[Array], shapes: Sequence[Shape]
    ) -> Array | None:
        scaled: Array = abs(self.scale) * inputs[0]
        return scaled + abs(self.offset)

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        return (one_input(inputs),)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        return (AxisMap.same(len(shapes[0])),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        y = inputs[0].astype(np.float64) * self.scale + self.offset
        return (y.astype(inputs[0].dtype),), {}


@dataclass(frozen=True)
class PReLU(Operation):
    """``y = x`` above zero and ``alpha * x`` below, with learned slopes.

    The axes of ``alpha`` are those from ``axis`` on; a size of one is broadcast.

    Weights
    -------
    ``alpha`` (shape).

    References
    ----------
    He et al.: Delving Deep into Rectifiers, ICCV 2015.
    """

    kind: ClassVar[str] = "prelu"
    keeps_shape: ClassVar[bool] = True

    shape: tuple[int, ...]
    axis: int = 1

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"alpha": self.shape}

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        shape = one_input(inputs)
        along = shape[self.axis : self.axis + len(self.shape)]
        if len(along) != len(self.shape) or broadcast([along, self.shape]) != along:
            raise FormatError(
                f"slopes {format_shape(self.shape)} on axis {self.axis} do not fit an input "
                f"{format_shape(shape)}"
            )
        return (shape,)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        along = enumerate(self.shape, self.axis)
        mixed = {axis: "has a slope for each entry" for axis, size in along if size > 1}
        return (AxisMap.same(len(shapes[0]), mixed),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        x = inputs[0]
        behind = x.ndim - self.axis - len(self.shape)
        alpha = packed["alpha"].reshape(self.shape + (1,) * behind)
        return (np.where(x > 0, x, alpha * x),), {}
