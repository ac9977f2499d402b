"""A barrier for the threads of a group.

A step of a recurrent layer takes microseconds, so waiting threads spin. After a while they yield to
other threads, because there may be fewer processors than threads.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from npylstm.kernels.arguments import RECURRENT as A
from npylstm.kernels.jit import jit
from npylstm.kernels.simd import integers
from npylstm.kernels.target import TARGET

__all__ = ["barrier_wait", "is_leader"]

_INTEGER = ir.IntType(64)
# Number of reads of the counter before a thread yields after each read.
_SPINS = 256
# The processor's instruction for spin loops, with its arguments.
_PAUSES = {"x86_64": ("x86.sse2.pause", []), "aarch64": ("aarch64.hint", [1])}


@intrinsic
def _arrive(typingctx: Any, counter: Any) -> Any:
    """Add one to the counter; return its value before."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", args[0], ir.Constant(_INTEGER, 1), "acq_rel")

    return types.int64(counter), generate


@intrinsic
def _arrived(typingctx: Any, counter: Any) -> Any:
    """Return the counter."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load_atomic(args[0], "acquire", 8)

    return types.int64(counter), generate


@intrinsic
def _pause(typingctx: Any) -> Any:
    """Pause the processor briefly in a spin loop."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        name, values = _PAUSES.get(TARGET.machine, (None, []))
        if name is not None:
            number = ir.IntType(32)
            function = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(ir.VoidType(), [number] * len(values)),
                f"llvm.{name}",
            )  # fmt: skip
            builder.call(function, [ir.Constant(number, value) for value in values])
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def _yield_thread(typingctx: Any, address: Any) -> Any:
    """Call the system's yield function at this address."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        function = ir.FunctionType(ir.IntType(32), [])
        builder.call(builder.inttoptr(args[0], function.as_pointer()), [])
        return context.get_dummy_value()

    return types.void(types.int64), generate


@jit
def is_leader(row):
    """Whether this thread does the work that only one thread does."""
    return row[A.THREAD] == 0


@jit
def barrier_wait(row):
    """Wait until all threads of the group arrive; a counter below zero ends the wait."""
    threads = row[A.THREADS]
    if threads <= 1:
        return
    counter = integers(row[A.BARRIER])
    all_here = (_arrive(counter) // threads + 1) * threads
    looks = 0
    while 0 <= _arrived(counter) < all_here:
        looks += 1
        if row[A.YIELD_THREAD] and looks > _SPINS:
            _yield_thread(row[A.YIELD_THREAD])
        else:
            _pause()
