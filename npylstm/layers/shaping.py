"""Layers that move elements and compute nothing. The first axis stays where it is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from npylstm.errors import FormatError, ShapeError
from npylstm.layers.array_ops import reshaped
from npylstm.layers.base import (
    Array,
    Dim,
    Layer,
    Shape,
    Time,
    format_shape,
    one_input,
    positive,
)
from npylstm.layers.sizes import expect_batch, product

__all__ = ["Flatten", "Permute", "RepeatVector", "Reshape"]


@dataclass(frozen=True)
class Flatten(Layer):
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
class Reshape(Layer):
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
class Permute(Layer):
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
class RepeatVector(Layer):
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
