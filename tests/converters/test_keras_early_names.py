"""Files of TensorFlow 1.13 to 2.2, which named classes by their version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import npylstm_converters as nc
import numpy as np
import pytest
import tf_keras

import npylstm
from npylstm import UnsupportedError

L: Any = tf_keras.layers
X = np.random.default_rng(1).standard_normal((3, 5, 2)).astype("float32")


def model() -> Any:
    """Layers of every kind that was renamed, also inside wrappers and cells."""
    made = tf_keras.Sequential([
        tf_keras.Input((5, 2)),
        L.Bidirectional(L.LSTM(3, return_sequences=True)),
        L.TimeDistributed(L.BatchNormalization()),
        L.GRU(4, activation="softmax", return_sequences=True),
        L.RNN(L.LSTMCell(3)),
        L.BatchNormalization(),
        L.Dense(3, activation="softmax"),
        L.Activation("log_softmax"),
    ])  # fmt: skip
    rng = np.random.default_rng(0)
    made.set_weights([np.abs(rng.normal(size=w.shape)) * 0.5 + 0.1 for w in made.get_weights()])
    return made


RENAMED = {
    "LSTM": "UnifiedLSTM", "GRU": "UnifiedGRU", "BatchNormalization": "BatchNormalizationV1",
    "softmax": "softmax_v2", "log_softmax": "log_softmax_v2",
}  # fmt: skip


def rename(path: Path, names: dict[str, str]) -> None:
    with h5py.File(path, "r+") as file:
        config = str(file.attrs["model_config"])
        for today, early in names.items():
            assert f'"{today}"' in config
            config = config.replace(f'"{today}"', f'"{early}"')
        file.attrs["model_config"] = config
        file.attrs["keras_version"] = "2.2.4-tf"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    path, made = tmp_path_factory.mktemp("early") / "m.h5", model()
    made.save(path)
    rename(path, RENAMED)
    return path, np.asarray(made(X))


def test_numbers(saved: tuple[Path, Any]) -> None:
    spec = nc.convert(saved[0])
    np.testing.assert_allclose(npylstm.Model(spec).predict(X), saved[1], rtol=2e-5, atol=1e-6)


def test_the_framework_runs_them_too(saved: tuple[Path, Any]) -> None:
    """So that cases can be recorded: the Keras of today has no such names."""
    assert nc.compare(nc.convert(saved[0]), saved[0], X).passed


@pytest.mark.parametrize("name", ["BatchNormalizationV2", "SyncBatchNormalization"])
def test_other_names_of_batch_normalization(name: str, tmp_path: Path) -> None:
    made = tf_keras.Sequential([tf_keras.Input((2,)), L.BatchNormalization()])
    made.set_weights([*np.array([[0.5, 2.0], [1.0, -1.0], [0.1, 0.2], [0.7, 3.0]])])
    made.save(tmp_path / "m.h5")
    rename(tmp_path / "m.h5", {"BatchNormalization": name})
    y = npylstm.Model(nc.convert(tmp_path / "m.h5")).predict(X[:, 0])
    np.testing.assert_allclose(y, made(X[:, 0]), rtol=1e-5)


def test_a_class_of_the_user_with_such_a_name(saved: tuple[Path, Any], tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    path.write_bytes(saved[0].read_bytes())
    with h5py.File(path, "r+") as file:
        config = str(file.attrs["model_config"])
        mark = '"class_name": "UnifiedGRU", '
        assert mark in config
        own = '"module": "mine", "registered_name": "mine>UnifiedGRU", '
        file.attrs["model_config"] = config.replace(mark, mark + own)
    with pytest.raises(UnsupportedError, match="'UnifiedGRU' is a class of the user's own"):
        nc.convert(path)
