"""The command line: results, exit statuses, one line for each error."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from backends import COMPILED
from builders import make_chain
from cli_runs import run

import npylstm
from npylstm.activations import Activation
from npylstm.ops.cells import LSTM
from npylstm.ops.dense import Dense
from npylstm.spec import Case


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A converted model with a free time axis and a faithful recorded case."""
    spec = make_chain(LSTM(3, 5), Dense(5, 2, Activation("tanh")), name="small")
    x = np.random.default_rng(0).normal(size=(2, 4, 3)).astype("float32")
    y = npylstm.Model(spec, "numpy").predict(x)
    npylstm.save(spec.with_cases([Case({"x": x}, {"layer_1": y})]), tmp_path / "m.npz")
    np.save(tmp_path / "x.npy", x)
    return tmp_path / "m.npz"


def test_verify(model: Path, capsys: Any) -> None:
    status, stdout, stderr = run(capsys, "verify", model)
    assert (status, stderr) == (0, "")
    assert "parity held: 1 recorded case against" in stdout
    document = json.loads(run(capsys, "verify", model, "--json", "--backend", "numpy")[1])
    assert document["passed"] is True
    assert document["backend"] == "numpy"


def test_verify_fails_with_1(model: Path, capsys: Any) -> None:
    spec = npylstm.load(model).spec
    wrong = Case(spec.cases[0].inputs, {"layer_1": spec.cases[0].outputs["layer_1"] + 0.01})
    npylstm.save(spec.with_cases([wrong]), model)
    status, stdout, _ = run(capsys, "verify", model)
    assert status == 1
    assert "parity FAILED: output 'layer_1' differs by 0.01 at case 0" in stdout


def test_predict(model: Path, tmp_path: Path, capsys: Any) -> None:
    x, y = tmp_path / "x.npy", tmp_path / "y.npy"
    expected = npylstm.load(model).predict(np.load(x))
    status, stdout, stderr = run(capsys, "predict", model, "--input", x, "-o", y)
    assert (status, stderr) == (0, "")
    assert f"{y}: layer_1 (2, 2)" in stdout
    np.testing.assert_array_equal(np.load(y), expected)
    _, stdout, _ = run(capsys, "predict", model, "--input", x)
    np.testing.assert_allclose(np.loadtxt(stdout.splitlines(), delimiter=","), expected, rtol=1e-7)
    values = json.loads(run(capsys, "predict", model, "--input", x, "--json")[1])["values"]
    np.testing.assert_allclose(values["layer_1"], expected, rtol=1e-7)
    for name in ("y.npz", "y.csv"):
        assert (
            run(capsys, "predict", model, "--input", x, "-o", tmp_path / name, "--batch-size", 1)[0]
            == 0
        )
    np.testing.assert_array_equal(np.load(tmp_path / "y.npz")["layer_1"], expected)


def test_predict_from_npz_and_csv(model: Path, tmp_path: Path, capsys: Any) -> None:
    x = np.load(tmp_path / "x.npy")
    expected = run(capsys, "predict", model, "--input", tmp_path / "x.npy")[1]
    np.savez(tmp_path / "x.npz", anything=x)
    assert run(capsys, "predict", model, "--input", tmp_path / "x.npz")[1] == expected
    np.savetxt(tmp_path / "x.csv", x[0], delimiter=",")
    assert (
        run(capsys, "predict", model, "--input", tmp_path / "x.csv")[1]
        == expected.splitlines()[0] + "\n"
    )
    spec = make_chain(LSTM(3, 5), shape=("batch", 4, 3))
    npylstm.save(spec, model)
    np.savetxt(tmp_path / "x.csv", x.reshape(2, 12), delimiter=",")
    assert len(run(capsys, "predict", model, "--input", tmp_path / "x.csv")[1].splitlines()) == 2


def test_trace(model: Path, tmp_path: Path, capsys: Any) -> None:
    status, stdout, _ = run(
        capsys, "trace", model, "--input", tmp_path / "x.npy", "-o", tmp_path / "g.png"
    )
    assert status == 0
    assert "layer_0 (2, 4, 5)" in stdout
    assert (tmp_path / "g.png").read_bytes().startswith(b"\x89PNG")
    assert (
        run(capsys, "trace", model, "--input", tmp_path / "x.npy", "-o", tmp_path / "g.npz")[0] == 0
    )
    gates = np.load(tmp_path / "g.npz")
    np.testing.assert_array_equal(
        gates["layer_0/f"],
        npylstm.load(model, "numpy").trace(np.load(tmp_path / "x.npy"))["layer_0"].f,
    )


def test_info_says_what_computes_here(
    model: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NPYLSTM_BACKEND", raising=False)
    said = run(capsys, "info", model)[1]
    assert f"back end here: {COMPILED} (" in said
    assert "kernels for: all" in said
    assert json.loads(run(capsys, "info", model, "--json")[1])["backend"] == COMPILED
    monkeypatch.setenv("NPYLSTM_BACKEND", "numpy")
    assert "back end here: numpy (NPYLSTM_BACKEND=numpy)" in run(capsys, "info", model)[1]


def test_bench(model: Path, capsys: Any) -> None:
    status, stdout, _ = run(
        capsys, "bench", model, "--batch", 1, 3, "--steps", 4, "--seconds", 0.01
    )
    assert status == 0
    assert f"{COMPILED:8}  (3, 4, 3)" in stdout
    rows = json.loads(run(capsys, "bench", model, "--seconds", 0.01, "--json")[1])
    assert {row["backend"] for row in rows} >= {"numpy", COMPILED}
    assert all(row["median_us"] > 0 for row in rows)


def test_bench_of_single_steps(model: Path, capsys: Any) -> None:
    arguments = ("bench", model, "--stream", "--calls", 20, "--batch", 1, 3)
    status, stdout, _ = run(capsys, *arguments)
    assert status == 0
    assert "99.9 %" in stdout
    rows = json.loads(run(capsys, *arguments, "--json")[1])
    assert [(row["backend"], row["batch"], row["calls"]) for row in rows] == [
        (COMPILED, 1, 20),
        (COMPILED, 3, 20),
    ]
    for row in rows:
        assert 0 < row["median_us"] <= row["p99_us"] <= row["p99_9_us"] <= row["worst_us"]


def test_warmup(model: Path, capsys: Any) -> None:
    status, stdout, _ = run(capsys, "warmup", model, model)
    assert status == 0
    assert stdout.count(model.name) == 2
    document = json.loads(run(capsys, "warmup", model, "--json")[1])
    assert document["models"][0]["backend"] == COMPILED
    assert document["models"][0]["seconds"] >= 0
    assert (document["cache"] is None) == (COMPILED == "native")


def test_python_m_is_the_same(model: Path) -> None:
    command = [sys.executable, "-m", "npylstm", "verify", str(model)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0
    assert "parity held" in result.stdout
    assert result.stderr == ""


def test_version(capsys: Any) -> None:
    assert run(capsys, "--version") == (0, f"npylstm {npylstm.__version__}\n", "")


def test_a_closed_pipe_is_no_error(model: Path) -> None:
    command = f"{sys.executable} -m npylstm info {model} | true"
    result = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False
    )
    assert "Traceback" not in result.stderr
    assert "BrokenPipe" not in result.stderr


def test_info_fits_a_screen(tmp_path: Path, capsys: Any) -> None:
    layers = [
        keras.Input((5, 2)),
        keras.layers.Bidirectional(keras.layers.LSTM(3, return_sequences=True)),
        keras.layers.Bidirectional(keras.layers.GRU(4)),
    ]
    keras.Sequential(layers).save(tmp_path / "m.keras")
    status, stdout, _ = run(capsys, "info", tmp_path / "m.keras")
    assert status == 0
    assert max(map(len, stdout.splitlines())) <= 160
    joined = " ".join(stdout.split())
    assert "return_sequences, go_backwards, zero_output_for_mask, recurrent_activation=sigmoid" in (
        joined
    )
    assert "reads backwards in its backward layer along the time axis 1" in joined
