"""Softmax along a row, or down columns side by side; sums are in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from npylstm.kernels.folds import ColumnEntries, Entries, RowEntries
from npylstm.kernels.simd import Lanes, each_vector, lane_count
from npylstm.kernels.simd_math import exp
from npylstm.kernels.sums import constant

__all__ = ["softmax_columns", "softmax_row"]

# Writes a function of every entry to its place; entries are those of the input, or of the output.
Write = Callable[[Entries, Callable[[Lanes], Lanes]], None]


def _softmax(
    builder: Any, x: Entries, y: Entries, number: Any, logarithm: Any, write: Write
) -> None:
    """Generate the softmax of entries, or its logarithm."""
    top = x.max()
    with builder.if_else(builder.icmp_signed("!=", logarithm, constant(0))) as (yes, no):
        with yes:
            rest = x.sum(lambda entry: exp(entry - top)).log()
            write(x, lambda entry: (entry - top).wide() - rest)
        with no:
            total = x.sum(lambda entry: exp(entry - top), into=y.start)
            factor = (1.0 / total).narrow(number)
            write(y, lambda entry: entry * factor)


@intrinsic
def softmax_row(typingctx: Any, y: Any, x: Any, n: Any, logarithm: Any) -> Any:
    """``y[:n] = softmax(x)``, or its logarithm; ``y`` may be ``x``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        y, x, n, logarithm = args
        number = x.type.pointee
        lanes = lane_count(number)

        def write(source: Entries, formula: Callable[[Lanes], Lanes]) -> None:
            def apply(k: Any, mask: Any) -> None:
                entry = Lanes.load(builder, builder.gep(source.start, [k]), lanes, mask)
                formula(entry).narrow(number).store(builder.gep(y, [k]), mask)

            each_vector(builder, lanes, n, apply)

        inputs, outputs = RowEntries(builder, x, n), RowEntries(builder, y, n)
        _softmax(builder, inputs, outputs, number, logarithm, write)
        return context.get_dummy_value()

    n = types.int64
    return types.void(y, y, n, n), generate


@intrinsic
def softmax_columns(typingctx: Any, y: Any, x: Any, n: Any, columns: Any, logarithm: Any) -> Any:
    """Softmax of the n entries of each column, or its logarithm."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        y, x, n, columns, logarithm = args
        number = x.type.pointee
        lanes = lane_count(number)

        def column(k: Any, mask: Any) -> None:
            starts = [builder.gep(at, [k]) for at in (x, y)]

            def write(source: Entries, formula: Callable[[Lanes], Lanes]) -> None:
                with cgutils.for_range(builder, n) as loop:
                    here = [builder.mul(loop.index, columns)]
                    entry = Lanes.load(builder, builder.gep(source.start, here), lanes, mask)
                    formula(entry).narrow(number).store(builder.gep(starts[1], here), mask)

            inputs, outputs = (ColumnEntries(builder, at, n, columns, mask) for at in starts)
            _softmax(builder, inputs, outputs, number, logarithm, write)

        each_vector(builder, lanes, columns, column)
        return context.get_dummy_value()

    n = types.int64
    return types.void(y, y, n, n, n), generate
