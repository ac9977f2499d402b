"""Plan how a model runs on a live stream, for sessions and pools.

The steps of a stream arrive one after another. Every operation declares where its axes come from
(:meth:`npylstm.ops.base.Operation.axis_map`); a plan follows the time axis through the graph.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from npylstm.arrays import Array
from npylstm.errors import FormatError, UnsupportedError
from npylstm.ops.axis_map import CARRIED, FIXED, LAST_STEP, PER_PUSH, Time, time_axis
from npylstm.ops.base import Operation
from npylstm.ops.shapes import BATCH, STEPS, Shape, drop_axis, resize_axis
from npylstm.spec import ModelSpec, TensorSpec

__all__ = ["Plan", "plan_stream"]


@dataclass(frozen=True)
class Plan:
    """A model prepared for streams.

    Attributes
    ----------
    spec
        The model for any number of steps, with all recurrent states carried.
    times
        The time axis of each input and output; a string where there is none.
    initial_states
        Initial states other than zero: call to state to tensor of ``origin``.
    origin
        The model whose graph still computes these initial states.
    """

    spec: ModelSpec
    times: Mapping[str, Time]
    initial_states: Mapping[str, Mapping[str, str]]
    origin: ModelSpec

    def drop_time_axis(self, tensor: TensorSpec) -> TensorSpec:
        """Return the spec of an input or output at one step."""
        axis = self.times[tensor.name]
        shape = drop_axis(tensor.shape, axis) if isinstance(axis, int) else tensor.shape
        return replace(tensor, shape=shape)

    def add_time_axis(self, name: str, array: Array) -> Array:
        """Add the time axis to an input of one step."""
        axis = self.times[name]
        return np.expand_dims(array, axis) if isinstance(axis, int) else array

    def last_step(self, name: str, array: Array) -> Array:
        """Return the last step of an input or output, without the time axis."""
        axis = self.times[name]
        return array[(slice(None),) * axis + (-1,)] if isinstance(axis, int) else array


def plan_stream(spec: ModelSpec) -> Plan:
    """Return the stream plan of a model.

    Raises
    ------
    UnsupportedError
        With every layer that needs more than the steps so far.
    """
    fewest: list[str] = []
    for axes in _choices(spec):
        problems: list[str] = []
        freed, reason = _freed(spec, axes)
        times = dict(_follow(freed or spec, axes, problems))
        if freed is None and not problems:
            problems.append(f"{reason} (with steps that come one by one)")
        if freed is not None and not problems:
            return _carried(freed, times)
        if not fewest or len(problems) < len(fewest):
            fewest = problems
    reasons = fewest or [f"no input has time steps: {', '.join(map(str, spec.inputs))}"]
    raise UnsupportedError(
        [
            f"{spec.name} cannot run on a stream: {reasons[0]}",
            *reasons[1:],
            "predict(..., state=..., return_state=True) runs it on whole sequences",
        ]
    )


def _choices(spec: ModelSpec) -> Iterator[dict[str, Time]]:
    """Yield time axes of the inputs to try: as many sequences as possible first."""
    options: list[list[Time]] = []
    steps = {t.shape[t.time_axis] for t in spec.inputs if t.time_axis is not None}
    carried = {name for name, _ in spec.state_pairs}
    for tensor in spec.inputs:
        shape = tensor.shape
        if tensor.name in carried:
            options.append([CARRIED])
        elif tensor.time_axis is not None:
            # An input whose number of steps differs from the others' may not be a sequence.
            size = shape[tensor.time_axis]
            fixed = isinstance(size, int) and bool(steps - {size})
            options.append([tensor.time_axis, PER_PUSH] if fixed else [tensor.time_axis])
        elif BATCH not in shape and shape and isinstance(shape[0], str):
            options.append([0, PER_PUSH])
        elif len(shape) == 2:  # features; or values, one per step
            likely = isinstance(shape[1], str) and shape[1] in steps
            options.append([1, PER_PUSH] if likely else [PER_PUSH, 1])
        else:
            options.append([PER_PUSH])
    # With states among the inputs, a call may be a step, and no input has a time axis.
    last = [[CARRIED if t.name in carried else PER_PUSH for t in spec.inputs]] if carried else []
    for choice in (*itertools.islice(itertools.product(*options), 64), *last):
        if any(isinstance(axis, int) for axis in choice) or choice in last:
            yield {t.name: axis for t, axis in zip(spec.inputs, choice, strict=True)}


def _freed(spec: ModelSpec, axes: Mapping[str, Time]) -> tuple[ModelSpec | None, str]:
    """Make the stream's steps symbolic; return None and the error if the layers do not allow it."""

    def free(tensor: TensorSpec) -> TensorSpec:
        axis = axes[tensor.name]
        if not isinstance(axis, int):
            return tensor
        return replace(tensor, shape=resize_axis(tensor.shape, axis, STEPS))

    try:
        return replace(spec, inputs=tuple(map(free, spec.inputs)), cases=()), ""
    except FormatError as error:
        return None, str(error)


def _follow(
    spec: ModelSpec, axes: Mapping[str, Time], problems: list[str]
) -> Iterator[tuple[str, Time]]:
    """Yield the time axes of inputs and outputs; collect the problems of all layers."""
    layers = {layer.name: layer.layer for layer in spec.layers}
    times: dict[str, Time] = dict(axes)
    per_call = not any(isinstance(axis, int) for axis in axes.values())
    carried = spec.state_shapes()
    for edge in spec.edges:
        shapes = [spec.shapes[t] for t in edge.inputs]
        try:
            if per_call and edge.name in carried:
                raise UnsupportedError("starts from zeros in every call, which is one step here")
            made = _times_of(layers[edge.layer], [times[t] for t in edge.inputs], shapes, per_call)
        except UnsupportedError as error:
            problems.append(f"{edge.layer}: {error}")
            guessed = (TensorSpec(t, spec.shapes[t]).time_axis for t in edge.outputs)
            made = tuple(LAST_STEP if axis is None else axis for axis in guessed)
        times |= dict(zip(edge.outputs, made, strict=True))
    for name in (*axes, *spec.outputs):
        yield name, times[name]


def _times_of(
    operation: Operation, times: Sequence[Time], shapes: Sequence[Shape], per_call: bool
) -> tuple[Time, ...]:
    """Return the time axis of every output of an operation.

    Raises
    ------
    UnsupportedError
        If a step needs other steps than the state carries, or the graph computes that state.
    """
    made = tuple(time_axis(axes, times, per_call) for axes in operation.axis_map(shapes))
    sequences = operation.batch_size(shapes[0]) if operation.state_shapes() else 1
    if sequences not in (1, BATCH) and isinstance(times[0], int):
        raise UnsupportedError(
            f"runs over {sequences} sequences, and only one for each sample carries its state"
        )
    if operation.state_shapes() and not isinstance(times[0], int) and not per_call:
        raise UnsupportedError("runs over an axis that is not the time axis of the stream")
    if any(time not in (FIXED, CARRIED) for time in operation.initial_states(times)):
        raise UnsupportedError(
            f"the initial state of {operation.kind} is computed or given; cut it out with "
            "spec.subgraph and pass the state yourself, as npylstm.decode does"
        )
    return made


def _carried(spec: ModelSpec, times: Mapping[str, Time]) -> Plan:
    """Remove initial states from the graph, so that all states are carried."""
    layers = {layer.name: layer.layer for layer in spec.layers}
    edges, initial_states = [], {}
    inputs = [t.name for t in spec.inputs if times[t.name] != CARRIED]
    from_inputs = _computed_from(spec, {t.name for t in spec.inputs} - {*inputs})
    for edge in spec.edges:
        given = layers[edge.layer].initial_states(edge.inputs)
        if given:
            if from_inputs.isdisjoint(given):
                initial_states[edge.name] = dict(
                    zip(layers[edge.layer].state_shapes(), given, strict=True)
                )
            kept = (*edge.inputs[:1], *edge.inputs[1 + len(given) :])
            edge = replace(edge, inputs=kept)
        edges.append(edge)
    if edges == [*spec.edges]:
        return Plan(spec, times, {}, spec)
    carried = replace(spec, edges=tuple(edges), state_pairs=())
    # Without calls that only compute the initial states.
    return Plan(carried.subgraph(inputs, spec.outputs), times, initial_states, spec)


def _computed_from(spec: ModelSpec, names: set[str]) -> set[str]:
    """Return the tensors that depend on some inputs."""
    found = set(names)
    for edge in spec.edges:
        if not found.isdisjoint(edge.inputs):
            found.update(edge.outputs)
    return found
