"""Fill rows for operations that put several parts, or copies of one, into an output."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from npylstm.arrays import Array
from npylstm.kernels.bind_views import View, bits, moves, unread, view
from npylstm.kernels.calls import Call

__all__ = [
    "bind_concatenate",
    "bind_constant",
    "bind_full",
    "bind_pad",
    "bind_repeat",
    "bind_stack",
]

Rows = list[dict[str, int]]
# Parts of the output, each with the index of the input and the part of it that is copied there.
Copies = Iterator[tuple[Array, int, Array]]


def _copying(parts: Callable[[Any, Array, Sequence[Array]], Copies]) -> Callable[[Any, Call], Rows]:
    """Return a function that fills a row for each part."""

    def bind(operation: Any, call: Call) -> Rows:
        target, sources = unread(call.outputs[0]), [unread(place) for place in call.inputs]
        rows: Rows = []
        for part, k, source in parts(operation, target, sources):
            wide = np.broadcast_to(source, part.shape)
            to = view(part, target, call.outputs[0])
            rows += moves(view(wide, sources[k], call.inputs[k]), to)
        return rows

    return bind


def _slice(array: Array, axis: int, start: int, stop: int | None, step: int = 1) -> Array:
    taken: Array = array[(slice(None),) * axis + (slice(start, stop, step),)]
    return taken


@_copying
def bind_concatenate(operation: Any, target: Array, sources: Sequence[Array]) -> Copies:
    """Copy each input to its part of the axis."""
    axis, at = operation.axis % target.ndim, 0
    for k, source in enumerate(sources):
        size = source.shape[axis]
        yield _slice(target, axis, at, at + size), k, source
        at += size


@_copying
def bind_stack(operation: Any, target: Array, sources: Sequence[Array]) -> Copies:
    """Copy each input to its entry of the new axis, or a single one to all entries."""
    if len(sources) == 1:
        yield target, 0, np.expand_dims(sources[0], operation.axis)
        return
    for k, source in enumerate(sources):
        yield target[(slice(None),) * operation.axis + (k,)], k, source


@_copying
def bind_repeat(operation: Any, target: Array, sources: Sequence[Array]) -> Copies:
    """Copy every entry to each of its places."""
    (source,), axis = sources, operation.axis
    shape = (*source.shape[: axis + 1], operation.times, *source.shape[axis + 1 :])
    yield target.reshape(shape), 0, np.expand_dims(source, axis + 1)


@_copying
def _pad_with_entries(operation: Any, target: Array, sources: Sequence[Array]) -> Copies:
    """The entries themselves, and those that the padding repeats; negative padding removes some."""
    (source,), axis = sources, operation.axis
    before, after = max(operation.before, 0), max(operation.after, 0)
    inner = _slice(source, axis, max(-operation.before, 0),
                   source.shape[axis] - max(-operation.after, 0))  # fmt: skip
    n = inner.shape[axis]
    yield _slice(target, axis, before, before + n), 0, inner
    head, tail = _slice(target, axis, 0, before), _slice(target, axis, before + n, None)
    mirrored = inner[(slice(None),) * axis + (slice(None, None, -1),)]
    if operation.mode == "edge":
        yield head, 0, _slice(inner, axis, 0, 1)
        yield tail, 0, _slice(inner, axis, n - 1, n)
    elif operation.mode == "reflect":  # without the entry at the end
        yield head, 0, _slice(mirrored, axis, n - 1 - before, n - 1)
        yield tail, 0, _slice(mirrored, axis, 1, 1 + after)
    elif operation.mode == "wrap":
        yield head, 0, _slice(inner, axis, n - before, n)
        yield tail, 0, _slice(inner, axis, 0, after)


def bind_pad(operation: Any, call: Call) -> Rows:
    """Fill the padding with a number, or with entries."""
    rows = _pad_with_entries(operation, call)
    if operation.mode != "constant":
        return rows
    target = unread(call.outputs[0])
    size, axis = target.shape[operation.axis], operation.axis
    before, after = max(operation.before, 0), max(operation.after, 0)
    for part in (_slice(target, axis, 0, before), _slice(target, axis, size - after, None)):
        rows += _filled(view(part, target, call.outputs[0]), operation.value)
    return rows


def bind_constant(operation: Any, call: Call) -> Rows:
    """Copy a parameter."""
    target = unread(call.outputs[0])
    source = View(0, target.shape, target.strides)
    return [*moves(source, view(target, target, call.outputs[0]), IN_PARAMS=1)]


def bind_full(operation: Any, call: Call) -> Rows:
    """Fill the output with a number."""
    target = unread(call.outputs[0])
    return _filled(view(target, target, call.outputs[0]), operation.value)


def _filled(target: View, value: float) -> Rows:
    nowhere = View(0, target.sizes, (0,) * len(target.sizes))
    return [*moves(nowhere, target, IS_NUMBER=1, VALUE=bits(value))]
