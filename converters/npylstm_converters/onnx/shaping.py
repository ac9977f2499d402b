"""Operators that rearrange elements, and those that return sizes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from npylstm.activations import Activation
from npylstm.ops.arithmetic import Arithmetic
from npylstm.ops.dense import Embedding
from npylstm.ops.indexing import Flip, Select, Slice
from npylstm.ops.pointwise import ActivationLayer
from npylstm.ops.shaping import Concatenate, Full, Transpose
from npylstm_converters.errors import Refusal
from npylstm_converters.onnx.sizes import Size
from npylstm_converters.onnx.values import ConstantTensor, Ref, Sizes, Value, integers, kind_of
from npylstm_converters.toolkit import array_ops, index_ops, shaping_ops

__all__ = [
    "axes_in", "cast", "concat", "constant_of_shape", "full", "gather", "range_", "same", "shape",
    "size", "slice_", "split", "transpose",
]  # fmt: skip


def same(_: Any, x: Value) -> Value:
    """Return the input."""
    return x


def shape(graph: Any, data: Value, *, start: int = 0, end: int | None = None) -> Any:
    """Return the sizes of a tensor."""
    if isinstance(data, (ConstantTensor, Sizes)):
        return ConstantTensor(np.array(data.array.shape[start:end], np.int64))
    sizes: list[Any] = graph.sizes(data)[start:end]
    if all(isinstance(size, int) for size in sizes):
        return ConstantTensor(np.array(sizes, np.int64))
    array = np.empty(len(sizes), object)
    array[:] = sizes
    return Sizes(array)


def size(graph: Any, data: Value) -> Any:
    """Return the number of elements of a tensor."""
    sizes = integers(shape(graph, data))
    total: Any = math.prod(sizes[1:], start=sizes[0]) if sizes else 1
    return (
        Sizes(np.array(total, object))
        if isinstance(total, Size)
        else ConstantTensor(np.array(total))
    )


def constant_of_shape(graph: Any, input: Value, *, value: Any = None) -> Any:
    """Return a tensor of one value."""
    number = 0.0 if value is None else float(np.ravel(value)[0])
    sizes = integers(input)
    if any(isinstance(d, int) and d < 0 for d in sizes):
        raise Refusal(f"expected sizes, got {sizes!r:.80}")
    if all(isinstance(d, int) for d in sizes) and math.prod(sizes) <= 1 << 20:
        dtype = np.float32 if value is None else np.asarray(value).dtype
        return ConstantTensor(np.full(sizes, number, dtype))
    kind = "f" if value is None else kind_of(ConstantTensor(np.asarray(value)))
    return full(graph, sizes, number, kind)


def full(graph: Any, sizes: Sequence[Any], number: float, kind: str = "f") -> Any:
    """Add a tensor of one value; ``kind`` is its type."""
    target, sources = graph.target(sizes, None)
    made: Ref = graph.add(Full(target, number), *sources, kind=kind)
    graph.uniform[made.name] = number
    return made


def range_(graph: Any, start: Value, limit: Value, delta: Value) -> Any:
    """Return the integers below a size, from zero on."""
    (first,), (last,), (step,) = (integers(v) for v in (start, limit, delta))
    if (first, step) != (0, 1) or not isinstance(last, Size):
        raise Refusal(f"from {first} to {last} by {step} is not supported")
    source, axis = graph.find_size(last)
    return Ref(shaping_ops.positions(graph, source, axis).name, "i")


def cast(graph: Any, input: Value, *, to: int) -> Any:
    """Return the input as another type; fractions are cut off where it becomes an integer."""
    from onnx import TensorProto

    x = graph.tensor(input)
    name = TensorProto.DataType.Name(to)
    if name in ("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16"):
        if name in ("FLOAT16", "BFLOAT16"):
            raise Refusal(f"rounds to {name.lower()}, which the model would not")
        return Ref(x.name, "f")
    if name == "BOOL":
        if x.kind == "b":
            return x
        return graph.add(Arithmetic("not_equal", 0.0), x, kind="b")
    if not name.startswith(("INT", "UINT")):
        raise Refusal(f"to {name} is not supported")
    narrow = name not in ("INT32", "INT64", "UINT32", "UINT64")
    if narrow and x.kind != "b":
        raise Refusal(
            f"to {name}: numbers that do not fit become others, which the model would not"
        )
    if x.kind in "ib":
        return Ref(x.name, "i")
    return graph.add(ActivationLayer(Activation("trunc")), x, kind="i")


def axes_in(graph: Any, x: Ref, axes: Any, extra: int = 0) -> list[int]:
    """Return nonnegative axes; ``extra`` is the number of axes that the result has more."""
    return [array_ops.axis_of(graph, x, int(a), extra) for a in integers(axes)]


def transpose(graph: Any, data: Value, *, perm: Sequence[int] | None = None) -> Any:
    """Reorder the axes; without an order, reverse it."""
    x = graph.tensor(data)
    rank = len(graph.shape(x))
    axes = tuple(range(rank))[::-1] if perm is None else tuple(perm)
    if axes == tuple(range(rank)):
        return x
    return graph.add(Transpose(axes), x)


_FAR = (1 << 31) - 1  # exporters write such a bound, or a larger one, for the end


def _relative(value: Any, dim: Any) -> int:
    """Return a bound that depends on a size, counted from the end of the axis."""
    offset = value - dim
    if isinstance(offset, Size):
        raise Refusal(f"a slice that ends at {value} of {dim} entries is not supported")
    return int(offset)


def _first(value: Any, dim: Any, step: int = 1) -> int:
    """Return the start of a slice, or an index, as Python means it."""
    if isinstance(value, Size):
        value = _relative(value, dim)
        if value >= 0 and step < 0:
            return -1
        if value >= 0:
            raise Refusal(f"begins {value} entries behind the last of {dim}")
    if step > 0:
        return max(int(value), -_FAR)
    if value < -1:  # ONNX begins at the first entry if there are fewer, Python at none
        if not isinstance(dim, int):
            raise Refusal(f"goes backwards from {value} in {dim} entries, which is not supported")
        return max(int(value) + dim, 0)
    return min(int(value), _FAR)


def _end(value: Any, dim: Any, step: int) -> int | None:
    """Return the end of a slice as Python means it; None is that of the axis."""
    if isinstance(value, Size):
        value = _relative(value, dim)
        if value >= 0:
            value = _FAR
    if step > 0:
        return None if value >= _FAR else max(int(value), -_FAR)
    return None if value <= -_FAR else min(int(value), _FAR)


def slice_(
    graph: Any, data: Value, starts: Any, ends: Any, axes: Any = None, steps: Any = None
) -> Any:
    """Take ``x[start:end:step]`` along some axes."""
    x = graph.tensor(data)
    begin, stop = integers(starts), integers(ends)
    which = list(range(len(begin))) if axes is None else axes_in(graph, x, axes)
    strides = [1] * len(begin) if steps is None else [int(s) for s in integers(steps)]
    for axis, first, last, step in zip(which, begin, stop, strides, strict=True):
        dim = graph.sizes(x)[axis]
        low, high = _first(first, dim, step), _end(last, dim, step)
        if step < 0 and high is None and low in (-1, _FAR):
            x = graph.add(Flip((axis,)), x, part="reversed")
            low, step = 0, -step
        if (low, high, step) == (0, None, 1) or (
            type(dim) is int and range(dim)[low:high:step] == range(dim)
        ):
            continue
        # With fewer entries, a start that depends on their number is another one.
        size = -low if isinstance(first, Size) and (high, step) == (None, 1) else None
        if (low, high, step) in ((0, 1, 1), (-1, None, 1)) and type(dim) is not int:
            size = 1
        fewest = 0 if size is not None else max(_needed(first, dim), _needed(last, dim))
        x = graph.add(Slice(axis, low, high, step, size, fewest), x)
    return x


def _needed(bound: Any, dim: Any) -> int:
    """Return how many entries there must be, so that a bound computed from sizes is not negative.

    ONNX counts a negative one from the end again.
    """
    return max(0, -_relative(bound, dim)) if isinstance(bound, Size) else 0


def gather(graph: Any, data: Value, indices: Value, *, axis: int = 0) -> Any:
    """Take entries along an axis: one, several, or those of a tensor of indices."""
    table = data.array if isinstance(data, ConstantTensor) and axis == 0 else np.empty(0)
    if table.ndim == 2 and isinstance(indices, Ref) and graph.is_from_input(indices):
        layer = Embedding(*table.shape)
        return graph.layer(
            layer, {"embeddings": table}, indices, values=(data,), kind=kind_of(data)
        )[0]
    x = graph.tensor(data)
    axis = array_ops.axis_of(graph, x, axis)
    if isinstance(indices, Ref):
        return index_ops.take(graph, x, indices, axis)
    dim = graph.sizes(x)[axis]
    positions = [_first(i, dim) for i in integers(indices)]
    if indices.array.ndim == 0:
        return graph.add(Select(axis, positions[0]), x)
    if indices.array.ndim == 1 and len(positions) and _consecutive(positions):
        last = positions[-1] + 1
        part = Slice(axis, positions[0], None if last == 0 else last, size=len(positions))
        if type(dim) is int and len(positions) == dim:
            return x
        return graph.add(part, x)
    return index_ops.take(graph, x, np.reshape(positions, indices.array.shape).tolist(), axis)


def _consecutive(positions: Sequence[int]) -> bool:
    same_sign = positions[0] >= 0 or positions[-1] < 0
    return same_sign and [*positions] == [*range(positions[0], positions[-1] + 1)]


def concat(graph: Any, inputs: Sequence[Value], *, axis: int) -> Any:
    """Concatenate tensors along an axis."""
    tensors = [graph.tensor(x) for x in inputs]
    axis = array_ops.axis_of(graph, tensors[0], axis)
    if len(tensors) == 1:
        return tensors[0]
    made: Ref = graph.add(Concatenate(axis), *tensors)
    return made


def split(
    graph: Any, input: Value, split: Any = None, *, axis: int = 0, num_outputs: int | None = None
) -> Any:
    """Cut a tensor into parts along an axis."""
    x = graph.tensor(input)
    axis = array_ops.axis_of(graph, x, axis)
    dim = graph.sizes(x)[axis]
    count = len(graph.outputs)
    if num_outputs not in (None, count):
        raise Refusal(f"num_outputs: expected {count}, as many as the node has, got {num_outputs}")
    if split is not None:
        sizes = [int(s) for s in integers(split)]
    elif type(dim) is int:
        each = -(-dim // count)
        sizes = [each] * (count - 1) + [dim - each * (count - 1)]
    else:
        raise Refusal(f"cuts {dim} entries, a number that depends on the call")
    ends = [*itertools.accumulate(sizes)]
    made: list[Ref | None] = []
    for k, (end, own) in enumerate(zip(ends, sizes, strict=True)):
        used = k < len(graph.outputs) and graph.outputs[k]
        made.append(
            graph.add(Slice(axis, end - own, end), x, part=str(k) if k else "") if used else None
        )
    return made
