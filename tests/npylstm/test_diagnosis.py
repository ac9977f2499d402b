"""What `diagnose` says of outputs that an independent program computed, right or with a mistake."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import oracle
import pytest
from builders import make_chain, make_layer

import npylstm
from npylstm import Model, ModelSpec, ShapeError
from npylstm.activations import Activation
from npylstm.cli import main
from npylstm.ops.arithmetic import Arithmetic
from npylstm.ops.base import Operation
from npylstm.ops.cells import LSTM, SimpleRNN
from npylstm.ops.dense import Dense
from npylstm.ops.normalization import LayerNormalization
from npylstm.ops.time_distributed import TimeDistributed
from npylstm.parity.mistakes import KINDS, MISTAKES
from npylstm.spec import Case, Edge, TensorSpec

Weights = Mapping[str, np.ndarray[Any, Any]]
RNG = np.random.default_rng(4)
X = RNG.normal(size=(3, 9, 3)).astype("f4")

VOCABULARY = [
    "gates_permuted",
    "kernel_transposed",
    "recurrent_kernel_transposed",
    "bias_missing",
    "bias_doubled",
    "forget_bias",
    "activation",
    "recurrent_activation",
    "reset_after",
    "update_gate_inverted",
    "state_swapped",
    "initial_state",
    "direction",
    "directions_swapped",
    "merge_mode",
    "sequence_order",
    "layout",
    "time_shift",
    "last_step",
    "mask",
    "padding",
    "epsilon",
    "training_mode",
    "normalization_swapped",
    "layers_swapped",
    "weights_stale",
    "scaling",
    "reduced_precision",
    "output_order",
    "logits",
]


def stack() -> ModelSpec:
    return make_chain(LSTM(3, 6, return_sequences=True), Dense(6, 2))


def by_the_oracle(spec: ModelSpec, lstm: Weights | None = None, x: np.ndarray[Any, Any] = X) -> Any:
    """The outputs of `stack`, computed by loops; `lstm` are other weights for its first layer."""
    h, _ = oracle.lstm(lstm or spec["layer_0"].weights, x)
    return oracle.dense(spec["layer_1"].weights, h).astype("f4")


def exchanged(weights: Weights, a: str, b: str) -> Weights:
    """The weights with two gates exchanged."""
    other = {a: b, b: a}
    return {k: weights[f"{k[:-1]}{other.get(k[-1], k[-1])}"] for k in weights}


def test_the_table_holds_the_vocabulary() -> None:
    assert sorted(KINDS) == sorted(VOCABULARY)
    for mistake in MISTAKES:
        assert mistake.find.__doc__, mistake.kind


def test_outputs_that_agree_have_no_causes() -> None:
    spec = stack()
    d = npylstm.diagnose(Model(spec, "numpy"), X, by_the_oracle(spec))
    assert d.causes == ()
    assert d.agrees
    assert "agree" in str(d)


def test_a_mistake_is_named_proven_and_corrected() -> None:
    spec = stack()
    wrong = by_the_oracle(spec, exchanged(spec["layer_0"].weights, "c", "o"))
    d = npylstm.diagnose(spec, X, wrong)
    cause = d.causes[0]
    assert (cause.kind, cause.layer, cause.passed) == ("gates_permuted", "layer_0", True)
    assert cause.detail == {"order": "i f o c"}
    assert cause.explains > 0.999999
    assert cause.spec is not None
    np.testing.assert_allclose(Model(cause.spec, "numpy").predict(X), wrong, atol=2e-6)
    assert "layer_0" in cause.fix
    document = json.loads(json.dumps(d.to_json()))
    assert document["causes"][0]["kind"] == "gates_permuted"
    assert not d.agrees
    assert "proven" in str(d)


def test_what_nobody_knows_has_facts_and_no_cause() -> None:
    spec = stack()
    weights = dict(spec["layer_0"].weights)
    for key in weights:
        weights[key] = weights[key] + RNG.normal(0, 0.1, weights[key].shape).astype("f4")
    d = npylstm.diagnose(spec, X, by_the_oracle(spec, weights))
    assert not any(cause.passed for cause in d.causes)
    assert any("differs by up to" in fact for fact in d.facts)
    assert any("steps 0 to 8" in fact for fact in d.facts)


def test_two_mistakes_are_found_together_and_neither_alone() -> None:
    spec = stack()
    weights = dict(spec["layer_0"].weights)
    weights["b_f"] = weights["b_f"] + 1
    wrong = by_the_oracle(spec, weights) - spec["layer_1"].weights["bias"]
    d = npylstm.diagnose(spec, X, wrong)
    proven = [cause for cause in d.causes if cause.passed]
    assert proven
    for cause in proven:
        assert cause.spec is not None
        np.testing.assert_allclose(Model(cause.spec, "numpy").predict(X), wrong, atol=4e-6)


def test_activations_show_the_first_layer_that_differs() -> None:
    spec = make_chain(
        LSTM(3, 5, return_sequences=True), LSTM(5, 5, return_sequences=True), Dense(5, 2)
    )
    first, _ = oracle.lstm(spec["layer_0"].weights, X)
    wrong = {k: 0 * a if k[0] == "b" else a for k, a in spec["layer_1"].weights.items()}
    second, _ = oracle.lstm(wrong, first)
    y = oracle.dense(spec["layer_2"].weights, second)
    inside = {"layer_0": first.astype("f4"), "layer_1": second.astype("f4")}
    d = npylstm.diagnose(spec, X, y.astype("f4"), activations=inside)
    assert d.first_bad_layer == "layer_1"
    assert [(c.kind, c.layer, c.passed) for c in d.causes] == [("bias_missing", "layer_1", True)]
    with pytest.raises(ShapeError, match=r"no tensor 'lstm', the model has: layer_0, layer_1"):
        npylstm.diagnose(spec, X, y, activations={"lstm": first})
    with pytest.raises(ShapeError, match=r"layer_0: expected shape \(3, 9, 5\), got \(3, 5\)"):
        npylstm.diagnose(spec, X, y, activations={"layer_0": first[:, 0]})


@pytest.mark.parametrize(("rows", "proven"), [(2, False), (12, True)])
def test_a_fit_of_as_many_numbers_as_data_proves_nothing(rows: int, proven: bool) -> None:
    spec = make_chain(LSTM(3, 6), Dense(6, 1))
    x = RNG.normal(size=(rows, 5, 3)).astype("f4")
    y = oracle.lstm(spec["layer_0"].weights, x)[0][:, -1]
    other = RNG.normal(size=(6, 1))
    wrong = (y @ other + 0.3).astype("f4")
    d = npylstm.diagnose(spec, x, wrong)
    assert [c.kind for c in d.causes if c.passed] == (["weights_stale"] if proven else [])


def test_a_model_that_amplifies_rounding_proves_nothing() -> None:
    """Anything would agree with a corrected model whose outputs are noise."""
    spec = stack()
    wrong = by_the_oracle(spec) + RNG.normal(size=(3, 9, 2)).astype("f4")
    big = replace(spec["layer_0"], weights={k: 60 * a for k, a in spec["layer_0"].weights.items()})
    chaotic = replace(spec, layers=(big, spec["layer_1"]))
    assert not any(c.passed for c in npylstm.diagnose(chaotic, X, wrong).causes)


def two_heads() -> ModelSpec:
    rng = np.random.default_rng(1)
    layers = [
        make_layer(n, k, rng) for n, k in (
            ("lstm", LSTM(3, 6)), ("a", Dense(6, 2)), ("b", Dense(6, 2)),
        )
    ]  # fmt: skip
    edges = (Edge.call(layers[0], "x"), Edge.call(layers[1], "lstm"), Edge.call(layers[2], "lstm"))
    return ModelSpec(tuple(layers), edges, (TensorSpec("x", ("batch", "steps", 3)),), ("a", "b"))


def test_outputs_come_by_order_or_by_name() -> None:
    spec = two_heads()
    h = oracle.lstm(spec["lstm"].weights, X)[0][:, -1]
    a, b = (oracle.dense(spec[k].weights, h).astype("f4") for k in "ab")
    assert npylstm.diagnose(spec, X, [a, b]).agrees
    assert npylstm.diagnose(spec, X, {"b": b, "a": a}).agrees
    assert npylstm.diagnose(spec, X, [b, a]).causes[0].kind in ("output_order", "layers_swapped")
    wrong = npylstm.diagnose(spec, X, {"a": a, "b": b + 1})
    assert "these outputs agree: a" in wrong.facts
    with pytest.raises(ShapeError, match=r"expected 2 arrays for \['a', 'b'\], got 3"):
        npylstm.diagnose(spec, X, [a, b, a])
    with pytest.raises(ShapeError, match=r"output 'b': expected shape \(3, 2\).*got \(3, 3\)"):
        npylstm.diagnose(spec, X, [a, np.zeros((3, 3))])


def test_text_is_no_output() -> None:
    with pytest.raises(ShapeError, match="real numbers"):
        npylstm.diagnose(stack(), X, np.full((3, 9, 2), "a"))


def test_infinite_outputs_are_diagnosed_without_a_warning() -> None:
    spec = stack()
    wrong = by_the_oracle(spec)
    wrong[0, 3] = np.inf
    wrong[1, 2] = np.nan
    assert not any(c.passed for c in npylstm.diagnose(spec, X, wrong).causes)


@pytest.mark.parametrize("layer", [
    LayerNormalization((2,), 1e-3), Dense(2, 2, Activation.of("softmax")),
    Dense(2, 3, Activation.of("relu", negative_slope=0.1)),
])  # fmt: skip
def test_a_diagnosis_depends_on_the_cases_of_a_report(layer: Operation) -> None:
    """A stored model that was changed after recording: its report names the change."""
    spec = make_chain(LSTM(3, 2, return_sequences=True), layer)
    (y,) = spec.outputs
    right = Model(spec.astype("float64"), "numpy")
    cases = [Case({"x": x}, {y: right.predict(x).astype("f4")}) for x in (X, X[:1, :4])]
    first = replace(
        spec["layer_0"], layer=replace(spec["layer_0"].layer, activation=Activation("relu"))
    )
    changed = replace(spec, layers=(first, spec["layer_1"])).with_cases(cases)
    report = Model(changed, "numpy").verify()
    assert not report.passed
    assert report.diagnosis is not None
    assert report.diagnosis is report.diagnosis
    cause = report.diagnosis.causes[0]
    assert (cause.kind, cause.layer, cause.detail["to"]) == ("activation", "layer_0", "tanh")
    assert cause.passed
    assert "activation" in str(report)
    assert report.to_json()["diagnosis"]["causes"][0]["kind"] == "activation"
    assert Model(spec.with_cases(cases), "numpy").verify().diagnosis is None


def test_the_command_line(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    spec = stack()
    npylstm.save(spec, tmp_path / "m.npz")
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", by_the_oracle(spec))
    line = [
        "diagnose",
        str(tmp_path / "m.npz"),
        "--input",
        str(tmp_path / "x.npy"),
        "--backend",
        "numpy",
    ]
    assert main([*line, "--output", str(tmp_path / "y.npy")]) == 0
    assert "agree" in capsys.readouterr().out
    np.save(tmp_path / "z.npy", by_the_oracle(spec, exchanged(spec["layer_0"].weights, "i", "f")))
    assert main([*line, "--output", str(tmp_path / "z.npy"), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["causes"][0]["detail"] == {"order": "f i c o"}
    np.save(tmp_path / "short.npy", X[:, :, 0])
    assert main([*line, "--output", str(tmp_path / "short.npy")]) == 2
    assert "expected shape (3, 9, 2)" in capsys.readouterr().err


def test_a_factor_and_an_offset_of_the_outputs_are_fitted() -> None:
    spec = make_chain(LSTM(3, 4), Arithmetic("multiply", 2.0))
    y = (3 * 2 * oracle.lstm(spec["layer_0"].weights, X)[0][:, -1] + 1).astype("f4")
    cause = npylstm.diagnose(spec, X, y).causes[0]
    assert (cause.kind, cause.detail["factor"], cause.detail["offset"]) == ("scaling", 3.0, 1.0)


@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("other", ["scaled", "other weights"])
def test_cells_inside_a_wrapper_are_no_product(sequences: bool, other: str) -> None:
    inner = SimpleRNN(3, 4, return_sequences=sequences)
    shape = ("batch", "steps", 5, 3)
    spec = make_chain(TimeDistributed(inner), shape=shape)
    x = RNG.normal(size=(3, 6, 5, 3)).astype("f4")
    y = Model(spec, "numpy").predict(x) * np.float32(1.0004)
    if other == "other weights":
        y = Model(make_chain(TimeDistributed(inner), shape=shape, seed=5), "numpy").predict(x)
    for cause in npylstm.diagnose(spec, x, y).causes:
        assert cause.kind in VOCABULARY
