"""Legacy HDF5: Keras pairs weights with layers by order; LoRA factors are part of the kernel."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import keras
import npylstm_converters as nc
import numpy as np
import pytest
import tf_keras
from keras_graphs import assert_parity, make_inputs, randomise, run

from npylstm import FormatError, UnsupportedError

L = tf_keras.layers


def stack(k: Any, *names: str) -> Any:
    """Layers of one size, so that nothing but the order tells them apart."""
    first, second, head = names
    return k.Sequential(
        [k.layers.Input((5, 4)), k.layers.LSTM(4, return_sequences=True, name=first),
         k.layers.LSTM(4, name=second), k.layers.Dense(4, name=head)]
    )  # fmt: skip


def positive(model: Any) -> None:
    """Let variances be positive."""
    model.set_weights(
        [
            np.abs(array) + 0.5 if "variance" in w.name else array
            for w, array in zip(model.weights, model.get_weights(), strict=True)
        ]
    )


def relabel(path: Path, names: Sequence[str]) -> None:
    """Give the filled groups of a weights file other names, in their order."""
    with h5py.File(path, "r+") as file:
        group = file.get("model_weights", file)
        old = [n for n in group.attrs["layer_names"] if len(group[n].attrs["weight_names"])]
        for k, name in enumerate(old):
            group.move(name, f"moved {k}")
        for k, name in enumerate(names):
            group.move(f"moved {k}", name)
        rest = [n for n in group.attrs["layer_names"] if n not in old]
        group.attrs["layer_names"] = [*rest, *(n.encode() for n in names)]


def relist(group: Any, order: Sequence[int]) -> None:
    """Give the arrays of a layer's group each other's labels; their order stays."""
    labels = [*group.attrs["weight_names"]]
    arrays = [group[label][()] for label in labels]
    for label in labels:
        del group[label]
    group.attrs["weight_names"] = [labels[k] for k in order]
    for k, array in zip(order, arrays, strict=True):
        group[labels[k]] = array


def architecture(model: Any, path: Path) -> Path:
    path.write_text(model.to_json())
    return path


@pytest.mark.parametrize(
    "names", [("two", "one", "head"), ("lstm_7", "lstm_8", "dense_9"), ("head", "two", "one")]
)
def test_layers_are_paired_by_order(tmp_path: Path, names: tuple[str, str, str]) -> None:
    saved = stack(tf_keras, *names)
    randomise(saved, 1)
    saved.save_weights(tmp_path / "w.h5")
    model = stack(tf_keras, "one", "two", "head")
    model.load_weights(tmp_path / "w.h5")
    xs = make_inputs(model, 3, 5, 2)
    path = architecture(model, tmp_path / "a.json")
    spec = nc.from_keras(tmp_path / "w.h5", architecture=path)
    assert_parity(spec, [(xs, run(model, xs))])
    assert any("by the order of the layers" in line for line in spec.provenance["decisions"])
    # In a model's own file, too, whose names somebody has exchanged.
    model.save(tmp_path / "m.h5")
    relabel(tmp_path / "m.h5", ("two", "one", "head"))
    again = tf_keras.models.load_model(tmp_path / "m.h5", compile=False)
    assert_parity(nc.from_keras(tmp_path / "m.h5"), [(xs, run(again, xs))])


def test_a_file_of_keras_3_is_paired_by_order(tmp_path: Path) -> None:
    model = stack(keras, "one", "two", "head")
    randomise(model, 2)
    model.save(tmp_path / "m.h5")
    relabel(tmp_path / "m.h5", ("two", "one", "head"))
    again = keras.models.load_model(tmp_path / "m.h5", compile=False)
    xs = make_inputs(model, 3, 5, 2)
    assert_parity(nc.from_keras(tmp_path / "m.h5"), [(xs, run(again, xs))])


def test_arrays_are_dealt_by_order(tmp_path: Path) -> None:
    """The labels of two square kernels, and of four statistics, are exchanged."""
    model = tf_keras.Sequential(
        [L.Input((5, 4)), L.SimpleRNN(4, return_sequences=True, name="rnn"),
         L.BatchNormalization(name="norm")]
    )  # fmt: skip
    randomise(model, 3)
    positive(model)
    model.save(tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        relist(file["model_weights/rnn"], [1, 0, 2])
        relist(file["model_weights/norm"], [3, 0, 1, 2])
    again = tf_keras.models.load_model(tmp_path / "m.h5", compile=False)
    xs = make_inputs(model, 3, 5, 2)
    assert_parity(nc.from_keras(tmp_path / "m.h5"), [(xs, run(again, xs))])


def test_other_numbers_of_layers_are_refused(tmp_path: Path) -> None:
    saved = stack(tf_keras, "two", "one", "head")
    saved.save_weights(tmp_path / "w.h5")
    model = tf_keras.Sequential(
        [L.Input((5, 4)), L.LSTM(4, name="one"), L.Dense(4, name="two")]
    )  # fmt: skip
    path = architecture(model, tmp_path / "a.json")
    with pytest.raises(UnsupportedError, match=r"two, one, head.*one, two.*order.* 3 and 2 "):
        nc.from_keras(tmp_path / "w.h5", architecture=path)


@pytest.mark.parametrize("trained", [True, False])
def test_directions(tmp_path: Path, trained: bool) -> None:
    """Keras lists the arrays of a frozen forward layer behind those of the backward one."""
    wrapped = keras.layers.Bidirectional(keras.layers.GRU(3, name="gru"), name="both")
    model = keras.Sequential([keras.layers.Input((5, 4)), wrapped])
    wrapped.forward_layer.trainable = trained
    randomise(model, 4)
    model.save(tmp_path / "m.h5")
    again = keras.models.load_model(tmp_path / "m.h5", compile=False)
    xs = make_inputs(model, 3, 5, 2)
    assert_parity(nc.from_keras(tmp_path / "m.h5"), [(xs, run(again, xs))])
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        relist(file["model_weights/both"], [3, 4, 5, 0, 1, 2])
    with pytest.raises(UnsupportedError, match=r"both: .*directions.*another order"):
        nc.from_keras(tmp_path / "m.h5")


def test_layers_of_a_model_inside(tmp_path: Path) -> None:
    """Keras lists frozen layers and statistics last; any other order is refused."""
    inner = tf_keras.Sequential(
        [L.Input((5, 4)), L.Dense(4, name="one", trainable=False), L.BatchNormalization(name="bn"),
         L.Dense(4, name="two")], name="inner",
    )  # fmt: skip
    model = tf_keras.Sequential([L.Input((5, 4)), inner, L.LSTM(3, name="lstm")])
    randomise(model, 5)
    positive(model)
    model.save(tmp_path / "m.h5")
    xs = make_inputs(model, 3, 5, 2)
    assert_parity(nc.from_keras(tmp_path / "m.h5"), [(xs, run(model, xs))])
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        relist(file["model_weights/inner"], [0, 1, 6, 7, 4, 5, 2, 3])
    with pytest.raises(UnsupportedError, match=r"inner.*another order.*bn, one, two"):
        nc.from_keras(tmp_path / "m.h5")


# --- LoRA ----------------------------------------------------------------------------------------


def with_lora() -> Any:
    K = keras.layers
    model = keras.Sequential(
        [K.Input((6,), dtype="int32"), K.Embedding(9, 4, name="ids"), K.Conv1D(4, 2, name="conv"),
         K.LSTM(3, name="lstm"), K.Dense(2, name="head")]
    )  # fmt: skip
    model.layers[0].enable_lora(3, lora_alpha=5.0)
    model.layers[1].enable_lora(2)
    model.layers[3].enable_lora(2, lora_alpha=3.0)
    randomise(model, 6)
    return model


def test_lora_factors_are_merged(tmp_path: Path) -> None:
    model = with_lora()
    xs = [np.random.default_rng(1).integers(0, 9, (3, 6))]
    runs = [(xs, run(model, xs))]
    assert_parity(nc.from_keras(model), runs)
    model.save(tmp_path / "m.h5")
    spec = nc.from_keras(tmp_path / "m.h5")
    assert_parity(spec, runs)
    became = {e["source"].split("/")[-1]: e["weights"] for e in spec.provenance["tensors"]
              if e["layer"] == "head"}  # fmt: skip
    kernel = ["kernel"]
    factors = {"lora_kernel_a": kernel, "lora_kernel_b": kernel}
    assert became == {"kernel": kernel, "bias": ["bias"]} | factors


def test_lora_factors_of_unknown_weight_are_refused(tmp_path: Path) -> None:
    model = with_lora()
    model.save(tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        config = json.loads(file.attrs["model_config"])
        for entry in config["config"]["layers"]:
            entry["config"].pop("lora_rank", None)
            entry["config"].pop("lora_alpha", None)
        file.attrs["model_config"] = json.dumps(config)
        names = [f"head/{n}" for n in file["model_weights/head"].attrs["weight_names"]]
    lora = [name for name in names if "lora" in name]
    for allowed in (None, lora):
        with pytest.raises((UnsupportedError, FormatError)) as caught:
            nc.from_keras(tmp_path / "m.h5", allow_unused=allowed)
        assert "head: holds LoRA factors" in str(caught.value)
        assert ".keras, which merges them" in str(caught.value)
        assert "allow-unused" not in str(caught.value)
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        del file.attrs["model_config"]
    with pytest.raises(UnsupportedError, match="head: holds LoRA factors"):
        nc.from_keras(tmp_path / "m.h5", layers="ids -> conv -> lstm(last) -> head(linear)")
