"""The ledger: every array of a source is in it once, with the weights that it has become.

Files are walked here anew, with h5py and json alone, and numbers are compared: what an entry says
has become of an array must hold the numbers of that array.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import npylstm_converters as nc
import numpy as np
import pytest
import tfjs_layout
from keras_graphs import FRAMEWORKS, randomise

import npylstm
from npylstm import FormatError, ModelSpec, UnsupportedError
from npylstm.cli import main

Array = np.ndarray[Any, Any]
DATA = Path(__file__).parent.parent / "data"
OLD = sorted(p for p in (DATA / "keras").iterdir() if p.suffix in (".h5", ".keras"))
RARE = ("bidirectional_backwards", "cells")  # need not be supported
TFJS = sorted(p.parent for p in (DATA / "tfjs").rglob("model.json") if p.parent.name not in RARE)
WAYS = ("keras", "h5", "live")
BOTH = pytest.mark.parametrize("framework", FRAMEWORKS)
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


def names(attribute: Any) -> list[str]:
    return [n.decode() if isinstance(n, bytes) else str(n) for n in attribute]


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


def entries_of(spec: ModelSpec) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = spec.provenance["tensors"]
    return entries


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


def source_of(model: Any, way: str, folder: Path) -> Any:
    if way == "live":
        return model
    model.save(folder / f"m.{way}")
    return folder / f"m.{way}"


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


# --- the command line ----------------------------------------------------------------------------


def run_main(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    status = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def rows_of(out: str) -> list[list[str]]:
    lines = out.splitlines()
    (start,) = [k for k, line in enumerate(lines) if line.startswith("tensor of the source")]
    assert re.split(r"\s{2,}", lines[start]) == [
        "tensor of the source",
        "shape",
        "layer",
        "weights",
    ]
    assert set(lines[start + 1]) == {"-", " "}
    rows = [re.split(r"\s{2,}", line.strip()) for line in lines[start + 2 :]]
    return [row for row in rows if len(row) == 4]


def expected_rows(spec: ModelSpec) -> list[list[str]]:
    return [
        [e["source"], str(tuple(e["shape"])), e["layer"], ", ".join(e["weights"])]
        for e in entries_of(spec)
    ]


@pytest.mark.parametrize("source", [
    DATA / "keras" / "keras1_stacked.h5", DATA / "keras" / "tf213_functional.keras",
    DATA / "keras" / "tf115_cudnn.h5", TFJS[0] / "model.json",
], ids=lambda p: p.name)  # fmt: skip
def test_the_table(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = nc.convert(source)
    out = tmp_path / "m.npz"
    status, text, err = run_main(capsys, "convert", source, out, "--record", 0)
    assert (status, err) == (0, "")
    assert rows_of(text) == expected_rows(spec)
    for given in (source, out):
        status, text, err = run_main(capsys, "info", given)
        assert (status, err) == (0, "")
        assert rows_of(text) == expected_rows(spec)
        document = json.loads(run_main(capsys, "info", given, "--json")[1])
        assert document["provenance"]["tensors"] == entries_of(spec)
    assert npylstm.load(out).spec.provenance["tensors"] == entries_of(spec)


# --- what is left over ---------------------------------------------------------------------------


def small(k: Any) -> Any:
    layers = [
        k.Input((None, 3)), k.layers.LSTM(4, name="l"), k.layers.Dropout(0.5, name="drop"),
        k.layers.Dense(2, name="d"),
    ]  # fmt: skip
    return k.Sequential(layers)


def small_file(framework: str, way: str, folder: Path) -> Path:
    model = small(FRAMEWORKS[framework])
    randomise(model, 6)
    path: Path = source_of(model, way, folder)
    return path


def add_to_group(path: Path, layer: str, name: str) -> None:
    """Another array among those of a layer, in an HDF5 file."""
    with h5py.File(path, "r+") as file:
        group = file["model_weights"][layer]
        group[name] = np.zeros((2, 5), "float32")
        listed = [*names(group.attrs["weight_names"]), name]
        group.attrs["weight_names"] = [n.encode() for n in listed]


def add_group(path: Path, layer: str, name: str) -> None:
    """The arrays of one more layer, in an HDF5 file."""
    with h5py.File(path, "r+") as file:
        root = file["model_weights"]
        root.attrs["layer_names"] = [n.encode() for n in [*names(root.attrs["layer_names"]), layer]]
        group = root.create_group(layer)
        group[name] = np.zeros((2, 5), "float32")
        group.attrs["weight_names"] = [name.encode()]


def add_to_zip(path: Path, name: str) -> None:
    """Another array in the weights of a .keras file."""
    with zipfile.ZipFile(path) as archive:
        members = {n: archive.read(n) for n in archive.namelist()}
    stream = io.BytesIO(members["model.weights.h5"])
    with h5py.File(stream, "r+") as file:
        file[name] = np.zeros((2, 5), "float32")
    members["model.weights.h5"] = stream.getvalue()
    with zipfile.ZipFile(path, "w") as archive:
        for n, data in members.items():
            archive.writestr(n, data)


Extra = tuple[str, str, Callable[[Path], None]]  # way, path in messages, how it gets there
EXTRAS: dict[str, Extra] = {
    "of_an_lstm": ("h5", "l/l/odd:0", lambda p: add_to_group(p, "l", "l/odd:0")),
    "of_a_dense": ("h5", "d/d/odd:0", lambda p: add_to_group(p, "d", "d/odd:0")),
    "of_a_dropout": ("h5", "drop/drop/odd:0", lambda p: add_to_group(p, "drop", "drop/odd:0")),
    "of_a_group": ("h5", "odd/odd/kernel:0", lambda p: add_group(p, "odd", "odd/kernel:0")),
    "zip_own_group": ("keras", "mine/vars/0", lambda p: add_to_zip(p, "mine/vars/0")),
    "zip_at_the_top": ("keras", "mine", lambda p: add_to_zip(p, "mine")),
    "zip_layer": ("keras", "layers/mine/vars/0", lambda p: add_to_zip(p, "layers/mine/vars/0")),
    "zip_of_a_dense": ("keras", "layers/dense/vars/2", lambda p: add_to_zip(p, "layers/dense/vars/2")),
    "zip_of_a_dropout": (
        "keras", "layers/dropout/vars/0", lambda p: add_to_zip(p, "layers/dropout/vars/0"),
    ),
    "zip_beside_a_cell": (
        "keras", "layers/lstm/cell/mine", lambda p: add_to_zip(p, "layers/lstm/cell/mine"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EXTRAS)
@BOTH
def test_an_array_too_many(framework: str, name: str, tmp_path: Path) -> None:
    way, path, add = EXTRAS[name]
    source = small_file(framework, way, tmp_path)
    honest = entries_of(nc.from_keras(source))
    add(source)
    with pytest.raises(UnsupportedError) as caught:
        nc.from_keras(source)
    (reason,) = caught.value.reasons
    assert f"{path} (2, 5)" in reason
    assert_complete_but(nc.from_keras(source, allow_unused=[path]), path, honest)


@pytest.mark.parametrize("name", ["of_a_group", "of_a_dropout", "zip_own_group"])
def test_an_array_too_many_on_the_command_line(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    way, path, add = EXTRAS[name]
    source = small_file("tf_keras", way, tmp_path)
    add(source)
    status, out, err = run_main(capsys, "convert", source, tmp_path / "m.npz", "--record", 0)
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert path in err

    given = (source, tmp_path / "m.npz", "--record", 0, "--allow-unused", path)
    status, out, err = run_main(capsys, "convert", *given)
    assert (status, err) == (0, "")
    assert_shown_as_left(out, path)


def assert_shown_as_left(out: str, path: str) -> None:
    ((_, shape, layer, fate),) = [row for row in rows_of(out) if row[0] == path]
    assert (shape, layer) == ("(2, 5)", "-")
    assert fate.startswith("left over")


def assert_complete_but(spec: ModelSpec, path: str, honest: list[dict[str, Any]]) -> None:
    entries = entries_of(spec)
    left = {"source": path, "shape": [2, 5], "layer": "", "weights": []}
    assert [e for e in entries if e["source"] == path] == [left]
    assert [e for e in entries if e["source"] != path] == honest


@pytest.mark.parametrize("name", EXTRAS)
def test_an_array_too_many_comes_with_advice(name: str, tmp_path: Path) -> None:
    way, path, add = EXTRAS[name]
    source = small_file("tf_keras", way, tmp_path)
    add(source)
    with pytest.raises(UnsupportedError, match=re.escape(f"--allow-unused {path}")):
        nc.from_keras(source)


def test_a_layer_too_many_with_names_that_are_taken(tmp_path: Path) -> None:
    source = small_file("tf_keras", "h5", tmp_path)
    honest = entries_of(nc.from_keras(source))
    add_group(source, "copy", "d/kernel:0")
    with pytest.raises(UnsupportedError, match="d/kernel:0") as caught:
        nc.from_keras(source)
    advice = re.search(r"--allow-unused (\S+?)\)?$", caught.value.reasons[0])
    assert advice is not None
    assert_complete_but(nc.from_keras(source, allow_unused=[advice[1]]), advice[1], honest)


def test_several_are_named_at_once(tmp_path: Path) -> None:
    source = small_file("tf_keras", "h5", tmp_path)
    add_group(source, "odd", "odd/kernel:0")
    add_group(source, "even", "even/kernel:0")
    with pytest.raises(UnsupportedError) as caught:
        nc.from_keras(source)
    assert len(caught.value.reasons) == 2
    with pytest.raises(UnsupportedError, match="odd/kernel:0") as caught:
        nc.from_keras(source, allow_unused=["even/even/kernel:0"])
    assert len(caught.value.reasons) == 1
    spec = nc.from_keras(source, allow_unused=["odd/odd/kernel:0", "even/even/kernel:0"])
    assert [e["source"] for e in entries_of(spec) if not e["layer"]] == [
        "odd/odd/kernel:0", "even/even/kernel:0",
    ]  # fmt: skip


@pytest.mark.parametrize("way", ["keras", "h5"])
@BOTH
def test_nothing_of_that_name_is_left_over(framework: str, way: str, tmp_path: Path) -> None:
    source = small_file(framework, way, tmp_path)
    for name in ("nothing/here", "l", "layers", ""):
        with pytest.raises(FormatError, match=f"allow_unused: .*{name!r}"):
            nc.from_keras(source, allow_unused=[name])


@pytest.mark.parametrize("way", ["keras", "h5"])
@BOTH
def test_what_a_layer_needs_cannot_be_left_over(framework: str, way: str, tmp_path: Path) -> None:
    source = small_file(framework, way, tmp_path)
    for entry in entries_of(nc.from_keras(source)):
        with pytest.raises(UnsupportedError, match=f"{entry['layer']}: "):
            nc.from_keras(source, allow_unused=[entry["source"]])


def test_advice_for_tfjs_can_be_followed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = next(p for p in TFJS if p.name == "lstm")
    layout = tfjs_layout.read(folder)
    odd = tfjs_layout.weight("odd/kernel", np.zeros((2, 5)))
    layout.with_weights([*layout.weights, odd]).write(tmp_path)
    status, _, err = run_main(capsys, "convert", tmp_path, tmp_path / "m.npz", "--record", 0)
    assert status == 2
    assert "odd/kernel (2, 5)" in err
    options = [("--allow-unused", "odd/kernel")] if "--allow-unused" in err else []
    for option in options:
        given = (tmp_path, tmp_path / "m.npz", "--record", 0, *option)
        status, out, err = run_main(capsys, "convert", *given)
        assert (status, err) == (0, "")
        assert_shown_as_left(out, "odd/kernel")


def unmatched_factors(spec: ModelSpec) -> Iterator[str]:
    return (e["source"] for e in entries_of(spec) if not e["layer"])


def test_nothing_is_left_over_of_an_honest_file(tmp_path: Path) -> None:
    assert list(unmatched_factors(nc.from_keras(small_file("keras3", "keras", tmp_path)))) == []
