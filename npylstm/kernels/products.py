"""Matrix products with packed weights: the micro-kernel, and the loops around it.

The micro-kernel keeps a block of the result in registers, some rows by up to four vectors
of columns, and loops over the terms of the sums. Each loaded weight is used for all rows,
each input for all columns. Weights are packed in the order of reading
(:mod:`npylstm.kernels.packing`): panels of four vectors, term by term.

Sums are computed in segments of :data:`SEGMENT` terms, each from zero and then added to the
result. This is more accurate than one long sum, and a segment's weights stay in the L1 cache
while all rows use them. The next segment's weights are prefetched meanwhile, a cache line with
each term, because the processor's own prefetcher stops at the end of a page. The order of sums is
the same for any number of rows, and so are the bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from npylstm.kernels.jit import jit, product_kernel
from npylstm.kernels.packing import PANEL
from npylstm.kernels.simd import Lanes, broadcast, copy, lane_count, offset, prefetch, width
from npylstm.kernels.target import TARGET

__all__ = ["FEW_TERMS", "SEGMENT", "Sums", "choose", "constant", "multiply", "segment_of"]

# Terms of a partial sum.
SEGMENT = 64
# Up to so many terms are added directly to the start: a partial sum would round once more.
FEW_TERMS = 3
# Rows of a block: its sums, a panel's weights and an input fill the registers.
ROWS = 4 if TARGET.registers >= 32 else 2

_INTEGER = ir.IntType(64)


def constant(value: int) -> Any:
    """Return an integer constant in generated code."""
    return ir.Constant(_INTEGER, value)


class Sums:
    """Generates code for sums of products, for some rows and vectors of columns.

    ``x`` are pointers, one for each row; ``weights`` are pointers, each with its number of vectors
    per term. A few sums would wait for the previous additions, so fewer sums than a panel's are
    computed in two halves, of even and odd terms. ``later`` points to the weights to prefetch, with
    the stride of the first ``weights``.
    """

    def __init__(
        self, builder: Any, x: list[Any], weights: list[tuple[Any, int]], later: Any = None
    ) -> None:
        self.builder, self._x, self._weights, self._later = builder, x, weights, later
        self._lanes = lane_count(x[0].type.pointee)
        self._kind = ir.VectorType(x[0].type.pointee, self._lanes)
        count = sum(vectors for _, vectors in weights)
        self._chains = 1 if count >= PANEL else 2
        self._count = count * len(x)

    def _advance(self, k: Any, sums: list[Any]) -> list[Any]:
        """Add term ``k`` to all sums."""
        builder = self.builder
        if self._later is not None:
            term = constant(self._weights[0][1] * self._lanes)
            prefetch(builder, builder.gep(self._later, [builder.mul(k, term)]))
        columns = []
        for start, count in self._weights:
            here = builder.gep(start, [builder.mul(k, constant(count * self._lanes))])
            for c in range(count):
                at = builder.gep(here, [constant(c * self._lanes)])
                columns.append(Lanes.load(builder, at, self._lanes))
        new: list[Any] = []
        for x in self._x:
            a = broadcast(builder, builder.load(builder.gep(x, [k])), self._lanes)
            for w in columns:
                new.append(a.fma(w, Lanes(builder, sums[len(new)])).value)
        return new

    def over(self, terms: Any) -> list[Lanes]:
        """Generate the loop over the terms; return the sums, row by row."""
        builder, chains = self.builder, self._chains
        before = builder.block
        head, body, done = (builder.append_basic_block(name) for name in ("head", "body", "done"))
        zero = ir.Constant(self._kind, [0.0] * self._lanes)
        builder.branch(head)
        builder.position_at_end(head)
        k = builder.phi(_INTEGER)
        sums = [[builder.phi(self._kind) for _ in range(self._count)] for _ in range(chains)]
        following = builder.add(k, constant(chains))
        builder.cbranch(builder.icmp_signed("<=", following, terms), body, done)
        builder.position_at_end(body)
        new = [self._advance(builder.add(k, constant(c)), sums[c]) for c in range(chains)]
        builder.branch(head)
        k.add_incoming(constant(0), before)
        k.add_incoming(following, body)
        for chain, values in zip(sums, new, strict=True):
            for phi, value in zip(chain, values, strict=True):
                phi.add_incoming(zero, before)
                phi.add_incoming(value, body)
        builder.position_at_end(done)
        first = sums[0]
        if chains == 2:
            first = self._last(k, terms, first)
        lanes = [Lanes(builder, value) for value in first]
        for chain in sums[1:]:
            lanes = [a + Lanes(builder, b) for a, b in zip(lanes, chain, strict=True)]
        return lanes

    def _last(self, k: Any, terms: Any, sums: list[Any]) -> list[Any]:
        """Add the last term if their number is odd."""
        builder = self.builder
        before = builder.block
        one, end = builder.append_basic_block("one"), builder.append_basic_block("end")
        builder.cbranch(builder.icmp_signed("<", k, terms), one, end)
        builder.position_at_end(one)
        new = self._advance(k, sums)
        builder.branch(end)
        builder.position_at_end(end)
        merged = []
        for old, value in zip(sums, new, strict=True):
            merged.append(builder.phi(self._kind))
            merged[-1].add_incoming(old, before)
            merged[-1].add_incoming(value, one)
        return merged

    def segment_by_segment(self, start: list[Lanes], terms: Any, segment: Any) -> list[Lanes]:
        """Generate ``start + x @ w`` for one row, with all sums in registers."""
        builder = self.builder
        before = builder.block
        head, body, done = (builder.append_basic_block(name) for name in ("next", "seg", "all"))
        builder.branch(head)
        builder.position_at_end(head)
        k = builder.phi(_INTEGER)
        totals = [builder.phi(self._kind) for _ in start]
        builder.cbranch(builder.icmp_signed("<", k, terms), body, done)
        builder.position_at_end(body)
        left = builder.sub(terms, k)
        shorter = builder.icmp_signed("<", left, segment)
        inner = Sums(
            builder, [builder.gep(x, [k]) for x in self._x],
            [
                (builder.gep(w, [builder.mul(k, constant(n * self._lanes))]), n)
                for w, n in self._weights
            ],
        )  # fmt: skip
        sums = inner.over(builder.select(shorter, left, segment))
        new = [Lanes(builder, total) + part for total, part in zip(totals, sums, strict=True)]
        following = builder.add(k, segment)
        last = builder.block
        builder.branch(head)
        k.add_incoming(constant(0), before)
        k.add_incoming(following, last)
        for phi, value, more in zip(totals, start, new, strict=True):
            phi.add_incoming(value.value, before)
            phi.add_incoming(more.value, last)
        builder.position_at_end(done)
        return [Lanes(builder, total) for total in totals]


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

            def apart(first: Any, distance: Any) -> list[Any]:
                places = [builder.mul(distance, constant(r)) for r in range(rows)]
                return [builder.gep(first, [place]) for place in places]

            def build(count: int) -> None:
                # With fewer rows there is no time for prefetching.
                ahead = later if rows == ROWS and count == PANEL else None
                sums = Sums(builder, apart(x, x_row), [(w, count)], ahead).over(terms)
                _finish(apart(z, z_row), apart(start, start_row), sums)

            choose(builder, vectors, range(1, PANEL + 1), build)
            return context.get_dummy_value()

        n = types.int64
        return types.void(z, n, z, n, z, n, z, n, n, z), generate

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

    return types.void(z, z, z, z, z, types.int64), generate


@intrinsic
def _add_term(typingctx: Any, z: Any, start: Any, x: Any, w: Any, vectors: Any) -> Any:
    """``z = start + x * w`` for one term of one row, each number rounded once."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        z, start, x, w, vectors = args
        lanes = lane_count(z.type.pointee)
        a = broadcast(builder, builder.load(x), lanes)
        with cgutils.for_range(builder, vectors) as loop:
            here = [builder.mul(loop.index, constant(lanes))]
            weights = Lanes.load(builder, builder.gep(w, here), lanes)
            before = Lanes.load(builder, builder.gep(start, here), lanes)
            a.fma(weights, before).store(builder.gep(z, here))
        return context.get_dummy_value()

    return types.void(z, z, z, z, types.int64), generate


def choose(builder: Any, number: Any, values: range, build: Callable[[int], None]) -> None:
    """Generate a branch for each value of a number."""
    branches = [builder.append_basic_block(f"case{value}") for value in values]
    end = builder.append_basic_block("chosen")
    switch = builder.switch(number, end)
    for value, branch in zip(values, branches, strict=True):
        switch.add_case(constant(value), branch)
        builder.position_at_end(branch)
        build(value)
        builder.branch(end)
    builder.position_at_end(end)


@jit
def segment_of(terms):
    """Return the terms of each segment but the last: the fewest segments, of nearly equal size."""
    if terms <= SEGMENT:
        return terms
    segments = (terms + SEGMENT - 1) // SEGMENT
    return (terms + segments - 1) // segments


@product_kernel
def multiply(z, z_row, start, start_row, rows, x, x_row, terms, w, begin, end):
    """``z = start + x @ w`` for the vectors of columns from ``begin`` to ``end``.

    ``begin`` is the start of a panel. ``z_row``, ``start_row`` and ``x_row`` are the distances of
    the rows of ``z``, ``start`` and ``x`` (rows, terms). ``start`` may be ``z``, or one row for all
    of them (distance 0). ``w`` is packed.
    """
    lanes = width(z)
    segment = segment_of(terms)
    while begin < end:
        at = begin * lanes
        panel = offset(w, at * terms)
        vectors = min(PANEL, end - begin)
        if terms <= FEW_TERMS:
            for r in range(rows):
                zr, sr = offset(z, at + r * z_row), offset(start, at + r * start_row)
                if not terms:
                    copy(zr, sr, vectors * lanes)
                for k in range(terms):
                    here = offset(panel, k * vectors * lanes)
                    _add_term(zr, sr, offset(x, r * x_row + k), here, vectors)
                    sr = zr
            begin += vectors
            continue
        rest = PANEL if rows == 1 and end - begin >= 2 * PANEL else 0
        for k in range(0, terms, segment):
            count = min(segment, terms - k)
            here = offset(panel, k * vectors * lanes)
            # Later segments are added to the result of the first.
            zk, xk = offset(z, at), offset(x, k)
            sk, s_row = (zk, z_row) if k else (offset(start, at), start_row)
            if rest:
                there = offset(panel, (terms * vectors + k * rest) * lanes)
                _row_by_two(zk, sk, xk, here, there, count)
                continue
            left = rows
            while left:
                # Prefetch weights of the next segment: one vector per term in each group of rows.
                line = count * vectors + (rows - left) // ROWS % PANEL
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
