"""Stateful Keras models: many calls of the framework against one session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest
from keras_graph_files import parity_or_refusal
from keras_graphs import FRAMEWORKS, convert, flat, make_inputs, randomise, run

from npylstm import Model, UnsupportedError


def make_stateful(k: Any, name: str) -> Any:
    L = k.layers
    seq = {"stateful": True, "return_sequences": True}
    a = k.Input(batch_shape=(3, None, 2), name="a")
    b = k.Input(batch_shape=(3, None, 2), name="b")
    if name == "stack":
        return k.Sequential([a, L.LSTM(4, name="first", **seq), L.LSTM(3, stateful=True, name="last"), L.Dense(2)])  # fmt: skip
    if name == "pinned steps":
        pinned = k.Input(batch_shape=(3, 4, 2), name="a")
        return k.Sequential([pinned, L.LSTM(4, name="first", **seq), L.TimeDistributed(L.Dense(2))])
    if name == "other cells":
        y = L.SimpleRNN(4, name="rnn", **seq)(L.GRU(4, name="gru", **seq)(a))
        return k.Model(a, L.GRU(3, reset_after=False, stateful=True, name="old")(y))
    if name == "two branches":
        y = L.Concatenate(name="both")([L.LSTM(4, name="of_a", **seq)(a), L.GRU(3, name="of_b", **seq)(b)])  # fmt: skip
        return k.Model([a, b], [L.LSTM(2, stateful=True, name="last")(y), y])
    if name == "returned state":
        return k.Model(a, L.LSTM(4, return_state=True, name="lstm", **seq)(a))
    x = k.Input(batch_shape=(3, None, 2), name="x")
    inner = k.Sequential([x, L.LSTM(4, name="lstm", **seq), L.Dense(2, name="dense")], name="inner")
    return k.Model(a, L.LSTM(3, stateful=True, name="lstm")(inner(a)))


def forget(model: Any) -> None:
    """Reset the states of all layers of a framework's model."""
    for layer in model._flatten_layers(include_self=False):
        if getattr(layer, "stateful", False) and hasattr(layer, "cell"):
            (getattr(layer, "reset_state", None) or layer.reset_states)()


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(
    "name", ["stack", "pinned steps", "other cells", "two branches", "returned state", "nested"]
)
def test_stateful_models_over_many_calls(
    name: str, framework: str, tmp_path: Path, backend: str
) -> None:
    keras_model = make_stateful(FRAMEWORKS[framework], name)
    randomise(keras_model, 31)
    forget(keras_model)
    spec = convert(keras_model, "keras" if framework == "keras3" else "h5", tmp_path)
    assert {t.shape[0] for t in spec.inputs} == {"batch"}
    recurrent = [layer for layer in spec.layers if "stateful" in layer.config]
    assert recurrent
    assert all(layer.config["stateful"] is True for layer in recurrent)
    model = Model(spec, backend)
    session = model.session(batch_size=3)
    carried = False
    for number, steps in enumerate((4, 2, 7, None, 4, 1, None, 3)):
        if steps is None:
            session.reset()
            forget(keras_model)
            continue
        xs = make_inputs(keras_model, 3, steps, number)
        theirs = run(keras_model, xs)
        ours = flat(session.push(xs[0] if len(xs) == 1 else xs))
        fresh = flat(model.predict(xs[0] if len(xs) == 1 else xs))
        for y, z, w in zip(ours, theirs, fresh, strict=True):
            np.testing.assert_allclose(y, z, atol=2e-6, rtol=0)
            carried |= bool(np.abs(w - z).max() > 1e-3)  # the state matters; predict has none
    assert carried
    again = make_inputs(keras_model, 3, 4, 99)
    forget(keras_model)
    fresh = flat(model.predict(again[0] if len(again) == 1 else again))
    for y, z in zip(fresh, run(keras_model, again), strict=True):
        np.testing.assert_allclose(y, z, atol=2e-6, rtol=0)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_session_holds_what_the_framework_holds(framework: str, backend: str) -> None:
    keras_model = make_stateful(FRAMEWORKS[framework], "nested")
    randomise(keras_model, 32)
    forget(keras_model)
    session = Model(nc.from_keras(keras_model), backend).session(batch_size=3)
    for seed in range(2):
        (x,) = make_inputs(keras_model, 3, 5, seed)
        session.push(x)
        run(keras_model, [x])
    layers = {"lstm": keras_model.get_layer("lstm"), "inner.lstm": keras_model.get_layer("inner").get_layer("lstm")}  # fmt: skip
    assert set(session.state) == set(layers)
    for call, layer in layers.items():
        for entry, theirs in zip("hc", layer.states, strict=True):
            np.testing.assert_allclose(session.state[call][entry], theirs.numpy(), atol=2e-6)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_pinned_batch_is_free(framework: str, tmp_path: Path, backend: str) -> None:
    keras_model = make_stateful(FRAMEWORKS[framework], "two branches")
    randomise(keras_model, 33)
    model = Model(convert(keras_model, "h5", tmp_path), backend)
    rng = np.random.default_rng(0)
    xs = [rng.normal(size=(7, 5, 2)).astype("float32") for _ in range(2)]
    session = model.session(batch_size=7)
    session.push([x[:, :2] for x in xs])
    pushed = session.push([x[:, 2:] for x in xs])["last"]
    whole = model.predict(xs)["last"]
    np.testing.assert_allclose(pushed, whole, atol=2e-6, rtol=0)
    forget(keras_model)
    np.testing.assert_allclose(whole[4:], run(keras_model, [x[4:] for x in xs])[0], atol=2e-6)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_two_calls_of_a_stateful_layer_share_its_state(framework: str) -> None:
    """The framework's second call goes on where the first ended, in one and the same predict."""
    k = FRAMEWORKS[framework]
    a, b = k.Input(batch_shape=(3, 4, 2), name="a"), k.Input(batch_shape=(3, 4, 2), name="b")
    lstm = k.layers.LSTM(4, stateful=True, name="memory")
    model = k.Model([a, b], k.layers.Concatenate(name="both")([lstm(a), lstm(b)]))
    randomise(model, 34)
    forget(model)
    xs = make_inputs(model, 3, 4, 0)
    parity_or_refusal(model, [(xs, run(model, xs))], "memory")


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_stateful_layer_with_a_given_state(framework: str, backend: str) -> None:
    """Keras 3 takes the given state at every call, Keras 2 only while its own is all zeros."""
    k = FRAMEWORKS[framework]
    a = k.Input(batch_shape=(3, None, 2), name="a")
    h, c = k.Input(batch_shape=(3, 4), name="h"), k.Input(batch_shape=(3, 4), name="c")
    y = k.layers.LSTM(4, stateful=True, name="memory")(a, initial_state=[h, c])
    keras_model = k.Model([a, h, c], y)
    randomise(keras_model, 35)
    forget(keras_model)
    try:
        session = Model(nc.from_keras(keras_model), backend).session(batch_size=3)
    except UnsupportedError as error:
        reasons = error.reasons
    else:
        for seed in range(3):
            xs = make_inputs(keras_model, 3, 5, seed)
            theirs = run(keras_model, xs)[0]
            np.testing.assert_allclose(session.push(xs), theirs, atol=2e-6, rtol=0)
        return
    assert any("memory" in reason for reason in reasons), reasons
