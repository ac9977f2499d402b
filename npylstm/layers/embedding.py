"""Vectors looked up by whole numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from npylstm.errors import ShapeError
from npylstm.layers.base import Array, Layer, Shape, one_input, positive

__all__ = ["Embedding"]


@dataclass(frozen=True)
class Embedding(Layer):
    """``y[...] = embeddings[x[...]]``: one row of a table for every id.

    With ``mask_zero`` there is a second output, the mask: 0 where the id is 0, otherwise 1.

    Ids may come as floats, as all tensors do here; what is no whole number, or is out of range,
    is refused rather than guessed at.

    Weights
    -------
    ``embeddings`` (vocabulary, units).
    """

    kind: ClassVar[str] = "embedding"
    per_step: ClassVar[bool] = True

    vocabulary: int
    units: int
    mask_zero: bool = False

    def output_names(self) -> tuple[str, ...]:
        return ("", "mask") if self.mask_zero else ("",)

    def __post_init__(self) -> None:
        positive("vocabulary", self.vocabulary)
        positive("units", self.units)

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"embeddings": (self.vocabulary, self.units)}

    def output_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        shape = one_input(inputs)
        made = (*shape, self.units)
        return (made, shape) if self.mask_zero else (made,)

    def check(self, x: Array) -> None:
        """Refuse what is no id.

        Raises
        ------
        ShapeError
            Naming the first that is none.
        """
        wrong = ~((x >= 0) & (x < self.vocabulary) & (x == np.floor(x)))  # nan is wrong, too
        if wrong.any():
            at = tuple(int(k) for k in np.argwhere(wrong)[0])
            raise ShapeError(
                f"id {x[at]:g} at {at}: expected whole numbers from 0 to {self.vocabulary - 1}"
            )

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        x = inputs[0]
        self.check(x)
        y = packed["embeddings"][x.astype(np.int64)]
        return ((y, (x != 0).astype(x.dtype)) if self.mask_zero else (y,)), {}
