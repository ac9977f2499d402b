"""Functions of NumPy in place of layers: their shapes, masks, and names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest
import tensorflow as tf
from keras_custom_layers import (
    BOTH,
    EVERY_WAY,
    IDS,
    REGISTERED,
    Function,
    build,
    np_additive,
    np_last,
    np_mean,
    np_turned,
    np_twice,
    runs_of,
    source_of,
)
from keras_graphs import FRAMEWORKS, assert_parity

import npylstm
from npylstm import FormatError, ShapeError, UnsupportedError

SHAPES: dict[str, tuple[Function, tuple[Any, ...]]] = {
    "all": (np_twice, ("batch", "steps", 4)),
    "last": (np_last, ("batch", 4)),
    "turned": (np_turned, ("batch", 4, "steps")),
    "one_step": (lambda x: x[:, -1:], ("batch", 1, 4)),
    "first_feature": (lambda x: x[..., 0], ("batch", "steps")),
    "number": (lambda x: x.max(axis=(1, 2)), ("batch",)),
    "wider": (lambda x: np.concatenate([x, x], axis=2), ("batch", "steps", 8)),
    "square": (lambda x: np.einsum("btf,bsf->bts", x, x), ("batch", "steps", "steps")),
    "more_axes": (lambda x: x[:, :, None, :, None], ("batch", "steps", 1, 4, 1)),
    "float64": (lambda x: x.astype("float64").mean(axis=1), ("batch", 4)),
    "list": (lambda x: x[:, -1].tolist(), ("batch", 4)),
    "whole": (lambda x: (x[:, -1] > 1).astype(int), ("batch", 4)),
}


def lambda_model(framework: str, steps: int | None = None) -> Any:
    k = FRAMEWORKS[framework]
    x = k.Input((steps, 4))
    return k.Model(x, k.layers.Lambda(lambda t: t[:, -1], name="own")(x))


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_are_found_out(name: str, backend: str, tmp_path: Path) -> None:
    function, expected = SHAPES[name]
    spec = nc.from_keras(lambda_model("keras3"), custom={"own": function})
    assert [t.shape for t in spec.output_specs] == [expected]
    npylstm.save(spec, tmp_path / "m.npz")
    model = npylstm.load(tmp_path / "m.npz", backend, {"own": function})
    assert [t.shape for t in model.outputs] == [expected]
    rng = np.random.default_rng(0)
    for batch, steps in ((1, 1), (2, 4), (5, 4), (3, 11)):
        x = rng.normal(size=(batch, steps, 4)).astype("float32")
        y = np.asarray(model.predict(x))
        np.testing.assert_array_equal(y, np.asarray(function(x)).astype("float32"))
        assert y.dtype == np.float32
        parts = np.asarray(model.predict(x, batch_size=2, threads=2))
        np.testing.assert_array_equal(parts, y)


@pytest.mark.parametrize("steps", [3, 5, 7, 11, 13, 17])
def test_sizes_that_are_not_free_stay_numbers(steps: int) -> None:
    spec = nc.from_keras(lambda_model("keras3", steps), custom={"own": np_turned})
    assert [t.shape for t in spec.output_specs] == [("batch", 4, steps)]


REFUSED: dict[str, tuple[Function, str]] = {
    "steps_doubled": (lambda x: np.concatenate([x, x], axis=1), "axis 1 of what its function"),
    "steps_cut": (lambda x: x[:, 1:], "axis 1 of what its function"),
    "batch_doubled": (lambda x: np.concatenate([x, x]), "batch"),
    "flat": (lambda x: x.reshape(len(x), -1), "axis 1 of what its function"),
    "data_dependent": (lambda x: x[x > 1], "batch"),
    "axes_by_size": (lambda x: x if len(x) == 3 else x[:, 0], "batch"),
    "raises": (lambda x: x @ np.ones((9, 9)), "fails on inputs .*: ValueError: "),
    "divides": (lambda x: 1 // 0, "ZeroDivisionError: "),
    "asks_for_weights": (lambda x, weights: x, "TypeError: .*weights"),
    "two_inputs": (lambda a, b: a, "TypeError: "),
    "text": (lambda x: "text", "ValueError: "),
    # Every sample of the batch by itself: the batch comes first.
    "one_sample": (lambda x: x[0], "batch"),
    "mean_of_samples": (lambda x: x.mean(axis=0), "batch"),
    "no_axes": (lambda x: x.sum(), "batch"),
    "batch_last": (lambda x: x.T, "batch"),
    "two_outputs": (lambda x: [x, x], "batch"),
    "nothing": (lambda x: None, "batch"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_functions_that_cannot_stand_in(name: str) -> None:
    function, reason = REFUSED[name]
    with pytest.raises(UnsupportedError, match=f"own: .*{reason}") as caught:
        nc.from_keras(lambda_model("keras3"), custom={"own": function})
    assert len(caught.value.reasons) == 1


def test_free_sizes_joined_into_one_are_refused() -> None:
    k = FRAMEWORKS["keras3"]
    a, b = k.Input((None, 3), name="a"), k.Input((None, 3), name="b")
    join = k.layers.Lambda(lambda t: tf.concat(t, axis=1), name="join", output_shape=(None, 3))
    model = k.Model([a, b], join([a, b]))
    with pytest.raises(UnsupportedError, match=r"join: axis 1 .* as no axis of the inputs has"):
        nc.from_keras(model, custom={"join": lambda a, b: np.concatenate([a, b], axis=1)})


def test_the_shape_that_was_promised_is_kept(backend: str, tmp_path: Path) -> None:
    spec = nc.from_keras(lambda_model("keras3"), custom={"own": np_last})
    npylstm.save(spec, tmp_path / "m.npz")
    others: tuple[Function, ...] = (np_twice, lambda x: x[:, -1, :3], lambda x: x.sum())
    for other in others:
        model = npylstm.load(tmp_path / "m.npz", backend, {"own": other})
        with pytest.raises(ShapeError, match=r"'own': expected a result of shape \(2, 4\), got"):
            model.predict(np.zeros((2, 3, 4)))


def test_called_again_on_another_shape() -> None:
    k = FRAMEWORKS["keras3"]
    a, b = k.Input((4, 3)), k.Input((5, 3))
    twice = k.layers.Lambda(lambda t: 2 * t, name="twice")
    model = k.Model([a, b], [twice(a), twice(b)])
    with pytest.raises(UnsupportedError, match="twice: gives another shape when it is called"):
        nc.from_keras(model, custom={"twice": np_twice})


# --- masks ---------------------------------------------------------------------------------------


@EVERY_WAY
@BOTH
def test_a_mask_that_reaches_a_function_is_refused(
    framework: str, way: str, tmp_path: Path
) -> None:
    k = FRAMEWORKS[framework]
    x = k.Input((None,), dtype="int32")
    y = k.layers.Embedding(IDS, 4, mask_zero=True)(x)
    y = k.layers.LSTM(4, return_sequences=True)(y)
    model = k.Model(x, REGISTERED[framework]["Masked"](name="own")(y))
    with pytest.raises(UnsupportedError, match="own: a mask"):
        nc.from_keras(source_of(model, way, tmp_path), custom={"own": np_mean})


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "layer", "class_name"),
    [("lstm_additive", "pool", "Additive"), ("gap", "gap", "Gap"), ("last", "pick", "Lambda")],
)
@EVERY_WAY
@BOTH
def test_without_a_function_layer_and_class_are_named(
    framework: str, way: str, name: str, layer: str, class_name: str, tmp_path: Path
) -> None:
    source = source_of(build(framework, name), way, tmp_path)
    with pytest.raises(UnsupportedError) as caught:
        nc.from_keras(source)
    (reason,) = caught.value.reasons
    assert reason.startswith(f"{layer}: ")
    assert class_name in reason


@EVERY_WAY
@BOTH
def test_with_some_functions_only_the_others_are_named(
    framework: str, way: str, tmp_path: Path
) -> None:
    source = source_of(build(framework, "two_lambdas"), way, tmp_path)
    with pytest.raises(UnsupportedError) as caught:
        nc.from_keras(source, custom={"pick": np_last})
    (reason,) = caught.value.reasons
    assert reason.startswith("twice: ")
    assert "Lambda" in reason


@EVERY_WAY
@BOTH
def test_functions_for_nobody_are_an_error(framework: str, way: str, tmp_path: Path) -> None:
    source = source_of(build(framework, "lstm_additive"), way, tmp_path)
    for name in ("LSTM", "Dense", "Additiv"):
        with pytest.raises(FormatError, match=f"custom: .*{name!r}"):
            nc.from_keras(source, custom={"pool": np_additive, name: np_twice})


@BOTH
def test_a_function_for_a_layer_of_keras_is_an_error(framework: str) -> None:
    k = FRAMEWORKS[framework]
    x = k.Input((None, 3))
    model = k.Model(x, k.layers.LSTM(4, name="mine")(x))
    with pytest.raises(FormatError, match=r"custom: .*'LSTM'"):
        nc.from_keras(model, custom={"LSTM": np_last})
    # By its own name a layer is meant: a file may call a class of the user's by one of Keras'.
    spec = nc.from_keras(model, custom={"mine": lambda x, weights: x[:, -1]}, allow_unused=[])
    assert [layer.kind for layer in spec.layers] == ["external"]


@BOTH
def test_the_name_of_a_layer_comes_before_that_of_its_class(framework: str) -> None:
    model = build(framework, "two_lambdas")
    spec = nc.from_keras(model, custom={"Lambda": np_twice, "pick": np_last})
    assert_parity(spec, runs_of(model, 5))
    functions = {"Lambda": np_twice, "pick": np_last, "twice": np_twice}
    with pytest.raises(FormatError, match=r"custom: .*'Lambda'"):
        nc.from_keras(model, custom=functions)


@pytest.mark.parametrize("inner", ["Lambda", "Scale"])
@BOTH
def test_inside_time_distributed_it_is_refused(framework: str, inner: str) -> None:
    k = FRAMEWORKS[framework]
    x = k.Input((5, 3))
    inside = {
        "Lambda": lambda: k.layers.Lambda(lambda t: 2 * t, name="own"),
        "Scale": lambda: REGISTERED[framework]["Scale"](name="own"),
    }
    model = k.Model(x, k.layers.TimeDistributed(inside[inner](), name="steps")(x))
    with pytest.raises(UnsupportedError, match=rf"steps: .*{inner}"):
        nc.from_keras(model, custom={inner: np_twice})
