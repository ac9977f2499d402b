"""Matrix products with packed weights: the micro-kernel, and the loops around it.

The micro-kernel keeps a block of the result in registers, some rows by up to four vectors
of columns, and runs over the terms of the sums: each weight that is loaded serves all rows,
each input all columns. Weights are packed as it reads them (:mod:`npylstm.engine.packing`):
panels of four vectors, term by term behind one another.

Sums run over segments of :data:`SEGMENT` terms, each from zero and then added to the
result: more accurate than one long sum, and a segment's weights stay in the first cache
while all rows use them. The order is the same for any number of rows, and so are the bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from npylstm.engine.host import REGISTERS
from npylstm.engine.jit import product_kernel
from npylstm.engine.lanes import Lanes, broadcast, lane_count, offset, width

__all__ = ["PANEL", "SEGMENT", "multiply"]

# Vectors of columns in a panel.
PANEL = 4
# Terms that are summed before they are added to the result.
SEGMENT = 64
# Rows of a block: its sums, a panel's weights and an input fill the registers.
ROWS = 4 if REGISTERS >= 32 else 2

_INTEGER = ir.IntType(64)


def _constant(value: int) -> Any:
    return ir.Constant(_INTEGER, value)


class _Block:
    """The micro-kernel for some rows and vectors, in code that is being built.

    ``weights`` are one or two places, each with the number of vectors that stand there for
    every term; the vectors of the second lie in the result behind those of the first.
    """

    def __init__(
        self, builder: Any, z: list[Any], begin: list[Any], x: list[Any],
        weights: list[tuple[Any, int]],
    ) -> None:  # fmt: skip
        self.builder, self.x, self.weights = builder, x, weights
        self.lanes = lane_count(z[0].type.pointee)
        vectors = range(sum(count for _, count in weights))
        places = [[_constant(c * self.lanes)] for c in vectors]
        self.z = [builder.gep(row, place) for row in z for place in places]
        self.begin = [builder.gep(row, place) for row in begin for place in places]

    def load(self) -> list[Any]:
        return [Lanes.load(self.builder, at, self.lanes).value for at in self.begin]

    def zeros(self) -> list[Any]:
        kind = ir.VectorType(self.z[0].type.pointee, self.lanes)
        return [ir.Constant(kind, [0.0] * self.lanes)] * len(self.z)

    def store(self, sums: list[Any]) -> None:
        for value, at in zip(sums, self.z, strict=True):
            Lanes(self.builder, value).store(at)

    def add(self, sums: list[Any]) -> None:
        for value, at in zip(sums, self.z, strict=True):
            (Lanes.load(self.builder, at, self.lanes) + Lanes(self.builder, value)).store(at)

    def advance(self, k: Any, sums: list[Any]) -> list[Any]:
        """Add term ``k`` to all sums."""
        builder = self.builder
        columns = []
        for start, count in self.weights:
            here = builder.gep(start, [builder.mul(k, _constant(count * self.lanes))])
            for c in range(count):
                at = builder.gep(here, [_constant(c * self.lanes)])
                columns.append(Lanes.load(builder, at, self.lanes))
        new: list[Any] = []
        for x in self.x:
            a = broadcast(builder, builder.load(builder.gep(x, [k])), self.lanes)
            for w in columns:
                new.append(a.times_plus(w, Lanes(builder, sums[len(new)])).value)
        return new

    def build(self, terms: Any, more: Any) -> None:
        """``z = begin + x @ w``, or with ``more`` ``z += x @ w``, the sums beginning at zero."""
        builder = self.builder
        fresh, given, head, loop, done, adding, storing, end = (
            builder.append_basic_block(name)
            for name in ("fresh", "given", "head", "loop", "done", "adding", "storing", "end")
        )
        builder.cbranch(more, fresh, given)
        builder.position_at_end(fresh)
        zeros = self.zeros()
        builder.branch(head)
        builder.position_at_end(given)
        loaded = self.load()
        builder.branch(head)
        builder.position_at_end(head)
        sums = []
        for zero, value in zip(zeros, loaded, strict=True):
            sums.append(builder.phi(value.type))
            sums[-1].add_incoming(zero, fresh)
            sums[-1].add_incoming(value, given)
        begun = sums
        builder.branch(loop)
        builder.position_at_end(loop)
        k = builder.phi(_INTEGER)
        k.add_incoming(_constant(0), head)
        carried = []
        for value in begun:
            carried.append(builder.phi(value.type))
            carried[-1].add_incoming(value, head)
        sums = self.advance(k, carried)
        following = builder.add(k, _constant(1))
        k.add_incoming(following, loop)
        for phi, value in zip(carried, sums, strict=True):
            phi.add_incoming(value, loop)
        builder.cbranch(builder.icmp_signed("<", following, terms), loop, done)
        builder.position_at_end(done)
        builder.cbranch(more, adding, storing)
        builder.position_at_end(adding)
        self.add(sums)
        builder.branch(end)
        builder.position_at_end(storing)
        self.store(sums)
        builder.branch(end)
        builder.position_at_end(end)


def _rows_kernel(rows: int) -> Any:
    """Make the intrinsic for so many rows."""

    @intrinsic
    def rows_by_panel(
        typingctx: Any, z: Any, z_row: Any, begin: Any, begin_row: Any, x: Any, x_row: Any,
        w: Any, vectors: Any, terms: Any, more: Any,
    ) -> Any:  # fmt: skip
        """``z = begin + x @ w`` for one panel of ``vectors`` and at least one term."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            z, z_row, begin, begin_row, x, x_row, w, vectors, terms, more = args

            def apart(start: Any, distance: Any) -> list[Any]:
                places = [builder.mul(distance, _constant(r)) for r in range(rows)]
                return [builder.gep(start, [place]) for place in places]

            def build(count: int) -> None:
                _Block(
                    builder, apart(z, z_row), apart(begin, begin_row), apart(x, x_row),
                    [(w, count)],
                ).build(terms, more)  # fmt: skip

            _choose(builder, vectors, build)
            return context.get_dummy_value()

        n = types.int64
        return types.void(z, n, z, n, z, n, z, n, n, types.boolean), generate

    return rows_by_panel


_row_1, _row_2, _row_3, _row_4 = (_rows_kernel(rows) for rows in (1, 2, 3, 4))


@intrinsic
def _row_by_two(
    typingctx: Any, z: Any, begin: Any, x: Any, w: Any, second: Any, vectors: Any, terms: Any,
    more: Any,
) -> Any:  # fmt: skip
    """``z = begin + x @ w`` for one row, a whole panel and a second one of ``vectors``.

    More sums at a time hide how long each addition takes.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        z, begin, x, w, second, vectors, terms, more = args

        def build(count: int) -> None:
            _Block(builder, [z], [begin], [x], [(w, PANEL), (second, count)]).build(terms, more)

        _choose(builder, vectors, build)
        return context.get_dummy_value()

    return types.void(z, z, z, z, z, types.int64, types.int64, types.boolean), generate


def _choose(builder: Any, vectors: Any, build: Callable[[int], None]) -> None:
    """Build a branch for each number of vectors that a panel can have."""
    counts = range(1, PANEL + 1)
    branches = [builder.append_basic_block(f"vectors{count}") for count in counts]
    end = builder.append_basic_block("chosen")
    switch = builder.switch(vectors, end)
    for count, branch in zip(counts, branches, strict=True):
        switch.add_case(_constant(count), branch)
        builder.position_at_end(branch)
        build(count)
        builder.branch(end)
    builder.position_at_end(end)


@product_kernel
def multiply(z, z_row, start, start_row, rows, x, x_row, terms, w, begin, end):
    """``z = start + x @ w`` for the vectors of columns from ``begin`` to ``end``.

    ``begin`` is where a panel begins. Rows of ``z``, of ``start`` and of ``x`` (rows, terms) are so
    many numbers apart; ``start`` may be ``z``, or one row for all of them (0 apart). ``w`` is
    packed.
    """
    lanes = width(z)
    while begin < end:
        at = begin * lanes
        panel = offset(w, at * terms)
        vectors = min(PANEL, end - begin)
        rest = min(PANEL, end - begin - vectors) if rows == 1 else 0
        for k in range(0, terms, SEGMENT):
            count = min(SEGMENT, terms - k)
            here = offset(panel, k * vectors * lanes)
            zk, bk, xk = offset(z, at), offset(start, at), offset(x, k)
            if rest:
                there = offset(panel, (terms * vectors + k * rest) * lanes)
                _row_by_two(zk, bk, xk, here, there, rest, count, k > 0)
                continue
            left = rows
            while left:
                if ROWS == 4 and left >= 4:
                    _row_4(zk, z_row, bk, start_row, xk, x_row, here, vectors, count, k > 0)
                    done = 4
                elif ROWS == 4 and left == 3:
                    _row_3(zk, z_row, bk, start_row, xk, x_row, here, vectors, count, k > 0)
                    done = 3
                elif left >= 2:
                    _row_2(zk, z_row, bk, start_row, xk, x_row, here, vectors, count, k > 0)
                    done = 2
                else:
                    _row_1(zk, z_row, bk, start_row, xk, x_row, here, vectors, count, k > 0)
                    done = 1
                zk, bk, xk = (
                    offset(zk, done * z_row),
                    offset(bk, done * start_row),
                    offset(xk, done * x_row),
                )
                left -= done
        begin += vectors + rest
