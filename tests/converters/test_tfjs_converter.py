"""Files that the converter of TensorFlow.js writes from Keras: the same models laid out anew."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import npylstm_converters as nc
import numpy as np
import pytest
from tfjs_files import DATA, NEWEST, ROOT, attempted, content, converted, recorded
from tfjs_layout import Layout, Weight, as_converted, weight

from npylstm import Model, ModelSpec

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
