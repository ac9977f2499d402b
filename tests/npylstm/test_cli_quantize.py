"""``npylstm quantize``, and what other commands print of a quantized model."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from builders import make_chain

import npylstm
from npylstm.cli import main
from npylstm.ops.cells import LSTM

SINE = "models/sine_keras/sine.npz"


def test_the_command(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = str(root / SINE), str(tmp_path / "small.npz")
    assert main(["quantize", source, target, "--keep", "dense"]) == 0
    printed = capsys.readouterr().out
    for text in ("lstm", "int8", "float32", "relative rms", "budget"):
        assert text in printed
    assert main(["verify", target]) == 0
    assert "within its budget" in capsys.readouterr().out
    assert main(["quantize", source, target, "--type", "bfloat16", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["type"], found["output"], found["cases"]) == ("bfloat16", target, 8)
    assert main(["info", target]) == 0
    printed = capsys.readouterr().out
    for text in ("type", "bytes", "bfloat16", "relative rms"):
        assert text in printed
    assert main(["info", target, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["quantization"]["type"] == "bfloat16"


def test_the_command_replaces_nothing(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, other = str(root / SINE), tmp_path / "notes.txt"
    other.write_text("mine")
    for target, message in (
        (source, "is the model itself, which would be lost"),
        (str(other), "exists and is no npylstm model"),
        (str(tmp_path), "is a folder"),
        (str(tmp_path / "a" / "b.npz"), "there is no folder"),
    ):
        assert main(["quantize", source, target]) == 2
        assert message in capsys.readouterr().err
    assert other.read_text() == "mine"
    assert main(["quantize", source, str(tmp_path / "x.npz"), "--layers", "gru"]) == 2
    assert "no layer with matrices is named 'gru'" in capsys.readouterr().err
    assert not (tmp_path / "x.npz").exists()


def test_the_command_says_that_nothing_was_measured(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    npylstm.save(make_chain(LSTM(features=3, units=4)), tmp_path / "a.npz")
    assert main(["quantize", str(tmp_path / "a.npz"), str(tmp_path / "b.npz")]) == 0
    assert "holds no recorded cases, so what it costs is not measured" in capsys.readouterr().err


def quantized_file(tmp_path: Path) -> str:
    target = tmp_path / "small.npz"
    npylstm.load(SINE).quantize("int8").save(target)
    return str(target)


def test_the_proof_does_not_say_that_rounding_explains_the_differences(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = quantized_file(tmp_path)
    assert main(["info", target, "--proof", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    (sentence,) = document["proven"]
    assert "within its budget, not within rounding" in sentence
    assert all(case["passed"] and 0 < float(case["used"]) < 1 for case in document["cases"])
    assert main(["info", target, "--proof"]) == 0
    printed = capsys.readouterr().out
    assert "FAILED" not in printed
    assert "weights      40,901 of int8 and float32" in printed


def test_anybody_can_take_the_hash_of_quantized_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As docs/proof.md describes it, of the arrays in the file."""
    target = quantized_file(tmp_path)
    assert main(["info", target, "--proof", "--json"]) == 0
    digest = hashlib.sha256()
    with np.load(target) as arrays:
        for key in sorted(arrays.files):
            if not key.startswith(("npylstm/", "case/")):
                array = arrays[key]
                digest.update(f"{key} {array.dtype.str} {array.shape}\n".encode())
                digest.update(array.tobytes())
    document = json.loads(capsys.readouterr().out)
    assert document["model"]["weights_sha256"] == digest.hexdigest()


def test_the_page_of_a_model_within_its_budget_shows_no_failure(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    npylstm.load(quantized_file(tmp_path)).verify().to_html(page)
    text = page.read_text()
    assert "&nbsp;failed" not in text  # as a verdict; drawings mark what rounding does not explain
    assert "Rounding explains up to" not in text
    assert "Budget" in text


def test_the_verdict_keeps_what_is_assumed(tmp_path: Path) -> None:
    """Within its budget, the structure of the model may still be a guess."""
    spec = npylstm.load(SINE).spec
    provenance = {**spec.provenance, "proof": "assumed", "stated": ["the activation is tanh"]}
    model = npylstm.Model(dataclasses.replace(spec, provenance=provenance)).quantize("int8")
    verdict = model.verify().verdict
    assert "within its budget" in verdict
    assert "not proven: the activation is tanh" in verdict
