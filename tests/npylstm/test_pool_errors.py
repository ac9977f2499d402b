"""What a pool refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from builders import make_chain
from pool_models import agree, branches, full_pool, make, moved, numbers, same

from npylstm import Model, NpylstmError, ShapeError, StateError, UnsupportedError
from npylstm.ops.bidirectional import Bidirectional
from npylstm.ops.cells import LSTM
from npylstm.ops.dense import Embedding
from npylstm.ops.shaping import Reshape
from npylstm.spec import TensorSpec


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


# Errors, after which nothing has moved.

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
