"""Array operations along an axis: index, slice, reverse, repeat, pad."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from npylstm.arrays import Array
from npylstm.errors import (
    FormatError,
    ShapeError,
)
from npylstm.ops.axis_map import AxisMap, check_axis
from npylstm.ops.base import Operation
from npylstm.ops.checks import one_input, positive
from npylstm.ops.shapes import Dim, Shape, format_shape, size_symbol

__all__ = ["Flip", "Pad", "Repeat", "Select", "SizeOf", "Slice", "Trilu"]


@dataclass(frozen=True)
class Select(Operation):
    """Take one index along an axis and remove the axis: ``x[:, -1]`` is axis 1, index -1."""

    kind: ClassVar[str] = "select"
    moves_elements: ClassVar[bool] = True
    keeps_relative_errors: ClassVar[bool] = True

    axis: int
    index: int

    @property
    def reduction(self) -> tuple[int, int | str]:
        return self.axis, self.index

    def magnitudes(
        self, weights: Mapping[str, Array], inputs: Sequence[Array], shapes: Sequence[Shape]
    ) -> Array | None:
        return None if self.axis == len(shapes[0]) - 1 and inputs[0].ndim else inputs[0]

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        shape = one_input(inputs)
        check_axis(shape, self.axis)
        size = shape[self.axis]
        if isinstance(size, int) and not -size <= self.index < size:
            raise ShapeError(f"index {self.index} does not fit axis {self.axis} of {shape}")
        return ((*shape[: self.axis], *shape[self.axis + 1 :]),)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        rank = len(shapes[0])
        if self.index == -1:
            kept = tuple(((0, k),) for k in range(rank) if k != self.axis)
            return (AxisMap(kept, last=frozenset({(0, self.axis)})),)
        return (AxisMap.without(rank, {self.axis: f"takes entry {self.index}"}),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        self.output_shapes([inputs[0].shape])
        return (inputs[0][(slice(None),) * self.axis + (self.index,)],), {}


@dataclass(frozen=True)
class Slice(Operation):
    """Take ``x[start:stop:step]`` along an axis; a stop of None is the end.

    ``size`` is the expected number of entries, if known.
    """

    kind: ClassVar[str] = "slice"
    moves_elements: ClassVar[bool] = True
    keeps_relative_errors: ClassVar[bool] = True

    axis: int
    start: int = 0
    stop: int | None = None
    step: int = 1
    size: int | None = None

    def __post_init__(self) -> None:
        positive("step", self.step)

    def magnitudes(
        self, weights: Mapping[str, Array], inputs: Sequence[Array], shapes: Sequence[Shape]
    ) -> Array | None:
        return None if self.axis == len(shapes[0]) - 1 and inputs[0].ndim else inputs[0]

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        shape = one_input(inputs)
        check_axis(shape, self.axis)
        size = shape[self.axis]
        taken: Dim
        if isinstance(size, int):
            taken = len(range(*slice(self.start, self.stop, self.step).indices(size)))
            if self.size not in (None, taken):
                raise ShapeError(f"axis {self.axis} of {shape}: expected {self.size} to take")
        elif self.size is not None:
            taken = self.size
        elif self.step == 1 and self.start >= 0 and (self.stop is None or self.stop < 0):
            taken = size_symbol(f"{size}-{self.start - (self.stop or 0)}")
        else:
            stop = "" if self.stop is None else self.stop
            taken = size_symbol(f"{size}[{self.start}:{stop}:{self.step}]")
        return ((*shape[: self.axis], taken, *shape[self.axis + 1 :]),)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        entries = f"takes the entries {self.start}:{'' if self.stop is None else self.stop}"
        axes = AxisMap.same(len(shapes[0]), {self.axis: entries})
        if (self.start, self.stop) != (-1, None):
            return (axes,)
        return (axes._replace(mixed={}, last=frozenset({(0, self.axis)})),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        self.output_shapes([inputs[0].shape])
        taken = slice(self.start, self.stop, self.step)
        return (inputs[0][(slice(None),) * self.axis + (taken,)],), {}


@dataclass(frozen=True)
class SizeOf(Operation):
    """The size of an axis, as a tensor without axes."""

    kind: ClassVar[str] = "size_of"

    axis: int

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        check_axis(one_input(inputs), self.axis)
        return ((),)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        return (AxisMap((), {(0, self.axis): "counts the entries"}, unread=frozenset({0})),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        x = inputs[0]
        return (np.asarray(x.shape[self.axis], x.dtype),), {}


@dataclass(frozen=True)
class Flip(Operation):
    """Reverse some axes."""

    kind: ClassVar[str] = "flip"
    keeps_shape: ClassVar[bool] = True
    moves_elements: ClassVar[bool] = True

    axes: tuple[int, ...]

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        shape = one_input(inputs)
        for axis in self.axes:
            check_axis(shape, axis)
        return (shape,)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        return (AxisMap.same(len(shapes[0]), dict.fromkeys(self.axes, "reverses the order")),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        return (np.flip(inputs[0], self.axes),), {}


@dataclass(frozen=True)
class Trilu(Operation):
    """Zeros above or below a diagonal of the last two axes, as ``numpy.tril`` and ``triu`` do.

    Parameters
    ----------
    upper
        The entries on the diagonal and above are kept, else those on it and below.
    k
        The diagonal: above the main one if positive.
    """

    kind: ClassVar[str] = "trilu"
    keeps_shape: ClassVar[bool] = True
    moves_elements: ClassVar[bool] = True

    upper: bool = False
    k: int = 0

    def input_value(self, output: float) -> float | None:
        return None  # the zeros have another

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        shape = one_input(inputs)
        if len(shape) < 2:
            raise FormatError(f"expected at least 2 axes, got an input {format_shape(shape)}")
        return (shape,)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        rank = len(shapes[0])
        mixed = dict.fromkeys((rank - 2, rank - 1), "zeros entries by their position")
        return (AxisMap.same(rank, mixed),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        return ((np.triu if self.upper else np.tril)(inputs[0], self.k),), {}


@dataclass(frozen=True)
class Repeat(Operation):
    """Repeat every entry along an axis: ``a b`` twice is ``a a b b``."""

    kind: ClassVar[str] = "repeat"
    moves_elements: ClassVar[bool] = True

    axis: int
    times: int

    def __post_init__(self) -> None:
        positive("times", self.times)

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        shape = one_input(inputs)
        check_axis(shape, self.axis)
        size = shape[self.axis]
        made = size * self.times if isinstance(size, int) else size_symbol(f"{size}*{self.times}")
        return ((*shape[: self.axis], made, *shape[self.axis + 1 :]),)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        return (AxisMap.same(len(shapes[0]), {self.axis: "repeats entries"}),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        return (np.repeat(inputs[0], self.times, self.axis),), {}


@dataclass(frozen=True)
class Pad(Operation):
    """Put zeros before and after, along an axis."""

    kind: ClassVar[str] = "pad"
    moves_elements: ClassVar[bool] = True

    axis: int
    before: int
    after: int

    def input_value(self, output: float) -> float | None:
        return None  # the padding has another

    def __post_init__(self) -> None:
        if min(self.before, self.after) < 0:
            raise FormatError(f"padding: expected 0 or more, got {self.before}, {self.after}")

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        shape = one_input(inputs)
        check_axis(shape, self.axis)
        size, more = shape[self.axis], self.before + self.after
        made = size + more if isinstance(size, int) else size_symbol(f"{size}+{more}")
        return ((*shape[: self.axis], made, *shape[self.axis + 1 :]),)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        return (AxisMap.same(len(shapes[0]), {self.axis: "pads"}),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        pads = [(0, 0)] * inputs[0].ndim
        pads[self.axis] = (self.before, self.after)
        return (np.pad(inputs[0], pads),), {}
