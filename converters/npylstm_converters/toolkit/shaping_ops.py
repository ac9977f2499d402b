"""Array operations that divide, repeat and shift tensors, for all importers.

See :mod:`npylstm_converters.toolkit.array_ops`, which has the simpler ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from npylstm.ops.indexing import Repeat, Slice
from npylstm.ops.pooling import SlidingWindows
from npylstm.ops.shaping import Concatenate, Full, Reshape, Size
from npylstm.ops.sorting import Cumulative
from npylstm_converters.errors import Refusal
from npylstm_converters.toolkit.array_ops import axis_of
from npylstm_converters.toolkit.translation import Graph

__all__ = ["flatten", "positions", "repeat", "roll", "sliding_windows", "split", "tile"]


def _positive(name: str, value: Any) -> int:
    if type(value) is not int or value < 1:
        raise Refusal(f"{name}: expected a positive integer, got {value!r:.60}")
    return value


def flatten(graph: Graph, x: Any, axis: Any = 1) -> Any:
    """Merge the axes before ``axis``, and those from it on: two axes remain."""
    x = graph.tensor(x)
    rank = len(graph.shape(x))
    if axis in (0, rank):
        return graph.add(Reshape((1, -1) if axis == 0 else (-1, 1)), x)
    place = axis_of(graph, x, axis)
    if place == 1:
        return graph.add(Reshape(((0, 0), -1)), x)
    kept: list[Size] = [(0, k) for k in range(place)]
    inner = graph.add(Reshape((*kept, -1)), x)
    return graph.add(Reshape((-1, (0, place))), inner)


def split(graph: Graph, x: Any, sizes: Sequence[Any], axis: Any = 0) -> list[Any]:
    """Divide a tensor along an axis into parts of these sizes."""
    x = graph.tensor(x)
    place, at = axis_of(graph, x, axis), 0
    size, parts = graph.shape(x)[place], []
    lengths = [_positive("sizes", n) for n in sizes]
    if isinstance(size, int) and sum(lengths) != size:
        raise Refusal(f"sizes: expected a sum of {size}, got {lengths}")
    for length in lengths:
        parts.append(graph.add(Slice(place, at, at + length, size=length), x))
        at += length
    return parts


def tile(graph: Graph, x: Any, times: Sequence[Any]) -> Any:
    """Repeat a tensor as a whole along each axis: ``numpy.tile``."""
    x = graph.tensor(x)
    if len(times) != len(graph.shape(x)):
        raise Refusal(f"times: expected one for each axis of {graph.shape(x)}, got {list(times)}")
    for axis, count in enumerate(times):
        if _positive("times", count) > 1:
            x = graph.add(Concatenate(axis), *[x] * count)
    return x


def repeat(graph: Graph, x: Any, times: Any, axis: Any) -> Any:
    """Repeat each entry along an axis: ``numpy.repeat``."""
    x = graph.tensor(x)
    return graph.add(Repeat(axis_of(graph, x, axis), _positive("times", times)), x)


def roll(graph: Graph, x: Any, shift: Any, axis: Any) -> Any:
    """Move entries along an axis, those at the end to the front: ``numpy.roll``."""
    x = graph.tensor(x)
    place = axis_of(graph, x, axis)
    size = graph.shape(x)[place]
    if type(shift) is not int:
        raise Refusal(f"shift: expected an integer, got {shift!r:.60}")
    shift = shift % size if isinstance(size, int) else shift
    if not shift:
        return x
    parts = [graph.add(Slice(place, *bounds), x) for bounds in ((-shift, None), (0, -shift))]
    return graph.add(Concatenate(place), *parts)


def sliding_windows(graph: Graph, x: Any, size: Any, stride: Any = 1, axis: Any = -1) -> Any:
    """Return all windows along an axis as a new last axis: ``Tensor.unfold`` of PyTorch."""
    x = graph.tensor(x)
    numbers = _positive("size", size), _positive("stride", stride)
    return graph.add(SlidingWindows(axis_of(graph, x, axis), *numbers), x)


def positions(graph: Graph, x: Any, axis: Any) -> Any:
    """Return the integers from 0 to the size of an axis, as a tensor of one axis."""
    x = graph.tensor(x)
    ones = graph.add(Full(((0, axis_of(graph, x, axis)),), 1.0), x)
    return graph.add(Cumulative("sum", 0, exclusive=True), ones)
