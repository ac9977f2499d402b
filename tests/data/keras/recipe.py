"""What the writers of this folder share: the models, their weights, their inputs.

The builders take the Keras module to build with (`keras` or `tf.keras`), so
nothing here imports Keras itself. Python 3.6 is enough.
"""

import os
import zlib

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))


def path(name):
    return os.path.join(HERE, name)


def rng(text):
    return np.random.RandomState(zlib.crc32(text.encode()) & 0x7FFFFFFF)


def inputs(stem, *shape):
    return rng(stem + " x").uniform(-2, 2, shape).astype("float32")


def fill(model, stem):
    """Set every weight: kernels N(0, 1/sqrt(rows)), biases uniform(-0.5, 0.5)."""
    r = rng(stem)
    model.set_weights(
        [
            r.uniform(-0.5, 0.5, w.shape)
            if w.ndim == 1
            else r.normal(0, 1 / np.sqrt(w.shape[0]), w.shape)
            for w in model.get_weights()
        ]
    )
    return model


def expect(stem, version, **arrays):
    """Save <stem>.expected.npz: float32 inputs and outputs, and the versions."""
    for name, value in arrays.items():
        assert value.dtype == np.float32 and np.isfinite(value).all(), name
    np.savez(path(stem + ".expected.npz"), version=np.array(version), **arrays)


def expect_predict(model, stem, version, *shape):
    x = inputs(stem, *shape)
    expect(stem, version, x=x, y=model.predict(x, batch_size=shape[0]))


def expect_stateful(model, stem, version):
    """Two batches in a row, the second goes on from the state after the first."""
    x0, x1 = inputs(stem + " 0", 2, 4, 3), inputs(stem + " 1", 2, 4, 3)
    model.reset_states()
    y0 = model.predict(x0, batch_size=2)
    y1 = model.predict(x1, batch_size=2)
    model.reset_states()
    expect(stem, version, x0=x0, y0=y0, x1=x1, y1=y1)


def save_stacked(model, stem):
    model.save(path(stem + ".h5"))
    model.save_weights(path(stem + "_weights.h5"))
    with open(path(stem + ".json"), "w") as f:
        f.write(model.to_json())


def stacked(keras, **lstm):
    L = keras.layers
    return keras.models.Sequential(
        [
            L.LSTM(7, return_sequences=True, input_shape=(6, 3), **lstm),
            L.Dropout(0.3),
            L.LSTM(5, **lstm),
            L.Dense(3, activation="softmax"),
        ]
    )


def functional(keras, gates="recurrent_activation", dense="elu", **first):
    """One chain; `gates` is the keyword for the gate activation."""
    L = keras.layers
    x = L.Input((None, 3))
    y = L.LSTM(6, go_backwards=True, return_sequences=True, **dict(first, **{gates: "sigmoid"}))(x)
    y = L.TimeDistributed(L.Dense(4, activation=dense))(y)
    y = L.Activation("tanh")(y)
    y = L.LSTM(5, **{gates: "hard_sigmoid"})(y)
    return keras.models.Model(x, L.Dense(2)(y))


def stateful(keras):
    L = keras.layers
    return keras.models.Sequential(
        [
            L.LSTM(5, stateful=True, return_sequences=True, batch_input_shape=(2, 4, 3)),
            L.TimeDistributed(L.Dense(2)),
        ]
    )


def shapes(keras):
    L = keras.layers
    return keras.models.Sequential(
        [
            L.LSTM(4, return_sequences=True, input_shape=(6, 3)),
            L.Permute((2, 1)),
            L.Reshape((3, 8)),
            L.LeakyReLU(alpha=0.2),
            L.Flatten(),
            L.RepeatVector(5),
            L.LSTM(3),
            L.Dense(2, activation="sigmoid"),
        ]
    )


def cudnn(keras, kind, **lstm):
    """`kind`: CuDNNLSTM, or LSTM with recurrent_activation="sigmoid" (the twin)."""
    return keras.models.Sequential(
        [
            kind(5, return_sequences=True, input_shape=(6, 3), **lstm),
            kind(4, **lstm),
            keras.layers.Dense(2),
        ]
    )
