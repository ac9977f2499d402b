"""Files that Keras 1.2.2 to tf.keras 2.13 wrote, against the numbers that those versions computed.

The tolerance is derived: both sides compute in float32 with rounding errors of a few units in the
last place (6e-8) of values up to one. A hard_sigmoid in place of a sigmoid moves these outputs by
1e-3 at least (``tests/data/keras/README.md``).
"""

from __future__ import annotations

import json
from pathlib import Path

import npylstm_converters as nc
import numpy as np
import pytest

import npylstm

DATA = Path(__file__).parent.parent / "data" / "keras"
MODELS = sorted(p for p in DATA.iterdir() if p.suffix in (".h5", ".keras", ".hdf5"))
TOLERANCE = 1e-6


def convert(path: Path) -> npylstm.ModelSpec:
    stem = path.name.split(".")[0].removesuffix("_weights")
    if "weights" in path.name:
        return nc.from_keras(path, architecture=DATA / f"{stem}.json")
    return nc.convert(path)


def expected(path: Path) -> dict[str, np.ndarray]:
    stem = path.name.split(".")[0].removesuffix("_weights")
    return dict(np.load(DATA / f"{stem}.expected.npz"))


def test_every_generation_is_here() -> None:
    writers = {p.name.split("_")[0] for p in MODELS}
    assert writers == {"keras1", "keras20", "keras22", "tf115", "tf24", "tf213"}


@pytest.mark.parametrize("path", MODELS, ids=lambda p: p.name)
def test_gives_the_numbers_of_its_writer(path: Path, backend: str) -> None:
    model = npylstm.Model(convert(path), backend)
    known = expected(path)
    if "x0" in known:  # two calls of a stateful model
        y0, state = model.predict(known["x0"], return_state=True)
        np.testing.assert_allclose(y0, known["y0"], atol=TOLERANCE, rtol=0)
        y1 = model.predict(known["x1"], state=state)
        np.testing.assert_allclose(y1, known["y1"], atol=TOLERANCE, rtol=0)
        assert np.abs(model.predict(known["x1"]) - known["y1"]).max() > 1e-3  # the state matters
    else:
        np.testing.assert_allclose(model.predict(known["x"]), known["y"], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("path", [p for p in MODELS if "stacked" in p.name], ids=lambda p: p.name)
def test_pins_the_writers_hard_sigmoid(path: Path) -> None:
    spec = convert(path)
    old = path.name.startswith(("keras", "tf115"))
    lstms = [layer for layer in spec.layers if layer.kind == "lstm"]
    gates = {layer.config["recurrent_activation"] for layer in lstms}
    assert gates == {"hard_sigmoid_fifth" if old else "sigmoid"}


def test_a_pinned_batch_is_set_free(backend: str) -> None:
    model = npylstm.Model(convert(DATA / "tf24_stateful.h5"), backend)
    assert model.inputs[0].shape == ("batch", 4, 3)
    assert model.predict(np.zeros((5, 4, 3))).shape[0] == 5
    assert model.spec.layers[0].config["stateful"] is True


def test_an_architecture_is_asked_for() -> None:
    with pytest.raises(npylstm.FormatError, match=r"weights only.*--architecture"):
        nc.convert(DATA / "tf24_stacked_weights.h5")


def test_a_wrong_architecture_is_refused(tmp_path: Path) -> None:
    document = json.loads((DATA / "tf24_stacked.json").read_text())
    document["config"]["layers"][-1]["config"]["units"] = 9
    (tmp_path / "wrong.json").write_text(json.dumps(document))
    with pytest.raises(npylstm.UnsupportedError, match=r"expected shape \(\d+, 9\), got"):
        nc.from_keras(DATA / "tf24_stacked_weights.h5", architecture=tmp_path / "wrong.json")
