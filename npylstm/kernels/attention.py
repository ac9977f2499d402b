"""Kernels of attention: scores, masks, softmax and weighted means, one head of a sample at a time.

Both products of a head, of queries with keys and of weights with values, are those of layers with
weights: keys (transposed) and values are packed first. The queries are divided into blocks, whose
scores stay in the L1 cache until they are used.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import float32, float64, types
from numba.core import cgutils
from numba.extending import intrinsic

from npylstm.kernels.arguments import ATTENTION as A
from npylstm.kernels.jit import jit, kernel
from npylstm.kernels.packing import PANEL
from npylstm.kernels.run_time_packing import fill, pack_panels, vectors_of
from npylstm.kernels.simd import (
    Lanes,
    broadcast,
    call,
    copy,
    lane_count,
    offset,
    width,
)
from npylstm.kernels.simd_math import tanh
from npylstm.kernels.softmax import softmax_row

__all__ = ["ADDED", "LOWERED", "UNIFORM", "ZERO", "attend"]

# Scores of a query without an allowed key: minus 1e9, equal, or without any weight. With ADDED the
# attention mask contains numbers: 1e9 (1 - mask) is subtracted.
LOWERED, UNIFORM, ZERO, ADDED = range(4)
_LARGE = 1e9
_INFINITY = np.inf
_BLOCK = 64  # rows of a projection: their data stays in the L2 cache


@intrinsic
def _add_tanh(
    typingctx: Any, z: Any, q: Any, keys: Any, distance: Any, terms: Any, factors: Any, step: Any,
    inner: Any,
) -> Any:  # fmt: skip
    """``z = sum of factor * tanh(inner * (q + k))`` for a vector of keys, summed in float64.

    ``distance`` is that of the terms of the keys, ``step`` that of the factors (0: one for all).
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        z, q, keys, distance, terms, factors, step, inner = args
        kind = z.type.pointee
        lanes = lane_count(kind)
        scale = broadcast(builder, inner, lanes)
        wide = ir.VectorType(ir.DoubleType(), lanes)
        total = cgutils.alloca_once_value(builder, ir.Constant(wide, [0.0] * lanes))
        with cgutils.for_range(builder, terms) as loop:
            k = loop.index
            query, factor = (
                broadcast(builder, builder.load(builder.gep(at, [place])), lanes)
                for at, place in ((q, k), (factors, builder.mul(k, step)))
            )
            key = Lanes.load(builder, builder.gep(keys, [builder.mul(k, distance)]), lanes)
            term = (factor * tanh(scale * (query + key))).wide()
            builder.store((Lanes(builder, builder.load(total)) + term).value, total)
        Lanes(builder, builder.load(total)).narrow(kind).store(z)
        return context.get_dummy_value()

    n = types.int64
    return types.void(z, z, z, n, n, z, n, z.dtype), generate


@jit
def _lowered(score, mask, in_float32):
    """``score - 1e9 * (1 - mask)`` in float64, computed in the dtype of the mask."""
    if mask == 1:
        return float64(score)
    if in_float32:
        off = float32(_LARGE) * (float32(1) - float32(mask))
        return float64(float32(float32(score) - off))
    return float64(score) - _LARGE * (1.0 - float64(mask))


@jit
def _add_mask(z, mask, n, in_float32):
    """Lower scores by a mask, and subtract the largest in float64, so that few digits are lost."""
    top = -_INFINITY
    for j in range(n):
        value = _lowered(z[j], mask[j], in_float32)
        top = value if value > top else top
    for j in range(n):
        z[j] = _lowered(z[j], mask[j], in_float32) - top


@jit
def _find_allowed(row, work, allowed, sample, query):
    """Set ``allowed`` to 1 for keys that a query may attend to, else 0; return if there are any."""
    steps, queries, window = row[A.STEPS], row[A.QUERIES], row[A.WINDOW]
    first, end = 0, steps
    if window:
        first, end = max(0, query - window + 1), min(end, query + window)
    if row[A.CAUSAL]:
        end = min(end, query + 1)
    if row[A.HAS_QUERY_MASK] and work[row[A.QUERY_MASK] + sample * queries + query] == 0:
        end = 0
    first = min(first, end)
    fill(allowed, 0, first)
    fill(offset(allowed, first), 1, end - first)
    fill(offset(allowed, end), 0, steps - end)
    if row[A.HAS_VALUE_MASK]:
        _restrict(allowed, offset(work, row[A.VALUE_MASK] + sample * steps), steps)
    if row[A.HAS_KEY_MASK]:
        _restrict(allowed, offset(work, row[A.KEY_MASK] + sample * steps), steps)
    if row[A.HAS_PAIR_MASK]:
        at = row[A.PAIR_MASK] + (sample * queries + query) * steps
        _restrict(allowed, offset(work, at), steps)
    j = first
    while j < end and allowed[j] == 0:
        j += 1
    return j < end


@jit
def _restrict(allowed, mask, n):
    for j in range(n):
        allowed[j] = allowed[j] if mask[j] != 0 else 0


@jit
def _weigh(row, work, z, allowed, sample, query):
    """Replace the scores of a query by its weights, which :mod:`npylstm.ops.attention` defines."""
    steps = row[A.STEPS]
    if row[A.RULE] == ADDED:
        at = row[A.PAIR_MASK] + (sample * row[A.QUERIES] + query) * steps
        _add_mask(z, offset(work, at), steps, row[A.IN_FLOAT32])
    elif row[A.MASKED]:
        if _find_allowed(row, work, allowed, sample, query):
            lowest = type(z[0])(-_INFINITY)
            for j in range(steps):
                z[j] = z[j] if allowed[j] != 0 else lowest
        elif row[A.RULE] == LOWERED:
            _add_mask(z, allowed, steps, row[A.IN_FLOAT32])
        else:
            fill(z, 0, steps)
            if row[A.RULE] == ZERO:
                return
    softmax_row(z, z, steps, 0)


@jit
def _attend(row, params, work, scratch, sample, head, q, q_row, k, k_row, v, v_row, y, y_row):
    """Compute one head of a sample; ``q``, ``k``, ``v`` and ``y`` are matrices with row distances.

    ``scratch`` has the size that :mod:`npylstm.kernels.bind_attention` reserves.
    """
    queries, steps, features, units = row[A.QUERIES], row[A.STEPS], row[A.IN], row[A.UNITS]
    vectors, value_vectors = vectors_of(work, steps), vectors_of(work, units)
    z_row, out_row = vectors * width(work), value_vectors * width(work)
    zeros = scratch
    allowed = offset(zeros, max(z_row, out_row))
    keys = offset(allowed, z_row)
    values = offset(keys, features * z_row)
    z = offset(values, steps * out_row)
    out = offset(z, row[A.BLOCK_ROWS] * z_row)
    fill(zeros, 0, max(z_row, out_row))
    pack_panels(keys, k, features, steps, 1, k_row)
    pack_panels(values, v, steps, units, v_row, 1)
    factor = params[row[A.FACTOR]]
    for first in range(0, queries, row[A.BLOCK_ROWS]):
        n = min(row[A.BLOCK_ROWS], queries - first)
        here = offset(q, first * q_row)
        if row[A.IS_DOT]:
            call(row[A.MULTIPLY],
                 (z, z_row, zeros, 0, n, here, q_row, features, keys, 0, vectors))  # fmt: skip
        else:
            for r in range(n):
                _score(row, params, offset(z, r * z_row), offset(here, r * q_row), keys, vectors)
        for r in range(n):
            scores = offset(z, r * z_row)
            for j in range(steps):
                scores[j] = scores[j] * factor
            _weigh(row, work, scores, allowed, sample, first + r)
            if row[A.HAS_SCORES]:
                at = ((sample * row[A.HEADS] + head) * queries + first + r) * steps
                copy(offset(work, row[A.SCORES] + at), scores, steps)
        call(row[A.MULTIPLY],
             (out, out_row, zeros, 0, n, z, z_row, steps, values, 0, value_vectors))  # fmt: skip
        for r in range(n):
            copy(offset(y, (first + r) * y_row), offset(out, r * out_row), units)


@jit
def _score(row, params, z, q, keys, vectors):
    """Compute the additive scores of one query with all keys."""
    lanes, features = width(z), row[A.IN]
    factors, inner = offset(params, row[A.TERM_FACTORS]), params[row[A.INNER_FACTOR]]
    for c in range(vectors):
        begin = c - c % PANEL
        distance = min(PANEL, vectors - begin) * lanes
        here = offset(keys, begin * lanes * features + (c - begin) * lanes)
        _add_tanh(
            offset(z, c * lanes), q, here, distance, features, factors, row[A.TERM_STEP], inner
        )


@jit
def _project(row, z, z_row, x, rows, features, w, bias):
    """``z = x @ w + bias``."""
    for first in range(0, rows, _BLOCK):
        n = min(_BLOCK, rows - first)
        call(row[A.MULTIPLY], (
            offset(z, first * z_row), z_row, bias, 0, n, offset(x, first * features), features,
            features, w, 0, z_row // width(z),
        ))  # fmt: skip


@kernel
def attend(row, params, state, work):
    """:class:`npylstm.ops.attention.Attention`; with projections ``MultiHeadAttention``."""
    queries, steps, heads, out = row[A.QUERIES], row[A.STEPS], row[A.HEADS], row[A.OUT]
    keys, values, lanes = row[A.IN], row[A.UNITS], width(work)
    q_row, v_row, y_row = keys, values, values
    has_projections, out_row = row[A.HAS_PROJECTIONS], vectors_of(work, out) * lanes
    if has_projections:
        q_row = vectors_of(work, heads * keys) * lanes
        v_row, y_row = vectors_of(work, heads * values) * lanes, heads * values
    q_made = offset(work, row[A.PROJECTED])
    k_made = offset(q_made, queries * q_row)
    v_made = offset(k_made, steps * q_row)
    z = offset(v_made, steps * v_row)
    joined = offset(z, queries * out_row)
    for sample in range(row[A.ROWS]):
        q = offset(work, row[A.X] + sample * queries * row[A.QUERY_IN])
        k = offset(work, row[A.KEYS] + sample * steps * row[A.KEY_IN])
        v = offset(work, row[A.VALUES] + sample * steps * row[A.VALUE_IN])
        y = offset(work, row[A.Y] + sample * queries * out)
        to = y
        if has_projections:
            _project(row, q_made, q_row, q, queries, row[A.QUERY_IN],
                     offset(params, row[A.QUERY_W]), offset(params, row[A.QUERY_BIAS]))  # fmt: skip
            _project(row, k_made, q_row, k, steps, row[A.KEY_IN],
                     offset(params, row[A.KEY_W]), offset(params, row[A.KEY_BIAS]))  # fmt: skip
            _project(row, v_made, v_row, v, steps, row[A.VALUE_IN],
                     offset(params, row[A.VALUE_W]), offset(params, row[A.VALUE_BIAS]))  # fmt: skip
            q, k, v, to = q_made, k_made, v_made, joined
        for head in range(heads):
            _attend(
                row, params, work, offset(work, row[A.SCRATCH]), sample, head,
                offset(q, head * keys), q_row, offset(k, head * keys), q_row,
                offset(v, head * values), v_row, offset(to, head * values), y_row,
            )  # fmt: skip
        if has_projections:
            _project(row, z, out_row, joined, queries, y_row, offset(params, row[A.OUT_W]),
                     offset(params, row[A.OUT_BIAS]))  # fmt: skip
            for query in range(queries):
                copy(offset(y, query * out), offset(z, query * out_row), out)
        for query in range(queries if row[A.ZERO_QUERIES] else 0):
            if work[row[A.QUERY_MASK] + sample * queries + query] == 0:
                fill(offset(y, query * out), 0, out)
