"""Where a mask comes from: steps that hold a value that means nothing is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from npylstm.errors import FormatError
from npylstm.layers.base import Array, Layer, Shape, format_shape, one_input

__all__ = ["Masking"]


@dataclass(frozen=True)
class Masking(Layer):
    """Find the steps at which every feature is ``mask_value``, and make them zero.

    Outputs are the sequence and its mask: 1 where a step counts, 0 where it does not, one axis
    less. The value is compared in the inputs' type.
    """

    kind: ClassVar[str] = "masking"
    per_step: ClassVar[bool] = True

    mask_value: float = 0.0

    def output_names(self) -> tuple[str, ...]:
        return ("", "mask")

    def output_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        shape = one_input(inputs)
        if len(shape) < 2:
            raise FormatError(f"expected an input of at least 2 axes, got {format_shape(shape)}")
        return (shape, shape[:-1])

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        x = inputs[0]
        with np.errstate(over="ignore"):
            counts = (x != x.dtype.type(self.mask_value)).any(axis=-1)
        y = np.where(counts[..., None], x, np.zeros((), x.dtype))
        return (y, counts.astype(x.dtype)), {}
