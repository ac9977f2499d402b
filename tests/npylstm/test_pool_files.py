"""Pools in files, in snapshots, and keys of every kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pool_models import agree, full_pool, make, moved, numbers, same

import npylstm
from npylstm import StateError

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
