"""Forecasts: the same numbers as a loop over a session or over windows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from backends import BACKENDS
from builders import make_chain, make_layer
from forecast_models import SOFTMAX, agree, last, numbers
from hypothesis import given, settings
from hypothesis import strategies as st

from npylstm import Model, ModelSpec, NpylstmError, ShapeError, StateError, UnsupportedError
from npylstm.ops.arithmetic import Arithmetic
from npylstm.ops.bidirectional import Bidirectional
from npylstm.ops.cells import GRU, LSTM, SimpleRNN
from npylstm.ops.dense import Dense, Embedding
from npylstm.ops.indexing import Select
from npylstm.ops.shaping import Concatenate, Reshape
from npylstm.spec import Edge, TensorSpec

CHAINS: dict[str, Any] = {
    "lstm": [LSTM(2, 20), Dense(20, 2)],
    "sequences": [LSTM(2, 9, return_sequences=True), Dense(9, 2)],
    "projection": [LSTM(2, 9, projection=2)],
    "gru": [GRU(2, 9), Dense(9, 2)],
    "gru before": [GRU(2, 9, reset_after=False), Dense(9, 2)],
    "rnn": [SimpleRNN(2, 2)],
    "stacked": [LSTM(2, 20, return_sequences=True), GRU(20, 9), Dense(9, 2)],
    "select": [GRU(2, 9, return_sequences=True), Select(1, -1), Dense(9, 2)],
    "others": [LSTM(2, 9), Dense(9, 2), Arithmetic("multiply", 0.5)],
}  # fmt: skip


def make(kind: str, backend: str, steps: Any = "steps", dtype: str = "float32") -> Model:
    return Model(make_chain(*CHAINS[kind], shape=("batch", steps, 2), dtype=dtype), backend)


def carried(model: Model, x: Any, steps: int, feed: Any = None, state: Any = None) -> Any:
    """Push the beginning, then step by step each output."""
    session = model.session(len(x))
    if state is not None:
        session.state = state
    y = [last(session.push(x))]
    while len(y) < steps:
        y.append(session.step(y[-1] if feed is None else feed(y[-1])))
    return np.stack(y, 1)


def sliding(model: Model, x: Any, steps: int, window: int, feed: Any = None) -> Any:
    """Predict, window by window; state goes on in stateful layers."""
    y: list[Any] = []
    keeps = [n.name for n in model.spec.layers if getattr(n.layer, "stateful", False)]
    window_x, state = x[:, -window:], None
    for _ in range(steps):
        out, after = model.predict(window_x, state=state, return_state=True)
        if keeps:
            state = {
                layer: {n: a if layer in keeps else 0 * a for n, a in entries.items()}
                for layer, entries in after.items()
            }
        y.append(last(out))
        value = y[-1] if feed is None else feed(y[-1])
        window_x = np.concatenate([window_x[:, 1:], value[:, None]], 1)
    return np.stack(y, 1)


# Forecasts.


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", CHAINS)
def test_a_forecast_is_the_loop_over_a_session(kind: str, dtype: str, backend: str) -> None:
    model = make(kind, backend, dtype=dtype)
    x = numbers(3, 11, 2, dtype=dtype)
    expected = carried(model, x, 20)
    agree(model.forecast(x, 20), expected, backend)
    agree(model.forecast(x, 20, window=None), expected, backend)
    agree(model.forecast(x[:, :1], 1), last(model.predict(x[:, :1]))[:, None], backend)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", CHAINS)
def test_a_window_slides_over_what_was_made(kind: str, dtype: str, backend: str) -> None:
    x = numbers(3, 7, 2, dtype=dtype)
    pinned, free = make(kind, backend, 7, dtype), make(kind, backend, dtype=dtype)
    expected = sliding(free, x, 20, 7)
    agree(pinned.forecast(x, 20), expected, backend)
    agree(pinned.forecast(x, 20, window=7), expected, backend)
    agree(free.forecast(x, 20, window=7), expected, backend)
    assert not np.allclose(expected, carried(free, x, 20))
    agree(free.forecast(x, 20, window=3), sliding(free, x, 20, 3), backend)
    agree(free.forecast(x, 5, window=1), sliding(free, x, 5, 1), backend)
    agree(pinned.forecast(x, 20, window=None), carried(free, x, 20), backend)


@settings(max_examples=40)
@given(
    kind=st.sampled_from(sorted(CHAINS)),
    backend=st.sampled_from(BACKENDS),
    batch=st.integers(1, 6),
    length=st.integers(1, 30),
    steps=st.integers(1, 30),
    seed=st.integers(0, 2**20),
    data=st.data(),
)
def test_any_beginning_and_window(
    kind: str, backend: str, batch: int, length: int, steps: int, seed: int, data: Any
) -> None:
    model = make(kind, backend)
    x = numbers(batch, length, 2, seed=seed)
    window = data.draw(st.none() | st.integers(1, length))
    expected = carried(model, x, steps) if window is None else sliding(model, x, steps, window)
    agree(model.forecast(x, steps, window=window), expected, backend)


@pytest.mark.parametrize("stateful", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("window", ["auto", 5])
def test_stateful_layers_carry_from_window_to_window(
    stateful: tuple[bool, bool], window: Any, backend: str
) -> None:
    first, second = stateful
    layers = [
        LSTM(2, 9, return_sequences=True, stateful=first), GRU(9, 5, stateful=second), Dense(5, 2),
    ]  # fmt: skip
    model = Model(make_chain(*layers, shape=("batch", 5, 2)), backend)
    x = numbers(3, 5, 2)
    expected = sliding(model, x, 9, 5)
    forgetful = [replace(v, stateful=False) for v in layers[:2]]
    fresh = Model(make_chain(*forgetful, layers[2], shape=("batch", 5, 2)), backend)
    assert not np.allclose(expected, sliding(fresh, x, 9, 5), atol=1e-3)
    agree(model.forecast(x, 9, window=window), expected, backend)
    agree(fresh.forecast(x, 9, window=window), sliding(fresh, x, 9, 5), backend)
    agree(model.forecast(x, 9), expected, backend)  # nothing stays from call to call


def test_a_stateful_model_goes_on_from_where_its_window_ended(backend: str) -> None:
    layers = [LSTM(2, 9, stateful=True), Dense(9, 2)]
    model = Model(make_chain(*layers, shape=("batch", 5, 2)), backend)
    x = numbers(2, 5, 2)
    whole = model.forecast(x, 7)
    first, state = model.forecast(x, 4, return_state=True)
    agree(first, whole[:, :4], backend)
    window = np.concatenate([x, first], 1)[:, -5:]
    agree(model.forecast(window, 3, state=state), whole[:, 4:], backend)


def affine(y: Any) -> Any:
    return 0.5 * y - 0.25


def wider(y: Any) -> Any:
    """Three features out of two."""
    return np.concatenate([y, y[:, :1] * y[:, 1:]], 1)


@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("kind", ["stacked", "sequences"])
def test_a_function_may_stand_between(kind: str, window: Any, backend: str) -> None:
    model = make(kind, backend)
    x = numbers(3, 6, 2)
    if window is None:
        expected = carried(model, x, 9, affine)
    else:
        expected = sliding(model, x, 9, window, affine)
    agree(model.forecast(x, 9, window=window, feed=affine), expected, backend)
    as_list = model.forecast(x, 9, window=window, feed=lambda y: affine(y).tolist())
    np.testing.assert_allclose(as_list, expected, atol=1e-5)


@pytest.mark.parametrize("window", [None, 4])
def test_the_function_may_change_the_number_of_features(window: Any, backend: str) -> None:
    model = Model(make_chain(LSTM(3, 9), Dense(9, 2)), backend)
    x = numbers(3, 6, 3)
    if window is None:
        expected = carried(model, x, 9, wider)
    else:
        expected = sliding(model, x, 9, window, wider)
    agree(model.forecast(x, 9, window=window, feed=wider), expected, backend)


@pytest.mark.parametrize("window", [None, 4])
def test_the_function_may_write_where_it_reads(window: Any, backend: str) -> None:
    """The outputs are the model's, not what was made of them."""

    def in_place(y: Any) -> Any:
        y *= 0.5
        y -= 0.25
        return y

    model, x = make("lstm", backend), numbers(3, 6, 2)
    expected = model.forecast(x, 9, window=window, feed=affine)
    agree(model.forecast(x, 9, window=window, feed=in_place), expected, backend)


def test_the_function_sees_the_outputs_in_order(backend: str) -> None:
    model, x, seen = make("lstm", backend), numbers(3, 6, 2), []

    def feed(y: Any) -> Any:
        seen.append(y.copy())
        return y

    y = model.forecast(x, 6, feed=feed)
    assert len(seen) >= 5
    for k, value in enumerate(seen[:6]):
        np.testing.assert_array_equal(value, y[:, k], strict=True)


def test_errors_of_the_function_come_through(backend: str) -> None:
    def feed(y: Any) -> Any:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        make("lstm", backend).forecast(numbers(1, 3, 2), 3, feed=feed)


@pytest.mark.parametrize("window", [None, 4])
def test_ids_are_sampled_by_the_function(window: Any, backend: str) -> None:
    layers = [Embedding(6, 4), LSTM(4, 9), Dense(9, 6, SOFTMAX)]
    model = Model(make_chain(*layers, shape=("batch", "steps"), seed=3), backend)
    ids = np.random.default_rng(0).integers(0, 6, (4, 5))

    def greedy(y: Any) -> Any:
        return y.argmax(-1)

    if window is None:
        expected = carried(model, ids, 12, greedy)
    else:
        expected = sliding(model, ids, 12, window, greedy)
    agree(model.forecast(ids, 12, window=window, feed=greedy), expected, backend)


@pytest.mark.parametrize("kind", ["stacked", "projection", "sequences"])
def test_states_go_in_and_come_out(kind: str, backend: str) -> None:
    model = make(kind, backend)
    x = numbers(3, 6, 2)
    _, state = model.predict(numbers(3, 4, 2, seed=1), return_state=True)
    expected = carried(model, x, 9, state=state)
    kept = {k: {n: a.copy() for n, a in v.items()} for k, v in state.items()}
    whole = model.forecast(x, 9, state=state)
    agree(whole, expected, backend)
    for layer, entries in kept.items():
        for name, array in entries.items():
            np.testing.assert_array_equal(state[layer][name], array)
    first, after = model.forecast(x, 4, state=state, return_state=True)
    agree(first, expected[:, :4], backend)
    agree(model.forecast(first[:, -1:], 5, state=after), expected[:, 4:], backend)


def test_a_forecast_leaves_its_input_alone(backend: str) -> None:
    model, x = make("lstm", backend), numbers(3, 6, 2)
    x.flags.writeable = False
    for window in (None, 4, 6):
        y = model.forecast(x, 4, window=window)
        y[:] = 7


@pytest.mark.parametrize("window", [None, 4])
def test_time_may_come_first(window: Any, backend: str) -> None:
    rnn = GRU(2, 2, return_sequences=True, time_major=True)
    major = Model(make_chain(rnn, shape=("steps", "batch", 2)), backend)
    first = replace(major.spec.layers[0], layer=GRU(2, 2))
    spec = ModelSpec.chain([first], TensorSpec("x", ("batch", "steps", 2)))
    x = numbers(3, 6, 2)
    expected = Model(spec, backend).forecast(x, 8, window=window)
    agree(major.forecast(x.swapaxes(0, 1), 8, window=window), expected, backend)


def test_of_a_longer_beginning_a_pinned_window_takes_the_end(backend: str) -> None:
    model, x = make("lstm", backend, 5), numbers(3, 9, 2)
    agree(model.forecast(x, 6), sliding(model, x, 6, 5), backend)


def test_what_cannot_stream_can_slide(backend: str) -> None:
    forward = LSTM(2, 5, return_sequences=True)
    both = Bidirectional(forward, replace(forward, go_backwards=True))
    spec = make_chain(both, Reshape(((0, 0), -1)), Dense(70, 2), shape=("batch", 7, 2))
    model, x = Model(spec, backend), numbers(3, 7, 2)
    agree(model.forecast(x, 9), sliding(model, x, 9, 7), backend)
    with pytest.raises(UnsupportedError, match="layer_0"):
        model.forecast(x, 9, window=None)


def two_inputs() -> ModelSpec:
    rng = np.random.default_rng(0)
    rnn, join = make_layer("rnn", LSTM(2, 4), rng), make_layer("join", Concatenate(1), rng)
    inputs = (TensorSpec("x", ("batch", "steps", 2)), TensorSpec("v", ("batch", 2)))
    return ModelSpec(
        (rnn, join), (Edge.call(rnn, "x"), Edge.call(join, "rnn", "v")), inputs, ("join",)
    )


def two_outputs() -> ModelSpec:
    return make_chain(LSTM(2, 2, return_state=True), shape=("batch", "steps", 2))


X = np.zeros((2, 6, 2))


@pytest.mark.parametrize(
    ("spec", "x", "options", "error", "message"),
    [
        (two_inputs, [X, X[:, 0]], {}, NpylstmError, "input"),
        (two_outputs, X, {}, NpylstmError, "output"),
        (lambda: make_chain(LSTM(2, 3), shape=("batch", "steps", 2)), X, {}, NpylstmError, "3"),
        (None, X[:, :, :1], {}, ShapeError, r"^x: .*\(2, 6, 1\)"),
        (None, X[:, 0], {}, ShapeError, r"^x: .*\(2, 2\)"),
        (None, X[:, :0], {}, ShapeError, "^x: "),
        (None, X, {"steps": -1}, NpylstmError, "steps"),
        (None, X, {"steps": 1.5}, NpylstmError, "steps"),
        (None, X, {"window": 0}, NpylstmError, "window"),
        (None, X, {"window": -2}, NpylstmError, "window"),
        (None, X, {"window": 7}, NpylstmError, "window|7"),
        (None, X, {"window": "all"}, NpylstmError, "window"),
        (None, X, {"feed": lambda y: y[:, :1]}, ShapeError, r"\(2, 1\)"),
        (None, X, {"feed": lambda y: y[:1]}, ShapeError, r"\(1, 2\)"),
        (None, X, {"feed": lambda y: y[:, :1], "window": 3}, ShapeError, r"\(2, 1\)"),
        (None, X, {"feed": lambda y: None}, ShapeError, "real numbers"),
        (None, X, {"state": {"layer_9": {}}}, StateError, "layer_9"),
        (None, X, {"state": {"layer_0": {"h": np.zeros((3, 20))}}}, StateError, "state"),
    ],
)  # fmt: skip
def test_what_does_not_fit_a_forecast_is_named(
    spec: Any, x: Any, options: Any, error: type[Exception], message: str, backend: str
) -> None:
    model = Model(spec(), backend) if spec else make("lstm", backend)
    options = {"steps": 4, **options}
    with pytest.raises(error, match=message):
        model.forecast(x, **options)


def test_a_pinned_window_needs_its_steps(backend: str) -> None:
    model = make("lstm", backend, 7)
    with pytest.raises(ShapeError, match="7"):
        model.forecast(numbers(2, 6, 2), 3)
