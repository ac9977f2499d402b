"""Combine entries in float64: along a row, or down columns side by side.

Both have one interface, so that a formula such as a variance is written once, for
:class:`Lanes`. The order in which entries are combined depends on their number alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from npylstm.kernels.simd import Lanes, broadcast, each_vector, lane_count

__all__ = ["ColumnEntries", "Entries", "RowEntries", "larger", "smaller"]


def larger(a: Lanes, b: Lanes) -> Lanes:
    """Return the larger number, nan if one of them is."""
    return a.choose("==", a, a.choose(">", b, a, b), a)


def smaller(a: Lanes, b: Lanes) -> Lanes:
    """Return the smaller number, nan if one of them is."""
    return a.choose("==", a, a.choose("<", b, a, b), a)


class Entries:
    """Generates code for some entries of the type of ``x``; results are in float64."""

    def __init__(self, builder: Any, x: Any, count: Any) -> None:
        self.builder, self.start, self._count = builder, x, count
        self._number = x.type.pointee
        self.lanes = lane_count(self._number)

    @property
    def count(self) -> Lanes:
        """The number of entries."""
        return self.number(self._count)

    def number(self, integer: Any) -> Lanes:
        """Return an integer in float64."""
        wide = self.builder.sitofp(integer, ir.DoubleType())
        return broadcast(self.builder, wide, self.lanes)

    def fold(
        self, start: float, term: Callable[[Lanes], Lanes], join: Callable[[Lanes, Lanes], Lanes],
        wide: bool = True, into: Any = None,
    ) -> Lanes:  # fmt: skip
        """Join the terms of all entries, beginning with ``start``, which changes nothing.

        ``term`` takes entries in their own type. Terms are joined in float64 if ``wide``, and
        stored where ``into`` points, if it does, at the places of the entries.
        """
        raise NotImplementedError

    def _accumulator(self, start: float, wide: bool) -> Any:
        kind = ir.VectorType(ir.DoubleType() if wide else self._number, self.lanes)
        total = cgutils.alloca_once(self.builder, kind)
        self.builder.store(ir.Constant(kind, [start] * self.lanes), total)
        return total

    def sum(self, term: Callable[[Lanes], Lanes] = Lanes.wide, into: Any = None) -> Lanes:
        """Return the sum of the terms of all entries; see :meth:`fold`."""
        return self.fold(0.0, term, lambda a, b: a + b, into=into)

    def max(self) -> Lanes:
        """Return the largest entry, in its own type; nan if one is."""
        return self.fold(float("-inf"), lambda x: x, larger, wide=False)

    def spread(self) -> Lanes:
        """Return the sum of the squares of what entries differ from their mean."""
        mean = self.sum() / self.count

        def term(x: Lanes) -> Lanes:
            off = x.wide() - mean
            return off * off

        return self.sum(term)


class ColumnEntries(Entries):
    """Entries of a vector of columns, ``distance`` numbers apart."""

    def __init__(self, builder: Any, x: Any, count: Any, distance: Any, mask: Any = None) -> None:
        super().__init__(builder, x, count)
        self._distance, self._mask = distance, mask

    def fold(
        self, start: float, term: Callable[[Lanes], Lanes], join: Callable[[Lanes, Lanes], Lanes],
        wide: bool = True, into: Any = None,
    ) -> Lanes:  # fmt: skip
        builder = self.builder
        total = self._accumulator(start, wide)
        with cgutils.for_range(builder, self._count) as loop:
            here = [builder.mul(loop.index, self._distance)]
            at = builder.gep(self.start, here)
            value = term(Lanes.load(builder, at, self.lanes, self._mask))
            if into is not None:
                value.store(builder.gep(into, here), self._mask)
            value = value.wide() if wide else value
            builder.store(join(Lanes(builder, builder.load(total)), value).value, total)
        return Lanes(builder, builder.load(total))


class RowEntries(Entries):
    """Contiguous entries; results are the same in all lanes."""

    def fold(
        self, start: float, term: Callable[[Lanes], Lanes], join: Callable[[Lanes, Lanes], Lanes],
        wide: bool = True, into: Any = None,
    ) -> Lanes:  # fmt: skip
        builder = self.builder
        total = self._accumulator(start, wide)

        def add(k: Any, mask: Any) -> None:
            before = Lanes(builder, builder.load(total))
            value = term(Lanes.load(builder, builder.gep(self.start, [k]), self.lanes, mask))
            if into is not None:
                value.store(builder.gep(into, [k]), mask)
            after = join(before, value.wide() if wide else value).value
            kept = after if mask is None else builder.select(mask, after, before.value)
            builder.store(kept, total)

        each_vector(builder, self.lanes, self._count, add)
        made = Lanes(builder, builder.load(total))
        size = self.lanes
        while size > 1:
            size //= 2
            made = join(made.lanes_from(0, size), made.lanes_from(size, size))
        return made.repeated(self.lanes)
