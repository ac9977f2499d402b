"""Axis maps: for each axis of an output, the input axes that it comes from.

An axis of an input is *independent* if entry ``t`` of the output depends on its entry ``t`` alone,
*carried* if it depends on entry ``t`` and earlier ones (through the state), and *mixed* if it
depends on other entries too, or on the position ``t``. The batch must be independent in every
operation. The time axis of a stream must be independent or carried.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from npylstm.errors import FormatError, MixedSamplesError, UnsupportedError
from npylstm.ops.shapes import Shape, format_shape, holds_batch

__all__ = [
    "CARRIED", "FIXED", "LAST_STEP", "PER_PUSH", "At", "AxisMap", "Time", "check_axis",
    "check_batch", "time_axis",
]  # fmt: skip

At = tuple[int, int]  # (input, axis)

# A tensor when the inputs arrive step by step: the index of its time axis, or one of the names.
Time = int | str
FIXED = "fixed"  # the same in every step
PER_PUSH = "per push"  # passed anew with every push
LAST_STEP = "last step"  # the value after the last step
CARRIED = "carried"  # the state that the call before has returned


class AxisMap(NamedTuple):
    """The input axes that the axes of one output come from.

    Attributes
    ----------
    sources
        For every axis of the output, the axes of inputs that it is parallel to. Empty for a new
        axis, or for one from a mixed axis.
    mixed
        Axes of inputs along which entries are mixed, with a verb for error messages. An axis that
        is in neither this nor ``sources`` nor ``last`` is mixed as well.
    carried
        Axes of inputs along which the operation carries a state.
    last
        Axes of inputs of which the output depends on the last entry: ``x[:, -1]``.
    unread
        Inputs of which only the sizes are used.
    """

    sources: tuple[tuple[At, ...], ...]
    mixed: Mapping[At, str] = {}
    carried: frozenset[At] = frozenset()
    last: frozenset[At] = frozenset()
    unread: frozenset[int] = frozenset()

    def mixing(self, verb: str) -> AxisMap:
        """Return the map with the carried axes mixed instead."""
        mixed = {**self.mixed, **dict.fromkeys(self.carried, verb)}
        return self._replace(mixed=mixed, carried=frozenset())

    @classmethod
    def same(cls, rank: int, mixed: Mapping[int, str] = {}) -> AxisMap:
        """Return the map of an output of the input's shape, mixed along some axes."""
        sources = tuple(() if k in mixed else ((0, k),) for k in range(rank))
        return cls(sources, {(0, k): verb for k, verb in mixed.items()})

    @classmethod
    def without(cls, rank: int, mixed: Mapping[int, str], keepdims: bool = False) -> AxisMap:
        """Return the map of a reduction over axes, which are removed or kept with size one."""
        kept = (k for k in range(rank) if keepdims or k not in mixed)
        sources = tuple(() if k in mixed else ((0, k),) for k in kept)
        return cls(sources, {(0, k): verb for k, verb in mixed.items()})

    @classmethod
    def aligned(cls, shapes: Sequence[Shape], mixed: Mapping[int, str] = {}) -> AxisMap:
        """Return the map of an output of inputs that are broadcast, their last axes aligned.

        ``mixed`` contains axes of the output.
        """
        rank = max(map(len, shapes))
        sources: list[list[At]] = [[] for _ in range(rank)]
        verbs: dict[At, str] = {}
        for k, shape in enumerate(shapes):
            for axis in range(len(shape)):
                target = axis + rank - len(shape)
                if target in mixed:
                    verbs[k, axis] = mixed[target]
                else:
                    sources[target].append((k, axis))
        return cls(tuple(map(tuple, sources)), verbs)


def check_axis(shape: Shape, axis: int, from_back: bool = False) -> int:
    """Return an axis counted from the front; ``from_back`` allows negative ones.

    Raises
    ------
    FormatError
        If the shape has no such axis.
    """
    if not (-len(shape) if from_back else 0) <= axis < len(shape):
        raise FormatError(f"axis {axis} does not fit an input {format_shape(shape)}")
    return axis % len(shape)


def check_batch(kind: str, axes: AxisMap, inputs: Sequence[Shape], output: Shape) -> None:
    """Check that no sample of the batch depends on another.

    Raises
    ------
    MixedSamplesError
        With the input axis that holds the batch, and the operation's verb for it.
    """
    for k, shape in enumerate(inputs):
        for axis, size in enumerate(shape):
            at = (k, axis)
            if not holds_batch(size) or (k in axes.unread and at not in axes.mixed):
                continue
            targets = [j for j, sources in enumerate(axes.sources) if at in sources]
            separate = any(holds_batch(output[j]) for j in targets)
            if not separate or at in axes.mixed or at in axes.carried:
                verb = axes.mixed.get(at, "runs" if at in axes.carried else "combines values")
                raise MixedSamplesError(
                    f"{kind} {verb} along axis {axis} of {format_shape(shape)}: that is the batch, "
                    "and samples would depend on one another (is batch_first as it should be?)"
                )


def time_axis(axes: AxisMap, times: Sequence[Time], per_call: bool = False) -> Time:
    """Return the time axis of an output when the inputs arrive step by step.

    Parameters
    ----------
    axes
        Of the output.
    per_call
        A call is a step: an operation may run over an axis of an input that is no time axis.
    times
        For every input its time axis, or ``FIXED``, ``PER_PUSH``, ``LAST_STEP`` or ``CARRIED``.

    Raises
    ------
    UnsupportedError
        If a step of the output depends on steps that the state does not carry.
    """
    found: set[Time] = set()
    for k, time in enumerate(times):
        if not isinstance(time, int):
            if k not in axes.unread:
                found.add(time)
            continue
        at = (k, time)
        if at in axes.mixed:
            raise UnsupportedError(f"{axes.mixed[at]} along the time axis {time}")
        targets = [j for j, sources in enumerate(axes.sources) if at in sources]
        if at in axes.last:
            found.add(LAST_STEP)
        elif targets:
            found.add(targets[0])
        elif k not in axes.unread:
            raise UnsupportedError(f"needs all steps of the time axis {time} at once")
    if any(times[k] != axis for k, axis in axes.carried) and not per_call:
        raise UnsupportedError("runs over an axis that is not the time axis of the stream")
    steps = sorted(time for time in found if isinstance(time, int))
    if len(steps) > 1:
        raise UnsupportedError(f"combines inputs whose time axes are {steps}")
    if steps and LAST_STEP in found:
        raise UnsupportedError("combines every time step with a result of the last step")
    if steps:
        return steps[0]
    ranked = (LAST_STEP, PER_PUSH, CARRIED)
    return next((time for time in ranked if time in found), FIXED)
