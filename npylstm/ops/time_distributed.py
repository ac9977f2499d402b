"""A layer applied to every time step on its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from npylstm.errors import FormatError
from npylstm.ops.base import Array, Operation, Shape, format_shape, zeros
from npylstm.ops.sizes import expect_batch

__all__ = ["TimeDistributed"]


@dataclass(frozen=True)
class TimeDistributed(Operation):
    """Apply ``layer`` to every step of ``(batch, steps, ...)`` as if it were a sample.

    A recurrent layer inside runs over an axis of its own and begins anew for every step.

    Weights
    -------
    Those of the layer.
    """

    kind: ClassVar[str] = "time_distributed"
    per_step: ClassVar[bool] = True

    layer: Operation

    @property
    def masked(self) -> Any:
        """Whether the layer takes a mask, as its last inputs."""
        return getattr(self.layer, "masked", False)

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        return self.layer.weight_shapes()

    def output_names(self) -> tuple[str, ...]:
        return self.layer.output_names()

    def output_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        if not inputs:
            raise FormatError("expected an input, got none")
        for shape in inputs:
            expect_batch(shape)
            if len(shape) < 2 or shape[:2] != inputs[0][:2]:
                listed = ", ".join(map(format_shape, inputs))
                raise FormatError(f"expected inputs of as many steps, got {listed}")
        if len(inputs[0]) < 3:
            raise FormatError(
                f"expected an input of at least 3 axes, got {format_shape(inputs[0])}"
            )
        made = self.layer.output_shapes([(shape[0], *shape[2:]) for shape in inputs])
        return tuple((shape[0], inputs[0][1], *shape[1:]) for shape in made)

    def pack(self, weights: Mapping[str, Array]) -> dict[str, Array]:
        return self.layer.pack(weights)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        outer = inputs[0].shape[:2]
        rows = [x.reshape(-1, *x.shape[2:]) for x in inputs]
        fresh = zeros(self.layer.state_shapes(), len(rows[0]), inputs[0].dtype)
        made, _ = self.layer.forward(packed, rows, fresh)
        return tuple(y.reshape(*outer, *y.shape[1:]) for y in made), {}
