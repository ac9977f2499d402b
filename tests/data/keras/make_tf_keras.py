"""Write the tf115_*, tf24_* or tf213_* files (tf.keras of TensorFlow 1.15, 2.4, 2.13)."""

import h5py
import tensorflow as tf

import recipe

keras = tf.keras
VERSION = ["tensorflow " + tf.__version__, "h5py " + h5py.__version__]
WRITER = "tf" + "".join(tf.__version__.split(".")[:2])
assert WRITER in ("tf115", "tf24", "tf213")


def save(model, stem, zipped=True):
    model.save(recipe.path(stem + ".h5"), save_format="h5")
    if WRITER == "tf213" and zipped:
        model.save(recipe.path(stem + ".keras"), save_format="keras")


stem = WRITER + "_stacked"
model = recipe.fill(recipe.stacked(keras), stem)
recipe.save_stacked(model, stem)
save(model, stem)
if WRITER == "tf213":
    model.save_weights(recipe.path(stem + ".weights.h5"))
recipe.expect_predict(model, stem, VERSION, 4, 6, 3)

keras.backend.clear_session()
stem = WRITER + "_functional"
model = recipe.fill(recipe.functional(keras, activation="relu", use_bias=False), stem)
save(model, stem)
recipe.expect_predict(model, stem, VERSION, 4, 9, 3)

keras.backend.clear_session()
stem = WRITER + "_stateful"
model = recipe.fill(recipe.stateful(keras), stem)
save(model, stem, zipped=False)
recipe.expect_stateful(model, stem, VERSION)

keras.backend.clear_session()
stem = WRITER + "_shapes"
model = recipe.fill(recipe.shapes(keras), stem)
save(model, stem)
recipe.expect_predict(model, stem, VERSION, 4, 6, 3)

if WRITER == "tf115":
    # CuDNNLSTM runs on a GPU only; Keras turns its weights into those of a plain
    # LSTM when it loads them, and that twin gives the expected values.
    keras.backend.clear_session()
    v1 = tf.compat.v1
    v1.keras.backend.set_session(
        v1.Session(config=v1.ConfigProto(graph_options=v1.GraphOptions(place_pruned_graph=True)))
    )
    stem = WRITER + "_cudnn"
    save(recipe.fill(recipe.cudnn(keras, v1.keras.layers.CuDNNLSTM), stem), stem)
    twin = recipe.cudnn(keras, keras.layers.LSTM, recurrent_activation="sigmoid")
    twin.load_weights(recipe.path(stem + ".h5"))
    recipe.expect_predict(twin, stem, VERSION, 4, 6, 3)

if WRITER == "tf24":
    keras.backend.clear_session()
    stem = WRITER + "_time_major"
    x = keras.layers.Input(batch_shape=(6, None, 3))  # time, batch, features
    y = keras.layers.LSTM(5, time_major=True, return_sequences=True)(x)
    model = recipe.fill(keras.Model(x, keras.layers.Dense(4)(y)), stem)
    save(model, stem)
    recipe.expect_predict(model, stem, VERSION, 6, 2, 3)
