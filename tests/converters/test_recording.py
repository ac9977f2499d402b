"""Recorded cases: they reach the traps, and hold what the framework gave."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import keras
import npylstm_converters as nc
import numpy as np
import pytest
import tf_keras
from backends import BACKENDS
from builders import make_chain, make_layer
from npylstm_converters.keras.runner import KerasRunner

from npylstm import Model, ModelSpec, NpylstmError, ShapeError
from npylstm.ops.cells import LSTM
from npylstm.ops.dense import Dense, Embedding
from npylstm.ops.masking import Masking
from npylstm.spec import Case, Edge, TensorSpec


def spec_of(model: Any) -> Any:
    return nc.from_keras(model)


def stateful(k: Any) -> Any:
    inputs = k.Input(batch_shape=(2, 4, 3))
    y = k.layers.LSTM(5, stateful=True, return_sequences=True, name="a")(inputs)
    y = k.layers.LSTM(4, stateful=True, go_backwards=True, return_state=True, name="b")(y)
    return k.Model(inputs, y)


def test_invented_cases_reach_the_traps() -> None:
    spec = make_chain(LSTM(3, 5), Dense(5, 2))
    cases = nc.make_cases(spec)
    shapes = [case.inputs["x"].shape for case in cases]
    assert {1, 2, 3} <= {s[0] for s in shapes}
    assert min(s[1] for s in shapes) == 1
    assert max(s[1] for s in shapes) >= 50
    assert any(not case.inputs["x"].any() for case in cases)
    assert any(np.abs(case.inputs["x"]).max() > 50 for case in cases)
    carried = [case for case in cases if case.state]
    assert len(carried) >= 2
    h, c = carried[0].state["layer_0"]["h"], carried[0].state["layer_0"]["c"]
    assert h.shape == (3, 5)
    assert not np.array_equal(h, c)  # or a swap of the two would pass
    again = nc.make_cases(spec)
    np.testing.assert_array_equal(again[3].inputs["x"], cases[3].inputs["x"])
    other = nc.make_cases(spec, seed=1)
    assert not np.array_equal(other[3].inputs["x"], cases[3].inputs["x"])
    assert len(nc.make_cases(spec, 20)) == 20
    assert {case.inputs["x"].shape[0] for case in nc.make_cases(spec, sizes={"batch": 7})} == {7}


@pytest.mark.parametrize("k", [keras, tf_keras], ids=["keras3", "tf_keras"])
def test_a_stateful_model_with_several_outputs(k: Any, backend: str) -> None:
    model = stateful(k)
    spec = spec_of(model)
    assert spec.outputs == ("b", "b/h", "b/c")
    recorded = nc.record(spec, KerasRunner(model, spec))
    assert {case.inputs[spec.inputs[0].name].shape[0] for case in recorded.cases} == {2}
    report = Model(recorded, backend).verify()
    report.check()
    assert [o.output for o in report.outputs] == ["b", "b/h", "b/c"]


def test_states_are_really_given_to_the_framework() -> None:
    model = keras.Sequential([keras.Input((None, 3)), keras.layers.LSTM(5)])
    spec = spec_of(model)
    (case,) = [case for case in nc.make_cases(spec) if case.purpose == "state"]
    cases = [case, Case(case.inputs, {}, {})]
    runner = KerasRunner(model, spec)
    with_state, without = nc.record(spec, runner, cases).cases
    name = spec.outputs[0]
    assert np.abs(with_state.outputs[name] - without.outputs[name]).max() > 1e-2


def test_any_function_will_do() -> None:
    spec = make_chain(LSTM(3, 5), Dense(5, 2))
    model = Model(spec, "numpy")
    inputs = np.ones((2, 4, 3))
    for function in (
        model.predict,
        lambda x: [model.predict(x)],
        lambda x: {"layer_1": model.predict(x)},
    ):
        recorded = nc.record(spec, function, cases=[inputs, {"x": inputs * 2}])
        assert len(recorded.cases) == 2
        assert recorded.cases[1].inputs["x"].dtype == np.float32
        assert Model(recorded, "numpy").verify().passed
    assert not any(case.state for case in nc.record(spec, model.predict).cases)


def test_wrong_outputs_are_named() -> None:
    spec = make_chain(LSTM(3, 5))
    with pytest.raises(ShapeError, match=r"the framework gave 2 outputs, expected \['layer_0'\]"):
        nc.record(spec, lambda x: [x, x])
    with pytest.raises(ShapeError, match=r"the framework gave \['y'\], expected \['layer_0'\]"):
        nc.record(spec, lambda x: {"y": x})


def test_keras_1_cannot_be_run_here(keras_data: Any) -> None:
    path = keras_data / "keras1_stacked.h5"
    with pytest.raises(NpylstmError, match="no installed Keras runs models of Keras 1"):
        KerasRunner(path, nc.convert(path))


def test_an_old_file_is_run_by_keras_2_with_its_old_formula(keras_data: Any) -> None:
    path = keras_data / "keras22_stacked.h5"
    spec = nc.convert(path)
    recorded = nc.record(spec, KerasRunner(path, spec))
    assert recorded.provenance["recorded_by"] == f"tf_keras {tf_keras.__version__}"
    Model(recorded, "numpy").verify().check()


def test_a_missing_framework_is_named(keras_data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = keras_data / "tf24_stacked.h5"
    spec = nc.convert(path)
    monkeypatch.setitem(__import__("sys").modules, "tf_keras", None)
    with pytest.raises(NpylstmError, match="needs Keras 2: pip install tf_keras"):
        KerasRunner(path, spec)


@pytest.mark.parametrize("k", [keras, tf_keras], ids=["keras3", "tf_keras"])
def test_a_wrapped_layer_is_run_at_every_length(k: Any) -> None:
    L = k.layers
    layers = [L.LSTM(4, return_sequences=True), L.TimeDistributed(L.Dense(1))]
    model = k.Sequential([k.Input((None, 3)), *layers])
    spec = spec_of(model)
    recorded = nc.record(spec, KerasRunner(model, spec))
    assert len(recorded.cases) >= nc.recording.DEFAULT_CASES
    steps = {case.inputs[spec.inputs[0].name].shape[1] for case in recorded.cases}
    assert min(steps) == 1
    assert max(steps) == 60
    Model(recorded, "numpy").verify().check()


def test_lengths_that_the_model_cannot_take_are_left_out() -> None:
    L = keras.layers
    layers = [L.LSTM(4, return_sequences=True), L.Reshape((-1, 8)), L.Dense(1)]
    model = keras.Sequential([keras.Input((None, 3)), *layers])
    spec = spec_of(model)
    recorded = nc.record(spec, KerasRunner(model, spec))
    steps = {case.inputs[spec.inputs[0].name].shape[1] for case in recorded.cases}
    assert all(n % 2 == 0 for n in steps)  # as many as Reshape takes: 4 n numbers in rows of 8
    assert max(steps) == 60
    assert len(recorded.cases) >= nc.recording.DEFAULT_CASES
    Model(recorded, "numpy").verify().check()


def test_a_failing_framework_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    model = keras.Sequential([keras.Input((None, 3)), keras.layers.LSTM(4)])
    spec = spec_of(model)
    runner = KerasRunner(model, spec)
    monkeypatch.setattr(runner, "_model", lambda *_, **__: 1 / 0)
    monkeypatch.setattr(runner, "_reset", lambda: None)
    with pytest.raises(
        NpylstmError, match=r"Keras .* cannot run the model on shape \(3, 7, 3\): division"
    ):
        nc.record(spec, runner)


@pytest.mark.parametrize("major", [False, True])
def test_a_pinned_batch_is_found_on_its_axis(major: bool) -> None:
    inputs = tf_keras.Input(batch_shape=(5, 2, 3) if major else (2, 5, 3))
    layer = tf_keras.layers.LSTM(4, time_major=major, return_sequences=True)
    model = tf_keras.Model(inputs, layer(inputs))
    spec = spec_of(model)
    assert KerasRunner(model, spec).sizes == {"batch": 2}
    recorded = nc.record(spec, KerasRunner(model, spec))
    Model(recorded, "numpy").verify().check()


def test_a_float64_model_of_a_float32_keras(tmp_path: Any) -> None:
    layers = [keras.layers.LSTM(4, dtype="float64"), keras.layers.Dense(2, dtype="float64")]
    model = keras.Sequential([keras.Input((6, 3), dtype="float64"), *layers])
    spec = spec_of(model)
    assert spec.dtype == "float64"
    for backend in BACKENDS:
        Model(nc.record(spec, KerasRunner(model, spec)), backend).verify().check()


def masked(layer: Any, value: float) -> ModelSpec:
    """A mask made of the input's own values, an LSTM that reads it, and a mean over what counts."""
    rng = np.random.default_rng(0)
    layers = [
        make_layer("first", layer, rng), make_layer("lstm", LSTM(3, 4, masked=True), rng),
    ]  # fmt: skip
    edges = (
        Edge("first", ("x",), ("first", "first/mask")),
        Edge("lstm", ("first", "first/mask"), ("lstm",)),
    )
    integer = layer.kind == "embedding"
    shape = ("batch", "steps") if integer else ("batch", "steps", 3)
    return ModelSpec(tuple(layers), edges, (TensorSpec("x", shape, integer),), ("lstm",))


@pytest.mark.parametrize(("layer", "value"), [
    (Masking(-1.0), -1.0), (Masking(0.0), 0.0), (Embedding(9, 3, mask_zero=True), 0),
])  # fmt: skip
def test_models_with_masks_get_padding_everywhere(layer: Any, value: float) -> None:
    cases = {case.purpose: case for case in nc.make_cases(masked(layer, value))}
    x = cases["padding"].inputs["x"]
    pad = x == value if x.ndim == 2 else (x == value).all(axis=-1)
    behind, front, middle, full, empty = pad
    assert (behind[0], behind[-1]) == (False, True)
    assert (front[0], front[-1]) == (True, False)
    assert (middle[0], middle.any(), middle[-1]) == (False, True, False)
    assert not full.any()
    assert empty.all()
    if x.ndim == 2:
        ids = cases["vocabulary"].inputs["x"]
        assert {0, 8} <= set(ids.ravel().tolist())


def test_a_budget_ends_the_list_and_not_the_conversion() -> None:
    spec = make_chain(LSTM(3, 5))
    model = Model(spec, "numpy")
    recorded = nc.record(spec, model.predict, budget=0.0)
    assert [case.purpose for case in recorded.cases] == ["batch"]
    assert (
        len(nc.record(spec, model.predict, cases=[np.ones((1, 4, 3))] * 3, budget=0.0).cases) == 3
    )


def test_outputs_that_are_never_finite_are_no_cases() -> None:
    spec = make_chain(LSTM(3, 5))
    with pytest.raises(NpylstmError, match="outputs are not finite, whatever the inputs"):
        nc.record(spec, lambda x: np.full((len(x), 5), np.nan, "float32"))


def test_states_that_a_framework_does_not_take_do_not_lose_the_cases() -> None:
    spec = make_chain(LSTM(3, 5))
    model = Model(spec, "numpy")

    class NoStates:
        description, sets_state = "a framework", True
        sizes = MappingProxyType({})

        def __call__(self, inputs: Any, state: Any) -> Any:
            if state:
                raise NpylstmError("no layer takes the state")
            return {"layer_0": model.predict(inputs)}

    recorded = nc.record(spec, NoStates())
    assert len(recorded.cases) >= 8
    assert not any(case.state for case in recorded.cases)
