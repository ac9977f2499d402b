"""Kept threads: used again, asleep in between, and never waited for in vain."""

from __future__ import annotations

import _thread
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from npylstm.runtime import threads
from npylstm.runtime.threads import run_together

fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


@pytest.fixture(autouse=True)
def sleeping(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Begin without threads."""
    kept: list[object] = []
    monkeypatch.setattr(threads, "_sleeping", kept)
    return kept


def idents(count: int) -> list[int]:
    """Return the threads that run tasks which all wait for each other."""
    seen: list[int] = []
    barrier = threading.Barrier(count)

    def task() -> None:
        barrier.wait(30)
        seen.append(threading.get_ident())

    run_together([task] * count)
    return seen


def test_threads_are_used_again(sleeping: list[object]) -> None:
    first = idents(3)
    assert len({*first}) == 3
    assert threading.get_ident() in first
    assert len(sleeping) == 2
    for _ in range(5):
        assert {*idents(3)} == {*first}
    assert len({*idents(5)} - {*first}) == 2


def test_a_sleeping_thread_takes_no_processor_time() -> None:
    idents(8)
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.05


def test_no_more_than_some_threads_are_kept(sleeping: list[object]) -> None:
    before = _thread._count()
    assert len({*idents(40)}) == 40
    assert len(sleeping) == threads._MOST_KEPT
    deadline = time.monotonic() + 10
    while _thread._count() - before > threads._MOST_KEPT:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_errors_reach_the_caller() -> None:
    ended: list[int] = []

    def fail() -> None:
        raise KeyError("second")

    def work() -> None:
        ended.append(threading.get_ident())

    used = {*idents(3)}
    for tasks in ([work, fail, work], [work, fail, fail]):
        ended.clear()
        with pytest.raises(KeyError, match="second"):
            run_together(tasks)
        assert len(ended) == tasks.count(work)
    with pytest.raises(KeyError, match="second"):
        run_together([fail, work, work])
    assert {*idents(3)} == used


def test_nothing_of_a_call_is_kept() -> None:
    class Data:
        def task(self) -> None:
            pass

        def fail(self) -> None:
            raise ValueError

    one, two = Data(), Data()
    run_together([one.task, one.task], keep=one)
    with pytest.raises(ValueError, match=r"^$"):
        run_together([two.task, two.fail], keep=two)
    gone = [weakref.ref(data) for data in (one, two)]
    del one, two
    assert [ref() for ref in gone] == [None, None]


def test_many_callers_wait_for_their_own_tasks() -> None:
    wrong: list[int] = []

    def call() -> None:
        for _ in range(30):
            if len({*idents(4)}) != 4:
                wrong.append(1)

    callers = [threading.Thread(target=call) for _ in range(12)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
        assert not caller.is_alive()
    assert not wrong


def test_a_task_may_call_again() -> None:
    def outer() -> None:
        run_together([list, list])

    run_together([outer, outer, outer])


FORKS = """
import os, threading, time, numpy
from npylstm.runtime.threads import run_together
barrier = threading.Barrier
def call():
    for _ in range(200):
        meeting = barrier(3)
        run_together([lambda: meeting.wait(20)] * 3)
call()
callers = [threading.Thread(target=call) for _ in range(3)]
for caller in callers: caller.start()
children = []
for _ in range(20):
    child = os.fork()
    if not child:
        call()
        os._exit(0)
    children.append(child)
for caller in callers: caller.join()
print({os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children})
"""


@fork
def test_forked_processes_start_their_own_threads() -> None:
    assert run(FORKS) == "{0}"


# What tasks wait for is a list: a signal may leave an Event locked.
SIGNALS = """
import signal, threading, time
from npylstm.runtime import threads
class Interrupted(BaseException): pass
def interrupt(*_): raise Interrupted
signal.signal(signal.SIGALRM, interrupt)
interrupted = 0
for k in range(400):
    stop = []
    def work():
        while not stop: time.sleep(0)
    def first():
        time.sleep(k % 7 * 1e-5)
        stop.append(1)
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, 1e-6 + k % 97 * 5e-6)
            threads.run_together([first, work, work], lambda: stop.append(1))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except Interrupted:
        interrupted += 1
    stop.append(1)
seen, barrier = set(), threading.Barrier(4)
def meet():
    barrier.wait(20)
    seen.add(threading.get_ident())
threads.run_together([meet] * 4)
print(interrupted > 20, len(seen))
"""


@fork
def test_signals_at_any_moment() -> None:
    """A handler that raises: no thread is waited for for ever, and the next call computes."""
    assert run(SIGNALS) == "True 4"


EXITS: dict[str, Callable[[], str]] = {
    "asleep": lambda: "run_together([list, list])",
    "at work": lambda: (
        "import _thread, time; _thread.start_new_thread("
        "run_together, ([lambda: time.sleep(60)] * 2,)); time.sleep(0.1)"
    ),
}


@pytest.mark.parametrize("moment", EXITS)
def test_threads_do_not_keep_a_process_alive(moment: str) -> None:
    begin = time.monotonic()
    run(f"from npylstm.runtime.threads import run_together; {EXITS[moment]()}")
    assert time.monotonic() - begin < 30


def run(code: str) -> str:
    """Run a program in a process of its own; return what it prints."""
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=100,
        cwd=Path(__file__).parent,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()
