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
    with pytest.raises(ShapeError, match=r"x: expected integers up to 16777216, got 1\.5"):
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
