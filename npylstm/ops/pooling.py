"""Pooling over any number of axes, and the windows themselves."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from npylstm.arrays import Array
from npylstm.ops.axis_map import AxisMap, check_axis
from npylstm.ops.base import Operation
from npylstm.ops.checks import one_input, one_of, positive, positive_number
from npylstm.ops.shapes import Shape, resize_axis
from npylstm.ops.windows import (
    Window,
    per_axis,
    slide,
    slides,
    spatial_axes,
    windows_of,
    with_channels,
)

__all__ = ["AdaptivePool", "Pool", "SlidingWindows"]


@dataclass(frozen=True)
class Pool(Operation):
    """Combine the entries of every window, for each feature.

    The input is ``(batch, *entries, features)``. Sums are computed in float64.

    Parameters
    ----------
    operation
        ``max``, ``mean``, ``sum``, or ``lp``: ``(sum of abs(x) ** p) ** (1 / p)``.
    size, stride, dilation
        One number for each axis; an empty stride or dilation is 1 everywhere.
    padding
        Entries before and after, two numbers for each axis: minus infinity for ``max``, else zero.
    count_padding
        ``mean`` divides by the number of entries with the padding.
    channels_first
        Input and output are ``(batch, features, *entries)``.
    same
        ``upper`` or ``lower``: padding that gives one output for every ``stride`` entries, an odd
        one after or before.
    ceil
        Also the last window, of which only a part fits (``ceil_mode``).
    p
        The power of ``lp``.
    """

    kind: ClassVar[str] = "pool"

    operation: str
    size: tuple[int, ...]
    stride: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    count_padding: bool = False
    channels_first: bool = False
    same: str = ""
    ceil: bool = False
    p: float = 2.0

    def __post_init__(self) -> None:
        one_of("operation", self.operation, ("max", "mean", "sum", "lp"))
        axes = len(self.size)
        for name, count, default in (("stride", axes, 1), ("dilation", axes, 1),
                                     ("padding", 2 * axes, 0)):  # fmt: skip
            object.__setattr__(self, name, per_axis(name, getattr(self, name), count, default))
        positive_number("p", self.p)
        _ = self.windows

    @property
    def windows(self) -> tuple[Window, ...]:
        """The window along each axis."""
        return windows_of(self.size, self.stride, self.dilation, self.padding, self.same, self.ceil)

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        shape, axes = one_input(inputs), len(self.size)
        first, last = spatial_axes(shape, axes, self.channels_first)
        made = [w.count(n) for w, n in zip(self.windows, shape[first : first + axes], strict=True)]
        return (with_channels(shape[0], made, shape[last], self.channels_first),)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        return (slides(self.windows, self.channels_first),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        self.output_shapes([inputs[0].shape])
        x = np.moveaxis(inputs[0], 1, -1) if self.channels_first else inputs[0]
        y = self._pool(x)
        return (np.moveaxis(y, -1, 1) if self.channels_first else y,), {}

    def _pool(self, x: Array) -> Array:
        inner = tuple(range(-len(self.size), 0))
        if self.operation == "max":
            largest: Array = slide(x, self.windows, -np.inf).max(axis=inner)
            return largest
        if self.operation == "lp":
            powers = np.abs(x.astype(np.float64)) ** self.p
            root: Array = slide(powers, self.windows, 0.0).sum(axis=inner) ** (1 / self.p)
            return root.astype(x.dtype)
        total: Array = slide(x, self.windows, 0.0).sum(axis=inner, dtype=np.float64)
        if self.operation == "mean":
            counts = [self._counts(w, n) for w, n in zip(self.windows, x.shape[1:], strict=False)]
            total = total / functools.reduce(np.multiply.outer, counts)[..., None]
        return total.astype(x.dtype)

    def _counts(self, window: Window, entries: int) -> Array:
        """Return by how many entries the mean of each window along an axis is divided."""
        before, after = window.pads(entries) if window.same else (window.before, window.after)
        first = np.arange(int(window.count(entries))) * window.stride - before
        at = first[:, None] + np.arange(window.size) * window.dilation
        low, end = (-before, entries + after) if self.count_padding else (0, entries)
        counts: Array = ((at >= low) & (at < end)).sum(axis=1)
        return counts


@dataclass(frozen=True)
class AdaptivePool(Operation):
    """Maximum or mean of parts of nearly equal size, for each feature.

    Of ``n`` entries the output ``k`` of ``m`` combines those from ``floor(k n / m)`` up to
    ``ceil((k + 1) n / m)``. The input is ``(batch, *entries, features)``; sums are computed in
    float64.

    Parameters
    ----------
    operation
        ``max`` or ``mean``.
    size
        Of the output, one number for each axis.
    channels_first
        Input and output are ``(batch, features, *entries)``.
    """

    kind: ClassVar[str] = "adaptive_pool"

    operation: str
    size: tuple[int, ...]
    channels_first: bool = False

    def __post_init__(self) -> None:
        one_of("operation", self.operation, ("max", "mean"))
        for number in self.size:
            positive("size", number)

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        shape = one_input(inputs)
        _, last = spatial_axes(shape, len(self.size), self.channels_first)
        return (with_channels(shape[0], self.size, shape[last], self.channels_first),)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        first = 2 if self.channels_first else 1
        mixed = dict.fromkeys(range(first, first + len(self.size)), f"takes the {self.operation}")
        return (AxisMap.same(len(shapes[0]), mixed),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        (x,) = inputs
        self.output_shapes([x.shape])
        y = x if self.operation == "max" else x.astype(np.float64)
        combine = np.max if self.operation == "max" else np.mean
        for axis, count in enumerate(self.size, 2 if self.channels_first else 1):
            moved = np.moveaxis(y, axis, 0)
            n = len(moved)
            parts = [moved[k * n // count : -(-(k + 1) * n // count)] for k in range(count)]
            y = np.moveaxis(np.stack([combine(part, axis=0) for part in parts]), 0, axis)
        return (y.astype(x.dtype, copy=False),), {}


@dataclass(frozen=True)
class SlidingWindows(Operation):
    """All windows along an axis, as the last axis: ``unfold`` of PyTorch's tensors.

    Window ``k`` has the entries from ``k * stride`` on; what does not fill a window is left out.

    Parameters
    ----------
    axis
        From 0 on; its size becomes the number of windows.
    size, stride
        Entries of a window, and from one window to the next.
    """

    kind: ClassVar[str] = "sliding_windows"
    moves_elements: ClassVar[bool] = True

    axis: int
    size: int
    stride: int = 1

    def __post_init__(self) -> None:
        positive("size", self.size)
        positive("stride", self.stride)

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        shape = one_input(inputs)
        check_axis(shape, self.axis)
        count = Window(self.size, self.stride).count(shape[self.axis])
        return ((*resize_axis(shape, self.axis, count), self.size),)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        alone = Window(self.size, self.stride).is_alone
        axes = AxisMap.same(len(shapes[0]), {} if alone else {self.axis: "slides a window"})
        return (axes._replace(sources=(*axes.sources, ())),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        self.output_shapes([inputs[0].shape])
        view = np.lib.stride_tricks.sliding_window_view(inputs[0], self.size, axis=self.axis)
        return (view[(slice(None),) * self.axis + (slice(None, None, self.stride),)],), {}
