"""General Keras graphs: several inputs and outputs, shared layers, nested models, merges, states.

Each model is built with Keras 3 and with tf_keras, saved in every way, converted, and compared with
the framework's own outputs. The graphs that people saved with Keras 1 and 2 are written by hand.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import keras
import npylstm_converters as nc
import numpy as np
import pytest
from keras_graph_models import built
from keras_graph_registry import GRAPHS, Builder
from keras_graphs import (
    BACKENDS,
    FRAMEWORKS,
    IDS,
    WAYS,
    assert_parity,
    convert,
    flat,
    make_inputs,
    randomise,
    run,
)

import npylstm
from npylstm import Model
from npylstm.cli import main


def every_way() -> list[tuple[str, str, str]]:
    """Models in models and shared layers in all ways, the others in some: they lie alike in files."""
    # Names that one framework refuses, weights of one name that it cannot write.
    impossible = {
        *(("a_layer_has_the_name_that_a_second_call_gets", "tf_keras", way) for way in WAYS),
        ("nested_models_of_one_name_at_two_depths", "tf_keras", "h5"),
        ("nested_models_of_one_name_at_two_depths", "tf_keras", "json"),
    }
    own = {  # what one framework alone can build
        "keras3": ["a_nested_sequential_returns_states", "a_nested_model_of_two_outputs_ends_a_sequential", "merges_of_one_tensor"],
        "tf_keras": ["names_with_slashes"],
    }  # fmt: skip
    for framework, names in own.items():
        others = FRAMEWORKS.keys() - {framework}
        impossible |= {(name, f, way) for name in names for f in others for way in WAYS}
    both = [(framework, way) for framework in FRAMEWORKS for way in WAYS]
    some = [("keras3", "keras"), ("keras3", "json"), ("tf_keras", "h5"), ("tf_keras", "live")]
    few = [("keras3", "keras"), ("tf_keras", "h5")]  # merges, which hold no weights

    def ways(name: str) -> list[tuple[str, str]]:
        words = {"shared", "nested", "model", "models", "layer", "call", "siamese", "deep"}
        return few if name[0].isupper() else both if words & {*name.split("_")} else some

    todo = [(name, *way) for name in GRAPHS for way in ways(name)]
    return [entry for entry in todo if entry not in impossible]


@pytest.mark.parametrize(("name", "framework", "way"), every_way())
@pytest.mark.one_in(3)
def test_graph(name: str, framework: str, way: str, tmp_path: Path) -> None:
    model, runs = built(framework, name)
    spec = convert(model, way, tmp_path)
    assert_parity(spec, runs)
    npylstm.save(spec, tmp_path / "model.npz")
    again, before = npylstm.load(tmp_path / "model.npz", "numpy"), Model(spec, "numpy")
    xs = {t.name: x for t, x in zip(spec.inputs, runs[0][0], strict=True)}
    for one, other in zip(flat(again.predict(xs)), flat(before.predict(xs)), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_ids_that_are_floats(framework: str, tmp_path: Path) -> None:
    """An Input is one of floats unless told otherwise, also before an Embedding."""
    k = FRAMEWORKS[framework]
    L, a, b = k.layers, k.Input((None,), name="a"), k.Input((None,), name="b")
    embedding = L.Embedding(IDS, 3, name="embedding")
    model = k.Model([a, b], L.LSTM(4, name="lstm")(L.Add(name="sum")([embedding(a), embedding(b)])))
    randomise(model, 9)
    xs = [np.random.default_rng(n).integers(0, IDS, (3, 6)).astype("float32") for n in range(2)]
    spec = convert(model, "keras", tmp_path)
    y = run(model, xs)
    for backend in BACKENDS:
        for kind in ("float32", "int64"):
            ours = Model(spec, backend).predict([x.astype(kind) for x in xs])
            np.testing.assert_allclose(ours, y[0], atol=1e-6, rtol=0)
    assert_parity(spec, [(xs, y)])


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("siamese", "difference"),
        ("state_from_another_lstm", "decoder"),
        ("Concatenate_axis_1_of_4", "both"),
        ("a_nested_model_called_twice", "minus"),
    ],
)
def test_crossed_wires_would_be_noticed(name: str, layer: str) -> None:
    model, runs = built("keras3", name)
    spec = nc.from_keras(model)
    edges = tuple(
        dataclasses.replace(e, inputs=(*e.inputs[:-2], e.inputs[-1], e.inputs[-2])) if e.layer == layer else e
        for e in spec.edges
    )  # fmt: skip
    assert edges != spec.edges
    with pytest.raises(npylstm.ParityError, match="parity FAILED"):
        assert_parity(dataclasses.replace(spec, edges=edges), runs)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_double_precision(framework: str, tmp_path: Path) -> None:
    k = FRAMEWORKS[framework]
    k.backend.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        model = GRAPHS["attention"](k)
        randomise(model, 8)
        xs = [x.astype("float64") for x in make_inputs(model, 3, 6, 8)]
        runs = [(xs, run(model, xs))]
    finally:
        k.backend.set_floatx("float32")
        keras.config.set_dtype_policy("float32")
    spec = convert(model, "h5", tmp_path)
    assert spec.dtype == "float64"
    assert runs[0][1][0].dtype == np.float64
    assert_parity(spec, runs)


# Names and order.


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(
    ("name", "inputs", "outputs"),
    [
        ("two_inputs_two_outputs", ("a", "b"), ("head_1", "head_3")),
        ("outputs_in_another_order", ("a",), ("third", "first", "second")),
        ("inputs_in_another_order", ("c", "a", "b"), ("minus",)),
        ("an_input_is_an_output", ("a", "b"), ("b", "both", "a")),
        ("calls_of_a_shared_layer_are_outputs", ("a", "b"), ("lstm#2", "lstm")),
        ("a_layer_on_its_own_output", ("a",), ("lstm#3",)),
        ("shared_layer_that_returns_its_state", ("a", "b"), ("lstm#2/c", "sum", "lstm/h", "lstm/c", "lstm#2")),
        ("second_call_begins_where_the_first_ended", ("a", "b"), ("lstm#2", "lstm#2/h", "lstm#2/c", "lstm")),
        ("outputs_of_a_nested_model_are_outputs", ("a", "b"), ("inner.lstm", "inner.product")),
        ("encoder_and_decoder_as_nested_models", ("a", "b"), ("decoder.dense", "decoder.dense#2", "decoder.lstm#2/h", "decoder.lstm#2/c")),
        ("a_shared_layer_in_a_nested_model_called_twice", ("a",), ("inner.sum#2",)),
        ("state_and_inputs_in_another_order", ("c", "a", "h"), ("lstm/c", "lstm", "lstm/h")),
    ],
)  # fmt: skip
def test_names(name: str, framework: str, inputs: Any, outputs: Any, tmp_path: Path) -> None:
    model, _ = built(framework, name)
    for way in ("keras", "h5"):
        spec = convert(model, way, tmp_path)
        assert tuple(t.name for t in spec.inputs) == inputs
        assert spec.outputs == outputs


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_shared_layer_is_stored_once(framework: str, tmp_path: Path) -> None:
    model, _ = built(framework, "a_nested_model_called_twice")
    spec = convert(model, "keras", tmp_path)
    names = [layer.name for layer in spec.layers]
    assert sorted(names) == ["encoder.dense", "encoder.lstm", "encoder.lstm_1", "minus"]
    assert spec.parameters == model.count_params()
    kernel = model.get_layer("encoder").get_layer("lstm_1").get_weights()[0]
    np.testing.assert_array_equal(spec["encoder.lstm_1"].weights["W_f"], kernel[:, 3:6])
    calls = {t for edge in spec.edges for t in edge.outputs}
    assert {"encoder.lstm", "encoder.lstm#2", "encoder.dense", "encoder.dense#2"} <= calls


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_layers_of_models_in_models_are_named_by_their_path(framework: str, tmp_path: Path) -> None:
    model, _ = built(framework, "nested_twice_deep")
    names = {layer.name for layer in convert(model, "keras", tmp_path).layers}
    assert names == {"middle.inner.dense_1", "middle.inner.core.lstm", "middle.inner.dense", "middle.gru", "lstm"}  # fmt: skip


def test_every_call_carries_its_own_state(backend: str) -> None:
    keras_model, (run_, _) = built("keras3", "calls_of_a_shared_layer_are_outputs")
    model = Model(nc.from_keras(keras_model), backend)
    assert set(model.spec.state_shapes()) == {"lstm", "lstm#2"}
    (a, b), (z, y) = run_
    _, state = model.predict([a[:, :3], b[:, :3]], return_state=True)
    after = model.predict({"b": b[:, 3:], "a": a[:, 3:]}, state=state)
    np.testing.assert_allclose(after["lstm#2"], z, atol=1e-6, rtol=0)
    np.testing.assert_allclose(after["lstm"], y, atol=1e-6, rtol=0)
    with pytest.raises(npylstm.StateError, match="lstm#2"):
        model.predict([a, b], state={"lstm": state["lstm"]})


def test_a_state_that_the_graph_gives_is_not_carried() -> None:
    for name, calls in [
        ("second_call_begins_where_the_first_ended", {"lstm"}),
        ("state_from_another_lstm", {"encoder"}),
        ("state_from_inputs", set()),
        ("encoder_and_decoder_as_nested_models", {"encoder.lstm"}),
    ]:
        assert set(nc.from_keras(built("keras3", name)[0]).state_shapes()) == calls


def test_inputs_are_checked_by_number_and_name(backend: str) -> None:
    keras_model, (run_, _) = built("tf_keras", "inputs_in_another_order")
    model = Model(nc.from_keras(keras_model), backend)
    c, a, b = run_[0]
    np.testing.assert_array_equal(model.predict({"a": a, "b": b, "c": c}), model.predict([c, a, b]))
    with pytest.raises(npylstm.ShapeError, match=r"expected 3 arrays for \['c', 'a', 'b'\]"):
        model.predict([c, a])
    with pytest.raises(npylstm.ShapeError, match=r"\['c', 'a', 'b'\]"):
        model.predict({"a": a, "b": b, "x": c})


def test_lengths_that_do_not_meet(backend: str) -> None:
    """Free in the config, equal for this model: said by name, not broadcast or crashed."""
    keras_model, _ = built("keras3", "inputs_of_equal_free_lengths_meet")
    model = Model(nc.from_keras(keras_model), backend)
    with pytest.raises(npylstm.ShapeError, match=r"b: expected .*\(steps is 7 in a\)"):
        model.predict([np.zeros((2, 7, 3)), np.zeros((2, 4, 3))])
    keras_model, _ = built("keras3", "inputs_of_different_lengths")
    y = Model(nc.from_keras(keras_model), backend).predict([np.zeros((2, 7, 3)), np.zeros((2, 4, 3))])  # fmt: skip
    assert {v.shape for v in y.values()} == {(2, 2), (2, 4, 3)}


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("size", [1e-8, 0.0])
def test_normalising_what_has_no_length(framework: str, size: float, backend: str) -> None:
    """Below some length the frameworks no longer divide by it: 1e-7 in Keras 3, 1e-6 in Keras 2."""
    name = "Dot_normalised_(2,1)_((5,3),(3,2))"
    keras_model, (run_, _) = built(framework, name)
    a, b = (x.copy() for x in run_[0])
    a[0] *= size
    b[:2] *= size
    expected = run(keras_model, [a, b])[0]
    y = Model(nc.from_keras(keras_model), backend).predict([a, b])
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-9)


# Weights that lie in two places.


def make_layer_inside_and_outside(k: Any) -> Any:
    L, x, a = k.layers, k.Input((None, 3), name="x"), k.Input((None, 3), name="a")
    lstm = L.LSTM(3, return_sequences=True, name="lstm")
    inner = k.Model(x, L.Dense(3, name="dense")(lstm(x)), name="inner")
    return k.Model(a, lstm(inner(a)))


def make_model_at_two_depths(k: Any) -> Any:
    L, x, a = k.layers, k.Input((None, 3), name="x"), k.Input((None, 3), name="a")
    inner = k.Sequential([k.Input((None, 3)), L.LSTM(3, return_sequences=True, name="lstm")], name="inner")  # fmt: skip
    middle = k.Model(x, L.Dense(3, name="dense")(inner(x)), name="middle")
    return k.Model(a, L.Add(name="sum")([inner(a), middle(a)]))


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("build", [make_layer_inside_and_outside, make_model_at_two_depths])
def test_a_layer_in_two_models_at_once(build: Builder, framework: str, tmp_path: Path) -> None:
    """In memory it is one layer; files of it may lack the weights in one place (Keras' own loss)."""
    model = build(FRAMEWORKS[framework])
    randomise(model, 1)
    xs = make_inputs(model, 3, 5, 1)
    runs = [(xs, run(model, xs))]
    assert_parity(nc.from_keras(model), runs)
    for form in ("keras", "h5"):
        try:
            model.save(tmp_path / f"model.{form}")
        except ValueError:  # Keras cannot write it, either
            continue
        try:
            spec = nc.convert(tmp_path / f"model.{form}")
        except npylstm.NpylstmError as error:
            text = str(error)
        else:
            assert_parity(spec, runs)
            continue
        assert any(name in text for name in ("lstm", "inner", "dense")), text


# The command line, with the framework's own runs recorded and repeated.


@pytest.mark.parametrize(
    ("framework", "name", "form"),
    [
        ("keras3", "siamese", "keras"),
        ("keras3", "ids_and_numbers", "h5"),
        ("keras3", "a_nested_model_called_twice", "keras"),
        ("keras3", "one_tensor_is_two_outputs", "keras"),
        ("keras3", "second_call_begins_where_the_first_ended", "h5"),
        ("tf_keras", "siamese", "h5"),
        ("tf_keras", "nested_twice_deep", "keras"),
        ("tf_keras", "encoder_and_decoder_as_nested_models", "h5"),
        ("tf_keras", "attention", "keras"),
        ("tf_keras", "inputs_of_equal_free_lengths_meet", "h5"),
    ],
)
@pytest.mark.one_in(3)
def test_recorded_and_verified(
    framework: str, name: str, form: str, tmp_path: Path, capsys: Any
) -> None:
    model, _ = built(framework, name)
    source, out = tmp_path / f"model.{form}", tmp_path / "model.npz"
    model.save(source)
    assert main(["convert", str(source), str(out), "--record", "8"]) == 0, capsys.readouterr().err
    spec = npylstm.load(out).spec
    assert len(spec.cases) >= 6
    if spec.state_shapes():
        assert any(case.state for case in spec.cases)
    assert main(["verify", str(out)]) == 0
    assert main(["verify", str(out), "--against", str(source)]) == 0
    assert "parity held" in capsys.readouterr().out
    assert main(["info", str(out)]) == 0
