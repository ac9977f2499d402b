"""What stands between brackets, ``x[:, -1]``, as layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from npylstm.ops.base import Operation
from npylstm.ops.indexing import Flip, Select, Slice
from npylstm.ops.pointwise import Identity
from npylstm.ops.shaping import Reshape
from npylstm_converters.errors import Refusal
from npylstm_converters.keras.arguments import Arguments, Plan

__all__ = ["get_item", "strided_slice", "with_axis"]


def with_axis(axis: int, rank: int) -> Reshape:
    """A new axis of size one."""
    sizes: list[int | tuple[int, int]] = [(0, k) for k in range(rank)]
    sizes.insert(axis, 1)
    return Reshape(tuple(sizes))


def get_item(given: Arguments) -> Plan:
    """Plan ``x[key]``, as Keras 3 and TensorFlow's functions write it."""
    x = given.tensor()
    key = given.get(1, "slice_spec", "key")
    given.off("var")
    return Plan(_cut(key if isinstance(key, list) else [key], len(x.shape)), [x.place])


def _cut(key: Sequence[Any], rank: int) -> list[Operation]:
    """Make layers of what stands between brackets."""
    entries: list[Any] = []
    names = [e.get("class_name") if isinstance(e, Mapping) else None for e in key]
    taken = sum(entry is not None for entry in key)  # a new axis takes none
    if names.count("__ellipsis__") > 1:
        raise Refusal("takes more than one ellipsis")
    for name, entry in zip(names, key, strict=True):
        if name == "__ellipsis__":
            entries += [{}] * (rank - taken + 1)
        else:
            entries.append(entry.get("config") if name == "__slice__" else entry)
    layers: list[Operation] = []
    axis = 0
    for entry in entries:
        made = _cut_one(entry, axis, rank)
        layers += [made] if made is not None else []
        if isinstance(made, Select):
            rank -= 1
            continue
        rank += isinstance(made, Reshape)
        axis += 1
    if layers and getattr(layers[0], "axis", 1) == 0:
        raise Refusal("takes samples out of the batch")
    return layers or [Identity()]


def _cut_one(entry: Any, axis: int, rank: int) -> Operation | None:
    """Make a layer of one entry between brackets; nothing of a colon."""
    if type(entry) is int:
        return Select(axis, entry)
    if entry is None and axis:
        return with_axis(axis, rank)
    if not isinstance(entry, Mapping):
        raise Refusal(f"takes {entry!r:.60}: expected numbers and slices")
    start, stop, step = (entry.get(name) for name in ("start", "stop", "step"))
    if any(v is not None and type(v) is not int for v in (start, stop, step)):
        raise Refusal(f"takes a slice {dict(entry)!r:.60}: expected numbers")
    if (start, stop, step) == (None, None, -1):
        return Flip((axis,))
    if step is not None and step < 1:
        raise Refusal(f"takes a slice {dict(entry)!r:.60}: expected a step forward")
    if (start or 0, stop, step or 1) == (0, None, 1):
        return None
    return Slice(axis, start or 0, stop, step or 1)


_MASKS = ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask")


def strided_slice(given: Arguments) -> Plan:
    """Plan ``x[key]`` as a TensorFlow node writes it: bounds, and bits for what they mean."""
    x = given.tensor()
    bounds = [given.get(k) for k in (1, 2, 3)]
    if any(not isinstance(b, list) or any(type(v) is not int for v in b) for b in bounds):
        raise Refusal("expected bounds that are numbers")
    if len({len(b) for b in bounds}) > 1:
        raise Refusal("expected as many bounds of each kind")
    masks = {name: _bits(given.option(name)) for name in _MASKS}
    if masks["new_axis_mask"]:
        raise Refusal("with a new axis is not supported")
    key: list[Any] = []
    for k, (start, stop, step) in enumerate(zip(*bounds, strict=True)):
        bit = 1 << k
        if masks["ellipsis_mask"] & bit:
            key.append({"class_name": "__ellipsis__"})
        elif masks["shrink_axis_mask"] & bit:
            key.append(start)
        else:
            open_start, open_stop = masks["begin_mask"] & bit, masks["end_mask"] & bit
            bounded = {"start": None if open_start else start, "stop": None if open_stop else stop}
            key.append({**bounded, "step": step})
    return Plan(_cut(key, len(x.shape)), [x.place])


def _bits(value: Any) -> int:
    held = value.get("i", 0) if isinstance(value, Mapping) else value or 0
    try:
        return int(held)
    except (TypeError, ValueError, OverflowError):
        raise Refusal(f"expected a number, got {value!r:.60}") from None
