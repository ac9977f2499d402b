"""A step of a single row of an LSTM with weights in 8 bits: products and cells in registers."""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

from npylstm.kernels.integer_sums import IntegerSums
from npylstm.kernels.jit import row_kernel
from npylstm.kernels.packing import PANEL
from npylstm.kernels.products import span_of
from npylstm.kernels.recurrent_cells import lstm_of_gates, lstm_of_narrow_gates
from npylstm.kernels.recurrent_steps import count_blocks
from npylstm.kernels.simd import lane_count, narrow_count, offset, width
from npylstm.kernels.sums import choose, constant

__all__ = ["lstm_row_int8"]


@row_kernel
def lstm_row_int8(z, x, w, c, new, units, terms, forwards):
    """Compute all units, with up to :data:`npylstm.kernels.packing.TERMS` terms of a sum.

    ``z`` contains the input's part of the gates, ``x`` the old hidden state as a rounded row, and
    ``w`` the packed recurrent kernel.
    """
    lanes, span = width(z), span_of(terms)
    rows = 2 + (terms + 3) // 4
    whole, parts = count_blocks(units, z)
    for g in range(whole):
        # In alternating direction, the last block's weights are still in the cache.
        k = (g if forwards else whole - 1 - g) * lanes
        at = k * PANEL
        _block(offset(z, at), x, span, terms, offset(w, at * rows), offset(c, k), offset(new, k))
    if parts:
        k = whole * lanes
        at = k * PANEL
        _narrow_blocks(
            offset(z, at), x, span, terms, offset(w, at * rows), offset(c, k), offset(new, k), parts
        )


def _gates(builder: Any, arguments: Any, vectors: int) -> Any:
    """Generate the sums of the gates of one panel."""
    z, x, span, terms, w = arguments
    sums = IntegerSums(builder, [x], span, w, vectors)
    return sums.scaled([sums.total(part) for part in sums.over(constant(0), terms)], [z])


@intrinsic
def _block(
    typingctx: Any, z: Any, x: Any, span: Any, terms: Any, w: Any, c: Any, new: Any
) -> Any:  # fmt: skip
    """Compute a full block."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lstm_of_gates(builder, _gates(builder, args[:5], PANEL), args[5], args[6])
        return context.get_dummy_value()

    n = types.int64
    return types.void(z, z, n, n, z, z, z), generate


@intrinsic
def _narrow_blocks(
    typingctx: Any, z: Any, x: Any, span: Any, terms: Any, w: Any, c: Any, new: Any, parts: Any
) -> Any:
    """Compute the narrow blocks after the full ones."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        number = z.dtype
        lanes, narrow = lane_count(number), narrow_count(number)

        def build(count: int) -> None:
            vectors = -(-count * narrow * PANEL // lanes)
            gates = _gates(builder, args[:5], vectors)
            lstm_of_narrow_gates(gates, count, narrow, args[5], args[6])

        choose(builder, args[7], range(1, lanes // narrow + 1), build)
        return context.get_dummy_value()

    n = types.int64
    return types.void(z, z, n, n, z, z, z, n), generate
