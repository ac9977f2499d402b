"""What cannot be converted is refused, with every reason at once, naming the layers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import npylstm_converters as nc
import numpy as np
import pytest
import tf_keras

from npylstm import FormatError, UnsupportedError

L = keras.layers


def sequential(*layers: Any) -> Any:
    return keras.Sequential([keras.Input((6, 3)), *layers])


def test_a_class_of_the_users_own_under_one_of_keras_names(tmp_path: Path) -> None:
    class Dense(L.Dense):
        def call(self, x: Any) -> Any:
            return 2 * super().call(x)

    model = sequential(L.TimeDistributed(Dense(3), name="wrapped"), Dense(2, name="bare"))
    model.save(tmp_path / "model.keras")
    for source in (model, tmp_path / "model.keras"):
        with pytest.raises(UnsupportedError) as caught:
            nc.from_keras(source)
        own = "layer class 'Dense' is a class of the user's own"
        found = {reason.partition(";")[0] for reason in caught.value.reasons}
        assert {f"wrapped: {own}", f"bare: {own}"} <= found


def test_all_reasons_at_once() -> None:
    model = sequential(
        L.Conv1DTranspose(4, 2, name="conv"), L.LSTM(5, activation="sparsemax", name="odd"), L.EinsumDense("ab,bc->ac", 2, name="norm")
    )  # fmt: skip
    with pytest.raises(UnsupportedError) as caught:
        nc.from_keras(model)
    assert caught.value.reasons == (
        "conv: layer class 'Conv1DTranspose' is not supported",
        "odd: activation 'sparsemax' is not supported",
        "norm: layer class 'EinsumDense' is not supported",
    )


@pytest.mark.parametrize("framework", [keras, tf_keras], ids=["keras3", "tf_keras"])
def test_states_that_a_call_leaves_to_another(framework: Any) -> None:
    k = framework.layers
    pair = k.Bidirectional(k.LSTM(2, stateful=True, return_sequences=True), name="pair")
    x = framework.Input(batch_shape=(2, 4, 3))
    y = framework.Input(batch_shape=(2, 4, 3))
    shared = framework.Model([x, y], [pair(x), pair(y)])
    z = framework.Input(batch_shape=(2, 5, 4, 3))
    inside = k.TimeDistributed(k.LSTM(2, stateful=True), name="inside")
    part = framework.Sequential(
        [framework.Input(batch_shape=(2, 4, 3)), k.LSTM(2, stateful=True, name="kept")]
    )
    of_a_model = framework.Model(z, k.TimeDistributed(part, name="all")(z))
    with pytest.raises(UnsupportedError, match=r"kept: TimeDistributed\(LSTM\) with stateful=True"):
        nc.from_keras(of_a_model)
    for model, reason in (
        (shared, "pair: is stateful and called twice"),
        (
            framework.Model(z, inside(z)),
            "inside: TimeDistributed(LSTM) with stateful=True is not supported: the state goes on from "
            "one outer step to the next",
        ),
    ):
        with pytest.raises(UnsupportedError) as caught:
            nc.from_keras(model)
        assert caught.value.reasons == (reason,)


@keras.saving.register_keras_serializable("mine")
class Custom(L.Layer):
    def call(self, x: Any) -> Any:
        return x


@keras.saving.register_keras_serializable("mine")
def activation_of_mine(x: Any) -> Any:
    return x * 2


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (lambda: Custom(name="a"), "a: layer class 'Custom' is a class of the user's own"),
        (lambda: L.Lambda(lambda x: x, name="a"), "a: layer class 'Lambda' is not supported"),
        (lambda: L.Dense(3, activation=activation_of_mine, name="a"), "a: activation .*activation_of_mine"),
        (lambda: L.Dense(3, dtype="float16", name="a"), "a: dtype 'float16' is not supported: it computes in reduced precision"),
        (lambda: L.TimeDistributed(L.Conv1DTranspose(2, 1), name="a"), "a: layer class 'Conv1DTranspose' is not supported"),
        (lambda: L.Flatten(data_format="channels_first", name="a"), "a: Flatten with data_format='channels_first'"),
        (lambda: L.Bidirectional(L.RNN([L.GRUCell(2), L.GRUCell(3)]), name="a"), "a: RNN of 2 cells is not supported"),
    ],
)  # fmt: skip
def test_reasons(layer: Any, reason: str) -> None:
    if "TimeDistributed" in reason:
        model = keras.Sequential([keras.Input((4, 6, 3)), layer()])
    else:
        model = sequential(layer())
    with pytest.raises(UnsupportedError, match=reason):
        nc.from_keras(model)


def swish(x: Any) -> Any:
    """Not Keras' own, but of its name."""
    return x * keras.ops.sigmoid(1.7 * x)


class LSTM(L.LSTM):
    """Not Keras' own, but of its name."""

    def call(
        self, sequences: Any, initial_state: Any = None, mask: Any = None, training: bool = False
    ) -> Any:
        return -super().call(sequences, initial_state, mask, training)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (lambda: L.Dense(3, activation=swish, name="a"), "a: activation 'swish' is a function of the user's own"),
        (lambda: L.LSTM(3, recurrent_activation=swish, name="a"), "a: recurrent_activation 'swish' is a function"),
        (lambda: LSTM(3, name="a"), "a: layer class 'LSTM' is a class of the user's own"),
    ],
)  # fmt: skip
def test_impostors_in_model_objects(layer: Any, reason: str) -> None:
    with pytest.raises(UnsupportedError, match=reason):
        nc.from_keras(sequential(layer()))


@pytest.mark.parametrize("dtype", ["bool", "float16"])
def test_inputs_that_keras_would_cut(dtype: str) -> None:
    model = keras.Sequential([keras.Input((6, 3), dtype=dtype, name="x"), L.LSTM(2)])
    with pytest.raises(UnsupportedError, match=f"x: inputs of dtype '{dtype}' are not supported"):
        nc.from_keras(model)


def edited(change: Any) -> Any:
    """A tf_keras model whose config somebody else wrote."""
    model = tf_keras.Sequential(
        [
            tf_keras.Input((6, 3)),
            tf_keras.layers.LSTM(4, name="lstm"),
            tf_keras.layers.Dense(2, name="d"),
        ]
    )
    document = json.loads(model.to_json())
    change({layer["config"]["name"]: layer for layer in document["config"]["layers"]}, document)
    model.to_json = lambda: json.dumps(document)
    return model


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda l, d: l["lstm"]["config"].update(peephole=True), "lstm: config not understood: peephole=True"),
        (lambda l, d: l["lstm"]["config"].update(units="4"), "lstm: units: expected a positive integer, got '4'"),
        (lambda l, d: l["lstm"]["config"].update(units=5), r"lstm: .*kernel.*expected shape \(3, 20\), got \(3, 16\)"),
        (lambda l, d: l["lstm"]["config"].update(use_bias=False), "lstm: expected the weights kernel, recurrent_kernel; found .*bias"),
        (lambda l, d: l["d"]["config"].pop("units"), "d: config has no 'units'"),
        (lambda l, d: l["d"].update(class_name="Dropout"), "d: config not understood"),
        (lambda l, d: (l["lstm"]["config"].pop("recurrent_activation"), d.update(keras_version="2.2.4-tf")), "recurrent_activation is missing and Keras 2.2.4-tf had two defaults"),
        (lambda l, d: d["config"]["layers"].pop(), r"weights: d/kernel:0 \(4, 2\) belongs to no layer"),
        (lambda l, d: d.update(class_name="MyModel"), "model class 'MyModel' is not supported: its graph is code"),
    ],
)  # fmt: skip
def test_configs_that_are_not_understood(change: Any, reason: str) -> None:
    with pytest.raises(UnsupportedError, match=reason):
        nc.from_keras(edited(change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda l, d: d.update(config=3), "Sequential: expected a list of layers"),
        (lambda l, d: d["config"].update(layers=[]), "Sequential: expected a list of layers"),
        (lambda l, d: d["config"]["layers"].append(7), "expected a layer, got 7"),
        (lambda l, d: l["d"]["config"].update(name="lstm"), "two layers are named 'lstm'"),
        (lambda l, d: l["d"]["config"].update(name=""), "Dense: expected a name"),
        (lambda l, d: d.pop("class_name"), "expected an object with a class_name"),
        (lambda l, d: l["lstm"]["config"].update(return_sequences=True) or l["lstm_input" if "lstm_input" in l else next(iter(l))]["config"].update(batch_input_shape=[None, 5, 7]), "contradicts itself: lstm: expected 3 features"),
    ],
)  # fmt: skip
def test_damaged_configs(change: Any, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        nc.from_keras(edited(change))


@pytest.mark.parametrize("missing", ["recurrent_activation", "activation", "use_bias"])
@pytest.mark.parametrize(("version", "gates"), [("2.2.0", "hard_sigmoid_fifth"), ("2.3.0", "sigmoid"), ("1.2.2", "hard_sigmoid_fifth"), ("3.0.0", "sigmoid")])  # fmt: skip
def test_a_missing_key_means_the_writers_default(missing: str, version: str, gates: str) -> None:
    def change(layers: Any, document: Any) -> None:
        layers["lstm"]["config"].pop(missing)
        document.update(keras_version=version)

    config = nc.from_keras(edited(change))["lstm"].config
    assert config["use_bias"] is True
    assert config["activation"] == "tanh"
    if missing == "recurrent_activation":
        assert config["recurrent_activation"] == gates


def test_subclassed_models_say_what_to_do() -> None:
    class Mine(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = L.Dense(2)

        def call(self, x: Any) -> Any:
            return self.dense(x)

    model = Mine()
    model(np.zeros((1, 3)))
    with pytest.raises(
        UnsupportedError, match="Sequential or functional model around the same layers"
    ):
        nc.from_keras(model)


def test_things_that_are_no_model() -> None:
    with pytest.raises(FormatError, match="expected a path or a Keras model, got int"):
        nc.from_keras(3)
    with pytest.raises(FormatError, match="int: no importer knows this kind of source"):
        nc.convert(3)
