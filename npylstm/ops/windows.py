"""Windows that slide along axes: how many fit, the padding, and their entries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from npylstm.arrays import Array
from npylstm.errors import FormatError, ShapeError
from npylstm.ops.axis_map import AxisMap
from npylstm.ops.checks import one_of, positive
from npylstm.ops.shapes import Dim, Shape, format_shape, size_symbol

__all__ = ["Window", "per_axis", "slide", "slides", "spatial_axes", "windows_of", "with_channels"]


@dataclass(frozen=True)
class Window:
    """A window along one axis.

    Parameters
    ----------
    size, stride, dilation
        Entries of the window, distance between windows, distance between entries of a window.
    before, after
        The padding.
    same
        ``upper`` or ``lower``: padding for one window every ``stride`` entries, an odd one after or
        before; then ``before`` and ``after`` are 0. Empty: the padding is as stated.
    ceil
        Also the last window, of which only a part fits, if it begins before the padding at the end.
    """

    size: int
    stride: int = 1
    dilation: int = 1
    before: int = 0
    after: int = 0
    same: str = ""
    ceil: bool = False

    @property
    def span(self) -> int:
        """The number of entries from the first of a window to its last."""
        return (self.size - 1) * self.dilation + 1

    @property
    def is_alone(self) -> bool:
        """Whether each entry has a window of its own."""
        return (self.size, self.stride, self.before, self.after) == (1, 1, 0, 0)

    def count(self, entries: Dim) -> Dim:
        """Return the number of windows on an axis.

        Raises
        ------
        ShapeError
            If the axis is shorter than the window.
        """
        stride, span = self.stride, self.span
        padding = self.before + self.after
        if self.same:
            return self._rounded_up(entries, stride)
        if self.ceil and stride >= span - self.after:  # no window begins in the padding behind
            return self._rounded_up(entries, stride, self.before)
        if self.ceil:
            return self._rounded_up(entries, stride, padding - span + stride)
        if not isinstance(entries, int):
            if stride == 1 and padding == span - 1:
                return entries
            return size_symbol(f"({entries}+{padding}-{span})//{stride}+1")
        if entries + padding < span:
            raise ShapeError(f"expected at least {span - padding} steps, got {entries}")
        return (entries + padding - span) // stride + 1

    def _rounded_up(self, entries: Dim, stride: int, more: int = 0) -> Dim:
        """Divide a size by the stride."""
        more += stride - 1
        if not isinstance(entries, int):
            return size_symbol(f"({entries}{more:+})//{stride}") if more or stride > 1 else entries
        if entries + more < stride:
            raise ShapeError(f"expected at least {stride - more} steps, got {entries}")
        return (entries + more) // stride

    def pads(self, entries: int) -> tuple[int, int]:
        """Return the padding before and after, with as much as the last window needs."""
        count = int(self.count(entries))
        needed = (count - 1) * self.stride + self.span
        if not self.same:
            return self.before, max(self.after, needed - entries - self.before)
        total = max(needed - entries, 0)
        half = total // 2
        return (half, total - half) if self.same == "upper" else (total - half, half)


def per_axis(name: str, values: tuple[int, ...], count: int, default: int) -> tuple[int, ...]:
    """Return one number for each axis; an empty tuple is the default for all.

    Raises
    ------
    FormatError
        If there are more or fewer, or one is below ``default``.
    """
    if not values:
        return (default,) * count
    if len(values) != count or min(values) < default:
        raise FormatError(f"{name}: expected {count} integers from {default} on, got {values}")
    return values


def windows_of(
    size: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    padding: tuple[int, ...],
    same: str,
    ceil: bool = False,
) -> tuple[Window, ...]:
    """Return the window of each axis; ``padding`` has two numbers for each.

    Raises
    ------
    FormatError
        If a number does not fit.
    """
    if not size:
        raise FormatError("size: expected at least one axis")
    for number in size:
        positive("size", number)
    one_of("same", same, ("", "upper", "lower"))
    if same and (any(padding) or ceil):
        raise FormatError(f"same: expected no padding beside {same}, got {padding}")
    pairs = zip(padding[::2], padding[1::2], strict=True)
    return tuple(
        Window(n, step, gap, before, after, same, ceil)
        for n, step, gap, (before, after) in zip(size, stride, dilation, pairs, strict=True)
    )


def spatial_axes(shape: Shape, count: int, channels_first: bool) -> tuple[int, int]:
    """Return the first spatial axis and that of the features; the batch is the first axis."""
    if len(shape) != count + 2:
        raise FormatError(f"expected an input of {count + 2} axes, got {format_shape(shape)}")
    return (2, 1) if channels_first else (1, count + 1)


def with_channels(batch: Dim, positions: Sequence[Dim], units: Dim, channels_first: bool) -> Shape:
    """Return the shape of an output."""
    return (batch, units, *positions) if channels_first else (batch, *positions, units)


def slides(windows: Sequence[Window], channels_first: bool) -> AxisMap:
    """Return the axis map: mixed along the spatial axes whose windows overlap or skip entries."""
    first = 2 if channels_first else 1
    mixed = {first + k: "slides a window" for k, w in enumerate(windows) if not w.is_alone}
    return AxisMap.same(len(windows) + 2, mixed)


def slide(x: Array, windows: Sequence[Window], nothing: float) -> Array:
    """Return the entries of all windows.

    Parameters
    ----------
    x
        ``(batch, *entries, features)``.
    windows
        One for each axis of entries.
    nothing
        The value of the padding.

    Returns
    -------
    array
        ``(batch, *positions, features, *sizes)``, a view.
    """
    pads = [w.pads(n) for w, n in zip(windows, x.shape[1:], strict=False)]
    padded = np.pad(x, [(0, 0), *pads, (0, 0)], constant_values=nothing)
    axes = tuple(range(1, len(windows) + 1))
    view = sliding_window_view(padded, [w.span for w in windows], axis=axes)
    steps = [slice(None, None, w.stride) for w in windows]
    gaps = [slice(None, None, w.dilation) for w in windows]
    at = (slice(None), *steps, slice(None), *gaps)
    taken: Array = view[at]
    return taken
