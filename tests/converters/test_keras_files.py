"""Files that Keras 3 and tf_keras write here, read without them."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import h5py
import keras
import npylstm_converters as nc
import numpy as np
import pytest
import tf_keras
from backends import BACKENDS

import npylstm

FRAMEWORKS = {"keras3": keras, "tf_keras": tf_keras}


def make(k: Any) -> Any:
    """Two layers of one class, one without weights, and a compiled optimizer."""
    L = k.layers
    model = k.Sequential([
        k.Input((6, 3)), L.LSTM(7, return_sequences=True, recurrent_activation="hard_sigmoid"),
        L.Dropout(0.3), L.LSTM(5, recurrent_dropout=0.2), L.Dense(4), L.Dense(2, activation="softmax"),
    ])  # fmt: skip
    model.compile("adam", "mse")
    rng = np.random.default_rng(0)
    model.fit(rng.normal(size=(8, 6, 3)), rng.normal(size=(8, 2)), verbose=0)
    model.set_weights([rng.normal(size=w.shape) * 0.4 for w in model.get_weights()])
    return model


@pytest.fixture(scope="module", params=FRAMEWORKS)
def case(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """One model of each framework in every format, with its own outputs."""
    k = FRAMEWORKS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    model = make(k)
    model.save(folder / "m.keras")
    model.save(str(folder / "m.h5"))
    model.save_weights(str(folder / "m.weights.h5"))
    (folder / "m.json").write_text(model.to_json())
    if k is tf_keras:
        model.save_weights(str(folder / "legacy_weights.h5"), save_format="h5")
    x = np.random.default_rng(1).normal(size=(3, 6, 3)).astype("float32")
    return {
        "name": request.param,
        "folder": folder,
        "model": model,
        "x": x,
        "y": np.asarray(model(x)),
    }


def check(case: dict[str, Any], spec: npylstm.ModelSpec) -> None:
    # Both sides are float32 with values up to one: a few units in the last place (6e-8).
    for backend in BACKENDS:
        y = npylstm.Model(spec, backend).predict(case["x"])
        np.testing.assert_allclose(y, case["y"], atol=1e-6, rtol=0)
    slope = "hard_sigmoid_sixth" if case["name"] == "keras3" else "hard_sigmoid_fifth"
    assert spec.layers[0].config["recurrent_activation"] == slope


@pytest.mark.parametrize("name", ["m.keras", "m.h5"])
def test_whole_models(case: dict[str, Any], name: str) -> None:
    spec = nc.convert(case["folder"] / name)
    check(case, spec)
    assert spec.provenance["framework_version"] == FRAMEWORKS[case["name"]].__version__
    assert len(spec.provenance["source_sha256"]) == 64


def test_weights_with_an_architecture(case: dict[str, Any]) -> None:
    folder = case["folder"]
    check(case, nc.from_keras(folder / "m.weights.h5", architecture=folder / "m.json"))
    if (folder / "legacy_weights.h5").exists():
        check(case, nc.from_keras(folder / "legacy_weights.h5", architecture=folder / "m.json"))


def test_live_objects(case: dict[str, Any]) -> None:
    check(case, nc.from_keras(case["model"]))
    check(case, nc.convert(case["model"]))


def test_any_suffix_will_do(case: dict[str, Any], tmp_path: Path) -> None:
    for name in ("m.keras", "m.h5"):
        path = tmp_path / f"{name}.bin"
        path.write_bytes((case["folder"] / name).read_bytes())
        check(case, nc.convert(path))


def with_backslashes(data: bytes) -> bytes:
    """Rename groups as h5py on Windows did: one level whose name holds the whole path."""
    source, out = h5py.File(io.BytesIO(data)), io.BytesIO()
    with h5py.File(out, "w") as target:

        def copy(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                group, _, last = name.rpartition("/")
                parent = target.require_group(group.replace("/", "\\"))
                parent.create_dataset(last, data=item[()])
            elif name.endswith("vars"):
                target.require_group(name.replace("/", "\\"))

        source.visititems(copy)
    return out.getvalue()


def test_files_from_windows(case: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "windows.keras"
    with zipfile.ZipFile(case["folder"] / "m.keras") as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, with_backslashes(data) if name.endswith(".h5") else data)
    with (
        zipfile.ZipFile(path) as archive,
        h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file,
    ):
        assert any("\\" in key for key in file)
    check(case, nc.convert(path))


def test_zip_paths_from_windows(case: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "windows.keras"
    with zipfile.ZipFile(case["folder"] / "m.keras") as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
        new.writestr("assets\\note.txt", "x")
    check(case, nc.convert(path))


def test_frameworks_are_not_needed(case: dict[str, Any]) -> None:
    """In a process in which importing one raises, the numbers are the same."""
    code = (
        "import sys\n"
        "class Wall:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('tensorflow', 'keras', 'tf_keras', 'torch', 'jax'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Wall())\n"
        "import json, numpy as np, npylstm, npylstm_converters as nc\n"
        "x = np.array(json.load(sys.stdin), 'float32')\n"
        "for path in sys.argv[1:]:\n"
        "    y = npylstm.Model(nc.convert(path), 'numpy').predict(x)\n"
        "    print(json.dumps(y.tolist()))\n"
    )
    paths = [str(case["folder"] / name) for name in ("m.keras", "m.h5")]
    result = subprocess.run(
        [sys.executable, "-c", code, *paths],
        input=json.dumps(case["x"].tolist()), capture_output=True, text=True, check=True,
    )  # fmt: skip
    for line in result.stdout.splitlines():
        np.testing.assert_allclose(json.loads(line), case["y"], atol=1e-6, rtol=0)
    assert len(result.stdout.splitlines()) == 2


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_stateful_models_that_have_state(framework: str, tmp_path: Path) -> None:
    k = FRAMEWORKS[framework]
    inputs = k.Input(batch_shape=(2, 4, 3))
    lstm = k.layers.LSTM(5, stateful=True, return_sequences=True)
    model = k.Model(inputs, k.layers.Dense(2)(lstm(inputs)))
    x = np.random.default_rng(2).normal(size=(2, 4, 3)).astype("float32")
    y0, y1 = np.asarray(model(x)), np.asarray(model(x))
    model.save(tmp_path / "m.keras")
    mine = npylstm.Model(nc.convert(tmp_path / "m.keras"), "numpy")
    z0, state = mine.predict(x, return_state=True)
    np.testing.assert_allclose(z0, y0, atol=1e-6)
    np.testing.assert_allclose(mine.predict(x, state=state), y1, atol=1e-6)
    np.testing.assert_array_equal(mine.predict(x), z0)  # predict itself remembers nothing


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_layer_names_that_the_file_needs_are_changed_and_told(
    framework: str, tmp_path: Path
) -> None:
    k = FRAMEWORKS[framework]
    model = k.Sequential(
        [k.Input((4, 3)), k.layers.LSTM(5, name="case"), k.layers.Dense(2, name="npylstm")]
    )
    model.save(tmp_path / "m.keras")
    spec = nc.convert(tmp_path / "m.keras")
    assert [layer.name for layer in spec.layers] == ["case_", "npylstm_"]
    assert "layer 'case' is called 'case_' here" in spec.provenance["decisions"]


def test_a_sequential_without_input_shape_takes_it_from_the_weights() -> None:
    model = make(tf_keras)
    document = json.loads(model.to_json())
    layers = document["config"]["layers"]
    del layers[0]  # the InputLayer
    for layer in layers:
        layer["config"].pop("batch_input_shape", None)
        layer.pop("build_config", None)
    model.to_json = lambda: json.dumps(document)
    assert nc.from_keras(model).inputs[0].shape == ("batch", "steps", 3)


def test_a_config_that_is_a_bare_list() -> None:
    model = make(tf_keras)
    document = json.loads(model.to_json())
    document["config"] = document["config"]["layers"]
    model.to_json = lambda: json.dumps(document)
    assert nc.from_keras(model).inputs[0].shape == ("batch", 6, 3)
