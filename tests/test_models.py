"""The bundled models: they hold parity, belong to their sources, and have what a card promises."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest
import torch

import npylstm

MODELS = Path(__file__).parent.parent / "models"
BUNDLED = {
    "sine_keras": "sine",
    "damped_sine_keras": "damped_sine",
    "sine_torch": "sine",
    "damped_sine_torch": "damped_sine",
    "seq2seq_sin_cos_keras": "seq2seq",
    "stateful_sine_tfjs": "sine",
}
# What each folder holds beside its card and the npz.
PARTS = {
    "sine_keras": ("train.py", "sine.keras", "prediction.png"),
    "damped_sine_keras": ("train.py", "damped_sine.keras", "prediction.png"),
    "sine_torch": ("train.py", "sine.pt2", "prediction.png"),
    "damped_sine_torch": ("train.py", "damped_sine.pt2", "prediction.png"),
    "seq2seq_sin_cos_keras": (
        "train.py", "seq2seq.keras", "encoder.npz", "decoder.npz", "translation.png"
    ),
    "stateful_sine_tfjs": (
        "train.js", "convert.py", "model.json", "model.weights.bin", "forecast.png",
        "one_by_one.png",
    ),
}  # fmt: skip
# How the modules of the PyTorch models are joined, and whether the batch comes first.
CHAINS: dict[str, dict[str, Any]] = {
    "sine_torch": {"layers": "rnn -> last -> output_layer", "batch_first": True},
    "damped_sine_torch": {"layers": "lstm -> out", "batch_first": False},
}
FORMS = ("{}.pt", "{}_legacy.pt", "{}.safetensors")


@pytest.mark.parametrize("folder", BUNDLED)
def test_recorded_parity_holds(folder: str, backend: str) -> None:
    model = npylstm.load(MODELS / folder / f"{BUNDLED[folder]}.npz", backend)
    report = model.verify()
    report.check()
    assert report.cases == (4 if "tfjs" in folder else 8)
    for output in report.outputs:
        assert output.npylstm_to_float64 <= 1.5 * output.framework_to_float64


@pytest.mark.parametrize("folder", [name for name in BUNDLED if "torch" not in name])
def test_the_npz_is_what_the_source_converts_to(folder: str) -> None:
    name = BUNDLED[folder]
    source = "model.json" if "tfjs" in folder else f"{name}.keras"
    spec, kept = (
        nc.convert(MODELS / folder / source),
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
    forms = [form.format(BUNDLED[folder]) for form in FORMS] if folder in CHAINS else []
    for name in ("README.md", *forms, *PARTS[folder]):
        assert (MODELS / folder / name).exists()


@pytest.mark.parametrize("folder", CHAINS)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_torch_model_holds_the_same_weights(folder: str, form: str) -> None:
    path = MODELS / folder / form.format(BUNDLED[folder])
    spec = nc.convert(path, **CHAINS[folder])
    kept = npylstm.load(MODELS / folder / f"{BUNDLED[folder]}.npz", "numpy").spec
    assert spec.parameters == kept.parameters
    for layer in spec.layers:
        for key, array in layer.weights.items():
            np.testing.assert_array_equal(kept[layer.name].weights[key], array)


def test_the_seed_programs_equal_their_files(backend: str) -> None:
    """The networks of the two articles, loaded with the trained weights, against both ways in."""
    rng = np.random.default_rng(0)
    network = load_module("sine_torch").Predictor(1, 5, 1)
    network.load_state_dict(torch.load(MODELS / "sine_torch/sine.pt", weights_only=True))
    x = rng.normal(size=(3, 31, 1)).astype("float32")
    with torch.no_grad():
        y = network(torch.from_numpy(x)).numpy()
    for spec in (
        nc.from_torch(network, torch.zeros(1, 50, 1)),
        nc.from_torch(MODELS / "sine_torch/sine.pt", **CHAINS["sine_torch"]),
    ):
        np.testing.assert_allclose(npylstm.Model(spec, backend).predict(x), y, rtol=0, atol=1e-6)

    network = load_module("damped_sine_torch").DampedSineWavePredictionModel(1, 20, 2, 5)
    path = MODELS / "damped_sine_torch" / "damped_sine.pt"
    network.load_state_dict(torch.load(path, weights_only=True))
    x = rng.uniform(0, 1, (23, 4, 1)).astype("float32")
    h, c = rng.uniform(-1, 1, (2, 2, 4, 20)).astype("float32")
    with torch.no_grad():
        y, (h1, c1) = network(*map(torch.from_numpy, (x, h, c)))
    example = (torch.zeros(50, 1, 1), torch.zeros(2, 1, 20), torch.zeros(2, 1, 20))
    model = npylstm.Model(nc.from_torch(network, example), backend)
    # Rounding grows with the cell state, which is of size 5: a few units in its last place.
    for ours, theirs in zip(model.predict([x, h, c]).values(), (y, h1, c1), strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=1e-5)
    model = npylstm.Model(nc.from_torch(path, **CHAINS["damped_sine_torch"]), backend)
    state = {f"lstm_l{k}": {"h": h[k], "c": c[k]} for k in range(2)}
    ours, after = model.predict(x, state=state, return_state=True)
    np.testing.assert_allclose(ours, y.numpy(), rtol=0, atol=1e-5)
    for k in range(2):
        np.testing.assert_allclose(after[f"lstm_l{k}"]["h"], h1[k].numpy(), rtol=0, atol=1e-5)
        np.testing.assert_allclose(after[f"lstm_l{k}"]["c"], c1[k].numpy(), rtol=0, atol=1e-5)


def test_the_translation_loop_is_that_of_keras(backend: str) -> None:
    """The article's loop of 24 steps, with encoder and decoder cut from the trained model."""
    folder = MODELS / "seq2seq_sin_cos_keras"
    encoder, decoder = (npylstm.load(folder / f"{n}.npz", backend) for n in ("encoder", "decoder"))
    for part in (encoder, decoder):
        part.verify().check()
    with np.load(folder / "decoded.npz") as data:
        y = npylstm.decode(encoder, decoder, data["x"], start=0.0, steps=24)
        # Rounding of a step, a few 1e-7, goes round 24 times: what comes back is of size one.
        np.testing.assert_allclose(y, data["y_keras"], rtol=0, atol=1e-5)
        true = np.cos(np.linspace(-2 * np.pi, 2 * np.pi, 100))
        windows = np.lib.stride_tricks.sliding_window_view(true, 24)[:76]
        assert np.abs(y[:, :, 0] - windows).mean() < 0.05  # it has learned to translate
    whole = npylstm.load(folder / "seq2seq.npz", backend).spec
    cut = whole.subgraph(["wave"], ["encoder/h", "encoder/c"])
    assert [t.name for t in encoder.outputs] == list(cut.outputs)


def test_the_stateful_model_streams_as_in_tensorflow_js(backend: str) -> None:
    """Predictions one by one and the forecast of four wavelengths, against TensorFlow.js."""
    folder = MODELS / "stateful_sine_tfjs"
    recorded = json.loads((folder / "recorded.json").read_text(encoding="utf-8"))
    wave = np.float32(recorded["wave"])
    x = np.lib.stride_tricks.sliding_window_view(wave[:-1], 25)[:, :, None]
    model = npylstm.load(folder / "sine.npz", backend)
    session = model.session()
    for window, y in zip(x, recorded["one_by_one"], strict=True):
        assert abs(session.push(window[None])[0, 0] - y) < 1e-6  # some units in the last place
    y = model.forecast(wave[None, -25:, None], 200, state=session.state)
    np.testing.assert_allclose(y[0, :, 0], recorded["ahead"], rtol=0, atol=1e-5)
    session.reset()
    assert session.push(x[:1])[0, 0] == pytest.approx(recorded["fresh"][0], abs=1e-6)


def load_module(folder: str) -> Any:
    path = MODELS / folder / "network.py"
    module_spec = importlib.util.spec_from_file_location(f"network_of_{folder}", path)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    return module


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
