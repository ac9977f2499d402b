"""Native kernels and the one function that runs a program of them.

A program is a table of integers, one row per operation; numbers live in three flat
buffers: ``params`` (packed weights), ``state`` and ``work`` (all tensors). A row says
where in them an operation reads and writes. So one compiled function serves all models,
and a call is one dispatch, however deep the model is.

Sums run in one fixed order (blocks of eight terms, then the blocks), whatever the number
of rows, so the bits of a row do not depend on its neighbours.
"""

from __future__ import annotations

from numba import float64

from npylstm.engine.jit import fma, jit
from npylstm.engine.native_activations import activate

__all__ = ["advance", "execute", "generate"]

# Operations. The recurrent ones come first: they are one driver with different cells.
LSTM, GRU, GRU_RESET_BEFORE, SIMPLE_RNN, DENSE, ACTIVATE, REPEAT, FETCH, STORE = range(9)

# Columns that all operations share.
OP, X, Y, PARAM, ROWS, IN, UNITS, CODE, CODE_PARAM = range(9)
# Columns of the recurrent ones.
(STEPS, X_ROW, X_STEP, Y_ROW, Y_STEP, REVERSE, IN_ORDER, MASKED, MASK, ZERO_OUTPUT, PROJECTION,
 RECURRENT_CODE, RECURRENT_CODE_PARAM, STATE, SCRATCH) = range(9, 24)  # fmt: skip
WIDTH = 24

# Rows that go through a product side by side, so that each weight is loaded once for them.
ROW_BLOCK = 4
# Dense layers up to this size sum in float64: a model's last layer is small, and its rounding
# is what shows.
WIDE_UNITS = 64
# Time steps whose input product is computed in one pass.
STEP_BLOCK = 16


@jit
def _copy(y, x):
    """``y[:] = x`` for vectors of one size; Numba's own checks sizes, at seconds of compiling."""
    for j in range(y.size):
        y[j] = x[j]


@jit
def _clear(y):
    """``y[:] = 0``."""
    for j in range(y.size):
        y[j] = 0


@jit
def _add_product_1(z, x, w):
    """``z += x @ w`` for one row: z (n,), x (k,), w (k, n)."""
    terms, n = w.shape
    full = terms - terms % 8
    for k in range(0, full, 8):
        a0, a1, a2, a3 = x[k], x[k + 1], x[k + 2], x[k + 3]
        a4, a5, a6, a7 = x[k + 4], x[k + 5], x[k + 6], x[k + 7]
        w0, w1, w2, w3 = w[k], w[k + 1], w[k + 2], w[k + 3]
        w4, w5, w6, w7 = w[k + 4], w[k + 5], w[k + 6], w[k + 7]
        for j in range(n):
            s = fma(a3, w3[j], fma(a2, w2[j], fma(a1, w1[j], a0 * w0[j])))
            s = fma(a7, w7[j], fma(a6, w6[j], fma(a5, w5[j], fma(a4, w4[j], s))))
            z[j] += s
    for k in range(full, terms):
        a = x[k]
        wk = w[k]
        for j in range(n):
            z[j] = fma(a, wk[j], z[j])


@jit
def _add_product_4(z, x, w):
    """``z += x @ w`` for four rows, each summed exactly as in :func:`_add_product_1`."""
    terms, n = w.shape
    full = terms - terms % 8
    z0, z1, z2, z3 = z[0], z[1], z[2], z[3]
    for k in range(0, full, 8):
        w0, w1, w2, w3 = w[k], w[k + 1], w[k + 2], w[k + 3]
        w4, w5, w6, w7 = w[k + 4], w[k + 5], w[k + 6], w[k + 7]
        a0, a1, a2, a3 = x[0, k], x[0, k + 1], x[0, k + 2], x[0, k + 3]
        a4, a5, a6, a7 = x[0, k + 4], x[0, k + 5], x[0, k + 6], x[0, k + 7]
        b0, b1, b2, b3 = x[1, k], x[1, k + 1], x[1, k + 2], x[1, k + 3]
        b4, b5, b6, b7 = x[1, k + 4], x[1, k + 5], x[1, k + 6], x[1, k + 7]
        c0, c1, c2, c3 = x[2, k], x[2, k + 1], x[2, k + 2], x[2, k + 3]
        c4, c5, c6, c7 = x[2, k + 4], x[2, k + 5], x[2, k + 6], x[2, k + 7]
        d0, d1, d2, d3 = x[3, k], x[3, k + 1], x[3, k + 2], x[3, k + 3]
        d4, d5, d6, d7 = x[3, k + 4], x[3, k + 5], x[3, k + 6], x[3, k + 7]
        for j in range(n):
            u0, u1, u2, u3 = w0[j], w1[j], w2[j], w3[j]
            u4, u5, u6, u7 = w4[j], w5[j], w6[j], w7[j]
            s = fma(a3, u3, fma(a2, u2, fma(a1, u1, a0 * u0)))
            z0[j] += fma(a7, u7, fma(a6, u6, fma(a5, u5, fma(a4, u4, s))))
            s = fma(b3, u3, fma(b2, u2, fma(b1, u1, b0 * u0)))
            z1[j] += fma(b7, u7, fma(b6, u6, fma(b5, u5, fma(b4, u4, s))))
            s = fma(c3, u3, fma(c2, u2, fma(c1, u1, c0 * u0)))
            z2[j] += fma(c7, u7, fma(c6, u6, fma(c5, u5, fma(c4, u4, s))))
            s = fma(d3, u3, fma(d2, u2, fma(d1, u1, d0 * u0)))
            z3[j] += fma(d7, u7, fma(d6, u6, fma(d5, u5, fma(d4, u4, s))))
    for k in range(full, terms):
        wk = w[k]
        a, b, c, d = x[0, k], x[1, k], x[2, k], x[3, k]
        for j in range(n):
            u = wk[j]
            z0[j] = fma(a, u, z0[j])
            z1[j] = fma(b, u, z1[j])
            z2[j] = fma(c, u, z2[j])
            z3[j] = fma(d, u, z3[j])


@jit
def _add_product(z, x, w):
    """``z += x @ w``: z (rows, n), x (rows, k), w (k, n)."""
    rows = z.shape[0]
    blocked = rows - rows % ROW_BLOCK
    for r in range(0, blocked, ROW_BLOCK):
        _add_product_4(z[r : r + ROW_BLOCK], x[r : r + ROW_BLOCK], w)
    for r in range(blocked, rows):
        _add_product_1(z[r], x[r], w)


@jit
def _add_product_wide(y, x, w):
    """``y += x @ w`` for one row, summed in float64 and rounded once: y (n,), x (k,), w (k, n)."""
    terms, n = w.shape
    full = n - n % 8
    for j in range(0, full, 8):
        s0, s1, s2, s3 = float64(y[j]), float64(y[j + 1]), float64(y[j + 2]), float64(y[j + 3])
        s4, s5, s6, s7 = float64(y[j + 4]), float64(y[j + 5]), float64(y[j + 6]), float64(y[j + 7])
        for k in range(terms):
            a, u = float64(x[k]), w[k]
            s0 = fma(a, float64(u[j]), s0)
            s1 = fma(a, float64(u[j + 1]), s1)
            s2 = fma(a, float64(u[j + 2]), s2)
            s3 = fma(a, float64(u[j + 3]), s3)
            s4 = fma(a, float64(u[j + 4]), s4)
            s5 = fma(a, float64(u[j + 5]), s5)
            s6 = fma(a, float64(u[j + 6]), s6)
            s7 = fma(a, float64(u[j + 7]), s7)
        y[j], y[j + 1], y[j + 2], y[j + 3] = s0, s1, s2, s3
        y[j + 4], y[j + 5], y[j + 6], y[j + 7] = s4, s5, s6, s7
    for j in range(full, n):
        s = float64(y[j])
        for k in range(terms):
            s = fma(float64(x[k]), float64(w[k, j]), s)
        y[j] = s


@jit
def _dense(row, params, work):
    rows, features, units = row[ROWS], row[IN], row[UNITS]
    x = work[row[X] : row[X] + rows * features].reshape((rows, features))
    y = work[row[Y] : row[Y] + rows * units].reshape((rows, units))
    p = row[PARAM]
    w = params[p : p + features * units].reshape((features, units))
    bias = params[p + features * units : p + features * units + units]
    for r in range(rows):
        _copy(y[r], bias)
    if units <= WIDE_UNITS:
        for r in range(rows):
            _add_product_wide(y[r], x[r], w)
    else:
        _add_product(y, x, w)
    code, code_params = row[CODE], params[row[CODE_PARAM] :]
    for r in range(rows):
        activate(code, code_params, y[r])


@jit
def _lstm_cell(z, h, c, code, code_params, rcode, rcode_params):
    """One row of :class:`npylstm.layers.LSTM`; z (4 units,) in the order i, f, o, candidate."""
    units = c.size
    i, f, o, candidate = z[:units], z[units : 2 * units], z[2 * units : 3 * units], z[3 * units :]
    activate(rcode, rcode_params, z[: 3 * units])
    activate(code, code_params, candidate)
    for j in range(units):
        c[j] = f[j] * c[j] + i[j] * candidate[j]
        candidate[j] = c[j]
    activate(code, code_params, candidate)
    for j in range(units):
        h[j] = o[j] * candidate[j]


@jit
def _gru_cell(z, u, h, U_h, code, code_params, rcode, rcode_params):
    """One row of :class:`npylstm.layers.GRU`.

    z (3 units,) holds the input's part, u (3 units,) the recurrent part; U_h (0, 0) where the
    reset gate comes after the product.
    """
    units = h.size
    one = type(h[0])(1)
    for j in range(2 * units):
        z[j] += u[j]
    gates, candidate = z[: 2 * units], z[2 * units :]
    activate(rcode, rcode_params, gates)
    if U_h.size:
        for j in range(units):
            u[j] = z[units + j] * h[j]
        _add_product_1(candidate, u[:units], U_h)
    else:
        for j in range(units):
            candidate[j] += z[units + j] * u[2 * units + j]
    activate(code, code_params, candidate)
    for j in range(units):
        h[j] = z[j] * h[j] + (one - z[j]) * candidate[j]


@jit
def _recurrent(row, params, state, work):
    """Drive a cell over time, ROW_BLOCK rows and STEP_BLOCK input products at a time.

    With a mask (rows, steps) the state stands still where it is zero.
    """
    op, rows, steps, features, units = row[OP], row[ROWS], row[STEPS], row[IN], row[UNITS]
    projection = row[PROJECTION]
    size = projection if projection else units  # of the hidden state
    gates = 4 if op == LSTM else 1 if op == SIMPLE_RNN else 3
    fused = op == LSTM or op == SIMPLE_RNN  # the recurrent product is added to the input's
    width = gates * units
    recurrent_width = 2 * units if op == GRU_RESET_BEFORE else width
    p = row[PARAM]
    W = params[p : p + features * width].reshape((features, width))
    p += features * width
    U = params[p : p + size * recurrent_width].reshape((size, recurrent_width))
    p += size * recurrent_width
    bias = params[p : p + width]
    p += width
    recurrent_bias = params[p : p + (0 if fused else recurrent_width)]
    p += recurrent_bias.size
    before = units if op == GRU_RESET_BEFORE else 0
    U_h = params[p : p + before * before].reshape((before, before))
    p += before * before
    P = params[p : p + units * projection].reshape((units, projection))
    code, code_params = row[CODE], params[row[CODE_PARAM] :]
    rcode, rcode_params = row[RECURRENT_CODE], params[row[RECURRENT_CODE_PARAM] :]
    s = row[STATE]
    h_all = state[s : s + rows * size].reshape((rows, size))
    s += rows * size
    cells = rows if op == LSTM else 0
    c_all = state[s : s + cells * units].reshape((cells, units))
    s = row[SCRATCH]
    z_all = work[s : s + STEP_BLOCK * ROW_BLOCK * width]
    s += STEP_BLOCK * ROW_BLOCK * width
    x_all = work[s : s + STEP_BLOCK * ROW_BLOCK * features]
    s += STEP_BLOCK * ROW_BLOCK * features
    u_all = work[s : s + ROW_BLOCK * recurrent_width].reshape((ROW_BLOCK, recurrent_width))

    for r0 in range(0, rows, ROW_BLOCK):
        block = min(ROW_BLOCK, rows - r0)
        h, u = h_all[r0 : r0 + block], u_all[:block]
        for t0 in range(0, steps, STEP_BLOCK):
            count = min(STEP_BLOCK, steps - t0)
            # Gather x[t, r] of this block, oldest step first, and multiply it in one pass.
            z = z_all[: count * block * width].reshape((count * block, width))
            x = x_all[: count * block * features].reshape((count * block, features))
            for t in range(count):
                source = steps - 1 - (t0 + t) if row[REVERSE] else t0 + t
                for r in range(block):
                    at = row[X] + (r0 + r) * row[X_ROW] + source * row[X_STEP]
                    _copy(x[t * block + r], work[at : at + features])
                    _copy(z[t * block + r], bias)
            _add_product(z, x, W)
            for t in range(count):
                source = steps - 1 - (t0 + t) if row[REVERSE] else t0 + t
                zt = z[t * block : (t + 1) * block]
                if fused:
                    _add_product(zt, h, U)
                else:
                    for r in range(block):
                        _copy(u[r], recurrent_bias)
                    _add_product(u, h, U)
                target = source if row[IN_ORDER] else t0 + t
                back = 1 if row[IN_ORDER] and row[REVERSE] else -1
                for r in range(block):
                    at = row[Y] + (r0 + r) * row[Y_ROW] + target * row[Y_STEP]
                    y = work[at : at + size]
                    if row[MASKED] and work[row[MASK] + (r0 + r) * steps + source] == 0:
                        if row[ZERO_OUTPUT] or t0 + t == 0:
                            _clear(y)
                        elif row[Y_STEP]:  # the output of the step before
                            at += back * row[Y_STEP]
                            _copy(y, work[at : at + size])
                        continue
                    if op == LSTM and projection:
                        out = u[r, :units]
                        _lstm_cell(
                            zt[r], out, c_all[r0 + r], code, code_params, rcode, rcode_params
                        )
                        _clear(h[r])
                        _add_product_1(h[r], out, P)
                    elif op == LSTM:
                        _lstm_cell(
                            zt[r], h[r], c_all[r0 + r], code, code_params, rcode, rcode_params
                        )
                    elif op == SIMPLE_RNN:
                        activate(code, code_params, zt[r])
                        _copy(h[r], zt[r])
                    else:
                        _gru_cell(zt[r], u[r], h[r], U_h, code, code_params, rcode, rcode_params)
                    _copy(y, h[r])


@jit
def _activate(row, params, work):
    rows, features = row[ROWS], row[IN]
    code, code_params = row[CODE], params[row[CODE_PARAM] :]
    for r in range(rows):
        x = work[row[X] + r * features : row[X] + (r + 1) * features]
        y = work[row[Y] + r * features : row[Y] + (r + 1) * features]
        _copy(y, x)
        activate(code, code_params, y)


@jit
def _repeat(row, work):
    rows, features, times = row[ROWS], row[IN], row[UNITS]
    for r in range(rows):
        x = work[row[X] + r * features : row[X] + (r + 1) * features]
        for k in range(times):
            at = row[Y] + (r * times + k) * features
            _copy(work[at : at + features], x)


@jit
def execute(program, params, state, work):
    """Run every operation of ``program`` (operations, WIDTH) in order."""
    for k in range(program.shape[0]):
        row = program[k]
        if row[OP] <= SIMPLE_RNN:
            _recurrent(row, params, state, work)
        elif row[OP] == DENSE:
            _dense(row, params, work)
        elif row[OP] == ACTIVATE:
            _activate(row, params, work)
        elif row[OP] == REPEAT:
            _repeat(row, work)
        elif row[OP] == FETCH:  # a recurrent layer's state becomes a tensor
            n = row[ROWS] * row[UNITS]
            _copy(work[row[Y] : row[Y] + n], state[row[X] : row[X] + n])
        elif row[OP] == STORE:  # a tensor becomes the state to begin with
            n = row[ROWS] * row[UNITS]
            _copy(state[row[Y] : row[Y] + n], work[row[X] : row[X] + n])


@jit
def generate(program, params, state, begin, work, places, out):
    """Run ``program`` again and again, each output the newest step of the next input.

    ``begin`` is the state that each run begins with, or empty where it is carried on; ``places``
    says where the input lies, how many steps it has, where the outputs lie, and how far apart the
    rows of outputs are; ``out`` is (runs, rows, features).
    """
    x_at, window, y_at, y_row = places
    runs, rows, features = out.shape
    kept = (window - 1) * features
    for n in range(runs):
        if begin.size:
            _copy(state, begin)
        execute(program, params, state, work)
        for r in range(rows):
            x = work[x_at + r * window * features : x_at + (r + 1) * window * features]
            y = work[y_at + r * y_row : y_at + r * y_row + features]
            _copy(out[n, r], y)
            for j in range(kept):
                x[j] = x[j + features]
            _copy(x[kept:], out[n, r])


@jit
def _advance_rows(program, params, pool, places, rows, state, work, x, y):
    """Gather the states of some rows of a pool, run a step of them, and scatter them again."""
    x_at, y_at = places[0, 0], places[0, 1]
    features, units = x.shape[1], y.shape[1]
    for r in range(rows.size):
        _copy(work[x_at + r * features : x_at + (r + 1) * features], x[r])
        for k in range(1, places.shape[0]):
            size = places[k, 2]
            at = places[k, 0] + rows[r] * size
            here = places[k, 1] + r * size
            _copy(state[here : here + size], pool[at : at + size])
    execute(program, params, state, work)
    for r in range(rows.size):
        _copy(y[r], work[y_at + r * units : y_at + (r + 1) * units])
        for k in range(1, places.shape[0]):
            size = places[k, 2]
            at = places[k, 0] + rows[r] * size
            here = places[k, 1] + r * size
            _copy(pool[at : at + size], state[here : here + size])


@jit
def advance(whole, rest, params, pool, whole_places, rest_places, rows, work, state, block, x, y):
    """Advance rows of a pool, block by block; ``rest`` is laid out for what the blocks leave."""
    n = rows.size
    blocked = n - n % block if n > block else 0
    for r in range(0, blocked, block):
        s = slice(r, r + block)
        _advance_rows(whole, params, pool, whole_places, rows[s], state, work, x[s], y[s])
    if blocked < n:
        _advance_rows(
            rest, params, pool, rest_places, rows[blocked:], state, work,
            x[blocked:], y[blocked:],
        )  # fmt: skip
