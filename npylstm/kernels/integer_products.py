"""Matrix products with weights in 8 bits, as :mod:`npylstm.integer_matrix` defines them.

Rows of the input are rounded to 16 bits once (:func:`round_rows`). Weights are packed in panels of
up to four vectors of columns; for each panel there are the scales of its columns, -128 times their
sums, and then, four terms at a time, the four bytes of each column side by side.

With AVX512-VNNI, an instruction adds four products of an unsigned and a signed byte. The inputs are
high and low bytes of the numbers plus 32768; with the columns' sums as start, the high bytes count
from -128 on. Elsewhere, an instruction multiplies pairs of numbers of 16 bits. Either way sums
of up to :data:`~npylstm.kernels.packing.TERMS` terms are exact in 32 bits, others in float64.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from npylstm.integer_matrix import LARGEST, SMALLEST
from npylstm.kernels.integer_sums import IntegerSums, picked
from npylstm.kernels.jit import product_kernel, rounding_kernel
from npylstm.kernels.packing import PANEL, ROUNDED_HEAD, TERMS
from npylstm.kernels.products import span_of
from npylstm.kernels.simd import Lanes, broadcast, each_vector, lane_count, offset, width
from npylstm.kernels.sums import choose, constant, row_pointers
from npylstm.kernels.target import TARGET

__all__ = ["multiply_int8", "round_rows"]

_BYTE, _SHORT, _INT = (ir.IntType(bits) for bits in (8, 16, 32))
_FLOAT, _DOUBLE = ir.FloatType(), ir.DoubleType()
# Rows of a block whose sums are in registers together.
_ROWS = 2 if TARGET.registers >= 32 else 1
_INFINITY = 0x7F800000  # the bits of a float32


@rounding_kernel
def round_rows(q, q_row, x, x_row, rows, terms):
    """Round rows to 16 bits.

    ``q`` gets, for each row, the scale, and from :data:`ROUNDED_HEAD` elements on the integers.
    ``q_row`` and ``x_row`` are the distances of rows.
    """
    span = span_of(terms)
    for r in range(rows):
        qr, xr = offset(q, r * q_row), offset(x, r * x_row)
        _round_row(qr, offset(qr, ROUNDED_HEAD), xr, terms, span)


@intrinsic
def _round_row(typingctx: Any, scale: Any, q: Any, x: Any, terms: Any, span: Any) -> Any:
    """Round a row; all integers are zero if it contains only tiny numbers, or nan or inf."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        scale, q, x, terms, span = args
        lanes = lane_count(x.type.pointee)
        floats, ints = ir.VectorType(_FLOAT, lanes), ir.VectorType(_INT, lanes)
        # Bits of magnitudes are in the order of the numbers, inf and nan at the end.
        bits = cgutils.alloca_once_value(builder, ir.Constant(ints, [0] * lanes))

        def compare(k: Any, mask: Any) -> None:
            value = Lanes.load(builder, builder.gep(x, [k]), lanes, mask).value
            magnitude = builder.bitcast(abs(Lanes(builder, value)).value, ints)
            most = builder.load(bits)
            larger = builder.icmp_unsigned(">", magnitude, most)
            builder.store(builder.select(larger, magnitude, most), bits)

        each_vector(builder, lanes, terms, compare)
        most = _reduced(builder, builder.load(bits))
        largest = builder.bitcast(most, _FLOAT)
        is_finite = builder.icmp_unsigned("<", most, ir.Constant(_INT, _INFINITY))
        is_large = builder.fcmp_ordered(">=", largest, ir.Constant(_FLOAT, SMALLEST))
        is_number = builder.and_(is_finite, is_large)
        zero, nan = ir.Constant(_FLOAT, 0.0), ir.Constant(_FLOAT, float("nan"))
        step = builder.fdiv(largest, ir.Constant(_FLOAT, float(LARGEST)))
        other = builder.select(is_finite, zero, nan)
        builder.store(builder.select(is_number, step, other), scale)
        factor = builder.fdiv(ir.Constant(_FLOAT, float(LARGEST)), largest)
        factors = broadcast(builder, factor, lanes)
        keep = broadcast(builder, is_number, lanes).value

        def rounded(k: Any, mask: Any) -> None:
            value = Lanes.load(builder, builder.gep(x, [k]), lanes, mask) * factors
            value = Lanes(builder, builder.select(keep, value.value, ir.Constant(floats, None)))
            _store_integers(builder, builder.fptosi(value.rounded().value, ints), q, k, span)

        each_vector(builder, lanes, terms, rounded)
        return context.get_dummy_value()

    return types.void(scale, q, x, types.int64, types.int64), generate


def _store_integers(builder: Any, value: Any, q: Any, k: Any, span: Any) -> None:
    """Store integers from term ``k`` on: high bytes and low bytes, or numbers of 16 bits."""
    count = value.type.count
    if not TARGET.has_vnni:
        _store(builder, builder.trunc(value, ir.VectorType(_SHORT, count)), q, k)
        return
    positive = builder.add(value, ir.Constant(value.type, [1 << 15] * count))
    small = ir.VectorType(_BYTE, count)
    high = builder.lshr(positive, ir.Constant(value.type, [8] * count))
    _store(builder, builder.trunc(high, small), q, k)
    _store(builder, builder.trunc(positive, small), q, builder.add(k, span))


def _store(builder: Any, value: Any, start: Any, k: Any) -> None:
    at = builder.gep(builder.bitcast(start, value.type.element.as_pointer()), [k])
    builder.store(value, builder.bitcast(at, value.type.as_pointer())).align = 1


def _reduced(builder: Any, value: Any) -> Any:
    """Return the largest of the unsigned integers of a vector."""
    while value.type.count > 1:
        half = value.type.count // 2
        parts = [picked(builder, value, range(k, k + half)) for k in (0, half)]
        larger = builder.icmp_unsigned(">", *parts)
        value = builder.select(larger, *parts)
    return builder.extract_element(value, ir.Constant(_INT, 0))


def _rows_kernel(count: int) -> Any:
    """Return the intrinsic for this number of rows."""

    @intrinsic
    def rows_by_panel(
        typingctx: Any, z: Any, z_row: Any, start: Any, start_row: Any, x: Any, x_row: Any,
        w: Any, vectors: Any, terms: Any, span: Any,
    ) -> Any:  # fmt: skip
        """``z = start + x @ w`` for one panel of ``vectors``, with rounded rows of ``x``."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            z, z_row, start, start_row, x, x_row, w, vectors, terms, span = args

            def build(vectors: int) -> None:
                ends = ((x, x_row), (z, z_row), (start, start_row))
                x_rows, *others = (row_pointers(builder, *end, count) for end in ends)
                sums, rows = IntegerSums(builder, x_rows, span, w, vectors), _Rows(*others)
                (_sum_at_once if TARGET.has_vnni else _sum_in_segments)(sums, terms, rows)

            choose(builder, vectors, range(1, PANEL + 1), build)
            return context.get_dummy_value()

        n = types.int64
        return types.void(z, n, z, n, z, n, z, n, n, n), generate

    return rows_by_panel


class _Rows(NamedTuple):
    """Pointers to the rows of a product, and of what it is added to."""

    z: list[Any]
    start: list[Any]

    def write(self, sums: IntegerSums, totals: list[Any]) -> None:
        """Write the results of sums in 32 bits or in float64, row by row."""
        for k, value in enumerate(sums.scaled(totals, self.start)):
            r, vector = divmod(k, sums.vectors)
            value.store(sums.builder.gep(self.z[r], [constant(vector * sums.lanes)]))


def _sum_at_once(sums: IntegerSums, terms: Any, rows: _Rows) -> None:
    """Generate the sums of all terms, whose parts are exact in 32 bits."""
    builder = sums.builder
    parts = sums.over(constant(0), terms)
    with builder.if_else(_is_short(builder, terms)) as (short, long):
        with short:
            rows.write(sums, [sums.total(part) for part in parts])
        with long:
            rows.write(sums, [sums.wide_total(part) for part in parts])


def _is_short(builder: Any, terms: Any) -> Any:
    return builder.icmp_signed("<=", terms, constant(TERMS))


def _sum_in_segments(sums: IntegerSums, terms: Any, rows: _Rows) -> None:
    """Generate the sums of segments of :data:`~npylstm.kernels.packing.TERMS` terms in float64."""
    builder = sums.builder
    is_short, step = _is_short(builder, terms), constant(TERMS)
    doubles = ir.VectorType(_DOUBLE, sums.lanes)
    totals = [cgutils.alloca_once(builder, sums.ints) for _ in range(sums.count)]
    wide = [cgutils.alloca_once(builder, doubles) for _ in range(sums.count)]
    for at in wide:
        builder.store(ir.Constant(doubles, None), at)
    with cgutils.for_range_slice(builder, constant(0), terms, step) as (first, _):
        limit = builder.add(first, step)
        end = builder.select(builder.icmp_signed("<", limit, terms), limit, terms)
        made = [sums.total(part) for part in sums.over(first, end)]
        with builder.if_else(is_short) as (short, long):
            with short:
                for total, at in zip(made, totals, strict=True):
                    builder.store(total, at)
            with long:
                for total, at in zip(made, wide, strict=True):
                    more = builder.sitofp(total, doubles)
                    builder.store(builder.fadd(builder.load(at), more), at)
    with builder.if_else(is_short) as (short, long):
        with short:
            rows.write(sums, [builder.load(at) for at in totals])
        with long:
            rows.write(sums, [builder.load(at) for at in wide])


_row_1, _row_2 = _rows_kernel(1), _rows_kernel(2)


@product_kernel
def multiply_int8(z, z_row, start, start_row, rows, x, x_row, terms, w, begin, end):
    """:func:`npylstm.kernels.products.multiply` of rounded rows ``x`` and weights in 8 bits."""
    lanes, span = width(z), span_of(terms)
    while begin < end:
        at = begin * lanes
        vectors = min(PANEL, end - begin)
        panel = offset(w, at * (2 + (terms + 3) // 4))
        r = 0
        while r < rows:
            zr, sr = offset(z, at + r * z_row), offset(start, at + r * start_row)
            xr = offset(x, r * x_row)
            if _ROWS == 2 and rows - r >= 2:
                _row_2(zr, z_row, sr, start_row, xr, x_row, panel, vectors, terms, span)
                r += 2
            else:
                _row_1(zr, z_row, sr, start_row, xr, x_row, panel, vectors, terms, span)
                r += 1
        begin += vectors
