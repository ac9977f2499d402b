"""Pools: many streams in one, each with the numbers of a session of its own."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from backends import BACKENDS
from builders import make_chain, make_layer
from hypothesis import given, settings
from hypothesis import strategies as st
from pool_models import CHAINS, agree, branches, make, moved, numbers, same

from npylstm import Model, ModelSpec, ShapeError, StateError
from npylstm.ops.cells import GRU, LSTM
from npylstm.ops.dense import Embedding
from npylstm.ops.shaping import Full
from npylstm.spec import Edge, TensorSpec


def one_row(state: Any) -> Any:
    """A session's state of one row, as a pool keeps it."""
    return {call: {n: a[0] for n, a in entries.items()} for call, entries in state.items()}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", CHAINS)
def test_every_key_is_a_session(kind: str, dtype: str, backend: str) -> None:
    model = make(kind, backend, dtype)
    rng = np.random.default_rng(1)
    pool = model.pool(11)
    pool.add(range(11))
    sessions = [model.session() for _ in range(11)]
    for _ in range(25):
        keys = rng.permutation(11)[: rng.integers(1, 12)].tolist()
        x = rng.normal(size=(len(keys), 3)).astype(dtype)
        y = pool.step(keys, x)
        expected = [sessions[k].step(x[i : i + 1]) for i, k in enumerate(keys)]
        agree(y, np.concatenate(expected), backend)
    snapshot = pool.snapshot()
    for k, session in enumerate(sessions):
        for call, entries in one_row(session.state).items():
            assert set(snapshot[k][call]) == set(entries)
            for name, array in entries.items():
                agree(snapshot[k][call][name], array, backend)


class Reference:
    """A session per key."""

    def __init__(self, model: Model, capacity: int) -> None:
        self.model, self.capacity = model, capacity
        self.sessions: dict[Any, Any] = {}

    def add(self, keys: list[Any]) -> None:
        if len({*keys, *self.sessions}) != len(keys) + len(self.sessions):
            raise StateError("twice")
        if len(keys) + len(self.sessions) > self.capacity:
            raise StateError("full")
        self.sessions |= {key: self.model.session() for key in keys}

    def known(self, keys: list[Any]) -> None:
        if len(set(keys)) != len(keys) or not set(keys) <= set(self.sessions):
            raise StateError("unknown or twice")

    def remove(self, keys: list[Any]) -> None:
        self.known(keys)
        for key in keys:
            del self.sessions[key]

    def reset(self, keys: list[Any]) -> None:
        self.known(keys)
        for key in keys:
            self.sessions[key].reset()

    def step(self, keys: list[Any], x: Any) -> Any:
        self.known(keys)
        return np.concatenate([self.sessions[k].step(x[i : i + 1]) for i, k in enumerate(keys)])


@settings(max_examples=80)
@given(
    kind=st.sampled_from(["stacked", "projection", "gru", "select"]),
    backend=st.sampled_from(BACKENDS),
    capacity=st.integers(1, 7),
    actions=st.lists(
        st.tuples(
            st.sampled_from(["add", "add", "remove", "reset", "step", "step", "step"]),
            st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=8),
            st.booleans(),
        ),
        min_size=5, max_size=40,
    ),
    seed=st.integers(0, 2**20),
)  # fmt: skip
def test_any_history_gives_the_numbers_of_sessions(
    kind: str, backend: str, capacity: int, actions: Any, seed: int
) -> None:
    """Also after errors: what was refused, and only that, has left no trace."""
    model = make(kind, backend)
    pool, reference = model.pool(capacity), Reference(model, capacity)
    rng = np.random.default_rng(seed)
    for action, keys, among_known in actions:
        if among_known and action != "add":  # or most would be refused
            keys = [k for k in dict.fromkeys(keys) if k in reference.sessions]
        if action in ("remove", "reset"):
            keys = list(dict.fromkeys(keys))
        if not keys:
            continue
        arguments = [keys]
        if action == "step":
            arguments.append(rng.normal(size=(len(keys), 3)).astype("float32"))
        try:
            expected = getattr(reference, action)(*arguments)
        except StateError:
            with pytest.raises(StateError):
                getattr(pool, action)(*arguments)
            continue
        y = getattr(pool, action)(*arguments)
        if action == "step":
            agree(y, expected, backend)
        assert set(pool.keys) == set(reference.sessions)
        assert len(pool) == len(reference.sessions)
    for key, session in reference.sessions.items():
        for call, entries in one_row(session.state).items():
            for name, array in entries.items():
                agree(pool.snapshot()[key][call][name], array, backend)


@pytest.mark.parametrize("count", [1, 3, 63, 64, 65, 200])
@pytest.mark.parametrize("kind", ["stacked", "gru before"])
def test_any_number_of_keys_in_one_call(kind: str, count: int, backend: str) -> None:
    model = make(kind, backend)
    pool = model.pool(200)
    pool.add([f"sensor {k}" for k in range(200)])
    rows = np.random.default_rng(count).permutation(200)[:count]
    x = numbers(count, 4, 3)
    keys = [f"sensor {k}" for k in rows]
    for t in range(4):
        y = pool.step(keys, x[:, t])
    alone = [model.predict(x[r : r + 1]) for r in range(count)]
    agree(y, np.concatenate(alone), backend)
    others = [k for k in pool.keys if k not in keys]
    assert len(others) == 200 - count
    assert not any(map(moved, pool.snapshot(others).values()))


def test_thousands_of_keys(backend: str) -> None:
    model = make("lstm", backend)
    pool = model.pool(5000)
    pool.add(np.arange(5000))
    rng = np.random.default_rng(0)
    x = numbers(5000, 6, 3)
    for t in range(6):
        order = rng.permutation(5000)
        for keys in np.split(order, [1, 2500]):
            y = pool.step(keys, x[keys, t])
    agree(y, model.predict(x)[keys], backend)
    pool.remove(range(0, 5000, 2))
    assert len(pool) == 2500
    pool.add(range(5000, 7500))
    last = numbers(5000, 3, seed=1)
    kept, new = np.arange(1, 5000, 2), np.arange(5000, 7500)
    y = pool.step(np.concatenate([new, kept]), last)
    agree(y[:2500], model.predict(last[:2500, None]), backend)
    agree(y[2500:], model.predict(np.concatenate([x[kept], last[2500:, None]], 1)), backend)


def test_several_inputs_and_outputs(backend: str) -> None:
    model = Model(branches(), backend)
    pool, sessions = model.pool(5), {k: model.session() for k in "abc"}
    pool.add(["a", "b", "c"])
    for t, keys in enumerate(("ab", "cba", "c", "ac")):
        n = len(keys)
        x, ids, v = numbers(n, 3, seed=t), np.arange(n) + t, numbers(n, 2, seed=t + 9)
        y = pool.step(list(keys), [x, ids, v] if t % 2 else {"static": v, "x": x, "ids": ids})
        assert list(y) == ["join", "rnn"]
        for r, key in enumerate(keys):
            part = [x[r : r + 1], ids[r : r + 1], v[r : r + 1]]
            for name, row in sessions[key].step(part).items():
                agree(y[name][r : r + 1], row, backend)


def test_pinned_steps_do_not_matter(backend: str) -> None:
    x = numbers(2, 30, 3)
    pinned = make("stacked", backend, shape=("batch", 24, 3))
    pool = pinned.pool(2)
    pool.add(["a", "b"])
    for t in range(30):
        y = pool.step(["a", "b"], x[:, t])
    agree(y, make("stacked", backend).predict(x), backend)


@pytest.mark.parametrize("count", [1, 5, 70])
def test_time_may_come_first(count: int, backend: str) -> None:
    layers = [
        LSTM(3, 5, return_sequences=True, time_major=True),
        GRU(5, 4, return_sequences=True, time_major=True),
    ]
    model = Model(make_chain(*layers, shape=("steps", "batch", 3)), backend)
    pool, x = model.pool(70), numbers(4, count, 3)
    pool.add(range(count))
    for t in range(4):
        y = pool.step(range(count), x[t])
    agree(y, model.predict(x)[-1], backend)


def test_ids_have_no_features(backend: str) -> None:
    model = Model(make_chain(Embedding(9, 4), LSTM(4, 5), shape=("batch", "steps")), backend)
    ids = np.random.default_rng(0).integers(0, 9, (70, 4))
    pool = model.pool(70)
    pool.add(range(70))
    for t in range(4):
        y = pool.step(range(70), ids[:, t])
    agree(y, model.predict(ids), backend)
    before = pool.snapshot()
    with pytest.raises(ShapeError, match="id 9"):
        pool.step(range(70), np.arange(70) % 10)
    same(pool.snapshot(), before)


def test_no_keys_are_no_rows(backend: str) -> None:
    pool = make("stacked", backend).pool(2)
    pool.add("a")
    before = pool.snapshot()
    assert pool.step([], np.zeros((0, 3))).shape == (0, 2)
    same(pool.snapshot(), before)


def test_streams_begin_where_the_model_does(backend: str) -> None:
    """A state that is part of the model: new keys, and those that are reset, begin with it."""
    rng = np.random.default_rng(5)
    h, rnn = make_layer("h", Full(((0, 0), 4), 0.5), rng), make_layer("rnn", GRU(3, 4), rng)
    edges = (Edge.call(h, "x"), Edge.call(rnn, "x", "h"))
    inputs = (TensorSpec("x", ("batch", "steps", 3)),)
    model = Model(ModelSpec((h, rnn), edges, inputs, ("rnn",)), backend)
    x = numbers(3, 3)
    first = model.predict(x[:, None])
    pool = model.pool(3)
    pool.add(range(3))
    agree(pool.step(range(3), x), first, backend)
    pool.reset([0, 2])
    pool.remove(1)
    pool.add(1)
    agree(pool.step([2, 1, 0], x[::-1]), first[::-1], backend)


def test_what_a_step_returns_is_the_callers(backend: str) -> None:
    model = make("lstm", backend)
    pool, session = model.pool(3), model.session(2)
    pool.add(["a", "b"])
    x = numbers(2, 3, 3)
    first = pool.step(["a", "b"], x[:, 0])
    kept = first.copy()
    second = pool.step(["a", "b"], x[:, 1])
    same(first, kept)
    assert not np.shares_memory(first, second)
    first[:] = second[:] = 9
    session.push(x[:, :2])
    agree(pool.step(["a", "b"], x[:, 2]), session.step(x[:, 2]), backend)


def test_inputs_of_other_kinds_will_do(backend: str) -> None:
    model = make("stacked", backend)
    x = numbers(2, 3)
    expected = model.session(2).step(x)
    for given_x in (x.tolist(), x.astype("float64"), np.asfortranarray(x), {"x": x}):
        pool = model.pool(2)
        pool.add(["a", "b"])
        agree(pool.step(("a", "b"), given_x), expected, backend)


def test_threads_step_their_own_keys_of_one_pool(backend: str) -> None:
    model, rows, wrong = make("stacked", backend), range(10), []
    pool = model.pool(50)
    x = numbers(40, 60, 3)
    expected = model.predict(x)

    def work(k: int) -> None:
        keys = [(k, row) for row in rows]
        try:
            pool.add(keys)
            pool.add(f"visitor {k}")
            for t in range(60):
                y = pool.step(keys, x[10 * k : 10 * k + 10, t])
            pool.remove(f"visitor {k}")
            agree(y, expected[10 * k : 10 * k + 10], backend)
        except BaseException as error:
            wrong.append((k, error))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(pool) == 40


# Several steps at a time.


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", CHAINS)
def test_pushes_are_steps(kind: str, dtype: str, backend: str) -> None:
    """In pieces of any length, and as predict answers: every step or the last."""
    model = make(kind, backend, dtype)
    count, x = 70, numbers(70, 9, 3, dtype=dtype)
    pushed, stepped = model.pool(count), model.pool(count)
    keys = np.random.default_rng(1).permutation(count)
    for pool in (pushed, stepped):
        pool.add(range(count))
    pieces = [pushed.push(keys, x[:, a:b]) for a, b in ((0, 1), (1, 8), (8, 9))]
    steps = [stepped.step(keys, x[:, t]) for t in range(9)]
    whole = model.predict(x)
    if whole.shape[1] == 9:
        agree(np.concatenate(pieces, 1), whole, backend)
        agree(np.concatenate(pieces, 1), np.stack(steps, 1), backend)
    else:
        agree(pieces[-1], whole, backend)
        agree(pieces[1], steps[7], backend)
    for key, state in pushed.snapshot().items():
        for call, entries in stepped.snapshot(key)[key].items():
            for name, array in entries.items():
                agree(state[call][name], array, backend)


@pytest.mark.parametrize("sequences", [True, False])
@pytest.mark.parametrize("count", [1, 4, 5, 70])
def test_pushes_with_time_first(count: int, sequences: bool, backend: str) -> None:
    layers = [
        LSTM(3, 5, return_sequences=True, time_major=True),
        GRU(5, 4, return_sequences=sequences, time_major=True),
    ]
    model = Model(make_chain(*layers, shape=("steps", "batch", 3)), backend)
    pool, x = model.pool(70), numbers(5, count, 3)
    pool.add(range(count))
    y = [pool.push(range(count), part) for part in (x[:1], x[1:])]
    whole = model.predict(x)
    agree(np.concatenate(y) if sequences else y[-1], whole, backend)


def test_pushes_with_several_inputs_and_outputs(backend: str) -> None:
    model = Model(branches(), backend)
    pool, session = model.pool(5), model.session(3)
    pool.add(["a", "b", "c"])
    x, ids, v = numbers(3, 4, 3), np.arange(12).reshape(3, 4) % 7, numbers(3, 2)
    y, expected = pool.push(["c", "a", "b"], [x, ids, v]), session.push([x, ids, v])
    assert list(y) == ["join", "rnn"]
    for name in y:
        agree(y[name], expected[name], backend)


def test_no_keys_give_no_rows_of_every_step(backend: str) -> None:
    pool = make("sequences", backend).pool(2)
    assert pool.push([], np.zeros((0, 4, 3))).shape == (0, 4, 2)
    assert make("lstm", backend).pool(2).push([], np.zeros((0, 4, 3))).shape == (0, 5)
