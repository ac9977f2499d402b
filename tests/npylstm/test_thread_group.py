"""Threads that share the units of one sequence: the same bits as one thread, and no wait for ever."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from backends import COMPILED
from builders import make_chain

from npylstm import Model, ShapeError
from npylstm.activations import Activation
from npylstm.ops.bidirectional import Bidirectional
from npylstm.ops.cells import GRU, LSTM, SimpleRNN
from npylstm.ops.dense import Dense, Embedding
from npylstm.runtime import backoff, sharing, threads
from npylstm.runtime.thread_group import ThreadGroup

RNG = np.random.default_rng(5)


@pytest.fixture
def threads_seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let any work and time be worth a group, and see how many threads each call has."""
    seen: list[int] = []
    run = ThreadGroup.run

    def count(self: ThreadGroup, frame: object) -> None:
        seen.append(self.threads)
        run(self, frame)

    any_work = dict.fromkeys(sharing.LEAST_WORK, sharing.Work(1, 1))
    monkeypatch.setattr(sharing, "LEAST_WORK", any_work)
    monkeypatch.setattr(sharing, "most_threads", lambda: 8)
    monkeypatch.setattr(backoff, "_MULTIPLICATIONS_PER_SECOND", 1)  # no call takes so long
    monkeypatch.setattr(ThreadGroup, "run", count)
    return seen


RELU, HARD = Activation("relu"), Activation("hard_sigmoid_fifth")
SHARED: dict[str, tuple[Any, ...]] = {
    "whole vectors": (LSTM(3, 128, return_sequences=True),),
    "units left over": (LSTM(3, 75, return_sequences=True),),
    "last step": (LSTM(3, 100),),
    "backwards": (LSTM(3, 64, return_sequences=True, go_backwards=True),),
    "long products": (LSTM(70, 260, return_sequences=True),),
    "gru": (GRU(3, 128, return_sequences=True),),
    "gru, units left over": (GRU(3, 130, return_sequences=True),),
    "gru, other activations": (
        GRU(3, 130, activation=RELU, recurrent_activation=HARD, return_sequences=True),
    ),
    "layers between": (
        LSTM(3, 80, return_sequences=True), Dense(80, 100), SimpleRNN(100, 70, return_sequences=True),
        GRU(70, 140, return_sequences=True), LSTM(140, 66), Dense(66, 2),
    ),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", SHARED)
def test_same_bits(name: str, dtype: str, threads_seen: list[int]) -> None:
    layers = SHARED[name]
    model = Model(
        make_chain(*layers, shape=("batch", "steps", layers[0].features), dtype=dtype), COMPILED
    )
    for steps in (1, 2, 70):
        x = RNG.normal(size=(1, steps, layers[0].features)).astype(dtype)
        alone = model.predict(x)
        for count in (2, 3, 8):
            for _ in range(2):
                np.testing.assert_array_equal(model.predict(x, threads=count), alone)
    assert 2 in threads_seen
    assert max(threads_seen) <= 8


def test_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """After slow calls by several threads, one thread has 1, 2, 4, ... calls, until they are fast."""
    now, together = [0.0], [0.0]
    monkeypatch.setattr(backoff.time, "perf_counter", lambda: now[0])
    chooser, seen = backoff.Backoff(int(15e9)), []  # a second with one thread

    def run_with(count: int) -> None:
        seen.append(count)
        now[0] += 2.0 if count == 1 else together[0]

    for together[0], calls, expected in (
        (0.5, 3, [4, 4, 4]),
        (1.5, 2, [4, 1]),  # more than the estimate
        (1.5, 2, [4, 4]),  # less than the measured time
        (2.5, 9, [4, 1, 4, 1, 1, 4, 1, 1, 1]),
        (0.5, 3, [1, 4, 4]),
        (2.5, 3, [4, 1, 4]),
    ):
        seen.clear()
        for _ in range(calls):
            chooser.run(run_with, 4)
        assert seen == expected


def test_both_directions(threads_seen: list[int]) -> None:
    half = {"return_sequences": True}
    both = Bidirectional(LSTM(3, 70, **half), LSTM(3, 70, go_backwards=True, **half))
    model = Model(make_chain(both, shape=("batch", "steps", 3)), COMPILED)
    x = RNG.normal(size=(1, 40, 3))
    np.testing.assert_array_equal(model.predict(x, threads=2), model.predict(x))
    assert threads_seen == [2]


def test_rows_come_first(threads_seen: list[int]) -> None:
    """Threads that are left over when each row has one share the rows' units."""
    model = Model(
        make_chain(LSTM(3, 128, return_sequences=True), shape=("batch", "steps", 3)), COMPILED
    )
    x = RNG.normal(size=(2, 30, 3))
    alone = model.predict(x)
    np.testing.assert_array_equal(model.predict(x, threads=2), alone)
    assert threads_seen == []
    np.testing.assert_array_equal(model.predict(x, threads=5), alone)
    assert threads_seen == [2, 2]


@pytest.mark.parametrize(
    "layer",
    [
        LSTM(3, 63), LSTM(3, 80, activation=RELU), LSTM(3, 80, projection=20), SimpleRNN(3, 80),
        GRU(3, 80, reset_after=False),
    ],
)  # fmt: skip
def test_not_shared(layer: Any, threads_seen: list[int]) -> None:
    model = Model(make_chain(layer, shape=("batch", "steps", 3)), COMPILED)
    x = RNG.normal(size=(1, 30, 3))
    np.testing.assert_array_equal(model.predict(x, threads=2), model.predict(x))
    assert threads_seen == []


def test_small_work_small_steps_and_one_processor_are_not_shared(
    threads_seen: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Model(make_chain(LSTM(3, 128), shape=("batch", "steps", 3)), COMPILED)
    step = 4 * 128 * (3 + 128)
    for steps, least in ((5, sharing.Work(6 * step, 1)), (6, sharing.Work(1, step + 1))):
        monkeypatch.setitem(sharing.LEAST_WORK, "units", least)
        model.predict(np.zeros((1, steps, 3)), threads=2)
    monkeypatch.setitem(sharing.LEAST_WORK, "units", sharing.Work(1, step))
    monkeypatch.setattr(sharing, "most_threads", lambda: 1)
    model.predict(np.zeros((1, 7, 3)), threads=2)
    assert not threads_seen
    monkeypatch.setattr(sharing, "most_threads", lambda: 8)
    model.predict(np.zeros((1, 8, 3)), threads=2)
    assert threads_seen == [2]


def test_many_callers(threads_seen: list[int]) -> None:
    model = Model(
        make_chain(LSTM(3, 128, return_sequences=True), shape=("batch", "steps", 3)), COMPILED
    )
    data = RNG.normal(size=(4, 1, 50, 3))
    expected = [model.predict(x) for x in data]
    wrong: list[int] = []

    def work(k: int) -> None:
        for _ in range(10):
            if not np.array_equal(model.predict(data[k], threads=2), expected[k]):
                wrong.append(k)

    callers = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join()
    assert not wrong
    assert threads_seen == [2] * 40


def test_a_thread_that_cannot_start(
    threads_seen: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Members that have started must not wait for it."""
    model = Model(
        make_chain(LSTM(3, 128, return_sequences=True), shape=("batch", "steps", 3)), COMPILED
    )
    x = RNG.normal(size=(1, 50, 3))
    expected = model.predict(x)
    start, calls = threads.start_new_thread, []

    def start_two(*arguments: Any) -> int:
        calls.append(arguments)
        if len(calls) == 3:
            raise RuntimeError("can't start new thread")
        return start(*arguments)

    monkeypatch.setattr(threads, "_sleeping", [])
    monkeypatch.setattr(threads, "start_new_thread", start_two)
    with pytest.raises(RuntimeError, match="can't start"):
        model.predict(x, threads=4)
    np.testing.assert_array_equal(model.predict(x, threads=4), expected)
    assert threads_seen == [4, 4]


def test_wrong_ids_are_refused(threads_seen: list[int]) -> None:
    model = Model(make_chain(Embedding(10, 8), LSTM(8, 64), shape=("batch", "steps")), COMPILED)
    model.predict(np.zeros((1, 9)), threads=2)
    with pytest.raises(ShapeError, match="layer_0"):
        model.predict(np.full((1, 9), 10.0), threads=2)
    assert threads_seen == [2, 2]


def test_no_group_of_threads_that_run_by_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where gevent has put its own in their place: they would wait for ever."""
    assert threads.most_threads() >= 1
    monkeypatch.setattr(threads, "start_new_thread", lambda *arguments: None)
    assert threads.most_threads() == 1


def test_no_more_members_than_parts(threads_seen: list[int]) -> None:
    model = Model(
        make_chain(LSTM(3, 64, return_sequences=True), GRU(64, 64), shape=("batch", "steps", 3)),
        COMPILED,
    )
    x = RNG.normal(size=(1, 30, 3))
    np.testing.assert_array_equal(model.predict(x, threads=8), model.predict(x))
    (program,) = model._engine._runs[0]._programs.values()  # type: ignore[attr-defined]
    assert threads_seen == [min(8, program.shares)] * (program.shares > 1)
