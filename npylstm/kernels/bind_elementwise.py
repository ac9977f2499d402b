"""Fill rows for elementwise operations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from npylstm.arrays import Array
from npylstm.kernels.bind_views import View, axis_columns, bits, loops, unread, view
from npylstm.kernels.calls import Call, Place, Sizes
from npylstm.kernels.codes import CODES
from npylstm.kernels.packing import ALIGNMENT, VectorType

__all__ = ["bind_arithmetic", "bind_choice", "bind_prelu", "bind_rescaling", "bind_scale",
           "can_combine", "pack_constant", "pack_scale", "pack_slopes"]  # fmt: skip

Rows = list[dict[str, int]]
Weights = Mapping[str, Array]


class _Operand(NamedTuple):
    """A tensor in a buffer, or a number."""

    place: View
    value: float | None = None
    in_params: bool = False


def _tensor(place: Place, shape: Sizes, target: Sizes) -> _Operand:
    """Return an input with the axes of ``shape``, broadcast."""
    array = unread(place)
    wide = np.broadcast_to(array.reshape(shape), target)
    return _Operand(view(wide, array, place))


def _number(value: float, target: Sizes) -> _Operand:
    return _Operand(View(0, target, (0,) * len(target)), value)


def can_combine(operation: Any) -> bool:
    """Whether there is a code for the operation."""
    return operation.operation == "average" or operation.operation in CODES


def bind_arithmetic(operation: Any, call: Call) -> Rows:
    """Return a row for each operand from the second on."""
    target = call.outputs[0].shape
    shapes = operation.expanded([place.shape for place in call.inputs])
    operands = [_tensor(p, s, target) for p, s in zip(call.inputs, shapes, strict=True)]
    if operation.number is not None:
        operands.insert(0 if operation.number_first else len(operands),
                        _number(operation.number, target))  # fmt: skip
    names = [operation.operation] * (len(operands) - 1)
    if operation.operation == "average":
        names = ["add"] * len(names) + ["divide"]
        operands.append(_number(len(operands), target))
    whole = View(call.outputs[0].start, target, _contiguous(target))
    rows: Rows = []
    if not names:  # of one tensor
        names, operands = ["add"], [*operands, _number(-0.0, target)]
    left = operands[0]
    for name, right in zip(names, operands[1:], strict=True):
        rows += _combined(CODES[name], left, right, whole, call)
        left = _Operand(whole)
    return rows


def _combined(code: int, a: _Operand, b: _Operand, y: View, call: Call) -> Rows:
    rows = []
    for sizes, (a_part, b_part, y_part) in loops(y.sizes, a.place, b.place, y):
        inner = -(-max(sizes[-1], call.vector.lanes) // ALIGNMENT) * ALIGNMENT
        rows.append({
            **axis_columns(sizes, X=a_part, OTHER=b_part), "CODE": code, "X": a_part.start,
            "OTHER": 0 if b.in_params else b_part.start, "Y": y_part.start,
            "SCRATCH": call.reserve(2 * inner), "X_IS_NUMBER": a.value is not None,
            "X_VALUE": bits(a.value or 0.0), "OTHER_IS_NUMBER": b.value is not None,
            "OTHER_VALUE": bits(b.value or 0.0), "OTHER_IN_PARAMS": b.in_params,
        })  # fmt: skip
    return rows


def _contiguous(sizes: Sizes) -> Sizes:
    return tuple(math.prod(sizes[k + 1 :]) for k in range(len(sizes)))


def bind_choice(operation: Any, call: Call) -> Rows:
    """Return a row for a choice between two operands."""
    target = call.outputs[0].shape
    condition, *rest = (_tensor(place, place.shape, target) for place in call.inputs)
    yes, no = (
        rest.pop(0) if value is None else _number(value, target)
        for value in (operation.x, operation.y)
    )
    whole = View(call.outputs[0].start, target, _contiguous(target))
    rows: Rows = []
    for sizes, (x, a, b, y) in loops(target, condition.place, yes.place, no.place, whole):
        rows.append({
            **axis_columns(sizes, X=x, YES=a, NO=b), "X": x.start, "YES": a.start, "NO": b.start,
            "Y": y.start, "YES_IS_NUMBER": yes.value is not None,
            "YES_VALUE": bits(yes.value or 0.0), "NO_IS_NUMBER": no.value is not None,
            "NO_VALUE": bits(no.value or 0.0),
        })  # fmt: skip
    return rows


def pack_slopes(operation: Any, weights: Weights, vector: VectorType) -> dict[str, Array]:
    """Return the slopes, unchanged."""
    return {"W": weights["alpha"]}


def bind_prelu(operation: Any, call: Call) -> Rows:
    """Return a row with the slopes, broadcast."""
    target = call.outputs[0].shape
    behind = len(target) - operation.axis - len(operation.shape)
    slopes = np.empty(operation.shape, np.int8)
    wide = np.broadcast_to(slopes.reshape((*operation.shape, *(1,) * behind)), target)
    other = _Operand(View(0, target, wide.strides), in_params=True)
    whole = View(call.outputs[0].start, target, _contiguous(target))
    return _combined(CODES["prelu"], _tensor(call.inputs[0], target, target), other, whole, call)


def bind_rescaling(operation: Any, call: Call) -> dict[str, int]:
    """Return the columns, with both numbers in float64."""
    return {"SIZE": call.inputs[0].size, "SCALE": bits(operation.scale),
            "OFFSET": bits(operation.offset)}  # fmt: skip


def pack_scale(operation: Any, weights: Weights, vector: VectorType) -> dict[str, Array]:
    """Return factors and shifts, each in two parts: what the dtype rounds off is the second."""
    packed = operation.pack(weights)
    parts: dict[str, Array] = {}
    for column, name in (("FACTOR", "factor"), ("SHIFT", "shift")):
        exact = np.broadcast_to(packed[name], (operation.features,))
        first = exact.astype(vector.dtype)
        with np.errstate(invalid="ignore"):
            rest = np.where(np.isfinite(first), exact - first, 0).astype(vector.dtype)
        parts |= {column: first, f"{column}_REST": rest}
    return parts


def bind_scale(operation: Any, call: Call) -> dict[str, int]:
    """Return the axis with the factors, and the numbers of entries before and after it."""
    shape = call.inputs[0].shape
    axis = operation.axis_in(shape)
    return {"ROWS": math.prod(shape[:axis]), "SIZE": shape[axis],
            "INNER": math.prod(shape[axis + 1 :])}  # fmt: skip


def pack_constant(operation: Any, weights: Weights, vector: VectorType) -> dict[str, Array]:
    """Return the tensor."""
    return {"W": weights["value"]}
