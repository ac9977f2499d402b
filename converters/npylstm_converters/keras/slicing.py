"""Indexing with brackets, ``x[:, -1]``, as Keras 3 and TensorFlow write it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from npylstm.ops.indexing import Flip, Select, Slice
from npylstm_converters.errors import Refusal
from npylstm_converters.toolkit.array_ops import expand_dims, identity
from npylstm_converters.toolkit.translation import Graph

__all__ = ["get_item", "strided_slice"]


def get_item(graph: Graph, x: Any, key: Any) -> Any:
    """Add ``x[key]``, as Keras 3 and TensorFlow's functions write it."""
    if isinstance(x, list):  # the sizes of a tensor
        return _of_sizes(x, key)
    x = graph.tensor(x)
    entries = _without_ellipsis(key if isinstance(key, list) else [key], len(graph.shape(x)))
    made, axis = x, 0
    for entry in entries:
        made, kept = _index(graph, made, entry, axis)
        axis += kept
    return identity(graph, x) if made is x else made


def _of_sizes(sizes: list[Any], key: Any) -> Any:
    """Return one or some of the sizes of a tensor."""
    (entry,) = key if isinstance(key, list) and len(key) == 1 else [key]
    if type(entry) is int and -len(sizes) <= entry < len(sizes):
        return sizes[entry]
    held = entry.get("config", entry) if isinstance(entry, Mapping) else None
    names = ("start", "stop", "step")
    bounds: list[Any] = [""] if held is None else [held.get(name) for name in names]
    if any(v is not None and type(v) is not int for v in bounds):
        raise Refusal(f"takes {key!r:.60} of {len(sizes)} sizes: expected numbers and slices")
    return sizes[slice(*bounds)]


def _without_ellipsis(key: Sequence[Any], rank: int) -> list[Any]:
    """Return the key with an ellipsis as colons, and slices as mappings of their bounds."""
    names = [e.get("class_name") if isinstance(e, Mapping) else None for e in key]
    taken = sum(entry is not None for entry in key)  # a new axis uses no axis of x
    if names.count("__ellipsis__") > 1:
        raise Refusal("takes more than one ellipsis")
    entries: list[Any] = []
    for name, entry in zip(names, key, strict=True):
        if name == "__ellipsis__":
            entries += [{}] * (rank - taken + 1)
        else:
            entries.append(entry.get("config") if name == "__slice__" else entry)
    return entries


def _index(graph: Graph, x: Any, entry: Any, axis: int) -> tuple[Any, bool]:
    """Apply one entry of the key; return the tensor and whether the axis remains."""
    if type(entry) is int:
        return graph.add(Select(axis, entry), x), False
    if entry is None and axis:
        return expand_dims(graph, x, axis), True
    if not isinstance(entry, Mapping):
        raise Refusal(f"takes {entry!r:.60}: expected numbers and slices")
    start, stop, step = (entry.get(name) for name in ("start", "stop", "step"))
    if any(v is not None and type(v) is not int for v in (start, stop, step)):
        raise Refusal(f"takes a slice {dict(entry)!r:.60}: expected numbers")
    if (start or 0, stop, step or 1) == (0, None, 1):
        return x, True
    if (start, stop, step) == (None, None, -1):
        return graph.add(Flip((axis,)), x), True
    if step is not None and step < 1:
        raise Refusal(f"takes a slice {dict(entry)!r:.60}: expected a step forward")
    return graph.add(Slice(axis, start or 0, stop, step or 1), x), True


def strided_slice(
    graph: Graph, x: Any, begin: Any, end: Any, strides: Any, begin_mask: Any = 0,
    end_mask: Any = 0, ellipsis_mask: Any = 0, new_axis_mask: Any = 0, shrink_axis_mask: Any = 0,
) -> Any:  # fmt: skip
    """Add ``x[key]`` as a TensorFlow node writes it: bounds and bit masks."""
    bounds = [begin, end, strides]
    if any(not isinstance(b, list) or any(type(v) is not int for v in b) for b in bounds):
        raise Refusal("expected bounds that are numbers")
    if len({len(b) for b in bounds}) > 1:
        raise Refusal("expected as many bounds of each kind")
    if _bits(new_axis_mask):
        raise Refusal("with a new axis is not supported")
    key: list[Any] = []
    for k, (start, stop, step) in enumerate(zip(*bounds, strict=True)):
        bit = 1 << k
        if _bits(ellipsis_mask) & bit:
            key.append({"class_name": "__ellipsis__"})
        elif _bits(shrink_axis_mask) & bit:
            key.append(start)
        else:
            bounded = {
                "start": None if _bits(begin_mask) & bit else start,
                "stop": None if _bits(end_mask) & bit else stop,
            }
            key.append({**bounded, "step": step})
    return get_item(graph, x, key)


def _bits(value: Any) -> int:
    held = value.get("i", 0) if isinstance(value, Mapping) else value or 0
    try:
        return int(held)
    except (TypeError, ValueError, OverflowError):
        raise Refusal(f"expected a number, got {value!r:.60}") from None
