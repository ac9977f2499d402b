"""ModelSpec: everything that does not hold together is named, at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from builders import make_chain, make_layer

from npylstm import FormatError, Model, ModelSpec, ShapeError, UnsupportedError
from npylstm.activations import Activation
from npylstm.io.document import graph_from_json
from npylstm.ops.arithmetic import Constant
from npylstm.ops.cells import LSTM
from npylstm.ops.dense import Dense
from npylstm.ops.shaping import Reshape, Stack, Transpose
from npylstm.spec import Edge, LayerSpec, TensorSpec


def make(**changes: Any) -> ModelSpec:
    return replace(make_chain(LSTM(3, 4, return_sequences=True), Dense(4, 2)), **changes)


def test_lookup_by_name() -> None:
    spec = make()
    assert spec["layer_0"].kind == "lstm"
    assert spec["layer_0"].weights["W_i"].shape == (3, 4)
    with pytest.raises(KeyError, match="no layer 'lstm_7', the model has: layer_0, layer_1"):
        spec["lstm_7"]


def test_weights_are_frozen_and_belong_to_the_spec() -> None:
    kernel = np.ones((4, 2), "float32")
    layer = LayerSpec("d", Dense(4, 2, use_bias=False), {"kernel": kernel})
    kernel[:] = 5
    assert (layer.weights["kernel"] == 1).all()
    with pytest.raises(ValueError, match="read-only"):
        layer.weights["kernel"][0, 0] = 3
    with pytest.raises(TypeError):
        layer.weights["kernel"] = kernel  # type: ignore[index]


def with_weight(key: str, value: Any) -> LayerSpec:
    layer = make_layer("layer_1", Dense(4, 2), np.random.default_rng(0))
    return LayerSpec("layer_1", layer.layer, {**layer.weights, key: value})


F = np.float32


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (with_weight("bias", np.ones(3, F)), r"layer_1/bias: expected shape \(2,\), got \(3,\)"),
        (with_weight("bias", np.ones(2)), "layer_1/bias: expected float32, got float64"),
        (
            with_weight("bias", np.array([1, np.nan], F)),
            "layer_1/bias: expected finite numbers, got 1 nan or inf",
        ),
        (
            with_weight("gamma", np.ones(2, F)),
            "layer_1/gamma: unexpected, expected only kernel, bias",
        ),
        (LayerSpec("layer_1", Dense(4, 2)), r"layer_1/bias: missing, expected shape \(2,\)"),
    ],
)
def test_wrong_weights_are_named(layer: LayerSpec, message: str) -> None:
    spec = make()
    with pytest.raises(FormatError, match=message):
        replace(spec, layers=(spec.layers[0], layer))


def test_all_problems_are_said_at_once() -> None:
    spec = make()
    with pytest.raises(FormatError) as caught:
        replace(
            spec, layers=(spec.layers[0], with_weight("bias", np.ones(3))), outputs=("nowhere",)
        )
    assert "layer_1/bias: expected shape" in str(caught.value)
    assert "output 'nowhere': no such tensor" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": "float16"}, "dtype: expected one of float32, float64, got 'float16'"),
        ({"outputs": ()}, "at least one input and one output"),
        ({"outputs": ("layer_1", "layer_1")}, "outputs: used twice"),
        ({"inputs": (TensorSpec("x", ("batch", "batch", 3)),)}, "at most one axis called 'batch'"),
        ({"inputs": (TensorSpec("x", ("batch", 0, 3)),)}, "expected positive sizes, got 0"),
        ({"inputs": (TensorSpec("x", ("batch", 5, 7)),)}, r"layer_0: expected 3 features, got an input \(batch, 5, 7\)"),
        ({"inputs": (TensorSpec("x", ("batch", 3)),)}, r"layer_0: expected an input of 3 axes, got \(batch, 3\)"),
        ({"inputs": (TensorSpec("x", ("steps", "batch", 3)),)}, r"layer_0: lstm runs along axis 1 of \(steps, batch, 3\): that is the batch"),
        ({"name": "\ud800"}, "spec: a name or value is not UTF-8 JSON"),
        ({"provenance": {"x": float("nan")}}, "spec: a name or value is not UTF-8 JSON"),
        ({"edges": (Edge("layer_0", ("x",), ("layer_0",)),)}, "layer_1: never called"),
        ({"edges": (Edge("layer_9", ("x",), ("y",)),)}, "layer 'layer_9' is not there"),
        ({"edges": (Edge("layer_0", ("q",), ("y",)),)}, "layer_0: tensor 'q' is not there"),
        ({"edges": (Edge("layer_0", ("x",), ("a", "b")),)}, "layer_0: expected 1 new outputs"),
        ({"edges": (Edge("layer_0", ("x",), ("x",)),)}, "layer_0: expected 1 new outputs"),
    ],
)  # fmt: skip
def test_contradictions_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        make(**changes)


@pytest.mark.parametrize("name", ["", "npylstm", "case", "a/b", "a\\b", "..", "a\nb"])
def test_names_that_cannot_be_keys_are_refused(name: str) -> None:
    layer = make_layer(name, Dense(3, 2), np.random.default_rng(0))
    with pytest.raises(FormatError, match="layer name"):
        ModelSpec.chain([layer], TensorSpec("x", ("batch", 3)))


def test_two_layers_of_one_name_are_refused() -> None:
    layer = make_layer("d", Dense(3, 3), np.random.default_rng(0))
    with pytest.raises(FormatError, match="layer name 'd': used twice"):
        ModelSpec(
            (layer, layer), (Edge.call(layer, "x"),), (TensorSpec("x", ("batch", 3)),), ("d",)
        )


@pytest.mark.parametrize(
    ("make_it", "message"),
    [
        (lambda: LSTM(0, 3), "features: expected a positive integer, got 0"),
        (lambda: Dense(3, -1), "units: expected a positive integer, got -1"),
        (lambda: Reshape(((0, 0), 2, 0)), "shape: expected positive sizes"),
        (lambda: Reshape(((0, 0), -1, -1)), "shape: expected positive sizes and at most one -1"),
        (lambda: Transpose((0, 1, 3)), r"axes: expected a permutation of 0..2, got \(0, 1, 3\)"),
        (lambda: Stack(1, 0), "times: expected a positive integer"),
        (
            lambda: Dense(3, 2, Activation.of("softmax", axis=1)),
            "activation: expected softmax along axis -1",
        ),
    ],
)
def test_impossible_configs_are_refused(make_it: Any, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        make_it()


def test_shapes_follow_symbols() -> None:
    spec = make_chain(Reshape(((0, 0), -1)), Reshape(((0, 0), -1, 3)))
    assert spec.shapes["layer_0"] == ("batch", "steps*3")
    assert spec.shapes["layer_1"][0] == "batch"
    with pytest.raises(FormatError, match="cannot be reshaped to"):
        make_chain(Reshape(((0, 0), 4)), shape=("batch", 3, 2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format_version=3), "reads up to 2, the file has 3; install a newer"),
        (lambda d: d.update(format_version=0), "expected a positive integer"),
        (lambda d: d.pop("format_version"), "format_version: expected int, got None"),
        (lambda d: d["layers"][0].update(kind="gru2"), "layer_0: unknown kind 'gru2', expected one of lstm"),
        (lambda d: d["layers"][0]["config"].pop("units"), "layer_0: config key 'units' is missing"),
        (lambda d: d["layers"][0]["config"].update(units=True), "units: expected an integer, got True"),
        (lambda d: d["layers"][0]["config"].update(size=3), "unknown config key 'size'"),
        (lambda d: d["layers"][0]["config"].update(use_bias=1), "use_bias: expected true or false"),
        (lambda d: d["layers"][0]["config"].update(activation="tahn"), "activation: .*unknown name 'tahn'"),
        (lambda d: d.update(layers={}), "layers: expected list"),
        (lambda d: d.update(outputs=[1]), "outputs: expected a list of strings"),
        (lambda d: d["inputs"][0].update(shape=[1.5]), "shape: expected integers and symbols"),
    ],
)  # fmt: skip
def test_damaged_json_is_named(change: Any, message: str) -> None:
    document = make().to_json()
    change(document)
    with pytest.raises(FormatError, match=message):
        graph_from_json(document)


def test_a_constant_without_axes() -> None:
    layer = LayerSpec("half", Constant(()), {"value": np.float32(0.5)})
    assert layer.weights["value"].shape == ()
    assert list(layer.problems("float32")) == []


def test_steps_that_a_layer_fixes_are_not_freed() -> None:
    flat = make_chain(
        LSTM(3, 4, return_sequences=True),
        Reshape(((0, 0), -1)),
        Dense(20, 1),
        shape=("batch", 5, 3),
    )
    with pytest.raises(UnsupportedError, match=r"\(batch, 5, 3\) cannot be free: .*20"):
        flat.with_free_steps()


def test_another_number_of_steps_names_the_way_out() -> None:
    model = Model(make_chain(LSTM(3, 4), shape=("batch", 5, 3)))
    with pytest.raises(ShapeError, match=r"got \(2, 9, 3\); model.with_free_steps\(\)"):
        model.predict(np.zeros((2, 9, 3)))
    with pytest.raises(ShapeError, match=r"got \(2, 9, 4\)$"):
        model.predict(np.zeros((2, 9, 4)))
    assert model.with_free_steps().predict(np.zeros((2, 9, 3))).shape == (2, 4)
