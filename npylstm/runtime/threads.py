"""Threads that run parts of a call. They are kept, and sleep between calls.

A sleeping thread waits for a lock, which takes no processor time, and keeps no process alive. A
forked process has none of its parent's threads, and starts its own.
"""

from __future__ import annotations

import os
import types
from _thread import LockType, allocate_lock, start_new_thread
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["available_processors", "most_threads", "run_together"]

Job = tuple[Callable[[], Any], list[BaseException], LockType, Any]

_MOST_KEPT = 32  # threads that sleep; more than these end after their job
# Of each sleeping thread, the lock that wakes it and the list that it takes its job from. pop() and
# append() are atomic, so that no lock is needed, which a forked process could find locked.
_sleeping: list[tuple[LockType, list[Job]]] = []

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _sleeping.clear())


def available_processors() -> int:
    """Return the number of processors that this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def most_threads() -> int:
    """Return the maximum number of threads that share a call: one for each processor."""
    if not isinstance(start_new_thread, types.BuiltinFunctionType):
        return 1  # threads of gevent and the like run in turns
    return available_processors()


def _ignore() -> None:
    pass


def run_together(
    tasks: Sequence[Callable[[], Any]], abandon: Callable[[], None] = _ignore, keep: Any = None
) -> None:
    """Run tasks at the same time, the first in the caller's thread, and wait for all of them.

    Every task has a thread of its own: one that sleeps, or a new one.

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
    started: list[LockType] = []
    try:
        for task in tasks[1:]:
            done = allocate_lock()
            done.acquire()
            _start((task, failures, done, keep))
            started.append(done)
        tasks[0]()
    except BaseException:
        abandon()
        raise
    finally:
        for done in started:
            done.acquire()
    if failures:
        failure = failures[0]
        failures.clear()
        try:
            raise failure
        finally:
            del failure  # else a cycle of references would keep the call's arrays


def _start(job: Job) -> None:
    """Give a job to a thread. If a signal interrupts this, a thread may sleep on, unused."""
    try:  # no check before pop(): another thread may take the last one in between
        wake, jobs = _sleeping.pop()
    except IndexError:
        start_new_thread(_work, (allocate_lock(), [job]))
        return
    jobs.append(job)
    wake.release()


def _work(wake: LockType, jobs: list[Job]) -> None:
    """Do jobs, one after another, and sleep in between."""
    wake.acquire()
    while jobs:
        done = _do(*jobs.pop())
        is_kept = len(_sleeping) < _MOST_KEPT
        if is_kept:  # before the caller goes on: its next call shall find this thread
            _sleeping.append((wake, jobs))
        done.release()
        if is_kept:
            wake.acquire()


def _do(task: Callable[[], Any], failures: list[BaseException], done: LockType, _: Any) -> LockType:
    """Do a job. All that belongs to it is released before the thread sleeps."""
    try:
        task()
    except BaseException as failure:
        failures.append(failure)
    return done
