"""Functions of NumPy in the place of Lambda layers and layer classes of the user's own."""

from __future__ import annotations

import functools
import json
import zipfile
from pathlib import Path
from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest
import tensorflow as tf
from keras_custom_layers import (
    BARE,
    BOTH,
    EVERY_WAY,
    IDS,
    REGISTERED,
    WILD,
    Array,
    build,
    np_additive,
    np_last,
    np_softmax,
    np_twice,
    runs_of,
    source_of,
)
from keras_graphs import FRAMEWORKS, assert_parity, randomise, run

import npylstm
from npylstm import UnsupportedError


def np_bahdanau(x: Array, weights: tuple[Array, ...]) -> Array:
    query, key = weights
    return np.asarray(np.tanh(x @ query) * (x @ key))


# --- models --------------------------------------------------------------------------------------


@functools.cache
def runs(framework: str, name: str, classes: str = "registered") -> list[Any]:
    """What the framework itself computes."""
    return runs_of(build(framework, name, classes), WILD[name].steps)


# --- parity --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WILD)
@EVERY_WAY
@BOTH
def test_parity(framework: str, way: str, name: str, tmp_path: Path) -> None:
    model, wild = build(framework, name), WILD[name]
    source = source_of(model, way, tmp_path)
    spec = nc.convert(source, custom=wild.by_layer)
    external = [layer for layer in spec.layers if layer.kind == "external"]
    assert len(external) == len(wild.by_layer)
    assert_parity(spec, runs(framework, name))
    # The same once more from a file, with the functions given again.
    npylstm.save(spec, tmp_path / "m.npz")
    loaded = npylstm.load(tmp_path / "m.npz", "numpy", custom=wild.by_layer)
    assert loaded.spec.to_json()["layers"] == spec.to_json()["layers"]
    xs = runs(framework, name)[0][0]
    given = xs[0] if len(xs) == 1 else xs
    np.testing.assert_array_equal(
        loaded.predict(given), npylstm.Model(spec, "numpy").predict(given)
    )


@pytest.mark.parametrize("classes", ["registered", "bare"])
@pytest.mark.parametrize("name", ["lstm_additive", "gap", "two_lambdas"])
@EVERY_WAY
@BOTH
def test_parity_with_functions_by_class(
    framework: str, way: str, name: str, classes: str, tmp_path: Path
) -> None:
    model, wild = build(framework, name, classes), WILD[name]
    spec = nc.from_keras(source_of(model, way, tmp_path), custom=wild.by_class)
    names = [e["config"]["name"] for e in spec.to_json()["layers"] if e["kind"] == "external"]
    assert set(names) == set(wild.by_class)
    assert_parity(spec, runs(framework, name, classes))


@BOTH
def test_parity_beside_an_architecture(framework: str, tmp_path: Path) -> None:
    model = build(framework, "lstm_additive")
    name = "m.weights.h5" if framework == "keras3" else "m_weights.h5"
    model.save_weights(tmp_path / name)
    (tmp_path / "m.json").write_text(model.to_json())
    spec = nc.from_keras(
        tmp_path / name, architecture=tmp_path / "m.json", custom={"Additive": np_additive}
    )
    assert_parity(spec, runs_of(model, 5))


@BOTH
def test_ids_may_go_into_a_function(framework: str, tmp_path: Path) -> None:
    k = FRAMEWORKS[framework]
    x = k.Input((None,))
    hot = k.layers.Lambda(lambda t: tf.one_hot(tf.cast(t, tf.int32), IDS), name="hot")
    model = k.Model(x, k.layers.LSTM(4)(hot(x)))
    randomise(model, 0)
    spec = nc.from_keras(model, custom={"hot": lambda t: np.eye(IDS, dtype=t.dtype)[t.astype(int)]})
    ids = np.random.default_rng(0).integers(0, IDS, (3, 5)).astype("float32")
    assert_parity(spec, [([ids], run(model, [ids]))])


# --- weights -------------------------------------------------------------------------------------

WEIGHTED = {"Additive": 3, "Scale": 3, "Projected": 3, "OptimizerGate": 1}


def one_layer(framework: str, class_name: str) -> Any:
    k = FRAMEWORKS[framework]
    x = k.Input((None, 3))
    model = k.Model(x, REGISTERED[framework][class_name](name="own")(x))
    randomise(model, 4)
    return model


@pytest.mark.parametrize("way", ["h5", "live"])
@BOTH
def test_layers_inside_a_layer(framework: str, way: str, tmp_path: Path) -> None:
    model = one_layer(framework, "Bahdanau")
    spec = nc.from_keras(source_of(model, way, tmp_path), custom={"own": np_bahdanau})
    assert_parity(spec, runs_of(model, 5))


@BOTH
def test_layers_inside_a_layer_whose_order_the_file_does_not_tell(
    framework: str, tmp_path: Path
) -> None:
    # A .keras file has them in alphabetical order, Keras in that of their making.
    source = source_of(one_layer(framework, "Bahdanau"), "keras", tmp_path)
    with pytest.raises(UnsupportedError, match="own: "):
        nc.from_keras(source, custom={"own": np_bahdanau})


@pytest.mark.parametrize("class_name", WEIGHTED)
@EVERY_WAY
@BOTH
def test_weights_come_in_the_order_of_the_framework(
    framework: str, way: str, class_name: str, tmp_path: Path
) -> None:
    model = one_layer(framework, class_name)
    shape = tuple(model.output.shape)
    given: list[Array] = []

    def spy(x: Array, weights: tuple[Array, ...] = ()) -> Array:
        given[:] = weights
        return x[:, 0] if len(shape) == 2 else x[..., : shape[-1]]

    spec = nc.from_keras(source_of(model, way, tmp_path), custom={"own": spy})
    expected = model.get_weights()
    assert len(expected) == WEIGHTED[class_name]
    assert [w.shape for w in given] == [w.shape for w in expected]
    for mine, theirs in zip(given, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    entries = spec.provenance["tensors"]
    assert [(e["layer"], e["weights"], tuple(e["shape"])) for e in entries] == [
        ("own", [str(k)], w.shape) for k, w in enumerate(expected)
    ]


@EVERY_WAY
@BOTH
def test_a_class_of_a_name_that_keras_has_too(framework: str, way: str, tmp_path: Path) -> None:
    k = FRAMEWORKS[framework]
    x = k.Input((None, 3))
    y = k.layers.LSTM(4, return_sequences=True)(x)
    model = k.Model(x, k.layers.Dense(2)(BARE[framework]["Attention"](name="look")(y)))
    randomise(model, 5)
    source = source_of(model, way, tmp_path)

    def attend(x: Array, weights: tuple[Array, ...]) -> Array:
        return np.asarray((x * np_softmax(x @ weights[0])).sum(axis=1))

    with pytest.raises(UnsupportedError, match="look: "):
        nc.from_keras(source)
    assert_parity(nc.from_keras(source, custom={"look": attend}), runs_of(model, 5))


# --- nothing of the model's code is run ----------------------------------------------------------


def test_code_in_the_file_is_not_even_read(tmp_path: Path) -> None:
    model = build("keras3", "last")
    model.save(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    (entry,) = [e for e in config["config"]["layers"] if e["class_name"] == "Lambda"]
    entry["config"]["function"]["config"]["code"] = "no code at all"
    members["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(tmp_path / "damaged.keras", "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    spec = nc.from_keras(tmp_path / "damaged.keras", custom={"pick": np_last})
    assert_parity(spec, runs_of(model, 5))


@EVERY_WAY
@BOTH
def test_layers_of_the_model_are_not_called(framework: str, way: str, tmp_path: Path) -> None:
    k = FRAMEWORKS[framework]
    seen: list[str] = []

    class Tell(k.layers.Layer):  # type: ignore[misc, name-defined]
        def __init__(self, **options: Any) -> None:
            seen.append("made")
            super().__init__(**options)

        def call(self, x: Any) -> Any:
            seen.append("called")
            return 2 * x

    def tell(x: Any) -> Any:
        seen.append("lambda")
        return 2 * x

    x = k.Input((None, 3))
    model = k.Model(x, k.layers.Lambda(tell, name="tell")(Tell(name="own")(x)))
    source = source_of(model, way, tmp_path)
    assert {"made", "called", "lambda"} == set(seen)
    seen.clear()
    spec = nc.from_keras(source, custom={"tell": np_twice, "Tell": np_twice})
    assert seen == []
    x_given = np.ones((2, 3, 3), "float32")
    np.testing.assert_array_equal(npylstm.Model(spec).predict(x_given), 4 * x_given)
