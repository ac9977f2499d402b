"""Weights-only HDF5 files of Keras 1 and 2, joined by what the user says."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import h5py
import npylstm_converters as nc
import numpy as np
import pytest
from keras_chains import (
    SAID,
    Built,
    L,
    command_of,
    lstm_stack,
    run_main,
    runs_of,
    said_names,
    sequential,
    weights_of,
)
from keras_graphs import assert_parity, run

import npylstm

DATA = Path(__file__).parent.parent / "data" / "keras"


# --- parity --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SAID)
def test_parity(name: str, built: Callable[[str], Built]) -> None:
    said = SAID[name]
    model, path, runs = built(name)
    spec = nc.convert(path, layers=said.layers)
    assert spec.to_json() == nc.from_keras(path, layers=said.layers).to_json()
    assert_parity(spec, runs)
    sources = [e["source"] for e in spec.provenance["tensors"] if e["layer"]]
    assert len(sources) == len(model.weights)
    assert any(said.layers.split(" -> ")[0] in text for text in spec.provenance["decisions"])


def test_spaces_do_not_matter(tmp_path: Path) -> None:
    model = lstm_stack()
    path = weights_of(model, tmp_path)
    text = " lstm_1->dropout_1  ->lstm_2 ( last )-> dense_1( softmax ) "
    assert_parity(nc.from_keras(path, layers=text), runs_of(model, 6))


@pytest.mark.parametrize("left_out", [" -> dropout_1", ""])
def test_layers_without_weights_may_be_left_out_or_added(left_out: str, tmp_path: Path) -> None:
    model = lstm_stack()
    path = weights_of(model, tmp_path)
    text = SAID["lstm_stack"].layers.replace(left_out, "") if left_out else (
        "lstm_1 -> Dropout -> lstm_2(last) -> Dropout -> dense_1(linear) -> Activation(softmax)"
    )  # fmt: skip
    spec = nc.from_keras(path, layers=text)
    assert_parity(spec, runs_of(model, 6))


@pytest.mark.parametrize("gates", ["sigmoid", "hard_sigmoid"])
def test_gates_and_activations_can_be_said(gates: str, tmp_path: Path) -> None:
    model = sequential(
        (None, 3),
        L.LSTM(5, recurrent_activation=gates, activation="elu", go_backwards=True, name="lstm_1"),
        L.Dense(2, name="dense_1"),
    )
    path = weights_of(model, tmp_path)
    text = f"lstm_1(last, elu, recurrent_activation={gates}, go_backwards=true) -> dense_1(linear)"
    assert_parity(nc.from_keras(path, layers=text), runs_of(model, 6))


def test_a_mask_can_be_said(tmp_path: Path) -> None:
    model = sequential(
        (None,), L.Embedding(9, 4, mask_zero=True, name="embedding_1"),
        L.LSTM(5, name="lstm_1"), L.Dense(2, name="dense_1"),
    )  # fmt: skip
    path = weights_of(model, tmp_path)
    ids = np.array([[1, 2, 0, 0], [3, 0, 4, 5], [0, 0, 0, 8]], "float32")
    expected = run(model, [ids])
    text = "embedding_1(mask_zero=true) -> lstm_1(last) -> dense_1(linear)"
    assert_parity(nc.from_keras(path, layers=text), [([ids], expected)])
    blind = nc.from_keras(path, layers=text.replace("mask_zero=true", "mask_zero=false"))
    assert not np.allclose(npylstm.Model(blind).predict(ids), expected[0], atol=1e-3)


def test_what_was_left_to_defaults_is_told(tmp_path: Path) -> None:
    path = weights_of(lstm_stack(), tmp_path)
    spec = nc.from_keras(path, layers=SAID["lstm_stack"].layers)
    told = "\n".join(spec.provenance["decisions"])
    for layer in ("lstm_1", "lstm_2"):
        assert f"{layer}: activation tanh" in told
        assert f"{layer}: recurrent_activation sigmoid" in told


# --- files of every generation -------------------------------------------------------------------

OLD = sorted(DATA.glob("*_stacked_weights.h5"))


def test_every_generation_is_here() -> None:
    writers = [p.name.split("_")[0] for p in OLD]
    assert writers == ["keras1", "keras20", "keras22", "tf115", "tf213", "tf24"]


@pytest.mark.parametrize("path", OLD, ids=lambda p: p.name)
def test_old_files_give_the_numbers_of_their_writers(
    path: Path, backend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with h5py.File(path, "r") as file:
        names = [n.decode() if isinstance(n, bytes) else n for n in file.attrs["layer_names"]]
        version = file.attrs.get("keras_version")
    status, stdout, _ = run_main(capsys, "info", path)
    assert status == 0
    proposed = shlex.split(command_of(stdout))[-1]
    lstms = [n for n in names if n.startswith("lstm")]
    dense = next(n for n in names if n.startswith("dense"))
    assert said_names(proposed) == [n for n in names if not n.startswith("input")]
    old = path.name.startswith(("keras1_", "keras20_", "keras22_", "tf115_"))
    told = "hard_sigmoid" if old else "sigmoid"
    unclear = version is None or "2.2.4-tf" in str(version)
    asked = unclear and not path.name.startswith("keras1_")  # whose layout tells
    assert "recurrent_activation" in proposed
    gates = f", recurrent_activation={told}" if asked else ""
    text = f"{lstms[0]}(sequences{gates}) -> {lstms[1]}(last{gates}) -> {dense}(softmax)"
    spec = nc.from_keras(path, layers=text)
    stem = path.name.removesuffix("_weights.h5")
    known = np.load(DATA / f"{stem}.expected.npz")
    y = npylstm.Model(spec, backend).predict(known["x"])
    np.testing.assert_allclose(y, known["y"], atol=1e-6, rtol=0)
