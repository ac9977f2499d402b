"""The verdict: mistakes fail, rounding passes, and the report says where."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from builders import make_chain, make_layer

from npylstm import Model, ModelSpec, NpylstmError, ParityError
from npylstm.activations import Activation
from npylstm.errors import UnprovenError
from npylstm.ops.cells import LSTM
from npylstm.ops.dense import Dense
from npylstm.ops.indexing import SizeOf
from npylstm.ops.masking import Masking
from npylstm.ops.pointwise import Rescaling
from npylstm.spec import Case, Edge, LayerSpec, TensorSpec

RNG = np.random.default_rng(0)


def recorded(spec: ModelSpec, cases: int = 3, noise: float = 0.0, scale: float = 1.0) -> ModelSpec:
    """Record a model's own float64 outputs, rounded, as if a framework had computed them."""
    oracle = Model(spec.astype("float64"), "numpy")
    made = []
    for k in range(cases):
        x = (scale * RNG.normal(size=(2, 6 + k, 3))).astype("float32")
        y = oracle.predict(x)
        made.append(Case({"x": x}, {spec.outputs[0]: (y + noise).astype("float32")}))
    return spec.with_cases(made)


def stack() -> ModelSpec:
    return make_chain(
        LSTM(3, 7, return_sequences=True), LSTM(7, 5, return_sequences=True), Dense(5, 4)
    )


def test_a_faithful_model_passes(backend: str) -> None:
    report = Model(recorded(stack()), backend).verify()
    assert report.passed
    assert bool(report)
    report.check()
    (output,) = report.outputs
    assert output.max_abs < 1e-6
    assert set(output.where) == {"case", "sample", "step", "feature"}
    assert 0 < output.framework_to_float64 < 1e-7
    assert "parity held: 3 recorded cases" in str(report)


def test_float64_is_judged_by_what_the_model_amplifies() -> None:
    """There the yardstick is the same program, and npylstm's own error shows nothing."""
    spec = recorded(stack()).astype("float64")
    x = spec.cases[0].inputs["x"].astype("float64")
    y = Model(spec, "numpy").predict(x)
    for ulps, passes in ((8, True), (1e5, False)):
        other = y * (1 + ulps * np.finfo("float64").eps)
        cases = [Case({"x": x}, {spec.outputs[0]: other})]
        assert Model(spec.with_cases(cases), "numpy").verify().passed is passes


def test_the_largest_difference_is_found() -> None:
    spec = recorded(stack())
    y = spec.cases[1].outputs["layer_2"].copy()
    y[1, 4, 2] += 0.25
    cases = [spec.cases[0], replace(spec.cases[1], outputs={"layer_2": y}), spec.cases[2]]
    report = Model(spec.with_cases(cases), "numpy").verify()
    assert not report.passed
    (output,) = report.outputs
    assert output.where == {"case": 1, "sample": 1, "step": 4, "feature": 2}
    assert output.max_abs == pytest.approx(0.25, rel=1e-5)
    with pytest.raises(
        ParityError,
        match=r"output .layer_2. differs by 0\.25 at case 1, sample 1, step 4, feature 2",
    ):
        report.check()
    assert "FAILED" in str(report)


def change(spec: ModelSpec, **weights: str) -> ModelSpec:
    """Put one of layer_0's weights in the place of another."""
    layer = spec.layers[0]
    mixed = {**layer.weights, **{k: layer.weights[v] for k, v in weights.items()}}
    return replace(spec, layers=(LayerSpec(layer.name, layer.layer, mixed), *spec.layers[1:]))


MISTAKES: dict[str, Callable[[ModelSpec], ModelSpec]] = {
    "input and forget gates swapped": lambda s: change(
        s, W_i="W_f", W_f="W_i", U_i="U_f", U_f="U_i", b_i="b_f", b_f="b_i"
    ),
    "candidate and output swapped": lambda s: change(s, W_c="W_o", W_o="W_c"),
    "one bias taken for another": lambda s: change(s, b_i="b_o"),
    "the other hard_sigmoid": lambda s: replace(
        s,
        layers=(
            replace(s.layers[0], layer=replace(s.layers[0].layer, recurrent_activation=Activation("hard_sigmoid_sixth"))),  # type: ignore[call-arg]
            *s.layers[1:],
        ),
    ),
    "backwards": lambda s: replace(
        s,
        layers=(replace(s.layers[0], layer=replace(s.layers[0].layer, go_backwards=True)), *s.layers[1:]),  # type: ignore[call-arg]
    ),
}  # fmt: skip


@pytest.mark.parametrize("scale", [1.0, 40.0])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_fail(mistake: str, scale: float, backend: str) -> None:
    gates = Activation("hard_sigmoid_fifth" if "hard" in mistake else "sigmoid")
    spec = recorded(make_chain(LSTM(3, 7, recurrent_activation=gates), Dense(7, 4)), scale=scale)
    assert Model(spec, backend).verify().passed
    assert not Model(MISTAKES[mistake](spec), backend).verify().passed


def test_a_transposed_recurrent_kernel_fails() -> None:
    spec = recorded(make_chain(LSTM(3, 7), Dense(7, 4)))
    layer = spec.layers[0]
    weights = {k: w.T if k.startswith("U") else w for k, w in layer.weights.items()}
    wrong = replace(spec, layers=(LayerSpec(layer.name, layer.layer, weights), spec.layers[1]))
    assert not Model(wrong, "numpy").verify().passed


def test_nan_and_inf_must_agree() -> None:
    spec = recorded(make_chain(LSTM(3, 4, return_sequences=True)))
    x = spec.cases[0].inputs["x"].copy()
    x[0, 2, 1] = np.nan
    y = Model(spec, "numpy").predict(x)
    assert np.isnan(y).any()
    good = Case({"x": x}, {"layer_0": y})
    assert Model(spec.with_cases([good]), "numpy").verify().passed
    wrong = Case({"x": x}, {"layer_0": np.nan_to_num(y)})
    report = Model(spec.with_cases([wrong]), "numpy").verify()
    assert not report.passed
    json.dumps(report.to_json(), allow_nan=False)


def test_outputs_without_a_finite_value_prove_nothing() -> None:
    spec = recorded(make_chain(LSTM(3, 4), Dense(4, 2)))
    model = Model(spec, "numpy")
    x = np.full((2, 3, 3), np.nan, "float32")
    empty = Case({"x": x}, {"layer_1": model.predict(x)})
    with pytest.raises(UnprovenError, match="layer_1: no value of any case can prove anything"):
        model.verify([empty])
    assert model.verify([empty, *spec.cases]).passed  # the others prove something
    differing = Case({"x": np.ones_like(x)}, empty.outputs)
    assert not model.verify([differing]).passed


def test_zeros_pass_and_need_not_be_exact() -> None:
    spec = make_chain(LSTM(3, 4), Dense(4, 2))
    case = Case({"x": np.zeros((2, 3, 3), "float32")}, {})
    y = Model(spec, "numpy").predict(case.inputs["x"])
    near = np.nextafter(y, np.float32(9))
    spec = spec.with_cases([replace(case, outputs={"layer_1": near})])
    assert Model(spec, "numpy").verify().passed


def test_other_cases_than_the_recorded() -> None:
    spec = recorded(stack())
    model = Model(spec.with_cases(()), "numpy")
    assert model.verify(spec.cases[:2]).cases == 2
    with pytest.raises(NpylstmError, match="holds no recorded cases; convert it where"):
        model.verify()


def test_a_wrong_output_shape_is_named() -> None:
    spec = recorded(stack())
    wrong = replace(spec.cases[0], outputs={"layer_2": np.zeros((1, 2), "float32")})
    with pytest.raises(
        ParityError, match=r"the framework gave shape \(1, 2\), npylstm \(2, 6, 4\)"
    ):
        Model(spec, "numpy").verify([wrong])


def test_the_report_as_json() -> None:
    report = Model(recorded(stack()), "numpy").verify().to_json()
    assert report["passed"] is True
    assert report["backend"] == "numpy"
    assert set(report["outputs"][0]) >= {"output", "max_abs", "max_rel", "where", "rms", "framework_to_float64", "npylstm_to_float64"}  # fmt: skip
    json.dumps(report, allow_nan=False)


@pytest.mark.parametrize("value", [-1.0, 0.1])
def test_padding_stays_padding_where_rounding_is_measured(value: float) -> None:
    """A value that is moved by a rounding error would mark nothing, and explain any difference."""
    rng = np.random.default_rng(3)
    layers = [
        make_layer("masking", Masking(value), rng),
        make_layer("lstm", LSTM(3, 4, masked=True), rng), make_layer("head", Dense(4, 2), rng),
    ]  # fmt: skip
    edges = (
        Edge("masking", ("x",), ("masking", "masking/mask")),
        Edge("lstm", ("masking", "masking/mask"), ("lstm",)), Edge("head", ("lstm",), ("head",)),
    )  # fmt: skip
    spec = ModelSpec(tuple(layers), edges, (TensorSpec("x", ("batch", "steps", 3)),), ("head",))
    x = rng.normal(size=(4, 9, 3)).astype("f4")
    x[:3, 5:] = np.float32(value)
    y = Model(spec, "numpy").predict(x)
    for error, passes in ((0.0, True), (1e-3, False)):
        report = Model(
            spec.with_cases([Case({"x": x}, {"head": y + np.float32(error)})]), "numpy"
        ).verify()
        assert report.passed is passes
        assert report.outputs[0].tolerance < 1e-4


def test_an_output_without_axes() -> None:
    """The number of steps, beside a sequence."""
    size, scale = make_layer("size", SizeOf(1), RNG), make_layer("scale", Rescaling(0.5), RNG)
    edges = (Edge.call(size, "x"), Edge.call(scale, "x"))
    spec = ModelSpec(
        (size, scale), edges, (TensorSpec("x", ("batch", "steps", 3)),), ("size", "scale")
    )
    x = RNG.normal(size=(2, 5, 3)).astype(np.float32)
    right = Case({"x": x}, {"size": np.float32(5), "scale": x / 2})
    wrong = Case({"x": x}, {"size": np.float32(6), "scale": x / 2})
    assert Model(spec.with_cases([right]), "numpy").verify().passed
    assert not Model(spec.with_cases([wrong]), "numpy").verify().passed
