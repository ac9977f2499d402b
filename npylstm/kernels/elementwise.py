"""Kernels of elementwise operations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import float64, types
from numba.extending import intrinsic

from npylstm.kernels.arguments import CHOICE, COMBINE, RESCALE, SCALE
from npylstm.kernels.codes import POWER
from npylstm.kernels.folds import larger, smaller
from npylstm.kernels.jit import jit, kernel
from npylstm.kernels.moves import distance
from npylstm.kernels.simd import Lanes, each_vector, lane_count, number, offset, width

__all__ = ["choose", "combine", "rescale", "scale"]


def _comparison(order: str) -> Callable[[Lanes, Lanes], Lanes]:
    return lambda a, b: a.choose(order, b, 1.0, 0.0)


def _truth(x: Lanes) -> Lanes:
    return x.choose("==", 0.0, 0.0, 1.0)  # nan is true


# By code: see npylstm.kernels.codes.
_EXPRESSIONS: dict[int, Callable[[Lanes, Lanes], Lanes]] = {
    1: lambda a, b: a + b,
    2: lambda a, b: a - b,
    3: lambda a, b: a * b,
    4: lambda a, b: a / b,
    5: larger,
    6: smaller,
    7: _comparison("=="),
    8: lambda a, b: a.choose("==", b, 0.0, 1.0),
    9: _comparison("<"),
    10: _comparison("<="),
    11: _comparison(">"),
    12: _comparison(">="),
    13: lambda a, b: _truth(a) * _truth(b),
    14: lambda a, b: larger(_truth(a), _truth(b)),
    15: lambda a, b: abs(_truth(a) - _truth(b)),
    16: lambda a, b: a.choose(">", 0.0, a, a * b),
}


@intrinsic
def _express(
    typingctx: Any, code: Any, y: Any, a: Any, a_step: Any, b: Any, b_step: Any, n: Any
) -> Any:
    """``y[:n] = a op b``. A step is 1, or 0 for a vector of one number."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        code, y, a, a_step, b, b_step, n = args
        lanes = lane_count(y.type.pointee)
        end = builder.append_basic_block("expressed")
        switch = builder.switch(code, end)
        for value, expression in _EXPRESSIONS.items():
            case = builder.append_basic_block(f"code{value}")
            switch.add_case(ir.Constant(code.type, value), case)
            builder.position_at_end(case)

            def apply(k: Any, mask: Any) -> None:
                places = [builder.mul(k, step) for step in (a_step, b_step)]
                left, right = (
                    Lanes.load(builder, builder.gep(at, [place]), lanes, mask)
                    for at, place in zip((a, b), places, strict=True)
                )
                expression(left, right).store(builder.gep(y, [k]), mask)  # noqa: B023

            each_vector(builder, lanes, n, apply)
            builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    n = types.int64
    return types.void(code, y, y, n, y, n, n), generate


@jit
def _gathered(scratch, x, step, n):
    """Copy n numbers at this distance; of a distance 0 a vector of the one number."""
    for k in range(n if step else width(x)):
        scratch[k] = x[k * step]


@jit
def _filled(scratch, value):
    for k in range(width(scratch)):
        scratch[k] = value


@kernel
def combine(row, params, state, work):
    """A step of :class:`npylstm.ops.arithmetic.Arithmetic`: two operands."""
    T = type(work[0])
    outer, n, code = row[COMBINE.SIZE4], row[COMBINE.SIZE5], row[COMBINE.CODE]
    a_step, b_step = row[COMBINE.X_AT5], row[COMBINE.OTHER_AT5]
    a_scratch = offset(work, row[COMBINE.SCRATCH])
    b_scratch = offset(a_scratch, max(n, width(work)))
    if row[COMBINE.X_IS_NUMBER]:
        _filled(a_scratch, T(number(row[COMBINE.X_VALUE])))
    if row[COMBINE.OTHER_IS_NUMBER]:
        _filled(b_scratch, T(number(row[COMBINE.OTHER_VALUE])))
    a_all = offset(work, row[COMBINE.X])
    in_params = row[COMBINE.OTHER_IN_PARAMS]
    b_all = offset(params, row[COMBINE.W]) if in_params else offset(work, row[COMBINE.OTHER])
    for k in range(row[COMBINE.ROWS]):
        a_first = distance(row, COMBINE.SIZE0, COMBINE.X_AT0, k)
        b_first = distance(row, COMBINE.SIZE0, COMBINE.OTHER_AT0, k)
        for i in range(outer):
            y = offset(work, row[COMBINE.Y] + (k * outer + i) * n)
            a = offset(a_all, a_first + i * row[COMBINE.X_AT4])
            b = offset(b_all, b_first + i * row[COMBINE.OTHER_AT4])
            if row[COMBINE.X_IS_NUMBER]:
                a = a_scratch
            elif a_step != 1:
                _gathered(a_scratch, a, a_step, n)
                a = a_scratch
            if row[COMBINE.OTHER_IS_NUMBER]:
                b = b_scratch
            elif b_step != 1:
                _gathered(b_scratch, b, b_step, n)
                b = b_scratch
            a_moves, b_moves = int(a_step != 0), int(b_step != 0)
            if code == POWER:
                for j in range(n):
                    y[j] = math.pow(a[j * a_moves], b[j * b_moves])
            else:
                _express(code, y, a, a_moves, b, b_moves, n)


@kernel
def choose(row, params, state, work):
    """:class:`npylstm.ops.arithmetic.Where`."""
    T = type(work[0])
    outer, n = row[CHOICE.SIZE4], row[CHOICE.SIZE5]
    yes_value, no_value = T(number(row[CHOICE.YES_VALUE])), T(number(row[CHOICE.NO_VALUE]))
    for k in range(row[CHOICE.ROWS]):
        x_first = row[CHOICE.X] + distance(row, CHOICE.SIZE0, CHOICE.X_AT0, k)
        yes_first = row[CHOICE.YES] + distance(row, CHOICE.SIZE0, CHOICE.YES_AT0, k)
        no_first = row[CHOICE.NO] + distance(row, CHOICE.SIZE0, CHOICE.NO_AT0, k)
        for i in range(outer):
            y = offset(work, row[CHOICE.Y] + (k * outer + i) * n)
            x = offset(work, x_first + i * row[CHOICE.X_AT4])
            yes = offset(work, yes_first + i * row[CHOICE.YES_AT4])
            no = offset(work, no_first + i * row[CHOICE.NO_AT4])
            for j in range(n):
                if x[j * row[CHOICE.X_AT5]] != 0:
                    y[j] = yes_value if row[CHOICE.YES_IS_NUMBER] else yes[j * row[CHOICE.YES_AT5]]
                else:
                    y[j] = no_value if row[CHOICE.NO_IS_NUMBER] else no[j * row[CHOICE.NO_AT5]]


@kernel
def rescale(row, params, state, work):
    """:class:`npylstm.ops.pointwise.Rescaling`."""
    x, y = offset(work, row[RESCALE.X]), offset(work, row[RESCALE.Y])
    factor, shift = number(row[RESCALE.SCALE]), number(row[RESCALE.OFFSET])
    for k in range(row[RESCALE.SIZE]):
        y[k] = type(work[0])(float64(x[k]) * factor + shift)


@intrinsic
def _scaled(
    typingctx: Any,
    y: Any,
    x: Any,
    factor: Any,
    factor_rest: Any,
    shift: Any,
    shift_rest: Any,
    n: Any,
) -> Any:
    """``y[:n] = x * factor + shift`` in float64; factors and shifts are sums of two parts."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        y, x, *parts, n = args
        kind = y.type.pointee
        lanes = lane_count(kind)

        def apply(k: Any, mask: Any) -> None:
            value, factor, more, shift, rest = (
                Lanes.load(builder, builder.gep(at, [k]), lanes, mask).wide() for at in (x, *parts)
            )
            made = value * (factor + more) + (shift + rest)
            made.narrow(kind).store(builder.gep(y, [k]), mask)

        each_vector(builder, lanes, n, apply)
        return context.get_dummy_value()

    return types.void(y, y, y, y, y, y, types.int64), generate


@kernel
def scale(row, params, state, work):
    """:class:`npylstm.ops.normalization.BatchNormalization`: factor and shift of each entry."""
    n, inner = row[SCALE.SIZE], row[SCALE.INNER]
    factor, factor_rest = offset(params, row[SCALE.FACTOR]), offset(params, row[SCALE.FACTOR_REST])
    shift, shift_rest = offset(params, row[SCALE.SHIFT]), offset(params, row[SCALE.SHIFT_REST])
    for r in range(row[SCALE.ROWS]):
        x, y = (
            offset(work, row[SCALE.X] + r * n * inner),
            offset(work, row[SCALE.Y] + r * n * inner),
        )
        if inner == 1:
            _scaled(y, x, factor, factor_rest, shift, shift_rest, n)
            continue
        for k in range(n):
            a = float64(factor[k]) + float64(factor_rest[k])
            b = float64(shift[k]) + float64(shift_rest[k])
            for j in range(k * inner, (k + 1) * inner):
                y[j] = type(work[0])(float64(x[j]) * a + b)
