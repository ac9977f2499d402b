"""The command line converts files of frameworks, and compares with what they compute."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from cli_runs import run
from npylstm_converters.keras.runner import KerasRunner

import npylstm

DATA = Path(__file__).parent / "data" / "keras"


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
