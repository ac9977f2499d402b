"""Where the threads of a group wait for each other.

A step of a recurrent layer takes microseconds, so they spin; one that waits long yields to
other threads of the machine, because there may be fewer processors than threads.
"""

from __future__ import annotations

import platform
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from npylstm.engine.jit import jit
from npylstm.kernels.arguments import RECURRENT as A
from npylstm.kernels.simd import integers

__all__ = ["barrier_wait", "is_leader"]

_INTEGER = ir.IntType(64)
# How often a thread looks at the counter before it yields at every look.
_SPINS = 256
# What tells the processor that a loop waits, and its arguments.
_PAUSES = {"x86_64": ("x86.sse2.pause", []), "aarch64": ("aarch64.hint", [1])}
_NAMES = {"amd64": "x86_64", "arm64": "aarch64"}


@intrinsic
def _arrive(typingctx: Any, counter: Any) -> Any:
    """Count one more; returns how many there were."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", args[0], ir.Constant(_INTEGER, 1), "acq_rel")

    return types.int64(counter), generate


@intrinsic
def _arrived(typingctx: Any, counter: Any) -> Any:
    """How many have been counted."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load_atomic(args[0], "acquire", 8)

    return types.int64(counter), generate


@intrinsic
def _pause(typingctx: Any) -> Any:
    """Wait a moment."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        machine = platform.machine().lower()
        name, values = _PAUSES.get(_NAMES.get(machine, machine), (None, []))
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
    """Call the system's function at an address that lets other threads run."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        function = ir.FunctionType(ir.IntType(32), [])
        builder.call(builder.inttoptr(args[0], function.as_pointer()), [])
        return context.get_dummy_value()

    return types.void(types.int64), generate


@jit
def is_leader(row):
    """Whether this thread does what one does for all."""
    return row[A.THREAD] == 0


@jit
def barrier_wait(row):
    """Wait until all threads of the group are here; a counter below zero ends all waiting."""
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
