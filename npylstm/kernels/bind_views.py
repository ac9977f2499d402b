"""Fill rows for kernels that go through elements along axes.

Where the elements of a tensor are, NumPy says: operations that only move elements return a view of
an array of the input's shape, whose memory nobody reads.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from npylstm.arrays import Array
from npylstm.kernels.arguments import RANK
from npylstm.kernels.calls import Call, Place, Sizes

__all__ = [
    "View",
    "alias_of",
    "axis_columns",
    "bind_move",
    "bits",
    "loops",
    "moves",
    "unread",
    "view",
]


class View(NamedTuple):
    """Where elements are: the offset of the first, and the distances along axes."""

    start: int
    sizes: Sizes
    distances: Sizes


def bits(number: float) -> int:
    """Return the bits of a number in float64, as a column holds them."""
    made: int = struct.unpack("<q", struct.pack("<d", number))[0]
    return made


def unread(place: Place) -> Array:
    """Return an array of the shape of a tensor whose elements are never read: one byte each."""
    return np.empty(place.shape, np.int8)


def view(array: Array, of: Array, place: Place) -> View:
    """Return the place of a view of the array ``of``, which :func:`unread` returned."""
    first = int(array.__array_interface__["data"][0]) - int(of.__array_interface__["data"][0])
    return View(place.start + first, array.shape, array.strides)


def loops(sizes: Sizes, *views: View) -> Iterator[tuple[Sizes, list[View]]]:
    """Merge axes, and yield loops of :data:`RANK` axes, with the sizes of each and its views.

    More axes than these become several loops; there are none if there is no element.
    """
    if 0 in sizes:
        return
    axes: list[list[int]] = []  # size, and the distance of each view
    for axis in zip(sizes, *(v.distances for v in views), strict=True):
        if axis[0] == 1:
            continue
        before = axes[-1] if axes else None
        if before and all(p == d * axis[0] for p, d in zip(before[1:], axis[1:], strict=True)):
            axes[-1] = [before[0] * axis[0], *axis[1:]]
        else:
            axes.append([*axis])
    more = axes[: max(0, len(axes) - RANK)]
    inner = [[1, *[0] * len(views)]] * (RANK - len(axes)) + axes[len(more) :]
    inner_sizes = tuple(axis[0] for axis in inner)
    for place in itertools.product(*(range(axis[0]) for axis in more)):
        yield inner_sizes, [
            View(
                v.start + sum(k * axis[n] for k, axis in zip(place, more, strict=True)),
                inner_sizes, tuple(axis[n] for axis in inner),
            )
            for n, v in enumerate(views, 1)
        ]  # fmt: skip


def axis_columns(sizes: Sizes, **views: View) -> dict[str, int]:
    """Return the columns of a loop: sizes, and distances of each view by its name."""
    made = {f"SIZE{k}": size for k, size in enumerate(sizes)}
    for name, own in views.items():
        made |= {f"{name}_AT{k}": distance for k, distance in enumerate(own.distances)}
    return made | {"ROWS": math.prod(sizes[:-2])}


def alias_of(operation: Any, inputs: Sequence[Place]) -> int | None:
    """Return where the output begins if it is contiguous in the memory of the first input."""
    array = unread(inputs[0])
    (made,), _ = operation.forward({}, [array, *map(unread, inputs[1:])], {})
    own = view(made, array, inputs[0])
    return own.start if _is_contiguous(own) else None


def _is_contiguous(own: View) -> bool:
    size = 1
    for n, distance in zip(reversed(own.sizes), reversed(own.distances), strict=True):
        if n != 1 and distance != size:
            return False
        size *= n
    return True


def bind_move(operation: Any, call: Call) -> list[dict[str, int]]:
    """Return rows that copy the elements of a view of the first input."""
    array, target = unread(call.inputs[0]), unread(call.outputs[0])
    (made,), _ = operation.forward({}, [array, *map(unread, call.inputs[1:])], {})
    return [*moves(view(made, array, call.inputs[0]), view(target, target, call.outputs[0]))]


def moves(source: View, target: View, **more: int) -> Iterator[dict[str, int]]:
    """Yield rows that copy elements from place to place."""
    for sizes, (x, y) in loops(target.sizes, source, target):
        yield {**axis_columns(sizes, X=x, Y=y), "X": x.start, "Y": y.start, **more}
