"""Shapes and places: what Keras' and TensorFlow's functions mean in words of the toolkit."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from npylstm.ops.indexing import Select
from npylstm.ops.shapes import format_shape
from npylstm.ops.shaping import BATCH_SIZE, Expand, Full, Reshape
from npylstm_converters.errors import Refusal
from npylstm_converters.keras.plans import AxisSize, sizes_of
from npylstm_converters.toolkit import array_ops, index_ops, shaping_ops
from npylstm_converters.toolkit.array_ops import arithmetic, axis_of, pointwise
from npylstm_converters.toolkit.translation import Graph

_MOST_PARTS = 10_000  # each is an operation of the model


def expand_dims(graph: Graph, x: Any, axis: Any) -> Any:
    """Insert an axis behind the batch."""
    if axis == 0:
        raise Refusal("axis 0: expected a place behind the batch")
    return array_ops.expand_dims(graph, x, axis)


def reshape(graph: Graph, x: Any, shape: Any) -> Any:
    """Reshape each sample; the batch stays the first axis."""
    x = graph.tensor(x)
    shape = shape if isinstance(shape, list) else [shape]
    if any(isinstance(size, AxisSize) for size in shape):
        sizes, sources = sizes_of(graph, shape, first=1)
        return graph.add(Reshape(sizes), x, *sources)
    if len(shape) < 2 or shape[0] not in (-1, None):
        raise Refusal(f"shape: expected -1 for the batch and sizes, got {shape!r:.60}")
    if any(type(size) is not int for size in shape[1:]):
        raise Refusal(f"shape: expected integers, got {shape!r:.60}")
    sizes, own = tuple(shape[1:]), graph.shape(x)[1:]
    fixed = [size for size in own if isinstance(size, int)]
    if -1 not in sizes and (len(fixed) < len(own) or math.prod(fixed) != math.prod(sizes)):
        raise Refusal(
            f"shape {shape}: would mix samples, as one has the shape {format_shape(own)}; "
            "keep the batch as the first axis"
        )
    return graph.add(Reshape((BATCH_SIZE, *sizes)), x)


def broadcast_to(graph: Graph, x: Any, shape: Any) -> Any:
    """Repeat axes of size one; the batch stays the first axis."""
    x = graph.tensor(x)
    if not isinstance(shape, list):
        raise Refusal(f"shape: expected a list, got {shape!r:.60}")
    batch = [BATCH_SIZE] if shape[:1] in ([None], [-1]) else []
    sizes, sources = sizes_of(graph, shape[len(batch) :], first=1)
    return graph.add(Expand((*batch, *sizes)), x, *sources)


def cast(graph: Graph, x: Any, dtype: Any = None) -> Any:
    """Convert to float32 or float64, which is the model's type, or cut to integers or logic."""
    if isinstance(x, (int, list, AxisSize)):
        return x
    if dtype in ("float32", "float64", None):
        return array_ops.identity(graph, x)
    if dtype in ("int32", "int64", "int16"):
        return pointwise("trunc")(graph, x)
    if dtype == "bool":
        return arithmetic("not_equal")(graph, x, 0)
    raise Refusal(f"to {dtype!r:.40} is not supported")


def full_like(value: float) -> Callable[..., Any]:
    """Return a function that fills a tensor of the same shape with a number."""

    def apply(graph: Graph, x: Any) -> Any:
        return filled_like(graph, x, value)

    return apply


def filled_like(graph: Graph, x: Any, value: Any) -> Any:
    """Fill a tensor of the same shape with a number."""
    x, number = graph.tensor(x), graph.number(value)
    if number is None:
        raise Refusal(f"fill_value: expected a number, got {value!r:.60}")
    return graph.add(Full(tuple((0, k) for k in range(len(graph.shape(x)))), number), x)


def filled(graph: Graph, shape: Any, value: Any = 0.0) -> Any:
    """Fill a tensor with a number; at least one size is that of another tensor."""
    number = graph.number(value)
    sizes, sources = sizes_of(graph, shape if isinstance(shape, list) else [shape])
    if number is None or not sources:
        raise Refusal(
            f"expected a number and the size of a batch, got {value!r:.60}, {shape!r:.60}"
        )
    return graph.add(Full(sizes, number), *sources)


def shape_of(graph: Any, x: Any) -> list[int | AxisSize]:
    """Return the sizes of a tensor, as values that other functions take."""
    x = graph.tensor(x)
    return [n if isinstance(n, int) else graph.size(x, k) for k, n in enumerate(graph.shape(x))]


def stack(graph: Graph, xs: Any, axis: Any = 0) -> Any:
    """Stack tensors, or sizes to a shape."""
    if isinstance(xs, list) and all(isinstance(x, (int, AxisSize)) for x in xs) and axis == 0:
        return xs
    return array_ops.stack(graph, xs, axis)


def split(graph: Graph, x: Any, parts: Any, axis: Any = 0, *, ends: bool = False) -> list[Any]:
    """Divide into equal parts, or into parts of these sizes (``ends``: that end there)."""
    x = graph.tensor(x)
    place = axis_of(graph, x, axis)
    size = graph.shape(x)[place]
    if not isinstance(size, int):
        raise Refusal(f"axis {place}: expected one of a fixed size, got {size!r}")
    if type(parts) is int:
        if not 1 <= parts <= _MOST_PARTS or size % parts:
            raise Refusal(f"expected a number up to {_MOST_PARTS} that divides {size}, got {parts}")
        lengths = [size // parts] * parts
    else:
        numbers = _integers("parts", parts)
        if ends:
            places = [0, *numbers, size]
            lengths = [b - a for a, b in itertools.pairwise(places)]
        else:
            rest = size - sum(n for n in numbers if n >= 0)
            lengths = [rest if n == -1 else n for n in numbers]
    return shaping_ops.split(graph, x, lengths, place)


def split_at(graph: Graph, x: Any, indices_or_sections: Any, axis: Any = 0) -> list[Any]:
    """Divide as ``numpy.split``."""
    return split(graph, x, indices_or_sections, axis, ends=True)


def split_along(axis: int) -> Callable[..., Any]:
    """Return a function that divides along one axis, as ``numpy.hsplit``."""

    def apply(graph: Graph, x: Any, indices_or_sections: Any) -> list[Any]:
        return split(graph, x, indices_or_sections, axis, ends=True)

    return apply


def unstack(graph: Graph, x: Any, num: Any = None, axis: Any = 0) -> list[Any]:
    """Return the entries along an axis."""
    if isinstance(x, list):
        return x
    x = graph.tensor(x)
    place = axis_of(graph, x, axis)
    size = graph.shape(x)[place]
    if not isinstance(size, int) or num not in (None, size) or size > _MOST_PARTS:
        raise Refusal(
            f"axis {place}: expected a fixed size up to {_MOST_PARTS}{f' ({num})' if num else ''}, "
            f"got {size!r}"
        )
    return [graph.add(Select(place, k), x) for k in range(size)]


def _integers(name: str, value: Any) -> list[int]:
    value = value.tolist() if isinstance(value, np.ndarray) else value
    if not isinstance(value, (list, tuple)) or any(type(v) is not int for v in value):
        raise Refusal(f"{name}: expected integers, got {value!r:.60}")
    return [*value]


def tile(graph: Graph, x: Any, times: Any) -> Any:
    """Repeat as a whole; fewer numbers are those of the last axes."""
    x = graph.tensor(x)
    numbers = _integers("repeats", [times] if type(times) is int else times)
    if any(number > _MOST_PARTS for number in numbers):
        raise Refusal(f"repeats: expected up to {_MOST_PARTS}, got {max(numbers)}")
    ones = [1] * (len(graph.shape(x)) - len(numbers))
    return shaping_ops.tile(graph, x, [*ones, *numbers])


def pad(graph: Graph, x: Any, widths: Any, mode: Any = "constant", value: Any = None) -> Any:
    """Pad by pairs of widths, one pair for all axes, or one number for all sides."""
    x = graph.tensor(x)
    word = {"symmetric": ""}.get(str(mode).lower(), str(mode).lower())
    if word not in ("constant", "reflect", "edge", "wrap"):
        raise Refusal(f"mode={mode!r:.40} is not supported")
    rank = len(graph.shape(x))
    widths = widths.tolist() if isinstance(widths, np.ndarray) else widths
    if type(widths) is int:
        widths = [[widths, widths]] * rank
    elif isinstance(widths, (list, tuple)) and len(widths) == 1:
        widths = [*widths] * rank
    return index_ops.pad(graph, x, widths, word, 0.0 if value is None else value)


def moveaxis(graph: Graph, x: Any, source: Any, destination: Any) -> Any:
    """Move axes to other places."""
    x = graph.tensor(x)
    rank = len(graph.shape(x))
    sources, targets = (v if isinstance(v, list) else [v] for v in (source, destination))
    starts = [axis_of(graph, x, a) for a in sources]
    ends = [axis_of(graph, x, a) for a in targets]
    order = [axis for axis in range(rank) if axis not in starts]
    for end, start in sorted(zip(ends, starts, strict=True)):
        order.insert(end, start)
    return array_ops.transpose(graph, x, order)


def swapaxes(graph: Graph, x: Any, axis1: Any, axis2: Any) -> Any:
    """Exchange two axes."""
    return moveaxis(graph, x, [axis1, axis2], [axis2, axis1])


def take(graph: Graph, x: Any, indices: Any, axis: Any = None, batch_dims: Any = 0) -> Any:
    """Take entries along an axis."""
    if axis is None and not batch_dims:
        raise Refusal("axis=None: expected the axis of the entries")
    return index_ops.take(graph, x, indices, batch_dims if axis is None else axis, batch_dims)


def gather(graph: Graph, x: Any, indices: Any, axis: Any = None, batch_dims: Any = 0) -> Any:
    """Take entries along an axis; by default that behind the common axes."""
    return index_ops.take(graph, x, indices, batch_dims if axis is None else axis, batch_dims)


def sliced(graph: Graph, x: Any, begin: Any, size: Any) -> Any:
    """Take a block: from ``begin`` on, ``size`` entries or all that follow (-1)."""
    starts, sizes = _integers("begin", begin), _integers("size", size)
    x = graph.tensor(x)
    for axis, (start, count) in enumerate(zip(starts, sizes, strict=True)):
        if (start, count) != (0, -1):
            x = index_ops.slice_axis(graph, x, axis, start, None if count == -1 else start + count)
    return x


def ensure_shape(graph: Graph, x: Any, shape: Any) -> Any:
    """Return the input if its shape is the stated one, where it is stated."""
    x = graph.tensor(x)
    own = graph.shape(x)
    if not isinstance(shape, list) or len(shape) != len(own):
        raise Refusal(f"shape: expected {format_shape(own)}, got {shape!r:.60}")
    if any(
        a is not None and isinstance(b, int) and a != b for a, b in zip(shape, own, strict=True)
    ):
        raise Refusal(f"shape: expected {format_shape(own)}, got {shape!r:.60}")
    return array_ops.identity(graph, x)


def take_along_axis(graph: Graph, x: Any, indices: Any, axis: Any = None) -> Any:
    """Take an entry for each index; the other axes are broadcast, as NumPy does."""
    if axis is None:
        raise Refusal("axis=None: would mix samples; expected an axis behind the batch")
    x, indices = graph.tensor(x), graph.tensor(indices)
    place = axis_of(graph, x, axis)
    own, other = graph.shape(x), graph.shape(indices)
    if len(own) != len(other):
        raise Refusal(f"expected indices of {len(own)} axes, got {format_shape(other)}")

    def spread(tensor: Any, shape: Any, towards: Any, sizes: Any) -> Any:
        wanted = [
            (1, k) if k != place and shape[k] == 1 and sizes[k] != 1 else (0, k)
            for k in range(len(shape))
        ]
        kept = all(source == 0 for source, _ in wanted)
        return tensor if kept else graph.add(Expand(tuple(wanted)), tensor, towards)

    indices, x = spread(indices, other, x, own), spread(x, own, indices, other)
    return index_ops.take_along_axis(graph, x, indices, place)
