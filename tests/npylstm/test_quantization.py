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
from npylstm.errors import FormatError
from npylstm.ops.base import Operation
from npylstm.ops.bidirectional import Bidirectional
from npylstm.ops.cells import GRU, LSTM
from npylstm.ops.convolution import Conv1D
from npylstm.ops.dense import Dense, Embedding
from npylstm.ops.pointwise import ActivationLayer
from npylstm.quantization import measure
from npylstm.storage import StoredWeight

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


def test_several_types() -> None:
    first, second = recorded(0).layers
    layers = (first.in_storage("int8"), second.in_storage("bfloat16"))
    found = dataclasses.replace(recorded(0), layers=layers).quantization
    assert found is not None
    assert found.type == "bfloat16, int8"
    assert [layer.type for layer in found.layers] == ["int8", "bfloat16"]


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
        ({"layers": "layer_0"}, "layers: expected a list of names, got 'layer_0'"),
        ({"layers": [3]}, r"layers: expected a list of names, got \[3\]"),
        ({"keep": None}, "keep: expected a list of names, got None"),
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


def test_a_quantized_model_is_never_proven() -> None:
    small = recorded().quantize("int8")
    told = dataclasses.replace(small, provenance={**small.provenance, "proof": "proven"})
    report = Model(told).verify()
    assert (report.passed, report.proof) == (True, "stated")
    assert "the quantized model is within its budget" in report.verdict


def test_other_dtypes_and_parts_of_the_model() -> None:
    small = recorded().quantize("int8")
    for decoded in (small.astype("float64"), small.decoded()):
        assert decoded.quantization is not None
        assert decoded.quantization.outputs == small.quantization.outputs  # type: ignore[union-attr]
        assert Model(decoded).verify().passed
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


def test_decoding_warns_as_a_forecast_does() -> None:
    """A decoder gets its own outputs, too."""
    encoder, decoder = (
        npylstm.load(f"models/seq2seq_sin_cos_keras/{name}.npz") for name in ("encoder", "decoder")
    )
    x = np.sin(np.arange(20, dtype=np.float32) / 3).reshape(1, -1, 1)
    small = decoder.quantize("int8")
    with pytest.warns(RuntimeWarning, match="is quantized: outputs that are fed back") as caught:
        npylstm.decode(encoder, small, x, start=0.0, steps=2)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        npylstm.decode(encoder.quantize("int8"), decoder, x, start=0.0, steps=2)


@pytest.mark.parametrize(
    ("a", "b", "relative_rms", "max_abs", "same_argmax"),
    [
        ([[1.0, 2.0]], [[1.0, 2.0]], 0.0, 0.0, 1.0),
        ([[1.0, 2.0]], [[2.5, 2.0]], 1.5 / 5**0.5, 1.5, 0.0),
        ([[0.0, 0.0]], [[0.0, 0.0]], 0.0, 0.0, 1.0),
        ([[0.0, 0.0]], [[0.0, 1.0]], np.inf, 1.0, 0.0),
        ([[np.nan, 1.0]], [[np.nan, 1.0]], 0.0, 0.0, 1.0),
        ([[1.0], [2.0]], [[1.0], [2.0]], 0.0, 0.0, None),
        ([[np.inf, 1.0]], [[1.0, 1.0]], np.inf, np.inf, 1.0),
        (np.zeros((0, 2)), np.zeros((0, 2)), 0.0, 0.0, None),
    ],
)
def test_errors(a: Any, b: Any, relative_rms: float, max_abs: float, same_argmax: Any) -> None:
    case = Case({}, {"y": np.float32(a)})
    (error,) = measure([case], [{"y": np.float32(b)}])
    assert (error.relative_rms, error.max_abs) == (relative_rms, max_abs)
    assert error.same_argmax == same_argmax


@pytest.mark.parametrize("type", TYPES)
def test_each_recorded_case_alone_is_within_the_budget(type: str) -> None:
    """Its outputs may be smaller than those of all cases, and the differences are not."""
    small = npylstm.load(SINE).quantize(type)
    for case in small.spec.cases:
        assert small.verify([case]).passed
        assert npylstm.diagnose(small, case.inputs, case.outputs).causes == ()


def test_errors_of_outputs_that_are_all_zero(tmp_path: Path) -> None:
    """Nothing can be divided by the size of a dead relu's outputs."""
    spec = recorded()
    cases = [
        dataclasses.replace(c, outputs={"layer_1": c.outputs["layer_1"] * np.float32(0)})
        for c in spec.cases
    ]
    small = Model(spec.with_cases(cases)).quantize("int8")
    small.save(tmp_path / "small.npz")
    found = npylstm.load(tmp_path / "small.npz").quantization
    assert found is not None
    assert found == small.quantization
    assert found.outputs[0].relative_rms == np.inf
    assert 0 < found.outputs[0].max_abs < np.inf
    assert found.accepts(found.outputs[0])
    json.dumps(found.to_json(), allow_nan=False)


def test_there_is_no_budget_for_infinite_errors(tmp_path: Path) -> None:
    """Rows with inf give nan in int8, where float32 saturates."""
    spec = recorded(1)
    x = np.array(spec.cases[0].inputs["x"])
    x[0, 4, 0] = np.inf
    y = Model(spec.astype("float64"), "numpy").predict(x).astype("float32")
    assert np.isfinite(y).all()
    small = Model(spec.with_cases([Case({"x": x}, {"layer_1": y})])).quantize("int8")
    small.save(tmp_path / "small.npz")
    report = npylstm.load(tmp_path / "small.npz").verify()
    assert not report.passed
    json.dumps(report.to_json(), allow_nan=False)


GOOD = {"relative_rms": 1.0, "rms": 1.0, "max_abs": 1.0, "same_argmax": None}


def budget_with(**changes: Any) -> dict[str, Any]:
    return {"cases": 1, "outputs": {"layer_1": {**GOOD, **changes}}}


@pytest.mark.parametrize(
    "held",
    [
        3, {}, {"cases": 1, "outputs": 3}, {"cases": 1, "outputs": {"layer_1": {}}},
        budget_with(relative_rms="a"), budget_with(relative_rms=-1), budget_with(max_abs=True),
        budget_with(max_abs=10**400), budget_with(same_argmax=7), {**budget_with(), "cases": "3"},
        {**budget_with(), "cases": -3}, {**budget_with(), "cases": 1.5},
        {**budget_with(), "cases": True},
    ],
)  # fmt: skip
def test_damaged_budgets(held: Any) -> None:
    small = recorded().quantize("int8")
    broken = dataclasses.replace(small, provenance={**small.provenance, "quantization": held})
    with pytest.raises(FormatError, match="provenance: quantization: not as quantize writes it"):
        Model(broken).verify()


OTHER_WEIGHTS: dict[str, Operation] = {
    "lstm": LSTM(3, 4),
    "peepholes": LSTM(3, 4, peepholes=True),
    "gru": GRU(3, 4),
    "both directions": Bidirectional(LSTM(3, 4), LSTM(3, 4, go_backwards=True), "concat"),
    "dense": Dense(3, 4),
}


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("name", OTHER_WEIGHTS)
def test_files_may_store_biases_too(name: str, type: str, tmp_path: Path) -> None:
    """A file names the type of each weight: biases in fewer bits are decoded."""
    spec = make_chain(OTHER_WEIGHTS[name])
    layer = spec.layers[0].in_storage("int8")
    others = {key: StoredWeight.encoded(type, w) for key, w in layer.weights.items() if w.ndim == 1}
    layer = dataclasses.replace(
        layer,
        weights={**layer.weights, **{k: s.weight for k, s in others.items()}},
        stored={**layer.stored, **others},
    )
    npylstm.save(dataclasses.replace(spec, layers=(layer,)), tmp_path / "model.npz")
    model = npylstm.load(tmp_path / "model.npz")
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    plain = Model(model.spec.astype("float64"), "numpy").predict(x)
    for backend in (model.backend, "numpy"):
        y = Model(model.spec, backend).predict(x)
        np.testing.assert_allclose(y, plain, rtol=0, atol=1e-3)  # inputs have 16 bits


def test_scales_along_another_axis_are_refused() -> None:
    """A file has a scale for each row of a table: scales of columns would be read as those."""
    (layer,) = make_chain(Embedding(4, 4), shape=("batch", "steps")).layers
    stored = StoredWeight.encoded("int8", layer.weights["embeddings"])
    with pytest.raises(FormatError, match="layer_0/embeddings: expected scales along axis 0"):
        dataclasses.replace(
            make_chain(Embedding(4, 4), shape=("batch", "steps")),
            layers=(
                dataclasses.replace(
                    layer, weights={"embeddings": stored.weight}, stored={"embeddings": stored}
                ),
            ),
        )
