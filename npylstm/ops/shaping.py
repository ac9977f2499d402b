"""Array operations that change the shape: reshape, transpose, expand, concatenate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from npylstm.errors import (
    FormatError,
    MixedSamplesError,
    ShapeError,
    UnequalError,
    UnsupportedError,
)
from npylstm.ops.base import (
    FIXED,
    Array,
    Dim,
    Operation,
    Shape,
    Time,
    format_shape,
    joined,
    not_along,
    one_input,
    positive,
)
from npylstm.ops.sizes import (
    axis_of,
    between,
    broadcast,
    divide,
    expect_batch,
    factors,
    keep_batch,
    merged,
    name_size,
    product,
    split_batch_alike,
)

__all__ = [
    "Concatenate",
    "Expand",
    "Flatten",
    "Full",
    "Permute",
    "RepeatVector",
    "Reshape",
    "Size",
    "Stack",
    "Transpose",
    "View",
    "check_sizes",
    "resolve",
]


# A size of a target shape: a number, -1 for "what is left", or [input, axis] for "as large as that
# axis of that input".
Size = int | tuple[int, int]


def resolve(sizes: Sequence[Size], inputs: Sequence[Shape]) -> Shape:
    """Look up the sizes that are taken from inputs; -1 stays."""
    resolved: list[Dim] = []
    for size in sizes:
        if isinstance(size, int):
            resolved.append(size)
            continue
        source, axis = size
        if not 0 <= source < len(inputs) or not 0 <= axis < len(inputs[source]):
            raise FormatError(f"size {list(size)}: no such input or axis")
        resolved.append(inputs[source][axis])
    return tuple(resolved)


def check_sizes(name: str, sizes: Sequence[Size], inferred: bool = False) -> None:
    """Refuse sizes below one, but for one -1 where something is left to infer."""
    wrong = [d for d in sizes if isinstance(d, int) and d < 1 and not (inferred and d == -1)]
    if wrong or list(sizes).count(-1) > 1:
        raise FormatError(f"{name}: expected positive sizes, got {sizes}")


def _lent(sizes: Sequence[Size], times: Sequence[Time], shapes: Sequence[Shape]) -> list[Time]:
    """Time axes of a target shape: those that are lent by the time axis of an input."""
    lent: list[Time] = [FIXED]
    for axis, size in enumerate(sizes):
        if not isinstance(size, int) and times[size[0]] == size[1]:
            lent.append(axis)
    return lent


def reshaped(time: Time, source: Shape, target: Shape) -> Time:
    """Follow the time axis through a row-major reshaping.

    Raises
    ------
    UnsupportedError
        If it does not come out whole, as an axis of its own.
    """
    if not isinstance(time, int):
        return time
    before = factors(source[:time])
    for axis, size in enumerate(target):
        if size == source[time] and factors(target[:axis]) == before:
            return axis
    raise UnsupportedError(
        f"merges the time axis of {format_shape(source)} into {format_shape(target)}"
    )


@dataclass(frozen=True)
class Transpose(Operation):
    """Reorder all axes, the batch's among them, as ``numpy.transpose`` does."""

    kind: ClassVar[str] = "transpose"

    axes: tuple[int, ...]

    def __post_init__(self) -> None:
        if sorted(self.axes) != list(range(len(self.axes))):
            raise FormatError(
                f"axes: expected a permutation of 0..{len(self.axes) - 1}, got {self.axes}"
            )

    def output_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        shape = one_input(inputs)
        if len(shape) != len(self.axes):
            raise FormatError(f"axes {self.axes} do not fit an input {format_shape(shape)}")
        return (tuple(shape[a] for a in self.axes),)

    def stream(self, times: Sequence[Time], shapes: Sequence[Shape]) -> tuple[Time, ...]:
        (time,) = times
        return (self.axes.index(time) if isinstance(time, int) else time,)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        return (inputs[0].transpose(self.axes),), {}


@dataclass(frozen=True)
class View(Operation):
    """See the elements in another shape, row-major, the batch's axis anywhere.

    Further inputs lend their sizes: ``[1, 0]`` in ``shape`` is the size of axis 0 of the second.
    One -1 takes what is left.
    """

    kind: ClassVar[str] = "view"

    shape: tuple[Size, ...]

    def __post_init__(self) -> None:
        check_sizes("shape", self.shape, inferred=True)

    def output_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        if not inputs:
            raise FormatError("expected an input")
        source, target = inputs[0], resolve(self.shape, inputs)
        left = divide(factors(source), factors([d for d in target if d != -1]))
        if left is None or (left and -1 not in target):
            raise ShapeError(f"{format_shape(source)} cannot be seen as {format_shape(target)}")
        if -1 in target:
            at = target.index(-1)
            inner = between(factors(source), factors(target[:at]), factors(target[at + 1 :]))
            target = (*target[:at], merged(left if inner is None else inner), *target[at + 1 :])
        if not split_batch_alike(source, target):
            raise MixedSamplesError(
                f"seeing {format_shape(source)} as {format_shape(target)} would mix samples "
                "of the batch (is batch_first as it should be?)"
            )
        return (target,)

    def stream(self, times: Sequence[Time], shapes: Sequence[Shape]) -> tuple[Time, ...]:
        return (reshaped(times[0], shapes[0], self.output_shapes(shapes)[0]),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        (target,) = self.output_shapes([x.shape for x in inputs])
        return (inputs[0].reshape([int(d) for d in target]),), {}


@dataclass(frozen=True)
class Expand(Operation):
    """Repeat along axes of size one (and new axes in front) up to a shape; see :class:`View`."""

    kind: ClassVar[str] = "expand"

    shape: tuple[Size, ...]

    def __post_init__(self) -> None:
        check_sizes("shape", self.shape)

    def output_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        if not inputs:
            raise FormatError("expected an input")
        target = resolve(self.shape, inputs)
        if broadcast([inputs[0], target]) != target:
            raise FormatError(
                f"{format_shape(inputs[0])} cannot be expanded to {format_shape(target)}"
            )
        return (target,)

    def stream(self, times: Sequence[Time], shapes: Sequence[Shape]) -> tuple[Time, ...]:
        shift = len(self.shape) - len(shapes[0])
        lent = [t for t in _lent(self.shape, times, shapes) if isinstance(t, int)]
        own = times[0] + shift if isinstance(times[0], int) else times[0]
        return (joined([own, *lent]),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        (target,) = self.output_shapes([x.shape for x in inputs])
        return (np.broadcast_to(inputs[0], [int(d) for d in target]),), {}


@dataclass(frozen=True)
class Full(Operation):
    """Make an array of one value; the inputs only lend their sizes, see :class:`View`."""

    kind: ClassVar[str] = "full"

    shape: tuple[Size, ...]
    value: float = 0.0

    def __post_init__(self) -> None:
        check_sizes("shape", self.shape)

    def output_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        return (resolve(self.shape, inputs),)

    def stream(self, times: Sequence[Time], shapes: Sequence[Shape]) -> tuple[Time, ...]:
        return (joined(_lent(self.shape, times, shapes)),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        (target,) = self.output_shapes([x.shape for x in inputs])
        return (np.full([int(d) for d in target], self.value, inputs[0].dtype),), {}


def _same_but(shapes: Sequence[Shape], axis: int | None) -> None:
    """Refuse shapes that differ in another axis than this one."""
    if not shapes:
        raise FormatError("expected at least one input")
    listed = " and ".join(map(format_shape, shapes))
    for shape in shapes:
        if len(shape) != len(shapes[0]):
            raise FormatError(f"shapes {listed} do not fit together")
        for k, (a, b) in enumerate(zip(shapes[0], shape, strict=True)):
            if a != b and k != axis:
                raise UnequalError(f"shapes {listed} do not fit together", (a, b))


@dataclass(frozen=True)
class Concatenate(Operation):
    """Set inputs side by side along an axis, which may be counted from the back."""

    kind: ClassVar[str] = "concatenate"

    axis: int

    def output_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        axis = self.axis
        if inputs:
            axis = axis_of(inputs[0], axis + len(inputs[0]) if axis < 0 else axis)
        _same_but(inputs, axis)
        for shape in inputs:
            keep_batch(shape, axis, "concatenates")
        sizes = [shape[axis] for shape in inputs]
        total: Dim = sum(d for d in sizes if isinstance(d, int))
        symbols = [d for d in sizes if isinstance(d, str)]
        if symbols:
            total = name_size("+".join([*sorted(symbols), *([str(total)] if total else [])]))
        return ((*inputs[0][:axis], total, *inputs[0][axis + 1 :]),)

    def stream(self, times: Sequence[Time], shapes: Sequence[Shape]) -> tuple[Time, ...]:
        not_along(times, self.axis % len(shapes[0]), "concatenates")
        return (joined(times),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        return (np.concatenate(inputs, self.axis),), {}


@dataclass(frozen=True)
class Stack(Operation):
    """Set inputs side by side along a new axis."""

    kind: ClassVar[str] = "stack"

    axis: int

    def output_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        _same_but(inputs, None)
        if not 0 <= self.axis <= len(inputs[0]):
            raise FormatError(f"axis {self.axis} does not fit inputs {format_shape(inputs[0])}")
        shape = inputs[0]
        return ((*shape[: self.axis], len(inputs), *shape[self.axis :]),)

    def stream(self, times: Sequence[Time], shapes: Sequence[Shape]) -> tuple[Time, ...]:
        time = joined(times)
        return (time + (time >= self.axis) if isinstance(time, int) else time,)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        return (np.stack(inputs, self.axis),), {}


@dataclass(frozen=True)
class Flatten(Operation):
    """Turn ``(batch, a, b, ...)`` into ``(batch, a * b * ...)``, row-major."""

    kind: ClassVar[str] = "flatten"

    def output_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        shape = one_input(inputs)
        expect_batch(shape)
        return ((shape[0], product(shape[1:])),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        x = inputs[0]
        return (x.reshape(x.shape[0], math.prod(x.shape[1:])),), {}


@dataclass(frozen=True)
class Reshape(Operation):
    """Turn ``(batch, ...)`` into ``(batch, *target_shape)``, row-major; one -1 is inferred."""

    kind: ClassVar[str] = "reshape"

    target_shape: tuple[int, ...]

    def __post_init__(self) -> None:
        wrong = [d for d in self.target_shape if d != -1 and d < 1]
        if wrong or self.target_shape.count(-1) > 1:
            raise FormatError(
                "target_shape: expected positive integers and at most one -1, "
                f"got {self.target_shape}"
            )

    def output_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        shape = one_input(inputs)
        expect_batch(shape)
        size, rest = product(shape[1:]), math.prod(d for d in self.target_shape if d != -1)
        inferred: Dim = f"({size})/{rest}"
        if isinstance(size, int):
            if (size % rest if -1 in self.target_shape else size - rest) != 0:
                raise FormatError(
                    f"target_shape {self.target_shape} does not fit an input {format_shape(shape)}"
                )
            inferred = size // rest
        return ((shape[0], *(inferred if d == -1 else d for d in self.target_shape)),)

    def stream(self, times: Sequence[Time], shapes: Sequence[Shape]) -> tuple[Time, ...]:
        return (reshaped(times[0], shapes[0], self.output_shapes(shapes)[0]),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        x = inputs[0]
        size = math.prod(x.shape[1:])
        rest = math.prod(d for d in self.target_shape if d != -1)
        if (size % rest if -1 in self.target_shape else size - rest) != 0:
            raise ShapeError(f"target_shape {self.target_shape} does not fit {x.shape[1:]}")
        target = (size // rest if d == -1 else d for d in self.target_shape)
        return (x.reshape(x.shape[0], *target),), {}


@dataclass(frozen=True)
class Permute(Operation):
    """Reorder the axes after the first; ``dims`` counts them from 1, as Keras does."""

    kind: ClassVar[str] = "permute"

    dims: tuple[int, ...]

    def __post_init__(self) -> None:
        if sorted(self.dims) != list(range(1, len(self.dims) + 1)):
            raise FormatError(
                f"dims: expected a permutation of 1..{len(self.dims)}, got {self.dims}"
            )

    def output_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        shape = one_input(inputs)
        if len(shape) != len(self.dims) + 1:
            raise FormatError(f"dims {self.dims} do not fit an input {format_shape(shape)}")
        return ((shape[0], *(shape[d] for d in self.dims)),)

    def stream(self, times: Sequence[Time], shapes: Sequence[Shape]) -> tuple[Time, ...]:
        (time,) = times
        return (self.dims.index(time) + 1 if isinstance(time, int) and time else time,)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        return (inputs[0].transpose(0, *self.dims),), {}


@dataclass(frozen=True)
class RepeatVector(Operation):
    """Turn ``(batch, features)`` into ``(batch, n, features)`` by repetition."""

    kind: ClassVar[str] = "repeat_vector"

    n: int

    def __post_init__(self) -> None:
        positive("n", self.n)

    def output_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        shape = one_input(inputs)
        if len(shape) != 2:
            raise FormatError(f"expected an input of 2 axes, got {format_shape(shape)}")
        return ((shape[0], self.n, shape[1]),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        return (np.repeat(inputs[0][:, None, :], self.n, axis=1),), {}
