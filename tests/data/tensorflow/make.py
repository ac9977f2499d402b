"""Write the models of this folder; README.md says with what."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
import tf_keras as keras
from tensorflow.core.protobuf import saved_model_pb2

HERE = Path(__file__).parent
L = keras.layers


def randomise(model: keras.Model, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        value = rng.uniform(-0.6, 0.6, weight.shape)
        weight.assign(np.abs(value) + 0.5 if "variance" in weight.name else value)


def functional() -> keras.Model:
    past, static = L.Input((None, 3), name="past"), L.Input((2,), name="static")
    encoder = keras.Sequential(
        [L.Input((None, 3)), L.Bidirectional(L.LSTM(4, return_sequences=True)), L.Dense(3)],
        name="encoder",
    )
    y = L.RNN([L.LSTMCell(3), L.GRUCell(4)], return_sequences=True, name="cells")(encoder(past))
    y = L.TimeDistributed(L.Dense(5, activation="relu"), name="each")(y)
    y = L.GRU(4, name="gru")(L.BatchNormalization(name="norm")(y))
    return keras.Model([past, static], L.Dense(2, name="out")(L.Concatenate()([y, static])))


def without_functions(folder: Path) -> None:
    """Remove the functions of a SavedModel, a megabyte that the importer skips."""
    path = folder / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for graph in model.meta_graphs:
        graph.graph_def.Clear()
        graph.meta_info_def.stripped_op_list.Clear()
        graph.object_graph_def.concrete_functions.clear()
    path.write_bytes(model.SerializeToString(deterministic=True))
    (folder / "fingerprint.pb").unlink()
    shutil.rmtree(folder / "assets", ignore_errors=True)


def main() -> None:
    model = functional()
    model.compile("adam", "mse")
    rng = np.random.default_rng(1)
    x = [rng.normal(size=(3, 6, 3)).astype("f4"), rng.normal(size=(3, 2)).astype("f4")]
    model.fit(x, np.zeros((3, 2)), verbose=0)  # the optimizer has slots now
    randomise(model, 2)
    y = model(x).numpy()
    folder = HERE / "functional"
    shutil.rmtree(folder, ignore_errors=True)
    model.save(folder, save_format="tf")
    without_functions(folder)
    np.savez(HERE / "functional.expected.npz", past=x[0], static=x[1], y=y)
    tf.keras.backend.clear_session()


if __name__ == "__main__":
    main()
