"""Write the keras20_* or keras22_* files (Keras 2.0.5 or 2.2.4 on TensorFlow 1)."""

import h5py
import keras
import tensorflow as tf

import recipe

VERSION = ["keras " + keras.__version__, "tensorflow " + tf.__version__, "h5py " + h5py.__version__]
WRITER = "keras" + keras.__version__[:3].replace(".", "")
assert WRITER in ("keras20", "keras22")

stem = WRITER + "_stacked"
model = recipe.stacked(keras)
if WRITER == "keras22":  # one file that holds the state of an optimizer
    model.compile("adam", "categorical_crossentropy")
    model.train_on_batch(recipe.inputs(stem, 4, 6, 3), abs(recipe.inputs(stem, 4, 3)))
recipe.fill(model, stem)
recipe.save_stacked(model, stem)
recipe.expect_predict(model, stem, VERSION, 4, 6, 3)

keras.backend.clear_session()
stem = WRITER + "_functional"
model = recipe.fill(recipe.functional(keras, activation="relu", use_bias=False), stem)
model.save(recipe.path(stem + ".h5"))
recipe.expect_predict(model, stem, VERSION, 4, 9, 3)

keras.backend.clear_session()
stem = WRITER + "_stateful"
model = recipe.fill(recipe.stateful(keras), stem)
model.save(recipe.path(stem + ".h5"))
recipe.expect_stateful(model, stem, VERSION)

keras.backend.clear_session()
stem = WRITER + "_shapes"
model = recipe.fill(recipe.shapes(keras), stem)
model.save(recipe.path(stem + ".h5"))
recipe.expect_predict(model, stem, VERSION, 4, 6, 3)

if WRITER == "keras22":
    # CuDNNLSTM runs on a GPU only; Keras turns its weights into those of a plain
    # LSTM when it loads them, and that twin gives the expected values.
    keras.backend.clear_session()
    keras.backend.set_session(
        tf.Session(config=tf.ConfigProto(graph_options=tf.GraphOptions(place_pruned_graph=True)))
    )
    stem = WRITER + "_cudnn"
    recipe.fill(recipe.cudnn(keras, keras.layers.CuDNNLSTM), stem).save(recipe.path(stem + ".h5"))
    twin = recipe.cudnn(keras, keras.layers.LSTM, recurrent_activation="sigmoid")
    twin.load_weights(recipe.path(stem + ".h5"))
    recipe.expect_predict(twin, stem, VERSION, 4, 6, 3)
