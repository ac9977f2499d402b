"""What the native kernels of all recurrent layers do at each step, besides the cell.

For a block of rows, the input's part of all gates is computed for several steps in one product.
After the cells of a step, masked rows get their old state back, and the output is written.
"""

from __future__ import annotations

from npylstm.kernels.arguments import RECURRENT as A
from npylstm.kernels.barrier import barrier_wait, is_leader
from npylstm.kernels.jit import jit
from npylstm.kernels.products import factor
from npylstm.kernels.simd import call, copy, narrow_width, numbers, offset, width

__all__ = [
    "count_blocks", "finish_step", "in_vectors", "is_masked", "live_rows", "load_states",
    "next_input", "row_at", "sort_rows", "store_states", "write_output",
]  # fmt: skip


@jit
def copy_rows(y, y_row, x, x_row, rows, size):
    """``y[:] = x`` for rows with these distances."""
    for r in range(rows):
        copy(offset(y, r * y_row), offset(x, r * x_row), size)


@jit
def _source(row, t):
    """Return the index of the input's step that is computed as the ``t``-th."""
    return row[A.STEPS] - 1 - t if row[A.REVERSE] else t


@jit
def sort_rows(row, work):
    """Sort rows by the number of steps from the first to the last that is not masked.

    Then the rows that a step has to compute come first. ORDER has the rows in this order, the steps
    of each row where it begins and ends, and room for counting.
    """
    rows, steps = row[A.ROWS], row[A.STEPS]
    order = offset(work, row[A.ORDER])
    begins, ends = offset(order, rows), offset(order, 2 * rows)
    counts = offset(order, 3 * rows)  # of rows with at least so many steps
    for k in range(steps + 2):
        counts[k] = 0
    for r in range(rows):
        begin, end = 0, steps
        while begin < steps and is_masked(row, work, r, begin):
            begin += 1
        while end > begin and is_masked(row, work, r, end - 1):
            end -= 1
        begins[r], ends[r] = begin, end
        counts[end - begin] += 1
    for k in range(steps, -1, -1):
        counts[k] += counts[k + 1]
    for r in range(rows):
        k = int(ends[r] - begins[r]) + 1  # longer rows come before
        order[int(counts[k])] = r
        counts[k] += 1


@jit
def row_at(row, work, k):
    """Return the row that is computed as the ``k``-th."""
    return int(work[row[A.ORDER] + k]) if row[A.MASKED] else k


@jit
def live_rows(row, work, first, n, t, count):
    """Return how many of the n rows from the first have a step from t on that is not masked.

    Rows after these have none of the ``count`` steps.
    """
    if not row[A.MASKED]:
        return n
    begins = offset(work, row[A.ORDER] + row[A.ROWS])
    ends = offset(begins, row[A.ROWS])
    while n:
        r = row_at(row, work, first + n - 1)
        if begins[r] < t + count and ends[r] > t:
            break
        n -= 1
    return n


@jit
def load_states(row, work, h, h_row, states, first, n, size):
    """Copy the states of n rows into a block."""
    for r in range(n):
        copy(offset(h, r * h_row), offset(states, row_at(row, work, first + r) * size), size)


@jit
def store_states(row, work, h, h_row, states, first, n, size):
    """Copy the states of n rows back."""
    for r in range(n):
        copy(offset(states, row_at(row, work, first + r) * size), offset(h, r * h_row), size)


@jit
def _multiply_input(row, params, work, z, first, n, t, count):
    """Compute the input's part of all gates, with biases, for n rows and ``count`` steps from t."""
    span = row[A.VECTORS] * width(z)
    step = -row[A.X_STEP] if row[A.REVERSE] else row[A.X_STEP]
    x = offset(work, row[A.X] + _source(row, t) * row[A.X_STEP])
    bias, w = offset(params, row[A.BIAS]), offset(params, row[A.W])
    z_row, rounded = row[A.Z_ROW], offset(work, row[A.ROUNDED])
    if row[A.TABLE]:
        _look_up(row, work, z, x, step, first, n, count)
    elif n < count:
        for r in range(n):
            xr = offset(x, row_at(row, work, first + r) * row[A.X_ROW])
            xr, x_row = factor(row[A.ROUND_ROWS], rounded, xr, step, count, row[A.IN])
            call(row[A.MULTIPLY], (
                offset(z, r * z_row), span, bias, 0, count, xr, x_row, row[A.IN], w,
                row[A.FIRST_VECTOR], row[A.END_VECTOR],
            ))  # fmt: skip
    else:
        # Rows of the input may compete for the same cache sets: copy them.
        gathered = offset(z, row[A.BLOCK_ROWS] * z_row)
        for k in range(count):
            for r in range(n):
                at = row_at(row, work, first + r) * row[A.X_ROW] + k * step
                copy(offset(gathered, r * row[A.X_PADDED]), offset(x, at), row[A.IN])
            xk, x_row = factor(row[A.ROUND_ROWS], rounded, gathered, row[A.X_PADDED], n, row[A.IN])
            call(row[A.MULTIPLY], (
                offset(z, k * span), z_row, bias, 0, n, xk, x_row, row[A.IN], w,
                row[A.FIRST_VECTOR], row[A.END_VECTOR],
            ))  # fmt: skip


@jit
def _look_up(row, work, z, x, step, first, n, count):
    """Copy the input's part of the gates from a table, by ids; the embedding reports wrong ones."""
    lanes, table = width(z), numbers(z, row[A.TABLE])
    span, begin = row[A.VECTORS] * lanes, row[A.FIRST_VECTOR] * lanes
    size = row[A.END_VECTOR] * lanes - begin
    for r in range(n):
        ids = offset(x, row_at(row, work, first + r) * row[A.X_ROW])
        for k in range(count):
            given = ids[k * step]
            at = int(given) if 0 <= given < row[A.IN] else row[A.UNKNOWN]
            at = at if at == given else row[A.UNKNOWN]
            to = offset(z, r * row[A.Z_ROW] + k * span + begin)
            copy(to, offset(table, at * span + begin), size)


@jit
def next_input(row, params, work, z, first, n, t, at):
    """Return the index of step t in the block of input parts; compute a new block if needed."""
    if 0 <= at < row[A.BLOCK_STEPS] - 1:
        return at + 1
    count = min(row[A.BLOCK_STEPS], row[A.STEPS] - t)
    rows = live_rows(row, work, first, n, t, count)
    _multiply_input(row, params, work, z, first, rows, t, count)
    return 0


@jit
def is_masked(row, work, r, t):
    """Whether a row is masked at the ``t``-th step."""
    return work[row[A.MASK] + r * row[A.STEPS] + _source(row, t)] == 0


@jit
def _keep_masked_states(row, work, new, old, first, n, t):
    """Copy the old hidden state where a row is masked."""
    for r in range(n):
        if is_masked(row, work, row_at(row, work, first + r), t):
            copy(offset(new, r * row[A.PADDED]), offset(old, r * row[A.PADDED]), row[A.SIZE])


@jit
def write_output(row, work, h, first, n, t):
    """Write the hidden states of the ``t``-th step to the output."""
    size, padded, y_step = row[A.SIZE], row[A.PADDED], row[A.Y_STEP]
    target = _source(row, t) if row[A.IN_ORDER] else t
    y = offset(work, row[A.Y] + target * y_step)
    if not row[A.MASKED]:
        if y_step or t == row[A.STEPS] - 1:
            copy_rows(offset(y, first * row[A.Y_ROW]), row[A.Y_ROW], h, padded, n, size)
        return
    back = y_step if row[A.IN_ORDER] and row[A.REVERSE] else -y_step
    for r in range(n):
        source = row_at(row, work, first + r)
        y_r = offset(y, source * row[A.Y_ROW])
        if not is_masked(row, work, source, t):
            copy(y_r, offset(h, r * padded), size)
        elif row[A.ZERO_OUTPUT] or t == 0:
            for j in range(size):
                y_r[j] = 0
        elif y_step:  # the output of the previous step
            copy(y_r, offset(y_r, back), size)


@jit
def finish_step(row, work, new, old, first, n, t):
    """Apply the mask and write the output, after the cells of all threads."""
    barrier_wait(row)
    if not is_leader(row):
        return
    if row[A.MASKED]:
        _keep_masked_states(row, work, new, old, first, n, t)
    write_output(row, work, new, first, n, t)


@jit
def in_vectors(units, lanes):
    """Round up to full vectors."""
    return (units + lanes - 1) // lanes * lanes


@jit
def count_blocks(units, like):
    """Return the number of full blocks, and of narrow blocks after them."""
    lanes, narrow = width(like), narrow_width(like)
    whole = units // lanes
    return whole, (units - whole * lanes + narrow - 1) // narrow
