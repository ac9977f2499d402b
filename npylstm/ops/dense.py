"""Dense layers and embeddings."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from npylstm.activations import LINEAR, Activation
from npylstm.arrays import Array
from npylstm.blas import matmul
from npylstm.errors import ShapeError
from npylstm.integer_matrix import IntegerMatrix
from npylstm.ops.axis_map import AxisMap
from npylstm.ops.base import Operation
from npylstm.ops.checks import check_feature_activation, check_features, one_input, positive
from npylstm.ops.pointwise import calls_into
from npylstm.ops.shapes import BATCH, STEPS, Shape

__all__ = ["Dense", "Embedding"]


@dataclass(frozen=True)
class Dense(Operation):
    """``y = a(x kernel + bias)`` over the last axis of an input of any rank.

    Sums are computed in float64 and rounded once, because the last layer's rounding dominates
    the output's error.

    Weights
    -------
    ``kernel`` (features, units) and, with ``use_bias``, ``bias`` (units,).
    """

    kind: ClassVar[str] = "dense"
    keeps_relative_errors: ClassVar[bool] = True
    uses_matrix_products: ClassVar[bool] = True
    reads_stored_weights: ClassVar[bool] = True

    features: int
    units: int
    activation: Activation = LINEAR
    use_bias: bool = True

    def __post_init__(self) -> None:
        positive("features", self.features)
        positive("units", self.units)
        check_feature_activation("activation", self.activation)

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {"kernel": (self.features, self.units)}
        return shapes | {"bias": (self.units,)} if self.use_bias else shapes

    @property
    def expected_input(self) -> Shape:
        return (BATCH, self.features)

    def weight_role(self, name: str) -> str | None:
        return {"kernel": "kernel", "bias": "bias"}.get(name)

    def magnitudes(
        self, weights: Mapping[str, Array], inputs: Sequence[Array], shapes: Sequence[Shape]
    ) -> Array | None:
        sums: Array = inputs[0] @ np.abs(weights["kernel"].astype(np.float64))
        return sums + np.abs(weights["bias"]) if self.use_bias else sums

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        shape = one_input(inputs)
        check_features(shape, self.features)
        return ((*shape[:-1], self.units),)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        rank = len(shapes[0])
        return (AxisMap.same(rank, {rank - 1: "sums"}),)

    def pack(self, weights: Mapping[str, Array]) -> dict[str, Array]:
        """Convert the weights to float64; integers stay."""
        return {
            key: array if isinstance(array, IntegerMatrix) else array.astype(np.float64)
            for key, array in weights.items()
        }

    def prepare(
        self, packed: Mapping[str, Array], inputs: Sequence[Array]
    ) -> tuple[list[Callable[[], object]], tuple[Array, ...]]:
        (x,) = inputs
        made = np.array(self.forward(packed, inputs, {})[0][0])
        wide, total = x.astype(np.float64), made.astype(np.float64)
        calls: list[Callable[[], object]] = [
            functools.partial(np.copyto, wide, x),
            functools.partial(np.matmul, wide, packed["kernel"], total),
        ]
        if self.use_bias:
            calls.append(functools.partial(np.add, total, packed["bias"], total))
        calls.append(functools.partial(np.copyto, made, total, "same_kind"))
        if self.activation == LINEAR:
            return calls, (made,)
        activated = np.array(made)
        more = calls_into(self.activation, made, activated)
        return ([*calls, *more], (activated,)) if more else super().prepare(packed, inputs)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        x = inputs[0]
        y = matmul(x.astype(np.float64), packed["kernel"])
        if self.use_bias:
            y = y + packed["bias"]
        return (self.activation(y.astype(x.dtype)),), {}


@dataclass(frozen=True)
class Embedding(Operation):
    """``y[...] = embeddings[x[...]]``: one row of the table for every id.

    With ``mask_zero`` there is a second output, the mask: 0 where the id is 0, otherwise 1.

    Ids may be floats, because all tensors here are. An id that is not an integer or is out of range
    raises an error.

    Weights
    -------
    ``embeddings`` (vocabulary, units).
    """

    kind: ClassVar[str] = "embedding"
    keeps_relative_errors: ClassVar[bool] = True

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

    @property
    def expected_input(self) -> Shape:
        return (BATCH, STEPS)

    def weight_role(self, name: str) -> str | None:
        return {"embeddings": "table"}.get(name)

    @property
    def vocabulary_size(self) -> int:
        return self.vocabulary

    @property
    def masked_value(self) -> float | None:
        return 0.0 if self.mask_zero else None

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        shape = one_input(inputs)
        made = (*shape, self.units)
        return (made, shape) if self.mask_zero else (made,)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        ids = AxisMap.same(len(shapes[0]))
        made = ids._replace(sources=(*ids.sources, ()))
        return (made, ids) if self.mask_zero else (made,)

    @property
    def accepted(self) -> str:
        return f"integers from 0 to {self.vocabulary - 1}"

    def check_values(self, x: Array) -> None:
        wrong = ~((x >= 0) & (x < self.vocabulary) & (x == np.floor(x)))  # nan is wrong, too
        if wrong.any():
            at = tuple(int(k) for k in np.argwhere(wrong)[0])
            raise ShapeError(f"id {x[at]:g} at {at}: expected {self.accepted}")

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        x = inputs[0]
        self.check_values(x)
        y = packed["embeddings"][x.astype(np.int64)]
        return ((y, (x != 0).astype(x.dtype)) if self.mask_zero else (y,)), {}
