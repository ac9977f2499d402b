"""Fully connected layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from npylstm.activations import LINEAR, Activation
from npylstm.layers.base import (
    Array,
    Layer,
    Shape,
    along_features,
    expect_features,
    one_input,
    positive,
)

__all__ = ["Dense"]


@dataclass(frozen=True)
class Dense(Layer):
    """``y = a(x kernel + bias)`` over the last axis, whatever stands before it.

    Sums run in float64 and are rounded once: a model's last layer is small, and its rounding is
    what shows.

    Weights
    -------
    ``kernel`` (features, units) and, with ``use_bias``, ``bias`` (units,).
    """

    kind: ClassVar[str] = "dense"
    per_step: ClassVar[bool] = True

    features: int
    units: int
    activation: Activation = LINEAR
    use_bias: bool = True

    def __post_init__(self) -> None:
        positive("features", self.features)
        positive("units", self.units)
        along_features("activation", self.activation)

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {"kernel": (self.features, self.units)}
        return shapes | {"bias": (self.units,)} if self.use_bias else shapes

    def output_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        shape = one_input(inputs)
        expect_features(shape, self.features)
        return ((*shape[:-1], self.units),)

    def pack(self, weights: Mapping[str, Array]) -> dict[str, Array]:
        """Widen the weights once, at load."""
        return {key: array.astype(np.float64) for key, array in weights.items()}

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        x = inputs[0]
        y = x.astype(np.float64) @ packed["kernel"]
        if self.use_bias:
            y = y + packed["bias"]
        return (self.activation(y.astype(x.dtype)),), {}
