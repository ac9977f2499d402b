"""Array operations that change the shape: reshape, transpose, expand, concatenate."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from npylstm.arrays import Array
from npylstm.errors import (
    FormatError,
    MixedSamplesError,
    ShapeError,
    SizeMismatchError,
)
from npylstm.ops.axis_map import At, AxisMap, check_axis
from npylstm.ops.base import Operation
from npylstm.ops.checks import one_input, positive
from npylstm.ops.shapes import (
    Dim,
    Shape,
    between,
    broadcast,
    divide,
    factors,
    format_shape,
    holds_batch,
    keeps_samples_separate,
    merged,
    plus,
    size_symbol,
    unmatched_factors,
)

__all__ = [
    "Concatenate",
    "Expand",
    "Full",
    "Reshape",
    "Size",
    "Stack",
    "Transpose",
    "check_sizes",
    "resolve",
]


# A size of a target shape: an integer, -1 for the remaining entries, or [input, axis] for the size
# of that axis of that input.
Size = int | tuple[int, int]
BATCH_SIZE: Size = (0, 0)  # the batch axis of the first input


def resolve(sizes: Sequence[Size], inputs: Sequence[Shape]) -> Shape:
    """Replace ``[input, axis]`` by sizes of the inputs; -1 stays."""
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
    """Check that sizes are positive; with ``inferred`` one may be -1."""
    wrong = [d for d in sizes if isinstance(d, int) and d < 1 and not (inferred and d == -1)]
    if wrong or list(sizes).count(-1) > 1:
        more = " and at most one -1" if inferred else ""
        raise FormatError(f"{name}: expected positive sizes{more}, got {sizes}")


def _with_lenders(
    own: tuple[tuple[At, ...], ...], sizes: Sequence[Size]
) -> tuple[tuple[At, ...], ...]:
    """Add to the sources of each axis the input axis that its size is taken from."""
    lent: list[tuple[At, ...]] = [(size,) if isinstance(size, tuple) else () for size in sizes]
    return tuple(a + b for a, b in zip(own, lent, strict=True))


def reshaped(source: Shape, target: Shape, inputs: int = 1) -> AxisMap:
    """Return the axis map of a row-major reshape; only the sizes of further inputs are used.

    An axis is parallel to a target axis with its size and as many entries before it. The batch is
    also parallel to an axis that it is merged into.
    """
    sources: list[tuple[At, ...]] = [()] * len(target)
    for axis, size in enumerate(source):
        before = factors(source[:axis])
        for j, made in enumerate(target):
            same = size == made and factors(target[:j]) == before
            if same or (holds_batch(size) and holds_batch(made)):
                sources[j] += ((0, axis),)
    mixed = {
        (0, axis): f"reshapes {format_shape(source)} to {format_shape(target)}"
        for axis in range(len(source))
        if not any((0, axis) in at for at in sources)
    }
    return AxisMap(tuple(sources), mixed, unread=frozenset(range(1, inputs)))


@dataclass(frozen=True)
class Transpose(Operation):
    """Reorder all axes, including the batch, as ``numpy.transpose`` does."""

    kind: ClassVar[str] = "transpose"
    moves_elements: ClassVar[bool] = True

    axes: tuple[int, ...]

    def __post_init__(self) -> None:
        if sorted(self.axes) != list(range(len(self.axes))):
            raise FormatError(
                f"axes: expected a permutation of 0..{len(self.axes) - 1}, got {self.axes}"
            )

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        shape = one_input(inputs)
        if len(shape) != len(self.axes):
            raise FormatError(f"axes {self.axes} do not fit an input {format_shape(shape)}")
        return (tuple(shape[a] for a in self.axes),)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        return (AxisMap(tuple(((0, axis),) for axis in self.axes)),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        return (inputs[0].transpose(self.axes),), {}


@dataclass(frozen=True)
class Reshape(Operation):
    """Reshape in row-major order; the batch may be any axis.

    ``shape`` may use sizes of further inputs: ``[1, 0]`` is the size of axis 0 of the second input.
    One size may be -1, as in NumPy.
    """

    kind: ClassVar[str] = "reshape"
    moves_elements: ClassVar[bool] = True

    shape: tuple[Size, ...]

    def __post_init__(self) -> None:
        check_sizes("shape", self.shape, inferred=True)

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        if not inputs:
            raise FormatError("expected an input")
        source, wanted = inputs[0], resolve(self.shape, inputs)
        target = wanted
        left = divide(factors(source), factors([d for d in target if d != -1]))
        if left is None or (left and -1 not in target):
            if all(isinstance(d, int) for d in unmatched_factors(source, target)):
                raise ShapeError(
                    f"{format_shape(source)} cannot be reshaped to {format_shape(target)}"
                )
            # Symbolic sizes are compared when the model is called.
            rest = size_symbol(f"{format_shape(source)}/{format_shape(wanted)}")
            target = tuple(rest if d == -1 else d for d in target)
        elif -1 in target:
            at = target.index(-1)
            inner = between(factors(source), factors(target[:at]), factors(target[at + 1 :]))
            target = (*target[:at], merged(left if inner is None else inner), *target[at + 1 :])
        if not keeps_samples_separate(source, target):
            raise MixedSamplesError(
                f"reshaping {format_shape(source)} to {format_shape(wanted)} would mix samples "
                "of the batch (is batch_first as it should be?)"
            )
        return (target,)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        (target,) = self.infer_shapes(shapes)
        return (reshaped(shapes[0], target, len(shapes)),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        (target,) = self.output_shapes([x.shape for x in inputs])
        return (inputs[0].reshape([int(d) for d in target]),), {}


@dataclass(frozen=True)
class Expand(Operation):
    """Broadcast to a shape, with new axes in front; see :class:`Reshape` for ``shape``."""

    kind: ClassVar[str] = "expand"
    moves_elements: ClassVar[bool] = True

    shape: tuple[Size, ...]

    def __post_init__(self) -> None:
        check_sizes("shape", self.shape)

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        if not inputs:
            raise FormatError("expected an input")
        target = resolve(self.shape, inputs)
        if broadcast([inputs[0], target]) != target:
            raise FormatError(
                f"{format_shape(inputs[0])} cannot be expanded to {format_shape(target)}"
            )
        return (target,)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        new = ((),) * (len(self.shape) - len(shapes[0]))
        own = (*new, *AxisMap.same(len(shapes[0])).sources)
        return (AxisMap(_with_lenders(own, self.shape), unread=frozenset(range(1, len(shapes)))),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        (target,) = self.output_shapes([x.shape for x in inputs])
        return (np.broadcast_to(inputs[0], [int(d) for d in target]),), {}


@dataclass(frozen=True)
class Full(Operation):
    """An array of one value; only the sizes of inputs are used, see :class:`Reshape`."""

    kind: ClassVar[str] = "full"

    shape: tuple[Size, ...]
    value: float = 0.0

    def __post_init__(self) -> None:
        check_sizes("shape", self.shape)

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        return (resolve(self.shape, inputs),)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        none: tuple[tuple[At, ...], ...] = ((),) * len(self.shape)
        return (AxisMap(_with_lenders(none, self.shape), unread=frozenset(range(len(shapes)))),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        (target,) = self.output_shapes([x.shape for x in inputs])
        return (np.full([int(d) for d in target], self.value, inputs[0].dtype),), {}


def _same_but(shapes: Sequence[Shape], axis: int | None) -> None:
    """Check that shapes differ at most in this axis."""
    if not shapes:
        raise FormatError("expected at least one input")
    listed = " and ".join(map(format_shape, shapes))
    for shape in shapes:
        if len(shape) != len(shapes[0]):
            raise FormatError(f"shapes {listed} do not fit together")
        for k, (a, b) in enumerate(zip(shapes[0], shape, strict=True)):
            if a != b and k != axis:
                raise SizeMismatchError(f"shapes {listed} do not fit together", (a, b))


@dataclass(frozen=True)
class Concatenate(Operation):
    """Concatenate inputs along an axis; negative axes count from the end."""

    kind: ClassVar[str] = "concatenate"
    is_stricter: ClassVar[bool] = True
    moves_elements: ClassVar[bool] = True

    axis: int

    def magnitudes(
        self, weights: Mapping[str, Array], inputs: Sequence[Array], shapes: Sequence[Shape]
    ) -> Array | None:
        widths = [shape[-1] for shape in shapes if isinstance(shape[-1], int)]
        if self.axis != len(shapes[0]) - 1 or len(widths) < len(shapes):
            return None
        pairs = zip(inputs, widths, strict=True)
        return np.concatenate([np.broadcast_to(x, (width,)) for x, width in pairs])

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        axis = self.axis
        if inputs:
            axis = check_axis(inputs[0], axis, from_back=True)
        _same_but(inputs, axis)
        sizes = [shape[axis] for shape in inputs]
        total: Dim = sum(d for d in sizes if isinstance(d, int))
        symbols = [d for d in sizes if isinstance(d, str)]
        if len(symbols) == 1:
            total = plus(symbols[0], int(total))
        elif symbols:
            total = size_symbol("+".join([*sorted(symbols), *([str(total)] if total else [])]))
        return ((*inputs[0][:axis], total, *inputs[0][axis + 1 :]),)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        rank = len(shapes[0])
        return (AxisMap.aligned(shapes, {self.axis % rank: "concatenates"}),)

    def prepare(
        self, packed: Mapping[str, Array], inputs: Sequence[Array]
    ) -> tuple[list[Callable[[], object]], tuple[Array, ...]]:
        made = np.concatenate(inputs, self.axis)
        return [functools.partial(np.concatenate, [*inputs], self.axis, made)], (made,)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        return (np.concatenate(inputs, self.axis),), {}


@dataclass(frozen=True)
class Stack(Operation):
    """Stack inputs along a new axis; a single input may be stacked several times."""

    kind: ClassVar[str] = "stack"
    moves_elements: ClassVar[bool] = True

    axis: int
    times: int = 1

    def __post_init__(self) -> None:
        positive("times", self.times)

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        _same_but(inputs, None)
        if self.times > 1 and len(inputs) > 1:
            raise FormatError(f"times {self.times}: expected 1 input, got {len(inputs)}")
        if not 0 <= self.axis <= len(inputs[0]):
            raise FormatError(f"axis {self.axis} does not fit inputs {format_shape(inputs[0])}")
        shape = inputs[0]
        return ((*shape[: self.axis], len(inputs) * self.times, *shape[self.axis :]),)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        sources = AxisMap.aligned(shapes).sources
        return (AxisMap((*sources[: self.axis], (), *sources[self.axis :])),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        return (np.stack([*inputs] * self.times, self.axis),), {}
