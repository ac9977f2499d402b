"""Sums of products in registers: code for some rows by up to four vectors of columns.

Weights are floats, or bfloat16: words of 32 bits, the low half of an even term, the high half of
the next one. Both give the same bits for the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from npylstm.kernels.packing import PANEL
from npylstm.kernels.simd import Lanes, broadcast, lane_count, prefetch

__all__ = ["WORD", "Sums", "choose", "constant", "high_half", "low_half", "row_pointers"]

_INTEGER, WORD = ir.IntType(64), ir.IntType(32)


def constant(value: int) -> Any:
    """Return an integer constant in generated code."""
    return ir.Constant(_INTEGER, value)


def row_pointers(builder: Any, first: Any, distance: Any, count: int) -> list[Any]:
    """Return pointers to rows at this distance."""
    places = [builder.mul(distance, constant(r)) for r in range(count)]
    return [builder.gep(first, [place]) for place in places]


class Sums:
    """Generates code for sums of products, for some rows and vectors of columns.

    ``x`` are pointers, one for each row; ``weights`` are pointers to floats or words, each with its
    number of vectors per term. A few sums would wait for the previous additions, so fewer sums than
    a panel's are computed in two halves, of even and odd terms. ``later`` points to the weights to
    prefetch, with the stride of the first ``weights``.
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
        self._is_halved = weights[0][0].type.pointee == WORD
        # Terms of an iteration.
        self._together = 2 if self._is_halved else self._chains

    def _at(self, k: Any, count: int) -> Any:
        """Return the distance of term ``k``, which is even in words, with ``count`` vectors."""
        row = self.builder.lshr(k, constant(1)) if self._is_halved else k
        return self.builder.mul(row, constant(count * self._lanes))

    def _columns(self, k: Any) -> list[list[Lanes]]:
        """Load the weights of the terms from ``k``: those of an iteration."""
        builder = self.builder
        if self._later is not None:
            prefetch(builder, builder.gep(self._later, [self._at(k, self._weights[0][1])]))
        if not self._is_halved:
            terms = [builder.add(k, constant(c)) for c in range(self._together)]
            return [self._loaded(term) for term in terms]
        words = self._loaded(k)
        return [[half(word) for word in words] for half in (low_half, high_half)]

    def _loaded(self, k: Any) -> list[Lanes]:
        builder, loaded = self.builder, []
        for start, count in self._weights:
            here = builder.gep(start, [self._at(k, count)])
            for c in range(count):
                at = builder.gep(here, [constant(c * self._lanes)])
                loaded.append(Lanes.load(builder, at, self._lanes))
        return loaded

    def _added(self, k: Any, columns: list[Lanes], sums: list[Any]) -> list[Any]:
        """Return the sums with term ``k``, which has these weights."""
        builder, new = self.builder, list[Any]()
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
        following = builder.add(k, constant(self._together))
        builder.cbranch(builder.icmp_signed("<=", following, terms), body, done)
        builder.position_at_end(body)
        new: list[list[Any]] = [list(chain) for chain in sums]
        for c, columns in enumerate(self._columns(k)):
            term = builder.add(k, constant(c))
            new[c % chains] = self._added(term, columns, new[c % chains])
        builder.branch(head)
        k.add_incoming(constant(0), before)
        k.add_incoming(following, body)
        for chain, values in zip(sums, new, strict=True):
            for phi, value in zip(chain, values, strict=True):
                phi.add_incoming(zero, before)
                phi.add_incoming(value, body)
        builder.position_at_end(done)
        first = sums[0]
        if self._together == 2:
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
        columns = self._loaded(k)
        if self._is_halved:
            columns = [low_half(word) for word in columns]
        new = self._added(k, columns, sums)
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
                (builder.gep(w, [self._at(k, n)]), n)
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


def low_half(words: Lanes) -> Lanes:
    """Return the float32 numbers whose upper bits are the low halves of words."""
    return words.shifted_words(16)


def high_half(words: Lanes) -> Lanes:
    """Return the float32 numbers whose upper bits are the high halves of words."""
    return words.masked_words(-1 << 16)


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
