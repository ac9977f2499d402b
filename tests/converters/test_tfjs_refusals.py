"""Models of TensorFlow.js that are not supported: refused with every reason at once."""

from __future__ import annotations

from pathlib import Path

import npylstm_converters as nc
import numpy as np
import pytest
from tfjs_hostile import DATA, Json, layers, sequential, sound
from tfjs_layout import Weight, read

import npylstm

pytestmark = pytest.mark.usefixtures("deadline")


def test_everything_unsupported_is_listed_at_once(folder: Path) -> None:
    def change(found: list[Json]) -> None:
        found[0]["config"]["activation"] = "blurp"
        found[1]["config"]["activation"] = "plop"
        found.append({"class_name": "Lambda", "config": {"name": "mine"}})
        found.append({"class_name": "ConvLSTM2D", "config": {"name": "yours"}})

    layers(change)(folder)
    with pytest.raises(npylstm.UnsupportedError) as error:
        nc.from_tfjs(folder / "model.json")
    for word in (
        "lstm_LSTM1",
        "blurp",
        "dense_Dense1",
        "plop",
        "mine",
        "Lambda",
        "yours",
        "ConvLSTM2D",
    ):
        assert word in str(error.value)
    assert len(error.value.reasons) >= 4


def test_names_twice_in_nested_models(folder: Path) -> None:
    """TensorFlow.js writes such files, and cannot read them: which kernel is whose, nobody knows."""
    layout = read(DATA / "nested")

    def change(w: Weight) -> Weight:
        return w.renamed(w.name.replace("l/", "same/").replace("g/", "same/"))

    def rename(found: list[Json]) -> None:
        graph = next(layer for layer in found if layer["name"] == "innerGraph")
        for inner in graph["config"]["layers"][1:]:
            inner["config"]["name"] = inner["name"] = "same"

    layout = layout.mapped(change).with_layers(rename)
    with pytest.raises(npylstm.NpylstmError, match="same"):
        nc.from_tfjs(layout.write(folder))


@pytest.mark.parametrize("depth", [1, 5, 40])
def test_models_in_models(depth: int, folder: Path) -> None:
    layout = sound().with_layers(lambda found: found.__setitem__(0, sequential(depth)))
    spec = nc.from_tfjs(layout.write(folder))
    plain = nc.from_tfjs(DATA / "lstm/model.json")
    assert [n.config for n in spec.layers if n.weights] == [n.config for n in plain.layers]
    x = np.linspace(-1, 1, 36).reshape(2, 6, 3)
    expected = npylstm.Model(plain, "numpy").predict(x)
    np.testing.assert_array_equal(npylstm.Model(spec, "numpy").predict(x), expected)
