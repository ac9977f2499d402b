"""Kernel of the normalizations over the last axes."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from npylstm.kernels.arguments import NORMALIZE as N
from npylstm.kernels.codes import NORMALIZATIONS
from npylstm.kernels.folds import RowEntries
from npylstm.kernels.jit import kernel
from npylstm.kernels.simd import Lanes, broadcast, each_vector, lane_count, number, offset

__all__ = ["normalize"]


def _square(x: Lanes) -> Lanes:
    wide = x.wide()
    return wide * wide


def _parts(name: str, entries: RowEntries, epsilon: Lanes) -> tuple[Lanes | float, Lanes]:
    """Return what is subtracted from the entries, and what they are divided by then."""
    if name == "rms":
        return 0.0, (entries.sum(_square) / entries.count + epsilon).sqrt()
    mean = entries.sum() / entries.count if name == "layer" else 0.0
    return mean, (entries.spread() / entries.count + epsilon).sqrt()


@intrinsic
def _normalize(
    typingctx: Any, code: Any, y: Any, x: Any, n: Any, epsilon: Any, gamma: Any, beta: Any
) -> Any:
    """Normalize one row."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        code, y, x, n, epsilon, gamma, beta = args
        kind = x.type.pointee
        lanes = lane_count(kind)
        end = builder.append_basic_block("normalized")
        switch = builder.switch(code, end)
        for name, value in NORMALIZATIONS.items():
            case = builder.append_basic_block(name)
            switch.add_case(ir.Constant(code.type, value), case)
            builder.position_at_end(case)
            entries = RowEntries(builder, x, n)
            away, divisor = _parts(name, entries, broadcast(builder, epsilon, lanes))
            factor = 1.0 / divisor

            def apply(k: Any, mask: Any) -> None:
                value, scale, shift = (
                    Lanes.load(builder, builder.gep(at, [k]), lanes, mask).wide()
                    for at in (x, gamma, beta)
                )
                made = (value - away) * factor * scale + shift  # noqa: B023
                made.narrow(kind).store(builder.gep(y, [k]), mask)

            each_vector(builder, lanes, n, apply)
            builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    n = types.int64
    return types.void(n, y, y, n, types.float64, y, y), generate


@kernel
def normalize(row, params, state, work):
    """The normalizations of :mod:`npylstm.ops.normalization` that take means of each sample."""
    n, epsilon = row[N.SIZE], number(row[N.EPSILON])
    gamma, beta = offset(params, row[N.GAMMA]), offset(params, row[N.BETA])
    for r in range(row[N.ROWS]):
        x, y = offset(work, row[N.X] + r * n), offset(work, row[N.Y] + r * n)
        _normalize(row[N.CODE], y, x, n, epsilon, gamma, beta)
