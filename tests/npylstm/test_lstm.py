"""LSTM and Dense against the oracle, in both back ends and both element types.

float64 to 1e-12, as far as sums of some hundred terms of size one can be trusted. float32: errors
of a step are a few units in the last place (6e-8) and grow with the square root of the
steps where the gates contract, so 30 steps stay below 5e-6.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import oracle
import pytest
from backends import BACKENDS
from builders import make_chain
from hypothesis import given, settings
from hypothesis import strategies as st

from npylstm import Model
from npylstm.activations import Activation
from npylstm.ops.cells import LSTM
from npylstm.ops.dense import Dense

ATOL = {"float64": 1e-12, "float32": 5e-6}

# Bounded ones: with relu and the like a state may grow without bound over 30 steps.
GATES = ["sigmoid", "hard_sigmoid_fifth", "hard_sigmoid_sixth", "softmax"]
CELLS = ["tanh", "softsign", "sigmoid", "hard_sigmoid_fifth", "relu", "elu", "linear"]


@st.composite
def problems(draw: Any) -> dict[str, Any]:
    return {
        "units": draw(st.integers(1, 40)),
        "features": draw(st.integers(1, 9)),
        "steps": draw(st.integers(1, 30)),
        "batch": draw(st.integers(1, 7)),
        "activation": draw(st.sampled_from(CELLS)),
        "recurrent": draw(st.sampled_from(GATES)),
        "use_bias": draw(st.booleans()),
        "backwards": draw(st.booleans()),
        "sequences": draw(st.booleans()),
        "stateful": draw(st.booleans()),
        "time_major": draw(st.booleans()),
        "dtype": draw(st.sampled_from(["float32", "float64"])),
        "seed": draw(st.integers(0, 2**20)),
    }


@settings(max_examples=60)
@given(problem=problems(), backend=st.sampled_from(BACKENDS))
def test_lstm_equals_the_oracle(problem: dict[str, Any], backend: str) -> None:
    p = problem
    layer = LSTM(
        p["features"], p["units"], Activation(p["activation"]), Activation(p["recurrent"]),
        use_bias=p["use_bias"], return_sequences=p["sequences"], return_state=True,
        go_backwards=p["backwards"], time_major=p["time_major"],
    )  # fmt: skip
    shape = (
        ("steps", "batch", p["features"]) if p["time_major"] else ("batch", "steps", p["features"])
    )
    spec = make_chain(layer, shape=shape, seed=p["seed"], dtype=p["dtype"])
    rng = np.random.default_rng(p["seed"])
    x = rng.normal(size=(p["batch"], p["steps"], p["features"])).astype(p["dtype"])
    state = None
    h0 = c0 = None
    if p["stateful"]:
        h0, c0 = (rng.uniform(-1, 1, (p["batch"], p["units"])).astype(p["dtype"]) for _ in "hc")
        state = {"layer_0": {"h": h0, "c": c0}}
    h, c = oracle.lstm(
        spec["layer_0"].weights, x, h0, c0, p["activation"], p["recurrent"], p["backwards"]
    )
    given_x = x.swapaxes(0, 1) if p["time_major"] else x
    y, after = Model(spec, backend).predict(given_x, state=state, return_state=True)
    main = h if p["sequences"] else h[:, -1]
    if p["time_major"] and p["sequences"]:
        main = main.swapaxes(0, 1)
    scale = max(1.0, np.abs(h).max(), np.abs(c).max())  # relu and linear cells may grow
    tolerance = {"atol": ATOL[p["dtype"]] * scale, "rtol": 0}
    np.testing.assert_allclose(y["layer_0"], main, **tolerance)
    np.testing.assert_allclose(y["layer_0/h"], h[:, -1], **tolerance)
    np.testing.assert_allclose(y["layer_0/c"], c, **tolerance)
    np.testing.assert_array_equal(after["layer_0"]["h"], y["layer_0/h"])
    np.testing.assert_array_equal(after["layer_0"]["c"], y["layer_0/c"])
    assert y["layer_0"].dtype == p["dtype"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_stack_with_a_head_equals_the_oracle(backend: str, dtype: str) -> None:
    spec = make_chain(
        LSTM(3, 20, return_sequences=True), LSTM(20, 13), Dense(13, 4, Activation("softmax")),
        dtype=dtype,
    )  # fmt: skip
    x = np.random.default_rng(1).normal(size=(5, 11, 3)).astype(dtype)
    h, _ = oracle.lstm(spec["layer_0"].weights, x)
    h, _ = oracle.lstm(spec["layer_1"].weights, h)
    y = oracle.dense(spec["layer_2"].weights, h[:, -1], "softmax")
    np.testing.assert_allclose(Model(spec, backend).predict(x), y, atol=ATOL[dtype], rtol=0)


@pytest.mark.parametrize("gate", "ifco")
@pytest.mark.parametrize("letter", "WUb")
def test_every_weight_matters(gate: str, letter: str, backend: str) -> None:
    """What the oracle test could miss if the random weights hid it."""
    spec = make_chain(LSTM(3, 5))
    x = np.random.default_rng(2).normal(size=(2, 4, 3))
    y = Model(spec, backend).predict(x)
    layer = spec["layer_0"]
    changed = dict(layer.weights)
    changed[f"{letter}_{gate}"] = changed[f"{letter}_{gate}"] + np.float32(0.1)
    other = make_chain(LSTM(3, 5))
    object.__setattr__(other.layers[0], "weights", changed)
    assert np.abs(Model(other, backend).predict(x) - y).max() > 1e-4


def test_dense_acts_on_the_last_axis(backend: str) -> None:
    spec = make_chain(Dense(3, 7, Activation("tanh")), shape=("batch", 4, 5, 3), dtype="float64")
    x = np.random.default_rng(3).normal(size=(2, 4, 5, 3))
    expected = oracle.dense(spec["layer_0"].weights, x, "tanh")
    np.testing.assert_allclose(Model(spec, backend).predict(x), expected, atol=1e-14, rtol=0)


def test_long_sequences_do_not_drift(backend: str) -> None:
    spec = make_chain(LSTM(2, 6), shape=("batch", "steps", 2))
    x = np.random.default_rng(4).normal(size=(1, 2000, 2)).astype("float32")
    exact, _ = oracle.lstm(spec["layer_0"].weights, x)
    y = Model(spec, backend).predict(x)
    np.testing.assert_allclose(y, exact[:, -1], atol=ATOL["float32"], rtol=0)


def test_nan_and_inf_in_come_out_where_they_should(backend: str) -> None:
    spec = make_chain(LSTM(3, 5, return_sequences=True))
    x = np.random.default_rng(5).normal(size=(3, 6, 3)).astype("float32")
    x[1, 2, 0] = np.nan
    x[2, 2, :] = np.inf
    y = Model(spec, backend).predict(x)
    clean = x.copy()
    clean[1:] = 0
    assert np.isfinite(y[0]).all()
    assert np.isfinite(y[1, :2]).all()
    assert np.isnan(y[1, 2:]).all()
    with np.errstate(invalid="ignore"):
        reference = Model(spec, "numpy").predict(x)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(reference))


def test_saturated_gates_are_silent(backend: str) -> None:
    spec = make_chain(LSTM(3, 5))
    y = Model(spec, backend).predict(np.full((2, 4, 3), 1e4))
    assert np.isfinite(y).all()
