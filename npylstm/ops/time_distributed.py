"""Apply a layer to every time step."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from npylstm.arrays import Array, zeros
from npylstm.errors import FormatError
from npylstm.ops.axis_map import At, AxisMap
from npylstm.ops.base import Operation
from npylstm.ops.shapes import Shape, format_shape

__all__ = ["TimeDistributed"]


@dataclass(frozen=True)
class TimeDistributed(Operation):
    """Apply ``layer`` to every step of ``(batch, steps, ...)`` as if it were a sample.

    A recurrent layer inside runs over another axis and starts from zero state at every step.

    Weights
    -------
    Those of the layer.
    """

    kind: ClassVar[str] = "time_distributed"

    layer: Operation

    @property
    def innermost(self) -> Operation:
        return self.layer.innermost

    def weight_role(self, name: str) -> str | None:
        return self.layer.weight_role(name)

    @property
    def mask_input_count(self) -> int:
        return self.layer.mask_input_count

    @property
    def masked_inputs(self) -> tuple[int, ...]:
        return self.layer.masked_inputs

    def with_masks(self, which: Collection[int]) -> Operation:
        return TimeDistributed(self.layer.with_masks(which))

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        return self.layer.weight_shapes()

    def multiplications(self, shapes: Sequence[tuple[int, ...]]) -> int:
        return shapes[0][1] * self.layer.multiplications([(s[0], *s[2:]) for s in shapes])

    def sequential_steps(self, shapes: Sequence[tuple[int, ...]]) -> int:
        return self.layer.sequential_steps([(s[0], *s[2:]) for s in shapes])

    def output_names(self) -> tuple[str, ...]:
        return self.layer.output_names()

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        if not inputs:
            raise FormatError("expected an input, got none")
        for shape in inputs:
            if len(shape) < 2 or shape[:2] != inputs[0][:2]:
                listed = ", ".join(map(format_shape, inputs))
                raise FormatError(f"expected inputs of as many steps, got {listed}")
        if len(inputs[0]) < 3:
            raise FormatError(
                f"expected an input of at least 3 axes, got {format_shape(inputs[0])}"
            )
        made = self.layer.infer_shapes([(shape[0], *shape[2:]) for shape in inputs])
        return tuple((shape[0], inputs[0][1], *shape[1:]) for shape in made)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        def outer(at: At) -> At:
            return at[0], at[1] + (at[1] > 0)

        steps = tuple((k, 1) for k in range(len(shapes)))
        made = []
        for inner in self.layer.axis_map([(*shape[:1], *shape[2:]) for shape in shapes]):
            first, *rest = (tuple(map(outer, sources)) for sources in inner.sources)
            mixed = dict.fromkeys(inner.carried, "runs") | dict(inner.mixed)
            made.append(
                AxisMap(
                    (first, steps, *rest),
                    {outer(at): verb for at, verb in mixed.items()},
                    last=frozenset(map(outer, inner.last)),
                )
            )
        return tuple(made)

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
