"""Matrix products with packed weights: the micro-kernel, and the loops around it.

The micro-kernel keeps a block of the result in registers, some rows by up to four vectors
of columns, and loops over the terms of the sums. Each loaded weight is used for all rows,
each input for all columns. Weights are packed in the order of reading
(:mod:`npylstm.kernels.packing`): panels of four vectors, term by term.

Sums are computed in segments of :data:`SEGMENT` terms, each from zero and then added to the
result. This is more accurate than one long sum, and a segment's weights stay in the L1 cache
while all rows use them. Segments start at even terms. The next segment's weights are prefetched
meanwhile, a cache line with each term, because the processor's own prefetcher stops at the end of a
page. The order of sums is the same for any number of rows, and so are the bits.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from npylstm.kernels.jit import jit, product_kernel
from npylstm.kernels.packing import PANEL, ROUNDED_HEAD, ROUNDED_STEP
from npylstm.kernels.simd import Lanes, broadcast, call, copy, lane_count, offset, width
from npylstm.kernels.sums import WORD, Sums, choose, constant, high_half, low_half, row_pointers
from npylstm.kernels.target import TARGET

__all__ = [
    "FEW_TERMS", "SEGMENT", "factor", "multiply", "multiply_bfloat16", "rows_of", "segment_of",
    "span_of", "words",
]  # fmt: skip

# Terms of a partial sum.
SEGMENT = 64
# Up to so many terms are added directly to the start: a partial sum would round once more.
FEW_TERMS = 3
# Rows of a block: its sums, a panel's weights and an input fill the registers.
ROWS = 4 if TARGET.registers >= 32 else 2


def _finish(z: list[Any], start: list[Any], sums: list[Lanes]) -> None:
    """``z = start + sums``, with pointers to rows."""
    builder = sums[0].builder
    lanes = sums[0].value.type.count
    vectors = len(sums) // len(z)
    for k, value in enumerate(sums):
        r, place = k // vectors, [constant(k % vectors * lanes)]
        begun = Lanes.load(builder, builder.gep(start[r], place), lanes)
        (begun + value).store(builder.gep(z[r], place))


def _rows_kernel(rows: int) -> Any:
    """Return the intrinsic for this number of rows."""

    @intrinsic
    def rows_by_panel(
        typingctx: Any, z: Any, z_row: Any, start: Any, start_row: Any, x: Any, x_row: Any,
        w: Any, vectors: Any, terms: Any, later: Any,
    ) -> Any:  # fmt: skip
        """``z = start + x @ w`` for one panel of ``vectors`` and at least one term."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            z, z_row, start, start_row, x, x_row, w, vectors, terms, later = args

            def build(count: int) -> None:
                # With fewer rows there is no time for prefetching.
                ahead = later if rows == ROWS and count == PANEL else None
                ends = ((x, x_row), (z, z_row), (start, start_row))
                x_rows, z_rows, starts = (row_pointers(builder, *end, rows) for end in ends)
                sums = Sums(builder, x_rows, [(w, count)], ahead).over(terms)
                _finish(z_rows, starts, sums)

            choose(builder, vectors, range(1, PANEL + 1), build)
            return context.get_dummy_value()

        n = types.int64
        return types.void(z, n, z, n, z, n, w, n, n, w), generate

    return rows_by_panel


_row_1, _row_2, _row_3, _row_4 = (_rows_kernel(rows) for rows in (1, 2, 3, 4))


@intrinsic
def _row_by_two(typingctx: Any, z: Any, start: Any, x: Any, w: Any, second: Any, terms: Any) -> Any:
    """``z = start + x @ w`` for one row and two full panels.

    More independent sums hide the latency of additions.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        z, start, x, w, second, terms = args
        sums = Sums(builder, [x], [(w, PANEL), (second, PANEL)]).over(terms)
        _finish([z], [start], sums)
        return context.get_dummy_value()

    return types.void(z, z, z, w, w, types.int64), generate


@intrinsic
def _add_term(typingctx: Any, z: Any, start: Any, x: Any, w: Any, k: Any, vectors: Any) -> Any:
    """``z = start + x * w`` for term ``k`` of one row, each number rounded once."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        z, start, x, w, k, vectors = args
        lanes = lane_count(z.type.pointee)
        is_halved = w.type.pointee == WORD
        a = broadcast(builder, builder.load(x), lanes)
        with cgutils.for_range(builder, vectors) as loop:
            here = [builder.mul(loop.index, constant(lanes))]
            weights = Lanes.load(builder, builder.gep(w, here), lanes)
            if is_halved:
                odd = broadcast(builder, builder.trunc(k, ir.IntType(1)), lanes).value
                halves = high_half(weights).value, low_half(weights).value
                weights = Lanes(builder, builder.select(odd, *halves))
            before = Lanes.load(builder, builder.gep(start, here), lanes)
            a.fma(weights, before).store(builder.gep(z, here))
        return context.get_dummy_value()

    return types.void(z, z, z, w, types.int64, types.int64), generate


@intrinsic
def rows_of(typingctx: Any, w: Any, terms: Any) -> Any:
    """Return how many rows of floats, or of words, hold the weights of so many terms."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        w, terms = args
        if w.type.pointee != WORD:
            return terms
        return builder.lshr(builder.add(terms, constant(1)), constant(1))

    return types.int64(w, types.int64), generate


@intrinsic
def words(typingctx: Any, w: Any) -> Any:
    """Return a pointer to words."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], WORD.as_pointer())

    return types.CPointer(types.int32)(w), generate


@jit
def segment_of(terms):
    """Return the terms of each segment but the last: the fewest segments, of nearly equal size."""
    if terms <= SEGMENT:
        return terms
    segments = (terms + SEGMENT - 1) // SEGMENT
    return ((terms + segments - 1) // segments + 1) // 2 * 2


@jit
def span_of(terms):
    """Return the distance of low from high bytes in a rounded row: its terms in full steps."""
    return (terms + ROUNDED_STEP - 1) // ROUNDED_STEP * ROUNDED_STEP


@jit
def factor(round_rows, rounded, x, x_row, rows, terms):
    """Return the rows of ``x`` as the product reads them, and their distance.

    ``round_rows`` is the address of :func:`npylstm.kernels.integer_products.round_rows`, which
    writes to ``rounded``; 0: the product reads ``x`` itself.
    """
    if not round_rows:
        return x, x_row
    size = ROUNDED_HEAD + span_of(terms) // 2
    call(round_rows, (rounded, size, x, x_row, rows, terms))
    return rounded, size


@product_kernel
def multiply(z, z_row, start, start_row, rows, x, x_row, terms, w, begin, end):
    """``z = start + x @ w`` for the vectors of columns from ``begin`` to ``end``.

    ``begin`` is the start of a panel. ``z_row``, ``start_row`` and ``x_row`` are the distances of
    the rows of ``z``, ``start`` and ``x`` (rows, terms). ``start`` may be ``z``, or one row for all
    of them (distance 0). ``w`` is packed.
    """
    _multiply(z, z_row, start, start_row, rows, x, x_row, terms, w, begin, end)


@product_kernel
def multiply_bfloat16(z, z_row, start, start_row, rows, x, x_row, terms, w, begin, end):
    """:func:`multiply` with weights in bfloat16."""
    _multiply(z, z_row, start, start_row, rows, x, x_row, terms, words(w), begin, end)


@jit
def _multiply(z, z_row, start, start_row, rows, x, x_row, terms, w, begin, end):
    lanes = width(z)
    segment = segment_of(terms)
    while begin < end:
        at = begin * lanes
        panel = offset(w, at * rows_of(w, terms))
        vectors = min(PANEL, end - begin)
        if terms <= FEW_TERMS:
            for r in range(rows):
                zr, sr = offset(z, at + r * z_row), offset(start, at + r * start_row)
                if not terms:
                    copy(zr, sr, vectors * lanes)
                for k in range(terms):
                    here = offset(panel, (rows_of(w, k + 1) - 1) * vectors * lanes)
                    _add_term(zr, sr, offset(x, r * x_row + k), here, k, vectors)
                    sr = zr
            begin += vectors
            continue
        rest = PANEL if rows == 1 and end - begin >= 2 * PANEL else 0
        for k in range(0, terms, segment):
            count = min(segment, terms - k)
            here = offset(panel, rows_of(w, k) * vectors * lanes)
            # Later segments are added to the result of the first.
            zk, xk = offset(z, at), offset(x, k)
            sk, s_row = (zk, z_row) if k else (offset(start, at), start_row)
            if rest:
                before = rows_of(w, terms) * vectors + rows_of(w, k) * rest
                _row_by_two(zk, sk, xk, here, offset(panel, before * lanes), count)
                continue
            left = rows
            while left:
                # Prefetch weights of the next segment: one vector per term in each group of rows.
                line = rows_of(w, count) * vectors + (rows - left) // ROWS % PANEL
                later = offset(here, line * lanes)
                if ROWS == 4 and left >= 4:
                    _row_4(zk, z_row, sk, s_row, xk, x_row, here, vectors, count, later)
                    done = 4
                elif ROWS == 4 and left == 3:
                    _row_3(zk, z_row, sk, s_row, xk, x_row, here, vectors, count, later)
                    done = 3
                elif left >= 2:
                    _row_2(zk, z_row, sk, s_row, xk, x_row, here, vectors, count, later)
                    done = 2
                else:
                    _row_1(zk, z_row, sk, s_row, xk, x_row, here, vectors, count, later)
                    done = 1
                zk, sk = offset(zk, done * z_row), offset(sk, done * s_row)
                xk = offset(xk, done * x_row)
                left -= done
        begin += vectors + rest
