"""A program that several threads run together: they share the units of its recurrent layers.

Every member has a table of its own. The first one's has all operations; the others' have those
that are shared, each with other units. They meet at every step (:mod:`npylstm.engine.meeting`).
"""

from __future__ import annotations

import _thread
import ctypes
import functools
import os
import types
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from npylstm.arrays import Array
from npylstm.engine import table
from npylstm.engine.kernel_table import execute

__all__ = ["Team", "most_members"]

# A counter that is so low stays below zero, whoever counts on.
_ABANDONED = -(1 << 62)


def most_members() -> int:
    """How many threads may wait for one another awake: no more than there are processors."""
    if not isinstance(_thread.start_new_thread, types.BuiltinFunctionType):
        return 1  # gevent's and the like run by turns
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


class Team:
    """Threads that run a program together. Belongs to one call at a time.

    Parameters
    ----------
    rows
        The program's table.
    buffers
        Addresses of the parameters, the state and the work buffer.
    members
        How many threads, the caller's among them.

    Attributes
    ----------
    members
        As given.
    """

    def __init__(self, rows: Array, buffers: Sequence[int], members: int) -> None:
        self.members = members
        self._counter = np.zeros(1, np.int64)
        where = {"MEETING": self._counter.ctypes.data, "GIVE_WAY": _giving_way()}
        self._tables = [_table_of(rows, member, members, where) for member in range(members)]
        self._runs = [execute.bind(len(t), t.ctypes.data, *buffers) for t in self._tables]

    def run(self, *needed: Any) -> None:
        """Run the program once; what is needed is kept alive until all threads have ended."""
        others = [(run, _thread.allocate_lock()) for run in self._runs[1:]]
        started = []
        try:
            for run, done in others:
                done.acquire()
                _thread.start_new_thread(_run_and_tell, (run, done, self, needed))
                started.append(done)
            self._runs[0]()
        except BaseException:
            self._counter[0] = _ABANDONED
            raise
        finally:
            for done in started:
                done.acquire()


def _run_and_tell(run: Callable[[], None], done: _thread.LockType, *needed: Any) -> None:
    try:
        run()
    finally:
        done.release()


def _table_of(rows: Array, member: int, members: int, where: dict[str, int]) -> Array:
    """A program's table with a member's share of what is shared."""
    rows = rows.copy()
    for row in rows:
        if not row[table.SHARED_VECTORS]:
            continue
        parts = row[table.VECTORS] // row[table.SHARED_VECTORS]
        first, end = (k * parts // members for k in (member, member + 1))
        row[table.FIRST_BLOCK] = first * row[table.SHARED_BLOCKS]
        row[table.FIRST_VECTOR] = first * row[table.SHARED_VECTORS]
        if member < members - 1:  # the last one's go on to the end
            row[table.END_BLOCK] = end * row[table.SHARED_BLOCKS]
            row[table.END_VECTOR] = end * row[table.SHARED_VECTORS]
        row[table.MEMBER], row[table.MEMBERS] = member, members
        for column, value in where.items():
            row[getattr(table, column)] = value
    mine: Array = rows if member == 0 else rows[rows[:, table.SHARED_VECTORS] > 0]
    return mine


@functools.cache
def _giving_way() -> int:
    """The address of what lets other threads run first; 0 where there is nothing like it."""
    try:
        if os.name == "nt":
            function = ctypes.WinDLL("kernel32").SwitchToThread  # type: ignore[attr-defined]
        else:
            function = ctypes.CDLL(None).sched_yield
    except (OSError, AttributeError):
        return 0
    return ctypes.cast(function, ctypes.c_void_p).value or 0
