"""Operations of traced programs on shapes, axes and entries, and tensors of one value.

Each function takes a :class:`~npylstm_converters.torch.calls.Call` and the arguments of torch's
schema, under the names in its row (:mod:`npylstm_converters.torch.rows`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from npylstm.ops.arithmetic import Arithmetic
from npylstm.ops.indexing import Select, Slice
from npylstm.ops.shaping import Concatenate, Expand, Reshape, Stack
from npylstm_converters.errors import Refusal
from npylstm_converters.toolkit import array_ops, index_ops, shaping_ops
from npylstm_converters.torch.builder import (
    FilledTensor,
    RangeTensor,
    Ref,
    StackedTensors,
    SymbolicSize,
)
from npylstm_converters.torch.calls import Call

_END = 2**63 - 1  # torch writes it for a slice without an end


def select(call: Call, x: Any, axis: int, index: Any) -> Any:
    """Return one entry along an axis."""
    axis = call.axis(x, axis)
    if isinstance(index, SymbolicSize):  # x.size(1) - 1 is the last entry
        index = index.size - x.traced[axis]
        index = int(index) if getattr(index, "is_Integer", False) else None
    if not isinstance(index, int):
        raise Refusal("by an index that depends on the inputs")
    if isinstance(x, StackedTensors) and axis == 0:
        return x.pieces[index]
    return call.add(Select(axis, index), call.tensor(x))


def slice_(call: Call, x: Any, axis: int, start: Any, end: Any, step: int) -> Any:
    """Return ``x[start:end:step]`` along an axis."""
    start, stop = start or 0, None if end is None or end == _END else end
    if isinstance(stop, SymbolicSize) and isinstance(start, int) and start >= 0 and step == 1:
        axis = call.axis(x, axis)  # x[:, : n]: as many entries as another tensor has
        size = call.traced[0][axis]
        at = call.tensor(RangeTensor(float(start), 1.0, (size,)))
        return index_ops.take(call, x, at, axis)
    if not all(v is None or isinstance(v, int) for v in (start, stop, step)):
        raise Refusal("with a bound that depends on the inputs")
    if (start, stop, step) == (0, None, 1):
        return x
    axis = call.axis(x, axis)
    if isinstance(x, StackedTensors) and axis == 0:
        return StackedTensors(x.pieces[start:stop:step])
    size = call.traced[0][axis]
    known = None
    if isinstance(size, int) and not isinstance(x.traced[axis], int):
        first = (start, stop, step) == (0, 1, 1)  # no axis is empty
        known = size if first or call.builder.slices_known else None
    return call.add(Slice(axis, start, stop, step, known), call.tensor(x))


def narrow(call: Call, x: Any, axis: int, start: Any, length: Any) -> Any:
    """Return ``length`` entries along an axis, from ``start`` on."""
    if not isinstance(start, int) or not isinstance(length, int) or start < 0:
        raise Refusal("with a bound that depends on the inputs")
    return call.add(Slice(call.axis(x, axis), start, start + length), call.tensor(x))


def split(call: Call, x: Any, axis: int) -> list[Ref]:
    """Split along an axis; the sizes are those of the outputs."""
    axis, source = call.axis(x, axis), call.tensor(x)
    made, at = [], 0
    for traced in call.traced:
        size = traced[axis]
        if not isinstance(size, int):
            raise Refusal("along an axis whose size is free")
        made.append(call.add(Slice(axis, at, at + size), source))
        at += size
    return made


def unbind(call: Call, x: Any, axis: int) -> list[Ref]:
    """Return all entries along an axis as separate tensors."""
    axis = call.axis(x, axis)
    if isinstance(x, StackedTensors) and axis == 0:
        return list(x.pieces)
    source = call.tensor(x)
    return [call.add(Select(axis, k), source) for k in range(len(call.traced))]


def permute(call: Call, x: Any, axes: Sequence[int]) -> Any:
    """Reorder all axes."""
    axes = [call.axis(x, axis) for axis in axes]
    return x if axes == [*range(len(axes))] else array_ops.transpose(call, x, axes)


def swap_axes(call: Call, x: Any, a: int, b: int) -> Any:
    """Exchange two axes."""
    axes = [*range(call.rank(x))]
    a, b = call.axis(x, a), call.axis(x, b)
    axes[a], axes[b] = axes[b], axes[a]
    return permute(call, x, axes)


def last_two(call: Call, x: Any) -> Any:
    """Exchange the last two axes."""
    return swap_axes(call, x, -2, -1)


def reverse_axes(call: Call, x: Any) -> Any:
    """Reverse the order of the axes."""
    return permute(call, x, [*range(call.rank(x))][::-1])


def move_axes(call: Call, x: Any, source: Any, destination: Any) -> Any:
    """Move axes to other positions; the others keep their order."""
    pairs = [v if isinstance(v, (list, tuple)) else [v] for v in (source, destination)]
    origins, targets = ([call.axis(x, axis) for axis in axes] for axes in pairs)
    rest = iter(a for a in range(call.rank(x)) if a not in origins)
    placed = dict(zip(targets, origins, strict=True))
    order = [placed[k] if k in placed else next(rest) for k in range(call.rank(x))]
    return permute(call, x, order)


def view(call: Call, x: Any) -> Any:
    """Reshape to the traced shape of the output; the arguments are ignored."""
    target = call.traced[0]
    if isinstance(x, StackedTensors) and len(x.pieces) == 1 and target == x.pieces[0].traced:
        return x.pieces[0]
    if isinstance(x, FilledTensor):
        return FilledTensor(x.value, target)
    if isinstance(x, RangeTensor) and len([size for size in target if size != 1]) == 1:
        return RangeTensor(x.start, x.step, target)
    if x.traced == target:
        return x
    sizes, sources = call.builder.sizes(target, [call.tensor(x)], infer=True)
    return call.add(Reshape(sizes), *sources)


def expand(call: Call, x: Any) -> Any:
    """Broadcast axes of size one to the shape of the output."""
    target = call.traced[0]
    if isinstance(x, FilledTensor):
        return FilledTensor(x.value, target)
    source = call.tensor(x)
    if source.traced == target:
        return source
    sizes, sources = call.builder.sizes(target, [source])
    return call.add(Expand(sizes), *sources)


def repeat(call: Call, x: Any, repeats: Sequence[int]) -> Any:
    """Repeat whole axes; along axes of size one this equals :func:`expand`."""
    repeats = (*(1,) * (call.rank(x) - len(repeats)), *repeats)
    if isinstance(x, FilledTensor):
        return FilledTensor(x.value, call.traced[0])
    source = call.tensor(x)
    new = len(repeats) - call.rank(source)
    if new:
        sizes: list[Any] = [*(1,) * new, *((0, k) for k in range(call.rank(source)))]
        source = call.add(Reshape(tuple(sizes)), source, part="axes")
        source = replace(source, traced=((1,) * new + tuple(x.traced)))
    for axis, (count, size) in enumerate(zip(repeats, source.traced, strict=True)):
        if size == 1 or count == 1:
            continue
        if not isinstance(count, int):
            raise Refusal("a number of times that depends on the inputs, along an axis of several")
        traced = (*source.traced[:axis], size * count, *source.traced[axis + 1 :])
        source = replace(
            call.add(Concatenate(axis), *[source] * count, part="copies"), traced=traced
        )
    return expand(call, source)


def repeat_interleave(call: Call, x: Any, repeats: Any, axis: Any = None) -> Any:
    """Repeat every entry along an axis."""
    if axis is None:
        raise Refusal("without dim is not supported")
    return shaping_ops.repeat(call, x, repeats, axis)


def roll(call: Call, x: Any, shifts: Sequence[Any], axes: Sequence[int]) -> Any:
    """Move entries along axes, those beyond the end to the other end."""
    if not axes:
        raise Refusal("without dims is not supported")
    source = made = call.tensor(x)
    for shift, axis in zip(shifts, axes, strict=True):
        made = shaping_ops.roll(call, made, shift, axis)
    sizes: list[Any] = [(1, k) for k in range(call.rank(x))]  # parts of free axes have other ones
    return call.add(Reshape(tuple(sizes)), made, source)


def diff(call: Call, x: Any, n: int = 1, axis: int = -1) -> Any:
    """Return the differences of neighbours along an axis."""
    axis, made = call.axis(x, axis), call.tensor(x)
    for _ in range(n):
        later = call.add(Slice(axis, 1), made, part="later")
        earlier = call.add(Slice(axis, 0, -1), made, part="earlier")
        made = call.add(Arithmetic("subtract"), later, earlier)
    return made


def fill(value: float) -> Callable[..., FilledTensor]:
    """Return a function that returns one value in the shape of the output."""
    return lambda call: FilledTensor(value, call.traced[0])


def full(call: Call, value: Any) -> Any:
    """Return a value in the shape of the output; it may be a size."""
    if isinstance(value, SymbolicSize):
        return expand(call, call.tensor(value))
    number = call.number(value)
    if number is None:
        raise Refusal("with a value that depends on the inputs")
    return FilledTensor(number, call.traced[0])


def empty(call: Call) -> FilledTensor:
    """Return uninitialised memory."""
    return FilledTensor(None, call.traced[0])


def cat(call: Call, xs: Sequence[Any], axis: int) -> Any:
    """Concatenate tensors, without the empty ones."""
    there = [x for x in xs if getattr(x, "traced", None) != (0,)]
    parts = [call.builder.ref(t, f"{call.node}_{k}") for k, t in enumerate(there)]
    if len(parts) == 1:
        return parts[0]
    return call.add(Concatenate(axis % len(call.shape(parts[0]))), *parts)


def stack(call: Call, xs: Sequence[Any], axis: int) -> Any:
    """Stack tensors along a new axis; along the first only when an operation reads the stack."""
    parts = [call.builder.ref(t, f"{call.node}_{k}") for k, t in enumerate(xs)]
    axis = call.axis(parts[0], axis, extra=1)
    return StackedTensors(tuple(parts)) if axis == 0 else call.add(Stack(axis), *parts)
