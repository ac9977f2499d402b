"""Backoff: one thread for some calls after several threads have taken longer than one.

Threads that share units wait busily for each other at every step. Where other programs use the
processors, they take many times as long as one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Backoff"]

# A lower limit of what one thread computes, until a call has measured it.
_MULTIPLICATIONS_PER_SECOND = 15e9
_MOST_CALLS = 256


class Backoff:
    """Chooses the number of threads for calls of one program. Any thread may use it.

    After a call by several threads that took longer than one thread, the next call has one thread;
    after another such call the next 2, 4, ... calls have.

    Parameters
    ----------
    work
        Multiplications of a call.
    """

    def __init__(self, work: int) -> None:
        self._alone = work / _MULTIPLICATIONS_PER_SECOND  # seconds
        self._calls, self._next = 0, 1

    def run(self, run_with: Callable[[int], None], threads: int) -> None:
        """Call ``run_with`` with this number of threads or with one, and measure the time."""
        begin = time.perf_counter()
        if self._calls > 0:
            run_with(1)
            self._calls -= 1
            self._alone = time.perf_counter() - begin
            return
        run_with(threads)
        if time.perf_counter() - begin <= self._alone:
            self._next = 1
        else:
            self._calls, self._next = self._next, min(2 * self._next, _MOST_CALLS)
