"""Files that TensorFlow.js and its converter write, against the numbers that TensorFlow.js computes.

``tests/tfjs/make_models.js`` builds models and runs them. Where Node and the package are at hand it
does so now, otherwise its files are in ``tests/data/tfjs``. Files as the converter wrote them over
the years are the same models laid out anew, and must be the same model to the bit.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import npylstm_converters as nc
import numpy as np
import pytest
from tfjs_layout import (
    TYPES,
    Layout,
    Weight,
    as_converted,
    as_early,
    camel,
    dequantise,
    quantise,
    read,
    weight,
    write_json,
)  # fmt: skip

import npylstm
from npylstm import Model, ModelSpec

ROOT = Path(__file__).parent.parent.parent
DATA = ROOT / "tests/data/tfjs"
SCRIPT = ROOT / "tests/tfjs"
NEWEST = "4.22.0"
MODELS = sorted(p.parent.name for p in (DATA / NEWEST).glob("*/model.json"))
OLD = sorted(str(p.parent.relative_to(DATA)) for p in DATA.glob("[01].*/*/model.json"))

# What TensorFlow.js has and npylstm need not: refused by the layer's name, or right.
RARE = {
    "bidirectional_ave": "bidirectional", "bidirectional_backwards": "bidirectional",
    "bidirectional_mul": "bidirectional", "bidirectional_pair": "bidirectional",
    "bidirectional_state": "bidirectional", "bidirectional_sum": "bidirectional",
    "cells": "rnn", "gelu_new": "gelu_new", "layer_normalised": "layer_normalization",
    "convolutional": "conv1d", "masked": "embedding", "masking": "masking", "prelu": "p_re_lu",
}  # fmt: skip

# Rounding: TensorFlow.js computes float32 tensors with sums in float64. Where it is lucky, some
# units in the last place of the output are none the less what float32 can do.
RATIO, ULPS = 1.5, 8
# Everything here contracts and has sums of some ten terms of size one; so all roundings together
# stay below this many units in the last place. A wrong slope or a lost bias is 1e-3 and more.
FAR = 64
EPS = float(np.finfo(np.float32).eps)

Array = np.ndarray[Any, Any]


# --- files and what they hold --------------------------------------------------------------------


def has_node() -> bool:
    return bool(shutil.which("node")) and (SCRIPT / "node_modules/@tensorflow/tfjs").is_dir()


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models as TensorFlow.js writes them: now, if it is installed, or when they were recorded."""
    if not has_node():
        return DATA / NEWEST
    folder = tmp_path_factory.mktemp("tfjs")
    command = ["node", str(SCRIPT / "make_models.js"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def recorded(name: str) -> Layout:
    return read(DATA / NEWEST / name)


def tensor(entry: Mapping[str, Any]) -> Array:
    return np.array(entry["data"], entry["dtype"]).reshape(entry["shape"])


def cases(folder: Path) -> Iterator[tuple[list[Array], list[Array]]]:
    for case in json.loads((folder / "cases.json").read_text())["cases"]:
        yield [tensor(x) for x in case["inputs"]], [tensor(y) for y in case["outputs"]]


def listed(y: Any) -> list[Array]:
    return list(y.values()) if isinstance(y, Mapping) else [y]


def rms(values: Array) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def assert_close(ours: Array, exact: Array, theirs: Array, what: object) -> None:
    """Explained by rounding, and not worse than TensorFlow.js."""
    assert ours.shape == theirs.shape, what
    assert ours.dtype == np.float32, what
    size = float(np.abs(theirs).max())
    assert np.abs(theirs - exact).max() <= FAR * EPS * max(1.0, size), what
    error, limit = rms(ours - exact), RATIO * rms(theirs - exact)
    assert error <= max(limit, ULPS * EPS * size), (what, error, limit)


def assert_parity(spec: ModelSpec, folder: Path, backend: str) -> None:
    model = Model(spec, backend)
    exact = model.astype("float64")
    for k, (inputs, outputs) in enumerate(cases(folder)):
        x = inputs if len(inputs) > 1 else inputs[0]
        ours, truth = listed(model.predict(x)), listed(exact.predict(x))
        assert len(ours) == len(outputs) == len(spec.outputs)
        for name, *values in zip(spec.outputs, ours, truth, outputs, strict=True):
            assert_close(*values, what=(k, name))


def content(spec: ModelSpec) -> Any:
    """All that a model computes with."""
    layers = [
        (
            n.name,
            n.kind,
            n.config,
            {k: (w.shape, w.tobytes()) for k, w in sorted(n.weights.items())},
        )
        for n in spec.layers
    ]
    return layers, spec.edges, spec.inputs, spec.outputs, spec.dtype


def converted(layout: Layout, folder: Path, **changes: Any) -> ModelSpec:
    spec = nc.from_tfjs(layout.write(folder, **changes))
    assert isinstance(spec, ModelSpec)
    return spec


def attempted(path: Path) -> tuple[ModelSpec | None, str]:
    """A model, or why there is none."""
    try:
        return nc.from_tfjs(path), ""
    except npylstm.NpylstmError as error:
        return None, str(error)


def assert_same_model(layout: Layout, name: str, folder: Path, **changes: Any) -> None:
    spec = converted(layout, folder, **changes)
    assert content(spec) == content(nc.from_tfjs(DATA / NEWEST / name / "model.json"))


# --- what TensorFlow.js writes -------------------------------------------------------------------


def test_every_model_is_recorded(written: Path) -> None:
    assert sorted(p.name for p in written.iterdir()) == MODELS
    script = (SCRIPT / "make_models.js").read_text()
    assert all(f"  {name}: () =>" in script for name in MODELS)
    assert len(MODELS) == 38
    assert json.loads((SCRIPT / "package.json").read_text())["dependencies"] == {
        "@tensorflow/tfjs": NEWEST
    }
    assert sum(p.stat().st_size for p in DATA.rglob("*")) < 1 << 20


@pytest.mark.skipif(not has_node(), reason="needs Node: npm install in tests/tfjs")
@pytest.mark.parametrize("name", MODELS)
def test_the_recorded_files_are_up_to_date(name: str, written: Path) -> None:
    now, then = written / name, DATA / NEWEST / name
    assert (now / "model.json").read_text() == (then / "model.json").read_text()
    if name != "trained":  # Node's arithmetic
        assert (now / "model.weights.bin").read_bytes() == (then / "model.weights.bin").read_bytes()
    for one, other in zip(cases(now), cases(then), strict=True):
        for x, y in zip((*one[0], *one[1]), (*other[0], *other[1]), strict=True):
            np.testing.assert_allclose(x, y, rtol=0, atol=4 * EPS)  # exp and tanh are Node's


@pytest.mark.parametrize("name", [m for m in MODELS if m not in {"stateful", *RARE}])
def test_gives_the_numbers_of_tfjs(name: str, written: Path, backend: str) -> None:
    assert_parity(nc.from_tfjs(written / name / "model.json"), written / name, backend)


@pytest.mark.parametrize("path", [p for p in OLD if "stateful" not in p])
def test_gives_the_numbers_of_old_tfjs(path: str, backend: str) -> None:
    assert_parity(nc.from_tfjs(DATA / path / "model.json"), DATA / path, backend)


@pytest.mark.parametrize("name", RARE)
def test_rare_models_are_refused_or_right(name: str, written: Path, backend: str) -> None:
    spec, message = attempted(written / name / "model.json")
    if spec is None:
        assert RARE[name] in message
    else:
        assert_parity(spec, written / name, backend)


@pytest.mark.parametrize("path", [f"{NEWEST}/stateful", "1.7.4/stateful"])
def test_stateful_models_carry_their_state(path: str, written: Path, backend: str) -> None:
    folder = written / "stateful" if path.startswith(NEWEST) else DATA / path
    spec = nc.from_tfjs(folder / "model.json")
    stateful = [n.config["stateful"] for n in spec.layers if n.kind != "dense"]
    assert stateful == [True, True, True]
    assert spec.inputs[0].shape[0] == "batch"  # TensorFlow.js pins it to 3
    model, exact = Model(spec, backend), Model(spec.astype("float64"), backend)
    known = [(x[0], y[0]) for x, y in cases(folder)]
    (x0, y0), (x1, y1), (x2, y2) = known
    ours, state = model.predict(x0, return_state=True)
    truth, wide = exact.predict(x0, return_state=True)
    assert_close(ours, truth, y0, "first")
    ours, truth = model.predict(x1, state=state), exact.predict(x1, state=wide)
    assert_close(ours, truth, y1, "carried")
    assert np.abs(model.predict(x1) - y1).max() > 1e-3  # the state matters
    assert_close(model.predict(x2), exact.predict(x2), y2, "reset")
    session = model.session(3)
    for k, (x, y) in enumerate(known):
        if k == 2:
            session.reset()
        np.testing.assert_allclose(session.push(x), y, rtol=0, atol=FAR * EPS)
    assert model.predict(np.zeros((5, 4, 2))).shape == (5, 2)


def test_gates_are_what_the_file_says() -> None:
    def gates(path: str) -> list[str]:
        spec = nc.from_tfjs(DATA / path / "model.json")
        return [n.config["recurrent_activation"] for n in spec.layers if n.kind in ("lstm", "gru")]

    fifth = "hard_sigmoid_fifth"
    assert gates("4.22.0/lstm") == gates("1.7.4/lstm") == gates("0.15.3/lstm") == [fifth]
    assert gates("4.22.0/lstm_stack") == ["sigmoid", fifth, fifth]
    assert gates("0.15.3/gru") == [fifth, "sigmoid", fifth]


def test_inputs_go_by_name_and_by_order(written: Path, backend: str) -> None:
    model = Model(nc.from_tfjs(written / "two_inputs/model.json"), backend)
    assert [t.name for t in model.inputs] == ["static_facts", "theSeries"]
    assert list(model.spec.outputs) == ["zScore", "alarm"]
    ((facts, series), outputs), *_ = cases(written / "two_inputs")
    named = model.predict({"theSeries": series, "static_facts": facts})
    ordered = model.predict([facts, series])
    assert list(named) == ["zScore", "alarm"]
    for key, expected in zip(named, outputs, strict=True):
        np.testing.assert_array_equal(named[key], ordered[key])
        np.testing.assert_allclose(named[key], expected, rtol=0, atol=FAR * EPS)


def test_shared_layers_have_one_set_of_weights() -> None:
    spec = nc.from_tfjs(DATA / NEWEST / "shared/model.json")
    assert [n.name for n in spec.layers].count("encoder") == 1
    assert sum(e.layer == "encoder" for e in spec.edges) == 2
    assert spec.parameters == sum(w.array.size for w in recorded("shared").weights)


def test_layers_of_nested_models_are_named_after_them() -> None:
    spec = nc.from_tfjs(DATA / NEWEST / "nested/model.json")
    inner = {"innerChain.innerGru", "innerChain.inner_dense", "innerGraph.l", "innerGraph.g"}
    assert {n.name for n in spec.layers if n.weights} == inner
    assert sum(e.layer == "innerChain.innerGru" for e in spec.edges) == 3


def test_the_encoder_can_be_cut_off(backend: str) -> None:
    folder = DATA / NEWEST / "seq2seq"
    whole = nc.from_tfjs(folder / "model.json")
    encoder = Model(whole.subgraph(["source"], ["enc/h", "enc/c"]), backend)
    decoder = Model(
        whole.subgraph(["target", "enc/h", "enc/c"], ["out", "dec/h", "dec/c"]), backend
    )
    for (source, target), outputs in cases(folder):
        state = encoder.predict(source)
        y = decoder.predict({"target": target, **state})
        for ours, theirs in zip(y.values(), outputs, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=FAR * EPS)


def test_ids_come_as_integers_or_floats(backend: str) -> None:
    folder = DATA / NEWEST / "ids"
    model = Model(nc.from_tfjs(folder / "model.json"), backend)
    ((ids,), (y,)), *_ = cases(folder)
    assert ids.dtype == np.int32
    for x in (ids, ids.astype("f4"), ids.astype("i8"), ids.tolist()):
        np.testing.assert_allclose(model.predict(x), y, rtol=0, atol=FAR * EPS)
    with pytest.raises(npylstm.ShapeError):  # TensorFlow.js: "not in [0, 10]"
        model.predict(ids + 11)


@pytest.mark.parametrize("name", ["nested", "seq2seq", "merges", "two_inputs", "shared"])
def test_layers_in_any_order(name: str, tmp_path: Path, backend: str) -> None:
    """A graph is where its nodes say, not where its layers stand."""
    layout = recorded(name).with_layers(lambda layers: layers.reverse())
    spec = converted(layout, tmp_path)
    whole = nc.from_tfjs(DATA / NEWEST / name / "model.json")
    assert spec.outputs == whole.outputs
    assert spec.inputs == whole.inputs
    assert_parity(spec, DATA / NEWEST / name, backend)


def test_one_of_a_pair_of_directions(tmp_path: Path, backend: str) -> None:
    """A merge mode of null means none: the first output is the forward direction alone."""
    folder = DATA / NEWEST / "bidirectional_pair"
    layout = recorded("bidirectional_pair").edited(
        lambda d: d["modelTopology"]["config"]["output_layers"].pop()
    )
    spec, message = attempted(layout.write(tmp_path))
    if spec is None:
        assert "bidirectional" in message
    else:
        for (x,), (y, _) in cases(folder):
            found = Model(spec, backend).predict(x)
            assert found.shape == y.shape
            np.testing.assert_allclose(found, y, rtol=0, atol=FAR * EPS)


def test_survives_npz(written: Path, tmp_path: Path, backend: str) -> None:
    for name in ("nested", "gates", "names"):
        spec = nc.from_tfjs(written / name / "model.json")
        npylstm.save(spec, tmp_path / "m.npz")
        again = npylstm.load(tmp_path / "m.npz", backend)
        assert content(again.spec) == content(spec)
        assert_parity(again.spec, written / name, backend)


# --- where the bytes lie -------------------------------------------------------------------------

MANY = ("lstm_stack", "gru", "nested", "normalised", "time_distributed", "bidirectional")


@pytest.mark.parametrize("size", [1, 5, 65, 1000, 1 << 22])
@pytest.mark.parametrize("name", MANY)
def test_shards_cut_weights_anywhere(name: str, size: int, tmp_path: Path) -> None:
    layout = recorded(name).in_shards(size)
    if size < 1000:
        assert len(layout.parts()[1]) > 5
        assert any(cut % 4 for cut in layout.cuts[0])
    assert_same_model(layout, name, tmp_path)


@pytest.mark.parametrize("name", MANY)
def test_groups_have_their_own_shards(name: str, tmp_path: Path) -> None:
    layout = recorded(name).in_groups().in_shards(101)
    assert len(layout.groups) > 2
    assert any(len(cuts) > 1 for cuts in layout.cuts)
    assert_same_model(layout, name, tmp_path)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", MANY)
def test_any_order(name: str, seed: int, tmp_path: Path) -> None:
    """The converter follows the alphabet, as HDF5 does, and JSON promises no order of keys."""
    rng = random.Random(seed)
    weights = list(recorded(name).weights)
    rng.shuffle(weights)

    def shuffled(value: Any) -> Any:
        if isinstance(value, list):
            return [shuffled(v) for v in value]
        if not isinstance(value, dict):
            return value
        return {k: shuffled(value[k]) for k in rng.sample(list(value), len(value))}

    path = recorded(name).with_weights(weights).in_shards(333).write(tmp_path)
    path.write_text(json.dumps(shuffled(json.loads(path.read_text()))))
    assert content(nc.from_tfjs(path)) == content(nc.from_tfjs(DATA / NEWEST / name / "model.json"))


PATHS: dict[str, Callable[[int, int, int], str]] = {
    "as downloads are named": lambda g, s, n: f"./model.weights-{g}{s}.bin",
    "without a suffix": lambda g, s, n: f"group{g + 1}-shard{s + 1}of{n}",
    "in a folder": lambda g, s, n: f"weights/part/{g}-{s}.bin",
    "with dots": lambda g, s, n: f"..weights{g}.{s}..bin",
    "with blanks": lambda g, s, n: f"my weights ({g}) %20 {s}.bin",
    "in other letters": lambda g, s, n: f"Gewichte-Größe-重み-{g}-{s}",
    "hidden": lambda g, s, n: f".w{g}{s}",
}


@pytest.mark.parametrize("name", PATHS)
def test_names_of_shards(name: str, tmp_path: Path) -> None:
    layout = replace(recorded("lstm_stack").in_groups().in_shards(99), name=PATHS[name])
    assert_same_model(layout, "lstm_stack", tmp_path)


def test_a_shard_may_be_empty(tmp_path: Path) -> None:
    layout = recorded("lstm_stack")
    total = sum(len(w.data) for w in layout.weights)
    assert_same_model(replace(layout, cuts=((0, 8, 8, 8, total),)), "lstm_stack", tmp_path)


def test_a_group_may_be_empty(tmp_path: Path) -> None:
    layout = recorded("lstm_stack")
    path = layout.write(tmp_path)
    document = json.loads(path.read_text())
    document["weightsManifest"].insert(0, {"paths": [], "weights": []})
    write_json(tmp_path, document)
    assert content(nc.from_tfjs(path)) == content(
        nc.from_tfjs(DATA / NEWEST / "lstm_stack/model.json")
    )


def flat(layout: Layout, folder: Path, key: str) -> Path:
    """A list of weights without groups, each with the file that it lies in."""
    path = layout.in_groups(lambda w: w.name).write(folder)
    document = json.loads(path.read_text())
    entries = [
        {**group["weights"][0], "paths": group["paths"]} for group in document[key]
    ]  # fmt: skip
    return write_json(folder, {**document, key: entries})


@pytest.mark.parametrize("name", MANY)
def test_a_manifest_without_groups(name: str, tmp_path: Path) -> None:
    path = flat(recorded(name), tmp_path, "weightsManifest")
    document = json.loads(path.read_text())
    assert not any("weights" in entry for entry in document["weightsManifest"])
    assert content(nc.from_tfjs(path)) == content(nc.from_tfjs(DATA / NEWEST / name / "model.json"))


@pytest.mark.parametrize("name", MANY)
def test_a_manifest_of_one_group(name: str, tmp_path: Path) -> None:
    path = recorded(name).in_shards(99).write(tmp_path)
    document = json.loads(path.read_text())
    (document["weightsManifest"],) = document["weightsManifest"]
    write_json(tmp_path, document)
    assert content(nc.from_tfjs(path)) == content(nc.from_tfjs(DATA / NEWEST / name / "model.json"))


# --- model.json over the years -------------------------------------------------------------------


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


# --- quantised weights ---------------------------------------------------------------------------


def test_the_reference_dequantises_as_documented() -> None:
    w = weight("a/kernel", [[0.0, -0.1], [1.2, 0.5]])
    eight = quantise(w, "uint8")
    assert eight.data == bytes(
        [20, 0, 255, 118]
    )  # the converter's own documentation says 20, 0, 255
    assert eight.entry["quantization"]["min"] == pytest.approx(-0.10196078817)
    assert eight.entry["quantization"]["scale"] == pytest.approx(0.00509803940852)
    assert dequantise(eight).array[0, 0] == 0
    assert np.abs(dequantise(quantise(w, "uint16")).array - w.array).max() < 1.2e-5


@pytest.mark.parametrize("original", [True, False], ids=["original_dtype", "plain"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16"])
@pytest.mark.parametrize("name", MANY)
def test_quantised(name: str, dtype: str, original: bool, tmp_path: Path) -> None:
    layout = recorded(name).mapped(lambda w: quantise(w, dtype, original_dtype=original))
    spec = converted(layout.in_shards(77), tmp_path / "quantised")
    target = converted(layout.mapped(dequantise), tmp_path / "plain")
    assert content(spec) == content(target)
    assert content(spec) != content(nc.from_tfjs(DATA / NEWEST / name / "model.json"))


def test_some_weights_quantised(tmp_path: Path) -> None:
    """One entry may be, its neighbour not; each tells by itself."""
    kinds = ["uint8", None, "float16", "uint16"]

    def change(w: Weight) -> Weight:
        kind = kinds[sum(map(ord, w.name)) % 4]
        return quantise(w, kind) if kind else w

    layout = recorded("nested").mapped(change)
    found = {w.entry.get("quantization", {}).get("dtype") for w in layout.weights}
    assert len(found) > 2
    plain = layout.mapped(lambda w: dequantise(w) if "quantization" in w.entry else w)
    spec = converted(layout.in_groups().in_shards(31), tmp_path / "some")
    assert content(spec) == content(converted(plain, tmp_path / "plain"))


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_dequantised_in_float64(dtype: str, tmp_path: Path) -> None:
    """In float32, some numbers would be another: ``code * scale`` is rounded before ``+ min``."""
    rng = np.random.default_rng(5)
    codes = rng.integers(0, np.iinfo(TYPES[dtype]).max, (3, 20), TYPES[dtype], endpoint=True)
    notes = {"dtype": dtype, "min": -0.7234567890123, "scale": 1.456789012345 / codes.max()}
    first, *others = recorded("lstm").weights
    w = Weight({**first.entry, "quantization": notes}, codes.tobytes())
    expected = dequantise(w).array
    short = codes.astype("f4") * np.float32(notes["scale"]) + np.float32(notes["min"])
    assert (short != expected).any()
    layout = recorded("lstm")
    spec = converted(layout.with_weights([w, *others]), tmp_path / "codes")
    target = converted(layout.with_weights([dequantise(w), *others]), tmp_path / "plain")
    assert content(spec) == content(target)


def test_edges_of_quantisation(tmp_path: Path) -> None:
    """A constant weight, a range without zero, whole numbers as notes, the smallest halves."""
    layout = recorded("lstm")
    kernel, recurrent, bias, dense, last = layout.weights
    constant = quantise(weight(bias.name, np.full(20, 0.375)), "uint8")
    assert constant.entry["quantization"] == {
        "dtype": "uint8", "min": 0.375, "scale": 1.0, "original_dtype": "float32",
    }  # fmt: skip
    positive = quantise(weight(recurrent.name, np.abs(recurrent.array) + 2), "uint16")
    assert positive.entry["quantization"]["min"] > 2
    halves = np.array([6e-8, -6e-8, 65504.0, 6.1e-5, 0.0, -0.0, *np.linspace(-1, 1, 54)])
    half = quantise(weight(kernel.name, halves.reshape(3, 20)), "float16")
    whole = Weight(
        {**dense.entry, "quantization": {"dtype": "uint8", "min": -1, "scale": 2}}, bytes(range(10))
    )
    weights = (half, positive, constant, whole, quantise(last, "float16"))
    spec = converted(layout.with_weights(weights), tmp_path / "codes")
    plain = converted(layout.with_weights(map(dequantise, weights)), tmp_path / "plain")
    assert content(spec) == content(plain)
    assert spec.layers[1].weights["kernel"].reshape(-1)[[0, 9]].tolist() == [-1.0, 17.0]


# --- files of the converter ----------------------------------------------------------------------

KERAS = ROOT / "tests/data/keras"
KERAS_FILES = sorted(
    p.name for p in KERAS.glob("*.h5")
    if p.name.split("_")[0] in ("keras20", "keras22", "tf115", "tf24", "tf213")
    and p.stem.split("_")[1] in ("functional", "shapes", "stacked", "stateful")
    and "weights" not in p.name
)  # fmt: skip


def text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def h5_weights(group: Any) -> Iterator[Weight]:
    """In the order of the file, as the converter walks it."""
    if "weight_names" in group.attrs:
        for name in map(text, group.attrs["weight_names"]):
            yield weight(name.removesuffix(":0"), group[name][()])
    else:
        for key in group:
            yield from h5_weights(group[key])


def as_converter(path: Path, *, split: bool = False) -> Layout:
    """What ``tensorflowjs_converter --input_format=keras`` makes of an ``.h5``."""
    with h5py.File(path) as file:
        version = text(file.attrs["keras_version"])
        topology = {
            "keras_version": version,
            "backend": text(file.attrs["backend"]),
            "model_config": json.loads(text(file.attrs["model_config"])),
        }
        groups = [tuple(h5_weights(file["model_weights"][k])) for k in file["model_weights"]]
    if not split:
        groups = [tuple(w for group in groups for w in group)]
    document = {
        "format": "layers-model", "generatedBy": f"keras v{version}",
        "convertedBy": "TensorFlow.js Converter v4.22.0", "modelTopology": topology,
    }  # fmt: skip
    return Layout(document, tuple(g for g in groups if g))


def numbers(spec: ModelSpec) -> list[Any]:
    return [(kind, config, weights) for _, kind, config, weights in content(spec)[0]]


@pytest.mark.parametrize("split", [False, True], ids=["one group", "split by layer"])
@pytest.mark.parametrize("name", KERAS_FILES)
def test_converted_from_keras(name: str, split: bool, tmp_path: Path, backend: str) -> None:
    spec = converted(as_converter(KERAS / name, split=split).in_shards(1024), tmp_path)
    assert numbers(spec) == numbers(nc.from_keras(KERAS / name))
    known = dict(np.load(KERAS / f"{Path(name).stem}.expected.npz"))
    model = Model(spec, backend)
    if "x0" in known:
        y, state = model.predict(known["x0"], return_state=True)
        np.testing.assert_allclose(y, known["y0"], rtol=0, atol=1e-6)
        y = model.predict(known["x1"], state=state)
        np.testing.assert_allclose(y, known["y1"], rtol=0, atol=1e-6)
    else:
        np.testing.assert_allclose(model.predict(known["x"]), known["y"], rtol=0, atol=1e-6)


def test_files_of_every_keras_are_here() -> None:
    assert {n.split("_")[0] for n in KERAS_FILES} == {
        "keras20",
        "keras22",
        "tf115",
        "tf24",
        "tf213",
    }


CELL_NAMES: dict[str, Callable[[str], str]] = {
    "with the cell": lambda n: n.replace("lstm/", "lstm/lstm_cell/"),
    "with a counted cell": lambda n: n.replace("lstm/", "lstm/lstm_cell_7/"),
}


@pytest.mark.parametrize("form", CELL_NAMES)
def test_weights_named_after_their_cell(form: str, tmp_path: Path) -> None:
    """From TensorFlow 2.2 on; TensorFlow.js itself passes over the cell."""
    layout = recorded("lstm").with_layers(lambda layers: layers[0]["config"].update(name="lstm"))
    plain = layout.mapped(lambda w: w.renamed(w.name.replace("lstm_LSTM1/", "lstm/")))
    named = plain.mapped(lambda w: w.renamed(CELL_NAMES[form](w.name)))
    assert [w.name for w in named.weights] != [w.name for w in plain.weights]
    expected = content(converted(plain, tmp_path / "plain"))
    assert content(converted(as_converted(named), tmp_path / "named")) == expected


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0), (1, 2, 0)], ids=str)
@pytest.mark.parametrize("names", ["lstm/{}", "lstm/cell/vars/{}", "layers/lstm/cell/vars/{}"])
def test_weights_that_are_numbered(names: str, order: tuple[int, ...], tmp_path: Path) -> None:
    """TensorFlow.js reads ``lstm/0`` as the kernel. The two matrices here are of one shape."""
    rng = np.random.default_rng(2)
    arrays = [rng.uniform(-1, 1, s).astype("f4") for s in ((3, 12), (3, 12), (12,))]
    layout = recorded("lstm").with_layers(lambda layers: layers.pop())
    layout.layers[0]["config"].update(name="lstm", units=3)
    roles = ("kernel", "recurrent_kernel", "bias")
    plain = [weight(f"lstm/{role}", a) for role, a in zip(roles, arrays, strict=True)]
    expected = content(converted(layout.with_weights(plain), tmp_path / "plain"))
    numbered = [weight(names.format(k), arrays[k]) for k in order]
    spec, message = attempted(layout.with_weights(numbered).write(tmp_path / "numbered"))
    if spec is None:
        assert "lstm" in message
    else:
        assert content(spec) == expected


@pytest.mark.parametrize(
    "name", ["layers", "optimizer", "vars", "cell", "kernel", "lstm_cell", "0"]
)
def test_layers_of_any_name(name: str, tmp_path: Path) -> None:
    """A name that means something elsewhere in files of weights."""
    layout = recorded("lstm").with_layers(lambda layers: layers[0]["config"].update(name=name))
    layout = layout.mapped(lambda w: w.renamed(w.name.replace("lstm_LSTM1/", f"{name}/")))
    spec = converted(layout, tmp_path)
    assert [n.name for n in spec.layers] == [name, "dense_Dense1"]
    assert numbers(spec) == numbers(nc.from_tfjs(DATA / NEWEST / "lstm/model.json"))


@pytest.mark.parametrize("name", ["forward_pass", "backward_pass", "lstm", "bidirectional"])
def test_directions_are_told_by_their_own_names(name: str, tmp_path: Path) -> None:
    """Also in the order of the alphabet, in which the backward layer stands first."""
    layout = recorded("bidirectional")
    old = layout.layers[0]["config"]["name"]
    layout = layout.with_layers(lambda layers: layers[0]["config"].update(name=name))
    layout = layout.mapped(lambda w: w.renamed(w.name.replace(f"{old}/", f"{name}/")))
    layout = layout.in_groups()
    names = [w.name for w in layout.weights if w.name.startswith(f"{name}/")]
    assert "backward" in names[0]
    assert "forward" in names[-1]
    spec = converted(layout, tmp_path)
    assert numbers(spec) == numbers(nc.from_tfjs(DATA / NEWEST / "bidirectional/model.json"))


@pytest.mark.parametrize("other", ["lstm", "lstm_1", "lstm_LSTM1_", "forward_lstm", "LSTM"])
def test_names_that_begin_alike(other: str, tmp_path: Path) -> None:
    layout = recorded("lstm").with_layers(
        lambda layers: (
            layers[0]["config"].update(name="lstm_LSTM1"), layers[1]["config"].update(name=other)
        )
    )  # fmt: skip
    layout = layout.mapped(lambda w: w.renamed(w.name.replace("dense_Dense1/", f"{other}/")))
    spec = converted(layout, tmp_path)
    assert numbers(spec) == numbers(nc.from_tfjs(DATA / NEWEST / "lstm/model.json"))


def test_classes_of_tensorflow_1_13(tmp_path: Path) -> None:
    """The converter renames the layers that one version called UnifiedLSTM and so on."""
    layout = as_converted(recorded("lstm"))
    layout.layers[0]["class_name"] = "UnifiedLSTM"
    spec, message = attempted(layout.write(tmp_path))
    if spec is None:
        assert "UnifiedLSTM" in message
    else:
        assert content(spec) == content(nc.from_tfjs(DATA / NEWEST / "lstm/model.json"))


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of today's Keras 2 and Keras 3, saved as .h5."""
    import keras
    import tf_keras

    folder = tmp_path_factory.mktemp("live")
    rng = np.random.default_rng(3)
    for name, k in (("keras2", tf_keras), ("keras3", keras)):
        x, z = k.Input((6, 3), name="x"), k.Input((4,), name="z")
        y = k.layers.LSTM(5, return_sequences=True)(x)
        y = k.layers.Bidirectional(k.layers.LSTM(3))(y)
        inner = k.Sequential([k.Input((4,)), k.layers.Dense(4, "relu")], name="inner")
        y = k.layers.Concatenate()([y, inner(inner(z))])
        graph = k.Model([x, z], [k.layers.Dense(2)(y), k.layers.Dense(3, "softmax")(y)])
        gru = k.Sequential([k.Input((6, 3)), k.layers.GRU(4), k.layers.Dense(2)])
        for kind, model in (("graph", graph), ("gru", gru)):
            model.set_weights([
                rng.uniform(-0.8, 0.8, w.shape).astype("f4") for w in model.get_weights()
            ])  # fmt: skip
            model.save(folder / f"{name}_{kind}.h5")
    return folder


# TensorFlow.js refuses these names and these input shapes; the converter writes them all the same.
@pytest.mark.parametrize("name", ["keras2", "keras3"])
def test_converted_from_a_live_model(name: str, live: Path, tmp_path: Path) -> None:
    path = live / f"{name}_graph.h5"
    spec = converted(as_converter(path), tmp_path)
    target = nc.from_keras(path)
    assert numbers(spec) == numbers(target)
    assert spec.edges == target.edges


@pytest.mark.parametrize("name", ["keras2", "keras3"])
def test_a_gru_that_resets_after_is_refused_or_right(name: str, live: Path, tmp_path: Path) -> None:
    """TensorFlow.js cannot run it; plain arithmetic of its own form would be silently wrong."""
    path = live / f"{name}_gru.h5"
    spec, message = attempted(as_converter(path).write(tmp_path))
    if spec is None:
        assert "reset_after" in message
        assert "gru" in message
    else:
        assert numbers(spec) == numbers(nc.from_keras(path))


def test_weights_named_by_number_are_refused_or_right(tmp_path: Path) -> None:
    """The converter's route from ``.keras`` names weights as the archive does."""
    path = KERAS / "tf213_stacked.keras"
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
        found: list[Weight] = []

        def visit(name: str, thing: Any) -> None:
            if isinstance(thing, h5py.Dataset):
                found.append(weight(name, thing[()]))

        with archive.open("model.weights.h5") as stream, h5py.File(stream) as file:
            file.visititems(visit)
    document = {
        "format": "layers-model", "generatedBy": "keras v2.13.1", "convertedBy": "x",
        "modelTopology": {"keras_version": "2.13.1", "model_config": config},
    }  # fmt: skip
    assert len(found) > 5
    spec, message = attempted(Layout(document, (tuple(found),)).write(tmp_path))
    if spec is None:
        assert "vars/0" in message or "lstm" in message
    else:
        assert numbers(spec) == numbers(nc.from_keras(path))


# --- found by content, from Python and from the shell --------------------------------------------


def test_convert_finds_it(written: Path, tmp_path: Path) -> None:
    path = written / "nested/model.json"
    expected = content(nc.from_tfjs(path))
    assert content(nc.convert(path)) == content(nc.convert(str(path))) == expected
    assert content(nc.from_tfjs(str(path))) == expected
    assert nc.find_importer(path).name == "tfjs"
    assert "from_tfjs" in nc.__all__


def test_from_a_relative_path(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = content(nc.from_tfjs(written / "lstm/model.json"))
    monkeypatch.chdir(written / "lstm")
    assert content(nc.from_tfjs("model.json")) == content(nc.convert("model.json")) == expected
    monkeypatch.chdir(written)
    assert content(nc.convert("lstm/model.json")) == expected


def dressed(form: str, document: Any) -> bytes:
    """The same JSON with nothing telling in its first 512 bytes."""
    if form == "metadata first":
        return json.dumps({"userDefinedMetadata": {"text": "x" * 5000}, **document}).encode()
    if form == "manifest first":
        last = {"weightsManifest": document["weightsManifest"], **document}
        last["modelTopology"] = last.pop("modelTopology")
        return json.dumps(last, indent=4).encode()
    if form == "topology first":
        return json.dumps({"modelTopology": 0, **document}, indent=8).encode()
    if form == "blanks first":
        return b" \r\n\t" * 60 + json.dumps(document).encode()
    assert form == "windows"
    return json.dumps(document, indent=2).replace("\n", "\r\n").encode()


@pytest.mark.parametrize("name", ["model.json", "model.h5", "model"])
@pytest.mark.parametrize(
    "form", ["metadata first", "manifest first", "topology first", "blanks first", "windows"]
)
def test_found_by_content_alone(form: str, name: str, tmp_path: Path) -> None:
    path = recorded("lstm_stack").write(tmp_path)
    data = dressed(form, json.loads(path.read_text()))
    path.unlink()
    (tmp_path / name).write_bytes(data)
    expected = content(nc.from_tfjs(DATA / NEWEST / "lstm_stack/model.json"))
    assert content(nc.convert(tmp_path / name)) == expected
    assert content(nc.from_tfjs(tmp_path / name)) == expected


@pytest.mark.parametrize("name", ["lstm_stack", "trained", "two_inputs", "stateful"])
def test_from_the_shell(
    name: str, written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], backend: str
) -> None:
    from npylstm.cli import main

    source, output = written / name / "model.json", tmp_path / "m.npz"
    assert main(["convert", str(source), str(output), "--record", "0"]) == 0
    assert capsys.readouterr().err == ""
    model = npylstm.load(output, backend)
    assert content(model.spec) == content(nc.from_tfjs(source))
    if name != "stateful":
        assert_parity(model.spec, written / name, backend)
    output.unlink()
    assert main(["convert", str(source), str(output)]) == 0  # without Node nothing is recorded
    assert output.exists()
    assert main(["info", str(source)]) == 0
    capsys.readouterr()
    assert main(["verify", str(output), "--against", str(source)]) == 2
    err = capsys.readouterr().err
    assert "TensorFlow.js" in err
    assert err.count("\n") == 1


def test_says_where_it_came_from(written: Path) -> None:
    said = json.dumps(dict(nc.from_tfjs(written / "lstm/model.json").provenance))
    assert "tfjs-layers" in said or "TensorFlow.js" in said
    assert NEWEST in said


ALONE = """
import sys
from importlib.abc import MetaPathFinder

class Wall(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"tensorflow", "keras", "tf_keras", "h5py", "torch", "numba", "tensorflowjs"}:
            raise ImportError(f"no {name} here")

sys.meta_path.insert(0, Wall())
import numpy as np
import npylstm, npylstm_converters as nc
from npylstm.cli import main

source, output, x, y = sys.argv[1:]
if source == "wall":
    import h5py
spec = nc.from_tfjs(source)
np.save(y, npylstm.Model(spec, "numpy").predict(np.load(x)))
assert main(["convert", source, output, "--record", "0"]) == 0
assert npylstm.load(output, "numpy").spec.parameters == spec.parameters
"""


def test_needs_numpy_alone(tmp_path: Path) -> None:
    folder = DATA / NEWEST / "lstm_stack"
    (inputs, outputs), *_ = cases(folder)
    np.save(tmp_path / "x.npy", inputs[0])
    command = [sys.executable, "-c", ALONE, str(folder / "model.json"), str(tmp_path / "m.npz"),
               str(tmp_path / "x.npy"), str(tmp_path / "y.npy")]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), outputs[0], rtol=0, atol=FAR * EPS)
    command[3] = "wall"
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert "no h5py here" in done.stderr  # the wall stands
