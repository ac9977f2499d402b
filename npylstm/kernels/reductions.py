"""Kernels that combine entries along an axis: reductions, softmax, pooling."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from npylstm.kernels.arguments import MASKING, POOL, REDUCE, SOFTMAX
from npylstm.kernels.codes import REDUCTIONS
from npylstm.kernels.folds import ColumnEntries, Entries, RowEntries, larger, smaller
from npylstm.kernels.jit import kernel
from npylstm.kernels.simd import Lanes, copy, each_vector, lane_count, number, offset
from npylstm.kernels.softmax import softmax_columns, softmax_row

__all__ = ["mask_steps", "pool", "reduce", "softmax"]

_MAX, _MEAN = REDUCTIONS["max"], REDUCTIONS["mean"]


def _square(x: Lanes) -> Lanes:
    wide = x.wide()
    return wide * wide


def _truth(x: Lanes) -> Lanes:
    return x.wide().choose("==", 0.0, 0.0, 1.0)  # nan is true


# Of entries, and the number that means and variances are divided by.
_FORMULAS: dict[str, Callable[[Entries, Lanes], Lanes]] = {
    "mean": lambda entries, divisor: entries.sum() / divisor,
    "sum": lambda entries, divisor: entries.sum(),
    "prod": lambda entries, divisor: entries.fold(1.0, Lanes.wide, lambda a, b: a * b),
    "norm": lambda entries, divisor: entries.sum(_square).sqrt(),
    "l1": lambda entries, divisor: entries.sum(lambda x: abs(x.wide())),
    "sum_square": lambda entries, divisor: entries.sum(_square),
    "any": lambda entries, divisor: entries.fold(0.0, _truth, larger),
    "all": lambda entries, divisor: entries.fold(1.0, _truth, smaller),
    "max": lambda entries, divisor: entries.max().wide(),
    "min": lambda entries, divisor: entries.fold(float("inf"), Lanes.wide, smaller),
    "var": lambda entries, divisor: entries.spread() / divisor,
    "std": lambda entries, divisor: (entries.spread() / divisor).sqrt(),
}


def _by_code(builder: Any, code: Any, build: Callable[[Any], None]) -> None:
    """Generate code for the formula of each code."""
    end = builder.append_basic_block("reduced")
    switch = builder.switch(code, end)
    for name, value in REDUCTIONS.items():
        case = builder.append_basic_block(name)
        switch.add_case(ir.Constant(code.type, value), case)
        builder.position_at_end(case)
        build(_FORMULAS[name])
        builder.branch(end)
    builder.position_at_end(end)


@intrinsic
def _reduce_row(typingctx: Any, code: Any, y: Any, x: Any, n: Any, divisor: Any) -> Any:
    """Combine contiguous entries to one number."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        code, y, x, n, divisor = args

        def build(formula: Callable[[Entries, Lanes], Lanes]) -> None:
            entries = RowEntries(builder, x, n)
            made = formula(entries, entries.number(divisor)).narrow(y.type.pointee)
            builder.store(builder.extract_element(made.value, ir.Constant(ir.IntType(32), 0)), y)

        _by_code(builder, code, build)
        return context.get_dummy_value()

    n = types.int64
    return types.void(n, y, y, n, n), generate


@intrinsic
def _reduce_columns(
    typingctx: Any, code: Any, y: Any, x: Any, n: Any, distance: Any, columns: Any, divisor: Any
) -> Any:
    """Combine the n entries of each column."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        code, y, x, n, distance, columns, divisor = args

        def build(formula: Callable[[Entries, Lanes], Lanes]) -> None:
            def reduce(k: Any, mask: Any) -> None:
                entries = ColumnEntries(builder, builder.gep(x, [k]), n, distance, mask)
                made = formula(entries, entries.number(divisor)).narrow(y.type.pointee)
                made.store(builder.gep(y, [k]), mask)

            each_vector(builder, lane_count(x.type.pointee), columns, reduce)

        _by_code(builder, code, build)
        return context.get_dummy_value()

    n = types.int64
    return types.void(n, y, y, n, n, n, n), generate


@kernel
def reduce(row, params, state, work):
    """:class:`npylstm.ops.arithmetic.Reduce`."""
    n, inner, divisor = row[REDUCE.SIZE], row[REDUCE.INNER], row[REDUCE.DIVISOR]
    code = row[REDUCE.CODE]
    for r in range(row[REDUCE.ROWS]):
        x, y = offset(work, row[REDUCE.X] + r * n * inner), offset(work, row[REDUCE.Y] + r * inner)
        if inner == 1:
            _reduce_row(code, y, x, n, divisor)
        else:
            _reduce_columns(code, y, x, n, inner, inner, divisor)


@kernel
def softmax(row, params, state, work):
    """Softmax along an axis, or its logarithm."""
    n, inner, log = row[SOFTMAX.SIZE], row[SOFTMAX.INNER], row[SOFTMAX.LOGARITHM]
    for r in range(row[SOFTMAX.ROWS]):
        at = r * n * inner
        x, y = offset(work, row[SOFTMAX.X] + at), offset(work, row[SOFTMAX.Y] + at)
        if inner > 1:
            softmax_columns(y, x, n, inner, log)
        else:
            softmax_row(y, x, n, log)


@kernel
def pool(row, params, state, work):
    """:class:`npylstm.ops.convolution.Pool1D`, and a pool over one axis."""
    size, gap, steps, units = row[POOL.SIZE], row[POOL.DILATION], row[POOL.STEPS], row[POOL.IN]
    out_steps, code = row[POOL.OUT_STEPS], row[POOL.CODE]
    low, end = -row[POOL.BEFORE], steps + row[POOL.AFTER]
    for r in range(row[POOL.ROWS]):
        x = offset(work, row[POOL.X] + r * steps * units)
        y = offset(work, row[POOL.Y] + r * out_steps * units)
        for t in range(out_steps):
            first = t * row[POOL.STRIDE] - row[POOL.BEFORE]
            begin = max(0, (gap - 1 - first) // gap)  # the first entry that is no padding
            n = max(0, min(size, (steps - first + gap - 1) // gap) - begin)
            divisor = n
            if row[POOL.COUNT_PADDING]:
                counted = max(0, (low - first + gap - 1) // gap)
                divisor = max(0, min(size, (end - first + gap - 1) // gap) - counted)
            at = first + begin * gap
            if not row[POOL.CHANNELS_FIRST]:
                made, source = offset(y, t * units), offset(x, at * units)
                _reduce_columns(code, made, source, n, gap * units, units, divisor)
                continue
            for j in range(units):
                total, top = 0.0, -math.inf
                for k in range(n):
                    entry = x[j * steps + at + k * gap]
                    total += entry
                    top = entry if not entry <= top else top
                if code == _MAX:
                    y[j * out_steps + t] = top
                else:
                    y[j * out_steps + t] = total / divisor if code == _MEAN else total


@kernel
def mask_steps(row, params, state, work):
    """:class:`npylstm.ops.masking.Masking`."""
    n = row[MASKING.IN]
    value = type(work[0])(number(row[MASKING.VALUE]))
    for r in range(row[MASKING.ROWS]):
        x, y = offset(work, row[MASKING.X] + r * n), offset(work, row[MASKING.Y] + r * n)
        counts = 0
        for k in range(n):
            if x[k] != value:
                counts = 1
                break
        work[row[MASKING.MASK] + r] = counts
        if counts:
            copy(y, x, n)
        else:
            for k in range(n):
                y[k] = 0
