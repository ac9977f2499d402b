"""Keras' masks: what recurrent layers do with them, and where they are made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import npylstm_converters as nc
import numpy as np
import pytest
from keras_graphs import FRAMEWORKS, run, try_converting
from keras_masks import (
    CELLS,
    FEATURES,
    STEPS,
    Quick,
    assert_close,
    assert_parity,
    assert_parity_in_all_ways,
    cells,
    convert,
    frameworks,
    ids,
    make_cell,
    masked_input,
    padded,
    randomise,
)

from npylstm import Model, UnsupportedError
from npylstm.spec import Case

# Keras says so where a layer lets a mask go; that it does is what these tests are about.
pytestmark = pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask")

# What recurrent layers do with a mask.

OPTIONS: dict[str, dict[str, Any]] = {
    "last": {},
    "sequences": {"return_sequences": True},
    "zeros": {"return_sequences": True, "zero_output_for_mask": True},
    "last_zeros": {"zero_output_for_mask": True},
    "backwards": {"go_backwards": True},
    "backwards_sequences": {"go_backwards": True, "return_sequences": True},
    "backwards_zeros": {
        "go_backwards": True, "return_sequences": True, "zero_output_for_mask": True
    },
    "state": {"return_state": True},
    "sequences_state": {"return_sequences": True, "return_state": True},
    "backwards_state": {"go_backwards": True, "return_state": True},
}  # fmt: skip


@cells
@frameworks
def test_recurrent_layers_obey(framework: str, cell: str, tmp_path: Path) -> None:
    k = FRAMEWORKS[framework]
    x, y = masked_input(k)
    outputs = [make_cell(k, cell, name=name, **options)(y) for name, options in OPTIONS.items()]
    model = randomise(k.Model(x, [t for out in outputs for t in (out if isinstance(out, (list, tuple)) else [out])]))  # fmt: skip
    if cell in ("lstm", "gru_before"):
        ys = assert_parity_in_all_ways(framework, tmp_path, model, padded())
    else:
        ys = assert_parity(nc.from_keras(model), model, padded())
    last, sequences = ys[0], ys[1]
    # What the rules say, seen in the framework's own numbers.
    assert not sequences[6].any()
    assert not last[6].any()
    assert np.array_equal(sequences[2, 3], sequences[2, 6])
    assert sequences[2, 3].any()
    assert not ys[2][2, 4:].any()


@pytest.mark.parametrize("cell", ["lstm", "gru_before"])
@frameworks
def test_unrolled_layers_obey(framework: str, cell: str) -> None:
    k = FRAMEWORKS[framework]
    x, y = masked_input(k, STEPS)
    kinds = ("sequences", "zeros", "backwards_sequences", "last")
    model = k.Model(x, [make_cell(k, cell, unroll=True, **OPTIONS[kind])(y) for kind in kinds])
    assert_parity(nc.from_keras(randomise(model)), model, padded())


@frameworks
def test_unrolled_layers_that_write_zeros_and_go_backwards(framework: str) -> None:
    # Keras lays the mask over the reversed outputs as it is; refusing is right, too.
    k = FRAMEWORKS[framework]
    x, y = masked_input(k, STEPS)
    model = randomise(k.Model(x, Quick(k).LSTM(4, unroll=True, **OPTIONS["backwards_zeros"])(y)))
    try:
        spec = nc.from_keras(model)
    except UnsupportedError:
        return
    assert_parity(spec, model, padded())


@pytest.mark.parametrize("activation", ["sigmoid"])
@frameworks
def test_zeros_before_the_first_output_whatever_the_activation(
    framework: str, activation: str
) -> None:
    k = FRAMEWORKS[framework]
    x, y = masked_input(k)
    options = {"activation": activation, "return_sequences": True}
    model = k.Model(x, [make_cell(k, cell, **options)(y) for cell in CELLS])
    assert_parity(nc.from_keras(randomise(model)), model, 0.3 * padded())


@frameworks
def test_layers_of_one_cell(framework: str, tmp_path: Path) -> None:
    k = FRAMEWORKS[framework]
    L = Quick(k)
    x, y = masked_input(k)
    ys = [
        L.RNN(L.LSTMCell(4), return_sequences=True)(y),
        L.RNN(L.GRUCell(3), go_backwards=True)(y),
        L.RNN(L.SimpleRNNCell(2), return_sequences=True, zero_output_for_mask=True)(y),
    ]
    model = randomise(k.Model(x, ys))
    assert_parity(convert(model, "keras", tmp_path), model, padded())


# Where masks are made.


@pytest.mark.parametrize("value", [-1.0, 0.1, -4.2e6, 1e-30])
@frameworks
def test_mask_values(framework: str, value: float, tmp_path: Path) -> None:
    k = FRAMEWORKS[framework]
    layers = [k.layers.Masking(value), Quick(k).GRU(4, return_sequences=True), Quick(k).LSTM(3)]
    model = randomise(k.Sequential([k.Input((None, FEATURES)), *layers]))
    x = padded(value)
    x[0, 2, 1] = x[5, 4, 0] = value  # one feature alone masks nothing
    (y,) = assert_parity(convert(model, "h5", tmp_path), model, x)
    assert not y[6].any()
    assert np.abs(y).max() < 1  # a mask value that went in as a number would saturate


@frameworks
def test_a_masked_value_is_selected_away_not_multiplied(framework: str, backend: str) -> None:
    # What Masking itself gives, nan and infinities beside masked steps included.
    k = FRAMEWORKS[framework]
    model = k.Sequential([k.Input((None, FEATURES)), k.layers.Masking(-4.2e6)])
    x = padded(-4.2e6)
    x[0, 0] = np.nan
    x[1, 5, 0] = -np.inf
    x[2, 1, :2] = -4.2e6, np.nan
    x[3, 0] = -0.0
    y = Model(nc.from_keras(model), backend).predict(x)
    with np.errstate(invalid="ignore"):
        theirs = run(model, [x])[0]
    # Keras multiplies by the mask: its nan and infinities are those of steps that count.
    np.testing.assert_array_equal(y, theirs)


@frameworks
def test_nan_stays_in_its_row(framework: str) -> None:
    k = FRAMEWORKS[framework]
    layers = [k.layers.Masking(-1.0), Quick(k).LSTM(4, return_sequences=True)]
    model = randomise(k.Sequential([k.Input((None, FEATURES)), *layers]))
    x = padded(-1.0)
    x[1, 4, 2] = np.nan
    (y,) = assert_parity(nc.from_keras(model), model, x)
    assert np.isnan(y[1, 4:]).all()
    assert np.isfinite(np.delete(y, 1, axis=0)).all()


def test_negative_zero_is_masked_as_zero_is(backend: str) -> None:
    layers = [keras.layers.Masking(), keras.layers.SimpleRNN(4)]
    model = randomise(keras.Sequential([keras.Input((None, FEATURES)), *layers]))
    ours = Model(nc.from_keras(model), backend)
    np.testing.assert_array_equal(ours.predict(padded(-0.0)), ours.predict(padded(0.0)))
    assert_close(ours.predict(padded(-0.0)), run(model, [padded(-0.0)])[0])


@pytest.mark.parametrize("dtype", ["int32", "float32"])
@cells
@frameworks
def test_embeddings(framework: str, cell: str, dtype: str, tmp_path: Path) -> None:
    k = FRAMEWORKS[framework]
    x = k.Input((None,), dtype=dtype)
    y = k.layers.Embedding(9, 5, mask_zero=True, name="embedding")(x)
    y = make_cell(k, cell, return_sequences=True)(y)
    model = randomise(k.Model(x, [y, make_cell(k, cell)(y)]))
    spec = convert(model, "keras", tmp_path)
    assert_parity(spec, model, ids().astype(dtype))
    ours = Model(spec, "numpy")
    a, b = (list(ours.predict(ids().astype(t)).values()) for t in ("int64", "float64"))
    assert all(np.array_equal(p, q) for p, q in zip(a, b, strict=True))


@frameworks
def test_an_embedding_without_mask_zero_masks_nothing(framework: str) -> None:
    k = FRAMEWORKS[framework]
    models = []
    for mask_zero in (False, True):
        layers = [k.layers.Embedding(9, 5, mask_zero=mask_zero), Quick(k).LSTM(4)]
        models.append(randomise(k.Sequential([k.Input((None,)), *layers])))
    x = ids().astype("float32")
    (plain,) = assert_parity(nc.from_keras(models[0]), models[0], x)
    (masked,) = assert_parity(nc.from_keras(models[1]), models[1], x)
    np.testing.assert_array_equal(plain[0], masked[0])
    assert (np.abs(plain - masked)[1:].max(axis=1) > 1e-3).all()


@frameworks
def test_a_later_masking_takes_the_place_of_an_earlier_one(framework: str) -> None:
    k = FRAMEWORKS[framework]
    L = Quick(k)
    x, y = masked_input(k)
    y = L.ReLU(max_value=0.5)(y)
    y = L.Masking(0.5, name="later")(y)
    model = randomise(k.Model(x, L.LSTM(4, return_sequences=True)(y)))
    data = padded()
    data[0, 2:4] = 3.0
    assert_parity(nc.from_keras(model), model, data)


@frameworks
def test_float_ids_in_a_recorded_run(framework: str, backend: str) -> None:
    k = FRAMEWORKS[framework]
    layers = [k.layers.Embedding(9, 5, mask_zero=True), Quick(k).LSTM(4)]
    model = randomise(k.Sequential([k.Input((None,)), *layers]))
    spec = nc.from_keras(model)
    x = ids().astype("float32")
    case = Case({spec.inputs[0].name: x}, {spec.outputs[0]: run(model, [x])[0]})
    Model(spec, backend).verify([case]).check()


def test_an_h5_of_keras_3_is_right_or_refused(tmp_path: Path) -> None:
    # Keras 3 writes the operations on masks without their module, and cannot read them again.
    x, y = masked_input(keras)
    model = randomise(keras.Model(x, keras.layers.LSTM(4, name="lstm")(y)))
    model.save(tmp_path / "model.h5")
    spec, reasons = try_converting(tmp_path / "model.h5")
    if spec is None:
        assert any(reason.startswith("lstm: ") for reason in reasons)
    else:
        assert_parity(spec, model, padded())
