"""Fill rows for kernels that combine entries along axes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from npylstm.arrays import Array
from npylstm.kernels.bind_views import bits
from npylstm.kernels.calls import Call, Sizes
from npylstm.kernels.codes import NORMALIZATIONS, REDUCTIONS
from npylstm.kernels.packing import VectorType

__all__ = [
    "bind_masking", "bind_normalization", "bind_pool", "bind_reduce", "bind_softmax", "can_pool",
    "can_reduce", "is_softmax", "pack_normalization",
]  # fmt: skip

Columns = dict[str, int]
Weights = Mapping[str, Array]


def _along(shape: Sizes, first: int, count: int = 1) -> Columns:
    """Return the columns of entries along some axes."""
    return {"ROWS": math.prod(shape[:first]), "SIZE": math.prod(shape[first : first + count]),
            "INNER": math.prod(shape[first + count :])}  # fmt: skip


def can_reduce(operation: Any) -> bool:
    """Whether there is a code for the operation, and its axes are side by side."""
    axes = sorted(operation.axes)
    together = axes == [*range(axes[0], axes[0] + len(axes))] if axes else False
    return together and operation.operation in REDUCTIONS


def bind_reduce(operation: Any, call: Call) -> Columns:
    """Return the columns; means are divided by the number of entries."""
    made = _along(call.inputs[0].shape, min(operation.axes), len(operation.axes))
    divisor = max(made["SIZE"] - operation.ddof, 0)
    return made | {"CODE": REDUCTIONS[operation.operation], "DIVISOR": divisor}


def is_softmax(operation: Any) -> bool:
    """Whether the activation is the softmax or its logarithm."""
    return operation.activation.name in ("softmax", "log_softmax")


def bind_softmax(operation: Any, call: Call) -> Columns:
    """Return the columns for an axis that may be any."""
    shape = call.inputs[0].shape
    logarithm = operation.activation.name == "log_softmax"
    return _along(shape, operation.activation.axis % len(shape)) | {"LOGARITHM": logarithm}


def _normalization(operation: Any) -> str:
    if operation.kind == "layer_normalization":
        return "layer" if operation.centered else "scaled"
    return "rms"


def pack_normalization(operation: Any, weights: Weights, vector: VectorType) -> dict[str, Array]:
    """Return scales and offsets, also where there are none: ones and zeros."""
    none = {"gamma": np.ones(operation.shape, vector.dtype),
            "beta": np.zeros(operation.shape, vector.dtype)}  # fmt: skip
    chosen = {**none, **weights}
    return {"GAMMA": chosen["gamma"], "BETA": chosen["beta"]}


def bind_normalization(operation: Any, call: Call) -> Columns:
    """Return the columns; the epsilon in float64."""
    shape = call.inputs[0].shape
    axes = len(shape) - len(operation.shape)
    return {
        "ROWS": math.prod(shape[:axes]), "SIZE": math.prod(shape[axes:]),
        "CODE": NORMALIZATIONS[_normalization(operation)], "EPSILON": bits(operation.epsilon),
    }  # fmt: skip


def can_pool(operation: Any) -> bool:
    """Whether the pool is over one axis, and there is a code for the operation."""
    return len(operation.windows) == 1 and operation.operation in ("max", "mean", "sum")


def bind_pool(operation: Any, call: Call) -> Columns:
    """Return the columns of a pool over the steps."""
    x, y = call.inputs[0].shape, call.outputs[0].shape
    axis = 2 if operation.channels_first else 1
    (window,) = operation.windows
    before, after = window.pads(x[axis]) if window.same else (window.before, window.after)
    return {
        "ROWS": x[0], "IN": x[3 - axis], "CODE": REDUCTIONS[operation.operation],
        "SIZE": window.size, "STRIDE": window.stride, "DILATION": window.dilation,
        "BEFORE": before, "AFTER": after, "STEPS": x[axis], "OUT_STEPS": y[axis],
        "COUNT_PADDING": operation.count_padding, "CHANNELS_FIRST": operation.channels_first,
    }  # fmt: skip


def bind_masking(operation: Any, call: Call) -> Columns:
    """Return the columns, with the place of the mask."""
    x, mask = call.inputs[0], call.outputs[1]
    return {"ROWS": x.rows, "IN": x.shape[-1], "VALUE": bits(operation.mask_value),
            "MASK": mask.start}  # fmt: skip
