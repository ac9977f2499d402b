"""Fully connected layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from npylstm.activations import LINEAR, Activation
from npylstm.layers.base import Array, Layer, Shape, expect_features, one_input, positive

__all__ = ["Dense"]


@dataclass(frozen=True)
class Dense(Layer):
    """``y = a(x kernel + bias)`` over the last axis, whatever stands before it.

    Weights
    -------
    ``kernel`` (features, units) and, with ``use_bias``, ``bias`` (units,).
    """

    kind: ClassVar[str] = "dense"

    features: int
    units: int
    activation: Activation = LINEAR
    use_bias: bool = True

    def __post_init__(self) -> None:
        positive("features", self.features)
        positive("units", self.units)

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {"kernel": (self.features, self.units)}
        return shapes | {"bias": (self.units,)} if self.use_bias else shapes

    def output_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        shape = one_input(inputs)
        expect_features(shape, self.features)
        return ((*shape[:-1], self.units),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        y = inputs[0] @ packed["kernel"]
        if self.use_bias:
            y = y + packed["bias"]
        return (self.activation(y),), {}
