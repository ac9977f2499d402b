"""Array operations that read and write entries by index, for all importers.

See :mod:`npylstm_converters.toolkit.array_ops`. Indices are a tensor or constant integers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from npylstm.ops.gathering import OneHot, ScatterElements, Take, TakeAlongAxis
from npylstm.ops.gathering_nd import GatherND, ScatterND
from npylstm.ops.indexing import Pad, Select, Slice, Trilu
from npylstm.ops.shaping import Reshape
from npylstm_converters.errors import Refusal
from npylstm_converters.toolkit.array_ops import axis_of
from npylstm_converters.toolkit.translation import Graph

__all__ = [
    "gather_nd", "one_hot", "pad", "scatter_elements", "scatter_nd", "slice_axis", "take",
    "take_along_axis", "trilu",
]  # fmt: skip


def take(graph: Graph, x: Any, indices: Any, axis: Any = 0, batch_dims: Any = 0) -> Any:
    """Take entries along an axis; the axes of the indices replace it.

    With ``batch_dims`` the first axes of both tensors are the same axes. Constant indices are an
    integer, an array, or lists of integers.
    """
    x = graph.tensor(x)
    axis = axis_of(graph, x, axis)
    if not isinstance(indices, (int, list, tuple, np.ndarray, np.integer)):
        if type(batch_dims) is not int:
            raise Refusal(f"batch_dims: expected an integer, got {batch_dims!r:.60}")
        at = graph.tensor(indices)
        dims = batch_dims + len(graph.shape(at)) if batch_dims < 0 else batch_dims
        return graph.add(Take(axis, batch_dims=dims), x, at)
    constant = np.asarray(indices)
    if constant.dtype.kind not in "iu" or not constant.size:
        raise Refusal(f"indices: expected integers, got {indices!r:.60}")
    if batch_dims:
        raise Refusal(f"batch_dims={batch_dims!r:.60} is not supported with constant indices")
    if constant.ndim == 0:
        return graph.add(Select(axis, int(constant)), x)
    y = graph.add(Take(axis, tuple(map(int, constant.reshape(-1)))), x)
    if constant.ndim == 1:
        return y
    sizes: list[Any] = [(0, k) for k in range(len(graph.shape(y)))]
    return graph.add(Reshape((*sizes[:axis], *constant.shape, *sizes[axis + 1 :])), y)


_HUGE = 2**31 - 1  # exporters write such a bound, or a larger one, for the end


def slice_axis(
    graph: Graph, x: Any, axis: Any, start: Any = None, stop: Any = None, step: Any = 1
) -> Any:
    """Take ``x[start:stop:step]`` along an axis, with Python's meaning of every bound."""
    x = graph.tensor(x)
    axis = axis_of(graph, x, axis)
    for name, bound in (("start", start), ("stop", stop), ("step", step)):
        if type(bound) is not int and (bound is not None or name == "step"):
            raise Refusal(f"{name}: expected an integer, got {bound!r:.60}")
    sign = 1 if step > 0 else -1
    start = None if start is not None and sign * start <= -_HUGE else start
    stop = None if stop is not None and sign * stop >= _HUGE else stop
    return graph.add(Slice(axis, 0 if start is None and step > 0 else start, stop, step), x)


def pad(graph: Graph, x: Any, widths: Any, mode: str = "constant", value: Any = 0.0) -> Any:
    """Pad along axes: ``widths`` has a pair ``(before, after)`` for each axis of the tensor.

    Negative numbers remove entries. ``mode`` is a word of :class:`npylstm.ops.indexing.Pad`.
    """
    x = graph.tensor(x)
    rank, number = len(graph.shape(x)), graph.number(value)
    pairs = [tuple(pair) for pair in widths] if isinstance(widths, (list, tuple)) else []
    if len(pairs) != rank or any(len(p) != 2 or {*map(type, p)} != {int} for p in pairs):
        raise Refusal(f"padding: expected {rank} pairs of integers, got {widths!r:.60}")
    if number is None:
        raise Refusal(f"value: expected a number, got {value!r:.60}")
    for axis, (before, after) in enumerate(pairs):
        if before or after:
            x = graph.add(Pad(axis, before, after, mode, number), x)
    return x


def take_along_axis(graph: Graph, x: Any, indices: Any, axis: Any = -1) -> Any:
    """Take, for every index of a tensor, the entry at this place: ``torch.gather``."""
    x = graph.tensor(x)
    return graph.add(TakeAlongAxis(axis_of(graph, x, axis)), x, graph.tensor(indices))


def scatter_elements(mode: str = "set") -> Callable[..., Any]:
    """Return a function that writes, for every index, an update to this place.

    ``mode`` is a word of :class:`npylstm.ops.gathering.ScatterElements`.
    """

    def apply(graph: Graph, x: Any, indices: Any, updates: Any, axis: Any = 0) -> Any:
        x = graph.tensor(x)
        tensors = graph.tensor(indices), graph.tensor(updates)
        return graph.add(ScatterElements(axis_of(graph, x, axis), mode), x, *tensors)

    return apply


def gather_nd(graph: Graph, x: Any, indices: Any, batch_dims: Any = 0) -> Any:
    """Take entries by their indices on the first axes, which are the last axis of ``indices``."""
    if type(batch_dims) is not int:
        raise Refusal(f"batch_dims: expected an integer, got {batch_dims!r:.60}")
    return graph.add(GatherND(batch_dims), graph.tensor(x), graph.tensor(indices))


def scatter_nd(mode: str = "set") -> Callable[..., Any]:
    """Return a function that writes entries by their indices on the first axes."""

    def apply(graph: Graph, x: Any, indices: Any, updates: Any) -> Any:
        tensors = (graph.tensor(v) for v in (x, indices, updates))
        return graph.add(ScatterND(mode), *tensors)

    return apply


def one_hot(
    graph: Graph,
    x: Any,
    depth: Any,
    axis: Any = -1,
    on: Any = 1.0,
    off: Any = 0.0,
    negative: Any = False,
) -> Any:
    """Return ``on`` at the index along a new axis, ``off`` elsewhere."""
    x = graph.tensor(x)
    if type(depth) is not int:
        raise Refusal(f"depth: expected an integer, got {depth!r:.60}")
    values = graph.number(on), graph.number(off)
    if values[0] is None or values[1] is None:
        raise Refusal(f"expected two numbers on and off, got {on!r:.60} and {off!r:.60}")
    place = axis_of(graph, x, axis, extra=1)
    return graph.add(OneHot(depth, place, values[0], values[1], bool(negative)), x)


def trilu(graph: Graph, x: Any, k: Any = 0, upper: Any = False) -> Any:
    """Keep the entries on a diagonal of the last two axes and below (``upper``: above)."""
    if type(k) is not int:
        raise Refusal(f"k: expected an integer, got {k!r:.60}")
    return graph.add(Trilu(bool(upper), k), graph.tensor(x))
