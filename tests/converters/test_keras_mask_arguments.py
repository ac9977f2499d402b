"""Masks and lengths that are written into a call, or given to predict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import npylstm_converters as nc
import numpy as np
import pytest
import tf_keras
import torch
from backends import BACKENDS
from keras_graphs import FRAMEWORKS, refused, run
from keras_masks import (
    BATCH,
    FEATURES,
    MASK,
    STEPS,
    Quick,
    assert_close,
    assert_parity,
    assert_parity_in_all_ways,
    bare,
    cells,
    frameworks,
    ids,
    padded,
    randomise,
)

from npylstm import Model, UnsupportedError

# Keras says so where a layer lets a mask go; that it does is what these tests are about.
pytestmark = pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask")


# Masks that are written into a call.


def test_the_mask_that_keras_would_use_anyway(tmp_path: Path) -> None:
    L = keras.layers
    x = keras.Input((None, FEATURES))
    masking = L.Masking()
    y = masking(x)
    mask = masking.compute_mask(x)
    model = keras.Model(x, [L.LSTM(4, return_sequences=True)(y, mask=mask), L.GRU(3)(y, mask=mask)])
    randomise(model)
    assert_parity_in_all_ways("keras3", tmp_path, model, padded())


def test_an_embeddings_mask_in_a_call() -> None:
    L = keras.layers
    x = keras.Input((None,))
    embedding = L.Embedding(9, 5, mask_zero=True)
    y = embedding(x)
    model = keras.Model(x, L.LSTM(4, return_sequences=True)(y, mask=embedding.compute_mask(x)))
    assert_parity(nc.from_keras(randomise(model)), model, ids().astype("float32"))


def test_a_state_and_a_mask_in_a_call_of_keras_3() -> None:
    L = keras.layers
    x, state = keras.Input((None, FEATURES)), keras.Input((4,))
    masking = L.Masking()
    y = masking(x)
    lstm = L.GRU(4, return_sequences=True)(y, initial_state=[state], mask=masking.compute_mask(x))
    model = randomise(keras.Model([x, state], lstm))
    begin = np.random.default_rng(4).normal(size=(BATCH, 4)).astype("float32")
    try:
        spec = nc.from_keras(model)
    except UnsupportedError:
        return
    (y,) = assert_parity(spec, model, padded(), begin)
    assert not y[6].any()


@pytest.mark.parametrize("kind", ["input", "of another tensor", "turned", "on a bare tensor"])
def test_any_other_mask_in_a_call_is_refused(kind: str) -> None:
    L, ops = keras.layers, keras.ops
    x = keras.Input((STEPS, FEATURES), name="x")
    inputs = [x]
    masking = L.Masking(name="masking")
    y = masking(x)
    if kind == "input":
        mask = keras.Input((STEPS,), dtype="bool", name="given")
        inputs.append(mask)
    elif kind == "of another tensor":
        other = keras.Input((STEPS, FEATURES), name="other")
        inputs.append(other)
        mask = L.Masking(name="masking_other").compute_mask(other)
    elif kind == "turned":
        mask = ops.logical_not(masking.compute_mask(x))
    else:
        y, mask = x, masking.compute_mask(x)
    model = keras.Model(inputs, L.LSTM(4, name="lstm")(y, mask=mask))
    assert any(reason.startswith("lstm: ") and "mask" in reason for reason in refused(model))


def test_a_mask_in_a_call_of_tf_keras_is_refused_or_right() -> None:
    L = tf_keras.layers
    x, mask = tf_keras.Input((STEPS, FEATURES)), tf_keras.Input((STEPS,), dtype="bool")
    model = tf_keras.Model([x, mask], L.LSTM(4, name="lstm")(x, mask=mask))
    assert any(reason.startswith("lstm: ") for reason in refused(model))


# Masks and lengths given to predict.


def masked_call(model: Any, x: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return np.array(model.layers[-1](x, mask=keras.ops.convert_to_tensor(mask)))


@pytest.mark.parametrize("kind", ["sequences", "last", "backwards", "pair"])
@cells
@frameworks
def test_a_mask_given_to_predict(framework: str, cell: str, kind: str) -> None:
    model, spec = bare(framework, cell, kind)
    x = padded(5.0)
    theirs = masked_call(model, x, MASK)
    for backend in BACKENDS:
        ours = Model(spec, backend)
        assert_close(ours.predict(x, mask=MASK), theirs)
        assert_close(ours.predict(x, mask=MASK, batch_size=3), ours.predict(x, mask=MASK))
        everything = ours.predict(x, mask=np.ones_like(MASK))
        np.testing.assert_array_equal(everything, ours.predict(x))
    assert np.abs(theirs - everything).max() > 1e-3


@pytest.mark.parametrize("kind", ["sequences", "last", "backwards", "pair"])
@cells
@frameworks
def test_lengths_given_to_predict(framework: str, cell: str, kind: str) -> None:
    model, spec = bare(framework, cell, kind)
    lengths = np.array([7, 1, 3, 6, 2, 4, 5, 7])
    mask = np.arange(STEPS) < lengths[:, None]
    x = padded(5.0, mask)
    theirs = masked_call(model, x, mask)
    for backend in BACKENDS:
        ours = Model(spec, backend)
        assert_close(ours.predict(x, lengths=lengths), theirs)
        np.testing.assert_array_equal(ours.predict(x, mask=mask), ours.predict(x, lengths=lengths))


@frameworks
def test_a_mask_given_to_a_stack(framework: str) -> None:
    # It holds for every recurrent layer, as Keras' own would.
    k = FRAMEWORKS[framework]
    L = Quick(k)
    layers = [L.LSTM(5, return_sequences=True), L.Dense(4, activation="tanh"), L.GRU(4, return_sequences=True), L.SimpleRNN(3)]  # fmt: skip
    bare_model = randomise(k.Sequential([k.Input((None, FEATURES)), *layers]))
    masked_model = k.Sequential([k.Input((None, FEATURES)), L.Masking(9.0), *(type(layer).from_config(layer.get_config()) for layer in layers)])  # fmt: skip
    masked_model.set_weights(bare_model.get_weights())
    x = padded(9.0)
    for backend in BACKENDS:
        y = Model(nc.from_keras(bare_model), backend).predict(x, mask=MASK)
        assert_close(y, run(masked_model, [x])[0])


KINDS = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}


@pytest.mark.parametrize("both_ways", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_packed_sequences_of_torch(kind: str, both_ways: bool) -> None:
    torch.manual_seed(0)
    options = {"batch_first": True, "bidirectional": both_ways, "num_layers": 2}
    module = KINDS[kind](FEATURES, 4, **options).eval()
    lengths = np.array([7, 1, 3, 6, 2, 4, 5, 7])
    right = np.arange(STEPS) < lengths[:, None]
    left = right[:, ::-1]
    x = padded(5.0, right)
    with torch.no_grad():
        packed = torch.nn.utils.rnn.pack_padded_sequence(
            torch.from_numpy(x), torch.from_numpy(lengths), batch_first=True, enforce_sorted=False
        )
        theirs, _ = torch.nn.utils.rnn.pad_packed_sequence(module(packed)[0], batch_first=True)
    expected = theirs.numpy()
    for backend in BACKENDS:
        model = Model(nc.from_torch(module, torch.from_numpy(x)), backend)

        def predict(x: np.ndarray, model: Model = model, **given: Any) -> np.ndarray:
            y = model.predict(x, **given)
            return next(iter(y.values())) if isinstance(y, dict) else y

        assert_close(predict(x, lengths=lengths), expected)
        assert_close(predict(x, mask=right), expected)
        assert not predict(x, mask=right)[~right].any()
        # In front: each sequence moved to the end, which lengths cannot say.
        before = np.full_like(x, 5.0)
        before[left] = x[right]
        moved = np.zeros_like(expected)
        moved[left] = expected[right]
        assert_close(predict(before, mask=left), moved)
