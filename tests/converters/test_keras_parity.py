"""Live Keras 3 and tf_keras models, drawn at random, against both back ends.

Weights are random in every gate, biases never zero. The tolerance follows the report's rule: the
difference must be of the size of float32 rounding in this very model (``npylstm/parity.py``).
"""

from __future__ import annotations

from typing import Any

import keras
import npylstm_converters as nc
import numpy as np
import pytest
import tf_keras
from backends import BACKENDS
from hypothesis import given, settings
from hypothesis import strategies as st
from keras_graphs import check
from sampling import example_count

from npylstm import Model
from npylstm.spec import Case

FRAMEWORKS = {"keras3": keras, "tf_keras": tf_keras}

GATES = ["sigmoid", "hard_sigmoid", "softmax", "softsign", "tanh", "linear", "relu", "elu"]
CELLS = ["tanh", "relu", "linear", "softsign", "elu", "selu", "sigmoid", "hard_sigmoid", "gelu",
         "swish", "softplus", "mish"]  # fmt: skip


def randomise(model: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = []
    for array in model.get_weights():
        spread = 0.8 / np.sqrt(array.shape[0]) if array.ndim == 2 else 0.5
        values = rng.uniform(-1, 1, array.shape) * spread
        weights.append((values + 0.05 * np.sign(values)).astype(array.dtype))
    model.set_weights(weights)


def assert_parity(model: Any, x: np.ndarray) -> None:
    spec = nc.from_keras(model)
    y = model(x, training=False)
    outputs = y if isinstance(y, (list, tuple)) else [y]
    case = Case({spec.inputs[0].name: x}, dict(zip(spec.outputs, map(np.asarray, outputs), strict=True)))  # fmt: skip
    for backend in BACKENDS:
        check(Model(spec.with_cases([case]), backend))


@st.composite
def stacks(draw: Any) -> dict[str, Any]:
    lstms = [
        {
            "units": draw(st.integers(1, 40)),
            "activation": draw(st.sampled_from(CELLS)),
            "recurrent_activation": draw(st.sampled_from(GATES)),
            "use_bias": draw(st.booleans()),
            "go_backwards": draw(st.booleans()),
            "unroll": False,
        }
        for _ in range(draw(st.integers(1, 3)))
    ]
    return {
        "lstms": lstms,
        "features": draw(st.integers(1, 9)),
        "steps": draw(st.integers(1, 30)),
        "batch": draw(st.integers(1, 7)),
        "fixed_steps": draw(st.booleans()),
        "sequences": draw(st.booleans()),
        "return_state": draw(st.booleans()),
        "functional": draw(st.booleans()),
        "seed": draw(st.integers(0, 2**20)),
    }


@pytest.mark.parametrize("framework", FRAMEWORKS)
@settings(max_examples=example_count(40))
@given(stack=stacks())
def test_stacks_of_lstms(framework: str, stack: dict[str, Any]) -> None:
    k = FRAMEWORKS[framework]
    steps = stack["steps"] if stack["fixed_steps"] else None
    inputs = k.Input((steps, stack["features"]))
    layers = []
    for n, options in enumerate(stack["lstms"]):
        last = n == len(stack["lstms"]) - 1
        layers.append(k.layers.LSTM(
            **options, return_sequences=not last or stack["sequences"],
            return_state=last and stack["functional"] and stack["return_state"],
        ))  # fmt: skip
    if stack["functional"]:
        y = inputs
        for layer in layers:
            y = layer(y)
        model = k.Model(inputs, y)
    else:
        model = k.Sequential([inputs, *layers])
    randomise(model, stack["seed"])
    rng = np.random.default_rng(stack["seed"])
    x = rng.normal(size=(stack["batch"], stack["steps"], stack["features"])).astype("float32")
    assert_parity(model, x)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("recurrent", GATES)
@pytest.mark.parametrize("activation", CELLS)
def test_every_pair_of_activations(framework: str, activation: str, recurrent: str) -> None:
    k = FRAMEWORKS[framework]
    lstm = k.layers.LSTM(5, activation=activation, recurrent_activation=recurrent)
    model = k.Sequential([k.Input((None, 3)), lstm])
    randomise(model, 1)
    assert_parity(model, np.random.default_rng(2).normal(size=(3, 7, 3)).astype("float32"))


ALL = ["elu", "exponential", "gelu", "hard_sigmoid", "leaky_relu", "linear", "log_softmax", "mish",
       "relu", "relu6", "selu", "sigmoid", "silu", "softmax", "softplus", "softsign", "swish",
       "tanh"]  # fmt: skip
KERAS3_ONLY = ["celu", "hard_shrink", "hard_silu", "hard_swish", "hard_tanh", "log_sigmoid", "soft_shrink",
               "sparse_plus", "sparse_sigmoid", "squareplus", "tanh_shrink"]  # fmt: skip


@pytest.mark.parametrize(
    ("framework", "name"),
    [(f, n) for f in FRAMEWORKS for n in ALL] + [("keras3", n) for n in KERAS3_ONLY],
)
def test_every_activation_by_name(framework: str, name: str) -> None:
    k = FRAMEWORKS[framework]
    layers = [k.layers.Activation(name), k.layers.Dense(4, activation=name)]
    model = k.Sequential([k.Input((3, 6)), *layers])
    randomise(model, 3)
    scale = 1 if name == "exponential" else 4  # of an exponential of one nothing is left
    x = scale * np.random.default_rng(4).normal(size=(5, 3, 6)).astype("float32")
    assert_parity(model, x)


def test_no_activation_of_keras_is_forgotten() -> None:
    known = {*ALL, *KERAS3_ONLY}
    theirs = set(keras.src.activations.ALL_OBJECTS_DICT)
    refused = {"glu", "sparsemax", "threshold"}  # need a neighbour, a sort, or two arguments
    assert theirs - known == refused


def shapers(k: Any) -> dict[str, list[Any]]:
    """Chains of all the layers around LSTM, for one framework."""
    L = k.layers
    relu = {"max_value": 1.5, "negative_slope": 0.1, "threshold": 0.2}
    leaky = {"negative_slope": 0.2} if k is keras else {"alpha": 0.2}
    chains = {
        "dense per step": [L.LSTM(5, return_sequences=True), L.TimeDistributed(L.Dense(4, activation="tanh")), L.Dense(2, use_bias=False)],
        "noise": [L.Dropout(0.5), L.GaussianNoise(0.1), L.SpatialDropout1D(0.3), L.LSTM(4, dropout=0.2, recurrent_dropout=0.3), L.AlphaDropout(0.1), L.GaussianDropout(0.2), L.ActivityRegularization(0.1), L.Dense(2)],
        "shapes": [L.Permute((2, 1)), L.Reshape((3, 2, 3)), L.Reshape((-1, 9)), L.LSTM(4, return_sequences=True), L.Flatten(), L.RepeatVector(3), L.LSTM(2)],
        "activation layers": [L.LSTM(5, return_sequences=True), L.ReLU(**relu), L.LeakyReLU(**leaky), L.ELU(0.7), L.Softmax(axis=1), L.Softmax()],
        "activations that are layers": [L.LSTM(5, activation=L.LeakyReLU(**leaky)), L.Dense(3, activation=L.ReLU(max_value=0.4))],
        "time distributed": [L.TimeDistributed(L.Dropout(0.2)), L.TimeDistributed(L.Activation("softmax")), L.LSTM(2, unroll=True)],
        "options without effect": [L.LSTM(5, kernel_regularizer="l2", bias_constraint="non_neg", kernel_initializer="ones", unit_forget_bias=False, trainable=False)],
    }  # fmt: skip
    if k is tf_keras:
        chains["thresholded"] = [L.LSTM(5, implementation=1), L.ThresholdedReLU(0.1)]
    return chains


@pytest.mark.parametrize(
    ("framework", "chain"), [(f, c) for f, k in FRAMEWORKS.items() for c in shapers(k)]
)
def test_layers_around_lstm(framework: str, chain: str) -> None:
    k = FRAMEWORKS[framework]
    model = k.Sequential([k.Input((6, 3)), *shapers(k)[chain]])
    randomise(model, 5)
    assert_parity(model, np.random.default_rng(6).normal(size=(4, 6, 3)).astype("float32"))


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_float64_models(framework: str) -> None:
    k = FRAMEWORKS[framework]
    lstm, dense = k.layers.LSTM(6, dtype="float64"), k.layers.Dense(2, dtype="float64")
    model = k.Sequential([k.Input((None, 3), dtype="float64"), lstm, dense])
    randomise(model, 7)
    spec = nc.from_keras(model)
    assert spec.dtype == "float64"
    x = np.random.default_rng(8).normal(size=(3, 9, 3))
    for backend in BACKENDS:
        y = Model(spec, backend).predict(x)
        np.testing.assert_allclose(y, np.asarray(model(x)), atol=1e-14, rtol=0)


def test_time_major_of_tf_keras() -> None:
    inputs = tf_keras.Input(batch_shape=(6, None, 3))
    y = tf_keras.layers.LSTM(4, time_major=True, return_sequences=True)(inputs)
    model = tf_keras.Model(inputs, tf_keras.layers.LSTM(2, time_major=True)(y))
    randomise(model, 9)
    assert_parity(model, np.random.default_rng(10).normal(size=(6, 5, 3)).astype("float32"))


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


# Long enough for errors to add up, wide enough for a mean to be steady. 1.5 is the promise.
@pytest.mark.parametrize(("features", "units", "steps"), [(1, 20, 50), (1, 100, 5), (64, 128, 100), (9, 40, 30)])  # fmt: skip
def test_rms_error_is_no_larger_than_keras(
    features: int, units: int, steps: int, backend: str
) -> None:
    keras.utils.set_random_seed(11)
    model = keras.Sequential([keras.Input((None, features)), keras.layers.LSTM(units, return_sequences=True)])  # fmt: skip
    spec = nc.from_keras(model)
    x = np.random.default_rng(12).normal(size=(32, steps, features)).astype("float32")
    exact = Model(spec.astype("float64"), "numpy").predict(x)
    ours = rms(Model(spec, backend).predict(x) - exact)
    theirs = rms(model.predict(x, verbose=0) - exact)
    assert ours <= 1.5 * theirs
