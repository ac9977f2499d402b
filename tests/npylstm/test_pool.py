"""Pools: many streams in one, each with the numbers of a session of its own.

Numba gives the same bits whatever rows stand beside a row. BLAS may sum in another order for
another number of rows: at most TERMS terms below 1 in size, and cells that contract.
"""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from backends import BACKENDS, COMPILED
from builders import make_chain, make_layer
from hypothesis import given, settings
from hypothesis import strategies as st

import npylstm
from npylstm import Model, ModelSpec, NpylstmError, ShapeError, StateError, UnsupportedError
from npylstm.ops.arithmetic import Arithmetic
from npylstm.ops.bidirectional import Bidirectional
from npylstm.ops.cells import GRU, LSTM, SimpleRNN
from npylstm.ops.dense import Dense, Embedding
from npylstm.ops.indexing import Select
from npylstm.ops.normalization import LayerNormalization
from npylstm.ops.shaping import Concatenate, Full, Reshape
from npylstm.spec import Edge, TensorSpec

TERMS = 41  # 20 inputs, 20 recurrent ones, a bias

CHAINS: dict[str, Any] = {
    "lstm": [LSTM(3, 5)],
    "sequences": [LSTM(3, 5, return_sequences=True), Dense(5, 2)],
    "projection": [LSTM(3, 5, projection=2)],
    "gru": [GRU(3, 5)],
    "gru before": [GRU(3, 5, reset_after=False)],
    "rnn": [SimpleRNN(3, 5)],
    "stacked": [
        LSTM(3, 20, return_sequences=True), GRU(20, 9, return_sequences=True), SimpleRNN(9, 4),
        Dense(4, 2),
    ],
    "select": [GRU(3, 5, return_sequences=True), Select(1, -1), Dense(5, 2)],
    "one feature": [GRU(3, 5, return_sequences=True), Select(2, 1)],
    "no memory": [Dense(3, 4)],
    "others": [LayerNormalization((3,), 1e-3), LSTM(3, 5), Arithmetic("multiply", 2.0)],
}  # fmt: skip


def make(kind: str, backend: str, dtype: str = "float32", **others: Any) -> Model:
    return Model(make_chain(*CHAINS[kind], dtype=dtype, **others), backend)


def branches() -> ModelSpec:
    """Two inputs, two outputs; ids are looked up after the recurrent layer has computed."""
    rng = np.random.default_rng(5)
    rnn = make_layer("rnn", LSTM(3, 4), rng)
    table = make_layer("table", Embedding(7, 4), rng)
    out = make_layer("out", GRU(4, 2), rng)
    v = make_layer("v", Dense(2, 2), rng)
    join = make_layer("join", Concatenate(1), rng)
    return ModelSpec(
        layers=(rnn, table, out, v, join),
        edges=(
            Edge.call(rnn, "x"), Edge.call(table, "ids"), Edge.call(out, "table"),
            Edge.call(v, "static"), Edge.call(join, "out", "v"),
        ),
        inputs=(
            TensorSpec("x", ("batch", "steps", 3)), TensorSpec("ids", ("batch", "steps")),
            TensorSpec("static", ("batch", 2)),
        ),
        outputs=("join", "rnn"),
    )  # fmt: skip


def numbers(*shape: int, seed: int = 0, dtype: str = "float32") -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def agree(actual: Any, expected: Any, backend: str) -> None:
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    atol = 0 if backend == COMPILED else TERMS * np.finfo(expected.dtype).eps
    np.testing.assert_allclose(actual, expected, rtol=0, atol=atol)


def same(actual: Any, expected: Any) -> None:
    """The same bits, types and shapes, in arrays or mappings of them."""
    if isinstance(expected, dict):
        assert set(actual) == set(expected)
        for name in expected:
            same(actual[name], expected[name])
    else:
        np.testing.assert_array_equal(actual, expected, strict=True)


def moved(state: Any) -> bool:
    """Whether any number of a key's state is not zero."""
    return any(a.any() for entries in state.values() for a in entries.values())


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


@pytest.mark.parametrize("time_major", [False, True])
def test_an_error_in_a_late_step_moves_nothing(time_major: bool, backend: str) -> None:
    shape = ("steps", "batch") if time_major else ("batch", "steps")
    layers = [Embedding(9, 4), LSTM(4, 5, return_sequences=True, time_major=time_major)]
    spec = make_chain(*layers, shape=shape)
    spec = replace(spec, inputs=(TensorSpec("x", shape, integer=True),))
    pool = Model(spec, backend).pool(70)
    pool.add(range(70))
    ids = np.random.default_rng(0).integers(0, 9, (70, 4))
    ids = ids.T if time_major else ids
    pool.push(range(70), ids)
    before = pool.snapshot()
    wrong = ids.copy()
    wrong[(3, 40) if time_major else (40, 3)] = 9
    with pytest.raises(ShapeError, match="id"):
        pool.push(range(70), wrong)
    same(pool.snapshot(), before)


def test_nan_may_be_refused(backend: str) -> None:
    pool = make("stacked", backend).pool(2, nan="raise")
    pool.add(["a", "b"])
    x = numbers(2, 4, 3)
    pool.push(["a", "b"], x)
    before = pool.snapshot()
    x[1, 2, 0] = np.nan
    with pytest.raises(ShapeError, match=r"^x: expected numbers, got nan at \(1, 2, 0\)"):
        pool.push(["b", "a"], x)
    with pytest.raises(ShapeError, match=r"^x: expected numbers, got nan at \(1, 0\)"):
        pool.step(["b", "a"], x[:, 2])
    same(pool.snapshot(), before)
    with pytest.raises(NpylstmError, match="nan: expected 'pass' or 'raise', got 'stop'"):
        make("lstm", backend).pool(2, nan="stop")


# Files.

KEYS = ["text", "größer", "", 7, -(10**30), 2.5, True, None, b"\x00raw", ("plant", 1, (b"x", None))]


def test_a_pool_goes_on_from_its_file(tmp_path: Path, backend: str) -> None:
    """Bit for bit, with keys of every kind, in the order in which they were added."""
    model = make("stacked", backend)
    pool = model.pool(20)
    pool.add([*KEYS, np.int64(99)])
    pool.remove("text")
    pool.add("text")
    x = numbers(11, 3, 3)
    pool.push(pool.keys, x)
    pool.save(tmp_path / "pool.npz")
    again = model.pool(12)
    again.add(["before", b"\x00raw"])
    again.step(["before"], x[:1, 0])
    kept = again.snapshot(["before"])
    again.restore(tmp_path / "pool.npz")
    same(again.snapshot(), {**kept, **pool.snapshot()})
    assert [key for key in again.keys if key not in ("before", b"\x00raw")] == [
        key for key in pool.keys if key != b"\x00raw"
    ]
    y = again.push(pool.keys[::-1], x)
    same(y, pool.push(pool.keys[::-1], x))
    fresh = model.pool(20)
    fresh.restore(str(tmp_path / "pool.npz"))
    assert list(map(repr, fresh.keys)) == [repr(k) if k != 99 else "99" for k in pool.keys]
    with np.load(tmp_path / "pool.npz", allow_pickle=False) as file:
        assert file["state/layer_1/h"].shape == (11, 9)


def test_an_empty_pool_is_saved_and_restored(tmp_path: Path, backend: str) -> None:
    model = make("lstm", backend)
    model.pool(3).save(tmp_path / "pool.npz")
    pool = model.pool(3)
    pool.add("a")
    pool.restore(tmp_path / "pool.npz")
    assert pool.keys == ["a"]


@pytest.mark.parametrize("key", [frozenset("ab"), float("nan"), ("a", object()), 1j])
def test_keys_that_no_file_can_hold_are_named(key: Any, tmp_path: Path) -> None:
    pool = make("lstm", "numpy").pool(3)
    pool.add([key])
    with pytest.raises(StateError, match=r"key .*: cannot be saved; expected text, a number"):
        pool.save(tmp_path / "pool.npz")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        ("other weights", StateError, "saved with other weights"),
        ("a session", npylstm.FormatError, "no npylstm/pool, so this is not a saved pool"),
        ("no room", StateError, "room for 1 more of 4"),
        ("half", npylstm.FormatError, "not an .npz file"),
        ("keys twice", npylstm.FormatError, "keys: expected a list without repetitions"),
        ("no keys", npylstm.FormatError, "keys: expected a list without repetitions"),
        ("odd keys", npylstm.FormatError, "keys: expected a list without repetitions"),
        (
            "keys missing",
            npylstm.FormatError,
            r"expected 1 rows, one for each key, got shape \(2, ",
        ),
        ("another version", npylstm.FormatError, "expected format_version 1, got 2"),
        ("nothing", FileNotFoundError, "pool.npz"),
    ],
)
def test_what_is_no_pool_of_the_model_is_refused(
    damage: str, error: type[Exception], message: str, tmp_path: Path, backend: str
) -> None:
    model, path = make("stacked", backend), tmp_path / "pool.npz"
    source = (make("stacked", backend, seed=1) if damage == "other weights" else model).pool(4)
    source.add(["d", "e"])
    if damage == "a session":
        model.session().save(path)
    elif damage != "nothing":
        source.save(path)
    edits: dict[str, Any] = {
        "keys twice": {"keys": ["d", "d"]}, "no keys": {"keys": None}, "odd keys": {"keys": [{}]},
        "keys missing": {"keys": ["d"]}, "another version": {"format_version": 2},
    }  # fmt: skip
    if damage in edits:
        with np.load(path) as file:
            arrays = {key: file[key] for key in file.files}
        header = json.loads(arrays["npylstm/pool"].tobytes()) | edits[damage]
        arrays["npylstm/pool"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
        np.savez(path, **arrays)
    if damage == "half":
        path.write_bytes(path.read_bytes()[:500])
    pool = full_pool(backend, model)
    before = pool.snapshot()
    with pytest.raises(error, match=message):
        pool.restore(path)
    same(pool.snapshot(), before)


# Keys.


@pytest.mark.parametrize(
    ("keys", "members"),
    [
        ("sensor", ["sensor"]),
        (7, [7]),
        (2.5, [2.5]),
        (None, [None]),
        (b"raw", [b"raw"]),
        (["a", 1, "1"], ["a", 1, "1"]),
        (("a", "b"), ["a", "b"]),
        ({"a", "b"}, ["a", "b"]),
        (range(3), [0, 1, 2]),
        (np.array([4, 2]), [4, 2]),
        (np.array(["x", "y"]), ["x", "y"]),
        ([("plant", 1), ("plant", 2)], [("plant", 1), ("plant", 2)]),
        ([], []),
    ],
)
def test_keys_of_every_kind(keys: Any, members: list[Any]) -> None:
    pool = make("lstm", "numpy").pool(5)
    pool.add(keys)
    assert len(pool) == len(members)
    assert set(pool.keys) == set(members)
    assert all(member in pool for member in members)
    assert "elsewhere" not in pool
    assert pool.capacity == 5
    if members:
        y = pool.step(members, numbers(len(members), 3))
        assert y.shape == (len(members), 5)
    pool.reset(keys)
    assert not any(map(moved, pool.snapshot().values()))
    pool.remove(keys)
    assert len(pool) == 0
    assert not any(member in pool for member in members)


def test_a_string_is_one_key() -> None:
    pool = make("lstm", "numpy").pool(5)
    pool.add("ab")
    assert list(pool.keys) == ["ab"]
    assert pool.step(["ab"], numbers(1, 3)).shape == (1, 5)


def test_a_number_of_numpy_is_that_number(backend: str) -> None:
    pool = make("lstm", backend).pool(3)
    pool.add(np.int64(2))
    assert 2 in pool
    with pytest.raises(StateError, match="2"):
        pool.add(2)
    pool.step(np.array([2]), numbers(1, 3))
    assert pool.snapshot()[2]["layer_0"]["h"].any()


def test_keys_that_came_back_begin_with_zeros(backend: str) -> None:
    model = make("stacked", backend)
    pool = model.pool(3)
    pool.add(["a", "b", "c"])
    x = numbers(3, 3)
    for _ in range(3):
        pool.step(["a", "b", "c"], x)
    going = pool.snapshot(["a", "c"])
    pool.remove("b")
    pool.add("b")
    same(pool.snapshot(["a", "c"]), going)
    agree(pool.step(["b"], x[1:2]), model.session().step(x[1:2]), backend)
    pool.remove(["a", "b", "c"])
    pool.add(["x", "y", "z"])
    agree(pool.step(["z", "y", "x"], x), model.session(3).step(x), backend)


def test_reset_of_some_keys(backend: str) -> None:
    model = make("stacked", backend)
    pool = model.pool(4)
    pool.add(range(4))
    x = numbers(4, 3)
    pool.step(range(4), x)
    before = pool.snapshot()
    pool.reset([1, 3])
    after = pool.snapshot()
    same({k: after[k] for k in (0, 2)}, {k: before[k] for k in (0, 2)})
    assert not moved(after[1])
    assert not moved(after[3])
    pool.reset(0)
    agree(pool.step([0], x[:1]), model.session().step(x[:1]), backend)


# Snapshots.


def test_a_snapshot_is_a_copy_of_sessions(backend: str) -> None:
    model = make("stacked", backend)
    pool = model.pool(4)
    pool.add(["a", "b", "c"])
    x = numbers(3, 5, 3)
    for t in range(3):
        pool.step(["a", "b", "c"], x[:, t])
    snapshot = pool.snapshot()
    kept = pool.snapshot()
    assert set(snapshot) == {"a", "b", "c"}
    assert snapshot["a"]["layer_0"]["c"].shape == (20,)
    assert snapshot["a"]["layer_0"]["c"].dtype == np.float32
    session = model.session()
    session.state = {c: {n: a[None] for n, a in e.items()} for c, e in snapshot["b"].items()}
    agree(session.step(x[1:2, 3]), pool.step(["b"], x[1:2, 3]), backend)
    same(snapshot, kept)
    for entries in snapshot["a"].values():
        for array in entries.values():
            array[:] = 9
    same(pool.snapshot(["a"])["a"], kept["a"])
    assert set(pool.snapshot(["c", "a"])) == {"a", "c"}


def test_restore_goes_back_and_adds(backend: str) -> None:
    model = make("stacked", backend)
    pool, other = model.pool(3), model.pool(2)
    pool.add(["a", "b", "c"])
    x = numbers(3, 3)
    pool.step(["a", "b", "c"], x)
    snapshot = pool.snapshot(["a", "b"])
    first = pool.step(["a", "b"], x[:2])
    going = pool.snapshot(["c"])
    pool.restore(snapshot)
    same(pool.snapshot(), {**snapshot, **going})
    same(pool.step(["a", "b"], x[:2]), first)
    other.restore(snapshot)
    assert set(other.keys) == {"a", "b"}
    agree(other.step(["b", "a"], x[[1, 0]]), first[::-1], backend)
    for entries in snapshot["a"].values():
        for array in entries.values():
            array[:] = 9
    assert not any((a == 9).any() for c in other.snapshot()["a"].values() for a in c.values())


def test_restored_keys_fit_beside_those_that_are_there(backend: str) -> None:
    model = make("lstm", backend)
    pool = model.pool(3)
    pool.add(["a", "b"])
    pool.step(["a", "b"], numbers(2, 3))
    state = pool.snapshot()["a"]
    pool.restore({"b": state, "c": state})
    same(pool.snapshot(), {"a": state, "b": state, "c": state})


# Errors, after which nothing has moved.


def full_pool(backend: str, model: Model | None = None) -> Any:
    pool = (model or make("stacked", backend)).pool(4)
    pool.add(["a", "b", "c"])
    pool.step(["a", "b", "c"], numbers(3, 3))
    return pool


X2 = np.zeros((2, 3))


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (lambda p: p.add("a"), StateError, "'a'"),
        (lambda p: p.add(["d", "a"]), StateError, "'a'"),
        (lambda p: p.add(["d", "d"]), StateError, "'d'"),
        (lambda p: p.add(["d", "e"]), StateError, "4"),
        (lambda p: p.add([["d"]]), NpylstmError, "key"),
        (lambda p: p.remove("x"), StateError, "'x'"),
        (lambda p: p.remove(["a", "x"]), StateError, "'x'"),
        (lambda p: p.remove(["a", "a"]), StateError, "'a'"),
        (lambda p: p.reset("x"), StateError, "'x'"),
        (lambda p: p.reset(["a", "x"]), StateError, "'x'"),
        (lambda p: p.snapshot(["a", "x"]), StateError, "'x'"),
        (lambda p: p.step(["a", "x"], X2), StateError, "'x'"),
        (lambda p: p.step(["a", "a"], X2), StateError, "'a'"),
        (lambda p: p.step(["a", "b", "a"], np.zeros((3, 3))), StateError, "'a'"),
        (lambda p: p.step(["a"], X2), NpylstmError, r"\(2, 3\)"),
        (lambda p: p.step(["a", "b", "c"], X2), NpylstmError, r"\(2, 3\)"),
        (lambda p: p.step(["a", "b"], np.zeros((2, 4))), ShapeError, r"^x: .*\(2, 4\)"),
        (lambda p: p.step(["a", "b"], np.zeros((2, 1, 3))), ShapeError, r"^x: .*\(2, 1, 3\)"),
        (lambda p: p.step(["a", "b"], np.zeros((2, 3), complex)), ShapeError, "real numbers"),
        (lambda p: p.step(["a", "b"], [[1, 2, 3], [1, 2]]), ShapeError, "ragged"),
        (lambda p: p.step(["a", "b"], {"z": X2}), ShapeError, "inputs: expected"),
        (lambda p: p.step([["a"], ["b"]], X2), NpylstmError, "key"),
    ],
)  # fmt: skip
def test_what_does_not_fit_moves_nothing(
    act: Any, error: type[Exception], message: str, backend: str
) -> None:
    pool = full_pool(backend)
    before = pool.snapshot()
    with pytest.raises(error, match=message):
        act(pool)
    assert set(pool.keys) == {"a", "b", "c"}
    assert len(pool) == 3
    same(pool.snapshot(), before)
    pool.add("d")  # and there is room as before
    assert not moved(pool.snapshot(["d"])["d"])


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s["a"].pop("layer_1"),
        lambda s: s["a"].update(layer_9=s["a"]["layer_0"]),
        lambda s: s["a"]["layer_0"].pop("c"),
        lambda s: s["a"]["layer_1"].update(h=np.zeros(20)),
        lambda s: s["a"]["layer_1"].update(h=np.zeros((1, 9))),
        lambda s: s["a"]["layer_1"].update(h=np.zeros(9, complex)),
        lambda s: s["a"]["layer_1"].update(h="no"),
        lambda s: s["a"]["layer_1"].update(h=[[1.0], [1.0, 2.0]]),
        lambda s: s.update(a=3),
        lambda s: s.update(dict.fromkeys("de", s["a"])),  # five keys, room for four
    ],
)
def test_wrong_snapshots_are_refused_whole(change: Any, backend: str) -> None:
    pool = full_pool(backend)
    before, wrong = pool.snapshot(), pool.snapshot()
    wrong = {"c": wrong["c"], "new": wrong["b"], "a": wrong["a"]}
    wrong["c"]["layer_0"]["h"] += 1  # right, but must not be taken over alone
    change(wrong)
    if "e" in wrong:
        del wrong["new"]
    with pytest.raises(StateError):
        pool.restore(wrong)
    assert set(pool.keys) == {"a", "b", "c"}
    same(pool.snapshot(), before)


def test_an_error_in_the_middle_of_the_model_moves_nothing(backend: str) -> None:
    pool = Model(branches(), backend).pool(3)
    pool.add(["a", "b", "c"])
    pool.step(["a", "b", "c"], [numbers(3, 3), np.array([0, 1, 6]), numbers(3, 2)])
    before = pool.snapshot()
    with pytest.raises(ShapeError, match="table: id 7"):
        pool.step(["c", "a"], [numbers(2, 3), np.array([1, 7]), numbers(2, 2)])
    same(pool.snapshot(), before)


@pytest.mark.parametrize("capacity", [-1, 1.5, "many"])
def test_impossible_capacities_are_refused(capacity: Any, backend: str) -> None:
    with pytest.raises(NpylstmError, match="capacity"):
        make("lstm", backend).pool(capacity)


def test_what_cannot_stream_has_no_pool(backend: str) -> None:
    forward = LSTM(3, 5, return_sequences=True)
    both = Bidirectional(forward, LSTM(3, 5, return_sequences=True, go_backwards=True))
    with pytest.raises(UnsupportedError, match="layer_0"):
        Model(make_chain(both, Reshape(((0, 0), -1))), backend).pool(3)


def test_nan_stays_with_its_key(backend: str) -> None:
    model = make("stacked", backend)
    pool, clean = model.pool(5), model.pool(5)
    for p in (pool, clean):
        p.add(range(5))
    x = numbers(5, 3)
    broken = x.copy()
    broken[2, 1] = np.nan
    others = [0, 1, 3, 4]
    y, expected = pool.step(range(5), broken), clean.step(range(5), x)
    assert np.isnan(y[2]).all()
    same(y[others], expected[others])
    assert np.isnan(pool.step([2], x[2:3])).all()
    same(pool.step(others, x[others]), clean.step(others, x[others]))
    pool.reset(2)
    agree(pool.step([2], x[2:3]), model.session().step(x[2:3]), backend)
