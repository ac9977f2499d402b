"""Weights-only files with numbered arrays (``.weights.h5``), joined by a chain."""

from __future__ import annotations

import importlib
import shlex
from pathlib import Path
from typing import Any

import h5py
import npylstm_converters as nc
import numpy as np
import pytest
from npylstm_converters.keras.runner import KerasRunner

import npylstm
from npylstm.cli import main

KERASES = ("keras", "tf_keras")
CELLS = ("LSTM", "GRU", "SimpleRNN")


def randomised(model: Any) -> Any:
    rng = np.random.default_rng(len(model.weights))
    for layer in model.layers:
        layer.set_weights([rng.uniform(0.1, 0.9, w.shape) - 0.5 for w in layer.get_weights()])
        if type(layer).__name__ == "BatchNormalization":
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    return model


@pytest.fixture(params=KERASES)
def keras(request: pytest.FixtureRequest) -> Any:
    return importlib.import_module(request.param)


def saved(model: Any, folder: Path) -> Path:
    randomised(model).save_weights(folder / "m.weights.h5")
    return folder / "m.weights.h5"


def agrees(model: Any, path: Path, x: Any, layers: str) -> npylstm.ModelSpec:
    spec = nc.from_keras(path, layers=layers)
    y = npylstm.Model(spec, backend="numpy").predict(x)
    np.testing.assert_allclose(y, np.asarray(model(x)), rtol=0, atol=1e-5)
    return spec


X = np.random.default_rng(7).standard_normal((3, 6, 3)).astype(np.float32)


@pytest.mark.parametrize("cell", CELLS)
def test_the_command_of_info_gives_the_numbers_of_keras(
    keras: Any, cell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ten or more layers of a class: `dense_10` stands behind `dense_9`."""
    k = keras.layers
    recurrent = getattr(k, cell)
    model = keras.Sequential([
        k.Input((None, 3)), k.Bidirectional(recurrent(4, return_sequences=True), name="both"),
        k.BatchNormalization(), k.Dropout(0.3), k.TimeDistributed(k.Dense(6)), recurrent(5),
        *(k.Dense(5, activation="relu") for _ in range(10)), k.Dense(2, name="head"),
    ])  # fmt: skip
    path = saved(model, tmp_path)
    assert main(["info", str(path)]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert "time_distributed(relu)" in line  # two products in a row would be one
    line = line.replace("time_distributed(relu)", "time_distributed(linear)")
    command = shlex.split(line.replace("MODEL.npz", str(tmp_path / "m.npz")))
    assert main(command[1:]) == 0
    out = capsys.readouterr().out
    assert "the engine agrees with" in out
    y = npylstm.load(tmp_path / "m.npz", backend="numpy").predict(X)
    np.testing.assert_allclose(y, np.asarray(model(X)), rtol=0, atol=1e-5)


def test_the_chain_tells_the_order(keras: Any, tmp_path: Path) -> None:
    """Keras would pair the groups with the layers by class and count."""
    k = keras.layers
    x = k.Input((None, 4))
    second = k.LSTM(4, name="made_first")
    first = k.LSTM(4, return_sequences=True, name="made_second")
    inner = keras.Model(x, k.Dense(2, name="head")(second(first(x))))
    path = saved(inner, tmp_path)
    data = np.random.default_rng(0).standard_normal((2, 5, 4)).astype(np.float32)
    agrees(inner, path, data, "lstm(sequences) -> lstm_1(last) -> dense")
    twisted = nc.from_keras(path, layers="lstm_1(sequences) -> lstm(last) -> dense")
    y = npylstm.Model(twisted, backend="numpy").predict(data)
    assert np.abs(y - np.asarray(inner(data))).max() > 1e-2
    # Keras would load the weights in the order of its own counting; recording keeps to the chain.
    recorded = nc.record(
        twisted, KerasRunner(path, twisted, layers="lstm_1(sequences) -> lstm(last) -> dense")
    )
    npylstm.Model(recorded, backend="numpy").verify().check()


def test_names_of_the_model_serve_where_they_are_written(tmp_path: Path) -> None:
    import keras

    k = keras.layers
    model = keras.Sequential([k.Input((None, 3)), k.LSTM(4, name="rnn"), k.Dense(2, name="head")])
    path = saved(model, tmp_path)
    spec = agrees(model, path, X, "rnn(last) -> head")
    assert [layer.name for layer in spec.layers] == ["lstm", "dense"]


def test_a_name_that_is_also_a_group_means_the_group(tmp_path: Path) -> None:
    """Automatic names count on from model to model, those of groups begin anew."""
    import keras

    k = keras.layers
    names = ("dense_1", "dense")
    model = keras.Sequential([k.Input((3,)), *(k.Dense(3, name=n) for n in names)])
    path = saved(model, tmp_path)
    agrees(model, path, X[:, 0], "dense(linear) -> dense_1(linear)")


def test_a_subclassed_model(tmp_path: Path) -> None:
    import keras

    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = keras.layers.LSTM(4)
            self.fc = keras.layers.Dense(2, activation="tanh")
            self.blocks = [keras.layers.Dense(2), keras.layers.Dense(3)]

        def call(self, x: Any) -> Any:
            x = self.fc(self.rnn(x))
            for block in self.blocks:
                x = block(x)
            return x

    model = Net()
    model(X)
    path = saved(model, tmp_path)
    agrees(model, path, X, "lstm(last) -> fc(tanh) -> dense(linear) -> dense_1(linear)")


def test_arrays_that_may_be_two_things_are_asked_for(keras: Any, tmp_path: Path) -> None:
    k = keras.layers
    model = keras.Sequential([
        k.Input((None, 3)), k.LSTM(4), k.BatchNormalization(center=False), k.Dense(2)
    ])  # fmt: skip
    path = saved(model, tmp_path)
    with pytest.raises(npylstm.UnsupportedError, match=r"batch_normalization.*shows no layer"):
        nc.from_keras(path, layers="lstm(last) -> batch_normalization -> dense(linear)")


def test_nothing_is_left_over_in_silence(keras: Any, tmp_path: Path) -> None:
    k = keras.layers
    model = keras.Sequential([k.Input((None, 3)), k.LSTM(4), k.Dense(4), k.Dense(2)])
    path = saved(model, tmp_path)
    with pytest.raises(npylstm.UnsupportedError, match=r"dense_1.*is not in layers"):
        nc.from_keras(path, layers="lstm(last) -> dense(linear)")
    with pytest.raises(npylstm.UnsupportedError, match="output: is no layer of the file"):
        nc.from_keras(path, layers="lstm(last) -> dense(linear) -> dense_1(linear) -> output")


def test_a_group_of_a_class_with_weights_that_holds_none(tmp_path: Path) -> None:
    import keras

    model = keras.Sequential([keras.layers.Input((None, 3)), keras.layers.LSTM(4)])
    path = saved(model, tmp_path)
    with h5py.File(path, "a") as file:
        file.create_group("layers/dense/vars")
    with pytest.raises(npylstm.NpylstmError, match="dense"):
        nc.from_keras(path, layers="lstm(last) -> dense")
