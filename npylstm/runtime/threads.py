"""The one way in which threads are started: for a call, and ended with it.

There is no pool to wake: a call may take less than a millisecond, of which a pool would take a good
part, and a process that forks has no threads of ours to lose.
"""

from __future__ import annotations

import _thread
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["run_together"]


def _ignore() -> None:
    pass


def run_together(
    tasks: Sequence[Callable[[], Any]], abandon: Callable[[], None] = _ignore, keep: Any = None
) -> None:
    """Run tasks side by side, the first in the caller's thread, and wait for all of them.

    Parameters
    ----------
    tasks
        One for each thread.
    abandon
        Called if a thread cannot be started or the first task fails: tasks that wait for each
        other must stop waiting then.
    keep
        Kept alive until the last task has ended, also if the caller is interrupted while it waits.

    Raises
    ------
    BaseException
        What the first task to fail raised.
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
