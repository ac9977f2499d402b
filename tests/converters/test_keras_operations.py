"""Operations on tensors between Keras' layers, against both Kerases."""

from __future__ import annotations

import json
import zipfile
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

import npylstm
from npylstm import UnsupportedError

# On sequences a and b (batch, 6, 4); what comes out is whatever it is.
BOTH: dict[str, Callable[[Any, Any], Any]] = {
    "last step": lambda a, b: a[:, -1],
    "last step, whole": lambda a, b: a[:, -1, :],
    "some steps": lambda a, b: a[:, 1:-1],
    "every other": lambda a, b: a[:, ::2, 1:],
    "one feature": lambda a, b: a[..., 0],
    "one feature of some steps": lambda a, b: a[:, 2:5, 1],
    "sum": lambda a, b: a + b,
    "difference": lambda a, b: a - b,
    "product": lambda a, b: a * b,
    "quotient": lambda a, b: a / (b * b + 1.0),
    "number behind": lambda a, b: a * 2.5,
    "number in front": lambda a, b: 1.0 - a,
    "number in front, divided": lambda a, b: 2.0 / (a * a + 1.0),
    "times nothing": lambda a, b: a * 0 + b,
    "negative": lambda a, b: -a,
    "power": lambda a, b: a**2.0,
    "several": lambda a, b: (a + b)[:, -1] * 0.5 - b[:, 0],
}
KERAS_3: dict[str, Callable[[Any, Any], Any]] = {
    "mean": lambda a, b: keras.ops.mean(a, axis=1),
    "mean, kept": lambda a, b: a - keras.ops.mean(a, axis=-1, keepdims=True),
    "sum of two axes": lambda a, b: keras.ops.sum(a, axis=(1, 2), keepdims=True),
    "largest": lambda a, b: keras.ops.max(a, axis=1),
    "smallest": lambda a, b: keras.ops.min(a, axis=2),
    "concatenation": lambda a, b: keras.ops.concatenate([a, b], axis=-1),
    "one after the other": lambda a, b: keras.ops.concatenate([a, b, a], axis=1),
    "stack": lambda a, b: keras.ops.stack([a, b], axis=2),
    "new axis": lambda a, b: keras.ops.expand_dims(a, axis=-1),
    "old axis": lambda a, b: keras.ops.squeeze(a[:, :1], axis=1),
    "reshape": lambda a, b: keras.ops.reshape(a, (-1, 8, 3)),
    "transpose": lambda a, b: keras.ops.transpose(a, (0, 2, 1)),
    "matmul": lambda a, b: keras.ops.matmul(a, keras.ops.transpose(b, (0, 2, 1))),
    "maximum": lambda a, b: keras.ops.maximum(a, b),
    "softmax over steps": lambda a, b: keras.ops.softmax(a, axis=1),
    "softmax over steps that come first": lambda a, b: keras.ops.transpose(
        keras.ops.softmax(keras.ops.transpose(a, (1, 0, 2)), axis=0), (1, 0, 2)
    ),
    "activations": lambda a, b: keras.ops.tanh(keras.ops.relu(a)) + keras.ops.sigmoid(b),
    "exp, abs, sqrt": lambda a, b: keras.ops.exp(-a) + keras.ops.sqrt(keras.ops.absolute(b)),
    "attention by hand": lambda a, b: keras.ops.sum(
        a * keras.ops.softmax(keras.ops.sum(a * b, axis=-1, keepdims=True), axis=1), axis=1
    ),
}
TF_KERAS: dict[str, Callable[[Any, Any], Any]] = {
    "mean": lambda a, b: tf.reduce_mean(a, axis=1),
    "mean, kept": lambda a, b: a - tf.reduce_mean(a, axis=-1, keepdims=True),
    "sum of two axes": lambda a, b: tf.reduce_sum(a, axis=[1, 2], keepdims=True),
    "largest": lambda a, b: tf.reduce_max(a, 1),
    "concatenation": lambda a, b: tf.concat([a, b], axis=-1),
    "one after the other": lambda a, b: tf.concat([a, b, a], 1),
    "stack": lambda a, b: tf.stack([a, b], axis=2),
    "new axis": lambda a, b: tf.expand_dims(a, axis=-1),
    "old axis": lambda a, b: tf.squeeze(a[:, :1], axis=1),
    "reshape": lambda a, b: tf.reshape(a, (-1, 8, 3)),
    "transpose": lambda a, b: tf.transpose(a, (0, 2, 1)),
    "matmul, turned": lambda a, b: tf.matmul(a, b, transpose_b=True),
    "maximum": lambda a, b: tf.maximum(a, b),
    "softmax over steps": lambda a, b: tf.nn.softmax(a, axis=1),
    "activations": lambda a, b: tf.tanh(tf.nn.relu(a)) + tf.sigmoid(b),
    "exp, abs, sqrt": lambda a, b: tf.exp(-a) + tf.sqrt(tf.abs(b)),
}
CASES = [
    *((f, name, make) for f in FRAMEWORKS for name, make in BOTH.items()),
    *(("keras3", name, make) for name, make in KERAS_3.items()),
    *(("tf_keras", name, make) for name, make in TF_KERAS.items()),
]


def build(framework: str, make: Callable[[Any, Any], Any]) -> Any:
    k = FRAMEWORKS[framework]
    a, b = k.Input((6, 4), name="a"), k.Input((6, 4), name="b")
    y = k.layers.LSTM(4, activation="softsign", return_sequences=True)(a)
    model = k.Model([a, b], make(y, k.layers.Dense(4)(b)))
    randomise(model, 8)
    return model


@pytest.mark.parametrize(
    ("framework", "name", "make"), CASES, ids=[f"{f}-{n}" for f, n, _ in CASES]
)
@pytest.mark.one_in(2)
def test_operations(framework: str, name: str, make: Any, tmp_path: Path) -> None:
    model = build(framework, make)
    xs = make_inputs(model, 3, 6, 2)
    runs = [(xs, run(model, xs))]
    assert_parity(nc.from_keras(model), runs)
    # tf_keras itself cannot write an ellipsis to its newer form.
    assert_parity(convert(model, "keras" if framework == "keras3" else "h5", tmp_path), runs)


def test_operations_around_free_steps(tmp_path: Path) -> None:
    L, a = keras.layers, keras.Input((None, 3))
    y = L.LSTM(4, return_sequences=True)(a)
    model = keras.Model(a, L.Dense(2)(y[:, -1] + keras.ops.mean(y, axis=1)))
    randomise(model, 9)
    runs = [(xs, run(model, xs)) for xs in (make_inputs(model, 3, n, n) for n in (1, 5, 9))]
    assert_parity(convert(model, "keras", tmp_path), runs)


REFUSED: dict[str, Callable[[Any, Any], Any]] = {
    "operation 'Median' is not supported": lambda a, b: keras.ops.median(a, axis=1),
    "takes entry 0 along axis 0 of (batch, 6, 4): that is the batch": lambda a, b: a[0],
    "takes the mean along axis 0 of (batch, 6, 4): that is the batch": lambda a, b: keras.ops.mean(
        a
    ),
    "takes the mean along axis 0": lambda a, b: a - keras.ops.mean(a, axis=0),
    "takes the max along axis 0": lambda a, b: keras.ops.max(a, axis=0, keepdims=True) + a,
    "concatenates along axis 0": lambda a, b: keras.ops.concatenate([a, a], axis=0),
    "shape [-1, 4]: would mix samples": lambda a, b: keras.ops.reshape(a, (-1, 4)),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_refusals(reason: str) -> None:
    (only,) = refused(build("keras3", REFUSED[reason]))
    assert reason in only


@pytest.mark.parametrize("axis", [0, 1])
def test_softmax_does_not_mix_samples(axis: int) -> None:
    """The batch is the first axis of what goes in; transposed, the second."""

    def make(a: Any, b: Any) -> Any:
        return keras.ops.softmax(keras.ops.transpose(a, (1, 0, 2)) if axis else a, axis=axis)

    with pytest.raises(
        UnsupportedError, match=rf"softmax along axis {axis} of .*that is the batch"
    ):
        nc.from_keras(build("keras3", make))


def test_an_unknown_key_in_a_file(tmp_path: Path) -> None:
    model = build("keras3", lambda a, b: keras.ops.softmax(a + b, axis=1))
    model.save(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as source:
        members = {name: source.read(name) for name in source.namelist()}
    text = members["config.json"].decode()
    members["config.json"] = text.replace('"axis": 1', '"axis": 1, "temperature": 0.5').encode()
    with zipfile.ZipFile(tmp_path / "odd.keras", "w") as target:
        for name, data in members.items():
            target.writestr(name, data)
    nc.from_keras(tmp_path / "m.keras")
    with pytest.raises(UnsupportedError, match=r"softmax.*: .*temperature=0\.5"):
        nc.from_keras(tmp_path / "odd.keras")


def test_a_node_of_a_graph(tmp_path: Path) -> None:
    """As tf.keras wrote it up to TensorFlow 2.3."""
    a = tf_keras.Input((6, 4), name="a")
    y = tf_keras.layers.GRU(3, activation="softsign", reset_after=False)(a[:, 1:5, 2:])
    model = tf_keras.Model(a, y)
    randomise(model, 3)
    xs = make_inputs(model, 2, 6, 1)
    document = json.loads(model.to_json())
    (entry,) = (e for e in document["config"]["layers"] if e["class_name"] == "SlicingOpLambda")
    attributes = {"begin_mask": 1, "end_mask": 5, "ellipsis_mask": 0, "new_axis_mask": 0,
                  "shrink_axis_mask": 0}  # fmt: skip
    node = {"name": "cut", "op": "StridedSlice", "input": ["a", "cut/begin", "cut/end", "cut/strides"],
            "attr": {k: {"i": str(v)} for k, v in attributes.items()}}  # fmt: skip
    constants = {"1": [0, 1, 2], "2": [0, 5, 0], "3": [1, 1, 1]}
    for key in ("module", "registered_name", "build_config"):
        entry.pop(key, None)
    entry["class_name"] = "TensorFlowOpLayer"
    entry["config"] = {"name": "cut", "trainable": True, "dtype": "float32", "node_def": node,
                       "constants": constants}  # fmt: skip
    entry["inbound_nodes"] = [[["a", 0, 0, {}]]]
    (tmp_path / "model.json").write_text(json.dumps(document))
    model.save_weights(tmp_path / "model_weights.h5")
    spec = nc.from_keras(tmp_path / "model_weights.h5", architecture=tmp_path / "model.json")
    assert_parity(spec, [(xs, run(model, xs))])


def test_masks_end_at_operations(tmp_path: Path) -> None:
    L, a = keras.layers, keras.Input((6, 3))
    y = L.Masking()(a) * 2.0
    model = keras.Model(a, L.LSTM(4)(y))
    randomise(model, 4)
    x = np.random.default_rng(1).normal(size=(3, 6, 3)).astype("float32")
    x[1, 2:] = 0
    assert_parity(convert(model, "keras", tmp_path), [([x], run(model, [x]))])


NAN, INF = np.nan, np.inf
EXTREMES = np.array([[
    [NAN, 1, 2], [1, NAN, 2], [-1, NAN, -2], [INF, NAN, 3], [-INF, NAN, -INF], [NAN] * 3, [NAN, -INF, NAN],
    [NAN, INF, NAN], [0.0, -0.0, 0.0], [-0.0, 0.0, -0.0], [-1, -0.0, 0.0], [1, 0.0, -0.0], [-0.0, NAN, 0.0],
]], "float32")  # fmt: skip


@pytest.mark.parametrize("name", ["argmax", "argmin"])
@pytest.mark.parametrize("backend", ["numpy", "auto"])
def test_extremes_of_nan_and_of_zeros(name: str, backend: str) -> None:
    """TensorFlow finds no nan; Keras 3 takes -0.0 for less than 0.0, and TensorFlow does not."""
    x = keras.Input((13, 3))
    found = getattr(keras.ops, name)
    models = [
        keras.Model(x, [found(x, axis=-1), found(x, axis=1, keepdims=True)]),
        keras.Model(x, found(keras.ops.round(x * 0.2), axis=-1)),
        keras.Model(x, found(keras.ops.cast(x > 5, "int32") * -3, axis=-1)),  # -0 here only
    ]
    old = tf_keras.Input((13, 3))
    models += [tf_keras.Model(old, getattr(tf.math, name)(old, axis=-1))]
    for model in models:
        y = npylstm.Model(nc.from_keras(model), backend).predict(EXTREMES)
        ours = [*y.values()] if isinstance(y, dict) else [y]
        theirs = model(EXTREMES)
        theirs = theirs if isinstance(theirs, list) else [theirs]
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, np.asarray(b))
