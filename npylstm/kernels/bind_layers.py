"""Pack weights and fill rows for kernels of layers that are not recurrent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from npylstm.arrays import Array
from npylstm.kernels.bind_views import bits
from npylstm.kernels.calls import Call
from npylstm.kernels.packing import GROUP, Columns, VectorType, rounded_size

__all__ = [
    "BLOCK_ROWS", "NARROW_UNITS", "bind_activation", "bind_convolution", "bind_dense",
    "bind_dense_narrow", "bind_embedding", "bind_one_hot", "is_row_of_identity",
    "pack_convolution", "pack_dense", "pack_dense_narrow", "pack_embedding", "reserve_rounded",
]  # fmt: skip

# Dense layers up to this size sum in float64.
NARROW_UNITS = 32
# Rows per product, so that a block's data stays in the L2 cache.
BLOCK_ROWS = 64

Weights = Mapping[str, Array]


def pack_dense(layer: Any, weights: Weights, vector: VectorType) -> dict[str, Array]:
    """Pack the kernel in panels, and arrange the bias in the same order."""
    columns = Columns(1, layer.units, vector)
    bias = weights.get("bias", np.zeros(layer.units, vector.dtype))
    return {"W": columns.pack(weights["kernel"]), "BIAS": columns.arrange(bias)}


def pack_dense_narrow(layer: Any, weights: Weights, vector: VectorType) -> dict[str, Array]:
    """Add columns of zeros up to a full group: (features, columns)."""
    more = -layer.units % GROUP
    bias = weights.get("bias", np.zeros(layer.units, vector.dtype))
    return {"W": np.pad(weights["kernel"], ((0, 0), (0, more))), "BIAS": np.pad(bias, (0, more))}


def bind_dense(layer: Any, call: Call) -> dict[str, int]:
    """Return the columns for a product in blocks of rows."""
    columns = Columns(1, layer.units, call.vector)
    block = min(call.outputs[0].rows, BLOCK_ROWS)
    return bind_dense_narrow(layer, call) | {
        "VECTORS": columns.vectors, "BLOCK_ROWS": block,
        "SCRATCH": call.reserve(block * columns.size),
        "ROUNDED": reserve_rounded(call, block, layer.features),
    }  # fmt: skip


def reserve_rounded(call: Call, rows: int, terms: int) -> int:
    """Reserve memory for rows that are rounded for products with integers, if there are such."""
    return call.reserve(rows * rounded_size(terms)) if call.vector.weights == "int8" else 0


def bind_dense_narrow(layer: Any, call: Call) -> dict[str, int]:
    """Return numbers of rows and columns."""
    rows = call.outputs[0].rows
    return {"ROWS": rows, "IN": layer.features, "UNITS": layer.units}


def pack_convolution(layer: Any, weights: Weights, vector: VectorType) -> dict[str, Array]:
    """Pack the kernel of each group, all taps together or each separately, and the biases."""
    columns = Columns(1, layer.units // layer.groups, vector)
    bias = weights.get("bias", np.zeros(layer.units, vector.dtype))
    _, terms = _taps(layer)
    packed = [
        columns.pack(tap)
        for part in np.split(weights["kernel"], layer.groups, axis=2)
        for tap in part.reshape(-1, terms, part.shape[2])
    ]
    biases = [columns.arrange(part) for part in np.split(bias, layer.groups)]
    return {"W": np.concatenate(packed), "BIAS": np.concatenate(biases)}


def _taps(layer: Any) -> tuple[int, int]:
    """Return the number of products of a convolution, and the terms of each."""
    features = layer.features // layer.groups
    return (1, layer.size * features) if layer.dilation == 1 else (layer.size, features)


def bind_convolution(layer: Any, call: Call) -> dict[str, int]:
    """Return the columns, with scratch for the padded input and a block of output steps."""
    x, y = call.inputs[0], call.outputs[0]
    axis = 2 if layer.channels_first else 1
    steps, out_steps = x.shape[axis], y.shape[axis]
    before, after = layer.pads(steps)
    features, (taps, terms) = layer.features // layer.groups, _taps(layer)
    columns = Columns(1, layer.units // layer.groups, call.vector)
    block, padded = min(out_steps, BLOCK_ROWS), before + steps + after
    return {
        "ROWS": x.shape[0], "IN": layer.features, "UNITS": layer.units, "VECTORS": columns.vectors,
        "IN_STEPS": steps, "PADDED_STEPS": padded, "OUT_STEPS": out_steps, "BEFORE": before,
        "STRIDE": layer.stride, "TAPS": taps, "TAP_STEP": layer.dilation * features, "TERMS": terms,
        "GROUPS": layer.groups, "CHANNELS_FIRST": layer.channels_first, "BLOCK_ROWS": block,
        "SCRATCH": call.reserve(block * columns.size + padded * features),
    }  # fmt: skip


def pack_embedding(layer: Any, weights: Weights, vector: VectorType) -> dict[str, Array]:
    """Return the table of embeddings, unchanged."""
    return {"W": weights["embeddings"]}


def bind_embedding(layer: Any, call: Call) -> dict[str, int]:
    """Return the columns, with a flag that reports a wrong id."""
    return {
        "ROWS": call.inputs[0].size, "IN": layer.vocabulary, "UNITS": layer.units,
        "WRONG": call.flag(), "HAS_MASK": layer.mask_zero, "MASK": call.outputs[-1].start,
    }  # fmt: skip


def bind_one_hot(layer: Any, call: Call) -> dict[str, int]:
    """Return the columns; entries after the new axis are side by side."""
    shape = call.inputs[0].shape
    inner = math.prod(shape[layer.axis % (len(shape) + 1) :])
    return {
        "ROWS": call.inputs[0].size // inner if inner else 0, "IN": layer.depth, "INNER": inner,
        "ON": bits(layer.on), "OFF": bits(layer.off), "NEGATIVE": layer.negative,
    }  # fmt: skip


def is_row_of_identity(layer: Any) -> bool:
    """Whether a one-hot vector is along the last axis, of ones and zeros."""
    return (layer.axis, layer.on, layer.off, layer.negative) == (-1, 1, 0, False)


def bind_activation(layer: Any, call: Call) -> dict[str, int]:
    """Return numbers of rows and columns."""
    shape = call.outputs[0].shape
    return {"ROWS": call.outputs[0].rows, "IN": shape[-1] if shape else 1}
