"""Streams in real time: prepared calls allocate nothing, and small states cost no time."""

from __future__ import annotations

import dataclasses
import gc
import threading
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from backends import BACKENDS, COMPILED
from builders import make_chain

import npylstm
from npylstm import Model, ShapeError
from npylstm.ops.cells import LSTM
from npylstm.ops.dense import Dense, Embedding

# What a call may hold meanwhile: shapes, a view, numbers.
_FEW_BYTES = 1024
_LARGE = 4096  # elements of an output


def stream(units: int = 24) -> npylstm.Session:
    spec = make_chain(LSTM(1, units, return_sequences=True), Dense(units, _LARGE),
                      shape=("batch", "steps", 1))  # fmt: skip
    return Model(spec, COMPILED).session()


def held(call: Callable[[], Any]) -> tuple[int, int]:
    """Return the bytes that 200 calls leave, and the most that they hold meanwhile."""
    for _ in range(20):
        call()
    gc.collect()
    tracemalloc.start()
    try:
        call()
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(200):
            call()
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return after - before, peak - before


def test_steps_and_pushes_into_an_array_allocate_nothing() -> None:
    """NumPy reports its memory to tracemalloc: one output would be 16 kB."""
    session = stream()
    x, xs = np.ones((1, 1), np.float32), np.ones((1, 5, 1), np.float32)
    out, outs = session.step(x), session.push(xs)
    for call in (lambda: session.step(x, out), lambda: session.push(xs, outs)):
        left, peak = held(call)
        assert left < _FEW_BYTES
        assert peak < _FEW_BYTES
    _, peak = held(lambda: session.step(x))
    assert peak >= 4 * _LARGE  # the measure sees a new output


def test_no_lock_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    session = stream()
    x, xs = np.ones((1, 1), np.float32), np.ones((1, 5, 1), np.float32)
    out, outs = session.step(x), session.push(xs)
    taken = []

    class Lock:
        def __enter__(self) -> None:
            taken.append(self)

        def __exit__(self, *error: object) -> None:
            pass

        acquire = release = __enter__

    from npylstm import loading

    monkeypatch.setattr(loading, "LOADING", Lock())
    monkeypatch.setattr(threading, "Lock", Lock)
    session.step(x, out)
    session.push(xs, outs)
    assert not taken


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("sequences", [True, False])
def test_pushes_of_changing_sizes_are_one_sequence(backend: str, sequences: bool) -> None:
    spec = make_chain(LSTM(3, 8, return_sequences=sequences), shape=("batch", "steps", 3))
    model = Model(spec, backend)
    x = np.random.default_rng(0).normal(size=(2, 60, 3)).astype("float32")
    session, made, at = model.session(2), [], 0
    for size in (1, 2, 2, 3, 1, 4, 5, 6, 7, 2, 2, 3, 7, 15):
        y = session.push(x[:, at : at + size])
        made.append(y if sequences else y[:, None])
        at += size
    assert at == 60
    if sequences:
        whole = model.predict(x)
        atol = 0 if backend != "numpy" else 1e-6  # BLAS orders sums by their number
        np.testing.assert_allclose(np.concatenate(made, axis=1), whole, rtol=0, atol=atol)
    else:
        np.testing.assert_allclose(made[-1][:, 0], model.predict(x), rtol=0, atol=1e-6)


def test_returned_outputs_are_the_callers() -> None:
    session = stream()
    x = np.ones((1, 3, 1), np.float32)
    first = session.push(x)
    kept = first.copy()
    second = session.push(x)
    np.testing.assert_array_equal(first, kept)
    assert not np.array_equal(first, second)
    second[...] = 7
    assert not (session.push(x) == 7).any()


def test_a_wrong_out_or_id_changes_no_state() -> None:
    session = stream()
    x = np.ones((1, 3, 1), np.float32)
    session.push(x)
    before = session.state
    with pytest.raises(ShapeError, match="out: expected a contiguous array"):
        session.push(x, out=np.empty((1, 3, 5), np.float32))
    for call, entries in before.items():
        for name, array in entries.items():
            np.testing.assert_array_equal(session.state[call][name], array)
    spec = make_chain(Embedding(9, 3), LSTM(3, 4), shape=("batch", "steps"))
    spec = dataclasses.replace(spec, inputs=(dataclasses.replace(spec.inputs[0], integer=True),))
    ids = Model(spec, COMPILED).session()
    ids.push(np.array([[1, 2]]))
    before = ids.state
    with pytest.raises(ShapeError, match="id 9 at"):
        ids.push(np.array([[1, 9]]))
    np.testing.assert_array_equal(ids.state["layer_1"]["h"], before["layer_1"]["h"])
    ids.push(np.array([[1, 2]]))


def test_pushes_of_many_sizes_keep_the_buffers_of_two() -> None:
    """A sequence of 4,000 steps has 6 tensors of so many rows, at most; and the output is another."""
    spec = make_chain(LSTM(64, 64, return_sequences=True), shape=("batch", "steps", 64))
    session = Model(spec, COMPILED).session()
    one = 4 * 64 * 4000
    tracemalloc.start()
    try:
        for steps in range(4000, 4012):
            session.push(np.zeros((1, steps, 64), np.float32))
        held_now, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 2 * one < held_now < 2 * 3 * one


def test_states_below_normal_numbers_are_zero() -> None:
    """Processors compute with such numbers slowly; in silence they would last for thousands of steps."""
    for units in (1, 16, 20):  # whole and narrow blocks
        (layer,) = make_chain(LSTM(1, units), shape=("batch", "steps", 1)).layers
        weights = {k: np.zeros_like(w) for k, w in layer.weights.items()}
        weights["b_f"] += np.float32(5)
        layer = dataclasses.replace(layer, weights=weights)
        spec = make_chain(LSTM(1, units), shape=("batch", "steps", 1))
        model = Model(dataclasses.replace(spec, layers=(layer,)), COMPILED)
        for batch in (1, 3):
            session = model.session(batch)
            for value, kept in ((1e-37, True), (1e-39, False), (-1e-40, False)):
                state = session.state
                for array in state["layer_0"].values():
                    array[...] = value
                session.state = state
                session.step(np.zeros((batch, 1), np.float32))
                assert (session.state["layer_0"]["c"] != 0).all() == kept


def test_the_command_times_single_steps(
    root: Any, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    import json

    from npylstm.cli import main

    model = str(root / "models/sine_keras/sine.npz")
    arguments = ["bench", model, "--stream", "--calls", "300", "--batch", "1", "2"]
    assert main([*arguments, "--json"]) == 0
    one, two = json.loads(capsys.readouterr().out)
    assert (one["batch"], two["batch"], one["calls"]) == (1, 2, 300)
    for row in (one, two):
        quantiles = [row[k] for k in ("median_us", "p99_us", "p99_9_us", "worst_us")]
        assert 0 < quantiles[0] <= quantiles[1] <= quantiles[2] <= quantiles[3]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    for text in ("median us", "99.9 %", "worst"):
        assert text in printed
