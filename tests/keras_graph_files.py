"""Graphs as older Keras wrote them, and the choice between parity and a refusal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import npylstm_converters as nc
from keras_graphs import assert_parity

from npylstm import UnsupportedError


def parity_or_refusal(model: Any, runs: list[Any], layer: str) -> None:
    """What is not refused by name must give the framework's numbers: nothing passes unseen."""
    try:
        spec = nc.from_keras(model)
    except UnsupportedError as error:
        reasons = error.reasons
    else:
        assert_parity(spec, runs)
        return
    assert any(layer in reason for reason in reasons), reasons


INITIALIZER = {"class_name": "VarianceScaling", "config": {"scale": 1.0, "mode": "fan_avg", "distribution": "uniform", "seed": None}}  # fmt: skip


def keras2_layer(class_name: str, name: str, nodes: list[Any], **config: Any) -> dict[str, Any]:
    common: dict[str, Any] = {"name": name, "trainable": True}
    weights = ("kernel", "bias")
    if class_name in ("LSTM", "GRU"):
        weights = ("kernel", "recurrent", "bias")
        common |= {
            "return_sequences": False, "return_state": False, "go_backwards": False, "stateful": False, "unroll": False,
            "activation": "tanh", "recurrent_activation": "hard_sigmoid", "use_bias": True, "dropout": 0.0,
            "recurrent_dropout": 0.0, "implementation": 1,
        }  # fmt: skip
    if class_name == "LSTM":
        common |= {"unit_forget_bias": True}
    if class_name == "GRU":
        common |= {"reset_after": False}
    if class_name == "Dense":
        common |= {"activation": "linear", "use_bias": True}
    if class_name in ("LSTM", "GRU", "Dense"):
        common |= {f"{w}_initializer": INITIALIZER for w in weights}
        common |= {f"{w}_{s}": None for w in weights for s in ("regularizer", "constraint")}
        common |= {"activity_regularizer": None}
    if class_name == "InputLayer":
        common = {"name": name, "dtype": "float32", "sparse": False}
    return {"class_name": class_name, "name": name, "inbound_nodes": nodes, "config": common | config}  # fmt: skip


def keras_model(
    version: str, layers: list[Any], inputs: list[str], outputs: list[Any], name: str = "model_1"
) -> dict[str, Any]:
    config = {"name": name, "layers": layers, "input_layers": [[n, 0, 0] for n in inputs], "output_layers": outputs}  # fmt: skip
    return {"class_name": "Model", "keras_version": version, "backend": "tensorflow", "config": config}  # fmt: skip


def read(twin: Any, document: dict[str, Any], folder: Path) -> Any:
    """Convert a config written by hand with the weights of a model of today."""
    twin.save_weights(folder / "twin_weights.h5")
    (folder / "model.json").write_text(json.dumps(document))
    return nc.from_keras(folder / "twin_weights.h5", architecture=folder / "model.json")
