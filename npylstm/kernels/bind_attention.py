"""Pack weights and fill rows for attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from npylstm.arrays import Array
from npylstm.kernels.bind_layers import BLOCK_ROWS
from npylstm.kernels.calls import Call
from npylstm.kernels.packing import Columns, VectorType
from npylstm.ops.attention_weights import ATTENTION_MASK

__all__ = ["bind_attention", "bind_heads", "pack_attention", "pack_heads"]

Weights = Mapping[str, Array]

# Codes of npylstm.kernels.attention, by ``fully_masked``.
_RULES = {"lowered": 0, "additive": 0, "uniform": 1, "zero": 2}
_ADDED = 3
_MASKS = ("QUERY_MASK", "VALUE_MASK", "KEY_MASK", "PAIR_MASK")


def pack_attention(layer: Any, weights: Weights, vector: VectorType) -> dict[str, Array]:
    """Return the factors of scores, of the terms of their sums, and in tanh."""
    one = np.ones(1, vector.dtype)
    scale = weights.get("scale", one)
    if layer.score == "dot":
        factors = (scale, one, one)
    elif layer.score == "additive":
        factors = (one, scale, one)
    else:
        factors = (weights["score_weight"], one, scale)
    return dict(zip(("FACTOR", "TERM_FACTORS", "INNER_FACTOR"), factors, strict=True))


def bind_attention(layer: Any, call: Call) -> dict[str, int]:
    """Return the columns of attention without projections."""
    masked = [k for k in layer.masked if k == 1]
    features, units = call.inputs[0].shape[2], call.inputs[1].shape[2]
    made = _columns(layer, call, features, units, masked) | {
        "IS_DOT": layer.score == "dot", "TERM_STEP": layer.score == "additive" and layer.scaled,
        "ZERO_QUERIES": 0 in layer.masked, "HEADS": 1, "QUERY_IN": features, "KEY_IN": features,
        "VALUE_IN": units, "OUT": units,
    }  # fmt: skip
    return made | ({"QUERY_MASK": _mask(layer, call, 0)} if 0 in layer.masked else {})


def pack_heads(layer: Any, weights: Weights, vector: VectorType) -> dict[str, Array]:
    """Pack the projections for products, and arrange their biases."""
    packed = {"FACTOR": np.array([1 / np.sqrt(layer.key_units)], vector.dtype)}
    joined = {"query": layer.key_units, "key": layer.key_units, "value": layer.value_units}
    sizes = {name: layer.heads * units for name, units in joined.items()} | {"output": layer.units}
    for name, size in sizes.items():
        columns, column = Columns(1, size, vector), "OUT" if name == "output" else name.upper()
        bias = weights.get(f"{name}_bias", np.zeros(size, vector.dtype))
        packed[f"{column}_W"] = columns.pack(weights[f"{name}_kernel"].reshape(-1, size))
        packed[f"{column}_BIAS"] = columns.arrange(bias.reshape(size))
    return packed


def bind_heads(layer: Any, call: Call) -> dict[str, int]:
    """Return the columns, with scratch for the projections of a sample."""
    made = _columns(layer, call, layer.key_units, layer.value_units, layer.masked)
    alone = layer.masked == (ATTENTION_MASK,) and not layer.causal and not layer.window
    rule = _ADDED if layer.fully_masked == "additive" and alone else _RULES[layer.fully_masked]
    joined = layer.heads * layer.value_units
    keys, values, out = (
        Columns(1, size, call.vector).size
        for size in (layer.heads * layer.key_units, joined, layer.units)
    )
    size = made["QUERIES"] * (keys + out + joined) + made["STEPS"] * (keys + values)
    return made | {
        "IS_DOT": True, "HEADS": layer.heads, "OUT": layer.units, "QUERY_IN": layer.query_features,
        "KEY_IN": layer.key_features, "VALUE_IN": layer.value_features, "WINDOW": layer.window,
        "MASKED": made["MASKED"] or layer.window > 0, "RULE": rule,
        "HAS_PROJECTIONS": 1, "PROJECTED": call.reserve(size),
    }  # fmt: skip


def _columns(
    layer: Any, call: Call, features: int, units: int, masked: Sequence[int]
) -> dict[str, int]:
    """Return the columns of a head with ``features`` of keys and ``units`` of values."""
    (batch, queries, _), (_, steps, _) = (place.shape for place in call.inputs[:2])
    count = len(call.inputs) - len(layer.masked)
    made = {
        "ROWS": batch, "QUERIES": queries, "STEPS": steps, "IN": features, "UNITS": units,
        "VALUES": call.inputs[1].start, "KEYS": call.inputs[count - 1].start,
        "HAS_SCORES": layer.return_scores, "SCORES": call.outputs[-1].start,
        "CAUSAL": layer.causal, "MASKED": layer.causal or bool(masked),
        "IN_FLOAT32": layer.mask_in_float32,
    }  # fmt: skip
    for k in masked:
        made |= {_MASKS[k]: _mask(layer, call, k), f"HAS_{_MASKS[k]}": 1}
    block = min(queries, BLOCK_ROWS)
    z, out = (Columns(1, size, call.vector).size for size in (steps, units))
    # Zeros, allowed keys, keys and values; scores and outputs of a block.
    size = max(z, out) + z + features * z + steps * out + block * (z + out)
    return made | {"BLOCK_ROWS": block, "SCRATCH": call.reserve(size)}


def _mask(layer: Any, call: Call, which: int) -> int:
    first = len(call.inputs) - len(layer.masked)
    return call.inputs[first + int(layer.masked.index(which))].start
