"""Integer arithmetic on symbolic sizes, which exporters write into graphs.

The number of steps of an input, the product of two sizes, half of one rounded down: a
:class:`Size` is a polynomial with integer coefficients in the sizes that a call determines. A size
is at least one. Arrays of sizes are NumPy arrays of objects, whose entries are integers or sizes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from npylstm.ops.shapes import Dim, split_offset
from npylstm_converters.errors import Refusal

__all__ = ["Size", "Undecided", "equal", "size_of"]

_Term = tuple[str, ...]  # a product of atoms, sorted

# Graphs of exporters compute with a few sizes; the formulas of others may grow without end.
_MOST_TERMS = 64
_MOST_FACTORS = 16
_LARGEST = 1 << 63
_LONGEST_ATOM = 500


class Undecided(Refusal):
    """A comparison of sizes depends on the call."""

    def __init__(self, size: Size, relation: str, other: Any) -> None:
        super().__init__(f"whether {size} is {relation} {other} depends on the call")
        #: The symbols of the sizes that are compared.
        self.symbols = {*re.findall(r"\w+", f"{size} {other}")}


class Size:
    """A polynomial in symbolic sizes.

    Parameters
    ----------
    terms
        Coefficients by product of atoms; the empty product is the constant.
    """

    __slots__ = ("terms",)

    def __init__(self, terms: Mapping[_Term, int]) -> None:
        self.terms = {term: number for term, number in terms.items() if number}
        many = len(self.terms) > _MOST_TERMS or max(map(len, self.terms), default=0) > _MOST_FACTORS
        if many or max(map(abs, self.terms.values()), default=0) > _LARGEST:
            raise Refusal("computes a number of the sizes of inputs by too long a formula")

    @staticmethod
    def _terms_of(value: Any) -> Mapping[_Term, int]:
        if isinstance(value, Size):
            return value.terms
        return {(): int(value)}

    @staticmethod
    def _simple(terms: Mapping[_Term, int]) -> Size | int:
        made = Size(terms)
        return made.terms.get((), 0) if set(made.terms) <= {()} else made

    def __add__(self, other: Any) -> Size | int:
        total = Counter(self.terms)
        for term, number in self._terms_of(other).items():
            total[term] += number
        return self._simple(total)

    __radd__ = __add__

    def __neg__(self) -> Size | int:
        return self._simple({term: -number for term, number in self.terms.items()})

    def __sub__(self, other: Any) -> Size | int:
        return self + Size({t: -n for t, n in self._terms_of(other).items()})

    def __rsub__(self, other: Any) -> Size | int:
        made: Size | int = Size(self._terms_of(other)) - self
        return made

    def __mul__(self, other: Any) -> Size | int:
        total: Counter[_Term] = Counter()
        for mine, a in self.terms.items():
            for theirs, b in self._terms_of(other).items():
                total[tuple(sorted((*mine, *theirs)))] += a * b
        return self._simple(total)

    __rmul__ = __mul__

    def __floordiv__(self, other: Any) -> Size | int:
        """Divide and round down; a quotient that is no polynomial is a symbol of its own."""
        divisor = self._terms_of(other)
        if len(divisor) != 1:
            return self._quotient(other)
        ((atoms, number),) = divisor.items()
        quotient: dict[_Term, int] = {}
        for term, mine in self.terms.items():
            left = Counter(term)
            left.subtract(atoms)
            if min(left.values(), default=0) < 0 or mine % number:
                return self._quotient(other)
            quotient[tuple(sorted(left.elements()))] = mine // number
        return self._simple(quotient)

    def _quotient(self, other: Any) -> Size:
        atom = f"({self})//({other})".replace("*", ".")
        if len(atom) > _LONGEST_ATOM:
            raise Refusal("computes a number of the sizes of inputs by too long a formula")
        return Size({(atom,): 1})

    def __mod__(self, other: Any) -> Size | int:
        whole: Size | int = self - (self // other) * other
        return whole

    def __hash__(self) -> int:
        return hash(frozenset(self.terms.items()))

    def __eq__(self, other: object) -> bool:
        """Whether two sizes are equal in every call, or in none.

        Raises
        ------
        Undecided
            If it depends on the call.
        """
        difference = self - other
        if isinstance(difference, int):
            return difference == 0
        if difference._is_positive() or Size._is_positive(-difference):
            return False
        raise Undecided(self, "equal to", other)

    def _is_positive(self: Size | int) -> bool:
        """Whether it is positive in every call: sizes of inputs are at least one."""
        if isinstance(self, int):
            return self > 0
        constant = self.terms.get((), 0)
        others = [n for term, n in self.terms.items() if term]
        known = all(atom.isidentifier() for term in self.terms for atom in term)
        return known and min(others) > 0 and constant + sum(others) > 0

    def _compare(self, other: Any, positive: bool) -> bool:
        difference = self - other if positive else Size(self._terms_of(other)) - self
        opposite = -difference
        if Size._is_positive(difference):
            return True
        at_most_zero = opposite + 1
        if Size._is_positive(at_most_zero):
            return False
        sign = "greater" if positive else "less"
        raise Undecided(self, f"{sign} than", other)

    def __gt__(self, other: Any) -> bool:
        return self._compare(other, True)

    def __lt__(self, other: Any) -> bool:
        return self._compare(other, False)

    def __ge__(self, other: Any) -> bool:
        return not self < other

    def __le__(self, other: Any) -> bool:
        return not self > other

    def __bool__(self) -> bool:
        return self != 0

    def __repr__(self) -> str:
        parts = []
        for term, number in sorted(self.terms.items(), reverse=True):
            factors = [*term] if number == 1 and term else [str(number), *term]
            parts.append("*".join(factors))
        return "+".join(parts).replace("+-", "-")


def equal(a: object, b: object) -> bool:
    """Whether two integers or sizes are known to be equal."""
    if isinstance(a, Size) or isinstance(b, Size):
        return Size._terms_of(a) == Size._terms_of(b)
    return a == b


def size_of(dim: Dim) -> Size | int:
    """Return the size of an axis of a tensor, such as ``"batch*steps"`` or ``"steps-2"``."""
    if isinstance(dim, int):
        return dim
    made: Size | int = 1
    for part in dim.split("*"):
        symbol, offset = split_offset(part)
        made *= int(part) if part.isdigit() else Size({(symbol,): 1}) + offset
    return made
