"""The command line: results, exit statuses, one line for each error."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from backends import COMPILED
from builders import make_chain
from npylstm_converters.keras.runner import KerasRunner

import npylstm
from npylstm.activations import Activation
from npylstm.cli import main
from npylstm.ops.cells import LSTM
from npylstm.ops.dense import Dense
from npylstm.spec import Case

ROOT = Path(__file__).parent.parent

DATA = Path(__file__).parent / "data" / "keras"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A converted model with a free time axis and a faithful recorded case."""
    spec = make_chain(LSTM(3, 5), Dense(5, 2, Activation("tanh")), name="small")
    x = np.random.default_rng(0).normal(size=(2, 4, 3)).astype("float32")
    y = npylstm.Model(spec, "numpy").predict(x)
    npylstm.save(spec.with_cases([Case({"x": x}, {"layer_1": y})]), tmp_path / "m.npz")
    np.save(tmp_path / "x.npy", x)
    return tmp_path / "m.npz"


def run(capsys: Any, *arguments: Any) -> tuple[int, str, str]:
    try:
        status = main([str(a) for a in arguments])
    except SystemExit as exit_:
        status = int(exit_.code or 0)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_convert_and_info(tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "m.npz"
    status, stdout, stderr = run(capsys, "convert", DATA / "tf24_functional.h5", out, "--record", 0)
    assert (status, stderr) == (0, "")
    first, *ledger = stdout.splitlines()
    parameters = npylstm.load(out).spec.parameters
    assert first == f"{out}: 5 layers, {parameters} parameters, 0 recorded cases"
    assert ledger[0].split("  ")[0] == "tensor of the source"
    status, stdout, _ = run(capsys, "info", out)
    assert status == 0
    assert "go_backwards" in stdout
    assert "framework_version: 2.4.0" in stdout
    assert (
        run(capsys, "info", DATA / "tf24_functional.h5")[1].splitlines()[:4]
        == stdout.splitlines()[:4]
    )
    document = json.loads(run(capsys, "info", out, "--json")[1])
    assert document["format_version"] == 2
    assert document["weights"][document["layers"][0]["name"] + "/W_i"] == [3, 6]


def test_convert_weights_with_an_architecture(tmp_path: Path, capsys: Any) -> None:
    arguments = ["convert", DATA / "keras22_stacked_weights.h5", tmp_path / "m.npz", "--record", 0]
    assert run(capsys, *arguments, "--architecture", DATA / "keras22_stacked.json")[0] == 0
    status, _, stderr = run(capsys, *arguments)
    assert status == 2
    assert "--architecture model.json" in stderr


@pytest.fixture(scope="module")
def keras_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((None, 3)),
        keras.layers.LSTM(6, return_sequences=True),
        keras.layers.Dense(2),
    ]
    path = tmp_path_factory.mktemp("keras") / "m.keras"
    keras.Sequential(layers).save(path)
    return path


def test_convert_records_with_the_framework(keras_file: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "m.npz"
    status, stdout, stderr = run(capsys, "convert", keras_file, out)
    assert status == 0
    assert "10 recorded cases" in stdout
    assert f"parity held: 10 recorded cases against keras {keras.__version__}" in stdout
    assert stderr == ""
    cases = npylstm.load(out).spec.cases
    inputs = [next(iter(case.inputs.values())) for case in cases]
    sizes = {x.shape[:2] for x in inputs}
    assert {1} < {batch for batch, _ in sizes}
    assert {steps for _, steps in sizes} >= {1, 60}
    assert any(case.state for case in cases)
    assert any(not x.any() for x in inputs)
    assert any(np.abs(x).max() > 50 for x in inputs)
    assert run(capsys, "verify", out)[0] == 0
    assert run(capsys, "convert", keras_file, out, "--record", 3, "--json")[0] == 0
    assert len(npylstm.load(out).spec.cases) == 3


def test_verify_against_the_source(keras_file: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "m.npz"
    run(capsys, "convert", keras_file, out, "--record", 0)
    status, stdout, _ = run(capsys, "verify", out, "--against", keras_file, "--seed", 5, "--cases", 4,
                            "--plot", tmp_path / "p.png")  # fmt: skip
    assert status == 0
    assert f"4 recorded cases against keras {keras.__version__}, seed 5" in stdout
    assert (tmp_path / "p.png").stat().st_size > 10_000
    spec = npylstm.load(out).spec
    layer = spec.layers[0]
    swapped = {**layer.weights, "W_i": layer.weights["W_f"], "W_f": layer.weights["W_i"]}
    wrong = npylstm.spec.LayerSpec(layer.name, layer.layer, swapped)
    npylstm.save(
        npylstm.ModelSpec((wrong, *spec.layers[1:]), spec.edges, spec.inputs, spec.outputs), out
    )
    status, stdout, _ = run(capsys, "verify", out, "--against", keras_file)
    assert status == 1
    assert "parity FAILED" in stdout


def test_convert_says_when_parity_fails(
    keras_file: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = KerasRunner.__call__

    def wrong(self: KerasRunner, inputs: Any, state: Any, **more: Any) -> dict[str, Any]:
        return {name: y + 0.5 for name, y in honest(self, inputs, state, **more).items()}

    monkeypatch.setattr(KerasRunner, "__call__", wrong)
    out = tmp_path / "m.npz"
    status, stdout, stderr = run(capsys, "convert", keras_file, out)
    assert (status, stderr) == (1, "")
    assert "parity FAILED" in stdout
    status, stdout, _ = run(capsys, "convert", keras_file, out, "--json")
    assert status == 1
    assert json.loads(stdout)["parity"]["passed"] is False


def test_convert_keeps_no_cases_that_cannot_be_replayed(
    keras_file: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def verify(self: npylstm.Model) -> None:
        raise npylstm.ShapeError("id 0.5: expected whole numbers")

    monkeypatch.setattr(npylstm.Model, "verify", verify)
    out = tmp_path / "m.npz"
    status, stdout, stderr = run(capsys, "convert", keras_file, out)
    assert status == 0
    assert "0 recorded cases" in stdout
    assert "no cases recorded: id 0.5" in stderr
    assert npylstm.load(out).spec.cases == ()


def test_a_source_that_cannot_be_run_is_converted_with_a_warning(
    tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "m.npz"
    status, stdout, stderr = run(capsys, "convert", DATA / "keras1_stacked.h5", out)
    assert status == 0
    assert "0 recorded cases" in stdout
    assert stderr.startswith(
        "npylstm: warning: no cases recorded: no installed Keras runs models of Keras 1"
    )
    status, _, stderr = run(
        capsys, "convert", DATA / "keras1_stacked.h5", tmp_path / "n.npz", "--record", 4
    )
    assert status == 0
    assert "no cases recorded" in stderr
    assert (tmp_path / "n.npz").exists()


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
    assert f"back end here: {COMPILED} (" in run(capsys, "info", model)[1]
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


def test_warmup(model: Path, capsys: Any) -> None:
    status, stdout, _ = run(capsys, "warmup", model, model)
    assert status == 0
    assert stdout.count(model.name) == 2
    document = json.loads(run(capsys, "warmup", model, "--json")[1])
    assert document["models"][0]["backend"] == COMPILED
    assert document["models"][0]["seconds"] >= 0
    assert (document["cache"] is None) == (COMPILED == "native")


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


def test_a_conversion_never_harms_its_source(keras_file: Path, tmp_path: Path, capsys: Any) -> None:
    before = keras_file.read_bytes()
    links = [tmp_path / "hard.npz", tmp_path / "soft.npz"]
    os.link(keras_file, links[0])
    links[1].symlink_to(keras_file)
    for target in (keras_file, keras_file.parent / "." / keras_file.name, *links):
        for force in ((), ("--force",)):
            status, _, stderr = run(capsys, "convert", keras_file, target, *force)
            assert status == 2
            assert "is the source itself" in stderr
    shard, arrays = tmp_path / "w.bin", tmp_path / "x.npy"
    shard.write_bytes(b"\0" * 16)
    np.save(arrays, np.zeros((2, 5, 3)))
    manifest = [{"paths": ["w.bin"], "weights": []}]
    document = {"modelTopology": {}, "weightsManifest": manifest}
    (tmp_path / "model.json").write_text(json.dumps(document))
    for source, target, more in (
        (tmp_path / "model.json", shard, ()),
        (keras_file, arrays, ("--check-input", arrays, "--check-output", arrays)),
    ):
        kept = target.read_bytes()
        status, _, stderr = run(capsys, "convert", source, target, *more, "--force")
        assert status == 2
        assert "would be lost" in stderr
        assert target.read_bytes() == kept
    other = tmp_path / "other.keras"
    other.write_bytes(before)
    status, _, stderr = run(capsys, "convert", keras_file, other, "--record", 0)
    assert status == 2
    assert "exists and is no npylstm model" in stderr
    assert other.read_bytes() == keras_file.read_bytes() == before
    assert run(capsys, "convert", keras_file, other, "--record", 0, "--force")[0] == 0
    assert run(capsys, "convert", keras_file, other, "--record", 0)[0] == 0  # one of ours by now


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


@pytest.mark.parametrize(
    ("target", "said"), [
        ("", "expected the name of a file to write, got an empty one"),
        ("no/m.npz", "no/m.npz: there is no folder no"),
        (".", ".: is a folder; give the name of the .npz to write"),
    ],
)  # fmt: skip
def test_a_conversion_needs_a_file_to_write(
    target: str, said: str, keras_file: Path, tmp_path: Path, capsys: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    status, _, stderr = run(capsys, "convert", keras_file, target, "--force", "--record", 0)
    assert (status, stderr) == (2, f"npylstm: error: {said}\n")


def test_the_source_of_another_model(keras_file: Path, tmp_path: Path, capsys: Any) -> None:
    def saved(name: str, *inputs: tuple[int, ...], outputs: int = 1) -> Path:
        tensors = [keras.Input(shape) for shape in inputs]
        flat = [keras.layers.Flatten()(x) for x in tensors]
        y = [keras.layers.Dense(2)(flat[0]) for _ in range(outputs)]
        keras.Model(tensors, y).save(tmp_path / name)
        return tmp_path / name

    out = tmp_path / "m.npz"
    assert run(capsys, "convert", keras_file, out, "--record", 0)[0] == 0
    for other, said in (
        (saved("rank.keras", (3,)), "it has inputs of the shapes (?, 3), expected those of"),
        (saved("count.keras", (4, 3), (4, 3)), "it has inputs of the shapes (?, 4, 3), (?, 4, 3)"),
        (saved("outputs.keras", (4, 3), outputs=2), "it has 2 outputs, expected 1: dense"),
    ):
        status, _, stderr = run(capsys, "verify", out, "--against", other, "--cases", 1)
        assert status == 2
        assert f"the source is of another model: {said}" in stderr
        assert stderr.count("\n") == 1
