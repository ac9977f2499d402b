"""A custom layer: the file stores its name, the user passes its function at load."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from npylstm.arrays import Array
from npylstm.errors import FormatError, ShapeError, UnsupportedError
from npylstm.ops.axis_map import AxisMap
from npylstm.ops.base import Operation
from npylstm.ops.shapes import BATCH, Shape, format_shape
from npylstm.ops.shaping import Size, check_sizes, resolve

__all__ = ["External", "Function"]

Function = Callable[..., Any]


@dataclass(frozen=True)
class External(Operation):
    """A user's function of the inputs: ``y = function(*inputs)``.

    With weights it is called as ``function(*inputs, weights=(...))``, in the framework's order. The
    function must compute every sample of the batch separately and change no argument.

    Parameters
    ----------
    name
        Key of the function in ``npylstm.load(path, custom={name: function})``.
    sizes
        Shape of the output: integers, or ``[input, axis]`` for the size of that axis.
    shapes
        Of the weights, which are named ``0``, ``1``, ...
    """

    kind: ClassVar[str] = "external"

    name: str
    sizes: tuple[int | tuple[int, int], ...] = ()
    shapes: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        check_sizes("sizes", self.sizes)

    @property
    def user_function(self) -> str:
        return self.name

    def with_function(self, function: Function) -> External:
        bound = External(self.name, self.sizes, self.shapes)
        object.__setattr__(bound, "function", function)
        return bound

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        return {str(k): shape for k, shape in enumerate(self.shapes)}

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        if not inputs:
            raise FormatError("expected an input, got none")
        sizes: Sequence[Size] = self.sizes
        made = resolve(sizes, inputs)
        if BATCH in inputs[0] and made[:1] != (BATCH,) and made:
            raise FormatError(f"sizes: expected the batch first, got {format_shape(made)}")
        return (made,)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        batch = tuple((k, 0) for k, shape in enumerate(shapes) if shape)
        unread = frozenset() if self.sizes else frozenset(range(len(shapes)))
        return (AxisMap(tuple(() if k else batch for k in range(len(self.sizes))), unread=unread),)

    def multiplications(self, shapes: Sequence[tuple[int, ...]]) -> int:
        return sys.maxsize  # unknown, and maybe many

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        if self.function is None:
            raise UnsupportedError([f"{self.name}: no function is bound to it"])
        y = np.asarray(self.call(self.function, inputs, [packed[k] for k in self.weight_shapes()]))
        (expected,) = self.output_shapes([x.shape for x in inputs])
        if y.shape != expected:
            raise ShapeError(
                f"custom function {self.name!r}: expected a result of shape {expected}, got "
                f"{y.shape}"
            )
        return (y.astype(inputs[0].dtype),), {}

    @staticmethod
    def call(function: Function, inputs: Sequence[Array], weights: Sequence[Array]) -> Any:
        """Call the user's function."""
        return function(*inputs, weights=tuple(weights)) if weights else function(*inputs)
