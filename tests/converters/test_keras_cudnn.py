"""CuDNNGRU of Keras 2.2: a file as that Keras wrote it, from arrays that are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import keras
import npylstm_converters as nc
import numpy as np
import pytest
from backends import BACKENDS
from keras_graphs import run
from keras_layer_parity import randomise

from npylstm import Model, UnsupportedError
from npylstm.spec import Case


def scrambled(kernel: np.ndarray, recurrent: np.ndarray, bias: np.ndarray) -> list[np.ndarray]:
    """Lay the arrays of a GRU out as cuDNN takes them; a gate's kernel lies in memory transposed."""
    inputs = [k.T.reshape(k.shape) for k in np.split(kernel, 3, axis=1)]
    recurrents = [u.T for u in np.split(recurrent, 3, axis=1)]
    return [np.concatenate(inputs, axis=1), np.concatenate(recurrents, axis=1), bias.reshape(-1)]


def write_keras22(path: Path, layers: list[tuple[str, dict[str, Any], list[np.ndarray]]]) -> None:
    """Write a Sequential model as Keras 2.2.4 does: class, config and named arrays of each layer."""
    config = {
        "class_name": "Sequential",
        "config": {
            "name": "sequential_1",
            "layers": [{"class_name": kind, "config": options} for kind, options, _ in layers],
        },
    }
    roles = {3: ("kernel", "recurrent_kernel", "bias"), 2: ("kernel", "bias")}
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"], file.attrs["backend"] = b"2.2.4", b"tensorflow"
        file.attrs["model_config"] = json.dumps(config).encode()
        root = file.create_group("model_weights")
        root.attrs["keras_version"], root.attrs["backend"] = b"2.2.4", b"tensorflow"
        root.attrs["layer_names"] = [options["name"].encode() for _, options, _ in layers]
        for _, options, arrays in layers:
            name = options["name"]
            names = [f"{name}/{role}:0" for role in roles[len(arrays)]]
            at = root.create_group(name)
            at.attrs["weight_names"] = [n.encode() for n in names]
            for key, array in zip(names, arrays, strict=True):
                at[key] = array


def cudnn_config(name: str, units: int, **options: Any) -> dict[str, Any]:
    zeros = {"class_name": "Zeros", "config": {}}
    return {
        "name": name, "trainable": True, "return_sequences": False, "return_state": False,
        "go_backwards": False, "stateful": False, "units": units, "kernel_initializer": zeros,
        "recurrent_initializer": zeros, "bias_initializer": zeros, "kernel_regularizer": None,
        "recurrent_regularizer": None, "bias_regularizer": None, "activity_regularizer": None,
        "kernel_constraint": None, "recurrent_constraint": None, "bias_constraint": None,
        **options,
    }  # fmt: skip


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(("features", "units"), [(3, 4), (5, 2), (4, 4), (1, 3)])
def test_cudnn_gru(features: int, units: int, backwards: bool, tmp_path: Path) -> None:
    L = keras.layers
    twin = keras.Sequential([keras.Input((None, features)),
        L.GRU(units, return_sequences=True, reset_after=True, go_backwards=backwards),
        L.GRU(units + 1, reset_after=True), L.Dense(2)])  # fmt: skip
    randomise(twin)
    first, second, dense = (layer.get_weights() for layer in twin.layers)
    layers = [
        ("CuDNNGRU", cudnn_config("cu_dnngru_1", units, return_sequences=True, go_backwards=backwards, batch_input_shape=[None, None, features], dtype="float32"), scrambled(*first)),
        ("CuDNNGRU", cudnn_config("cu_dnngru_2", units + 1), scrambled(*second)),
        ("Dense", {"name": "dense_1", "trainable": True, "units": 2, "activation": "linear", "use_bias": True}, dense),
    ]  # fmt: skip
    write_keras22(tmp_path / "old.h5", layers)
    assert layers[0][2][2].shape == (6 * units,)
    spec = nc.convert(tmp_path / "old.h5")
    x = np.random.default_rng(3).normal(size=(4, 9, features)).astype("float32")
    (y,) = run(twin, [x])
    case = Case({spec.inputs[0].name: x}, {spec.outputs[0]: y})
    for backend in BACKENDS:
        Model(spec, backend).verify([case]).check()
        gates = {
            a for a in (layer.config.get("recurrent_activation") for layer in spec.layers) if a
        }
        assert gates == {"sigmoid"}


def test_cudnn_biases_in_a_gru_of_another_name(tmp_path: Path) -> None:
    # The arrays of a CuDNNGRU under the config of a GRU: the flat bias gives them away.
    twin = keras.Sequential([keras.Input((None, 3)), keras.layers.GRU(4, reset_after=True)])
    randomise(twin)
    options = cudnn_config("gru_1", 4, batch_input_shape=[None, None, 3], activation="tanh",
        recurrent_activation="sigmoid", use_bias=True, reset_after=True, implementation=1)  # fmt: skip
    write_keras22(tmp_path / "old.h5", [("GRU", options, scrambled(*twin.get_weights()))])
    spec = nc.convert(tmp_path / "old.h5")
    x = np.random.default_rng(3).normal(size=(4, 9, 3)).astype("float32")
    case = Case({spec.inputs[0].name: x}, {spec.outputs[0]: run(twin, [x])[0]})
    for backend in BACKENDS:
        Model(spec, backend).verify([case]).check()


def test_cudnn_gru_of_a_wrong_size_is_refused(tmp_path: Path) -> None:
    arrays = [np.ones(s, "float32") for s in ((3, 12), (4, 12), (12,))]
    options = cudnn_config("cu_dnngru_1", 4, batch_input_shape=[None, None, 3])
    write_keras22(tmp_path / "old.h5", [("CuDNNGRU", options, arrays)])
    with pytest.raises(UnsupportedError, match="cu_dnngru_1"):
        nc.convert(tmp_path / "old.h5")
