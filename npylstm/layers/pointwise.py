"""Layers without weights that keep the shape: an activation, and the identity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from npylstm.activations import Activation
from npylstm.errors import FormatError
from npylstm.layers.base import Array, Layer, Shape, format_shape, one_input

__all__ = ["ActivationLayer", "Identity"]


@dataclass(frozen=True)
class ActivationLayer(Layer):
    """Apply an activation function to every element (softmax: along its axis)."""

    kind: ClassVar[str] = "activation"

    activation: Activation

    def output_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        shape = one_input(inputs)
        axis = self.activation.axis
        # Along the batch axis one sample would depend on another.
        if axis is not None and (not -len(shape) < axis < len(shape) or axis == 0):
            raise FormatError(
                f"{self.activation.name}: axis {axis} does not fit an input {format_shape(shape)}"
            )
        return (shape,)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        return (self.activation(inputs[0]),), {}


@dataclass(frozen=True)
class Identity(Layer):
    """Hand the input on: what dropout and noise layers do in inference."""

    kind: ClassVar[str] = "identity"

    def output_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        return (one_input(inputs),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        return (inputs[0],), {}
