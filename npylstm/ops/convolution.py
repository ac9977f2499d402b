"""Convolution and pooling over time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from npylstm.activations import LINEAR, Activation
from npylstm.arrays import Array
from npylstm.errors import FormatError
from npylstm.ops.axis_map import AxisMap
from npylstm.ops.base import Operation
from npylstm.ops.checks import check_feature_activation, one_input, positive
from npylstm.ops.conventions import Convention
from npylstm.ops.shapes import BATCH, STEPS, Dim, Shape, format_shape
from npylstm.ops.windows import Window

__all__ = ["Conv1D", "Pool1D"]


def _check_padding(padding: tuple[int, ...]) -> None:
    if len(padding) != 2 or min(padding) < 0:
        raise FormatError(f"padding: expected two numbers from 0 on, got {padding}")


def _steps_of(shape: Shape, channels_first: bool) -> tuple[Dim, Dim]:
    """Return steps and features of a sequence."""
    if len(shape) != 3:
        raise FormatError(f"expected an input of 3 axes, got {format_shape(shape)}")
    return (shape[2], shape[1]) if channels_first else (shape[1], shape[2])


def _window(operation: Conv1D | Pool1D) -> Window:
    before, after = operation.padding
    same = "upper" if operation.same else ""
    return Window(operation.size, operation.stride, operation.dilation, before, after, same)


def _sides(padding: tuple[int, ...]) -> str:
    return f"{padding[0]} before, {padding[1]} behind"


def _other_paddings(operation: Conv1D | Pool1D, total: int, own: str) -> Iterator[Convention]:
    """Yield all ways to divide the padding between the two ends; ``own`` names the present one."""
    for before in range(total + 1):
        pads = (before, total - before)
        if operation.same or pads != operation.padding:
            other = replace(operation, same=False, padding=pads)
            yield Convention("padding", {"from": own, "to": _sides(pads)}, other)


def _slides(operation: Conv1D | Pool1D) -> AxisMap:
    """Return the axis map: mixed along the steps, except for windows of size 1 with stride 1."""
    steps = 2 if operation.channels_first else 1
    alone = _window(operation).is_alone
    return AxisMap.same(3, {} if alone else {steps: "slides a window"})


@dataclass(frozen=True)
class Conv1D(Operation):
    """``y[t] = sum over k of x[t * stride + k * dilation - padding] kernel[k] + bias``.

    Parameters
    ----------
    features, units, size
        Features of the input, features of the output, steps of the window.
    stride, dilation, groups
        As in Keras and PyTorch.
    padding
        Zeros before and after the sequence.
    same
        Zero padding that gives one output for every ``stride`` steps; then ``padding`` is (0, 0).
    channels_first
        Input and output are (batch, features, steps).
    activation
        Of the output.

    Weights
    -------
    ``kernel`` (size, features / groups, units) and, with ``use_bias``, ``bias`` (units,).
    """

    kind: ClassVar[str] = "conv1d"

    features: int
    units: int
    size: int
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    padding: tuple[int, ...] = (0, 0)
    channels_first: bool = False
    use_bias: bool = True
    same: bool = False
    activation: Activation = LINEAR

    def __post_init__(self) -> None:
        check_feature_activation("activation", self.activation)
        for name in ("features", "units", "size", "stride", "dilation", "groups"):
            positive(name, getattr(self, name))
        _check_padding(self.padding)
        if self.features % self.groups or self.units % self.groups:
            raise FormatError(
                f"groups: expected a divisor of {self.features} and {self.units}, got {self.groups}"
            )

    @property
    def _span(self) -> int:
        return _window(self).span

    def pads(self, steps: int) -> tuple[int, int]:
        """Return the number of zero steps before and after the sequence."""
        return _window(self).pads(steps)

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        kernel = (self.size, self.features // self.groups, self.units)
        shapes: dict[str, tuple[int, ...]] = {"kernel": kernel}
        return shapes | {"bias": (self.units,)} if self.use_bias else shapes

    @property
    def expected_input(self) -> Shape:
        return (
            (BATCH, self.features, STEPS) if self.channels_first else (BATCH, STEPS, self.features)
        )

    def weight_role(self, name: str) -> str | None:
        return {"kernel": "kernel", "bias": "bias"}.get(name)

    def conventions(self, weights: Mapping[str, Array]) -> Iterator[Convention]:
        """Yield the padding on other sides, and ``same`` for other paddings."""
        own = "same" if self.same else _sides(self.padding)
        total = (self.size - 1) * self.dilation if self.same else sum(self.padding)
        yield from _other_paddings(self, total, own)
        if not self.same:
            other = replace(self, same=True, padding=(0, 0))
            yield Convention("padding", {"from": own, "to": "same"}, other)

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        shape = one_input(inputs)
        steps, features = _steps_of(shape, self.channels_first)
        if features != self.features:
            raise FormatError(
                f"expected {self.features} features, got an input {format_shape(shape)}"
            )
        made = _window(self).count(steps)
        return ((shape[0], *((self.units, made) if self.channels_first else (made, self.units))),)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        axes = _slides(self)
        feature = 1 if self.channels_first else 2
        sources = tuple(() if k == feature else s for k, s in enumerate(axes.sources))
        return (AxisMap(sources, {**axes.mixed, (0, feature): "sums"}),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        self.output_shapes([inputs[0].shape])
        x = inputs[0].swapaxes(1, 2) if self.channels_first else inputs[0]
        x = np.pad(x, ((0, 0), self.pads(x.shape[1]), (0, 0)))
        # (batch, positions, features, size)
        windows = sliding_window_view(x, self._span, axis=1)[:, :: self.stride, :, :: self.dilation]
        kernels = np.split(packed["kernel"], self.groups, axis=2)
        parts = [
            np.tensordot(part, kernel, axes=((3, 2), (0, 1)))
            for part, kernel in zip(np.split(windows, self.groups, axis=2), kernels, strict=True)
        ]
        y = np.concatenate(parts, axis=-1)
        if self.use_bias:
            y = y + packed["bias"]
        y = self.activation(y)
        return (y.swapaxes(1, 2) if self.channels_first else y,), {}


@dataclass(frozen=True)
class Pool1D(Operation):
    """Maximum or mean of every window over time.

    Parameters
    ----------
    operation
        ``max`` or ``mean``.
    size, stride, dilation
        Of the window.
    padding
        Steps before and after: minus infinity for ``max``, zero for ``mean``.
    same
        Padding that gives one output for every ``stride`` steps.
    count_padding
        ``mean`` divides by the window's size also where the window includes padding.
    channels_first
        Input and output are (batch, features, steps).
    """

    kind: ClassVar[str] = "pool1d"

    operation: str
    size: int
    stride: int
    dilation: int = 1
    padding: tuple[int, ...] = (0, 0)
    count_padding: bool = False
    channels_first: bool = False
    same: bool = False

    def __post_init__(self) -> None:
        if self.operation not in ("max", "mean"):
            raise FormatError(f"operation: expected max or mean, got {self.operation!r:.40}")
        for name in ("size", "stride", "dilation"):
            positive(name, getattr(self, name))
        _check_padding(self.padding)

    @property
    def windows(self) -> tuple[Window]:
        """The window along the steps."""
        return (_window(self),)

    @property
    def _span(self) -> int:
        return _window(self).span

    def conventions(self, weights: Mapping[str, Array]) -> Iterator[Convention]:
        """Yield the mean with or without the padding, and the padding on other sides."""
        if self.operation == "mean":
            other = replace(self, count_padding=not self.count_padding)
            said = "counted" if other.count_padding else "not counted"
            yield Convention("padding", {"from": "padding", "to": f"padding {said}"}, other)
        total = self.size - 1 if self.same else sum(self.padding)
        yield from _other_paddings(self, total, "same" if self.same else str(self.padding))

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        shape = one_input(inputs)
        steps, features = _steps_of(shape, self.channels_first)
        made = _window(self).count(steps)
        return ((shape[0], *((features, made) if self.channels_first else (made, features))),)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        return (_slides(self),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        self.output_shapes([inputs[0].shape])
        x = inputs[0].swapaxes(1, 2) if self.channels_first else inputs[0]
        y = self._largest(x) if self.operation == "max" else self._mean(x)
        return (y.swapaxes(1, 2) if self.channels_first else y,), {}

    def _places(self, x: Array, nothing: float) -> Array:
        pads = _window(self).pads(x.shape[1])
        padded = np.pad(x, ((0, 0), pads, (0, 0)), constant_values=nothing)
        windows = sliding_window_view(padded, self._span, axis=1)
        taken: Array = windows[:, :: self.stride, :, :: self.dilation]
        return taken

    def _largest(self, x: Array) -> Array:
        largest: Array = self._places(x, -np.inf).max(axis=-1)
        return largest

    def _mean(self, x: Array) -> Array:
        total = self._places(x, 0.0).sum(axis=-1, dtype=np.float64)
        counts: Array | int = self.size
        if not self.count_padding:
            counts = self._places(np.ones_like(x[:1, :, :1]), 0.0).sum(axis=-1)
        mean: Array = (total / counts).astype(x.dtype)
        return mean
