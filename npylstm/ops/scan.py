"""A graph that runs at every step of sequences, with carried state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from npylstm.arrays import Array
from npylstm.errors import FormatError
from npylstm.ops.axis_map import AxisMap
from npylstm.ops.base import Operation
from npylstm.ops.body import Body, Flow, StepPlan
from npylstm.ops.shapes import Shape, format_shape

__all__ = ["Scan"]

_KEPT_PLANS = 8  # for each set of sizes


@dataclass(frozen=True)
class Scan(Operation):
    """Run a body at every step: ``states, outputs = body(inputs[t], states, constants)``.

    The inputs are the first sequence, initial states, the other sequences, and constants, which are
    the same in every step. Sequences are ``(steps, batch, ...)``. Without initial states, the
    states are carried.

    The outputs are those of every step, stacked ``(steps, ...)``, then the final states.

    Parameters
    ----------
    body
        Reads one step of every sequence, the states, the constants; returns the new states, then
        the outputs of the step.
    sequences
        Number of sequences.
    states
        Number of states.
    sizes
        The sizes of the states without the batch, ``(batch, *size)``; empty if some state is of
        another kind, so that initial states must be inputs.
    steps
        Number of steps if there is no sequence.

    Weights
    -------
    Those of the body, as ``LAYER/WEIGHT``.

    References
    ----------
    ONNX operators Scan and Loop; ``jax.lax.scan``.
    """

    kind: ClassVar[str] = "scan"

    body: Body
    sequences: int
    states: int
    sizes: tuple[tuple[int, ...], ...] = ()
    steps: int | None = None

    def __post_init__(self) -> None:
        if self.sequences < 0 or self.states < 0 or (not self.sequences and not self.steps):
            raise FormatError("scan: expected sequences, or a number of steps")
        if self.sizes and len(self.sizes) != self.states:
            raise FormatError(f"scan: expected {self.states} sizes, got {len(self.sizes)}")
        least = self.sequences + self.states
        if len(self.body.inputs) < least or len(self.body.outputs) < max(self.states, 1):
            raise FormatError(f"scan: expected a body of at least {least} inputs, and outputs")

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        return self.body.weight_shapes()

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        if not self.sequences:  # a call of a fixed number of steps is given its states
            return {}
        return {f"s{k}": size for k, size in enumerate(self.sizes)}

    def multiplications(self, shapes: Sequence[tuple[int, ...]]) -> int:
        _, inside = self._step_shapes(shapes)
        return self.sequential_steps(shapes) * self.body.multiplications(inside)

    def sequential_steps(self, shapes: Sequence[tuple[int, ...]]) -> int:
        return int(self._step_shapes(shapes)[0])

    def batch_size(self, shape: Sequence[Any]) -> Any:
        return shape[1] if len(shape) > 1 else 1

    @property
    def returns_sequence(self) -> bool:
        return len(self.body.outputs) > self.states

    def initial_states(self, inputs: Sequence[Any]) -> Sequence[Any]:
        first = min(self.sequences, 1)
        given = len(inputs) == len(self.body.inputs)
        return inputs[first : first + self.states] if given else ()

    def output_names(self) -> tuple[str, ...]:
        outputs = len(self.body.outputs) - self.states
        names = [f"y{k}" for k in range(outputs)] + [f"s{k}" for k in range(self.states)]
        return ("", *names[1:])

    def _split(self, inputs: Sequence[Any]) -> tuple[list[Any], list[Any], list[Any]]:
        """Return sequences, initial states and constants."""
        given = [*self.initial_states(inputs)]
        rest = [*inputs[: min(self.sequences, 1)], *inputs[min(self.sequences, 1) + len(given) :]]
        return rest[: self.sequences], given, rest[self.sequences :]

    def _step_shapes(self, inputs: Sequence[Shape]) -> tuple[Any, list[Any]]:
        """Return the number of steps, and the shapes of the body's inputs."""
        sequences, given, constants = self._split(inputs)
        fewest = len(self.body.inputs) - (self.states if self.sizes else 0)
        if len(inputs) not in (fewest, len(self.body.inputs)) or not all(sequences):
            listed = ", ".join(map(format_shape, inputs))
            raise FormatError(f"expected {fewest} inputs with steps, or states, too, got {listed}")
        steps = {shape[0] for shape in sequences} or {self.steps}
        if len(steps) > 1:
            raise FormatError(f"expected sequences of equal length, got {sorted(map(str, steps))}")
        states = given
        if not given and self.states:
            batch = self.batch_size(sequences[0]) if sequences else 1
            states = [(batch, *size) for size in self.sizes]
        return steps.pop(), [*(shape[1:] for shape in sequences), *states, *constants]

    def infer_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        steps, shapes = self._step_shapes(inputs)
        made = self.body.shapes(shapes)
        before = shapes[self.sequences : self.sequences + self.states]
        for old, new in zip(before, made, strict=False):
            if tuple(old) != tuple(new):
                raise FormatError(
                    f"a state {format_shape(old)} becomes {format_shape(new)} in a step"
                )
        outputs = [(steps, *shape) for shape in made[self.states :]]
        return (*outputs, *made[: self.states])

    def axis_map(self, shapes: Sequence[Shape]) -> tuple[AxisMap, ...]:
        _, step_shapes = self._step_shapes(shapes)
        places, given, others = self._split(range(len(shapes)))
        own = [
            Flow(tuple(frozenset({(k, axis + 1)}) for axis in range(len(shapes[k]) - 1)), {})
            for k in places
        ]
        constants = [_identity(k, len(shapes[k])) for k in others]
        ranks = [len(shape) for shape in step_shapes[len(places) : len(places) + self.states]]
        states = [_identity(k, len(shapes[k])) for k in given] or [
            Flow((frozenset(),) * rank, {}) for rank in ranks
        ]
        while True:  # what a state depends on after any number of steps
            made = self.body.flow(step_shapes, [*own, *states, *constants])
            after = [_joined(a, b) for a, b in zip(states, made, strict=False)]
            if after == states:
                break
            states = after
        steps = tuple((k, 0) for k in places)
        carried = frozenset(steps) if self.states else frozenset()
        outputs = [
            AxisMap((steps, *map(_sorted, flow.sources)), dict(flow.mixed), carried)
            for flow in made[self.states :]
        ]
        finals = [
            AxisMap(tuple(map(_sorted, flow.sources)), dict(flow.mixed), carried, frozenset(steps))
            for flow in states
        ]
        others = [k for k in range(len(shapes)) if k not in places and shapes[k]]
        flows = [*made[self.states :], *states]
        every = tuple(
            axes._replace(unread=frozenset(k for k in others if not _reads(flow, k)))
            for axes, flow in zip([*outputs, *finals], flows, strict=True)
        )
        if self.states and not self.sizes:
            return tuple(axes.mixing("carries states that are not of samples") for axes in every)
        return every

    def pack(self, weights: Mapping[str, Array]) -> dict[str, Array]:
        """Pack the weights of the body, as ``LAYER/ARRAY``."""
        return _Packed(self.body.pack(weights))

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        sequences, given, constants = self._split(inputs)
        dtype = inputs[0].dtype if inputs else np.dtype(np.float32)
        steps, shapes = self._step_shapes([x.shape for x in inputs])
        key = (dtype, *shapes)
        plans = packed.plans if isinstance(packed, _Packed) else {}
        free = plans.setdefault(key, [])
        try:  # no check before pop(): another thread may take the plan in between
            plan = free.pop()
        except IndexError:
            plan = StepPlan(self.body, packed, shapes, dtype)
        first, last = len(sequences), len(sequences) + self.states
        current = plan.inputs[first:last]
        initial = given or [state[name] for name in self.state_shapes() if name in state]
        for k, array in enumerate(current):
            array[...] = initial[k] if initial else 0
        for array, value in zip(plan.inputs[last:], constants, strict=True):
            array[...] = value
        after, made = plan.outputs[: self.states], plan.outputs[self.states :]
        stacked = [np.empty((steps, *y.shape), dtype) for y in made]
        several = len(current) > 1
        pairs = [*zip(plan.inputs[:first], sequences, strict=True)]
        for t in range(steps):
            for array, sequence in pairs:
                array[...] = sequence[t]
            plan.run()
            for target, y in zip(stacked, made, strict=True):
                target[t] = y
            # A new state may be another state's array.
            values = [y.copy() for y in after] if several else after
            for array, y in zip(current, values, strict=True):
                array[...] = y
        finals = [array.copy() for array in current]
        if len(free) < _KEPT_PLANS:
            free.append(plan)
        carried = dict(zip(self.state_shapes(), finals, strict=False)) if state else {}
        return (*stacked, *finals), carried


class _Packed(dict[str, Array]):
    """Packed weights, with plans that no call uses, by dtype and sizes."""

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        super().__init__(arrays)
        self.plans: dict[Any, list[StepPlan]] = {}


def _identity(k: int, rank: int) -> Flow:
    return Flow(tuple(frozenset({(k, axis)}) for axis in range(rank)), {})


def _reads(flow: Flow, k: int) -> bool:
    """Whether a tensor depends on an input that has axes."""
    return any(at[0] == k for own in (*flow.sources, flow.mixed) for at in own)


def _joined(a: Flow, b: Flow) -> Flow:
    sources = tuple(x | y for x, y in zip(a.sources, b.sources, strict=True))
    return Flow(sources, {**b.mixed, **a.mixed})


def _sorted(sources: frozenset[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    return tuple(sorted(sources))
