"""Corners of Keras' rules where a plausible reading gives other numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import npylstm_converters as nc
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from keras_graphs import FRAMEWORKS, assert_parity, convert, make_inputs, randomise, refused, run

from npylstm import Model, UnsupportedError

# Operations in a model that is called step by step: axes are those of one step.
STEP_BY_STEP: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "mean": ("keras3", lambda i: keras.ops.mean(i, axis=1)),
    "softmax": ("keras3", lambda i: keras.ops.softmax(i, axis=1)),
    "last step": ("keras3", lambda i: i[:, -1]),
    "new axis": ("keras3", lambda i: keras.ops.squeeze(keras.ops.expand_dims(i, 1), 1)),
    "turned": ("keras3", lambda i: i[:, ::-1]),
    "tf mean": ("tf_keras", lambda i: tf.reduce_mean(i, axis=1)),
    "tf softmax": ("tf_keras", lambda i: tf.nn.softmax(i, axis=1)),
    "tf slice": ("tf_keras", lambda i: i[:, 1:3]),
}


@pytest.mark.parametrize("name", STEP_BY_STEP)
def test_operations_step_by_step(name: str, tmp_path: Path) -> None:
    framework, make = STEP_BY_STEP[name]
    k = FRAMEWORKS[framework]
    i = k.Input((4, 3))
    inner = k.Model(i, make(k.layers.Dense(3)(i)))
    x = k.Input((4, 4, 3))
    model = k.Model(x, k.layers.TimeDistributed(inner)(x))
    randomise(model, 2)
    xs = make_inputs(model, 3, 4, 1)
    for way in ("live", "keras"):
        assert_parity(convert(model, way, tmp_path), [(xs, run(model, xs))])


@pytest.mark.parametrize("operation", ["add", "multiply", "maximum", "subtract"])
def test_operations_in_hdf5_are_no_layers(operation: str, tmp_path: Path) -> None:
    """There Keras 3 leaves out where a class is from; masks end at operations, not at layers."""
    x = keras.Input((5, 3))
    y = keras.layers.Masking()(x)
    z = getattr(keras.ops, operation)(y, keras.ops.tanh(y))
    model = keras.Model(x, keras.layers.LSTM(4)(z))
    randomise(model, 3)
    xs = make_inputs(model, 3, 5, 1)
    xs[0][1, 2:] = 0
    for way in ("keras", "h5"):
        assert_parity(convert(model, way, tmp_path), [(xs, run(model, xs))])


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_masks_behind_normalization(framework: str, tmp_path: Path) -> None:
    k, L = FRAMEWORKS[framework], FRAMEWORKS[framework].layers
    layers = [L.Masking(), L.Normalization(mean=[1.0, 2.0], variance=[1.0, 4.0]), L.LSTM(3)]
    try:
        model = k.Sequential([k.Input((5, 2)), *layers])
    except TypeError:
        assert framework == "tf_keras"  # where it does not support masking
        return
    randomise(model, 3)
    xs = make_inputs(model, 3, 5, 1)
    xs[0][1, 2:] = 0
    assert_parity(convert(model, "keras", tmp_path), [(xs, run(model, xs))])


def test_adjoints_are_transposes(tmp_path: Path) -> None:
    a, b = tf_keras.Input((4, 4)), tf_keras.Input((4, 4))
    model = tf_keras.Model([a, b], tf_keras.layers.LSTM(3)(tf.linalg.matmul(a, b, adjoint_b=True)))
    randomise(model, 3)
    xs = make_inputs(model, 3, 4, 1)
    assert_parity(convert(model, "h5", tmp_path), [(xs, run(model, xs))])


def test_arguments_that_are_not_understood_are_refused() -> None:
    a = tf_keras.Input((4, 4))
    model = tf_keras.Model(a, tf.nn.softmax(a, axis=1) + tf.math.lgamma(a))
    assert any("operation 'math.lgamma' is not supported" in reason for reason in refused(model))


def test_whole_numbers_of_tensorflow_are_refused() -> None:
    a = tf_keras.Input((6,), dtype="int32", name="a")
    y = tf_keras.layers.Dense(2)(tf.cast(tf.reduce_mean(a, axis=1, keepdims=True), "float32"))
    assert any("with integers" in reason for reason in refused(tf_keras.Model(a, y)))


@keras.saving.register_keras_serializable("corners")
class Embedding(keras.layers.Layer):
    """The user's own, not Keras'."""

    mask_zero = True

    def call(self, x: Any) -> Any:
        return 2 * x

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "mask_zero": True}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Embedding:
        config.pop("mask_zero")
        return cls(**config)


def test_a_class_of_the_users_makes_no_mask(tmp_path: Path) -> None:
    x = keras.Input((5, 3))
    model = keras.Model(x, keras.layers.LSTM(4)(Embedding(name="own")(x)))
    randomise(model, 3)
    model.save(tmp_path / "model.keras")
    spec = nc.from_keras(tmp_path / "model.keras", custom={"Embedding": lambda x: 2 * x})
    xs = make_inputs(model, 3, 5, 1)
    assert_parity(spec, [(xs, run(model, xs))])


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_only_softmax_layers_use_a_mask_that_they_are_given(framework: str) -> None:
    k, L = FRAMEWORKS[framework], FRAMEWORKS[framework].layers
    x, mask = k.Input((5, 3)), k.Input((5, 3))
    wrapped = L.TimeDistributed(L.Activation("softmax"), name="wrapped")
    model = k.Model([x, mask], wrapped(x, mask=mask))  # Keras does not pass it on
    assert "wrapped: is called with mask=a tensor" in refused(model)


@pytest.mark.parametrize(("between", "integer"), [("ReLU", True), ("Rescaling", False)])
def test_which_inputs_of_embeddings_are_ids(between: str, integer: bool) -> None:
    L = keras.layers
    layer = L.ReLU() if between == "ReLU" else L.Rescaling(255.0)
    x = keras.Input((5,))
    model = keras.Model(x, L.LSTM(3)(L.Embedding(256, 4)(layer(x))))
    randomise(model, 2)
    spec = nc.from_keras(model)
    assert spec.inputs[0].integer == integer
    ids = np.arange(10, dtype="float32").reshape(2, 5) / (1 if integer else 255)
    y = Model(spec, "numpy").predict(ids)
    np.testing.assert_allclose(y, run(model, [ids])[0], atol=1e-6)


def test_branches_that_meet_again_cost_little() -> None:
    x = y = keras.Input((3,))
    for _ in range(60):
        y = keras.layers.Concatenate(axis=0)(
            [keras.layers.Identity()(y), keras.layers.Identity()(y)]
        )
    with pytest.raises(UnsupportedError):  # it mixes samples: but it says so at once
        nc.from_keras(keras.Model(x, y))


def test_states_of_a_time_major_layer_as_inputs() -> None:
    k, L = tf_keras, tf_keras.layers
    x, h, c = k.Input((None, 3)), k.Input((4,)), k.Input((4,))
    layer = L.LSTM(4, time_major=True, return_sequences=True)
    model = k.Model([x, h, c], layer(x, initial_state=[h, c]))
    randomise(model, 5)
    spec = nc.from_keras(model)
    assert [t.shape for t in spec.inputs] == [("steps", "batch", 3), ("batch", 4), ("batch", 4)]
    rng = np.random.default_rng(0)
    xs = [rng.normal(size=s).astype("float32") for s in ((5, 2, 3), (2, 4), (2, 4))]
    assert_parity(spec, [(xs, run(model, xs))])


@pytest.mark.parametrize("scale", [1.0, 30.0])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["Attention", "MultiHeadAttention"])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_where_nothing_may_be_looked_at(
    framework: str, kind: str, dtype: str, scale: float
) -> None:
    """Scores are lowered by 1e9 there, of which float32 keeps steps of 64 and float64 all."""
    if (framework, kind, dtype) == ("keras3", "MultiHeadAttention", "float64"):
        return  # TensorFlow rounds 1 / sqrt(3) to float32 on its way there
    k, L = FRAMEWORKS[framework], FRAMEWORKS[framework].layers
    x, b = k.Input((4, 3), dtype=dtype), k.Input((4, 3), dtype=dtype)
    y = L.Add(dtype=dtype)([L.Masking(dtype=dtype)(x), L.Masking(dtype=dtype)(b)])
    made = L.Attention(dtype=dtype)([y, y]) if kind == "Attention" else None
    if made is None:
        made = L.MultiHeadAttention(2, 3, dtype=dtype)(y, y)
    model = k.Model([x, b], L.Dense(2, dtype=dtype)(made))
    randomise(model, 3)
    xs = [scale * a.astype(dtype) for a in make_inputs(model, 3, 4, 1)]
    xs[0][1] = 0
    xs[1][1, 1:] = 0
    if framework == "keras3":
        xs[1][1] = 0
    assert_parity(nc.from_keras(model), [(xs, run(model, xs))])


def test_masks_that_are_spelt_out_at_length(tmp_path: Path) -> None:
    """Each operation is read once: a chain of forty has a million million ways through it."""
    x = keras.Input((5, 3))
    masking = keras.layers.Masking()
    y, mask = masking(x), masking.compute_mask(x)
    for _ in range(40):
        mask = keras.ops.logical_or(mask, mask)
    model = keras.Model(x, keras.layers.LSTM(4)(y, mask=mask))
    randomise(model, 3)
    xs = make_inputs(model, 3, 5, 1)
    xs[0][1, 2:] = 0
    assert_parity(convert(model, "keras", tmp_path), [(xs, run(model, xs))])


ODD: dict[str, tuple[str, Any]] = {
    "value_dim of text": ("value_dim", "abc"),
    "value_dim in a list": ("value_dim", [3]),
    "dropout beyond floats": ("dropout", 10**400),
    "output_shape of text": ("output_shape", "x"),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_values_are_refused(name: str, tmp_path: Path) -> None:
    x = keras.Input((4, 3))
    model = keras.Model(x, keras.layers.MultiHeadAttention(2, 3, name="look")(x, x))
    document = json.loads(model.to_json())
    entry = next(e for e in document["config"]["layers"] if e["name"] == "look")
    key, value = ODD[name]
    entry["config"][key] = value
    (tmp_path / "model.json").write_text(json.dumps(document))
    model.save_weights(tmp_path / "model.weights.h5")
    with pytest.raises(UnsupportedError, match="look: "):
        nc.from_keras(tmp_path / "model.weights.h5", architecture=tmp_path / "model.json")


def test_cells_that_are_no_list(tmp_path: Path) -> None:
    x = tf_keras.Input((4, 3))
    model = tf_keras.Model(x, tf_keras.layers.RNN([tf_keras.layers.LSTMCell(2)], name="stack")(x))
    document = json.loads(model.to_json())
    model.save_weights(tmp_path / "model_weights.h5")
    entry = next(e for e in document["config"]["layers"] if e["name"] == "stack")
    for cells in (5, None, {"a": 1}):
        entry["config"]["cell"]["config"]["cells"] = cells
        (tmp_path / "model.json").write_text(json.dumps(document))
        with pytest.raises(UnsupportedError, match="stack: "):
            nc.from_keras(tmp_path / "model_weights.h5", architecture=tmp_path / "model.json")


@pytest.mark.parametrize("ledger", [None, 5, "abc", [5], [{}], {"a": 1}, [{"source": 1}]])
def test_a_ledger_that_is_none(
    ledger: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import dataclasses

    import npylstm
    from npylstm.cli import main

    model = keras.Sequential([keras.Input((4, 3)), keras.layers.LSTM(2)])
    spec = nc.from_keras(model)
    provenance = {**spec.provenance, "tensors": ledger}
    npylstm.save(dataclasses.replace(spec, provenance=provenance), tmp_path / "m.npz")
    assert main(["info", str(tmp_path / "m.npz")]) == 0
    assert "tensor of the source" not in capsys.readouterr().out
    assert Model(spec).backend


MASK_ENDS: dict[str, Any] = {
    "last step": lambda y: y[:, -1, :],
    "later steps": lambda y: tf_keras.layers.GRU(2)(y[:, 1:]),
    "mean": lambda y: tf.reduce_mean(y, axis=1),
    "sum": lambda y: tf_keras.layers.GRU(2)(y + 1.0),
}


@pytest.mark.parametrize("name", MASK_ENDS)
def test_masks_end_at_functions_of_tensorflow(name: str, tmp_path: Path) -> None:
    """A slice behind a merge of masked tensors: later layers see no mask."""
    L, ids = tf_keras.layers, tf_keras.Input((None,), dtype="int32")
    embedded = L.Embedding(9, 4, mask_zero=True)(ids)
    merged = L.Concatenate()([L.LSTM(4, return_sequences=True)(embedded), embedded])
    model = tf_keras.Model(ids, L.Dense(2)(MASK_ENDS[name](merged)))
    randomise(model, 3)
    xs = [np.array([[3, 1, 0, 0], [2, 5, 6, 7]], "float32")]
    assert_parity(convert(model, "h5", tmp_path), [(xs, run(model, xs))])


def test_a_function_that_may_pass_a_mask_on() -> None:
    """A cast to its own type returns the tensor itself, with its mask."""
    L, ids = tf_keras.layers, tf_keras.Input((None,), dtype="int32")
    y = tf.cast(L.Embedding(9, 4, mask_zero=True)(ids), "float32")
    (reason,) = refused(tf_keras.Model(ids, L.LSTM(2)(y)))
    assert "an operation on a masked tensor, whose mask TensorFlow may pass on" in reason
