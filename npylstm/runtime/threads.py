"""Start threads: they run for one call and end with it.

There is no thread pool, because waking it would take a good part of a call's time (often less than
a millisecond), and because a forked process would lose its threads.
"""

from __future__ import annotations

import _thread
import os
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["available_processors", "run_together"]


def available_processors() -> int:
    """Return the number of processors that this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def _ignore() -> None:
    pass


def run_together(
    tasks: Sequence[Callable[[], Any]], abandon: Callable[[], None] = _ignore, keep: Any = None
) -> None:
    """Run tasks in threads, the first in the caller's, and wait for all of them.

    Parameters
    ----------
    tasks
        One for each thread.
    abandon
        Called if a thread cannot be started or the first task fails: tasks that wait for each
        other must then stop waiting.
    keep
        Kept alive until the last task has ended, even if the caller is interrupted.

    Raises
    ------
    BaseException
        The exception of the first task that failed.
    """
    failures: list[BaseException] = []

    def work(task: Callable[[], Any], done: _thread.LockType, _: Any) -> None:
        try:
            task()
        except BaseException as failure:
            failures.append(failure)
        finally:
            done.release()

    started: list[_thread.LockType] = []
    try:
        for task in tasks[1:]:
            done = _thread.allocate_lock()
            done.acquire()
            _thread.start_new_thread(work, (task, done, keep))
            started.append(done)
        tasks[0]()
    except BaseException:
        abandon()
        raise
    finally:
        for done in started:
            done.acquire()
    if failures:
        raise failures[0]
