"""Graphs as Keras 1, 2 and 3 write them, read from their JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import npylstm_converters as nc
import numpy as np
import pytest
import tf_keras
from keras_graph_files import keras2_layer, keras_model, read
from keras_graphs import assert_parity, make_inputs, randomise, run

from npylstm import FormatError, UnsupportedError


def keras1_layer(class_name: str, name: str, nodes: list[Any], **config: Any) -> dict[str, Any]:
    common: dict[str, Any] = {"name": name, "trainable": True}
    common |= {
        "InputLayer": {"input_dtype": "float32", "sparse": False},
        "LSTM": {
            "inner_activation": "hard_sigmoid", "activation": "tanh", "go_backwards": False, "return_sequences": False,
            "unroll": False, "stateful": False, "consume_less": "gpu", "init": "glorot_uniform", "inner_init": "orthogonal",
            "forget_bias_init": "one", "input_length": None, "dropout_U": 0.0, "dropout_W": 0.0, "U_regularizer": None,
            "W_regularizer": None, "b_regularizer": None,
        },
        "Dense": {
            "init": "glorot_uniform", "activation": "linear", "W_regularizer": None, "b_regularizer": None,
            "activity_regularizer": None, "W_constraint": None, "b_constraint": None, "bias": True,
        },
        "Merge": {
            "mode_type": "raw", "concat_axis": -1, "dot_axes": -1, "output_shape": None, "output_shape_type": "raw",
            "output_mask": None, "output_mask_type": "raw", "arguments": {},
        },
    }[class_name]  # fmt: skip
    return {"class_name": class_name, "name": name, "inbound_nodes": nodes, "config": common | config}  # fmt: skip


def twin_runs(twin: Any, seed: int) -> list[Any]:
    randomise(twin, seed)
    runs = []
    for batch, steps in ((3, 6), (1, 6)):
        xs = make_inputs(twin, batch, steps, seed + batch)
        runs.append((xs, run(twin, xs)))
    return runs


K1_MERGES: dict[str, tuple[dict[str, Any], bool, Callable[[Any], Any]]] = {
    "sum": ({}, False, lambda L: L.Add()),
    "mul": ({}, False, lambda L: L.Multiply()),
    "ave": ({}, False, lambda L: L.Average()),
    "max": ({}, False, lambda L: L.Maximum()),
    "concat": ({}, False, lambda L: L.Concatenate()),
    "concat, features": ({"concat_axis": 2}, True, lambda L: L.Concatenate(axis=2)),
    "concat, steps": ({"concat_axis": 1}, True, lambda L: L.Concatenate(axis=1)),
    "sum, steps": ({}, True, lambda L: L.Add()),
    "dot": ({"dot_axes": [1, 1]}, False, lambda L: L.Dot(axes=1)),
    "dot, one axis": ({"dot_axes": 1}, False, lambda L: L.Dot(axes=1)),
    "dot, steps": ({"dot_axes": [2, 2]}, True, lambda L: L.Dot(axes=2)),
}


@pytest.mark.parametrize("mode", K1_MERGES)
def test_keras_1_merge_of_a_shared_lstm(mode: str, tmp_path: Path) -> None:
    options, sequences, merge = K1_MERGES[mode]
    layers = [
        keras1_layer("InputLayer", "a", [], batch_input_shape=[None, 6, 3]),
        keras1_layer("InputLayer", "b", [], batch_input_shape=[None, 6, 3]),
        keras1_layer("LSTM", "lstm_1", [[["a", 0, 0]], [["b", 0, 0]]], output_dim=4, input_dim=3, return_sequences=sequences),
        keras1_layer("Merge", "merge_1", [[["lstm_1", 0, 0], ["lstm_1", 1, 0]]], mode=mode.split(",")[0], **options),
    ]  # fmt: skip
    document = keras_model("1.2.2", layers, ["b", "a"], [["merge_1", 0, 0], ["lstm_1", 1, 0]])
    k, L = tf_keras, tf_keras.layers
    a, b = k.Input((6, 3), name="a"), k.Input((6, 3), name="b")
    lstm = L.LSTM(4, recurrent_activation="hard_sigmoid", return_sequences=sequences, name="lstm_1")
    of_a, of_b = lstm(a), lstm(b)
    twin = k.Model([b, a], [merge(L)([of_a, of_b]), of_b])
    runs = twin_runs(twin, 41)
    spec = read(twin, document, tmp_path)
    assert spec.outputs == ("merge_1", "lstm_1#2")
    assert [t.name for t in spec.inputs] == ["b", "a"]
    assert_parity(spec, runs)


def test_keras_1_merge_by_the_cosine_or_by_code(tmp_path: Path) -> None:
    """Refused by name, or right: (batch, 1, 1) of the cosine between two rows."""

    def document(mode: str, mode_type: str) -> dict[str, Any]:
        layers = [
            keras1_layer("InputLayer", "a", [], batch_input_shape=[None, 3]),
            keras1_layer("Dense", "d", [[["a", 0, 0]]], output_dim=3, input_dim=3),
            keras1_layer("Merge", "m", [[["a", 0, 0], ["d", 0, 0]]], mode=mode, mode_type=mode_type, dot_axes=[1, 1]),
        ]  # fmt: skip
        return keras_model("1.2.2", layers, ["a"], [["m", 0, 0]])

    a = tf_keras.Input((3,), name="a")
    d = tf_keras.layers.Dense(3, name="d")(a)
    twin = tf_keras.Model(a, d)
    randomise(twin, 42)
    (x,) = make_inputs(twin, 4, 1, 0)
    z = run(twin, [x])[0]
    cosine = (x * z).sum(1) / np.sqrt((x * x).sum(1) * (z * z).sum(1))
    try:
        spec = read(twin, document("cos", "raw"), tmp_path)
    except UnsupportedError as error:
        assert "m: " in str(error)  # noqa: PT017
    else:
        assert_parity(spec, [([x], [cosine[:, None, None]])])
    with pytest.raises(UnsupportedError, match="m: "):
        read(twin, document("4wAAAAAA", "lambda"), tmp_path)
    for function in ("average_of_mine", "sum"):
        with pytest.raises(UnsupportedError, match="m: "):
            read(twin, document(function, "function"), tmp_path)


def test_keras_1_merge_as_the_first_layer_of_a_sequential(tmp_path: Path) -> None:
    """Two branches joined without the functional API: refused as such, or right."""

    def branch(name: str) -> dict[str, Any]:
        lstm = keras1_layer("LSTM", name, [], output_dim=4, input_dim=3, batch_input_shape=[None, 6, 3])  # fmt: skip
        return {"class_name": "Sequential", "config": [{k: lstm[k] for k in ("class_name", "config")}]}  # fmt: skip

    merge = keras1_layer("Merge", "merge_1", [], mode="concat", layers=[branch("l"), branch("r")])
    dense = keras1_layer("Dense", "dense_1", [], output_dim=2, input_dim=8)
    entries = [{k: e[k] for k in ("class_name", "config")} for e in (merge, dense)]
    document = {"class_name": "Sequential", "keras_version": "1.2.2", "config": entries}
    k, L = tf_keras, tf_keras.layers
    a, b = k.Input((6, 3)), k.Input((6, 3))
    lstms = [L.LSTM(4, recurrent_activation="hard_sigmoid", name=n)(x) for n, x in (("l", a), ("r", b))]  # fmt: skip
    twin = k.Model([a, b], L.Dense(2, name="dense_1")(L.Concatenate()(lstms)))
    runs = twin_runs(twin, 43)
    try:
        spec = read(twin, document, tmp_path)
    except UnsupportedError as error:
        assert "merge_1" in str(error)  # noqa: PT017
    else:
        assert_parity(spec, runs)


@pytest.mark.parametrize("packed", [False, True], ids=["nine arrays", "three arrays"])
def test_keras_1_gru_and_simple_rnn(packed: bool, tmp_path: Path) -> None:
    a = tf_keras.Input((6, 3), name="a")
    gru = tf_keras.layers.GRU(4, recurrent_activation="hard_sigmoid", reset_after=False, return_sequences=True)  # fmt: skip
    rnn = tf_keras.layers.SimpleRNN(2)
    twin = tf_keras.Model(a, rnn(gru(a)))
    runs = twin_runs(twin, 47)
    arrays = {"W": gru.get_weights()[0], "U": gru.get_weights()[1], "b": gru.get_weights()[2]}
    weights = {f"gru_1_{n}": w for n, w in arrays.items()}
    if not packed:
        weights = {f"gru_1_{n}_{g}": np.split(arrays[n], 3, -1)[j] for j, g in enumerate("zrh") for n in "WUb"}  # fmt: skip
    groups = {"gru_1": weights, "simplernn_1": dict(zip(("simplernn_1_W", "simplernn_1_U", "simplernn_1_b"), rnn.get_weights(), strict=True))}  # fmt: skip
    common: dict[str, Any] = {
        "activation": "tanh", "go_backwards": False, "unroll": False, "stateful": False, "input_length": None,
        "consume_less": "gpu" if packed else "cpu", "init": "glorot_uniform", "inner_init": "orthogonal",
        "dropout_U": 0.0, "dropout_W": 0.0, "U_regularizer": None, "W_regularizer": None, "b_regularizer": None,
        "trainable": True,
    }  # fmt: skip
    entries = [
        {"class_name": "GRU", "config": {**common, "name": "gru_1", "output_dim": 4, "input_dim": 3, "inner_activation": "hard_sigmoid", "return_sequences": True, "batch_input_shape": [None, 6, 3]}},
        {"class_name": "SimpleRNN", "config": {**common, "name": "simplernn_1", "output_dim": 2, "input_dim": 4, "return_sequences": False}},
    ]  # fmt: skip
    with h5py.File(tmp_path / "model.h5", "w") as file:
        file.attrs["keras_version"] = b"1.2.2"
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": entries}).encode()  # fmt: skip
        root = file.create_group("model_weights")
        root.attrs["layer_names"] = [name.encode() for name in groups]
        for name, group in groups.items():
            root.create_group(name).attrs["weight_names"] = [w.encode() for w in group]
            for key, value in group.items():
                root[name][key] = value
    assert_parity(nc.convert(tmp_path / "model.h5"), runs)


def test_a_gru_of_before_reset_after(tmp_path: Path) -> None:
    gru = keras2_layer("GRU", "gru", [[["a", 0, 0, {}]]], units=4)
    del gru["config"]["reset_after"]
    layers = [keras2_layer("InputLayer", "a", [], batch_input_shape=[None, 6, 3]), gru]
    a = tf_keras.Input((6, 3), name="a")
    options = {"recurrent_activation": "hard_sigmoid", "reset_after": False}
    twin = tf_keras.Model(a, tf_keras.layers.GRU(4, name="gru", **options)(a))
    runs = twin_runs(twin, 48)
    assert_parity(read(twin, keras_model("2.1.0", layers, ["a"], [["gru", 0, 0]]), tmp_path), runs)


STATE_FORMS: dict[str, Callable[[str, int], list[Any]]] = {
    "by node": lambda s, n: [[["b", 0, 0, {}], *([s, 0, 1 + j, {}] for j in range(n))]],
    "by node, three entries": lambda s, n: [[["b", 0, 0], *([s, 0, 1 + j] for j in range(n))]],
    "by keyword": lambda s, n: [
        [["b", 0, 0, {"initial_state": [[s, 0, 1 + j] for j in range(n)]}]]
    ],
    "by keyword, one tensor": lambda s, n: [["b", 0, 0, {"initial_state": [[s, 0, 1 + j] for j in range(n)]}]],
    "by keyword, not wrapped": lambda s, n: [[["b", 0, 0, {"initial_state": [s, 0, 1] if n == 1 else [[s, 0, 1], [s, 0, 2]], "training": None, "mask": None}]]],
}  # fmt: skip


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize("form", STATE_FORMS)
def test_keras_2_states(form: str, kind: str, tmp_path: Path) -> None:
    count = 2 if kind == "LSTM" else 1
    layers = [
        keras2_layer("InputLayer", "a", [], batch_input_shape=[None, None, 3]),
        keras2_layer(kind, "encoder", [[["a", 0, 0, {}]]], units=4, return_state=True),
        keras2_layer("InputLayer", "b", [], batch_input_shape=[None, None, 2]),
        keras2_layer(kind, "decoder", STATE_FORMS[form]("encoder", count), units=4, return_state=True, return_sequences=True),
        keras2_layer("Dense", "dense", [[["decoder", 0, 0, {}]]], units=2, activation="softmax"),
    ]  # fmt: skip
    outputs = [["dense", 0, 0], *(["decoder", 0, 1 + j] for j in range(count))]
    document = keras_model("2.2.4", layers, ["a", "b"], outputs)
    k, L = tf_keras, tf_keras.layers
    options = {"recurrent_activation": "hard_sigmoid", "return_state": True}
    if kind == "GRU":
        options["reset_after"] = False
    a, b = k.Input((None, 3), name="a"), k.Input((None, 2), name="b")
    _, *state = getattr(L, kind)(4, name="encoder", **options)(a)
    y, *after = getattr(L, kind)(4, name="decoder", return_sequences=True, **options)(b, initial_state=state)  # fmt: skip
    twin = k.Model([a, b], [L.Dense(2, activation="softmax", name="dense")(y), *after])
    runs = twin_runs(twin, 44)
    spec = read(twin, document, tmp_path)
    assert spec.outputs == ("dense", *(f"decoder/{n}" for n in "hc"[:count]))
    assert_parity(spec, runs)


def nested_entry(sequential: str, nodes: list[Any]) -> dict[str, Any]:
    dense = keras2_layer("Dense", "dense", [[["lstm", 0, 0, {}]]], units=2)
    lstm = keras2_layer("LSTM", "lstm", [[["x", 0, 0, {}]]], units=4)
    if sequential == "functional":
        x = keras2_layer("InputLayer", "x", [], batch_input_shape=[None, 6, 3])
        inner = keras_model("2.2.4", [x, lstm, dense], ["x"], [["dense", 0, 0]], "inner")["config"]
        return {"class_name": "Model", "name": "inner", "config": inner, "inbound_nodes": nodes}
    lstm["config"]["batch_input_shape"] = [None, 6, 3]
    entries: Any = [{k: e[k] for k in ("class_name", "config")} for e in (lstm, dense)]
    if sequential == "sequential":  # up to Keras 2.2.2 it was the bare list
        entries = {"name": "inner", "layers": entries}
    return {"class_name": "Sequential", "name": "inner", "config": entries, "inbound_nodes": nodes}


@pytest.mark.parametrize("first", [0, 1], ids=["from 0", "from 1"])
@pytest.mark.parametrize("kind", ["functional", "sequential", "bare list"])
def test_keras_2_nested_models(kind: str, first: int, tmp_path: Path) -> None:
    """Keras 2 counts the calls of a nested model from 1: it is node 0 of itself."""
    layers = [
        keras2_layer("InputLayer", "a", [], batch_input_shape=[None, 6, 3]),
        keras2_layer("InputLayer", "b", [], batch_input_shape=[None, 6, 3]),
        nested_entry(kind, [[["a", 0, 0, {}]], [["b", 0, 0, {}]]]),
        keras2_layer("Subtract", "minus", [[["inner", first + 1, 0, {}], ["inner", first, 0, {}]]]),
    ]
    document = keras_model("2.2.4", layers, ["a", "b"], [["minus", 0, 0], ["inner", first, 0]])
    k, L = tf_keras, tf_keras.layers
    lstm = L.LSTM(4, recurrent_activation="hard_sigmoid", name="lstm")
    inner = k.Sequential([k.Input((6, 3)), lstm, L.Dense(2, name="dense")], name="inner")
    a, b = k.Input((6, 3), name="a"), k.Input((6, 3), name="b")
    of_a, of_b = inner(a), inner(b)
    twin = k.Model([a, b], [L.Subtract(name="minus")([of_b, of_a]), of_a])
    runs = twin_runs(twin, 45)
    spec = read(twin, document, tmp_path)
    assert spec.outputs == ("minus", "inner.dense")
    assert_parity(spec, runs)


def history(layer: str, output: int = 0, shape: Any = (None, 4)) -> dict[str, Any]:
    config = {"shape": list(shape), "dtype": "float32", "keras_history": [layer, 0, output]}
    return {"class_name": "__keras_tensor__", "config": config}


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        (["b"], {"initial_state": ["h", "c"], "mask": None, "training": False}),
        (["b"], {"initial_state": ["h", "c"], "training": None}),
        (["b", ["h", "c"]], {}),
        (["b", ["h", "c"], None, False], {}),
        ([], {"sequences": "b", "initial_state": ["h", "c"]}),
        ([], {"initial_state": ["h", "c"], "sequences": "b"}),
    ],
)
def test_keras_3_states(args: Any, kwargs: Any, tmp_path: Path) -> None:
    k, L = keras, keras.layers
    a, b = k.Input((None, 3), name="a"), k.Input((None, 2), name="b")
    _, h, c = L.LSTM(4, return_state=True, name="encoder")(a)
    y = L.LSTM(4, name="decoder")(b, initial_state=[h, c])
    model = k.Model([a, b], y)
    randomise(model, 46)
    xs = make_inputs(model, 3, 6, 46)
    tensors = {"b": history("b", 0, (None, None, 2)), "h": history("encoder", 1), "c": history("encoder", 2)}  # fmt: skip

    def put(value: Any) -> Any:
        if isinstance(value, list):
            return [put(v) for v in value]
        return tensors.get(value, value) if isinstance(value, str) else value

    document = json.loads(model.to_json())
    (entry,) = (e for e in document["config"]["layers"] if e["name"] == "decoder")
    assert entry["inbound_nodes"][0]["args"] == [tensors["b"]]  # written as Keras writes
    entry["inbound_nodes"] = [{"args": put(args), "kwargs": {n: put(v) for n, v in kwargs.items()}}]
    model.save_weights(tmp_path / "model.weights.h5")
    (tmp_path / "model.json").write_text(json.dumps(document))
    spec = nc.from_keras(tmp_path / "model.weights.h5", architecture=tmp_path / "model.json")
    assert_parity(spec, [(xs, run(model, xs))])


def with_nodes(change: Callable[[dict[str, Any]], Any], folder: Path) -> Any:
    """Convert a small Keras 2 graph whose config somebody damaged."""
    layers = [
        keras2_layer("InputLayer", "a", [], batch_input_shape=[None, 6, 3]),
        keras2_layer("LSTM", "lstm", [[["a", 0, 0, {}]]], units=4),
        keras2_layer("Dense", "left", [[["lstm", 0, 0, {}]]], units=4),
        keras2_layer("Add", "sum", [[["lstm", 0, 0, {}], ["left", 0, 0, {}]]]),
    ]
    document = keras_model("2.2.4", layers, ["a"], [["sum", 0, 0]])
    change({e["name"]: e for e in layers} | {"config": document["config"]})
    k, a = tf_keras, tf_keras.Input((6, 3), name="a")
    lstm = k.layers.LSTM(4, name="lstm", recurrent_activation="hard_sigmoid")(a)
    twin = k.Model(a, k.layers.Dense(4, name="left")(lstm))
    return read(twin, document, folder)


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (lambda e: e["sum"].update(inbound_nodes=[[["lstm", 0, 1, {}], ["left", 0, 0, {}]]]), "lstm"),
        (lambda e: e["sum"].update(inbound_nodes=[[["lstm", 1, 0, {}], ["left", 0, 0, {}]]]), "sum"),
        (lambda e: e["sum"].update(inbound_nodes=[[["nobody", 0, 0, {}], ["left", 0, 0, {}]]]), "sum"),
        (lambda e: e["sum"].update(inbound_nodes=[[["lstm", 0, -1, {}], ["left", 0, 0, {}]]]), "lstm|sum"),
        (lambda e: e["sum"].update(inbound_nodes=[[["lstm", "0", 0, {}]]]), "sum"),
        (lambda e: e["sum"].update(inbound_nodes=[]), "sum"),
        (lambda e: e["sum"].update(inbound_nodes=[[]]), "sum"),
        (lambda e: e["lstm"].update(inbound_nodes=[[["left", 0, 0, {}]]]), "lstm|left"),
        (lambda e: e["config"].update(output_layers=[["sum", 1, 0]]), "sum"),
        (lambda e: e["config"].update(output_layers=[["sum", 0, 3]]), "sum"),
        (lambda e: e["config"].update(output_layers=[["nobody", 0, 0]]), "nobody"),
        (lambda e: e["config"].update(output_layers=[]), "output_layers"),
        (lambda e: e["config"].update(input_layers=[["nobody", 0, 0]]), "nobody"),
        (lambda e: e["config"].update(input_layers=[["lstm", 0, 0]]), "lstm"),
    ],
)  # fmt: skip
def test_damaged_graphs(change: Any, names: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=names):
        with_nodes(change, tmp_path)


def test_the_graph_before_the_damage(tmp_path: Path) -> None:
    assert with_nodes(lambda e: None, tmp_path).outputs == ("sum",)
