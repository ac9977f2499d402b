"""Compute masks, and apply them in layers that are not recurrent."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from npylstm.arrays import Array
from npylstm.errors import FormatError
from npylstm.ops.axis_map import AxisMap, check_axis
from npylstm.ops.base import Operation
from npylstm.ops.checks import one_input
from npylstm.ops.shapes import Shape, broadcast, format_shape

__all__ = ["MaskedMean", "MaskedMerge", "MaskedSoftmax", "Masking", "SequenceMask"]

_MERGES = {"multiply": np.multiply, "maximum": np.maximum, "minimum": np.minimum}


@dataclass(frozen=True)
class Masking(Operation):
    """Mask the steps at which every feature is ``mask_value``, and set them to zero.

    Outputs are the sequence and its mask, with one axis less: 0 at masked steps, else 1. The value
    is compared in the inputs' dtype.
    """

    kind: ClassVar[str] = "masking"
    keeps_relative_errors: ClassVar[bool] = True

    keeps_shape: ClassVar[bool] = True
    moves_elements: ClassVar[bool] = True

    mask_value: float = 0.0

    @property
    def masked_value(self) -> float:
        return self.mask_value

    def input_value(self, output: float) -> float | None:
        return None  # zero may come from zero or from the masked number

    def output_names(self) -> tuple[str, ...]:
        return ("", "mask")

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        shape = one_input(inputs)
        if len(shape) < 2:
            raise FormatError(f"expected an input of at least 2 axes, got {format_shape(shape)}")
        return (shape, shape[:-1])

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        rank = len(shapes[0])
        values = AxisMap.same(rank, {rank - 1: "compares with the mask value"})
        return values, values._replace(sources=values.sources[:-1])

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        x = inputs[0]
        with np.errstate(over="ignore"):
            counts = (x != x.dtype.type(self.mask_value)).any(axis=-1)
        y = np.where(counts[..., None], x, np.zeros((), x.dtype))
        return (y, counts.astype(x.dtype)), {}


def _with_mask(inputs: Sequence[Shape]) -> Shape:
    """Return the shape of the first input; check that the second is its mask: its first axes."""
    if len(inputs) != 2 or inputs[1] != inputs[0][: len(inputs[1])]:
        listed = ", ".join(map(format_shape, inputs))
        raise FormatError(f"expected a tensor and its mask, got {listed}")
    return inputs[0]


def _spread(mask: Array, rank: int) -> Array:
    spread: Array = (mask != 0).reshape(*mask.shape, *(1,) * (rank - mask.ndim))
    return spread


@dataclass(frozen=True)
class SequenceMask(Operation):
    """The mask of sequences of given lengths: one at steps before the end, zero after it.

    The first input is the sequence, of which only the number of steps is used; the second is the
    lengths ``(batch,)``. The output is ``(batch, steps)``.

    Parameters
    ----------
    axis
        Time axis of the first input.
    """

    kind: ClassVar[str] = "sequence_mask"

    axis: int = 1

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        if len(inputs) != 2 or len(inputs[1]) != 1:
            listed = ", ".join(map(format_shape, inputs))
            raise FormatError(f"expected a sequence and lengths (batch,), got {listed}")
        check_axis(inputs[0], self.axis)
        return ((*inputs[1], inputs[0][self.axis]),)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        mixed = {(0, self.axis): "counts the steps"}
        return (AxisMap((((1, 0),), ((0, self.axis),)), mixed, unread=frozenset({0})),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        x, lengths = inputs
        mask = np.arange(x.shape[self.axis]) < lengths[:, None]
        return (mask.astype(x.dtype),), {}


@dataclass(frozen=True)
class MaskedMerge(Operation):
    """Combine tensors step by step, without masked steps.

    Where all inputs are masked, ``multiply`` gives zero, the others the first input's value.

    Parameters
    ----------
    operation
        ``multiply``, ``maximum`` or ``minimum``.
    masked
        The inputs that have a mask, in order. Masks follow the inputs; each has one axis less.
    """

    kind: ClassVar[str] = "masked_merge"

    operation: str
    masked: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.operation not in _MERGES:
            known = ", ".join(_MERGES)
            raise FormatError(f"operation: expected {known}, got {self.operation!r:.40}")
        if list(self.masked) != sorted(set(self.masked)) or min(self.masked, default=0) < 0:
            raise FormatError(f"masked: expected numbers of inputs in order, got {self.masked}")

    @property
    def masked_inputs(self) -> tuple[int, ...]:
        return self.masked

    def with_masks(self, which: Collection[int]) -> Operation:
        return replace(self, masked=tuple(sorted(which)))

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        count = len(inputs) - len(self.masked)
        tensors, masks = inputs[:count], inputs[count:]
        wanted = [tensors[k][:-1] for k in self.masked if k < count]
        if not tensors or len(set(map(len, tensors))) > 1 or list(masks) != wanted:
            listed = ", ".join(map(format_shape, inputs))
            raise FormatError(f"expected tensors of as many axes and their masks, got {listed}")
        return (broadcast(tensors),)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        count, rank = len(shapes) - len(self.masked), len(shapes[0])
        sources = tuple(
            tuple((k, axis) for k in range(len(shapes)) if k < count or axis < rank - 1)
            for axis in range(rank)
        )
        return (AxisMap(sources),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        count = len(inputs) - len(self.masked)
        masks = dict(zip(self.masked, (m[..., None] != 0 for m in inputs[count:]), strict=True))
        combine = _MERGES[self.operation]
        y, counts = inputs[0], masks.get(0, True)
        for k, x in enumerate(inputs[1:count], 1):
            own = masks.get(k, True)
            both = combine(y, x)
            y = np.where(np.logical_and(counts, own), both, np.where(own, x, y))
            counts = np.logical_or(counts, own)
        if self.operation == "multiply":
            y = np.where(counts, y, np.zeros((), y.dtype))
        return (y,), {}


class _WithMask(Operation):
    """An operation on a tensor and its mask."""

    @property
    def mask_input_count(self) -> int:
        return 1

    @property
    def masked_inputs(self) -> tuple[int, ...]:
        return (0,)

    def with_masks(self, which: Collection[int]) -> Operation:
        return self


@dataclass(frozen=True)
class MaskedMean(_WithMask):
    """Mean over the steps that are not masked, along axis 1: ``sum(x * mask) / sum(mask)``.

    It is nan where all steps are masked, as in Keras. Sums are computed in float64. With
    ``keepdims`` the axis is kept with size 1.
    """

    kind: ClassVar[str] = "masked_mean"

    keepdims: bool = False

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        shape = _with_mask(inputs)
        if len(inputs[1]) != 2:
            raise FormatError(f"expected a mask of 2 axes, got {format_shape(inputs[1])}")
        kept: Shape = (1,) if self.keepdims else ()
        return ((shape[0], *kept, *shape[2:]),)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        axes = AxisMap.without(len(shapes[0]), {1: "takes the mean"}, self.keepdims)
        sources = (((0, 0), (1, 0)), *axes.sources[1:])
        return (AxisMap(sources, {**axes.mixed, (1, 1): "takes the mean"}),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        x, mask = inputs
        counts = _spread(mask, x.ndim).astype(np.float64)
        with np.errstate(invalid="ignore"):
            y = (x * counts).sum(1, keepdims=self.keepdims) / counts.sum(1, keepdims=self.keepdims)
        return (y.astype(x.dtype),), {}


@dataclass(frozen=True)
class MaskedSoftmax(_WithMask):
    """``softmax`` along an axis where ``mask > 0.5``; the mask is broadcast.

    Parameters
    ----------
    axis
        Negative axes count from the end.
    zero_fully_masked
        Return zeros where all entries are masked; else equal weights.
    additive
        As in TensorFlow: ``softmax(x - 1e9 * (1 - mask))`` in float32, nearly zero except where the
        mask is one.
    """

    kind: ClassVar[str] = "masked_softmax"
    keeps_shape: ClassVar[bool] = True

    axis: int = -1
    zero_fully_masked: bool = False
    additive: bool = False

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        if len(inputs) != 2 or broadcast(list(inputs)) != inputs[0]:
            listed = ", ".join(map(format_shape, inputs))
            raise FormatError(f"expected a tensor and a mask that fits it, got {listed}")
        shape = inputs[0]
        check_axis(shape, self.axis, from_back=True)
        return (shape,)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        axis = self.axis % len(shapes[0])
        return (AxisMap.aligned(shapes, {axis: "computes softmax"}),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        x, mask = inputs
        counts = np.broadcast_to(mask > 0.5, x.shape)
        if self.additive:
            lowered = x.astype(np.float32) - np.float32(1e9) * (1 - mask.astype(np.float32))
            scores = np.where(mask == 1, x.astype(np.float64), lowered)
        else:
            lowest = np.where(counts.any(axis=self.axis, keepdims=True), -np.inf, 0.0)
            scores = np.where(counts, x.astype(np.float64), lowest)
        y = np.exp(scores - scores.max(axis=self.axis, keepdims=True))
        y /= y.sum(axis=self.axis, keepdims=True)
        if self.zero_fully_masked:
            y = np.where(counts, y, 0.0)
        return (y.astype(x.dtype),), {}
