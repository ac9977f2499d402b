"""Read and write entries whose indices are in a tensor or in the config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from npylstm.arrays import Array
from npylstm.errors import FormatError, ShapeError, SizeMismatchError
from npylstm.ops.axis_map import At, AxisMap, check_axis
from npylstm.ops.base import Operation
from npylstm.ops.checks import one_input, one_of, positive
from npylstm.ops.shapes import Shape, format_shape, resize_axis

__all__ = ["SCATTER", "OneHot", "ScatterElements", "Take", "TakeAlongAxis", "indices_of"]


def indices_of(x: Array, size: int) -> Array:
    """Return indices into an axis as integers; negative ones count from the end.

    Raises
    ------
    ShapeError
        With the first number that is not such an index.
    """
    wrong = ~((x >= -size) & (x < size) & (x == np.floor(x)))  # nan is wrong, too
    if wrong.any():
        at = tuple(int(k) for k in np.argwhere(wrong)[0])
        raise ShapeError(f"index {x[at]:g} at {at}: expected an integer from {-size} to {size - 1}")
    found: Array = x.astype(np.int64)
    return found


def _two(inputs: Sequence[Shape], expected: int = 2) -> None:
    if len(inputs) != expected:
        raise FormatError(f"expected {expected} inputs, got {len(inputs)}")


@dataclass(frozen=True)
class Take(Operation):
    """Take entries along an axis, as ``numpy.take`` does.

    The axes of the indices replace the axis. Negative indices count from the end.

    Parameters
    ----------
    axis
        Of the first input, from 0 on.
    indices
        Of the entries, in order; if empty, they are the second input, of any shape.
    batch_dims
        The first so many axes of both inputs are the same axes, which the output has once: each
        row has its own indices.
    """

    kind: ClassVar[str] = "take"
    moves_elements: ClassVar[bool] = True

    axis: int
    indices: tuple[int, ...] = ()
    batch_dims: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.batch_dims <= self.axis:
            raise FormatError(f"batch_dims: expected 0 to {self.axis}, got {self.batch_dims}")
        if self.indices and self.batch_dims:
            raise FormatError(f"batch_dims: expected 0 for constant indices, got {self.batch_dims}")

    def input_value(self, output: float) -> float | None:
        return output if self.indices else None  # the indices have another

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        if self.indices:
            shape = one_input(inputs)
            size = shape[check_axis(shape, self.axis)]
            wrong = [k for k in self.indices if isinstance(size, int) and not -size <= k < size]
            if wrong:
                raise ShapeError(
                    f"index {wrong[0]} does not fit axis {self.axis} of {format_shape(shape)}"
                )
            return (resize_axis(shape, self.axis, len(self.indices)),)
        _two(inputs)
        shape, at = inputs
        check_axis(shape, self.axis)
        if self.batch_dims > len(at):
            raise FormatError(f"batch_dims: {self.batch_dims} do not fit {format_shape(at)}")
        for a, b in zip(shape[: self.batch_dims], at, strict=False):
            if a != b:
                listed = f"{format_shape(shape)} and {format_shape(at)}"
                raise SizeMismatchError(f"the first axes of {listed} differ", (a, b))
        return ((*shape[: self.axis], *at[self.batch_dims :], *shape[self.axis + 1 :]),)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        verb = "takes entries"
        if self.indices:
            return (AxisMap.same(len(shapes[0]), {self.axis: verb}),)
        own: list[tuple[At, ...]] = [((0, k),) for k in range(len(shapes[0]))]
        for k in range(self.batch_dims):
            own[k] += ((1, k),)
        new = [((1, k),) for k in range(self.batch_dims, len(shapes[1]))]
        sources = (*own[: self.axis], *new, *own[self.axis + 1 :])
        return (AxisMap(sources, {(0, self.axis): verb}),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        x = inputs[0]
        self.output_shapes([array.shape for array in inputs])
        if self.indices:
            return (x.take(self.indices, self.axis),), {}
        at = indices_of(inputs[1], x.shape[self.axis])
        if not self.batch_dims:
            return (x.take(at, self.axis),), {}
        # Entry [rows, ..., at]: the axis of the entries comes first among those behind the rows.
        moved = np.moveaxis(x, self.axis, self.batch_dims)
        rows = np.ix_(*map(np.arange, at.shape[: self.batch_dims]))
        behind = (1,) * (at.ndim - self.batch_dims)
        own = tuple(row.reshape(row.shape + behind) for row in rows)
        place = (*own, at)
        y = moved[place]
        new = range(self.batch_dims, at.ndim)
        target = range(self.axis, self.axis + len(new))
        return (np.moveaxis(y, new, target),), {}


def _along(axis: int, inputs: Sequence[Shape]) -> None:
    """Check that the other inputs have the first one's sizes, or smaller ones that are known."""
    shape = inputs[0]
    check_axis(shape, axis)
    for other in inputs[1:]:
        if len(other) != len(shape):
            listed = f"{format_shape(shape)} and {format_shape(other)}"
            raise FormatError(f"shapes {listed} do not fit together")
        for k, (a, b) in enumerate(zip(shape, other, strict=True)):
            smaller = isinstance(a, int) and isinstance(b, int) and b <= a
            if k != axis and a != b and not smaller:
                listed = f"{format_shape(shape)} and {format_shape(other)}"
                raise SizeMismatchError(f"shapes {listed} do not fit together", (a, b))


def _sources(axis: int, shapes: Sequence[Shape], of: int, verb: str) -> AxisMap:
    """Return the map of an output of the shape of input ``of``, mixed along an axis."""
    sources = tuple(
        tuple((n, k) for n, s in enumerate(shapes) if s[k] == shapes[of][k] and k != axis)
        for k in range(len(shapes[of]))
    )
    return AxisMap(sources, {(n, axis): verb for n in range(len(shapes))})


def _grid(axis: int, at: Array) -> tuple[Array, ...]:
    """Return the indices of an entry on all axes: ``at`` on one, the position on the others."""
    positions = np.ix_(*map(np.arange, at.shape))
    return (*positions[:axis], at, *positions[axis + 1 :])


@dataclass(frozen=True)
class TakeAlongAxis(Operation):
    """``y[i, j, k] = x[i, indices[i, j, k], k]`` for axis 1, with the second input's shape.

    ``GatherElements`` of ONNX and ``gather`` of PyTorch. Along other axes the indices may be fewer
    than the entries; nothing is broadcast. Negative indices count from the end.
    """

    kind: ClassVar[str] = "take_along_axis"
    moves_elements: ClassVar[bool] = True

    axis: int

    def input_value(self, output: float) -> float | None:
        return None  # the indices have another

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        _two(inputs)
        _along(self.axis, inputs)
        return (inputs[1],)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        axes = _sources(self.axis, shapes, 1, "takes entries")
        at = (1, self.axis)  # an index of its own for each entry
        sources = (*axes.sources[: self.axis], (at,), *axes.sources[self.axis + 1 :])
        return (AxisMap(sources, {(0, self.axis): "takes entries"}),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        x, indices = inputs
        self.output_shapes([x.shape, indices.shape])
        return (x[_grid(self.axis, indices_of(indices, x.shape[self.axis]))],), {}


# How an update is combined with what is there.
SCATTER: dict[str, Any] = {
    "add": np.add, "multiply": np.multiply, "maximum": np.maximum, "minimum": np.minimum,
}  # fmt: skip


@dataclass(frozen=True)
class ScatterElements(Operation):
    """``y = x``, then ``y[i, indices[i, j, k], k] = updates[i, j, k]`` for axis 1.

    ``ScatterElements`` of ONNX and ``scatter`` of PyTorch. Inputs are ``x``, ``indices`` and
    ``updates``, of the same shape as the indices. Negative indices count from the end.

    Parameters
    ----------
    axis
        From 0 on.
    mode
        ``set``; or ``add``, ``multiply``, ``maximum``, ``minimum``: combines the update with what
        is there.
    """

    kind: ClassVar[str] = "scatter_elements"
    keeps_shape: ClassVar[bool] = True

    axis: int
    mode: str = "set"

    def __post_init__(self) -> None:
        one_of("mode", self.mode, ("set", *SCATTER))

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        _two(inputs, 3)
        _along(self.axis, inputs)
        for a, b in zip(*inputs[1:], strict=True):
            if a != b:
                raise SizeMismatchError(
                    f"indices {format_shape(inputs[1])} and updates {format_shape(inputs[2])} "
                    "differ",
                    (a, b),
                )
        return (inputs[0],)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        return (_sources(self.axis, shapes, 0, "writes entries"),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        x, indices, updates = inputs
        self.output_shapes([array.shape for array in inputs])
        y = x.copy()
        at = _grid(self.axis, indices_of(indices, x.shape[self.axis]))
        if self.mode == "set":
            y[at] = updates
        else:
            SCATTER[self.mode].at(y, at, updates)
        return (y,), {}


@dataclass(frozen=True)
class OneHot(Operation):
    """A new axis of size ``depth`` with ``on`` at the index that the input holds, else ``off``.

    Parameters
    ----------
    depth
        Size of the new axis.
    axis
        Its position in the output; -1 is the last.
    on, off
        Values. Numbers that are no index give ``off`` everywhere.
    negative
        Negative indices count from the end, as in ONNX; else they are no indices.
    """

    kind: ClassVar[str] = "one_hot"

    depth: int
    axis: int = -1
    on: float = 1.0
    off: float = 0.0
    negative: bool = False

    def __post_init__(self) -> None:
        positive("depth", self.depth)

    def _axis(self, rank: int) -> int:
        return self.axis % (rank + 1)

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        shape = one_input(inputs)
        if not -len(shape) - 1 <= self.axis <= len(shape):
            raise FormatError(f"axis {self.axis} does not fit an input {format_shape(shape)}")
        axis = self._axis(len(shape))
        return ((*shape[:axis], self.depth, *shape[axis:]),)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        rank = len(shapes[0])
        sources, axis = AxisMap.same(rank).sources, self._axis(rank)
        return (AxisMap((*sources[:axis], (), *sources[axis:])),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        (x,) = inputs
        at = np.where(x < 0, x + self.depth, x) if self.negative else x
        axis = self._axis(x.ndim)
        every = np.arange(self.depth).reshape((self.depth,) + (1,) * (x.ndim - axis))
        number = x.dtype.type
        return (np.where(np.expand_dims(at, axis) == every, number(self.on), number(self.off)),), {}
