"""Operators that give the same elements another shape.

Where a file fixes the size of the batch, often at one, exporters write that number into target
shapes. The batch of the converted model is free, so it takes the place of the number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from npylstm import NpylstmError
from npylstm.ops.shapes import BATCH, holds_batch
from npylstm.ops.shaping import Concatenate, Expand, Reshape
from npylstm_converters.errors import Refusal
from npylstm_converters.onnx.shaping import full, transpose
from npylstm_converters.onnx.sizes import Size, equal, size_of
from npylstm_converters.onnx.values import ConstantTensor, Ref, Value, integers, kind_of
from npylstm_converters.toolkit import array_ops

__all__ = ["expand", "flatten", "reshape", "squeeze", "tile", "unsqueeze"]

_MOST_COPIES = 4096  # of a tensor that is repeated


def reshape(graph: Any, data: Value, shape: Any, *, allowzero: int = 0) -> Any:
    """Reshape in row-major order; 0 is the input's size, -1 is inferred."""
    x = graph.tensor(data)
    own = graph.sizes(x)
    target: list[Any] = []
    for k, entry in enumerate(integers(shape)):
        copied = not isinstance(entry, Size) and entry == 0 and not allowzero
        if copied and k >= len(own):
            raise Refusal(f"shape: expected a size at {k}, got 0 for an input of {len(own)} axes")
        target.append((0, k) if copied else entry)
    return _reshaped(graph, x, target)


def _reshaped(graph: Any, x: Ref, target: Sequence[Any]) -> Any:
    """Add a reshape to integers, sizes, and pairs of an input and its axis.

    Where the file fixes the size of the batch, a target may have this number in its place.
    """
    found, reason = _attempt(graph, x, target)
    fixed = graph.exported_batch is not None and any(map(holds_batch, graph.shape(x)))
    if fixed and (found is None or not _in_place(graph, found[2])):
        for candidate in _with_batch(graph, x, target):
            other, _ = _attempt(graph, x, candidate)
            if other is not None and _in_place(graph, other[2]):
                found = other
                break
        else:
            moved = _moved(graph, x, target)
            if moved is not None:
                return moved
    if found is None and graph.exported_batch is None:  # the file's own sizes fit in any call
        found, _ = _attempt(graph, x, target, unproven=True)
    inferred = _inferred(target)
    if found is None and inferred is not None:  # it may be the batch, if the rest fits
        at = next((k for k, d in enumerate(graph.shape(x)) if holds_batch(d)), None)
        if at is not None:
            candidate = [*target[:inferred], (0, at), *target[inferred + 1 :]]
            found, _ = _attempt(graph, x, candidate, unproven=True)
            own, rest = graph.sizes(x), [*target[:inferred], *target[inferred + 1 :]]
            sizes = (own[d[1]] if isinstance(d, tuple) else d for d in rest)
            if not any(isinstance(size, Size) for size in sizes):  # free ones become numbers
                graph.graph.fixes_sizes = True
    if found is None:
        raise Refusal(reason)
    return graph.add(found[0], *found[1])


def _inferred(target: Sequence[Any]) -> int | None:
    """Return the axis of -1, if there is one; comparing it with sizes may be refused."""
    return next((k for k, d in enumerate(target) if type(d) is int and d == -1), None)


def _in_place(graph: Any, shape: Sequence[Any]) -> bool:
    """Whether the batch is an axis of its own, and where the next operator expects it."""
    wanted = graph.expected_batch_axis
    return BATCH in shape and wanted in (None, [*shape].index(BATCH))


_Attempt = tuple[Reshape, "list[Ref]", "tuple[Any, ...]"]


def _attempt(
    graph: Any, x: Ref, target: Sequence[Any], unproven: bool = False
) -> tuple[_Attempt | None, str]:
    """Return the operation of a target, its tensors and the shape; else the reason against it.

    With ``unproven`` the numbers of elements may be equal in some calls only.
    """
    own = graph.sizes(x)
    try:
        sizes = [own[d[1]] if isinstance(d, tuple) else d for d in target]
        try:
            made, sources = graph.target(sizes, x, infer=True)
        except Refusal:
            made, sources = graph.target(_computed(own, sizes), x, infer=True)
        pairs = zip(target, made, strict=True)
        operation = Reshape(tuple(d if isinstance(d, tuple) else own for d, own in pairs))
        (shape,) = operation.output_shapes([graph.shape(s) for s in sources])
    except (Refusal, NpylstmError) as error:
        return None, str(error)
    if not unproven and not _same_count(graph.shape(x), shape):
        return None, f"whether {list(target)} has as many elements depends on the call"
    return (operation, sources, shape), ""


def _computed(own: Sequence[Any], sizes: Sequence[Any]) -> list[Any]:
    """Return sizes with what is inferred computed, so that another one can be inferred."""
    if -1 not in sizes:
        return [*sizes]
    known = math.prod((d for d in sizes if not equal(d, -1)), start=Size({(): 1}))
    inferred = math.prod(own, start=Size({(): 1})) // known
    return [inferred if equal(d, -1) else d for d in sizes]


def _same_count(old: Sequence[Any], new: Sequence[Any]) -> bool:
    """Whether two shapes are known to have as many elements."""
    before, after = (math.prod(map(size_of, dims)) for dims in (old, new))
    return isinstance(before - after, int) and before - after == 0


def _with_batch(graph: Any, x: Ref, target: Sequence[Any]) -> list[list[Any]]:
    """Return targets with the batch at the place of the size that it had in the exported graph."""
    exported, shape = graph.exported_batch, graph.shape(x)
    at = next(axis for axis, d in enumerate(shape) if holds_batch(d))
    candidates = []
    for k, entry in enumerate(target):
        if type(entry) is not int or entry < 1 or entry % exported:
            continue
        if entry == exported and shape[at] == BATCH:
            candidates.append([*target[:k], (0, at), *target[k + 1 :]])
        elif _inferred(target) is None:
            candidates.append([*target[:k], -1, *target[k + 1 :]])
    return candidates


def _moved(graph: Any, x: Ref, target: Sequence[Any]) -> Any:
    """Reshape all axes but a batch of size one, which moves to a place of size one."""
    shape = graph.shape(x)
    if graph.exported_batch != 1 or BATCH not in shape:
        return None
    at = shape.index(BATCH)
    places = [k for k, entry in enumerate(target) if type(entry) is int and entry == 1]
    places = [k for k in places if graph.expected_batch_axis in (None, k)]
    if not places:
        return None
    place = at if at in places else places[0]
    own = graph.sizes(x)
    rest = [own[d[1]] if isinstance(d, tuple) else d for d in target]
    sizes = [own[at], *rest[:place], *rest[place + 1 :]]
    first = transpose(graph, x, perm=[at, *(k for k in range(len(shape)) if k != at)])
    found, _ = _attempt(graph, first, sizes)
    if found is None:
        return None
    made = graph.add(found[0], *found[1])
    back = [*range(1, place + 1), 0, *range(place + 1, len(sizes))]
    return transpose(graph, made, perm=back)


def flatten(graph: Any, input: Value, *, axis: int = 1) -> Any:
    """Merge the axes before ``axis``, and those from it on."""
    x = graph.tensor(input)
    sizes = graph.sizes(x)
    axis = axis + len(sizes) if axis < 0 else axis
    if axis == 1:
        return _reshaped(graph, x, [(0, 0), -1])
    rest = [math.prod(part, start=Size({(): 1})) for part in (sizes[:axis], sizes[axis:])]
    known = [Size({}) + d for d in rest]
    target: list[Any] = [d if isinstance(d, int) else -1 for d in known]
    if target == [-1, -1]:
        target = [-1, known[1]]
    return _reshaped(graph, x, target)


def unsqueeze(graph: Any, data: Value, axes: Any) -> Any:
    """Insert axes of size one."""
    return array_ops.expand_dims(graph, data, integers(axes))


def squeeze(graph: Any, data: Value, axes: Any = None) -> Any:
    """Remove axes of size one."""
    x = graph.tensor(data)
    shape = graph.shape(x)
    if axes is None:
        if graph.exported_batch == 1 and any(map(holds_batch, shape)):
            raise Refusal("without axes removes those of size one, also the batch's")
        gone = [k for k, d in enumerate(shape) if d == 1]
    else:
        gone = integers(axes)
    return array_ops.squeeze(graph, x, gone)


def expand(graph: Any, input: Value, shape: Value) -> Any:
    """Broadcast to a shape; sizes of one in it stay as they are."""
    if isinstance(input, ConstantTensor) and input.array.size == 1:
        sizes = integers(shape)
        missing = [1] * (input.array.ndim - len(sizes))
        return full(graph, [*missing, *sizes], float(input.array.item()), kind_of(input))
    wanted = integers(shape)
    repeated = isinstance(input, ConstantTensor)
    x = graph.tensor(_without_batch(graph, input, wanted) if repeated else input)
    own = graph.sizes(x)
    rank = max(len(own), len(wanted))
    padded = [1] * (rank - len(own)) + own
    wanted = [1] * (rank - len(wanted)) + wanted
    sizes = []
    dims = [1] * (rank - len(own)) + [*graph.shape(x)]
    for mine, theirs, dim in zip(padded, wanted, dims, strict=True):
        fixed = type(theirs) is int and theirs == graph.exported_batch and dim == BATCH
        sizes.append(mine if fixed else _larger(mine, theirs))
    if len(sizes) == len(own) and all(map(equal, sizes, own)):
        return x
    target, sources = graph.target(sizes, x)
    return graph.add(Expand(target), *sources)


def _without_batch(graph: Any, constant: Any, wanted: Sequence[Any]) -> ConstantTensor:
    """Return a constant with one entry where it repeats it for the batch of the exported graph."""
    array = constant.array
    missing = array.ndim - len(wanted)
    for axis in range(max(missing, 0), array.ndim):
        first = array.take([0], axis)
        if isinstance(wanted[axis - missing], Size) and array.shape[axis] == graph.exported_batch:
            array = first if (array == first).all() else array
    return (
        ConstantTensor(array, constant.sources) if array.shape != constant.array.shape else constant
    )


def _larger(mine: Any, theirs: Any) -> Any:
    return mine if type(theirs) is int and theirs == 1 else theirs


def tile(graph: Any, input: Value, repeats: Value) -> Any:
    """Repeat a tensor along its axes, as a whole."""
    x = graph.tensor(input)
    counts = integers(repeats)
    if len(counts) != len(graph.shape(x)):
        raise Refusal(f"repeats: expected {len(graph.shape(x))} numbers, got {len(counts)}")
    own = graph.sizes(x)
    for axis, count in enumerate(counts):
        if isinstance(count, Size):
            if not equal(own[axis], 1):
                raise Refusal(f"repeats axis {axis} {count} times, which depends on the call")
            target, sources = graph.target([*own[:axis], count, *own[axis + 1 :]], x)
            x = graph.add(Expand(target), *sources)
        elif not 0 < count <= _MOST_COPIES:
            raise Refusal(f"repeats axis {axis} {count} times; expected 1 to {_MOST_COPIES}")
        elif count > 1:
            x = graph.add(Concatenate(axis), *[x] * int(count))
    return x
