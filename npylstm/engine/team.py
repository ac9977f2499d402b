"""A program that several threads run together: they share the units of its recurrent layers.

Every member has a table of its own. The first one's has all operations; the others' have those
that are shared, each with other units. They meet at every step (:mod:`npylstm.engine.meeting`).
"""

from __future__ import annotations

import _thread
import ctypes
import functools
import os
from collections.abc import Callable

import numpy as np

from npylstm.engine import table
from npylstm.engine.frame import Frame
from npylstm.engine.kernel_table import execute
from npylstm.engine.lowering import Program
from npylstm.layers.base import Array

__all__ = ["Team", "processors"]

# A counter that is so low stays below zero, whoever counts on.
_ABANDONED = -(1 << 62)


def processors() -> int:
    """How many this process may use: a team of more would wait for itself."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


class Team:
    """A frame with several threads to run it. Belongs to one call at a time.

    Attributes
    ----------
    frame
        What the threads share: fill its inputs and read its outputs.
    """

    def __init__(self, frame: Frame, members: int) -> None:
        self.frame = frame
        self._counter = np.zeros(1, np.int64)
        where = {"MEETING": self._counter.ctypes.data, "GIVE_WAY": _giving_way()}
        self._tables = [
            _table_of(frame.program, member, members, where) for member in range(members)
        ]
        self._runs = [
            execute.bind(len(rows), rows.ctypes.data, *frame.arguments[2:]) for rows in self._tables
        ]

    def run(self) -> None:
        """Compute the frame's outputs, in the caller's thread and as many others as it takes."""
        waits = [_thread.allocate_lock() for _ in self._runs[1:]]
        started = 0
        try:
            for done, run in zip(waits, self._runs[1:], strict=True):
                done.acquire()
                _thread.start_new_thread(_run_and_tell, (run, done))
                started += 1
            self._runs[0]()
        except BaseException:
            self._counter[0] = _ABANDONED
            raise
        finally:
            for done in waits[:started]:
                done.acquire()


def _run_and_tell(run: Callable[[], None], done: _thread.LockType) -> None:
    try:
        run()
    finally:
        done.release()


def _table_of(program: Program, member: int, members: int, where: dict[str, int]) -> Array:
    """A program's table with a member's share of what is shared."""
    rows = program.table.copy()
    for row in rows:
        size = row[table.SHARED_VECTORS]
        if not size:
            continue
        first, end = (k * row[table.VECTORS] // (members * size) for k in (member, member + 1))
        row[table.FIRST_BLOCK] = first * row[table.SHARED_BLOCKS]
        row[table.FIRST_VECTOR] = first * size
        if member < members - 1:
            row[table.END_BLOCK] = end * row[table.SHARED_BLOCKS]
            row[table.END_VECTOR] = end * size
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
