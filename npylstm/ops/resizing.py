"""Sequences resized along an axis, and reversed up to their lengths."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from npylstm.arrays import Array
from npylstm.errors import FormatError, ShapeError, SizeMismatchError
from npylstm.ops.axis_map import AxisMap, check_axis
from npylstm.ops.base import Operation
from npylstm.ops.checks import one_of
from npylstm.ops.shapes import Dim, Shape, format_shape, resize_axis, size_symbol
from npylstm.ops.shaping import Size, check_sizes, resolve

__all__ = ["Resize", "ReverseSequence"]

_COORDINATES = (
    "half_pixel", "pytorch_half_pixel", "half_pixel_symmetric", "align_corners", "asymmetric",
)  # fmt: skip
_ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


@dataclass(frozen=True)
class Resize(Operation):
    """Interpolate along an axis; resizing several axes is one after the other.

    Output ``k`` is the value at a coordinate between the entries; beyond the ends are the entries
    at the ends. The words are those of ``Resize`` in ONNX. Values are computed in float64; which
    entry is the nearest, and how many outputs a scale gives, in float32 as by onnxruntime.

    Parameters
    ----------
    axis
        From 0 on.
    size
        Of the output: one integer, or one ``[input, axis]`` for the size of an axis of a further
        input, see :class:`~npylstm.ops.shaping.Reshape`; or empty.
    scale
        Instead of a size: the output has ``floor(scale * entries)`` entries.
    mode
        ``nearest``, ``linear`` or ``cubic``.
    coordinates
        ``half_pixel``: ``(k + 0.5) / scale - 0.5``; ``pytorch_half_pixel``: the same, but 0 if the
        output has one entry; ``half_pixel_symmetric``: the same, centered; ``align_corners``:
        ``k * (entries - 1) / (outputs - 1)``; ``asymmetric``: ``k / scale``.
    rounding
        Of a coordinate to the nearest entry: ``round_prefer_floor``, ``round_prefer_ceil``,
        ``floor``, ``ceil``.
    cubic_a
        Coefficient of the cubic kernel.
    pytorch
        As PyTorch: coordinates are computed in float32 by other formulas, so that the nearest entry
        may be another, and ``linear`` and ``cubic`` copy an axis whose size stays.

    References
    ----------
    Keys: Cubic Convolution Interpolation for Digital Image Processing, IEEE TASSP 29(6), 1981.
    """

    kind: ClassVar[str] = "resize"

    axis: int
    size: tuple[Size, ...] = ()
    scale: float | None = None
    mode: str = "nearest"
    coordinates: str = "half_pixel"
    rounding: str = "round_prefer_floor"
    cubic_a: float = -0.75
    pytorch: bool = False

    def __post_init__(self) -> None:
        one_of("mode", self.mode, ("nearest", "linear", "cubic"))
        one_of("coordinates", self.coordinates, _COORDINATES)
        one_of("rounding", self.rounding, _ROUNDINGS)
        check_sizes("size", self.size)
        if len(self.size) + (self.scale is not None) != 1:
            raise FormatError(f"expected a size or a scale, got {self.size} and {self.scale}")
        if self.scale is not None and not 0 < self.scale < math.inf:
            raise FormatError(f"scale: expected a number above 0, got {self.scale}")

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        if not inputs:
            raise FormatError("expected an input")
        shape = inputs[0]
        check_axis(shape, self.axis)
        made = resolve(self.size, inputs)[0] if self.size else self._scaled(shape[self.axis])
        if made == 0:
            raise ShapeError(f"scale {self.scale}: no entry remains of {format_shape(shape)}")
        return (resize_axis(shape, self.axis, made),)

    def _scaled(self, entries: Dim) -> Dim:
        assert self.scale is not None  # __post_init__ has checked it
        if isinstance(entries, int):
            number = float if self.pytorch else np.float32
            return math.floor(number(self.scale) * number(entries))
        times, by = self.scale.as_integer_ratio()
        if times == by:
            return entries
        if by > 64:
            return size_symbol(f"floor({entries}*{self.scale})")
        return size_symbol(f"{entries}*{times}//{by}" if by > 1 else f"{entries}*{times}")

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        axes = AxisMap.same(len(shapes[0]), {self.axis: "resizes"})
        lent = {size: "takes the size" for size in self.size if isinstance(size, tuple)}
        unread = frozenset(range(1, len(shapes)))
        return (axes._replace(mixed={**axes.mixed, **lent}, unread=unread),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        x = inputs[0]
        (shape,) = self.output_shapes([array.shape for array in inputs])
        entries, count = x.shape[self.axis], int(shape[self.axis])
        if count == entries and self.pytorch != (self.mode == "nearest"):
            return (x,), {}
        if self.mode == "nearest":
            nearest = self._nearest(entries, count)
            return (x.take(np.clip(nearest, 0, entries - 1), self.axis),), {}
        at = self._coordinates(entries, count)
        first = np.floor(at).astype(np.int64)
        y: Array | float = 0.0
        along = (count,) + (1,) * (x.ndim - 1 - self.axis)
        for offset, weight in self._weights(at - first):
            entry = x.take(np.clip(first + offset, 0, entries - 1), self.axis)
            y = y + weight.reshape(along) * entry.astype(np.float64)
        return (np.asarray(y, x.dtype),), {}

    def _coordinates(self, entries: int, count: int) -> Array:
        """Return the coordinate of each output among the entries."""
        k = np.arange(count).astype(np.float64)
        if self.coordinates == "align_corners":
            at = self._scaled_by(k, entries - 1, count - 1) if count > 1 else 0 * k
        elif self.coordinates == "pytorch_half_pixel" and count == 1:
            at = 0 * k
        else:
            size = (entries, count) if self.scale is None else (1.0, self.scale)
            half = 0.0 if self.coordinates == "asymmetric" else 0.5
            at = self._scaled_by(k + half, *size) - half
        if self.coordinates == "half_pixel_symmetric" and self.scale is not None:
            at = at + entries / 2 * (1 - count / (self.scale * entries))
        # PyTorch's processors multiply and subtract with one rounding.
        rounded: Array = at.astype(np.float32) if self.pytorch else at
        return rounded

    def _scaled_by(self, at: Array, entries: float, count: float) -> Array:
        """Return ``at * entries / count``; what is an integer remains one."""
        scaled: Array = at * entries / count
        if self.pytorch:
            scaled = at * np.float64(np.float32(entries) / np.float32(count))
        return scaled

    def _nearest(self, entries: int, count: int) -> Array:
        """Return the index of the entry that each output is, which may be beyond the ends."""
        if self.pytorch:
            at, near = self._coordinates(entries, count), np.float32(0)
        else:  # what is nearly a half counts as one
            at, near = self._as_onnxruntime(entries, count), np.float32(1e-6)
        down = np.floor(at)
        if self.rounding.startswith("round"):
            behind_half = (at - down) - np.float32(0.5)
            up = self.rounding == "round_prefer_ceil"
            rounded = down + (behind_half >= -near if up else behind_half > near)
        else:
            rounded = down if self.rounding == "floor" else np.ceil(at)
        nearest: Array = rounded.astype(np.int64)
        return nearest

    def _as_onnxruntime(self, entries: int, count: int) -> Array:
        """Return the coordinate of each output in float32."""
        single, k = np.float32, np.arange(count, dtype=np.float32)
        half = single(0.0 if self.coordinates == "asymmetric" else 0.5)
        scale = single(count) / single(entries) if self.scale is None else single(self.scale)
        if self.coordinates == "align_corners":
            aligned: Array = k * single(entries - 1) / single(max(count - 1, 1))
            return aligned
        if self.coordinates == "pytorch_half_pixel" and count == 1:
            return 0 * k
        if self.coordinates == "half_pixel_symmetric":
            shift = single(entries) / 2 * (1 - single(count) / (scale * single(entries)))
            centered: Array = shift + (k + 0.5).astype(np.float64) / scale - 0.5
            return centered.astype(np.float32)
        at: Array = (k + half) / scale - half
        return at

    def _weights(self, t: Array) -> list[tuple[int, Array]]:
        """Return the entries around a coordinate, and their weights; ``t`` is from 0 to 1."""
        if self.mode == "linear":
            return [(0, 1 - t), (1, t)]
        a = self.cubic_a

        def far(d: Array) -> Array:  # distances from 1 to 2
            return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a

        def near(d: Array) -> Array:
            return ((a + 2) * d - (a + 3)) * d * d + 1

        return [(-1, far(t + 1)), (0, near(t)), (1, near(1 - t)), (2, far(2 - t))]


@dataclass(frozen=True)
class ReverseSequence(Operation):
    """Reverse the first entries along an axis, as many as the second input states for each sample.

    The second input has one length, from 0 on, for each entry of the batch axis.
    """

    kind: ClassVar[str] = "reverse_sequence"
    keeps_shape: ClassVar[bool] = True
    moves_elements: ClassVar[bool] = True

    time: int = 1
    batch_axis: int = 0

    def __post_init__(self) -> None:
        if self.time == self.batch_axis:
            raise FormatError(f"axes: expected two, got {self.batch_axis} twice")

    def input_value(self, output: float) -> float | None:
        return None  # the lengths have another

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        if len(inputs) != 2 or len(inputs[1]) != 1:
            listed = ", ".join(map(format_shape, inputs))
            raise FormatError(f"expected an input and its lengths (batch,), got {listed}")
        shape, (count,) = inputs
        check_axis(shape, self.time)
        if shape[check_axis(shape, self.batch_axis)] != count:
            listed = " and ".join(map(format_shape, inputs))
            sizes = (shape[self.batch_axis], count)
            raise SizeMismatchError(f"expected as many lengths as samples, got {listed}", sizes)
        return (shape,)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        axes = AxisMap.same(len(shapes[0]), {self.time: "reverses the order"})
        sources = list(axes.sources)
        sources[self.batch_axis] += ((1, 0),)
        return (axes._replace(sources=tuple(sources)),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        x, lengths = inputs
        self.output_shapes([x.shape, lengths.shape])
        steps = x.shape[self.time]
        wrong = ~((lengths >= 0) & (lengths <= steps) & (lengths == np.floor(lengths)))
        if wrong.any():
            at = int(np.argmax(wrong))
            raise ShapeError(
                f"length {lengths[at]:g} of sample {at}: expected an integer from 0 to {steps}"
            )
        t, ends = np.arange(steps), lengths.astype(np.int64)[:, None]
        order = np.where(t < ends, ends - 1 - t, t)  # (batch, steps)
        moved = np.moveaxis(x, (self.batch_axis, self.time), (0, 1))
        y = moved[np.arange(len(order))[:, None], order]
        return (np.moveaxis(y, (0, 1), (self.batch_axis, self.time)),), {}
