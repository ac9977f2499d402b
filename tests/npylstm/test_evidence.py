"""What proves nothing is not taken for a proof: tolerances that hide, outputs that cannot tell.

The outputs of the other program are npylstm's own with one thing changed by hand, so that each
test says itself what is wrong; whether npylstm is right is tested elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from builders import make_chain

import npylstm
from npylstm import Model, ModelSpec
from npylstm.activations import Activation
from npylstm.errors import UnprovenError
from npylstm.ops.arithmetic import Arithmetic, Constant
from npylstm.ops.cells import LSTM, SimpleRNN
from npylstm.ops.dense import Dense
from npylstm.ops.masking import Masking
from npylstm.ops.pointwise import Identity, Rescaling
from npylstm.ops.shaping import Concatenate
from npylstm.spec import Case, Edge, LayerSpec, TensorSpec

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(11)
SEQ: Any = {"return_sequences": True}


def changed(spec: ModelSpec, layer: str, **weights: Array) -> ModelSpec:
    """The model with other weights in one layer."""
    named = spec[layer]
    other = LayerSpec(
        layer,
        named.layer,
        {**named.weights, **{k: np.asarray(w, "f4") for k, w in weights.items()}},
    )
    return replace(spec, layers=tuple(other if n.name == layer else n for n in spec.layers))


def verified(spec: ModelSpec, x: Array, y: Any) -> npylstm.ParityReport:
    outputs = y if isinstance(y, Mapping) else {spec.outputs[0]: y}
    return Model(spec, "numpy").verify([Case({"x": x}, outputs)], "another program")


def run(spec: ModelSpec, x: Array) -> Array:
    y = Model(spec, "numpy").predict(x)
    assert isinstance(y, np.ndarray)
    return y


# ---------------------------------------------------------------- tolerances


@pytest.mark.parametrize("factor", [1e-3, 1e3, 1e6])
def test_a_large_feature_lends_a_small_one_no_tolerance(factor: float) -> None:
    spec = make_chain(LSTM(3, 6, **SEQ), Dense(6, 2))
    kernel = spec["layer_1"].weights["kernel"] * np.array([1.0, factor])
    spec = changed(spec, "layer_1", kernel=kernel)
    x = RNG.normal(size=(4, 9, 3)).astype("f4")
    y = run(spec, x)
    assert verified(spec, x, y).passed
    for feature in (0, 1):
        wrong = y.copy()
        wrong[..., feature] *= -1
        report = verified(spec, x, wrong)
        assert not report.passed
        assert report.outputs[0].where["feature"] == feature


@pytest.mark.parametrize("factor", [1e-2, 1e-4, 1e-8])
def test_small_outputs_are_judged_by_their_own_size(factor: float) -> None:
    spec = make_chain(LSTM(3, 6), Dense(6, 2))
    head = spec["layer_1"].weights
    small = {k: w * factor for k, w in head.items()}
    spec = changed(spec, "layer_1", **small)
    x = RNG.normal(size=(4, 9, 3)).astype("f4")
    y = run(spec, x)
    assert np.abs(y).max() < 3 * factor
    nearby = y * np.float32(1 + 2e-7)  # a rounding of another program's
    assert verified(spec, x, nearby).passed
    assert not verified(spec, x, -y).passed
    assert not verified(spec, x, (y * 1.001).astype("f4")).passed


def test_a_late_step_lends_an_early_one_no_tolerance() -> None:
    """A chaotic recurrence: the last steps are noise, the first ones are not."""
    spec = make_chain(SimpleRNN(3, 12, **SEQ), Dense(12, 2))
    spec = changed(spec, "layer_0", U_h=spec["layer_0"].weights["U_h"] * 7)
    x = RNG.normal(size=(3, 60, 3)).astype("f4")
    y = run(spec, x)
    late, early = y.copy(), y.copy()
    late[:, -1] += 0.05
    early[:, 1] += 0.05
    report = verified(spec, x, y)
    assert report.passed
    tolerances = report.comparisons[0].tolerances[:, :, 0].max(axis=0)
    assert tolerances[-1] > 1e3 * tolerances[1]
    assert np.all(np.diff(tolerances) >= 0)
    assert verified(spec, x, late).passed
    assert not verified(spec, x, early).passed
    assert verified(spec, x, early).outputs[0].where["step"] == 1


def test_masks_are_held_where_rounding_is_measured() -> None:
    """Moved by a unit, padding behind a rescaling would be padding no more."""
    cell = make_chain(LSTM(3, 5))["layer_0"]
    layers = (
        LayerSpec("twice", Rescaling(2.0, 2.0)), LayerSpec("masking", Masking(0.0)),
        LayerSpec("lstm", LSTM(3, 5, masked=True), cell.weights),
    )  # fmt: skip
    edges = (
        Edge("twice", ("x",), ("twice",)),
        Edge("masking", ("twice",), ("masking", "masking/mask")),
        Edge("lstm", ("masking", "masking/mask"), ("lstm",)),
    )
    inputs = (TensorSpec("x", ("batch", 6, 3)),)
    spec = ModelSpec(layers, edges, inputs, ("lstm",))
    x = RNG.normal(size=(4, 6, 3)).astype("f4")
    x[1:, 3:] = -1.0
    y = run(spec, x)
    assert verified(spec, x, y).passed
    unaware = (*layers[:2], LayerSpec("lstm", LSTM(3, 5), cell.weights))
    ignoring = ModelSpec(
        unaware, (*edges[:2], Edge("lstm", ("masking",), ("lstm",))), inputs, ("lstm",)
    )
    unmasked = run(ignoring, x)
    assert np.abs(unmasked - y).max() > 1e-2
    report = verified(spec, x, unmasked)
    assert not report.passed
    assert report.outputs[0].tolerance < 1e-4
    (cause, *_) = npylstm.diagnose(spec, x, unmasked).causes
    assert (cause.kind, cause.passed) == ("mask", True)


# ---------------------------------------------------------------- outputs that cannot tell


DEAD = {
    "relu": ("relu", -50.0),
    "sigmoid": ("sigmoid", 60.0),
    "tanh": ("tanh", -60.0),
    "softmax": ("softmax", np.array([80.0, 0.0])),
}


@pytest.mark.parametrize("name", DEAD)
def test_saturated_outputs_prove_nothing(name: str) -> None:
    activation, bias = DEAD[name]
    spec = make_chain(LSTM(3, 5), Dense(5, 2, Activation(activation)))
    spec = changed(spec, "layer_1", bias=np.zeros(2) + bias)
    x = RNG.normal(size=(4, 7, 3)).astype("f4")
    y = run(spec, x)
    for judge in (verified, npylstm.diagnose):
        with pytest.raises(UnprovenError, match="layer_1: no value of any case can prove anything"):
            judge(spec, x, y)


def test_an_output_of_which_nothing_is_proven_is_named() -> None:
    body = make_chain(LSTM(3, 5), Dense(5, 2))
    dead = make_chain(Dense(5, 2, Activation("relu")), shape=("batch", 5), seed=3)["layer_0"]
    dead = LayerSpec("dead", dead.layer, {**dead.weights, "bias": np.full(2, -50, "f4")})
    edges = (*body.edges, Edge("dead", ("layer_0",), ("dead",)))
    spec = replace(body, layers=(*body.layers, dead), edges=edges, outputs=("layer_1", "dead"))
    x = RNG.normal(size=(4, 7, 3)).astype("f4")
    y = Model(spec, "numpy").predict(x)
    report = verified(spec, x, y)
    assert report.passed
    assert report.unproven == ("dead",)
    assert report.verdict.endswith("nothing is proven of dead")
    assert report.to_json()["unproven"] == ["dead"]


def test_a_dead_relu_proves_no_cause() -> None:
    spec = make_chain(LSTM(3, 5), Dense(5, 3, Activation("relu")))
    x = RNG.normal(size=(5, 7, 3)).astype("f4")
    zeros = np.zeros((5, 3), "f4")
    inside = {
        "layer_0": Model(spec.subgraph(["x"], ["layer_0"]), "numpy").predict(x),
        "layer_1": zeros,
    }
    for activations in ({}, inside):
        found = npylstm.diagnose(spec, x, zeros, activations=activations)
        assert not any(cause.passed for cause in found.causes)


@pytest.mark.parametrize("seed", range(6))
def test_random_bits_prove_no_cause(seed: int) -> None:
    rng = np.random.default_rng(seed)
    spec = make_chain(LSTM(3, 4), Dense(4, 2, Activation("sigmoid")))
    spec = changed(spec, "layer_1", kernel=spec["layer_1"].weights["kernel"] * 300)
    x = rng.normal(size=(3, 6, 3)).astype("f4")
    bits = rng.integers(0, 2, (3, 2)).astype("f4")
    found = npylstm.diagnose(spec, x, bits)
    assert not any(cause.passed for cause in found.causes)


@pytest.mark.parametrize("width", [2, 4, 8])
def test_one_sample_repeated_is_one_sample(width: int) -> None:
    spec = make_chain(LSTM(3, width), Dense(width, 3))
    x = np.repeat(RNG.normal(size=(1, 6, 3)), 20, axis=0).astype("f4")
    x += 1e-7 * RNG.normal(size=x.shape).astype("f4")  # as another program's rounding
    y = run(spec, x) + np.float32([0.02, -0.03, 0.05])
    found = npylstm.diagnose(spec, x, y)
    assert not any(cause.passed for cause in found.causes)


def test_constant_outputs_are_no_scaled_ones() -> None:
    spec = make_chain(LSTM(3, 6), Dense(6, 2))
    x = RNG.normal(size=(8, 6, 3)).astype("f4")
    found = npylstm.diagnose(spec, x, np.tile(np.float32([[0.37, 0.54]]), (8, 1)))
    assert not any(cause.passed for cause in found.causes)


def two_outputs() -> ModelSpec:
    """A sequence, and one number a sample."""
    body = make_chain(LSTM(3, 5, **SEQ), Dense(5, 2), Identity())
    last = make_chain(LSTM(5, 4), Dense(4, 1), shape=("batch", "steps", 5), seed=5)
    named = [
        LayerSpec(n, last[o].layer, last[o].weights)
        for n, o in (("b", "layer_0"), ("c", "layer_1"))
    ]
    edges = (*body.edges[:2], Edge("b", ("layer_0",), ("b",)), Edge("c", ("b",), ("c",)))
    return replace(body, layers=(*body.layers[:2], *named), edges=edges, outputs=("layer_1", "c"))


def test_one_output_does_not_vouch_for_another() -> None:
    spec = two_outputs()
    x = RNG.normal(size=(2, 20, 3)).astype("f4")
    a, b = Model(spec, "numpy").predict(x).values()
    found = npylstm.diagnose(spec, x, [2 * a + 1, b + np.float32([[0.3], [-0.9]])])
    assert not any(cause.passed for cause in found.causes)


def test_outputs_that_were_scaled_each_in_its_own_way() -> None:
    spec = two_outputs()
    x = RNG.normal(size=(8, 20, 3)).astype("f4")
    a, b = Model(spec, "numpy").predict(x).values()
    (cause, *_) = npylstm.diagnose(spec, x, [2 * a + 1, 30 * b - 5]).causes
    assert cause.passed
    assert cause.detail["factor"] == pytest.approx({"layer_1": 2.0, "c": 30.0}, rel=1e-4)
    assert cause.detail["offset"] == pytest.approx({"layer_1": 1.0, "c": -5.0}, rel=1e-4)
    assert "layer_1: (2, 1)" in cause.fix


def test_outputs_that_are_true_or_false_are_taken_as_numbers() -> None:
    spec = make_chain(LSTM(3, 5), Dense(5, 2))
    x = RNG.normal(size=(5, 7, 3)).astype("f4")
    found = npylstm.diagnose(spec, x, run(spec, x) > 0)
    assert not found.agrees
    masked = np.ma.masked_array(run(spec, x), mask=True)
    with pytest.raises(npylstm.ShapeError, match="masked arrays are not compared"):
        npylstm.diagnose(spec, x, masked)


@pytest.mark.parametrize("time_major", [False, True])
def test_a_reset_inside_a_layer_is_found_in_either_layout(time_major: bool) -> None:
    shape = ("steps", "batch", 3) if time_major else ("batch", "steps", 3)
    cells = [LSTM(3, 4, time_major=time_major, **SEQ), LSTM(4, 4, time_major=time_major, **SEQ)]
    spec = make_chain(*cells, Dense(4, 2), shape=shape)
    x = RNG.normal(size=(24, 5, 3)).astype("f4")
    x = x if time_major else x.swapaxes(0, 1)
    axis = 0 if time_major else 1
    first = Model(spec.subgraph(["x"], ["layer_0"]), "numpy").predict(x)
    rest = Model(spec.subgraph(["layer_0"], ["layer_2"]), "numpy")
    parts = [rest.predict(part) for part in np.split(first, 3, axis)]
    (cause, *_) = npylstm.diagnose(spec, x, np.concatenate(parts, axis)).causes
    assert (cause.kind, cause.layer, cause.passed) == ("initial_state", "layer_1", True)
    assert cause.detail["steps"] == 8


def test_a_concatenation_of_sizes() -> None:
    """Two heads joined along the features: each is judged by itself."""
    body = make_chain(LSTM(3, 5), Dense(5, 1))
    other = make_chain(Dense(5, 1), shape=("batch", 5), seed=9)["layer_0"]
    small = LayerSpec(
        "small", other.layer, {k: w * np.float32(1e-6) for k, w in other.weights.items()}
    )
    join = LayerSpec("join", Concatenate(1))
    edges = (
        *body.edges, Edge("small", ("layer_0",), ("small",)), Edge("join", ("layer_1", "small"), ("join",)),
    )  # fmt: skip
    spec = replace(body, layers=(*body.layers, small, join), edges=edges, outputs=("join",))
    x = RNG.normal(size=(6, 7, 3)).astype("f4")
    y = run(spec, x)
    y[:, 1] *= -1
    assert not verified(spec, x, y).passed


def test_constants_are_read_without_an_input() -> None:
    """A layer that reads nothing stands in the graph of a learnt state."""
    body = make_chain(LSTM(3, 5), Dense(5, 4))
    shift = LayerSpec("shift", Constant((1, 4)), {"value": RNG.normal(size=(1, 4)).astype("f4")})
    add = LayerSpec("add", Arithmetic("add"))
    edges = (
        *body.edges,
        Edge("shift", (), ("shift",)),
        Edge("add", ("layer_1", "shift"), ("add",)),
    )
    spec = replace(body, layers=(*body.layers, shift, add), edges=edges, outputs=("add",))
    x = RNG.normal(size=(4, 7, 3)).astype("f4")
    y = run(spec, x)
    assert verified(spec, x, y).passed
    assert not verified(spec, x, y + np.float32(1e-3)).passed
