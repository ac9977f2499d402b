"""Malicious Keras files and configs: converted, or refused in one line."""

from __future__ import annotations

import copy
import itertools
import json
import os
import pickle
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import npylstm_converters as nc
import numpy as np
import pytest
from keras_hostile import (
    ARCHIVE,
    DATA,
    FIRST,
    KERNEL,
    LEGACY,
    LSTM_GROUP,
    MB,
    ROOT,
    ROOT_GROUP,
    Boom,
    Json,
    Maker,
    archive,
    assert_one_line,
    attribute,
    config,
    edited,
    edited_archive,
    extra_layer,
    functional,
    kernel,
    link,
    members,
    nested,
    option,
    poke,
    put,
    raw,
    sound_config,
    write_members,
)

import npylstm
from npylstm.cli import main
from npylstm.io import model_file

HOSTILE: dict[str, tuple[Maker, str]] = {
    # name: how it is made, what the message must say
    "empty": (raw(b""), "empty"),
    "png": (raw(b"\x89PNG\r\n\x1a\n" + bytes(64)), "no importer"),
    "text": (raw(b"class LSTM:\n" * 20), "no importer"),
    "pickle": (raw(pickle.dumps(Boom())), "posix.mkdir, which is not allowed and was not run"),
    "zip of a pickle": (lambda p: write_members(p, {"data.pkl": pickle.dumps(Boom())}), r"names posix.mkdir, which is not allowed and was not run|names nt.mkdir"),
    "magic of zip": (raw(b"PK\x03\x04" + bytes(60)), "zip"),
    "magic of hdf5": (raw(b"\x89HDF\r\n\x1a\n" + bytes(2000)), "HDF5"),
    "no config": (archive(config=None), "config.json"),
    "no weights": (archive(weights=None), "model.weights.h5"),
    "empty weights": (archive(weights=b""), "model.weights.h5"),
    "weights are text": (archive(weights=b"kernel"), "model.weights.h5"),
    "weights are a zip": (archive(weights=ARCHIVE.read_bytes()), "model.weights.h5"),
    "config empty": (archive(config=b""), "config.json: not JSON"),
    "config cut": (archive(config=members()["config.json"][:-9]), "config.json: not JSON"),
    "config not text": (archive(config=b"\xff\xfe\xfd"), "config.json: not JSON"),
    "config a list": (archive(config=b"[]"), "class_name"),
    "config null": (archive(config=b"null"), "class_name|weights only"),
    "config very deep": (archive(config=b"[" * 100_000), "config.json: not JSON"),
    "config a long number": (archive(config=b"9" * 9000), "config.json: not JSON"),
    "no layers": (config(lambda layers: layers.clear()), "list of layers"),
    "only an input": (config(lambda layers: layers.__delitem__(slice(1, None))), "output|layer"),
    "layers of numbers": (config(lambda layers: layers.append(3)), "expected a layer"),  # type: ignore[arg-type]
    "a layer without config": (config(lambda layers: layers[1].pop("config")), "config object"),
    "a layer without class": (config(lambda layers: layers[1].pop("class_name")), "a layer"),
    "a lambda": (extra_layer("Lambda", function=["4wEAAAA=", None, None]), "Lambda.*not supported"),
    "a class of its own": (config(lambda layers: layers[1].update(registered_name="p>L")), "own"),
    "two layers of a name": (option(3, name="lstm"), "two layers are named 'lstm'"),
    "name a number": (option(3, name=7), "name.*7"),
    "name of surrogates": (option(3, name="\ud800"), "name|UTF-8"),
    "name of terminal codes": (option(3, name="\x1b[2J"), "name"),
    "units one more": (option(1, units=8), r"kernel.*expected shape \(3, 32\), got \(3, 28\)|vars/0"),
    "units negative": (option(1, units=-7), "units.*-7"),
    "units huge": (option(1, units=10**9), "4000000000"),
    "units beyond int64": (option(1, units=10**30), "0000"),
    "units true": (option(1, units=True), "units.*True"),
    "units float": (option(1, units=7.0), "units.*7.0"),
    "units deep": (option(1, units=nested(900)), "units"),
    "bias off": (option(1, use_bias=False), "weights"),
    "bias a text": (option(1, use_bias="yes"), "use_bias.*yes"),
    "activation of nobody": (option(1, activation="exec"), "exec"),
    "activation a list": (option(1, activation=nested(900)), "activation"),
    "unknown option": (option(1, peephole=True), "peephole"),
    "half precision": (option(1, dtype="float16"), "float16"),
    "input size negative": (option(0, batch_input_shape=[None, 6, -3]), "-3"),
    "input size another": (option(0, batch_input_shape=[None, 6, 4]), "features"),
    "input size true": (option(0, batch_input_shape=[None, True, 3]), "True"),
    "input a scalar": (option(0, batch_input_shape=3), "input shape|3"),
    "permute of booleans": (extra_layer("Permute", dims=[True]), "dims.*True"),
    "reshape of booleans": (extra_layer("Reshape", target_shape=[3, True]), "target_shape.*True"),
    "slope nan": (extra_layer("LeakyReLU", alpha=float("nan")), "alpha|nan"),
    "slope beyond float": (extra_layer("LeakyReLU", alpha=10**400), "alpha|0000"),
    "softmax of an axis too far": (extra_layer("Softmax", axis=99), "axis.*99"),
    "softmax of half an axis": (extra_layer("Softmax", axis=0.5), r"axis.*0\.5"),
    "version of letters": (archive(metadata=b'{"keras_version": "abc"}'), "version.*abc"),
    "version of odd digits": (archive(metadata='{"keras_version": "²"}'.encode()), "version.*²"),
    "version long": (archive(metadata=b'{"keras_version": "%s"}' % (b"9" * 9000)), "version"),
    "metadata not json": (archive(metadata=b"{"), "metadata.json: not JSON"),
    "kwargs a list": (functional(args=[], kwargs=[1]), "dense"),
    "call of a number": (functional(args=[{"class_name": "__keras_tensor__", "config": 3}]), "dense"),
    "a loop": (functional(args=[{"class_name": "__keras_tensor__", "config": {
        "keras_history": ["dense", 0, 0]}}]), "never computed"),
    "transposed": (kernel(lambda a: a.T), r"expected shape \(28, 28\)|kernel"),
    "a row less": (kernel(lambda a: a[:-1]), "features|contradicts"),
    "a column less": (kernel(lambda a: a[:, :-1]), r"kernel.*\(3, 28\), got \(3, 27\)"),
    "a vector": (kernel(lambda a: a[0]), "2 axes"),
    "a scalar": (kernel(lambda a: a[0, 0]), "2 axes"),
    "float16": (kernel(lambda a: a.astype("f2")), "kernel.*float16"),
    "int32": (kernel(lambda a: a.astype("i4")), "kernel.*int32"),
    "big endian": (kernel(lambda a: a.astype(">f4")), "kernel.*>f4"),
    "complex": (kernel(lambda a: a.astype("c8")), "kernel.*complex"),
    "records": (kernel(lambda a: a.view([("x", "f4")])), "kernel"),
    "texts": (kernel(lambda a: a.astype("S4")), "kernel"),
    "long texts": (edited(put(KERNEL, (3, 28), h5py.string_dtype())), "kernel"),
    "mixed precision": (kernel(lambda a: a.astype("f8")), "float32 and float64|element type"),
    "nan": (poke(np.nan), "finite.*1 nan or inf"),
    "inf": (poke(-np.inf), "finite.*1 nan or inf"),
    "no data space": (edited(put(KERNEL, data=h5py.Empty("f4"))), "kernel"),
    "a group for an array": (edited(lambda f: (f.pop(KERNEL), f.create_group(KERNEL))), "kernel"),
    "an array for a group": (edited(put(LSTM_GROUP, data=np.ones(3))), "lstm"),
    "array missing": (edited(lambda f: f.pop(KERNEL)), "kernel"),
    "layer missing": (edited(lambda f: f.pop(LSTM_GROUP)), "lstm"),
    "array missing in archive": (edited_archive(lambda f: f.pop(FIRST)), "expected the weights"),
    "array too many": (edited_archive(put(f"{ROOT_GROUP}/lstm/cell/vars/3", data=[1.0])), "vars/3"),
    "array of nobody": (edited_archive(put(f"{ROOT_GROUP}/gru/vars/0", data=[1.0])), "gru"),
    "array with odd digits": (edited_archive(put(f"{ROOT_GROUP}/lstm/cell/vars/²", data=[1.0])), "²"),
    "layer with long digits": (
        edited_archive(put(f"{ROOT_GROUP}/lstm_{'9' * 5000}/vars/0", data=[1.0])), "lstm"),
    "config attribute cut": (attribute("/", "model_config", '{"class_name"'), "model_config: not JSON"),
    "config attribute of bytes": (attribute("/", "model_config", np.bytes_(b"\xff{}")), "model_config"),
    "config attribute of numbers": (attribute("/", "model_config", [1, 2]), "model_config|weights only"),
    "version attribute of numbers": (attribute("/", "keras_version", [1, 2]), "keras_version|version"),
    "names of numbers": (attribute("model_weights", "layer_names", [1, 2]), "layer_names"),
    "names of nobody": (attribute("model_weights", "layer_names", [b"a"]), "'a'"),
    "names with a root": (attribute(LSTM_GROUP, "weight_names", [b"/model_weights"]), "model_weights"),
    "names empty": (attribute(LSTM_GROUP, "weight_names", [b""]), "lstm"),
    "names not text": (attribute("model_weights", "layer_names", [b"\xff"]), "utf-8|layer_names"),
    "nothing in it": (lambda p: h5py.File(p, "w").close(), "not one of Keras"),
    "soft link to itself": (edited(link(LSTM_GROUP, h5py.SoftLink(f"/{LSTM_GROUP}"))), "lstm"),
    "soft link to nowhere": (edited(link(KERNEL, h5py.SoftLink("/nowhere"))), "kernel"),
    "soft link in archive": (
        edited_archive(link(f"{ROOT_GROUP}/a", h5py.SoftLink("/_layer_checkpoint_dependencies"))), "a"),
    "a group in itself": (
        edited_archive(lambda f: f.__setitem__(f"{ROOT_GROUP}/lstm/a", f[ROOT_GROUP])), ""),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, message = HOSTILE[name]
    path = tmp_path / "model.keras"
    make(path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(npylstm.NpylstmError, match=message or None):
        nc.convert(path)
    assert os.listdir(tmp_path) == ["model.keras"]  # nothing was unpickled


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.one_in(4)
def test_refused_in_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, output = tmp_path / "model.h5", tmp_path / "model.npz"
    HOSTILE[name][0](path)
    for command, before in [
        (["info", str(path)], None),
        (["convert", str(path), str(output), "--record", "0"], None),
        (["convert", str(path), str(output), "--record", "0", "--force"], b"as before"),
    ]:
        if before is not None:
            output.write_bytes(before)
        assert main(command) == 2
        out, err = capsys.readouterr()
        assert_one_line(err)
        assert out == ""
        assert sorted(os.listdir(tmp_path)) == ["model.h5", "model.npz"][: 2 if before else 1]
    assert output.read_bytes() == b"as before"


@pytest.mark.parametrize("source", [LEGACY, ARCHIVE], ids=lambda p: p.name)
def test_a_sound_file_is_not_refused(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "model.npz"
    assert main(["convert", str(source), str(output), "--record", "0"]) == 0
    assert main(["info", str(source)]) == 0
    assert capsys.readouterr().err == ""
    assert model_file.is_model(output)


def test_a_renamed_file_is_what_it_contains(tmp_path: Path) -> None:
    for source, name in [(LEGACY, "a.npz"), (LEGACY, "a.keras"), (ARCHIVE, "a.h5")]:
        (tmp_path / name).write_bytes(source.read_bytes())
        assert nc.convert(tmp_path / name).to_json()["layers"]
    with pytest.raises(npylstm.FormatError, match=r"not an \.npz|not an npylstm model"):
        npylstm.load(tmp_path / "a.npz")
    with pytest.raises(npylstm.FormatError, match=r"npylstm/spec"):
        npylstm.load(ARCHIVE)
    with pytest.raises(npylstm.FormatError, match="is a model of npylstm already"):
        nc.convert(ROOT / "models/sine_keras/sine.npz")


def test_nesting_at_the_edge_of_recursion(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.keras"
    for depth in [*range(860, 1000, 6), 2000, 10_000]:
        text = json.dumps(sound_config())
        deep = "[" * depth + "]" * depth
        for place in ('"rate": 0.3', '"units": 3', '"activation": "softmax"'):
            key = place.split(":")[0]
            archive(config=text.replace(place, f"{key}: {deep}").encode())(path)
            assert main(["info", str(path)]) in (0, 2)  # a dropout rate may be anything
        functional(args="DEEP", kwargs={})(path)
        parts = members(path)
        parts["config.json"] = parts["config.json"].replace(b'"DEEP"', deep.encode())
        write_members(path, parts)
        capsys.readouterr()
        assert main(["info", str(path)]) == 2
        assert_one_line(capsys.readouterr().err)


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "model.npz"
    output.write_bytes(b"as before")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert main(["convert", str(LEGACY), str(output), "--record", "0", "--force"]) == 2
    assert_one_line(capsys.readouterr().err)
    assert os.listdir(tmp_path) == ["model.npz"]
    assert output.read_bytes() == b"as before"


def test_refused_before_the_framework_is_imported(tmp_path: Path) -> None:
    """Frameworks take seconds to import and chat on stderr."""
    path = tmp_path / "model.keras"
    path.write_bytes(ARCHIVE.read_bytes()[:5000])
    model = ROOT / "models/sine_keras/sine.npz"
    command = [sys.executable, "-m", "npylstm", "verify", str(model), "--against", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert_one_line(done.stderr)


def paths(folder: Path) -> Iterator[tuple[str, Path]]:
    (folder / "file").write_text("x")
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "saved").mkdir()
    (folder / "saved" / "saved_model.pb").write_bytes(b"")
    yield "a folder", folder
    yield "a SavedModel", folder / "saved"
    yield "nobody there", folder / "none.keras"
    yield "below a file", folder / "file" / "model.keras"
    yield "a loop", folder / "loop"


def test_paths_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "model.npz"
    for what, path in paths(tmp_path):
        for command in (["info", str(path)], ["convert", str(path), str(output)]):
            assert (what, main(command)) == (what, 2)
            err = capsys.readouterr().err
            assert_one_line(err)
            assert str(path) in err
    assert not output.exists()


def test_no_permission(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.keras"
    path.write_bytes(ARCHIVE.read_bytes())
    nc.convert(path)  # importers are imported by now
    path.chmod(0)
    user = os.geteuid()
    if user == 0:  # root reads everything
        os.seteuid(65534)
    try:
        status = main(["convert", str(path), str(tmp_path / "model.npz")])
    finally:
        os.seteuid(user)
    err = capsys.readouterr().err
    assert (status, err) == (2, f"npylstm: error: {path}: Permission denied\n")


@pytest.mark.parametrize(
    "text", [b"", b"[" * 100_000, b"null", b"\xff", b'{"class_name": "Sequential"}']
)
def test_hostile_architectures(
    text: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    architecture, output = tmp_path / "model.json", tmp_path / "model.npz"
    architecture.write_bytes(text)
    source = DATA / "tf24_stacked_weights.h5"
    assert main(["convert", str(source), str(output), "--architecture", str(architecture)]) == 2
    assert_one_line(capsys.readouterr().err)
    assert not output.exists()


# --- any value of the config replaced; a model object spares the file ---------------------------

NASTY: list[Any] = [
    None, True, 0, -1, 2, 99, 1.5, 10**9, 10**400, float("nan"), "", "x", "softmax", "\ud800",
    "a/b", [], {}, [1], [[1]], ["lstm", 0, 0], {"class_name": "ELU", "config": {"alpha": "x"}},
    {"class_name": "Softmax", "config": {"axis": 99}}, {"class_name": "function", "config": 3},
    {"class_name": "LeakyReLU", "config": {"alpha": float("inf")}}, nested(900),
]  # fmt: skip


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from leaves(value[key], (*path, key))


class FakeModel:
    """What the importer looks at in a model object, around any config."""

    def __init__(self, document: Json, weights: dict[str, list[Any]]) -> None:
        self._text = json.dumps(document)
        self.layers = [
            SimpleNamespace(name=name, weights=[
                SimpleNamespace(path=f"{name}/{k}", name=str(k), shape=a.shape, dtype=a.dtype,
                                numpy=lambda a=a: a)
                for k, a in enumerate(arrays)
            ])
            for name, arrays in weights.items()
        ]  # fmt: skip

    def to_json(self) -> str:
        return self._text

    def get_config(self) -> None: ...

    def get_weights(self) -> None: ...


@pytest.mark.exhaustive
@pytest.mark.parametrize("source", ["tf213_stacked", "tf213_functional"])
def test_any_value_of_the_config_replaced(source: str, tmp_path: Path) -> None:
    """Whatever the config says: it is refused, or what is converted can be written and computes."""
    document: Json = json.loads(members(DATA / f"{source}.keras")["config.json"])
    spec = nc.convert(DATA / f"{source}.keras")
    weights = {n.name: list(packed(n)) for n in spec.layers}
    assert nc.from_keras(FakeModel(document, weights)).parameters == spec.parameters
    sites = [p for p in leaves(document) if p and not any("initializer" in str(k) for k in p)]
    todo = random.Random(3).sample(list(itertools.product(sites, NASTY)), 700)
    wrong, output = [], tmp_path / "model.npz"
    for place, value in todo:
        changed = [copy.deepcopy(document)]
        target: Any = changed
        for key in (0, *place)[:-1]:
            target = target[key]
        target[(0, *place)[-1]] = value
        try:
            npylstm.save(nc.from_keras(FakeModel(changed[0], weights)), output)
        except npylstm.NpylstmError:
            continue
        except Exception as error:
            wrong.append(f"{place} = {value!r:.60}: {type(error).__name__}: {error!s:.80}")
            continue
        try:
            model = npylstm.load(output, "numpy")
            sizes = [2 if isinstance(d, str) else d for d in model.inputs[0].shape]
            if np.prod(sizes, dtype=object) < MB:
                model.predict(np.zeros(sizes))
        except Exception as error:
            wrong.append(f"{place} = {value!r:.60}: converted, but {error!s:.80}")
    assert not wrong, f"{len(wrong)}:\n" + "\n".join(wrong)


def packed(layer: npylstm.spec.LayerSpec) -> Iterator[np.ndarray[Any, Any]]:
    """The arrays of a layer as Keras packs them."""
    if layer.kind == "lstm":
        for letter in "WUb"[: 3 if layer.config["use_bias"] else 2]:
            yield np.concatenate([layer.weights[f"{letter}_{g}"] for g in "ifco"], axis=-1)
    else:
        yield from layer.weights.values()
