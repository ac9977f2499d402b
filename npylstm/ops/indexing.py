"""Array operations along an axis: index, slice, reverse, repeat, pad."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from npylstm.arrays import Array
from npylstm.errors import (
    FormatError,
    ShapeError,
)
from npylstm.ops.axis_map import AxisMap, check_axis
from npylstm.ops.base import Operation
from npylstm.ops.checks import one_input, one_of, positive
from npylstm.ops.shapes import Dim, Shape, format_shape, plus, resize_axis, size_symbol

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
    """Take ``x[start:stop:step]`` along an axis.

    A start or stop of None is the end on its side. ``size`` is the expected number of entries to
    take, if known; ``fewest`` is how many the axis must have, for a bound that is counted from its
    end.
    """

    kind: ClassVar[str] = "slice"
    moves_elements: ClassVar[bool] = True
    keeps_relative_errors: ClassVar[bool] = True

    axis: int
    start: int | None = 0
    stop: int | None = None
    step: int = 1
    size: int | None = None
    fewest: int = 0

    def __post_init__(self) -> None:
        if not self.step:
            raise FormatError("step: expected an integer other than 0, got 0")

    @property
    def _bounds(self) -> str:
        return ":".join("" if v is None else str(v) for v in (self.start, self.stop))

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
            if size < self.fewest:
                raise ShapeError(
                    f"axis {self.axis} of {format_shape(shape)}: expected at least {self.fewest} "
                    "entries"
                )
            taken = len(range(*slice(self.start, self.stop, self.step).indices(size)))
            if self.size not in (None, taken):
                raise ShapeError(f"axis {self.axis} of {shape}: expected {self.size} to take")
        elif self.size is not None:
            taken = self.size
        elif (self.start, self.stop, self.step) == (None, None, -1):
            taken = size
        elif self.step == 1 and (self.start or 0) >= 0 and (self.stop is None or self.stop < 0):
            taken = plus(size, (self.stop or 0) - (self.start or 0))
        else:
            taken = size_symbol(f"{size}[{self._bounds}:{self.step}]")
        return ((*shape[: self.axis], taken, *shape[self.axis + 1 :]),)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        entries = f"takes the entries {self._bounds}" if self.step > 0 else "reverses the order"
        axes = AxisMap.same(len(shapes[0]), {self.axis: entries})
        if (self.start, self.stop) != (-1, None) or self.step < 0:
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


_PAD_MODES = ("constant", "reflect", "edge", "wrap")


@dataclass(frozen=True)
class Pad(Operation):
    """Put entries before and after, along an axis; negative numbers remove entries.

    Parameters
    ----------
    axis
        From 0 on.
    before, after
        How many entries; both of one sign unless ``mode`` is ``constant``.
    mode
        ``constant``: ``value``; ``reflect``: mirrored, without the entry at the end; ``edge``: the
        entry at the end; ``wrap``: from the other end. Names and results are those of
        ``numpy.pad``.
    value
        Cast to the input's dtype.
    """

    kind: ClassVar[str] = "pad"

    axis: int
    before: int
    after: int
    mode: str = "constant"
    value: float = 0.0

    @property
    def keeps_ids(self) -> bool:
        return self.value == 0

    def __post_init__(self) -> None:
        one_of("mode", self.mode, _PAD_MODES)
        if self.mode == "constant":
            return
        if self.value:
            raise FormatError(f"value: expected 0 for the mode {self.mode}, got {self.value}")
        if min(self.before, self.after) < 0 < max(self.before, self.after):
            raise FormatError(
                f"padding: expected two numbers of one sign for the mode {self.mode}, got "
                f"{self.before}, {self.after}"
            )

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        shape = one_input(inputs)
        check_axis(shape, self.axis)
        size, more = shape[self.axis], self.before + self.after
        made = plus(size, more)
        fewest = 1 - min(self.before, 0) - min(self.after, 0)
        largest = max(self.before, self.after)
        fewest = max(fewest, {"reflect": largest + 1, "wrap": largest}.get(self.mode, 1))
        if isinstance(size, int) and size < fewest:
            raise ShapeError(
                f"padding {self.before}, {self.after} ({self.mode}): expected at least {fewest} "
                f"entries on axis {self.axis}, got an input {format_shape(shape)}"
            )
        return (resize_axis(shape, self.axis, made),)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        verb = "pads" if max(self.before, self.after) > 0 else "removes entries"
        return (AxisMap.same(len(shapes[0]), {self.axis: verb}),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        (x,) = inputs
        self.output_shapes([x.shape])
        kept = slice(max(-self.before, 0), x.shape[self.axis] - max(-self.after, 0))
        x = x[(slice(None),) * self.axis + (kept,)]
        pads = [(0, 0)] * x.ndim
        pads[self.axis] = (max(self.before, 0), max(self.after, 0))
        options: dict[str, Any] = {"mode": self.mode}
        if self.mode == "constant":
            options["constant_values"] = self.value
        return (np.pad(x, pads, **options),), {}
