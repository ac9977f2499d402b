"""The ledger: every array of a source is in it once, with the weights that it has become.

Files are walked here anew, with h5py and json alone, and numbers are compared: what an entry says
has become of an array must hold the numbers of that array.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import npylstm_converters as nc
import numpy as np
import pytest
import tfjs_layout
from keras_graphs import FRAMEWORKS, randomise
from ledgers import BOTH, DATA, TFJS, entries_of, names, source_of

from npylstm import ModelSpec

Array = np.ndarray[Any, Any]
OLD = sorted(p for p in (DATA / "keras").iterdir() if p.suffix in (".h5", ".keras"))
WAYS = ("keras", "h5", "live")
EVERY_WAY = pytest.mark.parametrize("way", WAYS)
ASIDE = ("optimizer", "seed_generator", "metrics")


# --- what is in a source, seen without the importer ----------------------------------------------


def datasets(group: Any) -> dict[str, Array]:
    """All arrays below a group by path, without those of optimizers and random generators."""
    found: dict[str, Array] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name.replace("\\", "/")] = item[()]

    group.visititems(visit)
    return {
        path: array
        for path, array in found.items()
        if not any(part.startswith(ASIDE) for part in path.split("/"))
    }


def everything_in(path: Path) -> list[tuple[str, tuple[int, ...]]]:
    """All arrays of a file, those of optimizers, too."""
    data = path.read_bytes()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            data = archive.read("model.weights.h5")
    found: list[tuple[str, tuple[int, ...]]] = []
    with h5py.File(io.BytesIO(data), "r") as file:
        file.visititems(
            lambda name, item: (
                found.append((name, item.shape)) if isinstance(item, h5py.Dataset) else None
            )
        )
    return found


def arrays_in_file(path: Path) -> list[tuple[str, Array]]:
    """Arrays by the names that the ledger has for them: in groups of layers, from there."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            stream = io.BytesIO(archive.read("model.weights.h5"))
        with h5py.File(stream, "r") as file:
            return list(datasets(file).items())
    with h5py.File(path, "r") as file:
        root = file.get("model_weights", file)
        if "layer_names" not in root.attrs:
            return list(datasets(root).items())
        groups = {str(name): datasets(root[name]) for name in root}
        assert set(groups) - {"top_level_model_weights"} == set(names(root.attrs["layer_names"]))
        return [(f"{g}/{path}", a) for g, arrays in groups.items() for path, a in arrays.items()]


def arrays_in_model(model: Any) -> list[tuple[str, Array]]:
    return [
        (str(getattr(v, "path", v.name)), np.asarray(v)) for v in model.weights
        if not any(part.startswith(ASIDE) for part in str(getattr(v, "path", v.name)).split("/"))
    ]  # fmt: skip


def arrays_in_folder(folder: Path) -> list[tuple[str, Array]]:
    weights = tfjs_layout.read(folder).weights
    return [(w.name, w.array) for w in weights if w.entry.get("group") != "optimizer"]


# --- what must hold of every ledger --------------------------------------------------------------


def assert_complete(spec: ModelSpec, arrays: Sequence[tuple[str, Array]]) -> None:
    """Every array once, every weight of every layer from somewhere."""
    entries = entries_of(spec)
    for entry in entries:
        assert list(entry) == ["source", "shape", "layer", "weights"]
        assert isinstance(entry["weights"], list)
        assert all(type(d) is int for d in entry["shape"])
    listed = sorted((e["source"], tuple(e["shape"])) for e in entries)
    assert listed == sorted((path, array.shape) for path, array in arrays)
    assert len({e["source"] for e in entries}) == len(entries)
    json.dumps(entries)
    weights = {(layer.name, key) for layer in spec.layers for key in layer.weights}
    named = {(e["layer"], key) for e in entries for key in e["weights"]}
    assert named == weights
    assert {e["layer"] for e in entries} <= {layer.name for layer in spec.layers}


def assert_numbers(spec: ModelSpec, arrays: Sequence[tuple[str, Array]]) -> None:
    """Put the weights of an entry side by side: that is the array, gates in its order."""
    by_path = dict(arrays)
    for entry in entries_of(spec):
        array = by_path[entry["source"]]
        parts = [spec[entry["layer"]].weights[key] for key in entry["weights"]]
        assert parts, entry
        flat = len({p.ndim for p in parts}) == 1 and parts[0].ndim == 1
        made = np.concatenate(parts, axis=-1)
        if flat:
            array = array.reshape(-1)
        np.testing.assert_array_equal(made.reshape(array.shape), array)


# --- models --------------------------------------------------------------------------------------


def gates(letters: str, *kinds: str, prefix: str = "") -> list[str]:
    return [f"{prefix}{kind}_{letter}" for kind in kinds for letter in letters]


def recurrent(letters: str, bias: Sequence[str] = ("b",), prefix: str = "") -> list[list[str]]:
    """What the kernel, the recurrent kernel and the bias become."""
    kinds: list[Sequence[str]] = [("W",), ("U",), bias]
    return [gates(letters, *kind, prefix=prefix) for kind in kinds if kind]


Table = dict[str, list[list[str]]]
LSTM, GRU, RNN = "ifco", "zrh", "h"


def chain(
    *layers: Callable[[Any], Any], shape: tuple[Any, ...] = (None, 3)
) -> Callable[[Any], Any]:
    def build(k: Any) -> Any:
        tensor = x = k.Input(shape)
        for layer in layers:
            tensor = layer(k.layers)(tensor)
        return k.Model(x, tensor)

    return build


def shared(k: Any) -> Any:
    a, b = k.Input((None, 3)), k.Input((None, 3))
    lstm = k.layers.LSTM(4, name="l")
    return k.Model([a, b], k.layers.Dense(2, name="d")(k.layers.Add()([lstm(a), lstm(b)])))


def nested(k: Any) -> Any:
    i = k.Input((None, 3))
    inner = k.Model(i, k.layers.Dense(3, name="d")(k.layers.LSTM(4, name="l")(i)), name="inner")
    x = k.Input((None, 3))
    return k.Model(x, k.layers.Dense(2, name="out")(inner(x)))


def cells(k: Any) -> Any:
    x = k.Input((None, 3))
    rnn = k.layers.RNN([k.layers.LSTMCell(4), k.layers.GRUCell(3)], name="l")
    return k.Model(x, rnn(x))


def two_directions(k: Any) -> Any:
    x = k.Input((None, 3))
    both = k.layers.Bidirectional(
        k.layers.LSTM(4, name="a", return_sequences=True),
        backward_layer=k.layers.GRU(
            4, name="z", return_sequences=True, go_backwards=True, reset_after=False
        ),
        name="l",
    )
    return k.Model(x, both(x))


def norm(L: Any) -> Any:
    return L.BatchNormalization(name="n")


DENSE = [["kernel"], ["bias"]]
NORM = [["gamma"], ["beta"], ["moving_mean"], ["moving_variance"]]
MODELS: dict[str, tuple[Callable[[Any], Any], Table]] = {
    "lstm": (
        chain(lambda L: L.LSTM(4, name="l"), lambda L: L.Dense(2, name="d")),
        {"l": recurrent(LSTM), "d": DENSE},
    ),
    "lstm_without_bias": (
        chain(lambda L: L.LSTM(4, use_bias=False, name="l")), {"l": recurrent(LSTM, ())},
    ),
    "gru": (chain(lambda L: L.GRU(4, name="l")), {"l": recurrent(GRU, ("b", "rb"))}),
    "gru_before": (
        chain(lambda L: L.GRU(4, reset_after=False, name="l")), {"l": recurrent(GRU)},
    ),
    "simple": (chain(lambda L: L.SimpleRNN(4, name="l")), {"l": recurrent(RNN)}),
    "bidirectional_lstm": (
        chain(lambda L: L.Bidirectional(L.LSTM(4), name="l")),
        {"l": recurrent(LSTM, prefix="forward/") + recurrent(LSTM, prefix="backward/")},
    ),
    "bidirectional_gru": (
        chain(lambda L: L.Bidirectional(L.GRU(4), name="l")),
        {"l": recurrent(GRU, ("b", "rb"), "forward/") + recurrent(GRU, ("b", "rb"), "backward/")},
    ),
    "two_directions": (
        two_directions, {"l": recurrent(LSTM, prefix="forward/") + recurrent(GRU, prefix="backward/")},
    ),
    "rnn_of_a_cell": (
        chain(lambda L: L.RNN(L.GRUCell(4), name="l")), {"l": recurrent(GRU, ("b", "rb"))},
    ),
    "dropout_between": (
        chain(lambda L: L.LSTM(4, dropout=0.5, return_sequences=True, name="l"),
              lambda L: L.Dropout(0.5), lambda L: L.GaussianNoise(0.1), lambda L: L.LSTM(2, name="m")),
        {"l": recurrent(LSTM), "m": recurrent(LSTM)},
    ),
    "embedding": (
        chain(lambda L: L.Embedding(9, 3, name="e"), lambda L: L.LSTM(4, name="l"), shape=(None,)),
        {"e": [["embeddings"]], "l": recurrent(LSTM)},
    ),
    "convolution": (
        chain(lambda L: L.Conv1D(4, 2, name="c"), norm, lambda L: L.MaxPooling1D(2),
              lambda L: L.PReLU(shared_axes=[1], name="p"), lambda L: L.LayerNormalization(name="y"),
              lambda L: L.TimeDistributed(L.Dense(2, use_bias=False), name="t")),
        {"c": DENSE, "n": NORM, "p": [["alpha"]], "y": [["gamma"], ["beta"]], "t": [["kernel"]]},
    ),
    "shared": (shared, {"l": recurrent(LSTM), "d": DENSE}),
}  # fmt: skip


def arrays_of(source: Any) -> list[tuple[str, Array]]:
    return arrays_in_file(source) if isinstance(source, Path) else arrays_in_model(source)


@pytest.mark.parametrize("name", MODELS)
@EVERY_WAY
@BOTH
def test_models(framework: str, way: str, name: str, tmp_path: Path) -> None:
    build, table = MODELS[name]
    model = build(FRAMEWORKS[framework])
    randomise(model, 1)
    source = source_of(model, way, tmp_path)
    spec, arrays = nc.from_keras(source), arrays_of(source)
    assert_complete(spec, arrays)
    assert_numbers(spec, arrays)
    entries = entries_of(spec)
    for layer, expected in table.items():
        assert [e["weights"] for e in entries if e["layer"] == layer] == expected
    assert {e["layer"] for e in entries} == set(table)


@pytest.mark.parametrize("build", [nested, cells], ids=["nested", "cells"])
@EVERY_WAY
@BOTH
def test_models_of_parts(
    framework: str, way: str, build: Callable[[Any], Any], tmp_path: Path
) -> None:
    model = build(FRAMEWORKS[framework])
    randomise(model, 2)
    source = source_of(model, way, tmp_path)
    spec, arrays = nc.from_keras(source), arrays_of(source)
    assert_complete(spec, arrays)
    assert_numbers(spec, arrays)


@BOTH
def test_weights_beside_an_architecture(framework: str, tmp_path: Path) -> None:
    model = MODELS["convolution"][0](FRAMEWORKS[framework])
    randomise(model, 3)
    for name in ("m.weights.h5", "m_weights.h5") if framework == "tf_keras" else ("m.weights.h5",):
        path = tmp_path / name
        model.save_weights(path)
        (tmp_path / "m.json").write_text(model.to_json())
        spec = nc.from_keras(path, architecture=tmp_path / "m.json")
        assert_complete(spec, arrays_in_file(path))
        assert_numbers(spec, arrays_in_file(path))


@pytest.mark.parametrize("way", ["keras", "h5"])
@BOTH
def test_what_training_leaves_behind_is_passed_over(
    framework: str, way: str, tmp_path: Path
) -> None:
    model = MODELS["dropout_between"][0](FRAMEWORKS[framework])
    model.compile("adam", "mse", metrics=["mae"])
    model.optimizer.build(model.trainable_variables)
    source = source_of(model, way, tmp_path)
    assert any("optimizer" in path and shape for path, shape in everything_in(source))
    assert_complete(nc.from_keras(source), arrays_in_file(source))


@EVERY_WAY
@BOTH
def test_layers_that_got_another_name(framework: str, way: str, tmp_path: Path) -> None:
    # Their arrays keep the old names in tf_keras, so in HDF5 two of them have the same one.
    k = FRAMEWORKS[framework]
    models = []
    for new in ("left", "right"):
        k.backend.clear_session()
        one = k.Sequential([k.Input((3,)), k.layers.Dense(2, name="dense")])
        randomise(one, len(new))
        one.layers[-1]._name = new
        if framework == "keras3":
            one.layers[-1].name = new
        models.append(one.layers[-1])
    x = k.Input((3,))
    model = k.Model(x, [layer(x) for layer in models])
    spec = nc.from_keras(source_of(model, way, tmp_path))
    entries = entries_of(spec)
    assert [(e["layer"], e["weights"]) for e in entries] == [
        (name, [key]) for name in ("left", "right") for key in ("kernel", "bias")
    ]
    if way != "live":  # in memory they have the framework's own names
        assert len({e["source"] for e in entries}) == 4


# --- files of every generation -------------------------------------------------------------------


@pytest.mark.parametrize("path", OLD, ids=lambda p: p.name)
def test_old_files(path: Path) -> None:
    options: dict[str, Any] = {}
    if "weights" in path.name:
        stem = path.name.split(".")[0].removesuffix("_weights")
        options["architecture"] = DATA / "keras" / f"{stem}.json"
    spec, arrays = nc.from_keras(path, **options), arrays_in_file(path)
    assert_complete(spec, arrays)
    entries = entries_of(spec)
    if "cudnn" not in path.name:
        assert_numbers(spec, arrays)
    for layer in (layer for layer in spec.layers if layer.kind == "lstm"):
        own = [e["weights"] for e in entries if e["layer"] == layer.name]
        if len(own) == 12:  # Keras 1: an array for every gate
            assert sorted(own) == sorted([key] for key in gates(LSTM, "W", "U", "b"))
        else:
            assert own == recurrent(LSTM)[: len(own)]


def test_old_files_have_both_layouts() -> None:
    kinds = {len(arrays_in_file(p)) > 20 for p in OLD if p.name.startswith("keras1_")}
    assert kinds == {True, False}
    assert sum("cudnn" in p.name for p in OLD) == 2


@pytest.mark.parametrize("folder", TFJS, ids=lambda p: f"{p.parent.name}-{p.name}")
def test_tfjs_files(folder: Path) -> None:
    spec, arrays = nc.from_tfjs(folder), arrays_in_folder(folder)
    assert_complete(spec, arrays)
    for entry in entries_of(spec):
        layer = spec[entry["layer"]]
        role = entry["source"].rsplit("/", 1)[-1]
        start = {"kernel": "W_", "recurrent_kernel": "U_", "bias": ("b_", "rb_")}.get(role)
        bare = [key.split("/")[-1] for key in entry["weights"]]
        if start and layer.kind in ("lstm", "gru", "simple_rnn", "bidirectional"):
            assert bare
            assert all(key.startswith(start) for key in bare)
        elif layer.kind == "dense":
            assert bare == [role]
        if layer.kind == "bidirectional":
            way = "forward" if "forward" in entry["source"].rsplit("/", 2)[-2] else "backward"
            assert all(key.startswith(f"{way}/") for key in entry["weights"])
