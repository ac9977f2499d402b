"""The page that somebody files: hashes anybody can check, grounds kept apart, verdict of now."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import make_chain

import npylstm
from npylstm import Model, ModelSpec
from npylstm.cli import main
from npylstm.environment import cpu_level, environment
from npylstm.native.levels import LEVELS
from npylstm.ops.cells import LSTM
from npylstm.ops.dense import Dense
from npylstm.spec import Case


def recorded(**provenance: Any) -> ModelSpec:
    spec = make_chain(LSTM(3, 5), Dense(5, 2), name="small", provenance=provenance)
    oracle, cases = Model(spec.astype("float64"), "numpy"), []
    for steps, purpose in ((1, "one step"), (40, "")):
        x = np.random.default_rng(steps).normal(size=(2, steps, 3)).astype("float32")
        cases.append(Case({"x": x}, {"layer_1": oracle.predict(x).astype("f4")}, purpose=purpose))
    return spec.with_cases(cases)


def run(capsys: Any, *arguments: Any) -> tuple[int, str, str]:
    status = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def section(text: str, title: str) -> list[str]:
    """Lines under a heading."""
    (found,) = [b for b in text.split("\n\n") if b.splitlines()[0] == title]
    return [line.strip() for line in found.splitlines()[1:]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    spec = recorded(
        framework="Keras", framework_version="3.15.0", recorded_by="keras 3.15.0",
        source_format="Keras archive", source_sha256="ab" * 32, proof="proven",
    )  # fmt: skip
    npylstm.save(spec, tmp_path / "small.npz")
    return tmp_path / "small.npz"


def test_the_page(path: Path, capsys: Any) -> None:
    status, text, errors = run(capsys, "info", path, "--proof")
    assert (status, errors) == (0, "")
    assert max(map(len, text.splitlines())) <= 80
    engine = npylstm.load(path).backend
    verdict = f"Parity held: 2 recorded cases against keras 3.15.0, {engine} back end"
    assert section(text, "VERDICT") == [verdict]
    assert f"sha256       {hashlib.sha256(path.read_bytes()).hexdigest()}" in section(text, "MODEL")
    assert f"sha256       {'ab' * 32}" in section(text, "SOURCE")
    proven = " ".join(section(text, "PROVEN"))
    assert "gives the recorded outputs within rounding, on this machine: 2 recorded cases" in proven
    assert "The structure of the model comes from its source" in proven
    assert section(text, "STATED") == section(text, "ASSUMED") == ["nothing"]
    assert section(text, "OUTPUTS")[2].split()[:2] == ["layer_1", "held"]
    first, second = section(text, "CASES, REPLAYED NOW")[2:4]
    assert first.startswith("0  one step  x (2, 1, 3)")
    assert second.startswith("1  –         x (2, 40, 3)")
    machine = section(text, "MACHINE")
    assert f"engine       {engine}" in machine
    assert f"CPU level    {cpu_level()}" in machine
    assert f"NumPy        {np.__version__}" in machine


def test_anybody_can_take_the_hash_of_the_weights(path: Path, capsys: Any) -> None:
    document = json.loads(run(capsys, "info", path, "--proof", "--json")[1])
    digest = hashlib.sha256()
    with np.load(path, allow_pickle=False) as arrays:
        for key in sorted(arrays.files):
            if not key.startswith(("npylstm/", "case/")):
                array = arrays[key]
                digest.update(f"{key} {array.dtype.str} {array.shape}\n".encode())
                digest.update(array.tobytes())
    assert document["model"]["weights_sha256"] == digest.hexdigest()
    # Cases and provenance do not change it; one bit of one weight does.
    spec = npylstm.load(path).spec
    other = path.with_name("other.npz")
    npylstm.save(replace(spec, cases=spec.cases[:1], provenance={"framework": "x"}), other)
    assert npylstm.load(other).spec.layers[0].weights["W_i"].shape == (3, 5)
    again = json.loads(run(capsys, "info", other, "--proof", "--json")[1])
    assert again["model"]["weights_sha256"] == digest.hexdigest()
    assert again["model"]["sha256"] != document["model"]["sha256"]
    layer = spec.layers[1]
    bias = layer.weights["bias"].copy()
    bias[0] = np.nextafter(bias[0], np.float32(9))
    changed = replace(layer, weights={**layer.weights, "bias": bias})
    npylstm.save(replace(spec, layers=(spec.layers[0], changed)), other)
    again = json.loads(run(capsys, "info", other, "--proof", "--json")[1])
    assert again["model"]["weights_sha256"] != digest.hexdigest()


def test_what_was_stated_is_not_said_to_be_proven(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "m.npz"
    said = ["rnn -> last -> fc", "no activation\u202e between fc1 and fc2 " + "x" * 200, 7]
    for proof, title, other in (("stated", "STATED", "ASSUMED"), ("assumed", "ASSUMED", "STATED")):
        npylstm.save(recorded(proof=proof, stated=said), path)
        status, text, _ = run(capsys, "info", path, "--proof")
        assert status == 0
        assert max(map(len, text.splitlines())) <= 80
        assert section(text, title)[0] == "rnn -> last -> fc"
        assert r"\u202e" in section(text, title)[1]
        assert section(text, other) == ["nothing"]
        assert "structure" not in " ".join(section(text, "PROVEN"))
        document = json.loads(run(capsys, "info", path, "--proof", "--json")[1])
        assert document["proof"] == proof
        assert document[proof] == said[:2]


def test_an_old_file_does_not_say_what_it_rests_on(tmp_path: Path, capsys: Any) -> None:
    npylstm.save(recorded(), tmp_path / "m.npz")
    status, text, _ = run(capsys, "info", tmp_path / "m.npz", "--proof")
    assert status == 0
    assert "The file does not state what its structure is based on" in section(text, "ASSUMED")[0]
    assert "structure" not in " ".join(section(text, "PROVEN"))
    assert "sha256       not recorded" in section(text, "SOURCE")


def test_the_verdict_is_of_now(path: Path, capsys: Any) -> None:
    spec = npylstm.load(path).spec
    lstm = spec.layers[0]
    weights = {**lstm.weights, "U_i": lstm.weights["U_f"]}
    npylstm.save(replace(spec, layers=(replace(lstm, weights=weights), spec.layers[1])), path)
    status, text, _ = run(capsys, "info", path, "--proof")
    assert status == 1
    assert "Parity FAILED: output 'layer_1' differs by" in section(text, "VERDICT")[0]
    assert section(text, "OUTPUTS")[2].split()[:2] == ["layer_1", "FAILED"]
    assert "npylstm gives" not in " ".join(section(text, "PROVEN"))


def test_what_cannot_be_proven(tmp_path: Path, capsys: Any, root: Path) -> None:
    npylstm.save(recorded().with_cases(()), tmp_path / "m.npz")
    status, text, errors = run(capsys, "info", tmp_path / "m.npz", "--proof")
    assert (status, text) == (2, "")
    assert "holds no recorded cases" in errors
    source = root / "models" / "sine_keras" / "sine.keras"
    status, text, errors = run(capsys, "info", source, "--proof")
    assert (status, text) == (2, "")
    assert f"first run `npylstm convert {source} MODEL.npz`" in errors


def test_commands_write_the_page(path: Path, tmp_path: Path, capsys: Any) -> None:
    page = tmp_path / "report.html"
    status, text, errors = run(capsys, "verify", path, "--html", page)
    assert (status, errors) == (0, "")
    assert "parity held" in text
    assert "<h1>" in page.read_text(encoding="utf-8")
    case = npylstm.load(path).spec.cases[1]
    np.save(tmp_path / "x.npy", case.inputs["x"])
    np.save(tmp_path / "y.npy", 2 * case.outputs["layer_1"])
    arguments = ("--input", tmp_path / "x.npy", "--output", tmp_path / "y.npy", "--html", page)
    assert run(capsys, "diagnose", path, *arguments)[0] == 1
    assert "What explains the difference" in page.read_text(encoding="utf-8")
    status, _, errors = run(capsys, "verify", path, "--html", path)
    assert status == 2
    assert "expected a page ending in .html" in errors
    assert npylstm.load(path).verify().passed  # the model has not been overwritten


def test_the_documentation(root: Path, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    """Its snippets run, its commands work, and the hash taken by hand is the one printed."""
    text = (root / "docs" / "report.md").read_text(encoding="utf-8")
    (tmp_path / "models").symlink_to(root / "models")
    monkeypatch.chdir(tmp_path)
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(code, {})
    assert Path("diagnosis.html").stat().st_size > 10_000
    taken = capsys.readouterr().out.strip()
    first, second = re.findall(r"```sh\nnpylstm (.*?)\n```", text)
    Path("report.html").unlink()
    assert run(capsys, *first.split())[0] == 0
    assert Path("report.html").stat().st_size > 10_000
    status, printed, _ = run(capsys, *second.split())
    assert status == 0
    assert len(taken) == 64
    assert taken in printed


def test_the_level_of_a_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    from npylstm import environment as module

    assert environment()["CPU level"] == cpu_level() != ""
    for machine, features, level in (
        ("x86_64", "SSE SSE2", "x86-64"),
        ("AMD64", " ".join(LEVELS[2].features), "x86-64-v3"),
        ("x86_64", " ".join(LEVELS[0].features), "x86-64-v4"),
        ("x86_64", " ".join(LEVELS[3].features), "x86-64-v2"),
        ("aarch64", "NEON ASIMD", "aarch64 ASIMD"),
        ("arm64", "ASIMD SVE", "arm64 SVE"),
        ("riscv64", "", "riscv64"),
    ):
        monkeypatch.setattr(module.platform, "machine", lambda m=machine: m)
        monkeypatch.setattr(module, "cpu_features", lambda f=features: frozenset(f.split()))
        assert cpu_level() == level
