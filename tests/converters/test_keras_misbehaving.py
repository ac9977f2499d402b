"""Keras files that are not as Keras writes them: decided from what is in them, and told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import npylstm_converters as nc
import numpy as np
import pytest
import tf_keras
from keras_graphs import assert_parity, convert, make_inputs, randomise, run

from npylstm import UnsupportedError

L = tf_keras.layers


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A model, and its file."""
    path = tmp_path_factory.mktemp("saved") / "model.h5"
    model = build()
    model.save(path)
    return model, path


def build() -> Any:
    inner = tf_keras.Sequential([tf_keras.Input((6, 4)), L.GRU(5, return_sequences=True)])
    layers = [tf_keras.Input((6, 3)), L.LSTM(4, return_sequences=True), inner,
              L.Bidirectional(L.LSTM(3)), L.Dense(2)]  # fmt: skip
    model = tf_keras.Sequential(layers)
    model.compile("adam", "mse")
    model.fit(np.zeros((2, 6, 3)), np.zeros((2, 2)), verbose=0)  # the optimizer has arrays then
    randomise(model, 3)
    return model


def rename(group: h5py.Group, change: Callable[[str], str]) -> None:
    """Give the arrays of a layer other names."""
    names = [n.decode() if isinstance(n, bytes) else n for n in group.attrs["weight_names"]]
    arrays = [group[name][()] for name in names]
    for name in {n.split("/")[0] for n in names}:
        del group[name]
    for name, array in zip(names, arrays, strict=True):
        group[change(name)] = array
    group.attrs["weight_names"] = [change(name).encode() for name in names]


def renamed(change: Callable[[str], str]) -> Callable[[h5py.File], None]:
    def alter(file: h5py.File) -> None:
        for name in file["model_weights"]:
            if len(file["model_weights"][name].attrs.get("weight_names", ())):
                rename(file["model_weights"][name], change)

    return alter


def configured(change: Callable[[Any], Any]) -> Callable[[h5py.File], None]:
    def alter(file: h5py.File) -> None:
        document = json.loads(file.attrs["model_config"])
        made = change(document)
        file.attrs["model_config"] = json.dumps(document if made is None else made)

    return alter


def stale_shapes(document: Any) -> None:
    layers = document["config"]["layers"]
    for layer in layers[2:]:  # the first after the input says nothing else
        layer["config"]["batch_input_shape"] = [None, 99, 77]
        if layer["class_name"] == "Bidirectional":
            layer["config"]["layer"]["config"]["batch_input_shape"] = [32, 1, 1]


def without_input(document: Any) -> None:
    document["config"]["layers"].pop(0)
    document["config"]["layers"][0]["config"].pop("batch_input_shape", None)
    document["config"].pop("build_input_shape", None)


def attribute(name: str) -> Callable[[h5py.File], None]:
    def alter(file: h5py.File) -> None:
        file.attrs[name] = file.attrs["model_config"]
        del file.attrs["model_config"]

    return alter


def own_data(file: h5py.File) -> None:
    file["notes/loss"] = np.arange(5.0)
    file.attrs["author"] = "somebody"
    file["model_weights"].attrs["scaler_mean"] = np.arange(3.0)


def without_version(file: h5py.File) -> None:
    for group in (file, file["model_weights"]):
        for name in ("keras_version", "backend"):
            group.attrs.pop(name, None)


ALTERED: dict[str, Callable[[h5py.File], None]] = {
    "as it is": lambda file: None,
    "names without :0": renamed(lambda n: n.removesuffix(":0")),
    "a model's name in front": renamed(lambda n: f"model_1/{n}"),
    "cells with numbers": renamed(lambda n: n.replace("lstm_cell", "lstm_cell_7")),
    "stale shapes": configured(stale_shapes),
    "no input shape": configured(without_input),
    "config a list": configured(lambda d: {**d, "config": d["config"]["layers"]}),
    "config in a text": configured(lambda d: json.dumps(d)),
    "config under model_config": configured(lambda d: {"model_config": d, "keras_version": "2.13"}),
    "config under model": configured(lambda d: {"model": d}),
    "config in a topology": configured(lambda d: {"modelTopology": {"model_config": d}}),
    "attribute model": attribute("model"),
    "attribute config": attribute("config"),
    "own data": own_data,
    "no version": without_version,
}


@pytest.mark.parametrize("name", ALTERED)
def test_altered_files(name: str, saved: tuple[Any, Path], tmp_path: Path) -> None:
    model, path = saved
    xs = make_inputs(model, 3, 6, 1)
    shutil.copy(path, tmp_path)
    with h5py.File(tmp_path / "model.h5", "r+") as file:
        ALTERED[name](file)
    assert_parity(nc.convert(tmp_path / "model.h5"), [(xs, run(model, xs))])


def test_the_decision_on_a_missing_version_is_told(saved: tuple[Any, Path], tmp_path: Path) -> None:
    shutil.copy(saved[1], tmp_path)
    with h5py.File(tmp_path / "model.h5", "r+") as file:
        without_version(file)
    decisions = nc.convert(tmp_path / "model.h5").provenance["decisions"]
    assert any("no version; the config's keys are Keras 2's" in text for text in decisions)


@pytest.mark.parametrize("way", ["keras", "h5"])
def test_counters_that_are_not_those_of_the_names(way: str, tmp_path: Path) -> None:
    layers = [L.LSTM(3, return_sequences=True, name="lstm_1"), L.LSTM(3, name="lstm"), L.Dense(2)]
    model = tf_keras.Sequential([tf_keras.Input((None, 3)), *layers])
    randomise(model, 4)
    xs = make_inputs(model, 2, 5, 1)
    spec = convert(model, way, tmp_path)
    assert [layer.name for layer in spec.layers] == ["lstm_1", "lstm", layers[2].name]
    assert_parity(spec, [(xs, run(model, xs))])


def test_a_name_that_says_otherwise_is_told(tmp_path: Path) -> None:
    model = tf_keras.Sequential([tf_keras.Input((None, 3)), L.LSTM(2, name="reversed_lstm_1")])
    decisions = convert(model, "h5", tmp_path).provenance["decisions"]
    assert any(text.startswith("reversed_lstm_1: runs forwards") for text in decisions)


def test_an_array_that_nobody_takes_is_named(saved: tuple[Any, Path], tmp_path: Path) -> None:
    shutil.copy(saved[1], tmp_path)
    with h5py.File(tmp_path / "model.h5", "r+") as file:
        weights = file["model_weights"]
        weights["spare/spare_array"] = np.zeros((2, 3), "float32")
        weights["spare"].attrs["weight_names"] = [b"spare_array"]
        weights.attrs["layer_names"] = np.append(weights.attrs["layer_names"], "spare").astype("S")
    with pytest.raises(UnsupportedError, match=r"spare_array \(2, 3\) belongs to no layer"):
        nc.convert(tmp_path / "model.h5")
    (path,) = (
        reason.split()[1]
        for reason in _reasons(tmp_path / "model.h5")
        if "belongs to no layer" in reason
    )
    spec = nc.convert(tmp_path / "model.h5", allow_unused=[path])
    left = [e["source"] for e in spec.provenance["tensors"] if not e["layer"]]
    assert left == [path]


def _reasons(path: Path) -> tuple[str, ...]:
    with pytest.raises(UnsupportedError) as caught:
        nc.convert(path)
    return caught.value.reasons
