"""Array operations that take entries along an axis, reverse, repeat or pad it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from npylstm.errors import (
    FormatError,
    ShapeError,
    UnsupportedError,
)
from npylstm.ops.base import (
    FIXED,
    LATEST,
    Array,
    Dim,
    Operation,
    Shape,
    Time,
    joined,
    not_along,
    one_input,
    positive,
)
from npylstm.ops.sizes import keep_batch, name_size

__all__ = ["Flip", "Pad", "Repeat", "Select", "SizeOf", "Slice"]


@dataclass(frozen=True)
class Select(Operation):
    """Take one index along an axis, which goes: ``x[:, -1]`` is axis 1, index -1."""

    kind: ClassVar[str] = "select"

    axis: int
    index: int

    def output_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        shape = one_input(inputs)
        keep_batch(shape, self.axis, "selects")
        size = shape[self.axis]
        if isinstance(size, int) and not -size <= self.index < size:
            raise ShapeError(f"index {self.index} does not fit axis {self.axis} of {shape}")
        return ((*shape[: self.axis], *shape[self.axis + 1 :]),)

    def stream(self, times: Sequence[Time], shapes: Sequence[Shape]) -> tuple[Time, ...]:
        (time,) = times
        if time == self.axis:
            if self.index != -1:
                raise UnsupportedError(f"takes step {self.index}, where only the newest is at hand")
            return (LATEST,)
        return (time - (time > self.axis) if isinstance(time, int) else time,)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        self.output_shapes([inputs[0].shape])
        return (inputs[0][(slice(None),) * self.axis + (self.index,)],), {}


@dataclass(frozen=True)
class Slice(Operation):
    """Take ``x[start:stop:step]`` along an axis; stop null means to the end.

    ``size`` is how many entries that must give, where it is known beforehand.
    """

    kind: ClassVar[str] = "slice"

    axis: int
    start: int = 0
    stop: int | None = None
    step: int = 1
    size: int | None = None

    def __post_init__(self) -> None:
        positive("step", self.step)

    def output_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        shape = one_input(inputs)
        keep_batch(shape, self.axis, "slices")
        size = shape[self.axis]
        taken: Dim
        if isinstance(size, int):
            taken = len(range(*slice(self.start, self.stop, self.step).indices(size)))
            if self.size not in (None, taken):
                raise ShapeError(f"axis {self.axis} of {shape}: expected {self.size} to take")
        elif self.size is not None:
            taken = self.size
        elif self.step == 1 and self.start >= 0 and (self.stop is None or self.stop < 0):
            taken = name_size(f"{size}-{self.start - (self.stop or 0)}")
        else:
            stop = "" if self.stop is None else self.stop
            taken = name_size(f"{size}[{self.start}:{stop}:{self.step}]")
        return ((*shape[: self.axis], taken, *shape[self.axis + 1 :]),)

    def stream(self, times: Sequence[Time], shapes: Sequence[Shape]) -> tuple[Time, ...]:
        if self.axis not in times:
            return tuple(times)
        if (self.start, self.stop) != (-1, None):
            raise UnsupportedError(f"takes the steps {self.start}:{self.stop} of the sequence")
        return (LATEST,)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        self.output_shapes([inputs[0].shape])
        taken = slice(self.start, self.stop, self.step)
        return (inputs[0][(slice(None),) * self.axis + (taken,)],), {}


@dataclass(frozen=True)
class SizeOf(Operation):
    """The size of an axis, as a number (a tensor without axes)."""

    kind: ClassVar[str] = "size_of"

    axis: int

    def output_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        keep_batch(one_input(inputs), self.axis, "counts the entries")
        return ((),)

    def stream(self, times: Sequence[Time], shapes: Sequence[Shape]) -> tuple[Time, ...]:
        not_along(times, self.axis, "counts the steps")
        return (FIXED,)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        x = inputs[0]
        return (np.asarray(x.shape[self.axis], x.dtype),), {}


@dataclass(frozen=True)
class Flip(Operation):
    """Reverse the order along some axes."""

    kind: ClassVar[str] = "flip"

    axes: tuple[int, ...]

    def output_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        shape = one_input(inputs)
        for axis in self.axes:
            keep_batch(shape, axis, "reverses")
        return (shape,)

    def stream(self, times: Sequence[Time], shapes: Sequence[Shape]) -> tuple[Time, ...]:
        for axis in self.axes:
            not_along(times, axis, "reverses the steps")
        return tuple(times)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        return (np.flip(inputs[0], self.axes),), {}


@dataclass(frozen=True)
class Repeat(Operation):
    """Repeat every entry along an axis: ``a b`` twice is ``a a b b``."""

    kind: ClassVar[str] = "repeat"

    axis: int
    times: int

    def __post_init__(self) -> None:
        positive("times", self.times)

    def output_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        shape = one_input(inputs)
        keep_batch(shape, self.axis, "repeats")
        size = shape[self.axis]
        made = size * self.times if isinstance(size, int) else name_size(f"{size}*{self.times}")
        return ((*shape[: self.axis], made, *shape[self.axis + 1 :]),)

    def stream(self, times: Sequence[Time], shapes: Sequence[Shape]) -> tuple[Time, ...]:
        not_along(times, self.axis, "repeats")
        return (joined(times),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        return (np.repeat(inputs[0], self.times, self.axis),), {}


@dataclass(frozen=True)
class Pad(Operation):
    """Put zeros before and after, along an axis."""

    kind: ClassVar[str] = "pad"

    axis: int
    before: int
    after: int

    def __post_init__(self) -> None:
        if min(self.before, self.after) < 0:
            raise FormatError(f"padding: expected 0 or more, got {self.before}, {self.after}")

    def output_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        shape = one_input(inputs)
        keep_batch(shape, self.axis, "pads")
        size, more = shape[self.axis], self.before + self.after
        made = size + more if isinstance(size, int) else name_size(f"{size}+{more}")
        return ((*shape[: self.axis], made, *shape[self.axis + 1 :]),)

    def stream(self, times: Sequence[Time], shapes: Sequence[Shape]) -> tuple[Time, ...]:
        not_along(times, self.axis, "pads")
        return (joined(times),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        pads = [(0, 0)] * inputs[0].ndim
        pads[self.axis] = (self.before, self.after)
        return (np.pad(inputs[0], pads),), {}
