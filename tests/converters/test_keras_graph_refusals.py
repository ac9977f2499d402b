"""Keras graphs that cannot be converted are refused with every reason, or are right."""

from __future__ import annotations

import json
import time
import warnings
from pathlib import Path
from typing import Any

import keras
import npylstm_converters as nc
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from keras_graph_files import keras2_layer, keras_model, parity_or_refusal, read
from keras_graphs import (
    FRAMEWORKS,
    IDS,
    WAYS,
    assert_parity,
    convert,
    make_inputs,
    randomise,
    refused,
    run,
)

import npylstm
from npylstm import Model, UnsupportedError


def naming(reasons: tuple[str, ...], *names: str) -> bool:
    """Whether every one of these layers has a reason of its own."""
    return all(any(reason.split(":")[0].endswith(name) for reason in reasons) for name in names)


def both_ways_refused(model: Any, folder: Path, *names: str) -> tuple[str, ...]:
    """Refuse the object and its file alike, naming the layers."""
    reasons = refused(model)
    assert naming(reasons, *names), reasons
    model.save(folder / "model.keras")
    from_file = refused(folder / "model.keras")
    assert naming(from_file, *names), from_file
    return reasons


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "SimpleRNN"])
def test_masks_as_call_arguments(kind: str, framework: str, tmp_path: Path) -> None:
    k = FRAMEWORKS[framework]
    a, mask = k.Input((6, 3), name="a"), k.Input((6,), dtype="bool", name="flags")
    y = getattr(k.layers, kind)(4, name="masked")(a, mask=mask)
    both_ways_refused(k.Model([a, mask], y), tmp_path, "masked")


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_masks_from_layers(framework: str, tmp_path: Path) -> None:
    k = FRAMEWORKS[framework]
    L, ids, a = k.layers, k.Input((6,), dtype="int32", name="ids"), k.Input((6, 3), name="a")
    words = L.Embedding(IDS, 3, mask_zero=True, name="words")(ids)
    y = L.LSTM(4, name="lstm")(L.Add(name="sum")([words, L.Masking(name="cut")(a)]))
    model = k.Model([ids, a], y)
    randomise(model, 8)
    xs = make_inputs(model, 5, 6, 3)
    xs[1][:, 2:4] = 0
    assert_parity(convert(model, "keras", tmp_path), [(xs, run(model, xs))])


def operators(k: Any, name: str) -> Any:
    L, a = k.layers, k.Input((6, 4), name="a")
    z = L.LSTM(4, return_sequences=True, name="lstm")(a)
    return k.Model(a, {
        "index": lambda: z[:, -1],
        "slice": lambda: z[:, ::2, 1:3],
        "sum": lambda: z + a,
        "sum of ranks": lambda: z + L.Dense(4, name="row")(L.Flatten(name="flat")(a))[:, None],
        "number": lambda: 2.0 * z,
        "from a number": lambda: 1.0 - z,
        "power": lambda: z ** 2,
        "product": lambda: z @ L.Permute((2, 1), name="turned")(z),
    }[name]())  # fmt: skip


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("name", ["index", "slice", "sum", "sum of ranks", "number", "from a number", "power", "product"])  # fmt: skip
def test_operators_on_tensors(name: str, framework: str, tmp_path: Path) -> None:
    """They are nodes of the graph, some with the class names of layers."""
    model = operators(FRAMEWORKS[framework], name)
    entries = json.loads(model.to_json())["config"]["layers"]
    nodes = [e["name"] for e in entries if "ops" in e.get("module", "") or "Lambda" in e["class_name"]]  # fmt: skip
    assert nodes
    randomise(model, 49)
    xs = make_inputs(model, 3, 6, 49)
    runs = [(xs, run(model, xs))]
    for way in ("live", "keras", "h5"):
        assert_parity(convert(model, way, tmp_path), runs)


@keras.saving.register_keras_serializable("graphs")
class Doubled(keras.layers.Layer):
    def call(self, x: Any) -> Any:
        return 2 * x


@keras.saving.register_keras_serializable("graphs")
class Dense(keras.layers.Dense):
    """Not Keras' own, but of its name."""

    def call(self, x: Any, training: Any = None) -> Any:
        return 2 * super().call(x)


@keras.saving.register_keras_serializable("graphs")
class Add(keras.layers.Add):
    """Not Keras' own, but of its name."""

    def _merge_function(self, inputs: Any) -> Any:
        return inputs[0]


def test_everything_at_once(tmp_path: Path) -> None:
    L, a, b = keras.layers, keras.Input((6, 3), name="a"), keras.Input((6, 3), name="b")
    x = keras.Input((6, 3), name="x")
    y = Dense(3, name="own_dense")(L.SpectralNormalization(L.Dense(3), name="norm")(x))
    inner = keras.Model(x, y, name="inner")
    y = L.LSTM(3, activation="sparsemax", return_sequences=True, name="odd")(inner(a))
    y = Add(name="own_add")([y, Doubled(name="own")(b)])
    y = L.Conv1DTranspose(2, 3, name="conv")(L.Lambda(lambda t: t, name="code")(y))
    model = keras.Model(
        [a, b], [y, L.MultiHeadAttention(1, 2, use_gate=True, name="attention")(b, b)]
    )
    names = ("own_dense", "norm", "odd", "own_add", "own", "conv", "code", "attention")
    reasons = both_ways_refused(model, tmp_path, *names)
    assert len(reasons) == len(names), reasons
    assert {"inner.own_dense", "inner.norm"} <= {reason.split(":")[0] for reason in reasons}


def test_everything_at_once_in_tf_keras(tmp_path: Path) -> None:
    k = tf_keras
    L, a, b = k.layers, k.Input((6, 3), name="a"), k.Input((6, 3), name="b")
    inner = k.Sequential(
        [k.Input((6, 3)), L.EinsumDense("abc,cd->abd", (6, 3), name="norm")], name="inner"
    )
    y = L.Lambda(lambda t: t, name="code")(inner(a)) + L.Conv1DTranspose(3, 3, padding="same", name="conv")(b)  # fmt: skip
    y = L.Bidirectional(L.RNN([L.LSTMCell(3), L.LSTMCell(2)]), name="cell")(y)
    model = k.Model([a, b], y)
    both_ways_refused(model, tmp_path, "norm", "code", "conv", "cell")


def test_impostors_deep_inside_a_model_object() -> None:
    """An unregistered class of a Keras name, which only the object in memory gives away."""

    class LSTM(keras.layers.LSTM):
        def call(
            self,
            sequences: Any,
            initial_state: Any = None,
            mask: Any = None,
            training: bool = False,
        ) -> Any:
            return -super().call(sequences, initial_state, mask, training)

    core = keras.Sequential([keras.Input((6, 3)), LSTM(3, name="false")], name="core")
    inner = keras.Sequential([keras.Input((6, 3)), core], name="inner")
    a = keras.Input((6, 3), name="a")
    model = keras.Model(a, keras.layers.Add(name="sum")([inner(a), inner(a)]))
    assert naming(refused(model), "false")


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("last", [False, True], ids=["inside", "at the end"])
def test_a_model_with_code_of_its_own_in_a_graph(last: bool, framework: str) -> None:
    k = FRAMEWORKS[framework]

    class Halved(k.Model):  # type: ignore[name-defined, misc]
        def call(self, x: Any, training: Any = None, mask: Any = None) -> Any:
            return super().call(x) / 2

    x, a = k.Input((6, 3), name="x"), k.Input((6, 3), name="a")
    own = Halved(x, k.layers.LSTM(3, name="lstm")(x), name="halved")
    y = own(a)
    assert naming(refused(k.Model(a, y if last else k.layers.Dense(2)(y))), "halved")
    with pytest.raises(UnsupportedError):
        nc.from_keras(own)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_wrapped_models(framework: str, tmp_path: Path) -> None:
    k = FRAMEWORKS[framework]
    inner = k.Sequential([k.Input((5, 3)), k.layers.LSTM(4, name="lstm")], name="inner")
    a = k.Input((6, 5, 3), name="a")
    model = k.Model(a, k.layers.TimeDistributed(inner, name="each")(a))
    randomise(model, 50)
    xs = make_inputs(model, 3, 6, 50)
    for way in WAYS:
        assert_parity(convert(model, way, tmp_path), [(xs, run(model, xs))])


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_bidirectional_layer_with_a_given_state(framework: str) -> None:
    k = FRAMEWORKS[framework]
    a, states = k.Input((6, 3), name="a"), [k.Input((4,), name=f"s{n}") for n in range(4)]
    y = k.layers.Bidirectional(k.layers.LSTM(4), name="both_ways")(a, initial_state=states)
    model = k.Model([a, *states], y)
    randomise(model, 51)
    xs = make_inputs(model, 3, 6, 51)
    parity_or_refusal(model, [(xs, run(model, xs))], "both_ways")


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_dropout_that_never_rests(framework: str, tmp_path: Path) -> None:
    """``training=True`` at the call: noise at inference, too, unless the framework overrules it."""
    k = FRAMEWORKS[framework]
    a = k.Input((6, 3), name="a")
    model = k.Model(a, k.layers.Dropout(0.5, name="noisy")(a, training=True))
    (x,) = make_inputs(model, 3, 6, 52)
    if np.array_equal(model.predict(x, verbose=0), x):
        parity_or_refusal(model, [([x], [x])], "noisy")
    else:
        both_ways_refused(model, tmp_path, "noisy")


def with_numbers(k: Any, name: str) -> Any:
    """Arrays that are no tensors of the graph, among the arguments of a layer called ``fed``."""
    L, a = k.layers, k.Input(batch_shape=(2, 5, 4), name="a")
    row, steps, h = np.eye(2, 4, dtype="float32"), np.ones((2, 5, 4), "float32"), L.Dense(4)(L.Flatten()(a))  # fmt: skip
    number = keras.ops.convert_to_tensor if k is keras else tf.constant
    y = {
        "of one": lambda: L.Add(name="fed")([a, number(steps)]),
        "of two": lambda: L.Multiply(name="fed")([a, L.Dense(4)(a), number(steps)]),
        "side by side": lambda: L.Concatenate(name="fed")([a, number(steps)]),
        "state": lambda: L.GRU(4, name="fed")(a, initial_state=number(row)),
        "states": lambda: L.LSTM(4, name="fed")(a, initial_state=[number(row), number(row)]),
        "half a state": lambda: L.LSTM(4, name="fed")(a, initial_state=[h, number(row)]),
    }[name]()
    return k.Model(a, y)


@pytest.mark.parametrize(
    ("framework", "name"),
    [(f, n) for f in FRAMEWORKS for n in ("of one", "of two", "side by side", "state", "states")]
    + [("keras3", "half a state")],  # tf_keras itself does not mix them
)
def test_numbers_among_the_arguments(name: str, framework: str, tmp_path: Path) -> None:
    both_ways_refused(with_numbers(FRAMEWORKS[framework], name), tmp_path, "fed")


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("axis", [0, -3])
def test_side_by_side_along_the_batch(axis: int, framework: str) -> None:
    """Legal in Keras, so no damage."""
    k = FRAMEWORKS[framework]
    a, b = k.Input((6, 3), name="a"), k.Input((6, 3), name="b")
    model = k.Model([a, b], k.layers.Concatenate(axis=axis, name="piled")([a, b]))
    assert any("piled" in reason for reason in refused(model))


def test_models_inside_models_that_multiply(tmp_path: Path) -> None:
    """Each calls the next one twice: a small config of a billion layers is refused at once."""
    dense = keras2_layer("Dense", "dense", [[["x", 0, 0, {}]]], units=3)
    x = keras2_layer("InputLayer", "x", [], batch_input_shape=[None, 3])
    document = keras_model("2.2.4", [x, dense], ["x"], [["dense", 0, 0]], "m0")
    for depth in range(1, 31):
        inner, name = document["config"], f"m{depth - 1}"
        nodes = [[["x", 0, 0, {}]], [[name, 1, 0, {}]]]
        entry = {"class_name": "Model", "name": name, "config": inner, "inbound_nodes": nodes}
        document = keras_model("2.2.4", [x, entry], ["x"], [[name, 2, 0]], f"m{depth}")
    a = tf_keras.Input((3,))
    twin = tf_keras.Model(a, tf_keras.layers.Dense(3, name="dense")(a))
    started = time.perf_counter()
    with pytest.raises(npylstm.NpylstmError):
        read(twin, document, tmp_path)
    assert time.perf_counter() - started < 20


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("what", ["names", "other names", "outputs", "lists in lists"])
def test_inputs_and_outputs_that_are_no_list(what: str, framework: str) -> None:
    """Honoured by name, or refused; never mistaken."""
    k = FRAMEWORKS[framework]
    a, b = k.Input((6, 3), name="a"), k.Input((6, 3), name="b")
    minus = k.layers.Subtract(name="minus")([a, b])
    given: Any = {"names": {"b": b, "a": a}, "other names": {"z": a, "y": b}, "lists in lists": [[b], a]}  # fmt: skip
    made = {"z": minus, "y": k.layers.Dense(2, name="dense")(a)} if what == "outputs" else minus
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras 3 wants keys to be names
        model = k.Model(given.get(what, [a, b]), made)
    try:
        spec = nc.from_keras(model)
    except UnsupportedError as error:
        assert "put" in str(error)  # "input" or "output"  # noqa: PT017
        return
    x, z = (np.random.default_rng(n).normal(size=(2, 6, 3)).astype("float32") for n in range(2))
    assert {t.name for t in spec.inputs} in ({"a", "b"}, {"y", "z"})
    named = {"a": x, "b": z} if spec.inputs[0].name in "ab" else {"z": x, "y": z}
    y = Model(spec, "numpy").predict(named)
    if what == "outputs":
        assert set(y) in ({"minus", "dense"}, {"y", "z"})
        y = y.get("minus", y.get("z"))
    np.testing.assert_array_equal(y, x - z)
