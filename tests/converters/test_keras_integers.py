"""Integer inputs that are no ids: exact as floats, and refused where Keras computes otherwise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import npylstm_converters as nc
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from npylstm_converters.keras import integer_types, nodes
from npylstm_converters.keras.rows import ROWS

import npylstm
from npylstm import ShapeError, UnsupportedError

FRAMEWORKS: dict[str, Any] = {"keras3": keras, "tf_keras": tf_keras}
X = np.random.default_rng(1).integers(-9, 9, (3, 6, 2))


def built(k: Any, body: Callable[[Any, Any], Any], dtype: str) -> Any:
    x = k.Input((6, 2), dtype=dtype, name="x")
    model = k.Model(x, body(k.layers, x))
    rng = np.random.default_rng(0)
    weights = [np.abs(rng.normal(size=w.shape)) * 0.3 for w in model.get_weights()]
    model.set_weights(weights)
    return model


BODIES: dict[str, Callable[[Any, Any], Any]] = {
    "lstm": lambda L, x: L.LSTM(3)(x),
    "bidirectional": lambda L, x: L.Bidirectional(L.GRU(3))(x),
    "dense": lambda L, x: L.Dense(3, activation="tanh")(x),
    "rescaling": lambda L, x: L.LSTM(3)(L.Rescaling(0.25)(x)),
    "normalization": lambda L, x: L.LSTM(3)(
        L.Normalization(mean=[1.0, 2.0], variance=[3.0, 4.0])(x)
    ),
    "flatten": lambda L, x: L.Dense(3)(L.Flatten()(x)),
    "masking": lambda L, x: L.LSTM(3)(L.Masking(mask_value=0)(x)),
    "add": lambda L, x: L.Dense(3)(L.Add()([x, L.ReLU()(x)])),
    "average": lambda L, x: L.Dense(3)(L.Average()([x, L.Permute((1, 2))(x)])),
    "mean": lambda L, x: L.Dense(3)(L.GlobalAveragePooling1D()(x)),
    "pooling": lambda L, x: L.LSTM(3)(L.MaxPooling1D(2)(x)),
}
# tf_keras cannot build these, or computes the mean of integers, which it cuts.
KERAS3_ONLY = ("lstm", "bidirectional", "masking", "mean", "pooling")
CASES = [(f, b) for f in FRAMEWORKS for b in BODIES if f == "keras3" or b not in KERAS3_ONLY]


@pytest.mark.parametrize("dtype", ["int32", "int64"])
@pytest.mark.parametrize(("framework", "body"), CASES)
def test_numbers(framework: str, body: str, dtype: str) -> None:
    model = built(FRAMEWORKS[framework], BODIES[body], dtype)
    spec = nc.from_keras(model)
    assert spec.inputs[0].integer
    y = npylstm.Model(spec).predict(X)
    np.testing.assert_allclose(y, np.asarray(model(X.astype(dtype))), rtol=2e-5, atol=2e-6)


def test_cases_are_recorded_with_integers(tmp_path: Path) -> None:
    model = built(keras, BODIES["lstm"], "int32")
    model.save(tmp_path / "m.keras")
    report = nc.compare(nc.convert(tmp_path / "m.keras"), tmp_path / "m.keras")
    assert report.passed


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_small_integers_into_weights(framework: str) -> None:
    """A layer with weights converts them; a sum of uint8 would wrap around."""
    k = FRAMEWORKS[framework]
    model = built(k, BODIES["dense"], "uint8")
    y = npylstm.Model(nc.from_keras(model)).predict(np.abs(X))
    np.testing.assert_allclose(y, np.asarray(model(np.abs(X).astype("uint8"))), rtol=2e-5)
    with pytest.raises(UnsupportedError, match="x: inputs of dtype 'uint8' are supported for"):
        nc.from_keras(built(k, BODIES["add"], "uint8"))


def test_what_keras_would_cut() -> None:
    """Keras truncates 1.5 to 1; npylstm says that an integer is expected."""
    model = npylstm.Model(nc.from_keras(built(keras, BODIES["lstm"], "int32")))
    with pytest.raises(ShapeError, match=r"x: expected integers up to 16777215, got 1\.5"):
        model.predict(np.full((1, 6, 2), 1.5))


def test_a_mean_that_tensorflow_cuts() -> None:
    model = built(tf_keras, BODIES["mean"], "int32")
    with pytest.raises(
        UnsupportedError, match=r"pooling1d.*: TensorFlow computes it with integers"
    ):
        nc.from_keras(model)


FUNCTIONS: dict[str, tuple[Callable[[Any], Any], bool]] = {
    "a sum of ids": (lambda x: tf.one_hot(tf.reduce_sum(x, axis=-1) % 7, 7), True),
    "a float mean": (lambda x: tf.reduce_mean(tf.cast(x, tf.float32), axis=1, keepdims=True), True),
    "a mean of integers": (
        lambda x: tf.cast(tf.reduce_mean(x, axis=1, keepdims=True), tf.float32),
        False,
    ),
    "a mean of indices": (
        lambda x: tf.cast(tf.reduce_mean(tf.argmax(x, axis=1), axis=-1), tf.float32)[:, None, None],
        False,
    ),
    "a mean of cut floats": (
        lambda x: tf.cast(
            tf.reduce_mean(tf.cast(tf.cast(x, tf.float32) * 0.4, tf.int32), 1, True), tf.float32
        ),
        False,
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_integers_in_tensorflow(name: str) -> None:
    """TensorFlow cuts the mean of integers, wherever they come from."""
    function, exact = FUNCTIONS[name]
    model = built(tf_keras, lambda L, x: L.LSTM(3)(function(x)), "int32")
    if not exact:
        with pytest.raises(UnsupportedError, match="TensorFlow computes it with integers"):
            nc.from_keras(model)
        return
    y = npylstm.Model(nc.from_keras(model)).predict(np.abs(X))
    np.testing.assert_allclose(y, np.asarray(model(np.abs(X))), rtol=2e-5, atol=2e-6)


IDS = np.arange(12).reshape(2, 6) * 13  # times 100003: below 2**24

# Functions of ids (batch, 6), how a larger id than those shows, and the layer that says so.
COMPUTED: dict[str, tuple[Callable[[Any], Any], int, str]] = {
    "a hash": (lambda x: keras.ops.mod(x * 100003 + 7, 97), 4999, "multiply"),
    "a square": (lambda x: keras.ops.mod(keras.ops.square(x), 97), 4999, "square"),
    "a power": (lambda x: keras.ops.mod(keras.ops.power(x, 3), 97), 4999, "power"),
    "a total": (lambda x: keras.ops.mod(keras.ops.cumsum(x * 1000, 1), 97), 16000, "cumsum"),
    "an array": (lambda x: keras.ops.mod(x * np.array([1, 2, 3, 4, 5, 7001]), 97), 4999, "multiply"),
    "a layer": (lambda x: keras.ops.mod(keras.layers.Multiply()([x, x]), 97), 4999, "multiply"),
    "behind a choice": (
        lambda x: keras.ops.mod(keras.ops.where(x > 9, x, 3) * 100003, 97), 4999, "multiply"),
    "indices": (
        lambda x: keras.ops.mod(
            x * 0 + (keras.ops.argmax(x, 1, keepdims=True) + keras.ops.max(x, 1, keepdims=True))
            * 100003, 97), 4999, "multiply"),
    "of 16 bits": (lambda x: keras.ops.mod(keras.ops.cast(x, "int16") * 99, 97), 4999, "multiply"),
}  # fmt: skip


@pytest.mark.parametrize("backend", ["numpy", "auto"])
@pytest.mark.parametrize("name", COMPUTED)
def test_integers_that_floats_do_not_hold(name: str, backend: str) -> None:
    """Of larger ids, float32 would hold rounded products; the rows looked up would be others."""
    function, large, layer = COMPUTED[name]
    x = keras.Input((6,), dtype="int32")
    model = keras.Model(x, keras.layers.Embedding(97, 2)(function(x)))
    own = npylstm.Model(nc.from_keras(model), backend)
    np.testing.assert_array_equal(own.predict(IDS), np.asarray(model(IDS)))
    said = rf"{layer}[_0-9a-z.]*: expected integers from -\d+ to \d+"
    with pytest.raises(ShapeError, match=said):
        own.predict(np.full((1, 6), large))


@pytest.mark.parametrize(
    "function", [
        lambda x: keras.ops.cast(x, "float32") * 100003, lambda x: x * 100003.0,
        lambda x: keras.ops.mean(x * 1000, 1) * 100003,
        lambda x: (x + keras.ops.ones_like(x, dtype="float32")) * 100003,
        lambda x: keras.ops.convert_to_tensor(x, dtype="float32") * 100003,
    ],
)  # fmt: skip
def test_large_floats_are_no_integers(function: Any) -> None:
    x = keras.Input((6,), dtype="int32")
    model = keras.Model(x, function(x))
    ids = IDS + 5000
    y = npylstm.Model(nc.from_keras(model)).predict(ids)
    np.testing.assert_allclose(y, np.asarray(model(ids)), rtol=1e-6)


def test_a_number_that_floats_do_not_hold() -> None:
    x = keras.Input((6,), dtype="int32")
    with pytest.raises(UnsupportedError, match="computes integers with 16777217, which float32"):
        nc.from_keras(keras.Model(x, x - 16777217))


def test_functions_with_known_types_have_rows() -> None:
    known = {*integer_types._OF_OPERANDS, *integer_types._TOTALS, *integer_types._INDICES}
    known |= {*integer_types._TRUTH}
    assert known <= {*ROWS, *nodes.ROWS}
