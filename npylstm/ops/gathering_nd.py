"""Read and write entries, or whole rows, whose places on several axes are in a tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from npylstm.arrays import Array
from npylstm.errors import FormatError, SizeMismatchError
from npylstm.ops.axis_map import At, AxisMap
from npylstm.ops.base import Operation
from npylstm.ops.checks import one_of
from npylstm.ops.gathering import SCATTER, indices_of
from npylstm.ops.shapes import Shape, format_shape

__all__ = ["GatherND", "ScatterND"]


def _indexed(shape: Shape, at: Shape, batch_dims: int) -> int:
    """Return on how many axes the indices are: the size of the last axis of their tensor.

    Raises
    ------
    FormatError
        If the tensors do not fit together.
    """
    count = at[-1] if at else 0
    if (
        not isinstance(count, int)
        or not 1 <= count <= len(shape) - batch_dims
        or batch_dims >= len(at)
    ):
        raise FormatError(
            f"indices {format_shape(at)} do not fit an input {format_shape(shape)}: expected a "
            f"last axis of 1 to {len(shape) - batch_dims} indices"
        )
    return count


def _places(at: Array, sizes: Sequence[int]) -> tuple[Array, ...]:
    """Return the indices on each axis."""
    return tuple(indices_of(at[..., k], size) for k, size in enumerate(sizes))


@dataclass(frozen=True)
class GatherND(Operation):
    """``y[i, j] = x[indices[i, j, 0], indices[i, j, 1], ...]``: ``GatherND`` of ONNX.

    The last axis of the second input has one index for each of the first axes of ``x``; what is
    behind these axes is taken as a whole. Negative indices count from the end.

    Parameters
    ----------
    batch_dims
        The first so many axes of both inputs are the same axes and have no indices.
    """

    kind: ClassVar[str] = "gather_nd"
    moves_elements: ClassVar[bool] = True

    batch_dims: int = 0

    def __post_init__(self) -> None:
        if self.batch_dims < 0:
            raise FormatError(f"batch_dims: expected 0 or more, got {self.batch_dims}")

    def input_value(self, output: float) -> float | None:
        return None  # the indices have another

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        if len(inputs) != 2:
            raise FormatError(f"expected 2 inputs, got {len(inputs)}")
        shape, at = inputs
        count = _indexed(shape, at, self.batch_dims)
        for a, b in zip(shape[: self.batch_dims], at, strict=False):
            if a != b:
                listed = " and ".join(map(format_shape, inputs))
                raise SizeMismatchError(f"the first axes of {listed} differ", (a, b))
        return ((*at[:-1], *shape[self.batch_dims + count :]),)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        shape, at = shapes
        behind = self.batch_dims + _indexed(shape, at, self.batch_dims)
        sources: list[tuple[At, ...]] = [((1, k),) for k in range(len(at) - 1)]
        for k in range(self.batch_dims):
            sources[k] += ((0, k),)
        sources += [((0, k),) for k in range(behind, len(shape))]
        mixed = {(0, k): "takes entries" for k in range(self.batch_dims, behind)}
        return (AxisMap(tuple(sources), {**mixed, (1, len(at) - 1): "reads indices"}),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        x, at = inputs
        self.output_shapes([x.shape, at.shape])
        rows = np.ix_(*map(np.arange, at.shape[: self.batch_dims]))
        behind = (1,) * (at.ndim - 1 - self.batch_dims)
        own = tuple(row.reshape(row.shape + behind) for row in rows)
        place = (*own, *_places(at, x.shape[self.batch_dims :][: at.shape[-1]]))
        return (x[place],), {}


@dataclass(frozen=True)
class ScatterND(Operation):
    """``y = x``, then ``y[indices[i, 0], indices[i, 1], ...] = updates[i]``: that of ONNX.

    Inputs are ``x``, ``indices`` and ``updates``; the last axis of the indices has one for each of
    the first axes of ``x``. Negative indices count from the end.

    Parameters
    ----------
    mode
        ``set``; or ``add``, ``multiply``, ``maximum``, ``minimum``: combines the update with what
        is there.
    """

    kind: ClassVar[str] = "scatter_nd"
    keeps_shape: ClassVar[bool] = True

    mode: str = "set"

    def __post_init__(self) -> None:
        one_of("mode", self.mode, ("set", *SCATTER))

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        if len(inputs) != 3:
            raise FormatError(f"expected 3 inputs, got {len(inputs)}")
        shape, at, updates = inputs
        expected = (*at[:-1], *shape[_indexed(shape, at, 0) :])
        if len(updates) != len(expected):
            raise FormatError(
                f"expected updates {format_shape(expected)}, got {format_shape(updates)}"
            )
        for a, b in zip(expected, updates, strict=True):
            if a != b:
                raise SizeMismatchError(
                    f"expected updates {format_shape(expected)}, got {format_shape(updates)}",
                    (a, b),
                )
        return (shape,)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        shape, at, updates = shapes
        count = _indexed(shape, at, 0)
        shift = len(updates) - len(shape)
        sources = tuple(() if k < count else ((0, k), (2, k + shift)) for k in range(len(shape)))
        verb = "writes entries"
        mixed: dict[At, str] = {(0, k): verb for k in range(count)}
        mixed |= {(1, k): verb for k in range(len(at))}
        mixed |= {(2, k): verb for k in range(len(at) - 1)}
        return (AxisMap(sources, mixed),)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        x, at, updates = inputs
        self.output_shapes([array.shape for array in inputs])
        y, place = x.copy(), _places(at, x.shape[: at.shape[-1]])
        if self.mode == "set":
            y[place] = updates
        else:
            SCATTER[self.mode].at(y, place, updates)
        return (y,), {}
