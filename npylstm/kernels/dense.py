"""Native kernels of dense layers."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from npylstm.kernels.activations import activate
from npylstm.kernels.arguments import DENSE
from npylstm.kernels.jit import kernel
from npylstm.kernels.packing import GROUP
from npylstm.kernels.products import factor
from npylstm.kernels.simd import Lanes, broadcast, call, copy, offset, width
from npylstm.kernels.sums import choose, constant
from npylstm.kernels.target import TARGET

__all__ = ["dense", "dense_narrow"]

# Rows and groups of columns whose sums are in registers together.
_ROWS, _GROUPS = (4, 4) if TARGET.registers >= 32 else (2, 2)


@kernel
def dense(row, params, state, work):
    """:class:`npylstm.ops.dense.Dense`: packed weights."""
    features, units = row[DENSE.IN], row[DENSE.UNITS]
    span = row[DENSE.VECTORS] * width(work)
    z, rounded = offset(work, row[DENSE.SCRATCH]), offset(work, row[DENSE.ROUNDED])
    for first in range(0, row[DENSE.ROWS], row[DENSE.BLOCK_ROWS]):
        n = min(row[DENSE.BLOCK_ROWS], row[DENSE.ROWS] - first)
        x = offset(work, row[DENSE.X] + first * features)
        x, x_row = factor(row[DENSE.ROUND_ROWS], rounded, x, features, n, features)
        call(row[DENSE.MULTIPLY], (
            z, span, offset(params, row[DENSE.BIAS]), 0, n, x, x_row, features,
            offset(params, row[DENSE.W]), 0, row[DENSE.VECTORS],
        ))  # fmt: skip
        for r in range(n):
            y = offset(work, row[DENSE.Y] + (first + r) * units)
            copy(y, offset(z, r * span), units)
            activate(row[DENSE.CODE], offset(params, row[DENSE.CODE_PARAM]), y, units)


def _wide_product(rows: int) -> Any:
    """Return the intrinsic for this number of rows."""

    @intrinsic
    def product(
        typingctx: Any, y: Any, y_row: Any, x: Any, x_row: Any, terms: Any, w: Any, w_row: Any,
        bias: Any, groups: Any, columns: Any,
    ) -> Any:  # fmt: skip
        """``y = bias + x @ w`` for some groups of columns, summed in float64 and rounded once.

        Terms are added one after another. ``columns`` is the number of columns that are written.
        """

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            y, y_row, x, x_row, terms, w, w_row, bias, groups, columns = args
            number = y.type.pointee
            kind = ir.VectorType(ir.DoubleType(), GROUP)

            def wide(start: Any, g: int) -> Lanes:
                at = builder.gep(start, [constant(g * GROUP)])
                return Lanes.load(builder, at, GROUP).wide()

            def build(count: int) -> None:
                sums = [
                    [cgutils.alloca_once(builder, kind) for _ in range(count)] for _ in range(rows)
                ]
                for own in sums:
                    for g, total in enumerate(own):
                        builder.store(wide(bias, g).value, total)
                with cgutils.for_range(builder, terms) as loop:
                    here = builder.gep(w, [builder.mul(loop.index, w_row)])
                    weights = [wide(here, g) for g in range(count)]
                    for r, own in enumerate(sums):
                        place = builder.add(builder.mul(x_row, constant(r)), loop.index)
                        entry = builder.load(builder.gep(x, [place]))
                        a = broadcast(builder, entry, GROUP).wide()
                        for weight, total in zip(weights, own, strict=True):
                            before = Lanes(builder, builder.load(total))
                            builder.store(a.fma(weight, before).value, total)
                lanes = ir.Constant(ir.VectorType(columns.type, GROUP), [*range(GROUP)])
                for r, own in enumerate(sums):
                    start = builder.gep(y, [builder.mul(y_row, constant(r))])
                    for g, total in enumerate(own):
                        left = builder.sub(columns, constant(g * GROUP))
                        mask = builder.icmp_signed(
                            "<", lanes, broadcast(builder, left, GROUP).value
                        )
                        made = Lanes(builder, builder.load(total)).narrow(number)
                        made.store(builder.gep(start, [constant(g * GROUP)]), mask)

            choose(builder, groups, range(1, _GROUPS + 1), build)
            return context.get_dummy_value()

        n = types.int64
        return types.void(y, n, y, n, n, y, n, y, n, n), generate

    return product


_one_row, _four_rows = _wide_product(1), _wide_product(_ROWS)


@kernel
def dense_narrow(row, params, state, work):
    """:class:`npylstm.ops.dense.Dense` of few units, summed in float64 and rounded once.

    The last layer's rounding dominates the output's error. Weights are (features, columns), with
    zeros after the units, up to a full group.
    """
    features, units, n = row[DENSE.IN], row[DENSE.UNITS], row[DENSE.ROWS]
    w, bias = offset(params, row[DENSE.W]), offset(params, row[DENSE.BIAS])
    columns = (units + GROUP - 1) // GROUP * GROUP
    r = 0
    while r < n:
        x, y = offset(work, row[DENSE.X] + r * features), offset(work, row[DENSE.Y] + r * units)
        together = n - r >= _ROWS
        for begin in range(0, units, _GROUPS * GROUP):
            groups = min(_GROUPS, (columns - begin) // GROUP)
            wj, bj, yj = offset(w, begin), offset(bias, begin), offset(y, begin)
            if together:
                _four_rows(yj, units, x, features, features, wj, columns, bj, groups, units - begin)
            else:
                _one_row(yj, units, x, features, features, wj, columns, bj, groups, units - begin)
        for k in range(_ROWS if together else 1):
            z = offset(y, k * units)
            activate(row[DENSE.CODE], offset(params, row[DENSE.CODE_PARAM]), z, units)
        r += _ROWS if together else 1
