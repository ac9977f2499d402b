"""The command line in scripts: pipes, CSV with names of columns, errors as JSON, own functions."""

from __future__ import annotations

import io
import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import npylstm_converters as nc
import numpy as np
import pytest
from builders import make_chain

import npylstm
from npylstm.cli import main
from npylstm.ops.cells import LSTM
from npylstm.ops.dense import Dense, Embedding

X = np.random.default_rng(0).normal(size=(1, 7, 2)).astype("float32")
DATA = Path(__file__).parent / "data" / "keras"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """One sequence of any length in, its last step out."""
    npylstm.save(
        make_chain(LSTM(2, 3), Dense(3, 2), shape=("batch", "steps", 2)), tmp_path / "m.npz"
    )
    return tmp_path / "m.npz"


def run(capsys: Any, *arguments: Any) -> tuple[int, str, str]:
    status = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def predicted(model: Path) -> Any:
    return npylstm.load(model, backend="numpy").predict(X)


def csv(header: str = "") -> str:
    return header + "\n".join(",".join(f"{v:.9g}" for v in row) for row in X[0]) + "\n"


@pytest.mark.parametrize(
    "header", ["", "open,close\n", '"open","close"\n', "\ufeffopen,close\r\n", "\n\nopen,close\n"]
)
def test_csv_with_names_of_columns(header: str, model: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "x.csv").write_bytes(csv(header).encode())
    arguments = ["--input", tmp_path / "x.csv", "-o", tmp_path / "y.npy", "--backend", "numpy"]
    assert run(capsys, "predict", model, *arguments)[0] == 0
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), predicted(model), rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("open,close\n1,2\n3,x\n", "could not convert string 'x'"),
        ("1,2\nopen,close\n", "could not convert string 'open'"),
        ("open,close\n", "expected rows of numbers with commas: there are none"),
        ("day,open,close\n1,2,3\n", "3 columns do not fit the input (batch, steps, 2)"),
    ],
)
def test_csv_of_something_else(
    text: str, message: str, model: Path, tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "x.csv").write_text(text)
    status, _, stderr = run(capsys, "predict", model, "--input", tmp_path / "x.csv")
    assert status == 2
    assert message in stderr


def as_bytes(kind: str) -> bytes:
    if kind == "csv":
        return csv("open,close\n").encode()
    stream = io.BytesIO()
    if kind == "npy":
        np.save(stream, X)
    else:
        np.savez(stream, anything=X)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["csv", "npy", "npz"])
def test_pipes(kind: str, model: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(as_bytes(kind))))
    status, out, _ = run(capsys, "predict", model, "--input", "-", "-o", "-", "--backend", "numpy")
    assert status == 0
    np.testing.assert_allclose(
        np.loadtxt(io.StringIO(out), delimiter=",", ndmin=2), predicted(model), rtol=1e-6
    )


def test_an_empty_pipe(model: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    status, _, stderr = run(capsys, "predict", model, "--input", "-")
    assert status == 2
    assert "standard input is empty" in stderr


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        (["info", "nothing.npz"], "FileNotFoundError", "nothing.npz: No such file"),
        (["predict", "m.npz"], "UsageError", "--input; see npylstm predict --help"),
        (["predict", "m.npz", "--input", "x.csv", "--batch-size", "0"], "UsageError", "1 or more"),
        (["verify", "m.npz"], "NpylstmError", "holds no recorded cases"),
        (["nonsense"], "UsageError", "invalid choice: 'nonsense'"),
    ],
)
def test_errors_as_json(
    arguments: list[str], kind: str, text: str, model: Path, capsys: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(model.parent)
    status, out, stderr = run(capsys, *arguments, "--json")
    assert (status, stderr) == (2, "")
    error = json.loads(out)
    assert set(error) == {"error", "kind"}
    assert error["kind"] == kind
    assert text in error["error"]


def test_a_framework_file_is_converted_first(tmp_path: Path, capsys: Any) -> None:
    """The hint is a command that works when it is pasted, also with spaces in the path."""
    folder = tmp_path / "my models"
    folder.mkdir()
    source = folder / "m.h5"
    source.write_bytes((DATA / "keras22_shapes.h5").read_bytes())
    for command in ("verify", "bench"):
        status, _, stderr = run(capsys, command, source)
        assert status == 2
        assert "m.h5: not an .npz file" in stderr
        assert "a framework's model is converted first" in stderr
    words = shlex.split(stderr.split("`")[1].replace("MODEL.npz", str(tmp_path / "m.npz")))
    assert run(capsys, *words[1:], "--record", 0)[0] == 0
    status, _, stderr = run(capsys, "verify", folder)
    assert status == 2
    assert "a folder, not an npylstm model; a framework's model is converted first" in stderr


def test_info_commands_work_with_spaces_in_the_path(tmp_path: Path, capsys: Any) -> None:
    source = tmp_path / "its weights.h5"
    source.write_bytes((DATA / "keras20_stacked_weights.h5").read_bytes())
    status, out, _ = run(capsys, "info", source)
    assert status == 0
    (line,) = [line.strip() for line in out.splitlines() if line.strip().startswith("npylstm")]
    words = shlex.split(line.replace("MODEL.npz", str(tmp_path / "m.npz")))
    assert run(capsys, *words[1:], "--record", 0)[0] == 0
    with pytest.raises(npylstm.FormatError, match=r"`npylstm info '.*its weights\.h5'` shows"):
        nc.convert(source)


@pytest.fixture
def lambda_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of Keras 2 whose last layer is code, and the function that replaces it."""
    path = tmp_path / "m.h5"
    path.write_bytes((DATA / "keras22_stacked.h5").read_bytes())
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        layer = {
            "class_name": "Lambda",
            "config": {"name": "my mean", "function": "", "trainable": True},
        }
        config["config"]["layers"].append(layer)
        file.attrs["model_config"] = json.dumps(config)
        weights = file["model_weights"]
        weights.create_group("my mean").attrs["weight_names"] = np.zeros(0, "S1")
        weights.attrs["layer_names"] = [*weights.attrs["layer_names"], b"my mean"]
    code = "class Own:\n    mean = staticmethod(lambda x: x.mean(axis=-1, keepdims=True))\n"
    (tmp_path / "functions_of_mine.py").write_text(code + "number = 3\n")
    monkeypatch.chdir(tmp_path)
    return path


def test_functions_of_the_user(lambda_file: Path, capsys: Any) -> None:
    status, _, stderr = run(capsys, "convert", lambda_file, "m.npz", "--record", 0)
    assert status == 2
    assert "its code is never run" in stderr
    own = shlex.split(stderr.split(" or ")[-1])[1].replace(
        "module:function", "functions_of_mine:Own.mean"
    )
    assert own == "my mean=functions_of_mine:Own.mean"
    assert run(capsys, "convert", lambda_file, "m.npz", "--record", 0, "--custom", own)[0] == 0
    spec = npylstm.io.model_file.read("m.npz")
    np.save("x.npy", np.zeros([d if isinstance(d, int) else 4 for d in spec.inputs[0].shape], "f4"))
    arguments = ["predict", "m.npz", "--input", "x.npy", "-o", "y.npy"]
    status, _, stderr = run(capsys, *arguments)
    assert status == 2
    assert "--custom 'my mean'=module:function" in stderr
    assert run(capsys, *arguments, "--custom", own)[0] == 0
    assert np.load("y.npy").shape == (4, 1)
    for command in ("bench", "warmup"):
        options = ["--seconds", 0.01] if command == "bench" else []
        assert run(capsys, command, "m.npz", *options)[0] == 2
        assert run(capsys, command, "m.npz", *options, "--custom", own)[0] == 0


def test_bench_of_ids(tmp_path: Path, capsys: Any) -> None:
    """Inputs that must be integers are not drawn from a normal distribution."""
    spec = make_chain(Embedding(5, 2), LSTM(2, 3), shape=("batch", "steps"))
    spec = replace(spec, inputs=(replace(spec.inputs[0], integer=True),))
    npylstm.save(spec, tmp_path / "m.npz")
    assert run(capsys, "bench", tmp_path / "m.npz", "--seconds", 0.01)[0] == 0


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("mean", "expected NAME=module:function"),
        ("mean=functions_of_mine", "expected NAME=module:function"),
        ("mean=not_there:f", "ModuleNotFoundError: No module named 'not_there'"),
        ("mean=functions_of_mine:other", "AttributeError"),
        ("mean=functions_of_mine:number", "expected a function, got int"),
    ],
)
def test_functions_that_cannot_be_had(
    option: str, message: str, lambda_file: Path, capsys: Any
) -> None:
    status, _, stderr = run(capsys, "convert", lambda_file, "m.npz", "--custom", option)
    assert status == 2
    assert message in stderr


def test_free_steps(tmp_path: Path, capsys: Any) -> None:
    source = DATA / "keras22_stacked.h5"
    fixed = nc.convert(source)
    assert all(isinstance(d, int) for d in fixed.inputs[0].shape[1:])
    out = tmp_path / "m.npz"
    assert run(capsys, "convert", source, out, "--record", 0, "--free-steps")[0] == 0
    steps, features = fixed.inputs[0].shape[1:]
    x = np.zeros((2, int(steps) + 3, features), "float32")
    assert len(npylstm.load(out).predict(x)) == 2
