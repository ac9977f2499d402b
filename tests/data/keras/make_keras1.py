"""Write the keras1_* files (Keras 1.2.2 on Theano)."""

import os

os.environ["KERAS_BACKEND"] = "theano"

import h5py
import keras
import keras.layers
import keras.models
import theano

import recipe

VERSION = ["keras " + keras.__version__, "theano " + theano.__version__, "h5py " + h5py.__version__]

stem = "keras1_stacked"
model = recipe.fill(recipe.stacked(keras), stem)
recipe.save_stacked(model, stem)
recipe.expect_predict(model, stem, VERSION, 4, 6, 3)

stem = "keras1_functional"
model = recipe.fill(
    recipe.functional(keras, gates="inner_activation", dense="softplus", activation="softsign"),
    stem,
)
model.save(recipe.path(stem + ".h5"))
recipe.expect_predict(model, stem, VERSION, 4, 9, 3)

stem = "keras1_stateful"
model = recipe.fill(recipe.stateful(keras), stem)
model.save(recipe.path(stem + ".h5"))
recipe.expect_stateful(model, stem, VERSION)

stem = "keras1_shapes"
model = recipe.fill(recipe.shapes(keras), stem)
model.save(recipe.path(stem + ".h5"))
recipe.expect_predict(model, stem, VERSION, 4, 6, 3)

for mode in "gpu", "mem":
    stem = "keras1_" + mode
    model = recipe.fill(recipe.stacked(keras, consume_less=mode), stem)
    model.save(recipe.path(stem + ".h5"))
    recipe.expect_predict(model, stem, VERSION, 4, 6, 3)
