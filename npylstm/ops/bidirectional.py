"""Two recurrent layers over one sequence, one in each direction."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

import numpy as np

from npylstm.activations import Activation
from npylstm.arrays import Array
from npylstm.errors import FormatError
from npylstm.ops.axis_map import AxisMap
from npylstm.ops.base import Operation
from npylstm.ops.conventions import Convention
from npylstm.ops.recurrent import Recurrent, recurrent_axes
from npylstm.ops.shapes import Shape

__all__ = ["Bidirectional", "inside"]

_T = TypeVar("_T")
_MERGE = ("concat", "sum", "mul", "ave", "none")


@dataclass(frozen=True)
class Bidirectional(Operation):
    """Run a recurrent layer forwards and another backwards, and merge their outputs.

    The backward layer's sequence is reversed to the input's order before the merge. Without
    ``return_sequences`` each layer returns its last output; the backward layer's is at the first
    step.

    Parameters
    ----------
    forward_layer, backward_layer
        Recurrent layers with equal features and options, except ``go_backwards``.
    merge_mode
        ``"concat"``: concatenated, forward first; ``"sum"``, ``"mul"``, ``"ave"``: element by
        element; ``"none"``: separate, the backward output second (named ``backward``).

    Weights
    -------
    Those of the two layers, as ``forward/W_i`` and ``backward/W_i``. States are ``forward/h``,
    ``backward/h`` and so on, which is also the order of state outputs and inputs.

    References
    ----------
    Schuster, Paliwal: Bidirectional Recurrent Neural Networks, IEEE Transactions on Signal
    Processing 45(11), 1997.
    """

    kind: ClassVar[str] = "bidirectional"
    uses_mask: ClassVar[bool] = True
    is_recurrent: ClassVar[bool] = True
    uses_matrix_products: ClassVar[bool] = True

    forward_layer: Operation
    backward_layer: Operation
    merge_mode: str = "concat"

    def __post_init__(self) -> None:
        if self.merge_mode not in _MERGE:
            raise FormatError(
                f"merge_mode: expected one of {', '.join(_MERGE)}, got {self.merge_mode!r:.40}"
            )
        both = (self.forward_layer, self.backward_layer)
        if not all(isinstance(layer, Recurrent) for layer in both):
            kinds = " and ".join(layer.kind for layer in both)
            raise FormatError(f"expected two recurrent layers, got {kinds}")
        a, b = self.directions.values()
        shared = ("features", "return_sequences", "return_state", "time_major", "masked")
        for name in shared:
            if getattr(a, name) != getattr(b, name):
                raise FormatError(
                    f"{name}: forward has {getattr(a, name)}, backward {getattr(b, name)}"
                )
        if a.go_backwards or not b.go_backwards:
            raise FormatError("expected go_backwards of the backward layer alone")
        if self.merge_mode in ("sum", "mul", "ave") and a.output_size != b.output_size:
            raise FormatError(
                f"merge_mode {self.merge_mode}: expected equal sizes, got {a.output_size} and "
                f"{b.output_size}"
            )

    @property
    def directions(self) -> dict[str, Recurrent]:
        """Both layers by name."""
        layers: dict[str, Any] = {"forward": self.forward_layer, "backward": self.backward_layer}
        return layers

    @property
    def return_sequences(self) -> bool:
        """Whether the output is the sequence, or the last output of each direction."""
        return self.directions["forward"].return_sequences

    @property
    def returns_sequence(self) -> bool:
        return self.return_sequences

    @property
    def expected_input(self) -> Shape:
        return self.directions["forward"].expected_input

    @property
    def mask_input_count(self) -> int:
        return 1

    @property
    def masked_inputs(self) -> tuple[int, ...]:
        return self.directions["forward"].masked_inputs

    def with_masks(self, which: Collection[int]) -> Operation:
        forward, backward = (d.with_masks(which) for d in self.directions.values())
        return Bidirectional(forward, backward, self.merge_mode)

    @property
    def time_major(self) -> bool:
        """Whether the axes are (steps, batch, features)."""
        return self.directions["forward"].time_major

    @property
    def masked(self) -> bool:
        """Whether the last input is a mask."""
        return self.directions["forward"].masked

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        return {
            f"{way}/{key}": shape
            for way, layer in self.directions.items()
            for key, shape in layer.weight_shapes().items()
        }

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        return {
            f"{way}/{key}": shape
            for way, layer in self.directions.items()
            for key, shape in layer.state_shapes().items()
        }

    def weight_role(self, name: str) -> str | None:
        way, _, key = name.partition("/")
        return self.directions[way].weight_role(key)

    def scratch_size(self, shapes: Sequence[tuple[int, ...]]) -> int:
        return max(layer.scratch_size(shapes) for layer in self.directions.values())

    @property
    def stateful(self) -> bool:
        return any(layer.stateful for layer in self.directions.values())

    @property
    def activations(self) -> Mapping[str, Activation]:
        return {
            f"{way}/{name}": activation
            for way, layer in self.directions.items()
            for name, activation in layer.activations.items()
        }

    def with_activations(self, activations: Mapping[str, Activation]) -> Bidirectional:
        halves = {
            f"{way}/": layer.with_activations(inside(activations, way))
            for way, layer in self.directions.items()
        }
        return self.with_recurrent_parts(halves)

    def conventions(self, weights: Mapping[str, Array]) -> Iterator[Convention]:
        """Yield the other merge modes of outputs that are merged element by element."""
        modes = ("sum", "mul", "ave")
        for mode in modes if self.merge_mode in modes else ():
            if mode != self.merge_mode:
                detail = {"from": self.merge_mode, "mode": mode}
                yield Convention("merge_mode", detail, replace(self, merge_mode=mode))

    def without_returned_state(self) -> Operation | None:
        forward, backward = (d.without_returned_state() for d in self.directions.values())
        if forward is None or backward is None:
            return None
        return Bidirectional(forward, backward, self.merge_mode)

    def output_names(self) -> tuple[str, ...]:
        returns_state = self.directions["forward"].return_state
        mains = ("", "backward") if self.merge_mode == "none" else ("",)
        return (*mains, *self.state_shapes()) if returns_state else mains

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        halves = self.inputs_of_parts(inputs)
        (a, *states_a), (b, *states_b) = (
            layer.infer_shapes(mine)
            for layer, mine in zip(self.directions.values(), halves, strict=True)
        )
        mains: tuple[Shape, ...] = (a,)
        if self.merge_mode == "none":
            mains = (a, b)
        elif self.merge_mode == "concat":
            mains = ((*a[:-1], sum(layer.output_size for layer in self.directions.values())),)
        return (*mains, *states_a, *states_b)

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        verb = "reads backwards in its backward layer"
        return tuple(axes.mixing(verb) for axes in recurrent_axes(self, shapes))

    def pack(self, weights: Mapping[str, Array]) -> dict[str, Array]:
        """Pack both layers; the direction is the prefix of each key."""
        return {
            f"{way}/{key}": array
            for way, layer in self.directions.items()
            for key, array in layer.pack(inside(weights, way)).items()
        }

    def forward(
        self,
        packed: Mapping[str, Array],
        inputs: Sequence[Array],
        state: Mapping[str, Array],
        mask: Array | None = None,
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        mains, states = [], []
        halves = self.inputs_of_parts(inputs)
        after: dict[str, Array] = {}
        for (way, layer), mine in zip(self.directions.items(), halves, strict=True):
            (main, *returned), carried = layer.forward(
                inside(packed, way), mine, inside(state, way), mask
            )
            if layer.go_backwards and layer.return_sequences:
                main = np.flip(main, axis=0 if layer.time_major else 1)
            mains.append(main)
            states += returned
            after |= {f"{way}/{key}": array for key, array in carried.items()}
        return (*self._merged(*mains), *states), after

    def _merged(self, forward: Array, backward: Array) -> tuple[Array, ...]:
        if self.merge_mode == "none":
            return forward, backward
        if self.merge_mode == "concat":
            return (np.concatenate((forward, backward), axis=-1),)
        if self.merge_mode == "mul":
            return (forward * backward,)
        total = forward + backward
        return (total / 2 if self.merge_mode == "ave" else total,)

    def trace(
        self,
        packed: Mapping[str, Array],
        inputs: Sequence[Array],
        state: Mapping[str, Array],
        mask: Array | None = None,
    ) -> dict[str, Any]:
        halves = self.inputs_of_parts(inputs)
        return {
            way: layer.trace(inside(packed, way), mine, inside(state, way), mask)
            for (way, layer), mine in zip(self.directions.items(), halves, strict=True)
        }

    @property
    def time_axis(self) -> int:
        return self.directions["forward"].time_axis

    def batch_size(self, shape: Sequence[Any]) -> Any:
        return self.directions["forward"].batch_size(shape)

    def initial_states(self, inputs: Sequence[Any]) -> Sequence[Any]:
        return self.directions["forward"].initial_states(inputs)

    def own_mask(self, inputs: Sequence[Any]) -> Any:
        return self.directions["forward"].own_mask(inputs)

    def recurrent_parts(self) -> Mapping[str, Recurrent]:
        return {f"{way}/": layer for way, layer in self.directions.items()}

    def with_recurrent_parts(self, parts: Mapping[str, Recurrent]) -> Bidirectional:
        forward, backward = {**self.recurrent_parts(), **parts}.values()
        return replace(self, forward_layer=forward, backward_layer=backward)

    def merging(self, rank: int) -> Operation | None:
        from npylstm.ops.arithmetic import Arithmetic
        from npylstm.ops.shaping import Concatenate

        if self.merge_mode == "concat":
            return Concatenate(rank - 1)
        merge = {"sum": "add", "mul": "multiply", "ave": "average"}.get(self.merge_mode)
        return None if merge is None else Arithmetic(merge)

    def parts(self) -> Mapping[str, Operation]:
        return self.recurrent_parts() if self.merge_mode == "concat" else {}

    def inputs_of_parts(self, inputs: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
        """Return the inputs of the two layers: both read the sequence and the mask."""
        given = self.initial_states(inputs)
        mask = inputs[len(given) + 1 :]
        count = len(self.directions["forward"].state_shapes())
        return (*inputs[:1], *given[:count], *mask), (*inputs[:1], *given[count:], *mask)


def inside(entries: Mapping[str, _T], way: str) -> dict[str, _T]:
    """Return the entries of one direction, without the prefix."""
    return {k.removeprefix(f"{way}/"): a for k, a in entries.items() if k.startswith(f"{way}/")}
