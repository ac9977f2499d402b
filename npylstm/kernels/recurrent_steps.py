"""What the native kernels of all recurrent layers do at each step, besides the cell.

For a block of rows, the input's part of all gates is computed for several steps in one product.
After the cells of a step, masked rows get their old state back, and the output is written.
"""

from __future__ import annotations

from npylstm.kernels.arguments import RECURRENT as A
from npylstm.kernels.barrier import barrier_wait, is_leader
from npylstm.kernels.jit import jit
from npylstm.kernels.simd import call, copy, narrow_width, offset, width

__all__ = ["copy_rows", "count_blocks", "finish_step", "in_vectors", "is_masked", "next_input"]


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
def _multiply_input(row, params, work, z, first, n, t, count):
    """Compute the input's part of all gates, with biases, for n rows and ``count`` steps from t."""
    span = row[A.VECTORS] * width(z)
    step = -row[A.X_STEP] if row[A.REVERSE] else row[A.X_STEP]
    x = offset(work, row[A.X] + first * row[A.X_ROW] + _source(row, t) * row[A.X_STEP])
    bias, w = offset(params, row[A.BIAS]), offset(params, row[A.W])
    z_row = row[A.Z_ROW]
    if n < count:
        for r in range(n):
            call(row[A.MULTIPLY], (
                offset(z, r * z_row), span, bias, 0, count, offset(x, r * row[A.X_ROW]), step,
                row[A.IN], w, row[A.FIRST_VECTOR], row[A.END_VECTOR],
            ))  # fmt: skip
    else:
        # Rows of the input may compete for the same cache sets: copy them.
        gathered = offset(z, n * z_row)
        for k in range(count):
            copy_rows(gathered, row[A.X_PADDED], offset(x, k * step), row[A.X_ROW], n, row[A.IN])
            call(row[A.MULTIPLY], (
                offset(z, k * span), z_row, bias, 0, n, gathered, row[A.X_PADDED], row[A.IN], w,
                row[A.FIRST_VECTOR], row[A.END_VECTOR],
            ))  # fmt: skip


@jit
def next_input(row, params, work, z, first, n, t, at):
    """Return the index of step t in the block of input parts; compute a new block if needed."""
    if 0 <= at < row[A.BLOCK_STEPS] - 1:
        return at + 1
    count = min(row[A.BLOCK_STEPS], row[A.STEPS] - t)
    _multiply_input(row, params, work, z, first, n, t, count)
    return 0


@jit
def is_masked(row, work, r, t):
    """Whether a row is masked at the ``t``-th step."""
    return work[row[A.MASK] + r * row[A.STEPS] + _source(row, t)] == 0


@jit
def _keep_masked_states(row, work, new, old, first, n, t):
    """Copy the old hidden state where a row is masked."""
    for r in range(n):
        if is_masked(row, work, first + r, t):
            copy(offset(new, r * row[A.PADDED]), offset(old, r * row[A.PADDED]), row[A.SIZE])


@jit
def _write_output(row, work, h, first, n, t):
    """Write the hidden states of the ``t``-th step to the output."""
    size, padded, y_step = row[A.SIZE], row[A.PADDED], row[A.Y_STEP]
    target = _source(row, t) if row[A.IN_ORDER] else t
    y = offset(work, row[A.Y] + first * row[A.Y_ROW] + target * y_step)
    if not row[A.MASKED]:
        if y_step or t == row[A.STEPS] - 1:
            copy_rows(y, row[A.Y_ROW], h, padded, n, size)
        return
    back = y_step if row[A.IN_ORDER] and row[A.REVERSE] else -y_step
    for r in range(n):
        y_r = offset(y, r * row[A.Y_ROW])
        if not is_masked(row, work, first + r, t):
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
    _write_output(row, work, new, first, n, t)


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
