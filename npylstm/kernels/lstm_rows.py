"""A step of a single row of an LSTM: products and cells in registers, block by block."""

from __future__ import annotations

from npylstm.kernels.jit import jit, row_kernel
from npylstm.kernels.packing import PANEL
from npylstm.kernels.products import rows_of, segment_of, words
from npylstm.kernels.recurrent_cells import lstm_row, lstm_row_narrow
from npylstm.kernels.recurrent_steps import count_blocks
from npylstm.kernels.simd import offset, width
from npylstm.kernels.target import TARGET

__all__ = ["lstm_row_bfloat16", "lstm_row_blocks"]

# Vectors in a typical L1 cache.
_L1_VECTORS = 32768 // TARGET.vector_bytes


@jit
def lstm_row_blocks(z, h, w, c, new, units, terms, first, end, forwards):
    """Compute the blocks of units from ``first`` to ``end``.

    ``z`` contains the input's part of the gates, ``h`` the old hidden state, and ``w`` the packed
    recurrent kernel.
    """
    lanes, rows = width(z), rows_of(w, terms)
    whole, parts = count_blocks(units, z)
    until = min(end, whole)
    segment = segment_of(terms)
    # Two blocks at a time if the weights fit the L1 cache, and in bfloat16 if registers suffice.
    # Otherwise one, in alternating direction: the last block's weights are still in the cache when
    # the next step starts with it.
    is_halved = rows_of(w, 2) == 1 and TARGET.registers >= 32
    each = 2 if is_halved or (until - first) * PANEL * rows <= _L1_VECTORS else 1
    groups = (until - first + each - 1) // each
    for g in range(groups):
        b = first + each * (g if forwards else groups - 1 - g)
        k = b * lanes
        lstm_row(
            offset(z, k * PANEL), h, terms, segment, offset(w, k * PANEL * rows), rows,
            offset(c, k), offset(new, k), min(each, until - b),
        )  # fmt: skip
    if parts and end > whole:
        k = whole * lanes
        lstm_row_narrow(
            offset(z, k * PANEL), h, terms, segment, offset(w, k * PANEL * rows), offset(c, k),
            offset(new, k), parts,
        )  # fmt: skip


@row_kernel
def lstm_row_bfloat16(z, h, w, c, new, units, terms, forwards):
    """:func:`lstm_row_blocks` of all units, with weights in bfloat16."""
    whole, _ = count_blocks(units, z)
    lstm_row_blocks(z, h, words(w), c, new, units, terms, 0, whole + 1, forwards)
