"""One model in every container that people have: bytes, folders, zips of folders, shards."""

from __future__ import annotations

import io
import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import npylstm_converters as nc
import numpy as np
import pytest
import tf_keras
from npylstm_converters.files import sha256_of
from npylstm_converters.registry import find_importer

import npylstm
from npylstm import FormatError

FRAMEWORKS = {"keras3": keras, "tf_keras": tf_keras}
X = np.random.default_rng(1).standard_normal((3, 6, 2)).astype("float32")


@pytest.fixture(scope="module", params=FRAMEWORKS)
def saved(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Any]:
    """A ``.keras`` file of each framework and what its model computes."""
    k: Any = FRAMEWORKS[request.param]
    L = k.layers
    model = k.Sequential([k.Input((6, 2)), L.LSTM(4, return_sequences=True), L.GRU(3), L.Dense(2)])
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=w.shape) * 0.5 for w in model.get_weights()])
    path = tmp_path_factory.mktemp(request.param) / "m.keras"
    model.save(path)
    return path, np.asarray(model(X))


def as_folder(path: Path, target: Path) -> Path:
    with zipfile.ZipFile(path) as archive:
        archive.extractall(target / "folder")
    return target / "folder"


def temporary(path: Path) -> Any:
    file = tempfile.NamedTemporaryFile()  # noqa: SIM115 - closed with the test
    file.write(path.read_bytes())
    file.seek(0)
    return file


def zipped(path: Path, target: Path, prefix: str, *others: str) -> Path:
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target / "m.keras", "w") as archive:
        for name in others:
            archive.writestr(name, "{}")
        for name in source.namelist():
            archive.writestr(prefix + name, source.read(name))
    return target / "m.keras"


CONTAINERS: dict[str, Callable[[Path, Path], Any]] = {
    "bytes": lambda path, target: path.read_bytes(),
    "memoryview": lambda path, target: memoryview(path.read_bytes()),
    "open file": lambda path, target: io.BytesIO(path.read_bytes()),
    "temporary file": lambda path, target: temporary(path),
    "folder": as_folder,
    "zip of a folder": lambda path, target: zipped(path, target, "my model/"),
    "zip of folders": lambda path, target: zipped(path, target, "a/b/"),
    "zip by macOS": lambda path, target: zipped(
        path, target, "m/", "__MACOSX/m/config.json", "m/.DS_Store"
    ),
    "zip of ./": lambda path, target: zipped(path, target, "./"),
    "zip by Windows": lambda path, target: zipped(path, target, "m\\"),
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_numbers(container: str, saved: tuple[Path, Any], tmp_path: Path) -> None:
    path, y = saved
    source = CONTAINERS[container](path, tmp_path)
    if not hasattr(source, "read"):
        spec = nc.convert(source)
        assert spec.provenance["source_format"] == "Keras archive"
        np.testing.assert_allclose(npylstm.Model(spec).predict(X), y, rtol=1e-5, atol=1e-6)
    else:
        spec = nc.from_keras(source)
    if isinstance(source, Path):
        assert nc.compare(spec, source, X).passed
    if not isinstance(source, Path):
        assert spec == nc.convert(path)


def test_the_hash_of_a_folder_covers_every_file(saved: tuple[Path, Any], tmp_path: Path) -> None:
    folder = as_folder(saved[0], tmp_path)
    before = nc.convert(folder).provenance["source_sha256"]
    assert before == sha256_of(*(folder / name for name in find_importer(folder).files(folder)))
    with (folder / "metadata.json").open("a") as stream:
        stream.write(" ")
    assert nc.convert(folder).provenance["source_sha256"] != before


def test_errors_in_bytes_name_no_temporary_file(saved: tuple[Path, Any], tmp_path: Path) -> None:
    data = saved[0].read_bytes()
    with pytest.raises(FormatError, match=r"^bytes: is incomplete"):
        nc.convert(data[:-40])
    with pytest.raises(FormatError, match=r"^bytes: no importer knows"):
        nc.convert(b"class LSTM")
    with pytest.raises(FormatError, match="opened for reading bytes"):
        nc.convert(io.StringIO("text"))


def test_two_models_in_one_zip(saved: tuple[Path, Any], tmp_path: Path) -> None:
    first = zipped(saved[0], tmp_path, "a/")
    shutil.move(first, tmp_path / "one.keras")
    with zipfile.ZipFile(saved[0]) as source, zipfile.ZipFile(tmp_path / "one.keras", "a") as both:
        for name in source.namelist():
            both.writestr(f"b/{name}", source.read(name))
    with pytest.raises(FormatError, match="several models, in the folders a/, b/"):
        nc.convert(tmp_path / "one.keras")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Weights in two files, the recurrent layer's in both of them."""
    folder = tmp_path_factory.mktemp("shards")
    L = keras.layers
    model = keras.Sequential([keras.Input((6, 2)), L.LSTM(20), L.Dense(2)])
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=w.shape) * 0.5 for w in model.get_weights()])
    model.save_weights(folder / "m.weights.json", max_shard_size=7e-6)
    assert len([*folder.glob("m_*.weights.h5")]) == 2
    (folder / "architecture.json").write_text(model.to_json())
    return folder, np.asarray(model(X))


@pytest.mark.parametrize("how", ["architecture", "layers"])
def test_weights_in_several_files(how: str, shards: tuple[Path, Any]) -> None:
    folder, y = shards
    options = {
        "architecture": {"architecture": folder / "architecture.json"},
        "layers": {"layers": "lstm(last) -> dense"},
    }[how]
    spec = nc.convert(folder / "m.weights.json", **options)
    np.testing.assert_allclose(npylstm.Model(spec).predict(X), y, rtol=1e-5, atol=1e-6)
    files = [folder / "m.weights.json", *sorted(folder.glob("m_*.h5"))]
    assert spec.provenance["source_sha256"] == sha256_of(*files)


def test_shards_that_are_missing_or_elsewhere(shards: tuple[Path, Any], tmp_path: Path) -> None:
    folder, _ = shards
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    index, chain = tmp_path / "m.weights.json", {"layers": "lstm(last) -> dense"}
    (tmp_path / "m_00001.weights.h5").rename(tmp_path / "aside.h5")
    with pytest.raises(FormatError, match=r"m_00001\.weights\.h5, which is missing: copy it"):
        nc.convert(index, **chain)
    document = json.loads(index.read_text())
    document["weight_map"]["/layers/dense/vars"] = ["../m_00001.weights.h5"]
    index.write_text(json.dumps(document))
    with pytest.raises(FormatError, match=r"expected names of files, got '\.\./m_00001"):
        nc.convert(index, **chain)
    document["weight_map"] = {"a": "m_00000.weights.h5", "b": "copy.h5"}
    index.write_text(json.dumps(document))
    shutil.copy(tmp_path / "m_00000.weights.h5", tmp_path / "copy.h5")
    with pytest.raises(FormatError, match="is in another file, too"):
        nc.convert(index, **chain)
