"""Vectorized exponential, sigmoid and tanh, accurate to nearly the last digit.

All of them use ``exp(x) = s (1 + q)``: ``n`` is the integer nearest to ``x / ln 2``,
``s = 2**n``, ``r = x - n ln 2`` is within ``ln(2) / 2 = 0.347`` of zero, and
``q = exp(r) - 1 = r + r**2 g(r)``. The polynomial ``g`` interpolates at Chebyshev nodes in
float32, and is a truncated Taylor series in float64. The relative error is 1e-10
(float32 rounds at 6e-8) and 4e-18 (float64: 1e-16). Every function takes and returns
:class:`~npylstm.kernels.simd.Lanes`; nan stays nan.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial

from npylstm.arrays import Array
from npylstm.kernels.simd import Lanes, bit_width

__all__ = ["exp", "exp_minus_one", "one_plus_exp", "sigmoid", "tanh", "tanh_parts"]


class _Format(NamedTuple):
    """Constants of a floating-point format."""

    mantissa: int
    bias: int
    # Limits of x where exp is near the largest number (n is the largest exponent there), and near
    # the smallest normal number.
    exp_limit: float
    exp_least: float
    # From here on tanh is one.
    tanh_limit: float
    # ln 2 in two parts, the first short enough for an exact product with n.
    ln2_high: float
    ln2_low: float
    polynomial: list[float]


def _interpolate(degree: int) -> list[float]:
    """Coefficients of ``g(r) = (exp(r) - 1 - r) / r**2``."""

    def series(r: Array) -> Array:
        terms: Array = np.sum([r**k / math.factorial(k + 2) for k in range(20)], axis=0)
        return terms

    half = math.log(2) / 2
    fitted = Chebyshev.interpolate(series, degree, domain=[-half, half])
    return [float(c) for c in fitted.convert(kind=Polynomial).coef]


def _series(terms: int) -> list[float]:
    """Return Taylor coefficients of ``g``: interpolation of high degree in float64 loses digits."""
    return [1 / math.factorial(k + 2) for k in range(terms)]


_FORMATS = {
    32: _Format(23, 127, 88.1, -87.0, 10.0, 0.693359375, math.log(2) - 0.693359375,
                _interpolate(5)),
    64: _Format(52, 1023, 709.1, -708.0, 20.0, float.fromhex("0x1.62e42fee00000p-1"),
                float.fromhex("0x1.a39ef35793c76p-33"), _series(12)),
}  # fmt: skip


def _format(x: Lanes) -> _Format:
    return _FORMATS[bit_width(x.value.type.element)]


class _Reduced(NamedTuple):
    """``exp(x) = s (1 + q)`` with ``q = r + t``: ``s`` a power of two, ``r`` exact, ``t`` small."""

    q: Lanes
    r: Lanes
    t: Lanes
    n: Lanes
    s: Lanes

    def plus_one(self) -> Lanes:
        """``exp(x) + 1``."""
        return self.q.fma(self.s, self.s + 1.0)

    def minus_one(self) -> Lanes:
        """``exp(x) - 1``, accurate near zero."""
        return self.t.fma(self.s, self.r.fma(self.s, self.s - 1.0))


def _reduced(x: Lanes) -> _Reduced:
    """Reduce the argument of ``exp(x)``; x is between the limits."""
    kind = _format(x)
    shifted = x.fma(1 / math.log(2), _magic(kind))
    n = shifted - _magic(kind)
    exact = n.fma(-kind.ln2_high, x)
    r = n.fma(-kind.ln2_low, exact)
    square = r * r
    # Terms in pairs shorten the chain of dependent operations.
    c = kind.polynomial
    pairs = [_pair(r, c[k : k + 2]) for k in range(0, len(c), 2)]
    g = pairs.pop()
    while pairs:
        g = square.fma(g, pairs.pop())
    t = square.fma(g, n * -kind.ln2_low)
    return _Reduced(square.fma(g, r), exact, t, n, shifted.shifted_bits(kind.mantissa))


def _magic(kind: _Format) -> float:
    """Return a number whose addition rounds to an integer and puts the exponent in low bits."""
    return 1.5 * 2.0**kind.mantissa + kind.bias


def _pair(r: Lanes, terms: list[float]) -> Any:
    return terms[0] if len(terms) == 1 else r.fma(terms[1], terms[0])


def exp(x: Lanes) -> Lanes:
    """``exp(x)``, down to the smallest numbers of the format."""
    kind = _format(x)
    beyond = kind.exp_limit + kind.mantissa
    reduced = _reduced(x.minimum(beyond).maximum(-beyond))
    # 2**n may overflow where the result does not: two factors.
    half = reduced.n * 0.5 + _magic(kind)
    rest = reduced.n - (half - _magic(kind)) + _magic(kind)
    scales = [number.shifted_bits(kind.mantissa) for number in (half, rest)]
    return (reduced.q + 1.0) * scales[0] * scales[1]


def exp_minus_one(x: Lanes) -> Lanes:
    """``exp(x) - 1``, accurate near zero, for ``x`` below the limit of exp."""
    return _reduced(x.maximum(_format(x).exp_least)).minus_one()


def _bounded(x: Lanes) -> _Reduced:
    kind = _format(x)
    return _reduced(x.minimum(kind.exp_limit).maximum(kind.exp_least))


def one_plus_exp(x: Lanes) -> Lanes:
    """``1 + exp(x)``; x is clipped at the limit of exp."""
    return _bounded(x).plus_one()


def one_plus_exp_times(x: Lanes, factor: Lanes) -> Lanes:
    """``(1 + exp(x)) * factor``, with one rounding less than separate operations."""
    reduced = _bounded(x)
    return reduced.q.fma(reduced.s, reduced.s).fma(factor, factor)


def sigmoid(x: Lanes) -> Lanes:
    """``1 / (1 + exp(-x))``; zero where exp(-x) is infinite."""
    return x.choose("<", -_format(x).exp_limit, 0.0, 1.0 / one_plus_exp(-x))


def tanh_parts(x: Lanes) -> tuple[Lanes, Lanes]:
    """``tanh(x)`` as a fraction: ``exp(2 |x|) - 1`` with the sign of x, and ``exp(2 |x|) + 1``."""
    bounded = abs(x).minimum(_format(x).tanh_limit)
    reduced = _reduced(bounded + bounded)
    above = reduced.minus_one()
    return above.copysign(x), above + 2.0  # their errors have the same sign


def tanh(x: Lanes) -> Lanes:
    """``tanh(x)``."""
    above, below = tanh_parts(x)
    return above / below
