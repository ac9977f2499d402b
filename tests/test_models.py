"""The bundled models: they hold parity, belong to their sources, and have what a card promises."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import npylstm_converters as nc
import numpy as np
import pytest

import npylstm

MODELS = Path(__file__).parent.parent / "models"
BUNDLED = {"sine_keras": "sine", "damped_sine_keras": "damped_sine"}


@pytest.mark.parametrize("folder", BUNDLED)
def test_recorded_parity_holds(folder: str, backend: str) -> None:
    model = npylstm.load(MODELS / folder / f"{BUNDLED[folder]}.npz", backend)
    report = model.verify()
    report.check()
    assert report.cases == 8
    for output in report.outputs:
        assert output.npylstm_rms_error <= 1.5 * output.framework_rms_error


@pytest.mark.parametrize("folder", BUNDLED)
def test_the_npz_is_what_the_source_converts_to(folder: str) -> None:
    name = BUNDLED[folder]
    spec, kept = (
        nc.convert(MODELS / folder / f"{name}.keras"),
        npylstm.load(MODELS / folder / f"{name}.npz", "numpy").spec,
    )
    assert spec.provenance["source_sha256"] == kept.provenance["source_sha256"]
    for layer in spec.layers:
        for key, array in layer.weights.items():
            np.testing.assert_array_equal(kept[layer.name].weights[key], array)


@pytest.mark.parametrize("folder", BUNDLED)
def test_the_card_is_complete(folder: str) -> None:
    card = (MODELS / folder / "README.md").read_text(encoding="utf-8")
    assert "held" in card
    assert "FAILED" not in card
    for name in ("train.py", "README.md", f"{BUNDLED[folder]}.keras", "prediction.png"):
        assert (MODELS / folder / name).exists()


def test_the_damped_sine_model_has_the_parameters_of_the_article() -> None:
    assert npylstm.load(MODELS / "damped_sine_keras" / "damped_sine.npz").spec.parameters == 5145


def test_the_demo_runs_without_a_framework(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, MODELS / "sine_keras" / "demo.py", tmp_path],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "parity held" in result.stdout
    assert "frameworks imported: none" in result.stdout
    for picture in ("prediction.png", "time_steps.png"):
        assert (tmp_path / picture).stat().st_size > 20_000
