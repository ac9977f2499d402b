"""TensorFlow.js records cases of its own models, where Node and the package are at hand."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest
from npylstm_converters.tfjs.runner import TfjsRunner

from npylstm import Model, NpylstmError
from npylstm.cli import main

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests/data/tfjs/4.22.0"
PACKAGES = ROOT / "tests/tfjs/node_modules"
HAS_NODE = bool(shutil.which("node")) and (PACKAGES / "@tensorflow/tfjs").is_dir()
needs_node = pytest.mark.skipif(not HAS_NODE, reason="needs Node: npm install in tests/tfjs")
SAMPLE = (
    "lstm",
    "gru",
    "two_inputs",
    "embedding",
    "bidirectional",
    "shared",
    "seq2seq",
    "stateful",
)


@pytest.fixture(autouse=True)
def packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODE_PATH", str(PACKAGES))


@needs_node
@pytest.mark.parametrize("name", SAMPLE)
def test_all_cases_are_recorded_and_hold(name: str) -> None:
    source = DATA / name / "model.json"
    spec = nc.from_tfjs(source)
    recorded = nc.record(spec, TfjsRunner(source, spec), budget=math.inf)
    assert len(recorded.cases) >= 8
    assert recorded.provenance["recorded_by"] == "tfjs 4.22.0"
    assert "not_recorded" not in recorded.provenance
    Model(recorded, "numpy").verify().check()


@needs_node
def test_the_command_line_records(tmp_path: Path, capsys: Any) -> None:
    target = tmp_path / "m.npz"
    assert main(["convert", str(DATA / "gru"), str(target)]) == 0
    said = capsys.readouterr()
    assert "recorded cases against tfjs 4.22.0" in said.out
    assert "warning" not in said.err
    assert main(["verify", str(target), "--against", str(DATA / "gru"), "--seed", "5"]) == 0


@needs_node
def test_every_call_begins_at_zero() -> None:
    source = DATA / "gru"
    spec = nc.from_tfjs(source)
    runner = TfjsRunner(source, spec)
    x = {t.name: np.ones([3 if d == "batch" else 5 if isinstance(d, str) else d for d in t.shape], "f4") for t in spec.inputs}  # fmt: skip
    first, again = runner(x, {}), runner(x, {})
    for name, y in first.items():
        np.testing.assert_array_equal(y, again[name])
        assert np.abs(y - Model(spec, "numpy").predict(x)).max() < 1e-5
        assert np.abs(y).max() > 1e-3


@needs_node
def test_what_it_cannot_run_is_said(tmp_path: Path) -> None:
    source = DATA / "lstm"
    spec = nc.from_tfjs(source)
    runner = TfjsRunner(source, spec)
    with pytest.raises(NpylstmError, match="starts from zero states only"):
        runner({}, {"lstm": {}})
    wrong = {t.name: np.ones((2, 3, 99), "f4") for t in spec.inputs}
    with pytest.raises(NpylstmError, match=r"TensorFlow\.js cannot run the model: "):
        runner(wrong, {})
    broken = tmp_path / "model.json"
    document = json.loads((source / "model.json").read_text())
    broken.write_text(json.dumps({**document, "weightsManifest": []}))
    with pytest.raises(NpylstmError, match=r"TensorFlow\.js cannot run the model: "):
        TfjsRunner(broken, spec)


@pytest.mark.parametrize("missing", ["node", "package"])
def test_what_is_missing_is_named(
    missing: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    if missing == "node":
        monkeypatch.setenv("PATH", str(tmp_path))
    elif not HAS_NODE:
        pytest.skip("needs Node")
    monkeypatch.setenv("NODE_PATH", str(tmp_path))
    target = tmp_path / "m.npz"
    assert main(["convert", str(DATA / "gru"), str(target)]) == 0
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert "no cases recorded: TensorFlow.js" in said.err
    assert "NODE_PATH" in said.err
    assert main(["verify", str(target)]) == 2
