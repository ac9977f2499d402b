"""Quantized models: what is rounded, what it costs, the budget, and how verify judges by it."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import make_chain

import npylstm
from npylstm import Case, Model, ModelSpec, NpylstmError
from npylstm.activations import TANH
from npylstm.cli import main
from npylstm.errors import FormatError
from npylstm.ops.cells import LSTM
from npylstm.ops.convolution import Conv1D
from npylstm.ops.dense import Dense
from npylstm.ops.pointwise import ActivationLayer
from npylstm.quantization import OutputError, measure

SINE = "models/sine_keras/sine.npz"
TYPES = ["int8", "bfloat16", "int16"]


def recorded(count: int = 3, classes: int = 4) -> ModelSpec:
    """A model with cases that another program computed: the same formulas in float64."""
    spec = make_chain(
        LSTM(features=3, units=24, return_sequences=True), Dense(features=24, units=classes)
    )
    exact = Model(spec.astype("float64"), "numpy")
    cases = []
    for seed in range(count):
        x = np.random.default_rng(seed).normal(size=(2, 9, 3)).astype("float32")
        cases.append(Case({"x": x}, {"layer_1": exact.predict(x).astype("float32")}))
    return spec.with_cases(cases)


@pytest.mark.parametrize("type", TYPES)
def test_what_is_measured_is_the_difference_from_the_framework(type: str) -> None:
    spec = recorded()
    small = Model(spec).quantize(type)
    found = small.quantization
    assert found is not None
    (error,) = found.outputs
    ours = np.concatenate([small.predict(case.inputs["x"]) for case in spec.cases])
    theirs = np.concatenate([case.outputs["layer_1"] for case in spec.cases]).astype(float)
    off = ours - theirs
    assert error.max_abs == np.abs(off).max()
    assert error.relative_rms == pytest.approx(np.sqrt((off**2).sum() / (theirs**2).sum()))
    assert error.same_argmax == np.mean(ours.argmax(-1) == theirs.argmax(-1))
    assert found.cases == 3
    assert found.budget["layer_1"].max_abs == 2 * error.max_abs
    assert found.budget["layer_1"].relative_rms == 2 * error.relative_rms
    # Units in the last place: 8, 8 and 16 bits of the largest weight of a column.
    assert error.relative_rms < {"int8": 2**-7, "bfloat16": 2**-7, "int16": 2**-14}[type]


@pytest.mark.parametrize("type", TYPES)
def test_sizes(type: str) -> None:
    spec = recorded()
    found = spec.quantize(type).quantization
    assert found is not None
    matrices, biases = (3 + 24) * 96 + 24 * 4, 96 + 4
    scales = 0 if type == "bfloat16" else 2 * 96 + 4
    size = 1 if type == "int8" else 2
    assert found.before == 4 * (matrices + biases)
    assert found.after == size * matrices + 4 * (scales + biases)
    assert [layer.type for layer in found.layers] == [type, type]
    printed = str(found)
    for text in ("bytes after", f"{found.after:,}", "relative rms", "measured on 3 recorded cases"):
        assert text in printed


@pytest.mark.parametrize("type", TYPES)
def test_a_file_keeps_all_and_verify_judges_by_the_budget(type: str, tmp_path: Path) -> None:
    small = Model(recorded()).quantize(type)
    small.save(tmp_path / "small.npz")
    again = npylstm.load(tmp_path / "small.npz")
    assert again.spec == small.spec
    assert again.quantization == small.quantization
    report = again.verify()
    assert report.passed
    assert report.proof == "stated"
    assert f"rounded to {type}" in report.stated[-1]
    assert "within its budget: output 'layer_1' has a relative rms error of" in report.verdict
    assert json.loads(json.dumps(report.to_json()))["errors"][0]["output"] == "layer_1"


def test_a_model_outside_of_its_budget_fails() -> None:
    small = recorded().quantize("int8")
    (case, *_) = small.cases
    wrong = {"layer_1": case.outputs["layer_1"] * np.float32(1.05)}
    report = Model(small).verify([dataclasses.replace(case, outputs=wrong)])
    assert not report.passed
    assert (
        "parity FAILED: not within the budget: output 'layer_1' has a relative rms"
        in report.verdict
    )
    assert report.diagnosis is not None
    assert report.diagnosis.causes[0].kind == "scaling"


def test_a_wrong_gate_is_outside_of_the_budget() -> None:
    """The budget is small enough for the smallest mistakes: a forget bias of one."""
    small = recorded().quantize("int8")
    layer = small["layer_0"]
    weights = {**layer.weights, "b_f": layer.weights["b_f"] + np.float32(1)}
    other = dataclasses.replace(layer, weights=weights)
    broken = dataclasses.replace(small, layers=(other, *small.layers[1:]))
    assert broken["layer_0"].stored
    assert not Model(broken).verify().passed


def test_rounding_errors_alone_pass_where_nothing_was_measured() -> None:
    """int16 of numbers that it holds exactly costs nothing; another machine rounds otherwise."""
    spec = make_chain(Dense(features=3, units=2), shape=("batch", 3))
    kernel = np.float32([[1, -1], [0.5, 0], [0, 1]]) * np.float32(32767)
    layer = dataclasses.replace(
        spec.layers[0], weights={"kernel": kernel, "bias": np.zeros(2, np.float32)}
    )
    spec = dataclasses.replace(spec, layers=(layer,))
    x = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")
    spec = spec.with_cases([Case({"x": x}, {"layer_0": Model(spec, "numpy").predict(x)})])
    small = spec.quantize("int16")
    assert small.quantization is not None
    for backend in ("auto", "numpy"):
        assert Model(small, backend).verify().passed


def test_layers_by_name() -> None:
    spec = recorded()
    assert list(spec.quantize("int8", layers=["layer_1"])["layer_1"].stored) == ["kernel"]
    assert not spec.quantize("int8", layers=["layer_1"])["layer_0"].stored
    assert not spec.quantize("int8", keep=["*_1"])["layer_1"].stored
    assert spec.quantize("int8", layers=["layer_*"], keep=("layer_0",))["layer_1"].stored
    known = "layer_0, layer_1"
    for arguments, message in (
        (
            {"layers": ["lstm"]},
            f"layers: no layer with matrices is named 'lstm'; expected one of {known}",
        ),
        ({"keep": ["x*"]}, f"keep: no layer is named 'x[*]'; expected one of {known}"),
        ({"keep": ["*"]}, f"no layer is left to quantize; layers with matrices: {known}"),
        ({"layers": "layer_0"}, "layers, keep: expected lists of names, got a string"),
    ):
        with pytest.raises(NpylstmError, match=message):
            spec.quantize("int8", **arguments)


def test_a_layer_without_matrices_cannot_be_asked_for() -> None:
    spec = make_chain(Dense(features=3, units=2), ActivationLayer(TANH), shape=("batch", 3))
    with pytest.raises(NpylstmError, match="no layer with matrices is named 'layer_1'"):
        spec.quantize("int8", layers=["layer_1"])


def test_what_cannot_be_quantized() -> None:
    spec = recorded()
    with pytest.raises(FormatError, match="unknown storage type 'int4', expected one of bfloat16"):
        spec.quantize("int4")
    with pytest.raises(
        NpylstmError, match=r"expected float32 weights to quantize, got float64; first"
    ):
        spec.astype("float64").quantize("int8")
    with pytest.raises(NpylstmError, match="layer_0 is quantized already"):
        spec.quantize("bfloat16").quantize("int8")


def test_without_cases_there_is_no_budget() -> None:
    small = recorded(0).quantize("int8")
    assert small.quantization is not None
    assert small.quantization.outputs == ()
    assert str(small.quantization).endswith("no recorded cases: what it costs is not known")
    assert small.provenance["stated"][-1].endswith("what it costs is not measured")


def test_other_dtypes_and_parts_of_the_model() -> None:
    small = recorded().quantize("int8")
    assert small.astype("float64").quantization is None
    part = small.subgraph(["x"], ["layer_0"])
    assert part.quantization is not None
    assert part.quantization.outputs == ()  # measured was another output
    assert recorded().quantization is None


def test_copies() -> None:
    model = Model(recorded()).quantize("int8")
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert other.quantization == model.quantization
        x = np.ones((1, 4, 3), np.float32)
        np.testing.assert_array_equal(other.predict(x), model.predict(x))


def test_layers_that_compute_decoded_weights_are_smaller_in_the_file_only() -> None:
    spec = make_chain(Conv1D(features=3, units=8, size=3), LSTM(features=8, units=5))
    small = spec.quantize("int8")
    x = np.random.default_rng(0).normal(size=(2, 9, 3)).astype("float32")
    part, decoded = (s.subgraph(["x"], ["layer_0"]) for s in (small, small.decoded()))
    np.testing.assert_array_equal(Model(part).predict(x), Model(decoded).predict(x))
    assert small["layer_0"].stored_bytes < spec["layer_0"].stored_bytes / 2


def test_diagnose_sees_no_mistake_within_the_budget() -> None:
    spec = recorded()
    small = Model(spec.quantize("int8"))
    (case, *_) = spec.cases
    assert npylstm.diagnose(small, case.inputs, case.outputs).causes == ()
    assert npylstm.diagnose(small, case.inputs, small.predict(case.inputs["x"])).causes == ()


def test_forecasts_warn_once_for_each_model() -> None:
    spec = make_chain(LSTM(features=1, units=8), Dense(features=8, units=1),
                      shape=("batch", "steps", 1))  # fmt: skip
    x = np.ones((1, 3, 1), np.float32)
    for storage in TYPES:
        model = Model(spec).quantize(storage)
        with pytest.warns(
            RuntimeWarning, match="is quantized: outputs that are fed back"
        ) as caught:
            model.forecast(x, 3)
        assert caught[0].filename == __file__
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model.forecast(x, 3)
            Model(spec).forecast(x, 3)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([[1.0, 2.0]], [[1.0, 2.0]], (0.0, 0.0, 1.0)),
        ([[1.0, 2.0]], [[2.5, 2.0]], (1.5 / 5**0.5, 1.5, 0.0)),
        ([[0.0, 0.0]], [[0.0, 0.0]], (0.0, 0.0, 1.0)),
        ([[0.0, 0.0]], [[0.0, 1.0]], (np.inf, 1.0, 0.0)),
        ([[np.nan, 1.0]], [[np.nan, 1.0]], (0.0, 0.0, 1.0)),
        ([[1.0], [2.0]], [[1.0], [2.0]], (0.0, 0.0, None)),
        ([[np.inf, 1.0]], [[1.0, 1.0]], (np.inf, np.inf, 1.0)),
    ],
)
def test_errors(a: list[Any], b: list[Any], expected: tuple[Any, ...]) -> None:
    case = Case({}, {"y": np.float32(a)})
    assert measure([case], [{"y": np.float32(b)}]) == (OutputError("y", *expected),)


@pytest.mark.parametrize(
    "held", [3, {}, {"cases": 1, "outputs": 3}, {"cases": 1, "outputs": {"layer_1": {}}},
             {"cases": 1, "outputs": {"layer_1": {"relative_rms": "a", "max_abs": 1, "same_argmax": None}}},
             {"cases": 1, "outputs": {"layer_1": {"relative_rms": -1, "max_abs": 1, "same_argmax": None}}}],
)  # fmt: skip
def test_damaged_budgets(held: Any) -> None:
    small = recorded().quantize("int8")
    broken = dataclasses.replace(small, provenance={**small.provenance, "quantization": held})
    with pytest.raises(FormatError, match="provenance: quantization: not as quantize writes it"):
        Model(broken).verify()


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
    npylstm.save(recorded(0), tmp_path / "a.npz")
    assert main(["quantize", str(tmp_path / "a.npz"), str(tmp_path / "b.npz")]) == 0
    assert "holds no recorded cases, so what it costs is not measured" in capsys.readouterr().err
