"""Parity where people work: `compare`, `assert_parity`, the fixture, and callbacks of trainings."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest

import npylstm
from npylstm import NpylstmError, ParityError

X = np.random.default_rng(0).normal(size=(48, 7, 2)).astype("f4")
Y = X.sum((1, 2))[:, None]


@pytest.fixture(scope="module", params=["keras", "tf_keras"])
def model(request: pytest.FixtureRequest) -> Any:
    keras = pytest.importorskip(request.param)
    keras.utils.set_random_seed(1)
    layers = keras.layers
    made = keras.Sequential([
        layers.Input((7, 2)), layers.LSTM(5, return_sequences=True, name="first"),
        layers.GRU(4, name="second"), layers.Dense(1, name="head"),
    ])  # fmt: skip
    made.compile("sgd", "mse")
    return made


def test_a_model_is_compared_with_its_own_conversion(model: Any, tmp_path: Path) -> None:
    spec = nc.convert(model)
    npylstm.save(spec, tmp_path / "m.npz")
    for ours in (spec, npylstm.Model(spec), tmp_path / "m.npz"):
        assert nc.compare(ours, model, cases=2).passed
    assert nc.assert_parity(spec, model, X[:3]).cases == 1


def test_weights_of_another_training_are_reported(
    model: Any, npylstm_parity: Callable[..., Any]
) -> None:
    spec = nc.convert(model)
    npylstm_parity(spec, model, cases=1)
    old = model.get_weights()
    changed = [w.copy() for w in old]
    changed[2][:] = 0  # the first layer's bias
    model.set_weights(changed)
    try:
        with pytest.raises(ParityError, match="bias_missing in first"):
            npylstm_parity(spec, model, X[:4])
        report = nc.compare(spec, model, X[:4])
    finally:
        model.set_weights(old)
    assert report.diagnosis is not None
    assert report.diagnosis.causes[0].passed


def test_a_training_leaves_a_verified_file(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    callback = nc.keras.ExportNpz(path, every=2, cases=2)
    model.fit(X, Y, epochs=3, verbose=0, callbacks=[callback])
    report = npylstm.load(path).verify()
    assert report.passed
    assert report.cases == 2
    # The second of three epochs: the file is a step behind the model.
    assert not nc.compare(path, model, X[:4]).passed
    callback.export(3, model)
    nc.assert_parity(path, model)


class Broken:
    """A model that no importer knows."""

    stop_training = False


def test_what_cannot_be_exported_warns_or_stops(tmp_path: Path) -> None:
    for on_break, stops in (("warn", False), ("stop", True)):
        callback = nc.keras.ExportNpz(tmp_path / "m.npz", on_break=on_break)
        broken = Broken()
        callback.set_model(broken)
        with pytest.warns(RuntimeWarning, match="not written after epoch 1: .*no importer knows"):
            callback.on_epoch_end(0)
        assert broken.stop_training is stops
        assert not (tmp_path / "m.npz").exists()
    with pytest.raises(NpylstmError, match="every: expected 1 or more, got 0"):
        nc.keras.ExportNpz("m.npz", every=0)
    with pytest.raises(NpylstmError, match="on_break: expected one of warn, stop, got 'cry'"):
        nc.keras.ExportNpz("m.npz", on_break="cry")


def test_a_lightning_training_leaves_a_verified_file(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lightning = pytest.importorskip("lightning.pytorch")
        from npylstm_converters.torch import ExportNpz

        class Forecaster(lightning.LightningModule):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                super().__init__()
                self.rnn, self.head = torch.nn.LSTM(2, 5, batch_first=True), torch.nn.Linear(5, 1)
                self.drop = torch.nn.Dropout(0.5)

            def forward(self, x: Any) -> Any:
                return self.head(self.drop(self.rnn(x)[0][:, -1]))

            def training_step(self, batch: Any, number: int) -> Any:
                x, y = batch
                return torch.nn.functional.mse_loss(self(x), y)

            def configure_optimizers(self) -> Any:
                return torch.optim.SGD(self.parameters(), 1e-2)

        data = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
        callback = ExportNpz(tmp_path / "m.npz", example=torch.zeros(2, 7, 2), cases=2)
        trainer = lightning.Trainer(
            max_epochs=2, callbacks=[callback], logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
        )  # fmt: skip
        module = Forecaster()
        trainer.fit(module, torch.utils.data.DataLoader(data, 16))
    assert npylstm.load(tmp_path / "m.npz").verify().passed
    x = torch.from_numpy(X[:3])
    with torch.no_grad():
        want = module.eval()(x).numpy()
    np.testing.assert_allclose(npylstm.load(tmp_path / "m.npz").predict(X[:3]), want, atol=1e-6)


def test_importing_the_plugin_imports_nothing_heavy() -> None:
    code = (
        "import sys, npylstm_converters.pytest_plugin\n"
        "print([m for m in ('npylstm', 'numpy', 'torch', 'keras', 'h5py') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torch" not in done.stdout
    assert "keras" not in done.stdout


def test_wrong_arguments_are_named_before_the_framework_runs(model: Any) -> None:
    spec = nc.convert(model)
    name = spec.inputs[0].name
    for inputs, said in (
        ({"other": X}, rf"^inputs: expected \['{name}'\], got \['other'\]"),
        (X[0], rf"^{name}: expected \(batch, 7, 2\), got \(7, 2\); for one sequence give x\[None"),
        (X[..., :1], rf"^{name}: expected \(batch, 7, 2\), got \(48, 7, 1\)"),
        (X.astype(str), rf"^{name}: expected real numbers, got <U"),
        (npylstm.Case({"other": X}, {}), "^inputs: expected"),
    ):
        with pytest.raises(npylstm.ShapeError, match=said):
            nc.compare(spec, model, inputs)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"cases": 1.5}, r"^cases: expected a number or a list of inputs, got 1\.5"),
        ({"cases": -1}, "^cases: expected a number or a list of inputs, got -1"),
        ({"cases": 0}, "^cases: expected a number of random cases from 1 on"),
        ({"cases": 2, "inputs": X}, "^cases: expected a number of .*, without inputs"),
        ({"seed": -1}, "^seed: expected an integer from 0 on, got -1"),
        ({"seed": 1.5}, r"^seed: expected an integer from 0 on, got 1\.5"),
    ]
    for arguments, said in wrong:
        with pytest.raises(NpylstmError, match=said):
            nc.compare(spec, model, **arguments)


def test_inputs_of_two_tensors_are_bound_as_the_model_binds_them() -> None:
    keras = pytest.importorskip("keras")
    x, y = keras.Input((7, 2), name="x"), keras.Input((7, 3), name="y")
    merged = keras.layers.LSTM(3)(keras.layers.Concatenate()([x, y]))
    model = keras.Model([x, y], merged)
    spec, other = nc.convert(model), np.ones((48, 7, 3), "f4")
    for inputs in ([X, other], {"y": other, "x": X}):
        assert nc.compare(spec, model, inputs).passed
    with pytest.raises(
        npylstm.ShapeError, match=r"^inputs: expected 2 arrays for .*, got 1 arrays"
    ):
        nc.compare(spec, model, [X])
