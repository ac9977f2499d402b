"""Exact sums of products of integers, in registers: code for some rows by a packed panel."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils

from npylstm.kernels.packing import ROUNDED_HEAD
from npylstm.kernels.simd import Lanes, broadcast, lane_count
from npylstm.kernels.sums import constant
from npylstm.kernels.target import LLVM_VERSION, TARGET

__all__ = ["IntegerSums", "picked"]

_BYTE, _SHORT, _INT, _LONG = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_FLOAT, _DOUBLE = ir.FloatType(), ir.DoubleType()


def picked(builder: Any, value: Any, places: range) -> Any:
    """Return some lanes of a vector."""
    mask = ir.Constant(ir.VectorType(_INT, len(places)), [*places])
    return builder.shuffle_vector(value, value, mask)


class IntegerSums:
    """Generates code for the exact sums of some rounded rows by a packed panel of ``vectors``.

    ``x`` are pointers to the rows, ``span`` is the distance of their low bytes; ``panel`` points to
    the scales of the columns, which are followed by -128 times the columns' sums, and by the bytes
    of the weights.
    """

    def __init__(self, builder: Any, x: list[Any], span: Any, panel: Any, vectors: int) -> None:
        self.builder, self._x, self._span = builder, x, span
        self.lanes, to_bytes = lane_count(x[0].type.pointee), _BYTE.as_pointer()
        columns = constant(vectors * self.lanes)
        self._scales, self._start = panel, builder.gep(panel, [columns])
        self._w = builder.bitcast(builder.gep(self._start, [columns]), to_bytes)
        heads = [builder.gep(row, [constant(ROUNDED_HEAD)]) for row in x]
        self._q = [builder.bitcast(head, to_bytes) for head in heads]
        self.ints = ir.VectorType(_INT, self.lanes)
        self._bytes = ir.VectorType(_BYTE, 4 * self.lanes)
        self.vectors, self.count = vectors, vectors * len(x)

    def over(self, first: Any, end: Any) -> list[tuple[Any, Any]]:
        """Generate the loop over terms, four at a time.

        Returns two parts of each sum, row by row: see :meth:`total` and :meth:`wide_total`.
        """
        builder = self.builder
        zero = ir.Constant(self.ints, None)
        start = [zero] * (2 * self.count)
        if TARGET.has_vnni:
            for k in range(self.count):
                start[2 * k] = _load(builder, self._start, self._place(k), self.ints)
        before = builder.block
        head, body, done = (builder.append_basic_block(name) for name in ("quads", "quad", "sums"))
        builder.branch(head)
        builder.position_at_end(head)
        k = builder.phi(_LONG)
        phis = [builder.phi(self.ints) for _ in start]
        builder.cbranch(builder.icmp_signed("<", k, end), body, done)
        builder.position_at_end(body)
        new = self._added(k, phis)
        following = builder.add(k, constant(4))
        builder.branch(head)
        k.add_incoming(first, before)
        k.add_incoming(following, body)
        for phi, value, more in zip(phis, start, new, strict=True):
            phi.add_incoming(value, before)
            phi.add_incoming(more, body)
        builder.position_at_end(done)
        return [*zip(phis[::2], phis[1::2], strict=True)]

    def _place(self, k: int) -> Any:
        """Return the distance of the first column of the ``k``-th sum in its row."""
        return constant(k % self.vectors * self.lanes)

    def _added(self, k: Any, sums: list[Any]) -> list[Any]:
        """Return the sums with four terms from ``k`` on."""
        builder = self.builder
        here = builder.mul(k, constant(self.vectors * self.lanes))
        weights = [
            _load(builder, self._w, builder.add(here, constant(v * 4 * self.lanes)), self._bytes)
            for v in range(self.vectors)
        ]
        new = []
        for r, q in enumerate(self._q):
            inputs = self._inputs(q, k)
            for v, w in enumerate(weights):
                at = 2 * (r * self.vectors + v)
                for part in (0, 1):
                    new.append(self._product(inputs[part], w, part, sums[at + part]))
        return new

    def _inputs(self, q: Any, k: Any) -> tuple[Any, Any]:
        """Return four terms of a row in all columns: high and low bytes, or 16 bits, twice."""
        builder = self.builder
        if TARGET.has_vnni:
            places = k, builder.add(k, self._span)
            high, low = (_load(builder, q, place, _INT) for place in places)
            both = (broadcast(builder, number, self.lanes).value for number in (high, low))
            high, low = (builder.bitcast(value, self._bytes) for value in both)
            return high, low
        numbers = _load(builder, q, builder.mul(k, constant(2)), _LONG)
        all_columns = broadcast(builder, numbers, self.lanes // 2).value
        value = builder.bitcast(all_columns, ir.VectorType(_SHORT, 2 * self.lanes))
        return value, value

    def _product(self, x: Any, w: Any, part: int, total: Any) -> Any:
        """Return a sum with the products of four terms, or with those of half of the columns."""
        builder = self.builder
        if TARGET.has_vnni:
            return _dot_bytes(builder, total, x, w)
        count = 2 * self.lanes
        half = picked(builder, w, range(part * count, (part + 1) * count))
        wide = builder.sext(half, ir.VectorType(_SHORT, count))
        return builder.add(total, _multiply_pairs(builder, wide, x))

    def total(self, parts: tuple[Any, Any]) -> Any:
        """Return a sum of up to :data:`~npylstm.kernels.packing.TERMS` terms in 32 bits."""
        builder, (a, b) = self.builder, parts
        if TARGET.has_vnni:
            by = ir.Constant(self.ints, [8] * self.lanes)
            return builder.add(builder.shl(a, by), b)
        # Each column has two sums side by side.
        places = range(2 * self.lanes)
        return builder.add(*(_shuffled(builder, a, b, places[k::2]) for k in (0, 1)))

    def wide_total(self, parts: tuple[Any, Any]) -> Any:
        """Return a sum in float64."""
        builder = self.builder
        doubles = ir.VectorType(_DOUBLE, self.lanes)
        if not TARGET.has_vnni:
            return builder.sitofp(self.total(parts), doubles)
        high, low = (builder.sitofp(part, doubles) for part in parts)
        shift = ir.Constant(doubles, [256.0] * self.lanes)
        return builder.fadd(builder.fmul(high, shift), low)

    def scaled(self, sums: list[Any], start: list[Any]) -> list[Lanes]:
        """Return ``start + sum * scale`` for sums in 32 bits or in float64, row by row.

        ``start`` are pointers, one for each row.
        """
        builder = self.builder
        floats = ir.VectorType(_FLOAT, self.lanes)
        own = [broadcast(builder, builder.load(row), self.lanes) for row in self._x]
        made = []
        for k, total in enumerate(sums):
            r, place = k // self.vectors, [self._place(k)]
            scale = Lanes.load(builder, builder.gep(self._scales, place), self.lanes)
            begun = Lanes.load(builder, builder.gep(start[r], place), self.lanes)
            convert = builder.sitofp if total.type.element == _INT else builder.fptrunc
            value = Lanes(builder, convert(total, floats))
            made.append(value.fma(scale * own[r], begun))
        return made


def _load(builder: Any, start: Any, place: Any, kind: Any) -> Any:
    """Load a value at a distance, in units of what ``start`` points to."""
    at = builder.gep(start, [place])
    value = builder.load(builder.bitcast(at, kind.as_pointer()))
    value.align = 1
    return value


def _shuffled(builder: Any, a: Any, b: Any, places: range) -> Any:
    mask = ir.Constant(ir.VectorType(_INT, len(places)), [*places])
    return builder.shuffle_vector(a, b, mask)


def _dot_bytes(builder: Any, total: Any, x: Any, w: Any) -> Any:
    """Return ``total`` plus four products of unsigned bytes ``x`` and signed bytes ``w``."""
    # Since LLVM 22 the operands are vectors of bytes, before of words.
    kind = x.type if LLVM_VERSION >= 22 else total.type
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(total.type, [total.type, kind, kind]),
        "llvm.x86.avx512.vpdpbusd.512",
    )  # fmt: skip
    return builder.call(function, [total, builder.bitcast(x, kind), builder.bitcast(w, kind)])


def _multiply_pairs(builder: Any, a: Any, b: Any) -> Any:
    """Return the sums of two products side by side, in 32 bits."""
    count = a.type.count
    made = ir.VectorType(_INT, count // 2)
    if TARGET.multiply_pairs:
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(made, [a.type, a.type]), TARGET.multiply_pairs
        )
        return builder.call(function, [a, b])
    wide = ir.VectorType(_INT, count)
    products = builder.mul(builder.sext(a, wide), builder.sext(b, wide))
    return builder.add(*(picked(builder, products, range(count)[k::2]) for k in (0, 1)))
