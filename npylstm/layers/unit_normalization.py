"""Vectors brought to length one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from npylstm.errors import FormatError
from npylstm.layers.base import Array, Layer, Shape, Time, not_along, one_input
from npylstm.layers.sizes import axis_of, keep_batch

__all__ = ["UnitNormalization"]


@dataclass(frozen=True)
class UnitNormalization(Layer):
    """``y = x / max(length, shortest)``, the length being Euclid's over some axes.

    Sums run in float64.

    Parameters
    ----------
    axes
        Counted from the back where negative.
    shortest
        A length below it is taken for it: a vector of zeros stays one. Keras 2 has 1e-6, Keras 3
        has 1e-12.
    """

    kind: ClassVar[str] = "unit_normalization"
    per_step: ClassVar[bool] = True

    axes: tuple[int, ...] = (-1,)
    shortest: float = 1e-12

    def __post_init__(self) -> None:
        if not self.axes or not self.shortest > 0:
            raise FormatError(
                f"expected axes and a shortest length above 0, got {self.axes}, {self.shortest}"
            )

    def _along(self, rank: int) -> tuple[int, ...]:
        return tuple(axis + rank if axis < 0 else axis for axis in self.axes)

    def output_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        shape = one_input(inputs)
        for axis in self._along(len(shape)):
            axis_of(shape, axis)
            keep_batch(shape, axis, "takes the length")
        return (shape,)

    def stream(self, times: Sequence[Time], shapes: Sequence[Shape]) -> tuple[Time, ...]:
        for axis in self._along(len(shapes[0])):
            not_along(times, axis, "a length")
        return super().stream(times, shapes)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        x = inputs[0].astype(np.float64)
        length = np.sqrt((x * x).sum(axis=self._along(x.ndim), keepdims=True))
        return ((x / np.maximum(length, self.shortest)).astype(inputs[0].dtype),), {}
