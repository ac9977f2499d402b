"""model.json over the years: frames, names, and defaults of what it does not say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import npylstm_converters as nc
import pytest
from tfjs_files import (
    DATA,
    MANY,
    MODELS,
    NEWEST,
    RARE,
    assert_same_model,
    attempted,
    content,
    converted,
    recorded,
)
from tfjs_layout import Layout, Weight, as_converted, as_early, camel, write_json


@pytest.mark.parametrize("name", MANY)
def test_framed_by_the_converter(name: str, tmp_path: Path) -> None:
    assert_same_model(as_converted(recorded(name)), name, tmp_path)


@pytest.mark.parametrize("name", MANY)
def test_framed_by_the_first_converter(name: str, tmp_path: Path) -> None:
    layout = as_early(recorded(name)).in_shards(200)
    path = layout.write(tmp_path)
    assert set(json.loads(path.read_text())) == {"modelTopology", "weightsManifest"}
    assert not list(tmp_path.glob("*.bin"))
    assert content(nc.from_tfjs(path)) == content(nc.from_tfjs(DATA / NEWEST / name / "model.json"))


@pytest.mark.parametrize("form", ["bare", "model_config", "model_config of null"])
@pytest.mark.parametrize("name", [m for m in MODELS if m not in RARE])
def test_camel_case(name: str, form: str, tmp_path: Path) -> None:
    layout = recorded(name)
    topology = camel(layout.document["modelTopology"])
    text = json.dumps(topology)
    assert '"className"' in text
    assert '"class_name"' not in text
    if form == "model_config":
        topology = {"keras_version": "2.2.4", "backend": "tensorflow", "model_config": topology}
    elif form == "model_config of null":
        topology["model_config"] = None
    assert_same_model(layout, name, tmp_path, modelTopology=topology)


@pytest.mark.parametrize("name", ["lstm_stack", "gru", "stateful", "time_distributed"])
def test_a_sequential_model_may_be_a_list(name: str, tmp_path: Path) -> None:
    def change(document: Any) -> None:
        topology = document["modelTopology"]
        topology["config"] = topology["config"]["layers"]

    layout = recorded(name).edited(change)
    assert_same_model(layout, name, tmp_path)
    (tmp_path / "framed").mkdir()
    assert_same_model(as_converted(layout), name, tmp_path / "framed")


def without(*keys: str) -> Callable[[list[Any]], None]:
    def change(layers: list[Any]) -> None:
        for layer in layers:
            for key in keys:
                layer["config"].pop(key, None)

    return change


@pytest.mark.parametrize("name", ["lstm", "simple_rnn", "long", "stateful"])
def test_what_is_not_said_is_as_in_tfjs(name: str, tmp_path: Path) -> None:
    """tanh, gates of hardSigmoid, a bias, all flags off."""
    keys = ["recurrent_activation", "kernel_initializer", "recurrent_initializer", "implementation",
            "bias_initializer", "unit_forget_bias", "kernel_regularizer", "recurrent_regularizer",
            "bias_regularizer", "activity_regularizer", "kernel_constraint", "bias_constraint",
            "recurrent_constraint", "dropout", "recurrent_dropout", "return_state", "unroll",
            "reset_after", "trainable", "dtype"]  # fmt: skip
    if name != "simple_rnn":
        keys += ["activation", "use_bias", "go_backwards"]
    assert_same_model(recorded(name).with_layers(without(*keys)), name, tmp_path)


ABSENT: dict[str, dict[str, tuple[Any, ...]]] = {
    # name: keys, and the values for which they stand where they are left out
    "activation_layers": {"alpha": (0.3, 1), "theta": (1,)},
    "normalised": {"epsilon": (0.001,), "axis": (-1, [-1]), "center": (True,), "scale": (True,)},
    "merges": {"axis": (-1,), "normalize": (False,)},
    "bidirectional": {"merge_mode": ("concat",)},
    "embedding": {"mask_zero": (None,), "input_length": (7,)},
}


@pytest.mark.parametrize("form", ["absent", "null"])
@pytest.mark.parametrize("name", ABSENT)
def test_other_defaults_are_those_of_tfjs(name: str, form: str, tmp_path: Path) -> None:
    gone = []

    def change(layers: list[Any]) -> None:
        for layer in layers:
            config = layer["config"]
            for key, values in ABSENT[name].items():
                if any(config.get(key) == v and key in config for v in values):
                    gone.append(config.pop(key))
                    if form == "null" and key != "merge_mode":  # which has a meaning
                        config[key] = None

    layout = recorded(name).with_layers(change)
    assert gone
    assert_same_model(layout, name, tmp_path)


@pytest.mark.parametrize(
    ("kind", "key", "word"),
    [
        ("lstm", "activation", "linear"),
        ("lstm", "recurrent_activation", "linear"),
        ("gru", "activation", "linear"),
        ("gru", "recurrent_activation", "linear"),
        ("simple_rnn", "activation", "tanh"),
        ("lstm", "use_bias", True),
    ],
)
def test_null_is_as_in_tfjs(kind: str, key: str, word: object, tmp_path: Path) -> None:
    layers = recorded("lstm" if kind == "lstm" else kind)

    def put(value: object) -> Layout:
        return layers.with_layers(lambda found: found[0]["config"].update({key: value}))

    found = converted(put(None), tmp_path / "null")
    assert content(found) == content(converted(put(word), tmp_path / "word"))
    assert found.layers[0].config[key] == word


@pytest.mark.parametrize("word", ["hardSigmoid", "hard_sigmoid"])
def test_words_in_both_cases(word: object, tmp_path: Path) -> None:
    layout = recorded("lstm").with_layers(
        lambda layers: layers[0]["config"].update(recurrent_activation=word)
    )
    assert_same_model(layout, "lstm", tmp_path)


@pytest.mark.parametrize("version", ["2.1.6", "2.2.4-tf", "2.4.0", "tfjs-layers 4.22.0", None])
def test_hard_sigmoid_is_that_of_tfjs(version: str | None, tmp_path: Path) -> None:
    """Whoever wrote the file: TensorFlow.js runs it, with a slope of one fifth."""

    def change(document: Any) -> None:
        document["modelTopology"]["keras_version"] = version
        if version is None:
            del document["modelTopology"]["keras_version"]

    assert_same_model(as_converted(recorded("lstm")).edited(change), "lstm", tmp_path)
    (tmp_path / "bare").mkdir()
    assert_same_model(recorded("lstm").edited(change), "lstm", tmp_path / "bare")


def test_metadata_and_training_are_left_alone(tmp_path: Path) -> None:
    layout = recorded("lstm")
    extras = {
        "userDefinedMetadata": {"class_name": "LSTM", "layers": [1], "weightsManifest": None, "name": 3},
        "trainingConfig": {"optimizer_config": {"class_name": "Nobody", "config": 5}, "loss": None},
        "signature": {"inputs": {"x": {"name": "x"}}},
        "modelInitializer": None, "somebodysOwn": [[]],
    }  # fmt: skip
    assert_same_model(layout, "lstm", tmp_path, **extras)
    framed = as_converted(layout).edited(
        lambda d: d["modelTopology"].update(training_config={"optimizer_config": "?", "loss": 1})
    )
    (tmp_path / "framed").mkdir()
    assert_same_model(framed, "lstm", tmp_path / "framed")


def test_optimizer_weights_are_left_alone() -> None:
    spec = nc.from_tfjs(DATA / NEWEST / "trained/model.json")
    layout = recorded("trained")
    model = [w for w in layout.weights if w.entry.get("group") != "optimizer"]
    assert len(model) == 5
    assert len(layout.weights) == 16
    assert spec.parameters == sum(w.array.size for w in model)


OPTIMIZER = (
    Weight({"name": "iter", "shape": [], "dtype": "int32", "group": "optimizer"}, bytes(4)),
    Weight({"name": "seen", "shape": [5], "dtype": "bool", "group": "optimizer"}, bytes(5)),
    Weight({"name": "z", "shape": [3], "dtype": "complex64", "group": "optimizer"}, bytes(24)),
    Weight({"name": "words", "shape": [2], "dtype": "string", "group": "optimizer"},
           b"\x03\0\0\0abc\0\0\0\0"),
    Weight({"name": "m", "shape": [3], "dtype": "float32", "group": "optimizer",
            "quantization": {"dtype": "uint8", "min": 0.0, "scale": 1.0}}, bytes(3)),
    Weight({"name": "none", "shape": [0, 7], "dtype": "float32", "group": "optimizer"}, b""),
)  # fmt: skip


@pytest.mark.parametrize("between", OPTIMIZER, ids=lambda w: w.entry["dtype"])
def test_what_lies_before_a_weight_is_passed_over(between: Weight, tmp_path: Path) -> None:
    """An odd number of bytes moves all that follows."""
    weights = recorded("lstm").weights
    layout = recorded("lstm").with_weights([weights[0], between, *weights[1:]]).in_shards(50)
    spec, message = attempted(layout.write(tmp_path))
    if spec is None:  # nobody's optimizer writes these
        assert between.entry["dtype"] in ("complex64", "string")
        assert message.startswith(f"{between.name}: ")
    else:
        assert content(spec) == content(nc.from_tfjs(DATA / NEWEST / "lstm/model.json"))


def test_weights_of_no_elements(tmp_path: Path) -> None:
    layout = recorded("softmax_layer")
    assert layout.weights == ()
    assert not converted(layout, tmp_path).parameters
    no_files = {**layout.document, "weightsManifest": []}
    assert not nc.from_tfjs(write_json(tmp_path / "none", no_files)).parameters
