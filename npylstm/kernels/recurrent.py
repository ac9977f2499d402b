"""Native kernels of the recurrent layers.

Rows are computed in blocks. For a block, the input's part of all gates is computed for several
steps in one product. Then, step by step, the recurrent product is added, and the cell computes the
new state. States are in rows of full vectors. Old and new hidden state are separate, since all
units of a step read the old one.
"""

from __future__ import annotations

from npylstm.kernels.activations import activate
from npylstm.kernels.arguments import RECURRENT as A
from npylstm.kernels.barrier import barrier_wait, is_leader
from npylstm.kernels.jit import jit, kernel
from npylstm.kernels.lstm_rows import lstm_row_blocks
from npylstm.kernels.packing import PANEL
from npylstm.kernels.products import FEW_TERMS, factor
from npylstm.kernels.recurrent_cells import (
    gru_full,
    gru_narrow,
    lstm_full,
    lstm_narrow,
)
from npylstm.kernels.recurrent_steps import (
    count_blocks,
    finish_step,
    in_vectors,
    is_masked,
    live_rows,
    load_states,
    next_input,
    row_at,
    sort_rows,
    store_states,
    write_output,
)
from npylstm.kernels.simd import call, narrow_width, offset, width

__all__ = ["gru", "gru_reset_before", "lstm", "simple_rnn"]

_TANH, _SIGMOID = 1, 2


@kernel
def lstm(row, params, state, work):
    """:class:`npylstm.ops.cells.LSTM`; gates in the order i, f, o, candidate."""
    lanes = width(params)
    units, size, span = row[A.UNITS], row[A.SIZE], row[A.VECTORS] * lanes
    padded, block = row[A.PADDED], row[A.BLOCK_ROWS]
    cell_row = in_vectors(units, lanes)
    h = offset(work, row[A.SCRATCH])
    new = offset(h, block * padded)
    c = offset(new, block * padded)
    made = offset(c, block * cell_row)  # hidden state before the projection
    z_all = offset(made, block * cell_row)
    masked = row[A.MASKED]
    fused = row[A.CODE] == _TANH and row[A.RECURRENT_CODE] == _SIGMOID and size > FEW_TERMS
    fused = fused and row[A.FUSED]
    rounded = offset(work, row[A.ROUNDED])
    h_state, c_state = offset(state, row[A.STATE]), offset(state, row[A.CELL_STATE])
    if masked:
        sort_rows(row, work)
    for first in range(0, row[A.ROWS], block):
        n = min(block, row[A.ROWS] - first)
        if is_leader(row):
            load_states(row, work, h, padded, h_state, first, n, size)
            load_states(row, work, c, cell_row, c_state, first, n, units)
        barrier_wait(row)
        at = -1
        for t in range(row[A.STEPS]):
            live = live_rows(row, work, first, n, t, 1)
            if not live:
                at = -1
                write_output(row, work, h, first, n, t)
                continue
            at = next_input(row, params, work, z_all, first, n, t, at)
            z = offset(z_all, at * span)
            out, out_row = (made, cell_row) if row[A.PROJECTION] else (new, padded)
            if live > 1 or not fused:
                _lstm_rows(row, params, work, z, h, c, out, out_row, first, live, t)
            elif masked and is_masked(row, work, row_at(row, work, first), t):
                pass
            elif row[A.LSTM_ROW]:
                x, _ = factor(row[A.ROUND_ROWS], rounded, h, padded, 1, size)
                call(row[A.LSTM_ROW], (
                    z, x, offset(params, row[A.U]), c, out, units, size, t & 1,
                ))  # fmt: skip
            else:
                lstm_row_blocks(
                    z, h, offset(params, row[A.U]), c, out, units, size, row[A.FIRST_BLOCK],
                    row[A.END_BLOCK], t & 1,
                )  # fmt: skip
            if row[A.PROJECTION]:
                x, x_row = factor(row[A.ROUND_ROWS], rounded, made, cell_row, live, units)
                call(row[A.MULTIPLY], (
                    new, padded, offset(params, row[A.PROJECTION_BIAS]), 0, live, x, x_row,
                    units, offset(params, row[A.PROJECTION]), 0, row[A.PROJECTION_VECTORS],
                ))  # fmt: skip
            finish_step(row, work, new, h, first, n, t)
            h, new = new, h
        if is_leader(row):
            store_states(row, work, h, padded, h_state, first, n, size)
            store_states(row, work, c, cell_row, c_state, first, n, units)


@jit
def _lstm_rows(row, params, work, z_all, h, c_all, new, new_row, first, n, t):
    """Compute a step of several rows, panel by panel: the product of all rows, then the cells."""
    lanes = width(params)
    narrow = narrow_width(params)
    units, vectors, z_row, masked = row[A.UNITS], row[A.VECTORS], row[A.Z_ROW], row[A.MASKED]
    whole, parts = count_blocks(units, params)
    cell_row = in_vectors(units, lanes)
    code, code_params = row[A.CODE], offset(params, row[A.CODE_PARAM])
    rcode, rcode_params = row[A.RECURRENT_CODE], offset(params, row[A.RECURRENT_CODE_PARAM])
    plain = code == _TANH and rcode == _SIGMOID
    panels = (vectors + PANEL - 1) // PANEL
    rounded, terms = offset(work, row[A.ROUNDED]), row[A.SIZE]
    x, x_row = factor(row[A.ROUND_ROWS], rounded, h, row[A.PADDED], n, terms)
    for p in range(panels):
        # Alternate the direction: the last used weights are still in the cache.
        b = p if t & 1 else panels - 1 - p
        call(row[A.MULTIPLY], (
            z_all, z_row, z_all, z_row, n, x, x_row, terms, offset(params, row[A.U]),
            b * PANEL, min((b + 1) * PANEL, vectors),
        ))  # fmt: skip
        for r in range(n):
            if masked and is_masked(row, work, row_at(row, work, first + r), t):
                continue
            z = offset(z_all, r * z_row + b * PANEL * lanes)
            c = offset(c_all, r * cell_row + b * lanes)
            y = offset(new, r * new_row + b * lanes)
            if plain and b < whole:
                lstm_full((z, c, c, y))
            elif plain:
                lstm_narrow((z, c, c, y), parts)
            else:
                size = lanes if b < whole else narrow
                for k in range(0, lanes if b < whole else parts * narrow, size):
                    zk, ck, yk = offset(z, k * PANEL), offset(c, k), offset(y, k)
                    _lstm(zk, ck, yk, size, code, code_params, rcode, rcode_params)


@jit
def _lstm(z, c, h, units, code, code_params, rcode, rcode_params):
    """A block of an LSTM with any activations; ``z`` contains the gates side by side."""
    candidate = offset(z, 3 * units)
    activate(rcode, rcode_params, z, 3 * units)
    activate(code, code_params, candidate, units)
    for j in range(units):
        c[j] = z[units + j] * c[j] + z[j] * candidate[j]
        candidate[j] = c[j]
    activate(code, code_params, candidate, units)
    for j in range(units):
        h[j] = z[2 * units + j] * candidate[j]


@kernel
def gru(row, params, state, work):
    """:class:`npylstm.ops.cells.GRU`, reset gate after the product; gates z, r, candidate."""
    lanes = width(params)
    narrow = narrow_width(params)
    units, span = row[A.UNITS], row[A.VECTORS] * lanes
    whole, parts = count_blocks(units, params)
    begin, end = row[A.FIRST_BLOCK], row[A.END_BLOCK]
    padded, block = row[A.PADDED], row[A.BLOCK_ROWS]
    z_row = row[A.Z_ROW]
    h = offset(work, row[A.SCRATCH])
    new = offset(h, block * padded)
    u_all = offset(new, block * padded)
    z_all = offset(u_all, block * span)
    product, rounded = row[A.MULTIPLY], offset(work, row[A.ROUNDED])
    code, code_params = row[A.CODE], offset(params, row[A.CODE_PARAM])
    rcode, rcode_params = row[A.RECURRENT_CODE], offset(params, row[A.RECURRENT_CODE_PARAM])
    plain = code == _TANH and rcode == _SIGMOID
    h_state = offset(state, row[A.STATE])
    if row[A.MASKED]:
        sort_rows(row, work)
    for first in range(0, row[A.ROWS], block):
        n = min(block, row[A.ROWS] - first)
        if is_leader(row):
            load_states(row, work, h, padded, h_state, first, n, units)
        barrier_wait(row)
        at = -1
        for t in range(row[A.STEPS]):
            live = live_rows(row, work, first, n, t, 1)
            if not live:
                at = -1
                write_output(row, work, h, first, n, t)
                continue
            at = next_input(row, params, work, z_all, first, n, t, at)
            x, x_row = factor(row[A.ROUND_ROWS], rounded, h, padded, live, units)
            call(product, (
                u_all, span, offset(params, row[A.RECURRENT_BIAS]), 0, live, x, x_row, units,
                offset(params, row[A.U]), row[A.FIRST_VECTOR], row[A.END_VECTOR],
            ))  # fmt: skip
            for r in range(live):
                z, u = offset(z_all, r * z_row + at * span), offset(u_all, r * span)
                old, y = offset(h, r * padded), offset(new, r * padded)
                for b in range(begin, end):
                    k = b * lanes
                    places = (offset(z, 3 * k), offset(u, 3 * k), offset(old, k), offset(y, k))
                    if plain and b < whole:
                        gru_full(places)
                    elif plain:
                        gru_narrow(places, parts)
                    elif b < whole:
                        _gru(places, lanes, code, code_params, rcode, rcode_params)
                for p in range(0 if plain or end <= whole else parts):
                    k = whole * lanes + p * narrow
                    places = (offset(z, 3 * k), offset(u, 3 * k), offset(old, k), offset(y, k))
                    _gru(places, narrow, code, code_params, rcode, rcode_params)
            finish_step(row, work, new, h, first, n, t)
            h, new = new, h
        if is_leader(row):
            store_states(row, work, h, padded, h_state, first, n, units)


@jit
def _gru(places, units, code, code_params, rcode, rcode_params):
    """A block of a GRU with any activations: input parts, recurrent parts, old and new state."""
    z, u, old, new = places
    for j in range(2 * units):
        z[j] += u[j]
    activate(rcode, rcode_params, z, 2 * units)
    candidate = offset(z, 2 * units)
    for j in range(units):
        candidate[j] += z[units + j] * u[2 * units + j]
    activate(code, code_params, candidate, units)
    _blend(z, candidate, old, new, units)


@jit
def _blend(z, candidate, old, new, units):
    """The new state of a GRU: ``z * old + (1 - z) * candidate``."""
    for j in range(units):
        new[j] = z[j] * old[j] + (type(z[j])(1) - z[j]) * candidate[j]


@kernel
def gru_reset_before(row, params, state, work):
    """:class:`npylstm.ops.cells.GRU` with the reset gate before the product.

    The recurrent kernel has two parts: the gates', and the candidate's, whose product needs the
    reset gate.
    """
    lanes = width(params)
    narrow = narrow_width(params)
    units, span = row[A.UNITS], row[A.VECTORS] * lanes
    u_span = row[A.RECURRENT_VECTORS] * lanes
    whole, parts = count_blocks(units, params)
    padded, block = row[A.PADDED], row[A.BLOCK_ROWS]
    z_row = row[A.Z_ROW]
    h = offset(work, row[A.SCRATCH])
    new = offset(h, block * padded)
    u_all = offset(new, block * padded)
    reset_all = offset(u_all, block * u_span)
    v_all = offset(reset_all, block * padded)
    z_all = offset(v_all, block * padded)
    product, rounded = row[A.MULTIPLY], offset(work, row[A.ROUNDED])
    code, code_params = row[A.CODE], offset(params, row[A.CODE_PARAM])
    rcode, rcode_params = row[A.RECURRENT_CODE], offset(params, row[A.RECURRENT_CODE_PARAM])
    recurrent_bias = offset(params, row[A.RECURRENT_BIAS])
    h_state = offset(state, row[A.STATE])
    if row[A.MASKED]:
        sort_rows(row, work)
    for first in range(0, row[A.ROWS], block):
        n = min(block, row[A.ROWS] - first)
        load_states(row, work, h, padded, h_state, first, n, units)
        at = -1
        for t in range(row[A.STEPS]):
            live = live_rows(row, work, first, n, t, 1)
            if not live:
                at = -1
                write_output(row, work, h, first, n, t)
                continue
            at = next_input(row, params, work, z_all, first, n, t, at)
            x, x_row = factor(row[A.ROUND_ROWS], rounded, h, padded, live, units)
            call(product, (
                u_all, u_span, recurrent_bias, 0, live, x, x_row, units,
                offset(params, row[A.U]), 0, row[A.RECURRENT_VECTORS],
            ))  # fmt: skip
            for r in range(live):
                z, u = offset(z_all, r * z_row + at * span), offset(u_all, r * u_span)
                old, reset = offset(h, r * padded), offset(reset_all, r * padded)
                for b in range(whole + parts):
                    size = lanes if b < whole else narrow
                    k = b * lanes if b < whole else whole * lanes + (b - whole) * narrow
                    zb, ub = offset(z, 3 * k), offset(u, 2 * k)
                    for j in range(2 * size):
                        zb[j] += ub[j]
                    activate(rcode, rcode_params, zb, 2 * size)
                    for j in range(size):
                        reset[k + j] = zb[size + j] * old[k + j]
            x, x_row = factor(row[A.ROUND_ROWS], rounded, reset_all, padded, live, units)
            call(product, (
                v_all, padded, recurrent_bias, 0, live, x, x_row, units,
                offset(params, row[A.U_H]), 0, in_vectors(units, lanes) // lanes,
            ))  # fmt: skip
            for r in range(live):
                z, v = offset(z_all, r * z_row + at * span), offset(v_all, r * padded)
                old, y = offset(h, r * padded), offset(new, r * padded)
                for b in range(whole + parts):
                    size = lanes if b < whole else narrow
                    k = b * lanes if b < whole else whole * lanes + (b - whole) * narrow
                    zb = offset(z, 3 * k)
                    candidate = offset(zb, 2 * size)
                    for j in range(size):
                        candidate[j] += v[k + j]
                    activate(code, code_params, candidate, size)
                    _blend(zb, candidate, offset(old, k), offset(y, k), size)
            finish_step(row, work, new, h, first, n, t)
            h, new = new, h
        store_states(row, work, h, padded, h_state, first, n, units)


@kernel
def simple_rnn(row, params, state, work):
    """:class:`npylstm.ops.cells.SimpleRNN`."""
    units, padded, vectors = row[A.UNITS], row[A.PADDED], row[A.VECTORS]
    block = row[A.BLOCK_ROWS]
    span, z_row = vectors * width(params), row[A.Z_ROW]
    h = offset(work, row[A.SCRATCH])
    new = offset(h, block * padded)
    z_all = offset(new, block * padded)
    product, rounded = row[A.MULTIPLY], offset(work, row[A.ROUNDED])
    code, code_params = row[A.CODE], offset(params, row[A.CODE_PARAM])
    h_state = offset(state, row[A.STATE])
    if row[A.MASKED]:
        sort_rows(row, work)
    for first in range(0, row[A.ROWS], block):
        n = min(block, row[A.ROWS] - first)
        load_states(row, work, h, padded, h_state, first, n, units)
        at = -1
        for t in range(row[A.STEPS]):
            live = live_rows(row, work, first, n, t, 1)
            if not live:
                at = -1
                write_output(row, work, h, first, n, t)
                continue
            at = next_input(row, params, work, z_all, first, n, t, at)
            x, x_row = factor(row[A.ROUND_ROWS], rounded, h, padded, live, units)
            call(product, (
                new, padded, offset(z_all, at * span), z_row, live, x, x_row, units,
                offset(params, row[A.U]), 0, vectors,
            ))  # fmt: skip
            for r in range(live):
                activate(code, code_params, offset(new, r * padded), units)
            finish_step(row, work, new, h, first, n, t)
            h, new = new, h
        store_states(row, work, h, padded, h_state, first, n, units)
