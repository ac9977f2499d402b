"""What the machine can do, measured in the same run: multiply-adds, and reading from each cache.

One core, plain vector loops: no system can be faster than the larger of a case's two floors, its
operations at the first rate, and at batch 1 its recurrent kernel read once per step at the second.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np
from cases import Case
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from npylstm.kernels.simd import Lanes, broadcast, lane_count

_CHAINS = 12  # more sums than an addition takes cycles
_LINES = 8  # vectors that are read in a turn


class Floors(NamedTuple):
    """GFLOP/s of fused multiply-adds, and GB/s of reading as much as so many bytes."""

    flops: float
    bandwidths: dict[int, float]

    def seconds(self, case: Case) -> float:
        """The larger floor of a case."""
        operations = case.operations / (self.flops * 1e9)
        if case.batch > 1:
            return operations
        size = case.recurrent_bytes * case.layers
        at = min((n for n in self.bandwidths if n >= size), default=max(self.bandwidths))
        read = case.recurrent_bytes * case.layers * case.steps
        return max(operations, read / (self.bandwidths[at] * 1e9))


@intrinsic
def _spin(typingctx: Any, factor: Any, turns: Any) -> Any:
    """Multiply and add in registers; returns a number that keeps the compiler from leaving it."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.VectorType(ir.FloatType(), lane_count(ir.FloatType()))
        factor = broadcast(builder, args[0], kind.count)
        places = [cgutils.alloca_once_value(builder, ir.Constant(kind, [1.0 + k] * kind.count))
                  for k in range(_CHAINS)]  # fmt: skip
        with cgutils.for_range(builder, args[1]):
            for place in places:
                value = Lanes(builder, builder.load(place))
                builder.store(value.fma(factor, factor).value, place)
        total = Lanes(builder, builder.load(places[0]))
        for place in places[1:]:
            total = total + Lanes(builder, builder.load(place))
        return builder.extract_element(total.value, ir.Constant(ir.IntType(32), 0))

    return types.float32(types.float32, types.int64), generate


@intrinsic
def _read(typingctx: Any, address: Any, turns: Any) -> Any:
    """Add up what stands from an address on, so many turns of eight vectors."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        number = ir.FloatType()
        lanes = lane_count(number)
        kind = ir.VectorType(number, lanes)
        start = builder.inttoptr(args[0], number.as_pointer())
        places = [cgutils.alloca_once_value(builder, ir.Constant(kind, [0.0] * lanes))
                  for _ in range(_LINES)]  # fmt: skip
        with cgutils.for_range(builder, args[1]) as loop:
            base = builder.mul(loop.index, ir.Constant(loop.index.type, _LINES * lanes))
            for k, place in enumerate(places):
                at = builder.gep(start, [builder.add(base, ir.Constant(base.type, k * lanes))])
                value = Lanes(builder, builder.load(place)) + Lanes.load(builder, at, lanes)
                builder.store(value.value, place)
        total = Lanes(builder, builder.load(places[0]))
        for place in places[1:]:
            total = total + Lanes(builder, builder.load(place))
        return builder.extract_element(total.value, ir.Constant(ir.IntType(32), 0))

    return types.float32(types.int64, types.int64), generate


@njit(nogil=True)
def _many_reads(address: int, turns: int, times: int) -> float:
    total = 0.0
    for _ in range(times):
        total += _read(address, turns)
    return total


@njit(nogil=True)
def _many_spins(factor: np.float32, turns: int) -> float:
    return _spin(factor, turns)


def measure() -> Floors:
    """Measure both, the best of several rounds."""
    lanes = lane_count(types.float32)
    turns = 2_000_000
    factor = np.float32(0.5)
    _many_spins(factor, 1)
    seconds = min(_timed(_many_spins, factor, turns) for _ in range(7))
    flops = 2 * _CHAINS * lanes * turns / seconds / 1e9
    bandwidths = {}
    for size in (1 << 14, 1 << 18, 1 << 19, 1 << 20, 1 << 22, 1 << 23, 1 << 28):
        buffer = np.ones(size // 4 + 16, np.float32)
        start = buffer.ctypes.data + -buffer.ctypes.data % 64
        rounds = max(1, (1 << 28) // size)
        _many_reads(start, 1, 1)
        seconds = min(
            _timed(_many_reads, start, size // (_LINES * lanes * 4), rounds) for _ in range(5)
        )
        bandwidths[size] = size * rounds / seconds / 1e9
    return Floors(flops, bandwidths)


def _timed(function: Any, *arguments: Any) -> float:
    begin = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - begin


if __name__ == "__main__":
    print(measure())
