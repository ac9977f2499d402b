"""A layer applied to every time step on its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from npylstm.errors import FormatError
from npylstm.layers.base import Array, Layer, Shape, expect_batch, format_shape, one_input, zeros

__all__ = ["TimeDistributed"]


@dataclass(frozen=True)
class TimeDistributed(Layer):
    """Apply ``layer`` to every step of ``(batch, steps, ...)`` as if it were a sample.

    A recurrent layer inside runs over an axis of its own and begins anew for every step.

    Weights
    -------
    Those of the layer.
    """

    kind: ClassVar[str] = "time_distributed"
    per_step: ClassVar[bool] = True

    layer: Layer

    def __post_init__(self) -> None:
        if len(self.layer.output_names()) != 1:
            raise FormatError(f"expected a layer with one output, got {self.layer.kind}")

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        return self.layer.weight_shapes()

    def output_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        shape = one_input(inputs)
        expect_batch(shape)
        if len(shape) < 3:
            raise FormatError(f"expected an input of at least 3 axes, got {format_shape(shape)}")
        (made,) = self.layer.output_shapes([(shape[0], *shape[2:])])
        return ((shape[0], shape[1], *made[1:]),)

    def pack(self, weights: Mapping[str, Array]) -> dict[str, Array]:
        return self.layer.pack(weights)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        x = inputs[0]
        rows = x.reshape(-1, *x.shape[2:])
        fresh = zeros(self.layer.state_shapes(), len(rows), x.dtype)
        (y,), _ = self.layer.forward(packed, [rows], fresh)
        return (y.reshape(*x.shape[:2], *y.shape[1:]),), {}
