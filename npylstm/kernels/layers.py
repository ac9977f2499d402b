"""Native kernels of the layers that are not recurrent, and of whole programs.

A program is a table of integers, one row per kernel call (:mod:`npylstm.kernels.arguments`).
Numbers are in three flat buffers: ``params`` (packed weights), ``state`` and ``work`` (all
tensors). A row contains the address of its kernel and the offsets that it reads and writes. So a
model of any depth is one native call, and the function that runs programs does not depend on the
dtype.
"""

from __future__ import annotations

from npylstm.kernels.activations import activate
from npylstm.kernels.arguments import ACTIVATION, COPY, KERNEL, WIDTH
from npylstm.kernels.arguments import CONVOLUTION as C
from npylstm.kernels.arguments import EMBEDDING as E
from npylstm.kernels.arguments import ONE_HOT as O
from npylstm.kernels.jit import entry, jit, kernel
from npylstm.kernels.run_time_packing import fill
from npylstm.kernels.simd import call, copy, copy_bytes, integers, number, offset, width

__all__ = [
    "activation", "advance", "convolve", "embed", "execute", "fetch", "generate", "one_hot",
    "store",
]  # fmt: skip


@kernel
def activation(row, params, state, work):
    """An activation, applied row by row."""
    n = row[ACTIVATION.IN]
    for r in range(row[ACTIVATION.ROWS]):
        y = offset(work, row[ACTIVATION.Y] + r * n)
        if row[ACTIVATION.X] != row[ACTIVATION.Y]:
            copy(y, offset(work, row[ACTIVATION.X] + r * n), n)
        activate(row[ACTIVATION.CODE], offset(params, row[ACTIVATION.CODE_PARAM]), y, n)


@kernel
def convolve(row, params, state, work):
    """:class:`npylstm.ops.convolution.Conv1D`, group by group.

    Windows are overlapping rows of the padded input. Without dilation one product sums all taps,
    otherwise there is one product per tap.
    """
    steps, out_steps, stride = row[C.IN_STEPS], row[C.OUT_STEPS], row[C.STRIDE]
    features, units = row[C.IN] // row[C.GROUPS], row[C.UNITS] // row[C.GROUPS]
    span = row[C.VECTORS] * width(work)
    z = offset(work, row[C.SCRATCH])
    padded = offset(z, row[C.BLOCK_ROWS] * span)
    x_step, x_feature, y_step, y_unit = row[C.IN], 1, row[C.UNITS], 1
    if row[C.CHANNELS_FIRST]:
        x_step, x_feature, y_step, y_unit = 1, steps, 1, out_steps
    for r in range(row[C.ROWS]):
        for g in range(row[C.GROUPS]):
            x = offset(work, row[C.X] + r * steps * row[C.IN] + g * features * x_feature)
            y = offset(work, row[C.Y] + r * out_steps * row[C.UNITS] + g * units * y_unit)
            for t in range(row[C.PADDED_STEPS]):
                here, at = offset(padded, t * features), t - row[C.BEFORE]
                for j in range(features):
                    here[j] = x[at * x_step + j * x_feature] if 0 <= at < steps else 0
            for first in range(0, out_steps, row[C.BLOCK_ROWS]):
                n = min(row[C.BLOCK_ROWS], out_steps - first)
                start, start_row = offset(params, row[C.BIAS] + g * span), 0
                for k in range(row[C.TAPS]):
                    call(row[C.MULTIPLY], (
                        z, span, start, start_row, n,
                        offset(padded, first * stride * features + k * row[C.TAP_STEP]),
                        stride * features, row[C.TERMS],
                        offset(params, row[C.W] + (g * row[C.TAPS] + k) * row[C.TERMS] * span), 0,
                        row[C.VECTORS],
                    ))  # fmt: skip
                    start, start_row = z, span
                for i in range(n):
                    made, to = offset(z, i * span), offset(y, (first + i) * y_step)
                    activate(row[C.CODE], offset(params, row[C.CODE_PARAM]), made, units)
                    for j in range(units):
                        to[j * y_unit] = made[j]


@kernel
def embed(row, params, state, work):
    """:class:`npylstm.ops.dense.Embedding`; reports a value that is not an id."""
    units, vocabulary = row[E.UNITS], row[E.IN]
    for k in range(row[E.ROWS]):
        given = work[row[E.X] + k]
        known = 0 <= given < vocabulary
        at = int(given) if known else 0
        if not known or at != given:
            work[row[E.WRONG]] = 1
        copy(offset(work, row[E.Y] + k * units), offset(params, row[E.W] + at * units), units)
        if row[E.HAS_MASK]:
            work[row[E.MASK] + k] = 0 if given == 0 else 1


@kernel
def one_hot(row, params, state, work):
    """:class:`npylstm.ops.gathering.OneHot`: INNER entries side by side for each row."""
    depth, inner = row[O.IN], row[O.INNER]
    on, off = number(row[O.ON]), number(row[O.OFF])
    for r in range(row[O.ROWS]):
        y = offset(work, row[O.Y] + r * depth * inner)
        fill(y, off, depth * inner)
        for j in range(inner):
            given = work[row[O.X] + r * inner + j]
            if given < 0 and row[O.NEGATIVE]:
                given += depth
            at = int(given) if 0 <= given < depth else 0
            if at == given:
                y[at * inner + j] = on


@kernel
def fetch(row, params, state, work):
    """Copy a recurrent layer's state to a tensor."""
    copy(offset(work, row[COPY.TO]), offset(state, row[COPY.FROM]), row[COPY.SIZE])


@kernel
def store(row, params, state, work):
    """Copy a tensor to an initial state."""
    copy(offset(state, row[COPY.TO]), offset(work, row[COPY.FROM]), row[COPY.SIZE])


@jit
def _run(operations, table, params, state, work):
    for k in range(operations):
        at = table + k * WIDTH * 8
        call(integers(at)[KERNEL], (at, params, state, work))


@entry
def execute(given):
    """Run a program. Arguments: number of rows, addresses of the table and the three buffers."""
    _run(given[0], given[1], given[2], given[3], given[4])


@entry
def generate(given):
    """Run a program repeatedly; the last step of each output is appended to the next input.

    The arguments are those of :func:`execute`, then ``begin``, the state's size, ``x_at``,
    ``rows``, ``window``, ``features``, ``y_at``, ``y_row``, ``out``, ``runs`` and ``size``.

    ``begin`` is the address of the initial state of each run, or 0 if the state is carried. The
    input is at ``x_at`` (rows, window, features). Outputs are at ``y_at``, with a distance of
    ``y_row`` between rows. ``out`` is (runs, rows, features). A number has ``size`` bytes.
    """
    state, work, begin, state_size, x_at = given[3], given[4], given[5], given[6], given[7]
    rows, window, features, y_at, y_row = given[8], given[9], given[10], given[11], given[12]
    out, runs, size = given[13], given[14], given[15]
    step = features * size
    kept = (window - 1) * step
    for n in range(runs):
        if begin:
            copy_bytes(state, begin, state_size * size)
        _run(given[0], given[1], given[2], state, work)
        for r in range(rows):
            x = work + x_at * size + r * window * step
            y = out + (n * rows + r) * step
            copy_bytes(y, work + (y_at + r * y_row) * size, step)
            copy_bytes(x, x + step, kept)
            copy_bytes(x + kept, y, step)


@jit
def _move_states(frame, pool, rows, count, size, gather):
    """Copy states of some rows between a pool and the state buffer of a program."""
    state = frame[2]
    for k in range(frame[6]):
        start, here, bytes_each = frame[7 + 3 * k], frame[8 + 3 * k], frame[9 + 3 * k] * size
        for r in range(count):
            far = pool + start * size + rows[r] * bytes_each
            near = state + here * size + r * bytes_each
            if gather:
                copy_bytes(near, far, bytes_each)
            else:
                copy_bytes(far, near, bytes_each)


@entry
def advance(given):
    """Gather the states of some rows of a pool, run a program, and scatter the states.

    The arguments are ``whole``, ``rest``, the parameters, the pool, ``rows``, their ``count``, the
    rows of a block, ``x`` and the size of its rows, ``y`` and the size of its rows, and ``size``.

    It runs block by block. ``whole`` and ``rest`` describe the programs of a full block and of the
    remaining rows: number of table rows, table, state, work, offsets of input and output in the
    work buffer, number of states; and for each state its offsets in the pool and in the state
    buffer, and its size. Sizes of rows of ``x`` and ``y`` are in bytes; a number has ``size``
    bytes.
    """
    whole, rest, params, pool, rows = given[0], given[1], given[2], given[3], given[4]
    count, block, x, x_row = given[5], given[6], given[7], given[8]
    y, y_row, size = given[9], given[10], given[11]
    done = 0
    while done < count:
        n = min(block, count - done)
        frame = integers(whole if n == block else rest)
        here = integers(rows + done * 8)
        work = frame[3]
        copy_bytes(work + frame[4] * size, x + done * x_row, n * x_row)
        _move_states(frame, pool, here, n, size, True)
        _run(frame[0], frame[1], params, frame[2], work)
        copy_bytes(y + done * y_row, work + frame[5] * size, n * y_row)
        _move_states(frame, pool, here, n, size, False)
        done += n
