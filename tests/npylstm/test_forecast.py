"""Generating: forecasts, the encoder-decoder loop, and cutting models into the parts it needs.

Expected numbers come from plain loops over ``predict`` and ``session.step``. Numba: the same bits.
NumPy: sums of at most TERMS terms below 1 in size may run in another order, and every generated
step adds as much again; the maps here contract.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from backends import BACKENDS, COMPILED
from builders import make_chain, make_layer
from hypothesis import given, settings
from hypothesis import strategies as st

import npylstm
from npylstm import (
    FormatError,
    Model,
    ModelSpec,
    NpylstmError,
    ShapeError,
    StateError,
    UnsupportedError,
)
from npylstm.activations import Activation
from npylstm.ops.arithmetic import Arithmetic
from npylstm.ops.bidirectional import Bidirectional
from npylstm.ops.cells import GRU, LSTM, SimpleRNN
from npylstm.ops.dense import Dense, Embedding
from npylstm.ops.indexing import Select
from npylstm.ops.pointwise import Identity
from npylstm.ops.shaping import Concatenate, Reshape
from npylstm.spec import Case, Edge, LayerSpec, TensorSpec

TERMS = 41  # 20 inputs, 20 recurrent ones, a bias
SOFTMAX = Activation("softmax")

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


def numbers(*shape: int, seed: int = 0, dtype: str = "float32") -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def agree(actual: Any, expected: Any, backend: str) -> None:
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    steps = max(1, actual.shape[1])
    atol = 0 if backend == COMPILED else steps * TERMS * np.finfo(expected.dtype).eps
    np.testing.assert_allclose(actual, expected, rtol=0, atol=atol)


def last(y: Any) -> Any:
    return y[:, -1] if y.ndim == 3 else y


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


# Encoders and decoders.


def graph(
    inputs: dict[str, Any], outputs: tuple[str, ...], *calls: Any, dtype: str = "float32"
) -> ModelSpec:
    """Layers called in turn, each ``(name, layer, *tensors)``."""
    rng = np.random.default_rng(5)
    layers = [make_layer(name, layer, rng, dtype) for name, layer, *_ in calls]
    edges = [Edge.call(made, *call[2:]) for made, call in zip(layers, calls, strict=True)]
    specs = tuple(TensorSpec(name, shape) for name, shape in inputs.items())
    return ModelSpec(tuple(layers), tuple(edges), specs, outputs, dtype=dtype)


RNNS: dict[str, Any] = {
    "lstm": (LSTM, ("h", "c"), {}),
    "projection": (LSTM, ("h", "c"), {"projection": 5}),
    "gru": (GRU, ("h",), {}),
    "gru before": (GRU, ("h",), {"reset_after": False}),
    "rnn": (SimpleRNN, ("h",), {}),
}


def seq2seq(
    kind: str = "lstm", dtype: str = "float32", steps: tuple[Any, Any] = ("steps", "steps_2")
) -> ModelSpec:
    """The whole model, as it was trained: 3 features in, 4 out, which the decoder reads again."""
    cell, states, options = RNNS[kind]
    options = {**options, "return_state": True}
    return graph(
        {"x": ("batch", steps[0], 3), "d": ("batch", steps[1], 4)}, ("dense",),
        ("enc", cell(3, 8, **options), "x"),
        ("dec", cell(4, 8, return_sequences=True, **options), "d", *(f"enc/{s}" for s in states)),
        ("dense", Dense(options.get("projection", 8), 4, SOFTMAX), "dec"), dtype=dtype,
    )  # fmt: skip


def halves(kind: str = "lstm", backend: str = "numpy", **options: Any) -> tuple[Any, Any, Any]:
    """The whole model, and its encoder and decoder."""
    spec = seq2seq(kind, **options)
    states = RNNS[kind][1]
    encoder = spec.subgraph(inputs=["x"], outputs=[f"enc/{s}" for s in states])
    decoder = spec.subgraph(
        inputs=["d", *(f"enc/{s}" for s in states)],
        outputs=["dense", *(f"dec/{s}" for s in states)],
    )
    return Model(spec, backend), Model(encoder, backend), Model(decoder, backend)


def arrays(outputs: Any) -> list[Any]:
    return list(outputs.values()) if isinstance(outputs, dict) else [outputs]


def decode_by_hand(
    encoder: Model, decoder: Model, x: Any, token: Any, steps: int, feed: Any = None
) -> Any:
    """The loop that everyone writes: token (batch, 1, ...) in, output and states out."""
    others = arrays(encoder.predict(x))[-(len(decoder.inputs) - 1) :]
    y = []
    for _ in range(steps):
        out, *states = arrays(decoder.predict([token, *others]))
        others = [*others[: len(others) - len(states)], *states]
        y.append(last(out))
        token = (y[-1] if feed is None else feed(y[-1]))[:, None]
    return np.stack(y, 1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", RNNS)
def test_decode_is_the_loop_over_predict(kind: str, dtype: str, backend: str) -> None:
    whole, encoder, decoder = halves(kind, backend, dtype=dtype)
    x = numbers(3, 6, 3, dtype=dtype)
    start = numbers(3, 4, seed=1, dtype=dtype)
    y = npylstm.decode(encoder, decoder, x, start, 10)
    agree(y, decode_by_hand(encoder, decoder, x, start[:, None], 10), backend)
    # The whole model, shown what was decoded, says the same.
    shown = np.concatenate([start[:, None], y[:, :-1]], 1)
    agree(whole.predict([x, shown]), y, backend)


@pytest.mark.parametrize("start", [np.float32([1, 0, -1, 2]), 0.0, 2, [[0.5, 0.5, 0, 1]]])
def test_the_first_token_is_broadcast(start: Any, backend: str) -> None:
    _, encoder, decoder = halves("gru", backend)
    x = numbers(3, 6, 3)
    token = np.array(np.broadcast_to(np.asarray(start, "float32"), (3, 4)))
    expected = decode_by_hand(encoder, decoder, x, token[:, None], 5)
    agree(npylstm.decode(encoder, decoder, x, start, 5), expected, backend)


@pytest.mark.parametrize("pinned", [1, 24])
def test_pinned_steps_do_not_matter_to_the_cut_decoder(pinned: int, backend: str) -> None:
    _, encoder, decoder = halves("lstm", backend)
    _, _, from_pinned = halves("lstm", backend, steps=(6, pinned))
    x, start = numbers(2, 6, 3), numbers(2, 4)
    expected = npylstm.decode(encoder, decoder, x, start, 5)
    agree(npylstm.decode(encoder, from_pinned, x, start, 5), expected, backend)


def test_a_decoder_may_take_one_step_at_a_time(backend: str) -> None:
    _, encoder, decoder = halves("lstm", backend)
    x, start = numbers(2, 6, 3), numbers(2, 4)
    inputs = (TensorSpec("d", ("batch", 1, 4)), *decoder.inputs[1:])
    pinned = Model(replace(decoder.spec, inputs=inputs), backend)
    expected = npylstm.decode(encoder, decoder, x, start, 5)
    agree(npylstm.decode(encoder, pinned, x, start, 5), expected, backend)


def test_a_function_stands_between_the_steps(backend: str) -> None:
    _, encoder, decoder = halves("lstm", backend)
    x, start = numbers(2, 6, 3), numbers(2, 4)

    def feed(y: Any) -> Any:
        return 1 - y

    expected = decode_by_hand(encoder, decoder, x, start[:, None], 7, feed)
    agree(npylstm.decode(encoder, decoder, x, start, 7, feed=feed), expected, backend)


def test_the_function_between_may_write_where_it_reads(backend: str) -> None:
    def in_place(y: Any) -> Any:
        y *= 0.5
        return y

    _, encoder, decoder = halves("lstm", backend)
    x, start = numbers(2, 6, 3), numbers(2, 4)
    expected = npylstm.decode(encoder, decoder, x, start, 7, feed=lambda y: 0.5 * y)
    agree(npylstm.decode(encoder, decoder, x, start, 7, feed=in_place), expected, backend)


def one_hot(y: Any) -> Any:
    return np.eye(y.shape[1], dtype=y.dtype)[y.argmax(-1)]


def test_argmax_as_one_hot(backend: str) -> None:
    _, encoder, decoder = halves("lstm", backend)
    x, start = numbers(5, 6, 3), np.eye(4, dtype="float32")[0]
    token = np.repeat(start[None, None], 5, 0)
    expected = decode_by_hand(encoder, decoder, x, token, 9, one_hot)
    y = npylstm.decode(encoder, decoder, x, start, 9, feed="argmax")
    agree(y, expected, backend)
    assert not np.allclose(y, npylstm.decode(encoder, decoder, x, start, 9))


def translator(
    backend: str, steps: Any = "steps", dtype: str = "float32", whole: bool = True
) -> tuple[Model, Model]:
    """Ids in, probabilities of seven ids out."""
    encoder = graph(
        {"x": ("batch", "steps")}, ("enc/h", "enc/c"), ("table", Embedding(7, 5), "x"),
        ("enc", LSTM(5, 8, return_state=True), "table"), dtype=dtype,
    )  # fmt: skip
    decoder = graph(
        {"d": ("batch", steps), "h": ("batch", 8), "c": ("batch", 8)},
        ("dense", "dec/h", "dec/c"), ("table", Embedding(7, 5), "d"),
        ("dec", LSTM(5, 8, return_state=True, return_sequences=True), "table", "h", "c"),
        ("scale", Arithmetic("multiply", 6.0), "dec"), ("dense", Dense(8, 7, SOFTMAX), "scale"),
        dtype=dtype,
    )  # fmt: skip
    inputs = (TensorSpec("d", ("batch", steps), whole), *decoder.inputs[1:])
    return Model(encoder, backend), Model(replace(decoder, inputs=inputs), backend)


IDS = np.random.default_rng(2).integers(0, 7, (6, 5))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("steps", ["steps", 1])
@pytest.mark.parametrize("start", [3, [3] * 6, [0, 1, 2, 3, 4, 5], np.int64(3), 3.0])
def test_argmax_as_ids(start: Any, steps: Any, dtype: str, backend: str) -> None:
    encoder, decoder = translator(backend, steps, dtype)
    token = np.broadcast_to(start, 6)[:, None]
    expected = decode_by_hand(encoder, decoder, IDS, token, 12, lambda y: y.argmax(-1))
    y = npylstm.decode(encoder, decoder, IDS, start, 12, feed="argmax")
    agree(y, expected, backend)
    np.testing.assert_array_equal(y.argmax(-1), expected.argmax(-1))
    assert len({tuple(row) for row in y.argmax(-1)}) > 1  # the rows do not all say the same


@pytest.mark.parametrize("steps", ["steps", 1])
def test_ids_may_come_as_any_numbers(steps: Any, backend: str) -> None:
    encoder, decoder = translator(backend, steps)
    _, undeclared = translator(backend, steps, whole=False)
    expected = npylstm.decode(encoder, decoder, IDS, 3, 6, feed="argmax")
    agree(npylstm.decode(encoder, undeclared, IDS, 3, 6, feed="argmax"), expected, backend)


def test_a_function_samples_ids(backend: str) -> None:
    encoder, decoder = translator(backend)

    def least(y: Any) -> Any:
        return y.argmin(-1)

    expected = decode_by_hand(encoder, decoder, IDS, np.full((6, 1), 2), 8, least)
    agree(npylstm.decode(encoder, decoder, IDS, 2, 8, feed=least), expected, backend)


@pytest.mark.parametrize("index", range(7))
def test_decoding_stops_where_every_row_has_stopped(index: int, backend: str) -> None:
    encoder, decoder = translator(backend)
    for rows in (IDS, IDS[:1], IDS[2:4]):
        whole = npylstm.decode(encoder, decoder, rows, 3, 15, feed="argmax")
        seen = np.cumsum(whole.argmax(-1) == index, 1) > 0
        done = np.flatnonzero(seen.all(0))
        length = int(done[0]) + 1 if done.size else 15
        y = npylstm.decode(encoder, decoder, rows, 3, 15, feed="argmax", stop=index)
        agree(y, whole[:, :length], backend)


def test_some_rows_stop_early_and_some_never() -> None:
    """Or the test above would prove little."""
    encoder, decoder = translator("numpy")
    lengths = {
        npylstm.decode(encoder, decoder, IDS[r : r + 1], 3, 15, feed="argmax", stop=k).shape[1]
        for k in range(7)
        for r in range(6)
    }
    assert 15 in lengths
    assert len(lengths) > 2


def contextual(backend: str) -> tuple[Model, Model]:
    """A decoder that reads a context which stays and states which move."""
    encoder = graph(
        {"x": ("batch", "steps", 3)}, ("extra", "enc", "enc/h", "enc/c"),
        ("enc", LSTM(3, 8, return_state=True), "x"), ("extra", Dense(8, 2), "enc"),
    )  # fmt: skip
    decoder = graph(
        {"d": ("batch", "steps", 4), "k": ("batch", 8), "h": ("batch", 8), "c": ("batch", 8)},
        ("out", "dec/h", "dec/c"),
        ("dec", LSTM(4, 8, return_state=True), "d", "h", "c"), ("join", Concatenate(1), "dec", "k"),
        ("out", Dense(16, 4), "join"),
    )  # fmt: skip
    return Model(encoder, backend), Model(decoder, backend)


def test_further_outputs_of_the_encoder_are_counted_from_the_end(backend: str) -> None:
    encoder, decoder = contextual(backend)
    x, start = numbers(2, 6, 3), numbers(2, 4)
    expected = decode_by_hand(encoder, decoder, x, start[:, None], 8)
    agree(npylstm.decode(encoder, decoder, x, start, 8), expected, backend)


def test_an_encoder_may_have_several_inputs(backend: str) -> None:
    encoder = graph(
        {"x": ("batch", "steps", 3), "v": ("batch", 8)}, ("sum",),
        ("enc", GRU(3, 8), "x"), ("sum", Arithmetic("add"), "enc", "v"),
    )  # fmt: skip
    _, _, decoder = halves("gru", backend)
    x, v, start = numbers(2, 6, 3), numbers(2, 8), numbers(2, 4)
    model = Model(encoder, backend)
    expected = decode_by_hand(model, decoder, [x, v], start[:, None], 8)
    agree(npylstm.decode(model, decoder, [x, v], start, 8), expected, backend)
    agree(npylstm.decode(model, decoder, {"v": v, "x": x}, start, 8), expected, backend)


def test_states_are_joined_by_name() -> None:
    """In whatever order encoder and decoder give them, also with more between them."""
    _, encoder, decoder = halves("lstm")
    x, start = numbers(2, 6, 3), numbers(2, 4)
    expected = npylstm.decode(encoder, decoder, x, start, 5)
    for names in (("enc/c", "enc/h"), ("enc/h", "enc/c", "enc"), ("enc/c", "enc", "enc/h")):
        turned = with_outputs(encoder, *names)
        agree(npylstm.decode(turned, decoder, x, start, 5), expected, "numpy")
    turned = with_outputs(decoder, "dense", "dec/c", "dec/h")
    agree(npylstm.decode(encoder, turned, x, start, 5), expected, "numpy")


def test_states_of_other_names_are_not_exchanged() -> None:
    """An encoder from another file: by place, unless that makes a c of an h."""
    _, encoder, decoder = halves("lstm")
    edges = tuple(
        Edge(e.layer, tuple(t.replace("enc", "s") for t in e.inputs), e.outputs)
        for e in decoder.spec.edges
    )
    inputs = tuple(replace(t, name=t.name.replace("enc", "s")) for t in decoder.spec.inputs)
    other = Model(replace(decoder.spec, inputs=inputs, edges=edges), "numpy")
    x, start = numbers(2, 6, 3), numbers(2, 4)
    expected = npylstm.decode(encoder, decoder, x, start, 5)
    for names in (("enc/h", "enc/c"), ("enc/c", "enc/h")):
        agree(npylstm.decode(with_outputs(encoder, *names), other, x, start, 5), expected, "numpy")
    half = Model(replace(other.spec, outputs=("dense", "dec/h")), "numpy")
    agree(npylstm.decode(encoder, half, x, start, 1), expected[:, :1], "numpy")


def test_states_of_two_layers_are_not_exchanged() -> None:
    def stack(ends: tuple[str, ...], first: str, *states: str) -> Model:
        options: Any = {"return_sequences": True, "return_state": True}
        names = {first: ("batch", "steps", 4), **dict.fromkeys(states, ("batch", 4))}
        calls = [(f"{first}1", LSTM(4, 4, **options), first, *states[:2]),
                 (f"{first}2", LSTM(4, 4, **options), f"{first}1", *states[2:])]  # fmt: skip
        return Model(graph(names, ends, *calls), "numpy")

    ends = ("x1/h", "x1/c", "x2/h", "x2/c")
    decoder = stack(("d2", "d1/c", "d2/c", "d2/h", "d1/h"), "d", "s1", "s2", "s3", "s4")
    ordered = with_outputs(decoder, "d2", "d1/h", "d1/c", "d2/h", "d2/c")
    x, start = numbers(2, 6, 4), numbers(2, 4)
    encoder = stack(ends, "x")
    expected = decode_by_hand(encoder, ordered, x, start[:, None], 5)
    agree(npylstm.decode(encoder, decoder, x, start, 5), expected, "numpy")
    turned = with_outputs(encoder, "x1/c", "x1/h", "x2/h", "x2/c")
    with pytest.raises(ShapeError, match=r"'x1/c'.*'s1' \(the initial h of 'd1'\).*x1/h for s2"):
        npylstm.decode(turned, decoder, x, start, 5)


def with_outputs(model: Model, *names: str) -> Model:
    return Model(replace(model.spec, outputs=names), model.backend)


X3, START = np.zeros((2, 6, 3)), np.zeros((2, 4))


@pytest.mark.parametrize(
    ("encoder_outputs", "decoder_outputs", "x", "start", "options"),
    [
        (("enc/h",), None, X3, START, {}),
        (None, ("dense", "dec/h", "dec/c", "dec"), X3, START, {}),
        (("enc", "enc/c"), ("dec/h", "dense"), X3, START, {}),
        (None, None, X3[:, :, :2], START, {}),
        (None, None, X3, np.zeros((3, 4)), {}),
        (None, None, X3, np.zeros((2, 5)), {}),
        (None, None, X3, START, {"steps": -1}),
        (None, None, X3, START, {"feed": "softmax"}),
        (None, None, X3, START, {"feed": lambda y: y[:, :3]}),
        (None, None, X3, START, {"feed": lambda y: y[:1]}),
        (None, None, X3, START, {"stop": 1}),
    ],
)  # fmt: skip
def test_what_does_not_fit_a_decoder_is_refused(
    encoder_outputs: Any, decoder_outputs: Any, x: Any, start: Any, options: Any, backend: str
) -> None:
    _, encoder, decoder = halves("lstm", backend)
    if encoder_outputs:
        encoder = with_outputs(encoder, *encoder_outputs)
    if decoder_outputs:
        decoder = with_outputs(decoder, *decoder_outputs)
    options = {"steps": 3, **options}
    with pytest.raises(NpylstmError):
        npylstm.decode(encoder, decoder, x, start, **options)


def test_ids_cannot_be_had_from_features_of_another_size(backend: str) -> None:
    """Five features in, four out: neither ids nor one-hot."""
    decoder = graph(
        {"d": ("batch", "steps", 5), "h": ("batch", 8)}, ("dense", "dec/h"),
        ("dec", GRU(5, 8, return_state=True), "d", "h"), ("dense", Dense(8, 4), "dec"),
    )  # fmt: skip
    _, encoder, _ = halves("gru", backend)
    decoder = Model(decoder, backend)
    for feed in ("argmax", None):
        with pytest.raises(NpylstmError, match="5"):
            npylstm.decode(encoder, decoder, X3, np.zeros((2, 5)), 3, feed=feed)


# Cutting.


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", RNNS)
def test_the_parts_are_the_whole(kind: str, dtype: str, backend: str) -> None:
    whole, encoder, decoder = halves(kind, backend, dtype=dtype)
    x, d = numbers(3, 6, 3, dtype=dtype), numbers(3, 9, 4, seed=1, dtype=dtype)
    states = arrays(encoder.predict(x))
    y = decoder.predict([d, *states])
    np.testing.assert_array_equal(y["dense"], whole.predict([x, d]), strict=True)


def test_a_subgraph_is_named_as_it_was_asked_for() -> None:
    spec = seq2seq()
    decoder = spec.subgraph(inputs=["d", "enc/h", "enc/c"], outputs=["dense", "dec/h", "dec/c"])
    assert [t.name for t in decoder.inputs] == ["d", "enc/h", "enc/c"]
    assert [t.shape for t in decoder.inputs][1:] == [("batch", 8), ("batch", 8)]
    assert decoder.outputs == ("dense", "dec/h", "dec/c")
    assert [layer.name for layer in decoder.layers] == ["dec", "dense"]
    assert [layer.name for layer in spec.layers] == ["enc", "dec", "dense"]
    for layer in decoder.layers:
        assert layer.layer == spec[layer.name].layer
        for key, array in layer.weights.items():
            np.testing.assert_array_equal(array, spec[layer.name].weights[key], strict=True)
    turned = spec.subgraph(inputs=["enc/c", "d", "enc/h"], outputs=["dec/c", "dense"])
    assert [t.name for t in turned.inputs] == ["enc/c", "d", "enc/h"]
    assert turned.outputs == ("dec/c", "dense")


def test_unused_layers_are_dropped() -> None:
    spec = make_chain(
        LSTM(3, 5, return_sequences=True), GRU(5, 4, return_sequences=True), Dense(4, 2), Identity()
    )
    for inputs, outputs, kept in (
        (["x"], ["layer_0"], [0]),
        (["layer_0"], ["layer_1"], [1]),
        (["layer_1"], ["layer_3"], [2, 3]),
        (["layer_0"], ["layer_1", "layer_2"], [1, 2]),
        (["x"], ["layer_3"], [0, 1, 2, 3]),
    ):
        part = spec.subgraph(inputs=inputs, outputs=outputs)
        assert [layer.name for layer in part.layers] == [f"layer_{k}" for k in kept]
        assert [edge.layer for edge in part.edges] == [f"layer_{k}" for k in kept]


@pytest.mark.parametrize("at", range(3))
def test_a_chain_cut_in_two_is_the_chain(at: int, backend: str) -> None:
    spec = make_chain(
        LSTM(3, 5, return_sequences=True), GRU(5, 4, return_sequences=True), Dense(4, 2),
        SimpleRNN(2, 3), shape=("batch", 24, 3),
    )  # fmt: skip
    head = spec.subgraph(inputs=["x"], outputs=[f"layer_{at}"])
    tail = spec.subgraph(inputs=[f"layer_{at}"], outputs=["layer_3"])
    x = numbers(2, 24, 3)
    middle = Model(head, backend).predict(x)
    agree(Model(tail, backend).predict(middle), Model(spec, backend).predict(x), backend)


def test_pinned_steps_become_free(backend: str) -> None:
    spec = seq2seq(steps=(24, 12))
    whole = Model(seq2seq(), backend)
    encoder = spec.subgraph(inputs=["x"], outputs=["enc/h", "enc/c"])
    decoder = spec.subgraph(inputs=["d", "enc/h", "enc/c"], outputs=["dense"])
    for part, features in ((encoder, 3), (decoder, 4)):
        batch, steps, size = part.inputs[0].shape
        assert (batch, size) == ("batch", features)
        assert isinstance(steps, str)
    x, d = numbers(2, 5, 3), numbers(2, 7, 4)
    states = arrays(Model(encoder, backend).predict(x))
    agree(Model(decoder, backend).predict([d, *states]), whole.predict([x, d]), backend)


def test_pinned_ids_become_free(backend: str) -> None:
    layers = [Embedding(9, 4), LSTM(4, 5)]
    free = make_chain(*layers, shape=("batch", "steps"))
    spec = replace(free, inputs=(TensorSpec("x", ("batch", 24), integer=True),))
    part = spec.subgraph(inputs=["x"], outputs=["layer_1"])
    assert part.inputs[0].whole
    ids = np.arange(10).reshape(2, 5) % 9
    agree(Model(part, backend).predict(ids), Model(free, backend).predict(ids), backend)


def test_both_inputs_keep_steps_of_their_own(backend: str) -> None:
    """Encoder and decoder together, freed of their pinned steps, may still differ in length."""
    spec = seq2seq(steps=(24, 12)).subgraph(inputs=["x", "d"], outputs=["dense"])
    x, d = numbers(2, 24, 3), numbers(2, 12, 4)
    agree(Model(spec, backend).predict([x, d]), Model(seq2seq(), backend).predict([x, d]), backend)


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        (["d", "enc/h"], ["dense"], "enc/c|'x'"),
        (["enc/h", "enc/c"], ["dense"], "'d'"),
        (["x"], ["dense"], "'d'"),
        (["d"], ["dense"], "enc|'x'"),
        (["d", "enc/h", "enc/c"], ["nowhere"], "nowhere"),
        (["nowhere", "d", "enc/h", "enc/c"], ["dense"], "nowhere"),
        (["x"], ["enc/q"], "enc/q"),
        (["x"], [], "output"),
        (["x", "x"], ["enc/h"], "'?x'?|twice"),
    ],
)
def test_what_is_missing_is_named(inputs: Any, outputs: Any, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        seq2seq().subgraph(inputs=inputs, outputs=outputs)


def test_parts_carry_no_cases_and_leave_the_whole_as_it_was() -> None:
    spec = seq2seq()
    x, d = numbers(2, 5, 3), numbers(2, 7, 4)
    y = Model(spec, "numpy").predict([x, d])
    spec = spec.with_cases([Case({"x": x, "d": d}, {"dense": y})])
    before = spec.to_json()
    part = spec.subgraph(inputs=["x"], outputs=["enc/h"])
    assert part.cases == ()
    assert len(spec.cases) == 1
    assert spec.to_json() == before


def test_parts_are_saved_and_read(tmp_path: Any, backend: str) -> None:
    _, encoder, decoder = halves("lstm", backend)
    x, start = numbers(2, 6, 3), numbers(2, 4)
    read = []
    for name, model in (("encoder", encoder), ("decoder", decoder)):
        model.save(tmp_path / f"{name}.npz")
        read.append(npylstm.load(tmp_path / f"{name}.npz", backend))
    assert [t.name for t in read[1].inputs] == ["d", "enc/h", "enc/c"]
    expected = npylstm.decode(encoder, decoder, x, start, 5)
    np.testing.assert_array_equal(npylstm.decode(*read, x, start, 5), expected, strict=True)


def test_a_call_of_a_shared_layer_can_be_cut_out(backend: str) -> None:
    made = make_layer("rnn", GRU(3, 3, return_sequences=True), np.random.default_rng(0))
    edges = (Edge("rnn", ("x",), ("rnn",)), Edge("rnn", ("rnn",), ("rnn#2",)))
    inputs = (TensorSpec("x", ("batch", "steps", 3)),)
    spec = ModelSpec((made,), edges, inputs, ("rnn#2",))
    second = Model(spec.subgraph(inputs=["rnn"], outputs=["rnn#2"]), backend)
    first = Model(spec.subgraph(inputs=["x"], outputs=["rnn"]), backend)
    x = numbers(2, 5, 3)
    agree(second.predict(first.predict(x)), Model(spec, backend).predict(x), backend)
    assert set(second.session(2).state) == {"rnn#2"}


def test_parts_have_the_weights_of_the_whole_in_memory_once() -> None:
    spec = seq2seq()
    part = spec.subgraph(inputs=["x"], outputs=["enc/h"])
    assert isinstance(part["enc"], LayerSpec)
    for key, array in part["enc"].weights.items():
        assert np.shares_memory(array, spec["enc"].weights[key])
