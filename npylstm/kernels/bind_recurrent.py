"""Pack weights and fill rows for kernels of recurrent layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from npylstm.activations import SIGMOID, TANH
from npylstm.arrays import Array
from npylstm.kernels.bind_layers import BLOCK_ROWS, reserve_rounded
from npylstm.kernels.calls import Call
from npylstm.kernels.packing import ALIGNMENT, PANEL, TERMS, Columns, VectorType

__all__ = [
    "bind_gru", "bind_gru_reset_before", "bind_lstm", "bind_simple_rnn", "pack_gru",
    "pack_gru_reset_before", "pack_lstm", "pack_simple_rnn",
]  # fmt: skip

# Minimum number of units for threads to share, because they wait at every step.
_SHARED_UNITS = 64
# Maximum size of input products computed ahead, in elements, and their maximum number of steps,
# so that a block's data stays in the L2 cache.
_BLOCK_SIZE, _BLOCK_STEPS = 32768, 64

Weights = Mapping[str, Array]


def pack_simple_rnn(layer: Any, weights: Weights, vector: VectorType) -> dict[str, Array]:
    """Pack kernel and recurrent kernel in panels, gates side by side."""
    packed, columns = layer.pack(weights), _columns(layer, vector)
    return {
        "W": columns.pack(packed["W"]), "BIAS": columns.arrange(packed["b"]),
        "U": columns.pack(packed["U"]),
    }  # fmt: skip


def pack_lstm(layer: Any, weights: Weights, vector: VectorType) -> dict[str, Array]:
    """Pack both kernels, and the projection if there is one."""
    parts = pack_simple_rnn(layer, weights, vector)
    if layer.projection:
        projected = Columns(1, layer.projection, vector)
        parts["PROJECTION"] = projected.pack(weights["P"])
        parts["PROJECTION_BIAS"] = np.zeros(projected.size, vector.dtype)
    return parts


def pack_gru(layer: Any, weights: Weights, vector: VectorType) -> dict[str, Array]:
    """Pack both kernels, and the recurrent bias."""
    recurrent_bias = _columns(layer, vector).arrange(layer.pack(weights)["rb"])
    return pack_simple_rnn(layer, weights, vector) | {"RECURRENT_BIAS": recurrent_bias}


def pack_gru_reset_before(layer: Any, weights: Weights, vector: VectorType) -> dict[str, Array]:
    """Pack the recurrent kernel in two parts: gates, and candidate."""
    packed, columns = layer.pack(weights), _columns(layer, vector)
    gates, candidate = Columns(2, layer.units, vector), Columns(1, layer.units, vector)
    return {
        "W": columns.pack(packed["W"]), "BIAS": columns.arrange(packed["b"]),
        "U": gates.pack(packed["U_gates"]), "RECURRENT_BIAS": gates.arrange(packed["rb_gates"]),
        "U_H": candidate.pack(packed["U_h"]),
    }  # fmt: skip


def _columns(layer: Any, vector: VectorType) -> Columns:
    """Return the arrangement of the gates in the input's product."""
    return Columns(len(layer.gates), layer.units, vector)


def bind_lstm(layer: Any, call: Call) -> dict[str, int]:
    """Return the columns of an LSTM; threads share only plain ones, without projection."""
    plain = (layer.activation, layer.recurrent_activation) == (TANH, SIGMOID)
    shared = 1 if plain and not layer.projection else 0
    return _bind(layer, call, _columns(layer, call.vector), shared)


def bind_gru(layer: Any, call: Call) -> dict[str, int]:
    """Return the columns of a GRU with the reset gate after the product."""
    return _bind(layer, call, _columns(layer, call.vector), PANEL)


def bind_gru_reset_before(layer: Any, call: Call) -> dict[str, int]:
    """Return the columns of a GRU with the reset gate before the product."""
    return _bind(layer, call, Columns(2, layer.units, call.vector), 0)


def bind_simple_rnn(layer: Any, call: Call) -> dict[str, int]:
    """Return the columns of a simple recurrent layer."""
    return _bind(layer, call, _columns(layer, call.vector), 0)


def _bind(layer: Any, call: Call, recurrent: Columns, shared_blocks: int) -> dict[str, int]:
    """Return the columns of a recurrent layer; ``recurrent`` arranges the recurrent product.

    Threads may share units in multiples of ``shared_blocks`` blocks, so that each part starts with
    a panel; 0 if threads cannot share them.
    """
    x, y, mask = call.inputs[0], call.outputs[0], call.mask
    steps, batch = x.shape[:2] if layer.time_major else x.shape[1::-1]
    along_steps, along_rows = (batch, 1) if layer.time_major else (1, steps)
    if layer.return_sequences:
        y_row, y_step = along_rows * y.shape[-1], along_steps * y.shape[-1]
    else:
        y_row, y_step = y.shape[-1], 0
    columns = _columns(layer, call.vector)
    hidden = Columns(1, layer.output_size, call.vector)
    cell = Columns(1, layer.units, call.vector)
    block_rows = max(1, min(batch, BLOCK_ROWS, max(4, _BLOCK_SIZE // columns.size)))
    ahead = max(1, _BLOCK_SIZE // (block_rows * columns.size))
    block_steps = min(steps, _BLOCK_STEPS, ahead)
    padded, x_padded = _row_distance(hidden.size), _row_distance(layer.features)
    z_row = _row_distance(block_steps * columns.size)
    # Old and new hidden states; cell states and unprojected states, or recurrent products and their
    # inputs; the input's part of the gates, and the input of a step.
    scratch = 2 * padded + 2 * _row_distance(cell.size) + recurrent.size + z_row + x_padded
    masked = mask.size > 0
    has_floats = call.vector.weights == call.vector.dtype
    is_large = layer.units >= _SHARED_UNITS
    shared = shared_blocks if batch == 1 and not masked and has_floats and is_large else 0
    return {
        "Y": y.start + (call.half or 0), "ROWS": batch, "STEPS": steps, "IN": layer.features,
        "UNITS": layer.units, "SIZE": layer.output_size, "PADDED": padded, "Z_ROW": z_row,
        "X_PADDED": x_padded, "VECTORS": columns.vectors, "RECURRENT_VECTORS": recurrent.vectors,
        "PROJECTION_VECTORS": hidden.vectors, "X_ROW": along_rows * layer.features,
        "X_STEP": along_steps * layer.features, "Y_ROW": y_row, "Y_STEP": y_step,
        "REVERSE": layer.go_backwards, "IN_ORDER": call.half is not None, "MASKED": masked,
        "MASK": mask.start, "ORDER": call.reserve(3 * batch + steps + 2) if masked else 0,
        "ZERO_OUTPUT": layer.zero_output_for_mask,
        "STATE": call.states[0].start, "CELL_STATE": call.states[-1].start,
        "BLOCK_ROWS": block_rows, "BLOCK_STEPS": block_steps,
        "SCRATCH": call.reserve(block_rows * scratch),
        "FUSED": call.vector.weights != "int8" or layer.output_size <= TERMS,
        "ROUNDED": reserve_rounded(
            call, max(block_rows, block_steps),
            max(layer.features, layer.output_size, layer.units),
        ),
        "END_BLOCK": columns.blocks, "END_VECTOR": columns.vectors, "SHARED_BLOCKS": shared,
        "SHARED_VECTORS": shared * len(layer.gates),
    }  # fmt: skip


def _row_distance(size: int) -> int:
    """Return the distance between rows of this size: an odd number of cache lines.

    Rows at a distance of a power of two would compete for the same cache sets.
    """
    lines = -(-size // ALIGNMENT)
    return (lines + 1 - lines % 2) * ALIGNMENT
