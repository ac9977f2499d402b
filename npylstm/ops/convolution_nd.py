"""Convolution and transposed convolution over any number of axes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from npylstm.activations import LINEAR, Activation
from npylstm.arrays import Array
from npylstm.blas import matmul
from npylstm.errors import FormatError, ShapeError
from npylstm.ops.axis_map import AxisMap
from npylstm.ops.base import Operation
from npylstm.ops.checks import check_feature_activation, one_input, positive
from npylstm.ops.shapes import Dim, Shape, format_shape, plus, size_symbol
from npylstm.ops.windows import (
    Window,
    per_axis,
    slide,
    slides,
    spatial_axes,
    windows_of,
    with_channels,
)

__all__ = ["Convolution", "ConvolutionTranspose"]


@dataclass(frozen=True)
class _Convolving(Operation):
    """What both convolutions have: see :class:`Convolution`."""

    features: int
    units: int
    size: tuple[int, ...]
    stride: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    groups: int = 1
    channels_first: bool = False
    use_bias: bool = True
    activation: Activation = LINEAR

    def __post_init__(self) -> None:
        check_feature_activation("activation", self.activation)
        for name in ("features", "units", "groups"):
            positive(name, getattr(self, name))
        axes = len(self.size)
        for name, count, default in (("stride", axes, 1), ("dilation", axes, 1),
                                     ("padding", 2 * axes, 0)):  # fmt: skip
            object.__setattr__(self, name, per_axis(name, getattr(self, name), count, default))
        if self.features % self.groups or self.units % self.groups:
            raise FormatError(
                f"groups: expected a divisor of {self.features} and {self.units}, got {self.groups}"
            )

    def positions(self, entries: Sequence[Dim]) -> Sequence[Dim]:
        """Return the sizes of the output's spatial axes."""
        raise NotImplementedError

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        kernel = (*self.size, self.features // self.groups, self.units)
        shapes: dict[str, tuple[int, ...]] = {"kernel": kernel}
        return shapes | {"bias": (self.units,)} if self.use_bias else shapes

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        shape = one_input(inputs)
        axes = len(self.size)
        first, last = spatial_axes(shape, axes, self.channels_first)
        if shape[last] != self.features:
            raise FormatError(
                f"expected {self.features} features on axis {last}, got an input "
                f"{format_shape(shape)}"
            )
        made = self.positions(shape[first : first + axes])
        return (with_channels(shape[0], made, self.units, self.channels_first),)

    def multiplications(self, shapes: Sequence[tuple[int, ...]]) -> int:
        positions = math.prod(shapes[0]) // self.features
        return positions * math.prod(self.weight_shapes()["kernel"])

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        (x,) = inputs
        self.output_shapes([x.shape])
        x = np.moveaxis(x, 1, -1) if self.channels_first else x
        parts = np.split(x, self.groups, axis=-1)
        kernels = np.split(packed["kernel"], self.groups, axis=-1)
        y = np.concatenate(
            [self.convolve(*pair) for pair in zip(parts, kernels, strict=True)], axis=-1
        )
        y = self.activation(y + packed["bias"] if self.use_bias else y)
        return (np.moveaxis(y, -1, 1) if self.channels_first else y,), {}

    def convolve(self, x: Array, kernel: Array) -> Array:
        """Convolve the features of one group: ``(batch, *entries, features)``."""
        raise NotImplementedError


@dataclass(frozen=True)
class Convolution(_Convolving):
    """``y[t] = sum over k of x[t * stride + k * dilation - padding] kernel[k] + bias``.

    ``t`` and ``k`` have one number for each spatial axis. The input is
    ``(batch, *entries, features)``.

    Parameters
    ----------
    features, units
        Features of the input and of the output.
    size, stride, dilation
        One number for each axis; an empty stride or dilation is 1 everywhere.
    padding
        Zeros before and after, two numbers for each axis; empty for none.
    groups
        As in Keras and PyTorch.
    channels_first
        Input and output are ``(batch, features, *entries)``.
    activation
        Of the output.
    same
        ``upper`` or ``lower``: zero padding that gives one output for every ``stride`` entries, an
        odd zero after or before. TensorFlow has ``upper``.

    Weights
    -------
    ``kernel`` (size, features / groups, units) and, with ``use_bias``, ``bias`` (units,).
    """

    kind: ClassVar[str] = "convolution"

    same: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.windows

    @property
    def windows(self) -> tuple[Window, ...]:
        """The window along each axis."""
        return windows_of(self.size, self.stride, self.dilation, self.padding, self.same)

    def positions(self, entries: Sequence[Dim]) -> Sequence[Dim]:
        return [w.count(n) for w, n in zip(self.windows, entries, strict=True)]

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        axes = slides(self.windows, self.channels_first)
        feature = 1 if self.channels_first else len(shapes[0]) - 1
        sources = tuple(() if k == feature else s for k, s in enumerate(axes.sources))
        return (AxisMap(sources, {**axes.mixed, (0, feature): "sums"}),)

    def convolve(self, x: Array, kernel: Array) -> Array:
        axes = len(self.size)
        view = slide(x, self.windows, 0.0)  # (batch, *positions, features, *size)
        summed = ([*range(axes + 2, 2 * axes + 2), axes + 1], [*range(axes + 1)])
        return np.tensordot(view, kernel, axes=summed)


@dataclass(frozen=True)
class ConvolutionTranspose(_Convolving):
    """``y[t * stride + k * dilation - padding] += x[t] kernel[k]``, plus bias.

    ``t`` and ``k`` have one number for each spatial axis. An axis of ``n`` entries becomes
    ``(n - 1) * stride + (size - 1) * dilation + 1 + output_padding`` minus the padding.

    Parameters are those of :class:`Convolution`; ``padding`` are the outputs removed before and
    after.

    Parameters
    ----------
    output_padding
        More outputs after the last, one number for each axis; empty for none.

    Weights
    -------
    ``kernel`` (size, features / groups, units) and, with ``use_bias``, ``bias`` (units,).
    """

    kind: ClassVar[str] = "convolution_transpose"

    output_padding: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = windows_of(self.size, self.stride, self.dilation, self.padding, "")
        more = per_axis("output_padding", self.output_padding, len(self.size), 0)
        object.__setattr__(self, "output_padding", more)

    def _added(self, axis: int) -> int:
        """Return by how much an axis is longer than ``(n - 1) * stride``, before it is cut."""
        return (self.size[axis] - 1) * self.dilation[axis] + 1 + self.output_padding[axis]

    def positions(self, entries: Sequence[Dim]) -> Sequence[Dim]:
        made: list[Dim] = []
        for k, n in enumerate(entries):
            stride = self.stride[k]
            more = self._added(k) - self.padding[2 * k] - self.padding[2 * k + 1] - stride
            if isinstance(n, int):
                made.append(n * stride + more)
            elif stride == 1:
                made.append(plus(n, more))
            else:
                made.append(size_symbol(f"{n}*{stride}{more:+}"))
        short = [n for n in made if isinstance(n, int) and n < 1]
        if short:
            raise ShapeError(f"padding {self.padding}: no entry remains of {tuple(entries)}")
        return made

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        rank = len(shapes[0])
        mixed = dict.fromkeys(range(1, rank), "convolves")
        mixed[1 if self.channels_first else rank - 1] = "sums"
        return (AxisMap.same(rank, mixed),)

    def convolve(self, x: Array, kernel: Array) -> Array:
        entries = x.shape[1:-1]
        full = [(n - 1) * self.stride[k] + self._added(k) for k, n in enumerate(entries)]
        y = np.zeros((len(x), *full, kernel.shape[-1]), x.dtype)
        for tap in itertools.product(*map(range, self.size)):
            first = [k * gap for k, gap in zip(tap, self.dilation, strict=True)]
            places = [
                slice(a, a + (n - 1) * s + 1, s)
                for a, n, s in zip(first, entries, self.stride, strict=True)
            ]
            at = (slice(None), *places)
            y[at] += matmul(x, kernel[tap])
        kept = [slice(self.padding[2 * k], n - self.padding[2 * k + 1]) for k, n in enumerate(full)]
        inside = (slice(None), *kept)
        made: Array = y[inside]
        return made
