"""Functions of NumPy in the place of Lambda layers and layer classes of the user's own.

What the layers compute stands here twice: in TensorFlow for the framework, in NumPy for npylstm.
"""

from __future__ import annotations

import functools
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import npylstm_converters as nc
import numpy as np
import pytest
import tensorflow as tf
from builders import agree
from keras_graphs import FRAMEWORKS, assert_parity, make_inputs, randomise, run

import npylstm
from npylstm import FormatError, ModelSpec, NpylstmError, ShapeError, UnsupportedError
from npylstm.cli import main
from npylstm.graph.stream_plan import plan_stream

Array = np.ndarray[Any, Any]
Function = Callable[..., Any]
WAYS = ("keras", "h5", "live")
BOTH = pytest.mark.parametrize("framework", FRAMEWORKS)
EVERY_WAY = pytest.mark.parametrize("way", WAYS)
IDS = 9


# --- layers of the user's own --------------------------------------------------------------------


def make_layers(k: Any, register: Function) -> dict[str, Any]:
    """Classes as they are found in the wild; ``register`` decorates them."""

    @register
    class Additive(k.layers.Layer):  # type: ignore[misc]
        """Softmax over steps of ``tanh(x W + b) u``, weighted sum."""

        def build(self, shape: Any) -> None:
            self.W = self.add_weight(name="W", shape=(shape[-1], 4), initializer="uniform")
            self.b = self.add_weight(name="b", shape=(4,), initializer="uniform")
            self.u = self.add_weight(name="u", shape=(4,), initializer="uniform")
            super().build(shape)

        def call(self, x: Any) -> Any:
            scores = tf.tensordot(tf.tanh(tf.tensordot(x, self.W, 1) + self.b), self.u, 1)
            return tf.reduce_sum(x * tf.nn.softmax(scores, axis=1)[..., None], axis=1)

    @register
    class Scale(k.layers.Layer):  # type: ignore[misc]
        """Weights that are trained and one that is not, which Keras lists last."""

        def build(self, shape: Any) -> None:
            self.factor = self.add_weight(name="factor", shape=(shape[-1],), initializer="ones")
            self.mean = self.add_weight(name="mean", shape=(shape[-1],), trainable=False)
            self.offset = self.add_weight(name="offset", shape=(shape[-1],), initializer="ones")
            super().build(shape)

        def compute_output_shape(self, shape: Any) -> Any:
            return shape

        def call(self, x: Any) -> Any:
            return (x - self.mean) * self.factor + self.offset

    @register
    class Gap(k.layers.Layer):  # type: ignore[misc]
        """No weights, two inputs."""

        def call(self, inputs: Any) -> Any:
            return tf.abs(inputs[0] - inputs[1])

    @register
    class Masked(k.layers.Layer):  # type: ignore[misc]
        """The mean of the steps that count."""

        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.supports_masking = True

        def compute_mask(self, x: Any, mask: Any = None) -> None:
            return None

        def call(self, x: Any, mask: Any = None) -> Any:
            if mask is None:
                return tf.reduce_mean(x, axis=1)
            counts = tf.cast(mask, x.dtype)[..., None]
            return tf.reduce_sum(x * counts, axis=1) / (tf.reduce_sum(counts, axis=1) + 1)

    @register
    class Bahdanau(k.layers.Layer):  # type: ignore[misc]
        """Layers inside, whose names are not in alphabetical order; both kernels of one shape."""

        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.query = k.layers.Dense(3, use_bias=False, name="query")
            self.key = k.layers.Dense(3, use_bias=False, name="key")

        def build(self, shape: Any) -> None:
            for layer, name in ((self.query, "query"), (self.key, "key")):
                with tf.name_scope(name):
                    layer.build(shape)
            super().build(shape)

        def call(self, x: Any) -> Any:
            return tf.tanh(self.query(x)) * self.key(x)

    @register
    class Projected(k.layers.Layer):  # type: ignore[misc]
        """A weight of its own, which Keras lists first, and a layer inside."""

        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.dense = k.layers.Dense(3, name="dense")

        def build(self, shape: Any) -> None:
            self.scale = self.add_weight(name="scale", shape=(shape[-1],), initializer="ones")
            self.dense.build(shape)
            super().build(shape)

        def call(self, x: Any) -> Any:
            return self.dense(x) * self.scale

    @register
    class OptimizerGate(k.layers.Layer):  # type: ignore[misc]
        """Has the name of something that is passed over in files."""

        def build(self, shape: Any) -> None:
            self.gate = self.add_weight(name="gate", shape=(shape[-1],), initializer="ones")
            super().build(shape)

        def call(self, x: Any) -> Any:
            return x * self.gate

    class Attention(k.layers.Layer):  # type: ignore[misc]
        """A name that Keras uses itself; everybody calls it so."""

        def build(self, shape: Any) -> None:
            self.W = self.add_weight(name="W", shape=(shape[-1], 1), initializer="uniform")
            super().build(shape)

        def call(self, x: Any) -> Any:
            return tf.reduce_sum(x * tf.nn.softmax(tf.matmul(x, self.W), axis=1), axis=1)

    classes = (Additive, Scale, Gap, Masked, Bahdanau, Projected, OptimizerGate, Attention)
    return {cls.__name__: cls for cls in classes}


def bare(cls: Any) -> Any:
    return cls


REGISTERED = {
    f: make_layers(k, k.saving.register_keras_serializable(package="own"))
    for f, k in FRAMEWORKS.items()
}
BARE = {f: make_layers(k, bare) for f, k in FRAMEWORKS.items()}


def np_softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def np_additive(x: Array, weights: tuple[Array, ...]) -> Array:
    W, b, u = weights
    return np.asarray((x * np_softmax(np.tanh(x @ W + b) @ u)[..., None]).sum(axis=1))


def np_scale(x: Array, weights: tuple[Array, ...]) -> Array:
    factor, offset, mean = weights
    return np.asarray((x - mean) * factor + offset)


def np_gap(a: Array, b: Array) -> Array:
    return np.asarray(np.abs(a - b))


def np_bahdanau(x: Array, weights: tuple[Array, ...]) -> Array:
    query, key = weights
    return np.asarray(np.tanh(x @ query) * (x @ key))


def np_last(x: Array) -> Array:
    return x[:, -1]


def np_mean(x: Array) -> Array:
    return np.asarray(x.mean(axis=1))


def np_twice(x: Array) -> Array:
    return 2 * x


def np_turned(x: Array) -> Array:
    return np.swapaxes(x, 1, 2)


def np_outer(a: Array, b: Array) -> Array:
    return np.asarray(np.einsum("btf,bsf->bts", a, b))


def tf_outer(inputs: Any) -> Any:
    return tf.einsum("btf,bsf->bts", inputs[0], inputs[1])


# --- models --------------------------------------------------------------------------------------


def lstm_additive(k: Any, own: Any) -> Any:
    x = k.Input((None, 3))
    y = k.layers.LSTM(5, return_sequences=True)(x)
    y = own["Additive"](name="pool")(y)
    return k.Model(x, k.layers.Dense(2)(y))


def fixed_additive(k: Any, own: Any) -> Any:
    x = k.Input((7, 3))  # a size that conversion may try, too
    y = k.layers.Bidirectional(k.layers.GRU(3, return_sequences=True))(x)
    return k.Model(x, own["Additive"](name="pool")(y))


def twice_called(k: Any, own: Any) -> Any:
    a, b = k.Input((None, 3)), k.Input((4, 3))
    pool = own["Additive"](name="pool")
    return k.Model([a, b], k.layers.Concatenate()([pool(a), pool(b)]))


def two_of_a_class(k: Any, own: Any) -> Any:
    x = k.Input((None, 3))
    y = own["Scale"](name="first")(x)
    y = k.layers.SimpleRNN(3, return_sequences=True)(y)
    return k.Model(x, own["Scale"](name="second")(y))


def nested(k: Any, own: Any) -> Any:
    i = k.Input((None, 3))
    inner = k.Model(i, own["Additive"](name="pool")(k.layers.LSTM(4, return_sequences=True)(i)))
    x = k.Input((None, 3))
    return k.Model(x, k.layers.Dense(2)(inner(x)))


def gap(k: Any, own: Any) -> Any:
    a, b = k.Input((4, 3)), k.Input((4, 3))
    return k.Model([a, b], k.layers.LSTM(3)(own["Gap"](name="gap")([a, b])))


def last(k: Any, own: Any) -> Any:
    x = k.Input((None, 3))
    y = k.layers.LSTM(5, return_sequences=True)(x)
    return k.Model(x, k.layers.Lambda(lambda t: t[:, -1], name="pick")(y))


def last_sequential(k: Any, own: Any) -> Any:
    layers = [
        k.Input((6, 3)),
        k.layers.LSTM(5, return_sequences=True),
        k.layers.Lambda(lambda t: t[:, -1], name="pick"),
        k.layers.Dense(2),
    ]
    return k.Sequential(layers)


def mean(k: Any, own: Any) -> Any:
    x = k.Input((None, 3))
    y = k.layers.LSTM(5, return_sequences=True)(x)
    y = k.layers.Lambda(lambda t: tf.reduce_mean(t, axis=1), name="average")(y)
    return k.Model(x, k.layers.Dense(2)(y))


def doubled(k: Any, own: Any) -> Any:
    x = k.Input((None, 3))
    y = k.layers.Lambda(lambda t: 2 * t, name="twice")(x)
    return k.Model(x, k.layers.LSTM(4, return_sequences=True)(y))


def doubled_twice(k: Any, own: Any) -> Any:
    x = k.Input((None, 3))
    twice = k.layers.Lambda(lambda t: 2 * t, name="twice")
    return k.Model(x, twice(k.layers.LSTM(3, return_sequences=True)(twice(x))))


def several_inputs(k: Any, own: Any) -> Any:
    x = k.Input((None, 3))
    a = k.layers.LSTM(4, return_sequences=True)(x)
    b = k.layers.GRU(4, return_sequences=True)(x)
    return k.Model(x, k.layers.Lambda(lambda t: tf.abs(t[0] - t[1]), name="join")([a, b]))


def turned(k: Any, own: Any) -> Any:
    x = k.Input((None, 3))
    y = k.layers.Lambda(lambda t: tf.transpose(t, (0, 2, 1)), name="turn")(x)
    return k.Model(x, y)


def outer(k: Any, own: Any) -> Any:
    a, b = k.Input((None, 3)), k.Input((None, 3))
    return k.Model([a, b], k.layers.Lambda(tf_outer, name="outer")([a, b]))


def two_lambdas(k: Any, own: Any) -> Any:
    x = k.Input((None, 3))
    y = k.layers.Lambda(lambda t: 2 * t, name="twice")(x)
    y = k.layers.LSTM(4, return_sequences=True)(y)
    return k.Model(x, k.layers.Lambda(lambda t: t[:, -1], name="pick")(y))


class Wild(NamedTuple):
    """A model, its functions by class and by layer, how many steps its inputs have."""

    build: Function
    by_class: dict[str, Function]
    by_layer: dict[str, Function]
    steps: Any = 5


WILD = {
    "lstm_additive": Wild(lstm_additive, {"Additive": np_additive}, {"pool": np_additive}),
    "fixed_additive": Wild(fixed_additive, {"Additive": np_additive}, {"pool": np_additive}),
    "twice_called": Wild(twice_called, {"Additive": np_additive}, {"pool": np_additive}),
    "two_of_a_class": Wild(
        two_of_a_class, {"Scale": np_scale}, {"first": np_scale, "second": np_scale}
    ),
    "nested": Wild(nested, {"Additive": np_additive}, {"pool": np_additive}),
    "gap": Wild(gap, {"Gap": np_gap}, {"gap": np_gap}),
    "last": Wild(last, {"Lambda": np_last}, {"pick": np_last}),
    "last_sequential": Wild(last_sequential, {"Lambda": np_last}, {"pick": np_last}),
    "mean": Wild(mean, {"Lambda": np_mean}, {"average": np_mean}),
    "doubled": Wild(doubled, {"Lambda": np_twice}, {"twice": np_twice}),
    "doubled_twice": Wild(doubled_twice, {"Lambda": np_twice}, {"twice": np_twice}),
    "several_inputs": Wild(several_inputs, {"Lambda": np_gap}, {"join": np_gap}),
    "turned": Wild(turned, {"Lambda": np_turned}, {"turn": np_turned}),
    "outer": Wild(outer, {"Lambda": np_outer}, {"outer": np_outer}, (5, 8)),
    "two_lambdas": Wild(
        two_lambdas, {"twice": np_twice, "Lambda": np_last}, {"twice": np_twice, "pick": np_last}
    ),
}


def source_of(model: Any, way: str, folder: Path) -> Any:
    if way == "live":
        return model
    model.save(folder / f"m.{way}")
    return folder / f"m.{way}"


@functools.cache
def build(framework: str, name: str, classes: str = "registered") -> Any:
    own = REGISTERED if classes == "registered" else BARE
    model = WILD[name].build(FRAMEWORKS[framework], own[framework])
    randomise(model, 3)
    return model


@functools.cache
def runs(framework: str, name: str, classes: str = "registered") -> list[Any]:
    """What the framework itself computes."""
    return runs_of(build(framework, name, classes), WILD[name].steps)


def runs_of(model: Any, steps: Any) -> list[Any]:
    other = steps + 4 if isinstance(steps, int) else [s + 4 for s in steps]
    given = [make_inputs(model, 3, steps, 0), make_inputs(model, 1, other, 1)]
    return [(xs, run(model, xs)) for xs in given]


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


# --- shapes --------------------------------------------------------------------------------------


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


# --- loading -------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A model with two functions, as a file."""
    model = build("keras3", "two_lambdas")
    spec = nc.from_keras(model, custom={"twice": np_twice, "pick": np_last})
    npylstm.save(spec, tmp_path / "m.npz")
    return tmp_path / "m.npz"


def test_the_file_names_functions_and_holds_none(saved: Path) -> None:
    with np.load(saved, allow_pickle=False) as archive:
        spec = json.loads(archive["npylstm/spec"].tobytes())
    external = [e for e in spec["layers"] if e["kind"] == "external"]
    assert [e["config"]["name"] for e in external] == ["twice", "pick"]
    assert "np_last" not in json.dumps(spec)


LOADS: dict[str, tuple[dict[str, Function], type[NpylstmError], tuple[str, ...], tuple[str, ...]]]
LOADS = {
    "none": ({}, UnsupportedError, ("twice", "pick"), ()),
    "one": ({"pick": np_last}, UnsupportedError, ("twice",), ("pick: ",)),
    "unknown": (
        {"twice": np_twice, "pick": np_last, "odd": np_last}, NpylstmError, ("'odd'",), (),
    ),
    "by_class": ({"Lambda": np_twice}, NpylstmError, ("'Lambda'", "pick, twice"), ()),
}  # fmt: skip


@pytest.mark.parametrize("name", LOADS)
def test_loading_wants_each_function_once(name: str, saved: Path, backend: str) -> None:
    custom, kind, told, untold = LOADS[name]
    with pytest.raises(kind) as caught:
        npylstm.load(saved, backend, custom=custom)
    assert all(text in str(caught.value) for text in told)
    assert not any(text in str(caught.value) for text in untold)
    if kind is UnsupportedError:
        assert isinstance(caught.value, UnsupportedError)
        assert len(caught.value.reasons) == len(told)


def test_functions_for_a_model_without_such_layers(tmp_path: Path) -> None:
    k = FRAMEWORKS["keras3"]
    npylstm.save(
        nc.from_keras(k.Sequential([k.Input((None, 3)), k.layers.LSTM(2)])), tmp_path / "m"
    )
    with pytest.raises(NpylstmError, match="'odd'"):
        npylstm.load(tmp_path / "m", custom={"odd": np_last})


def test_another_function_may_be_given(saved: Path) -> None:
    x = np.random.default_rng(0).normal(size=(2, 5, 3))
    given = npylstm.load(saved, "numpy", {"twice": np_twice, "pick": np_last})
    other = npylstm.load(saved, "numpy", {"twice": lambda t: 2 * t, "pick": lambda t: t[:, 0]})
    assert not np.array_equal(given.predict(x), other.predict(x))
    agree(other.predict(x), given.predict(x[:, :1]), 3 + 4 + 1)


def test_what_a_function_raises_comes_through(saved: Path) -> None:
    def fails(x: Array) -> Array:
        raise ArithmeticError("of my own")

    model = npylstm.load(saved, "numpy", {"twice": fails, "pick": np_last})
    with pytest.raises(ArithmeticError, match="of my own"):
        model.predict(np.zeros((1, 2, 3)))


def test_whole_sequences_do_not_stream() -> None:
    spec: ModelSpec = nc.from_keras(build("keras3", "mean"), custom={"average": np_mean})
    with pytest.raises(UnsupportedError, match="average"):
        plan_stream(spec)


# --- the command line ----------------------------------------------------------------------------


def run_main(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    status = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_info_needs_no_functions(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run_main(capsys, "info", saved)
    assert (status, err) == (0, "")
    assert "twice" in out
    assert "pick" in out
    assert "external" in out
    assert "streams: no" in out
    status, out, err = run_main(capsys, "info", saved, "--json")
    assert (status, err) == (0, "")
    assert [e["kind"] for e in json.loads(out)["layers"]] == ["external", "lstm", "external"]


def test_commands_that_compute_say_what_is_missing(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "x.npy", np.zeros((1, 2, 3)))
    given = ("--input", tmp_path / "x.npy")
    commands: list[tuple[Any, ...]] = [
        ("predict", saved, *given),
        ("predict", saved, *given, "-o", tmp_path / "y.npy"),
        ("trace", saved, *given, "-o", tmp_path / "gates.npz"),
        ("verify", saved),
        ("bench", saved, "--seconds", "0.01"),
    ]
    for command in commands:
        status, out, err = run_main(capsys, *command)
        assert (status, out) == (2, "")
        assert len(err.splitlines()) == 1
        assert "twice" in err
        assert "pick" in err
    assert not (tmp_path / "y.npy").exists()


def test_convert_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = source_of(build("tf_keras", "two_lambdas"), "keras", tmp_path)
    status, out, err = run_main(capsys, "convert", source, tmp_path / "m.npz")
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert "twice: layer class 'Lambda'" in err
    assert "pick: layer class 'Lambda'" in err
    assert not (tmp_path / "m.npz").exists()
