"""Several threads run one program: they share the units of its recurrent layers.

Every thread has its own table. The first thread's table has all rows. The others' have the shared
rows, each with other units. The threads wait for each other at every step
(:mod:`npylstm.kernels.barrier`).
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Sequence

import numpy as np

from npylstm.arrays import Array
from npylstm.kernels.arguments import RECURRENT
from npylstm.kernels.library import EXECUTE
from npylstm.runtime.program import Program
from npylstm.runtime.threads import run_together

__all__ = ["ThreadGroup"]

# The counter stays below zero, even if other threads add to it.
_ABANDONED = -(1 << 62)


class ThreadGroup:
    """Threads that run a program together. Used by one call at a time.

    Parameters
    ----------
    program
        The program.
    addresses
        Of the parameters, the state and the work buffer.
    threads
        Number of threads, the caller's included.

    Attributes
    ----------
    threads
        Number of threads.
    """

    def __init__(self, program: Program, addresses: Sequence[int], threads: int) -> None:
        self.threads = threads
        self._counter = np.zeros(1, np.int64)
        barrier = self._counter.ctypes.data
        self._tables = [_table_of(program, k, threads, barrier) for k in range(threads)]
        bind = program.parameters.library.bind
        self._runs = [bind(EXECUTE, len(t), t.ctypes.data, *addresses) for t in self._tables]

    def run(self, buffers: object) -> None:
        """Run the program once, in these buffers."""
        run_together(self._runs, self._abandon, keep=(self, buffers))

    def _abandon(self) -> None:
        self._counter[0] = _ABANDONED


def _table_of(program: Program, thread: int, threads: int, barrier: int) -> Array:
    """Return a program's table with one thread's part of the shared rows."""
    rows: Array = program.table.copy()
    shared: Array = rows[program.shared_rows]
    for row in shared:
        parts = row[RECURRENT.VECTORS] // row[RECURRENT.SHARED_VECTORS]
        first, end = (k * parts // threads for k in (thread, thread + 1))
        row[RECURRENT.FIRST_BLOCK] = first * row[RECURRENT.SHARED_BLOCKS]
        row[RECURRENT.FIRST_VECTOR] = first * row[RECURRENT.SHARED_VECTORS]
        if thread < threads - 1:  # the last thread computes all remaining units
            row[RECURRENT.END_BLOCK] = end * row[RECURRENT.SHARED_BLOCKS]
            row[RECURRENT.END_VECTOR] = end * row[RECURRENT.SHARED_VECTORS]
        row[RECURRENT.THREAD], row[RECURRENT.THREADS] = thread, threads
        row[RECURRENT.BARRIER], row[RECURRENT.YIELD_THREAD] = barrier, _yield_address()
    if thread:
        return shared
    rows[program.shared_rows] = shared
    return rows


@functools.cache
def _yield_address() -> int:
    """Return the address of the function that yields to other threads; 0 if there is none."""
    try:
        if os.name == "nt":
            function = ctypes.WinDLL("kernel32").SwitchToThread  # type: ignore[attr-defined]
        else:
            function = ctypes.CDLL(None).sched_yield
    except (OSError, AttributeError):
        return 0
    return ctypes.cast(function, ctypes.c_void_p).value or 0
