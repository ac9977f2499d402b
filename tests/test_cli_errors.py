"""Errors of the command line: one line each, and no file is harmed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import make_chain
from cli_runs import run

import npylstm
from npylstm.activations import Activation
from npylstm.cli import main
from npylstm.ops.cells import LSTM
from npylstm.ops.dense import Dense
from npylstm.spec import Case

ROOT = Path(__file__).parent.parent


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A converted model with a free time axis and a faithful recorded case."""
    spec = make_chain(LSTM(3, 5), Dense(5, 2, Activation("tanh")), name="small")
    x = np.random.default_rng(0).normal(size=(2, 4, 3)).astype("float32")
    y = npylstm.Model(spec, "numpy").predict(x)
    npylstm.save(spec.with_cases([Case({"x": x}, {"layer_1": y})]), tmp_path / "m.npz")
    np.save(tmp_path / "x.npy", x)
    return tmp_path / "m.npz"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bogus"], "invalid choice: 'bogus'"),
        ([], "the following arguments are required: COMMAND"),
        (["predict", "MODEL"], "the following arguments are required: --input"),
        (["predict", "MODEL", "--input", "x.npy", "--threads", "0"], "--threads: expected 1 or more"),
        (["predict", "nowhere.npz", "--input", "x.npy"], "nowhere.npz: No such file or directory"),
        (["predict", "MODEL", "--input", "nowhere.npy"], "nowhere.npy: No such file or directory"),
        (["predict", "MODEL", "--input", "wrong.npy"], r"x: expected (batch, steps, 3), got (2, 4, 7)"),
        (["predict", "MODEL", "--input", "text.csv"], "text.csv: expected rows of numbers with commas"),
        (["predict", "MODEL", "--input", "five.csv"], "5 columns do not fit the input (batch, steps, 3)"),
        (["predict", "MODEL", "--input", "pickle.npy"], "pickle.npy: not a .npy file of numbers"),
        (["predict", "MODEL", "--input", "x.npy", "-o", "y.txt"], "y.txt: expected a .npy, .npz or .csv file"),
        (["predict", "MODEL", "--input", "x.npy", "-o", "no/y.npy"], "no/y.npy: there is no folder no"),
        (["predict", "text.csv", "--input", "x.npy"], "text.csv: not an .npz file"),
        (["verify", "MODEL", "--seed", "3"], "--cases and --seed go with --against"),
        (["verify", "MODEL", "--against", "nowhere.h5"], "nowhere.h5: No such file or directory"),
        (["trace", "MODEL", "--input", "x.npy", "-o", "g.gif"], "g.gif: expected a picture ending in .png"),
        (["trace", "MODEL", "--input", "x.npy", "-o", "g.png", "--sample", "9"], "--sample: expected less than 2, got 9"),
        (["convert", "text.csv", "o.npz"], "text.csv: no importer knows this kind of source; known are: "),
        (["convert", "empty.h5", "o.npz"], "empty.h5: is empty"),
        (["convert", "MODEL", "o.npz"], "m.npz: is a model of npylstm already"),
        (["info", "text.csv"], "no importer knows this kind of source"),
        ([], "npylstm: error: the following"),
        (["predict", "MODEL", "--input", "x\0.npy"], "must not contain the character NUL"),
        (["predict", "MODEL", "--input", "x.npy", "-o", ""], "expected the name of a file to write"),
        (["verify", "MODEL", "--plot", ""], "expected the name of a file to write"),
        (["verify", "MODEL", "--html", ""], "expected the name of a file to write"),
        (["verify", "MODEL", "--against", "nowhere.h5", "--seed", "-1"], "--seed: expected 0 or more, got -1"),
        (["verify", "MODEL", "--against", "nowhere.h5", "--cases", "0"], "--cases: expected 1 or more, got 0"),
        (["verify", "MODEL", "--layers", "a -> b"], "--layers: goes with --against SOURCE"),
        (["info", "MODEL", "--layers", "a -> b"], "--layers: goes with a source; "),
        (["info", "MODEL", "--set", "a=1"], "--set: goes with a source; "),
        (["info", "MODEL", "--custom", "zzz"], "--custom: goes with a source; "),
        (["info", "MODEL", "--proof", "--key", "zzz"], "--key: goes with a source; "),
        (["diagnose", "MODEL", "--input", "x.npy", "--output", "five.csv"], "5 columns do not fit the output (batch, 2)"),
        (["bench", "MODEL", "--batch", "100000000000"], "there is not enough memory: Unable to allocate"),
        (["bench", "MODEL", "--batch", "9" * 30], "is larger than any array; give a smaller --batch"),
        (["bench", "MODEL", "--seconds", "inf"], "--seconds: expected 0 or more, got inf"),
        (["bench", "MODEL", "--calls", "9"], "--calls: goes with --stream"),
        (["bench", "MODEL", "--stream", "--seconds", "1"], "--seconds: goes with whole calls, not with --stream"),
        (["bench", "MODEL", "--stream", "--steps", "5"], "--steps: goes with whole calls, not with --stream"),
    ],
)  # fmt: skip
def test_errors_are_one_line(
    arguments: list[str], message: str, model: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model.parent)
    np.save("wrong.npy", np.zeros((2, 4, 7)))
    np.save("pickle.npy", np.array([{}], object), allow_pickle=True)
    Path("text.csv").write_text("a,b\nc,d\n")
    Path("five.csv").write_text("1,2,3,4,5\n")
    Path("empty.h5").write_bytes(b"")
    before = sorted(p.name for p in Path().iterdir())
    status, stdout, stderr = run(capsys, *[str(model) if a == "MODEL" else a for a in arguments])
    assert status == 2
    assert stdout == ""
    assert message in stderr
    assert stderr.count("\n") == 1
    assert sorted(p.name for p in Path().iterdir()) == before


@pytest.mark.parametrize("command", ["predict", "trace"])
@pytest.mark.parametrize("target", ["model", "input", "other model", "no folder"])
def test_outputs_never_replace_what_is_read_or_a_model(
    command: str, target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, other, x = tmp_path / "m.npz", tmp_path / "other.npz", tmp_path / "x.npz"
    shutil.copy(ROOT / "models/sine_keras/sine.npz", model)
    shutil.copy(model, other)
    np.savez(x, np.zeros((2, 5, 1), "f4"))
    paths = {"model": model, "input": x, "other model": other, "no folder": tmp_path / "no/y.npz"}
    before = {path: path.read_bytes() for path in (model, other, x)}
    status = main([command, str(model), "--input", str(x), "-o", str(paths[target])])
    assert status == 2
    said = capsys.readouterr().err
    assert "would be lost" in said or "there is no folder" in said
    assert all(path.read_bytes() == data for path, data in before.items())


def test_a_page_is_refused_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(ROOT / "models/sine_keras/sine.npz")
    for page in ("report.txt", "no/report.html"):
        assert main(["verify", model, "--html", str(tmp_path / page)]) == 2
        said = capsys.readouterr()
        assert not said.out
        assert str(tmp_path / page) in said.err


def test_a_missing_input_is_said_to_be_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(ROOT / "models/sine_keras/sine.npz")
    assert main(["predict", model, "--input", str(tmp_path / "nothing")]) == 2
    assert "nothing: No such file" in capsys.readouterr().err
    (tmp_path / "x.npy").write_bytes((b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 5, 1), }").ljust(128))  # fmt: skip
    assert main(["predict", model, "--input", str(tmp_path / "x.npy")]) == 2
    assert "the file holds 0" in capsys.readouterr().err


@pytest.mark.parametrize("output", [None, "y.csv", "y.npy"])
def test_no_samples_give_no_rows(
    output: str | None, model: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model.parent)
    np.save("none.npy", np.zeros((0, 4, 3)))
    options = [] if output is None else ["-o", output]
    status, stdout, stderr = run(capsys, "predict", model, "--input", "none.npy", *options)
    assert (status, stderr) == (0, "")
    if output is None:
        assert stdout == ""
    elif output == "y.csv":
        assert Path(output).read_text() == ""
    else:
        assert np.load(output).shape == (0, 2)


def test_json_has_no_nan(model: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model.parent)
    np.save("nan.npy", np.full((1, 1, 3), np.nan))

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    stdout = run(capsys, "predict", model, "--input", "nan.npy", "--json")[1]
    document = json.loads(stdout, parse_constant=refuse)
    assert document["values"] == {"layer_1": [[None, None]]}
