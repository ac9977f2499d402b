"""Layer classes of the user's own and Lambda layers, functions of NumPy in their place, and models.

What the layers compute stands here twice: in TensorFlow for the framework, in NumPy for npylstm.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tensorflow as tf
from keras_graphs import FRAMEWORKS, make_inputs, randomise, run

Array = np.ndarray[Any, Any]
Function = Callable[..., Any]
WAYS = ("keras", "h5", "live")
BOTH = pytest.mark.parametrize("framework", FRAMEWORKS)
EVERY_WAY = pytest.mark.parametrize("way", WAYS)
IDS = 9


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


def runs_of(model: Any, steps: Any) -> list[Any]:
    other = steps + 4 if isinstance(steps, int) else [s + 4 for s in steps]
    given = [make_inputs(model, 3, steps, 0), make_inputs(model, 1, other, 1)]
    return [(xs, run(model, xs)) for xs in given]
