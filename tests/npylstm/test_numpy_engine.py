"""The NumPy engine: products, blocks of steps, and arrays that nobody else may change."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from builders import agree, make_chain

from npylstm import Model
from npylstm.activations import Activation
from npylstm.blas import product
from npylstm.ops.cells import GRU, LSTM, SimpleRNN
from npylstm.ops.recurrent import Recurrent

Array = np.ndarray[Any, Any]
CELLS = [
    LSTM(3, 5),
    LSTM(3, 5, projection=2),
    LSTM(3, 5, recurrent_activation=Activation("softmax")),
    GRU(3, 5, reset_after=True),
    GRU(3, 5, reset_after=False),
    SimpleRNN(3, 5),
    SimpleRNN(3, 5, activation=Activation("linear")),
]


def draw(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype("float32")


def model_of(*layers: Recurrent, **options: Any) -> Model:
    return Model(make_chain(*layers, **options), backend="numpy")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("rows", "size", "columns"),
    [(1, 3, 4), (1, 600, 2400), (2, 5, 8), (32, 64, 256), (32, 64, 255), (9, 128, 512), (33, 256, 1024), (0, 3, 4)],
)  # fmt: skip
def test_products_in_pieces(rows: int, size: int, columns: int, dtype: str) -> None:
    x, W = draw(rows, size).astype(dtype), draw(size, columns, seed=1).astype(dtype)
    y = product(x, W)
    exact = x.astype(np.float64) @ W.astype(np.float64)
    assert y.dtype == dtype
    assert y.flags.c_contiguous
    np.testing.assert_allclose(y, exact, rtol=0, atol=size * np.finfo(dtype).eps)


def test_products_in_pieces_hand_on_nan_and_inf() -> None:
    x, W = draw(32, 64), draw(64, 256, seed=1)
    x[3, 5], x[4, 6] = np.nan, np.inf
    y = product(x, W)
    assert np.isnan(y[3]).all()
    assert (y[4] == np.copysign(np.inf, W[6])).all()
    assert np.isfinite(y[5:]).all()


@pytest.mark.parametrize("time_major", [False, True])
@pytest.mark.parametrize("go_backwards", [False, True])
@pytest.mark.parametrize("kind", [LSTM, GRU, SimpleRNN])
def test_blocks_of_steps(kind: Any, go_backwards: bool, time_major: bool) -> None:
    """A batch is computed in blocks of other sizes than its samples, and masks in none."""
    options: dict[str, Any] = {"go_backwards": go_backwards, "time_major": time_major}
    layer = kind(300, 64, return_sequences=True, **options)
    shape = ("steps", "batch", 300) if time_major else ("batch", "steps", 300)
    axis = 1 if time_major else 0
    model = model_of(layer, shape=shape)
    x = draw(9, 20, 300).swapaxes(0, axis)
    y = model.predict(x)
    alone = [model.predict(np.take(x, [k], axis)) for k in range(9)]
    agree(y, np.concatenate(alone, axis), 400)
    lengths = np.arange(12, 21)
    short = model.predict(x, lengths=lengths)
    for k, n in enumerate(lengths):
        cut = np.take(np.take(x, [k], axis), range(n), 1 - axis)
        first = 20 - n if go_backwards else 0  # masked steps come first then
        own = np.take(np.take(short, [k], axis), range(first, first + n), 1 - axis)
        agree(own, model.predict(cut), 400)
    gates = model.trace(x)["layer_0"]
    h = np.flip(gates.h, 1) if go_backwards else gates.h
    agree(h.swapaxes(0, axis), y, 400)


def test_no_rows_and_no_warnings() -> None:
    model = model_of(LSTM(3, 5, return_sequences=True))
    assert model.predict(np.zeros((0, 4, 3), "float32")).shape == (0, 4, 5)
    session = model.session()
    with np.errstate(over="raise", invalid="raise", divide="raise"):  # exp overflows in gates
        assert np.isfinite(session.step(np.full((1, 3), 1e30, "float32"))).all()
        assert np.isfinite(model.predict(np.full((2, 70, 3), -1e30, "float32"))).all()
        with pytest.raises(FloatingPointError):
            np.float32(1) / np.zeros(1, "float32")  # as before the calls
    assert np.isnan(session.step(np.full((1, 3), np.nan, "float32"))).all()


@pytest.mark.parametrize("layer", CELLS, ids=str)
def test_steps_are_the_sequence(layer: Recurrent) -> None:
    model, x = model_of(layer), draw(2, 6, 3)
    session, other = model.session(2), model.session(2)
    for t in range(6):
        y = session.step(x[:, t])
        np.testing.assert_array_equal(other.step(x[:, t].astype("float64").tolist()), y)
    agree(y, model.predict(x), 60)


@pytest.mark.parametrize("layer", CELLS, ids=str)
def test_later_steps_change_nothing_that_was_returned(layer: Recurrent) -> None:
    model, x = model_of(layer), draw(8, 1, 3)
    session = model.session()
    kept: list[tuple[Array, Array]] = []
    for t in range(8):
        x_t = x[t].copy()
        y, state = session.step(x_t), session.state
        kept += [(a, a.copy()) for a in (x_t, y, *state["layer_0"].values())]
        pushed = session.push(x[t][None])
        kept.append((pushed, pushed.copy()))
        out = np.empty_like(y)
        assert session.step(x_t, out=out) is out
    for array, copy in kept:
        np.testing.assert_array_equal(array, copy)
    state, before = session.state, session.step(x[0])
    session.state = state
    for array in state["layer_0"].values():
        array[:] = 7  # the session has its own
    np.testing.assert_array_equal(session.step(x[0]), before)


def test_sessions_and_predictions_in_many_threads() -> None:
    model = model_of(LSTM(3, 20, return_sequences=True), GRU(20, 9))
    x, inputs = draw(50, 1, 3), [draw(k + 1, 30, 3, seed=k) for k in range(4)]

    def steps(_: int) -> Array:
        session = model.session()
        return np.stack([session.step(x_t) for x_t in x])

    expected, predictions = steps(0), [model.predict(x) for x in inputs]
    with ThreadPoolExecutor(4) as threads:
        made = [threads.submit(steps, k) for k in range(8)]
        answers = [threads.submit(model.predict, inputs[k % 4]) for k in range(40)]
        for one in made:
            np.testing.assert_array_equal(one.result(), expected)
        for k, answer in enumerate(answers):
            np.testing.assert_array_equal(answer.result(), predictions[k % 4])
