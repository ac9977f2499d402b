"""Damaged, lying and malicious Keras files: converted, or refused in one line, cheaply.

HDF5 has no checksum, and libhdf5 can loop, crash and swallow memory on flipped bits. So whatever
may do that runs in a forked process of a worker, which measures what it costs.
"""

from __future__ import annotations

import bz2
import copy
import io
import itertools
import json
import os
import pickle
import random
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import h5py
import npylstm_converters as nc
import numpy as np
import pytest

import npylstm
from npylstm.cli import main
from npylstm.io import model_file

ROOT = Path(__file__).parent.parent.parent
DATA = ROOT / "tests/data/keras"
LEGACY = DATA / "tf24_stacked.h5"
ARCHIVE = DATA / "tf213_stacked.keras"
MB = 1 << 20
LONGEST_LINE = 4000  # a message that no screen holds is not clear

Json = dict[str, Any]
Maker = Callable[[Path], object]


def members(path: Path = ARCHIVE) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_members(path: Path, parts: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return path


# --- ways of making a hostile file from a sound one ---------------------------------------------


def raw(data: bytes) -> Maker:
    return lambda path: path.write_bytes(data)


def archive(**parts: bytes | None) -> Maker:
    """A ``.keras`` with other members: ``config``, ``metadata`` or ``weights``; None: left out."""
    names = {"config": "config.json", "metadata": "metadata.json", "weights": "model.weights.h5"}

    def make(path: Path) -> None:
        changed = members() | {names[key]: data for key, data in parts.items()}
        write_members(path, {name: data for name, data in changed.items() if data is not None})

    return make


def sound_config() -> Json:
    document: Json = json.loads(members()["config.json"])
    return document


def config(change: Callable[[list[Json]], object]) -> Maker:
    """A ``.keras`` whose list of layers is changed."""

    def make(path: Path) -> None:
        document = sound_config()
        change(document["config"]["layers"])
        archive(config=json.dumps(document).encode())(path)

    return make


def option(layer: int, **values: Any) -> Maker:
    return config(lambda layers: layers[layer]["config"].update(values))


def extra_layer(class_name: str, **values: Any) -> Maker:
    return config(
        lambda layers: layers.append(
            {"class_name": class_name, "config": {"name": "extra", **values}}
        )
    )


def functional(**nodes: Any) -> Maker:
    """A functional model of one Dense layer, called as ``nodes`` say."""
    layers = [
        {"class_name": "InputLayer", "name": "x", "inbound_nodes": [],
         "config": {"name": "x", "batch_shape": [None, 5]}},
        {"class_name": "Dense", "name": "dense", "inbound_nodes": [nodes],
         "config": {"name": "dense", "units": 3}},
    ]  # fmt: skip
    graph = {"layers": layers, "input_layers": ["x", 0, 0], "output_layers": ["dense", 0, 0]}
    document = {"class_name": "Functional", "config": graph}
    return archive(config=json.dumps(document).encode())


def edited(change: Callable[[h5py.File], object]) -> Maker:
    """A full-model ``.h5`` after a change."""

    def make(path: Path) -> None:
        path.write_bytes(LEGACY.read_bytes())
        with h5py.File(path, "r+") as file:
            change(file)

    return make


def edited_archive(change: Callable[[h5py.File], object]) -> Maker:
    """A ``.keras`` whose ``model.weights.h5`` is changed."""

    def make(path: Path) -> None:
        stream = io.BytesIO(members()["model.weights.h5"])
        with h5py.File(stream, "r+") as file:
            change(file)
        archive(weights=stream.getvalue())(path)

    return make


KERNEL = "model_weights/lstm/lstm/lstm_cell/kernel:0"
LSTM_GROUP = "model_weights/lstm"
ROOT_GROUP = "_layer_checkpoint_dependencies"
FIRST = f"{ROOT_GROUP}/lstm/cell/vars/0"


def put(path: str, *args: Any, **options: Any) -> Callable[[h5py.File], None]:
    """Replace an array."""

    def change(file: h5py.File) -> None:
        file.pop(path, None)
        file.create_dataset(path, *args, **options)

    return change


def kernel(value: Callable[[Any], Any]) -> Maker:
    return edited(lambda file: put(KERNEL, data=value(file[KERNEL][()]))(file))


def poke(number: float) -> Maker:
    def change(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        array[1, 1] = number
        return array

    return kernel(change)


def link(path: str, target: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        file.pop(path, None)
        file[path] = target

    return change


def attribute(path: str, name: str, value: Any) -> Maker:
    return edited(lambda file: file[path].attrs.__setitem__(name, value))


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


class Boom:
    """Whoever unpickles this leaves a folder behind."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("unpickled",)


# --- refused in process: nothing here is dangerous ----------------------------------------------

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


def assert_one_line(stderr: str) -> None:
    assert stderr.startswith("npylstm: error: ")
    assert stderr.count("\n") == 1
    assert len(stderr) < LONGEST_LINE
    assert stderr[:-1].isprintable()  # or a file sends codes to the terminal


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


# --- in processes of their own: damage that may crash, loop, or cost -----------------------------

WORKER = """
import contextlib, io, json, os, resource, signal, sys, time
import numpy, npylstm_converters.keras
from npylstm.cli import main

def peak():  # in MB; ru_maxrss would begin with the peak of the process that forked
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) / 1024 for line in status if "VmHWM" in line)
    except FileNotFoundError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

def seconds():  # of the processor: the clock would measure how busy the machine is
    return sum(os.times()[:4])

def run(command):
    before, start, stderr = peak(), seconds(), io.StringIO()
    with contextlib.redirect_stderr(stderr), contextlib.redirect_stdout(io.StringIO()):
        if command[0] == "waste":
            status = len(bytes(b"x") * (200 << 20))
        else:
            try:
                status = main(command)
            except Exception as error:
                status = f"{type(error).__name__}: {error}"
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return status, stderr.getvalue(), max(peak() - before, children), seconds() - start

reader = contextlib.ExitStack()
forked = len(sys.argv) > 1
if forked:  # readers are forked, which is quicker; what they cost is not seen then
    sys.path.insert(0, sys.argv[1])
    import forked_reader, pathlib
    reader.enter_context(forked_reader.installed(pathlib.Path(sys.argv[2])))
commands = json.load(sys.stdin)
if forked:
    run(["info", commands[0][1]])  # modules are imported once, here
for command in commands:
    source, writer = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libhdf5 chats
        signal.alarm(30)
        os.write(writer, json.dumps(run(command)).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(source) as stream:
        answer = stream.read()
    _, state = os.waitpid(child, 0)
    name = signal.Signals(state).name if state else ""
    print(answer or json.dumps([f"killed by {name}", "", 0.0, 6.0]), flush=True)
reader.close()
"""


class Outcome(NamedTuple):
    """What a command did and cost: exit status (or how it died), stderr, MB, seconds."""

    status: int | str
    stderr: str
    megabytes: float
    seconds: float


def run(commands: list[list[str]], forked: bool = False) -> list[Outcome]:
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", WORKER, *([str(ROOT / "tests"), folder] if forked else [])],
            input=json.dumps(commands), capture_output=True, text=True, timeout=300,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [Outcome(*json.loads(line)) for line in done.stdout.splitlines()]


def convert(sources: list[Path], forked: bool = False) -> list[Outcome]:
    """Convert files, each in a process of its own, and look after the folder."""
    for path in sources:
        path.with_suffix(".npz").write_bytes(b"as before")
    folder = sources[0].parent
    before = sorted(os.listdir(folder))
    outcomes = run(
        [
            ["convert", str(p), str(p.with_suffix(".npz")), "--record", "0", "--force"]
            for p in sources
        ],
        forked,
    )
    assert sorted(os.listdir(folder)) == before
    for path, outcome in zip(sources, outcomes, strict=True):
        if outcome.status != 0:
            assert path.with_suffix(".npz").read_bytes() == b"as before"
    return outcomes


def complaints(outcomes: dict[str, Outcome], allowed: tuple[int, ...]) -> list[str]:
    """Say which of them did anything but convert or refuse, in one line, cheaply."""
    found = []
    for name, (status, stderr, megabytes, seconds) in outcomes.items():
        if status not in allowed:
            found.append(f"{name}: {status}")
        elif status == 2 and not (
            stderr.startswith("npylstm: error: ") and stderr.count("\n") == 1
        ):
            found.append(f"{name}: {stderr[:200]!r}")
        elif len(stderr) > LONGEST_LINE:
            found.append(f"{name}: a message of {len(stderr)} characters")
        if megabytes > 100 or seconds > 5:
            found.append(f"{name}: {megabytes:.0f} MB, {seconds:.1f} s")
    return found


def patched(source: Path, changes: dict[int, int]) -> bytes:
    """Other bytes in an HDF5 file; in that of a ``.keras``, whose checksum is mended."""
    inside = source.suffix == ".keras"
    data = bytearray(members(source)["model.weights.h5"] if inside else source.read_bytes())
    for at, value in changes.items():
        data[at] = value
    if not inside:
        return bytes(data)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as zipped:
        for name, content in (members(source) | {"model.weights.h5": bytes(data)}).items():
            zipped.writestr(name, content)
    return stream.getvalue()


FUZZED = [
    DATA / name
    for name in (
        "keras1_stacked.h5", "keras22_functional.h5", "tf24_stacked.h5", "tf213_stacked.h5",
        "tf213_functional.keras", "../../../models/damped_sine_keras/damped_sine.keras",
    )
]  # fmt: skip


@pytest.mark.exhaustive
@pytest.mark.parametrize("source", FUZZED, ids=lambda p: p.name)
def test_flipped_bits_of_hdf5(source: Path, tmp_path: Path) -> None:
    rng, sources = random.Random(source.name), []
    archived = source.suffix == ".keras"
    whole = members(source)["model.weights.h5"] if archived else source.read_bytes()
    for k in range(40):
        near = len(whole) if k % 2 else 3000  # anywhere, or in the first groups and attributes
        places = [rng.randrange(near) for _ in range(rng.choice([1, 1, 2, 8]))]
        changes = {at: whole[at] ^ 1 << rng.randrange(8) for at in places}
        sources.append(tmp_path / f"{k}.h5")
        sources[-1].write_bytes(patched(source, changes))
    outcomes = dict(zip((p.name for p in sources), convert(sources, forked=True), strict=True))
    assert not complaints(outcomes, (0, 2))
    assert {o.status for o in outcomes.values()} == {0, 2}  # the flips do hit, not always


# Single bytes on which libhdf5 1.14.6 was seen to misbehave: file, where, what, and how.
SINGLE_BYTES = [
    ("keras1_stacked.h5", 3561, 8, "loops in a global heap"),
    ("tf24_stacked.h5", 4689, 1, "loops in a global heap"),
    ("tf213_functional.keras", 2440, 72, "loops in a local heap, allocating"),
    ("keras22_functional.h5", 1009, 9, "crashes on an attribute of another type"),
    ("tf213_stacked.h5", 857, 3, "crashes on an attribute of another type"),
    ("keras22_functional.h5", 1043, 128, "allocates 2 GB for a text"),
    ("tf213_stacked.h5", 1043, 255, "allocates 4 GB for a text"),
]


@pytest.mark.parametrize(("name", "at", "value", "how"), SINGLE_BYTES)
def test_bytes_that_libhdf5_stumbles_over(
    name: str, at: int, value: int, how: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.h5"
    path.write_bytes(patched(DATA / name, {at: value}))
    assert not complaints({how: convert([path])[0]}, (2,))


@pytest.mark.exhaustive
@pytest.mark.parametrize("source", [LEGACY, ARCHIVE], ids=lambda p: p.name)
def test_truncated_anywhere(source: Path, tmp_path: Path) -> None:
    whole, sources = source.read_bytes(), []
    for size in {0, 1, 7, 8, 9, len(whole) - 1, *random.Random(4).sample(range(len(whole)), 30)}:
        sources.append(tmp_path / f"{size}.keras")
        sources[-1].write_bytes(whole[:size])
    outcomes = dict(zip((p.name for p in sources), convert(sources, forked=True), strict=True))
    assert not complaints(outcomes, (2,))


def test_flipped_bits_of_the_zip_are_noticed_or_harmless(tmp_path: Path) -> None:
    known, whole = nc.convert(ARCHIVE).to_json(), ARCHIVE.read_bytes()
    numbers = {n.name: dict(n.weights) for n in nc.convert(ARCHIVE).layers}
    rng, path, refused = random.Random(5), tmp_path / "model.keras", 0
    with zipfile.ZipFile(ARCHIVE) as zipped:
        directory = zipped.start_dir
        local = [i.header_offset for i in zipped.infolist()]
    for k in range(300):
        damaged = bytearray(whole)
        for _ in range(1 + k % 2):
            at = [
                rng.randrange(len(whole)),
                rng.choice(local) + rng.randrange(46),
                rng.randrange(directory, len(whole)),
            ][k % 3]
            damaged[at] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            spec = nc.convert(path)
        except (npylstm.NpylstmError, OSError):
            refused += 1
            continue
        found = spec.to_json()
        assert {**found, "provenance": 0} == {**known, "provenance": 0}
        for layer in spec.layers:
            for key, array in layer.weights.items():
                np.testing.assert_array_equal(array, numbers[layer.name][key])
    assert 150 < refused < 300


# --- files that point to others ------------------------------------------------------------------


def secret(folder: Path) -> Path:
    """A sound file next to the hostile one."""
    path = folder / "secret.h5"
    path.write_bytes(LEGACY.read_bytes())
    return path


def through_external(path: str) -> Callable[[h5py.File, str], None]:
    return lambda file, other: link(path, h5py.ExternalLink(other, path))(file)


def through_soft_and_external(path: str) -> Callable[[h5py.File, str], None]:
    def change(file: h5py.File, other: str) -> None:
        file["zzz"] = h5py.ExternalLink(other, path)
        link(path, h5py.SoftLink("/zzz"))(file)

    return change


def virtual(file: h5py.File, other: str) -> None:
    layout = h5py.VirtualLayout((3, 28), "f4")
    layout[:] = h5py.VirtualSource(other, KERNEL, (3, 28), "f4")
    file.pop(KERNEL)
    file.create_virtual_dataset(KERNEL, layout)


def growing_virtual(file: h5py.File, other: str) -> None:
    """Its shape alone asks the other file."""
    layout = h5py.VirtualLayout((3, 28), "f4", maxshape=(None, 28))
    source = h5py.VirtualSource(other, KERNEL, (3, 28), "f4", maxshape=(None, 28))
    layout[: h5py.h5s.UNLIMITED] = source[: h5py.h5s.UNLIMITED]
    file.pop(KERNEL)
    file.create_virtual_dataset(KERNEL, layout)


def external_data(file: h5py.File, other: str) -> None:
    put(KERNEL, (3, 28), "f4", external=[(other, 0, 336)])(file)


FOREIGN: dict[str, Callable[[h5py.File, str], None]] = {
    "external group": through_external(LSTM_GROUP),
    "external array": through_external(KERNEL),
    "soft link to external group": through_soft_and_external(LSTM_GROUP),
    "soft link to external array": through_soft_and_external(KERNEL),
    "virtual": virtual,
    "virtual of unknown length": growing_virtual,
    "external data": external_data,
}


def pointing_to(other: str, change: Callable[[h5py.File, str], None]) -> Maker:
    return edited(lambda file: change(file, other))


@pytest.mark.parametrize("name", FOREIGN)
def test_other_files_are_not_read(name: str, tmp_path: Path) -> None:
    """Refused with the other file there, and without opening it: a pipe would hang whoever did."""
    sound, pipe = secret(tmp_path), tmp_path / "pipe.h5"
    os.mkfifo(pipe)
    sources = []
    for other in (sound, pipe):
        path = tmp_path / f"by_{other.stem}.hdf5"
        pointing_to(str(other), FOREIGN[name])(path)
        sources.append(path)
    outcomes = convert(sources)
    for outcome in outcomes:
        assert outcome.status == 2, outcome
        assert_one_line(outcome.stderr)


# --- bombs ----------------------------------------------------------------------------------------


def zeros_deflated(count: int, noise: int = 0) -> bytes:
    """Deflate a little noise and many zeros, the zeros' block many times over."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = packer.compress(random.Random(0).randbytes(noise)) + packer.flush(zlib.Z_FULL_FLUSH)
    megabyte = packer.compress(bytes(MB)) + packer.flush(zlib.Z_FULL_FLUSH)
    return data + megabyte * (count // MB) + packer.flush()


def zeros_zlib(count: int) -> bytes:
    return b"\x78\xda" + zeros_deflated(count) + struct.pack(">L", count % 65521 << 16 | 1)


def zip_bomb(member: str, data: bytes, size: int, method: int = zipfile.ZIP_DEFLATED) -> Maker:
    """A ``.keras`` with one member given packed; its checksum, wrong, would be judged too late."""

    def make(path: Path) -> None:
        body, directory = io.BytesIO(), io.BytesIO()
        parts = {n: (0, zlib.crc32(d), len(d), d) for n, d in members().items() if n != member}
        for name, (kind, crc, length, content) in (
            parts | {member: (method, 0, size, data)}
        ).items():
            at, encoded = body.tell(), name.encode()
            common = struct.pack(
                "<5H3L2H", 20, 0, kind, 0, 33, crc, len(content), length, len(encoded), 0
            )
            body.write(b"PK\x03\x04" + common + encoded + content)
            directory.write(b"PK\x01\x02\x14\x00" + common)
            directory.write(struct.pack("<3H2L", 0, 0, 0, 0, at) + encoded)
        end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 3, 3, directory.tell(), body.tell(), 0)
        path.write_bytes(body.getvalue() + directory.getvalue() + end)

    return make


def high(member: str) -> Maker:
    return zip_bomb(member, zeros_deflated(2048 * MB), 2048 * MB)


def low(member: str) -> Maker:
    return zip_bomb(member, zeros_deflated(400 * MB, 6 * MB), 406 * MB)


def lying_bzip2(path: Path) -> None:
    zip_bomb("config.json", bz2.compress(bytes(150 * MB)), 3000, zipfile.ZIP_BZIP2)(path)


FAT_JSON = b'{"class_name": "Sequential", "config": [' + b'{"":0},' * (15 * MB // 7) + b"0]}"


def fat_json(path: Path) -> None:
    """JSON of 15 MB that takes thirty times as much in memory; the zip makes it a few KB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, data in (members() | {"config.json": FAT_JSON}).items():
            zipped.writestr(name, data)


def many_layers(path: Path) -> None:
    document = sound_config()
    document["config"]["layers"] += [
        {"class_name": "Dropout", "config": {"name": f"l{k}"}} for k in range(30_000)
    ]
    document["config"]["layers"].append({"class_name": "Lambda", "config": {"name": "end"}})
    archive(config=json.dumps(document).encode())(path)


def many_reasons(path: Path) -> None:
    document = sound_config()
    document["config"]["layers"] += [
        {"class_name": "Lambda", "config": {"name": f"l{k}"}} for k in range(2_000)
    ]
    archive(config=json.dumps(document).encode())(path)


def backward_calls(path: Path) -> None:
    """Layers listed from the last to the first: each look finds one that is ready."""
    count = 4000
    layers: list[Json] = [
        {"class_name": "Dropout", "name": f"l{k}", "config": {"name": f"l{k}"},
         "inbound_nodes": [[[f"l{k - 1}", 0, 0, {}]]]}
        for k in range(count, 0, -1)
    ]  # fmt: skip
    layers.append({"class_name": "InputLayer", "name": "l0", "config": {"name": "l0"}})
    graph = {"layers": layers, "input_layers": [["l0", 0, 0]], "output_layers": [["none", 0, 0]]}
    graph["output_layers"] = [["l1", 0, 7]]
    archive(config=json.dumps({"class_name": "Model", "config": graph}).encode())(path)


ROWS = 160 * MB  # of 16 float32: 10 GB


def widened(change: Callable[[h5py.File, int], None], rows: int) -> Maker:
    """An LSTM of 4 units on very many features, its kernel made by ``change``."""

    def make(path: Path) -> None:
        layers = [{"class_name": "LSTM", "config": {"name": "lstm", "units": 4}}]
        with h5py.File(path, "w") as file:
            document = {"class_name": "Sequential", "config": layers}
            file.attrs["model_config"] = json.dumps(document)
            file.attrs["keras_version"] = "2.4.0"
            file.attrs["layer_names"] = [b"lstm"]
            group = file.create_group("lstm")
            group.attrs["weight_names"] = [b"kernel", b"recurrent", b"bias"]
            change(group, rows)
            group["recurrent"] = np.ones((4, 15), "f4")  # wrong: the bomb is for nothing
            group["bias"] = np.ones(16, "f4")

    return make


def nothing_stored(group: h5py.Group, rows: int) -> None:
    group.create_dataset("kernel", (rows, 16), "f4")


def filled(group: h5py.Group, rows: int) -> None:
    group.create_dataset("kernel", (rows, 16), "f4", chunks=(MB // 64, 16), fillvalue=0.5)


def gzipped(noise: int) -> Callable[[h5py.Group, int], None]:
    """Chunks of 16 MB, the same packed one every time."""

    def change(group: h5py.Group, rows: int) -> None:
        chunk = random.Random(0).randbytes(noise) + bytes(16 * MB - noise)
        packed_chunk = zlib.compress(chunk, 9)
        dataset = group.create_dataset(
            "kernel", (rows, 16), "f4", chunks=(MB // 4, 16), compression="gzip"
        )
        for at in range(0, rows, MB // 4):
            dataset.id.write_direct_chunk((at, 0), packed_chunk)

    return change


def wide_chunk(group: h5py.Group, rows: int) -> None:
    """A small array in one chunk of 400 MB."""
    dataset = group.create_dataset(
        "kernel", (3, 16), "f4", maxshape=(None, 16), chunks=(400 * MB // 64, 16),
        compression="gzip",
    )  # fmt: skip
    dataset.id.write_direct_chunk((0, 0), zeros_zlib(400 * MB))


def long_stream(group: h5py.Group, rows: int) -> None:
    """A chunk of 19 KB whose stream unpacks to 400 MB."""
    dataset = group.create_dataset("kernel", (300, 16), "f4", chunks=(300, 16), compression="gzip")
    dataset.id.write_direct_chunk((0, 0), zeros_zlib(400 * MB))


def tower(file: h5py.File) -> None:
    """Forty groups, each with two names for the next: 2^40 paths."""
    group = file[ROOT_GROUP]
    for _ in range(40):
        inner = group.create_group("a")
        group["b"] = inner
        group = inner


def one_text_many_times(path: Path) -> None:
    """A list of 3,000 names that are all the same text of 1 MB."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = np.array(["x" * MB, *["y"] * 3000], object)
    data = path.read_bytes()
    heaps = [i for i in range(0, len(data), 8) if data.startswith(b"GCOL", i)]
    at = max(data.find(struct.pack("<LQ", MB, heap)) for heap in heaps)
    assert at > 0
    big = data[at : at + 16]
    path.write_bytes(data[:at] + big * 3001 + data[at + 16 * 3001 :])


def fat_attribute(path: Path) -> None:
    edited(lambda file: file.attrs.__setitem__("model_config", FAT_JSON.decode()))(path)


def sparse(path: Path) -> None:
    """Ten gigabytes of nothing behind a zip's first bytes."""
    path.write_bytes(b"PK\x03\x04")
    os.truncate(path, 10 << 30)


BOMBS: dict[str, Maker] = {
    "weights": high("model.weights.h5"),
    "config": high("config.json"),
    "metadata": high("metadata.json"),
    "weights, low ratio": low("model.weights.h5"),
    "config, low ratio": low("config.json"),
    "metadata, low ratio": low("metadata.json"),
    "bzip2 of a lying size": lying_bzip2,
    "fat json": fat_json,
    "fat attribute": fat_attribute,
    "many layers": many_layers,
    "many reasons": many_reasons,
    "backward calls": backward_calls,
    "hdf5: 10 GB not stored": widened(nothing_stored, ROWS),
    "hdf5: 10 GB of one fill value": widened(filled, ROWS),
    "hdf5: 10 GB gzipped": widened(gzipped(0), ROWS),
    "hdf5: 400 MB gzipped, low ratio": widened(gzipped(MB // 4), 400 * MB // 64),
    "hdf5: chunk wider than its array": widened(wide_chunk, 3),
    "hdf5: stream longer than its chunk": widened(long_stream, 3),
    "hdf5: 2^40 paths": edited_archive(tower),
    "hdf5: one text many times": one_text_many_times,
    "sparse": sparse,
}


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.one_in(2)
def test_a_bomb_is_cheap_to_refuse(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    BOMBS[name](path)
    assert name == "sparse" or path.stat().st_size < 25 * MB
    outcome = convert([path])[0]
    assert not complaints({name: outcome}, (2,))
    assert_one_line(outcome.stderr)


def test_the_worker_sees_waste() -> None:
    assert complaints({"waste": run([["waste"]])[0]}, (200 << 20,))
