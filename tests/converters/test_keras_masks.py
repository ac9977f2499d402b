"""Keras' masks: where they are made, where they go, what they do to numbers.

Every model is run by its framework on sequences masked at the start, in the middle, at the end, at
every other step, everywhere and nowhere. Parity is what ``npylstm/parity.py`` says; other
comparisons allow what the parity rule allows, too: 64 units in the last place of the largest value,
which is a thousandth of what a step too many makes.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import npylstm_converters as nc
import numpy as np
import pytest
import tf_keras
import torch
from backends import BACKENDS
from keras_graphs import FRAMEWORKS, assert_same, refused, run, try_converting

from npylstm import Model, ModelSpec, ShapeError, UnsupportedError
from npylstm.spec import Case

# Keras 3 itself cannot read a functional model with masks from HDF5.
WAYS = {"keras3": ("live", "keras"), "tf_keras": ("live", "keras", "h5")}

# One row each; 1 where a step counts.
PATTERNS = {
    "nowhere": "1111111",
    "start": "0001111",
    "end": "1111000",
    "middle": "1100111",
    "odd": "0101010",
    "even": "1010101",
    "everywhere": "0000000",
    "holes": "0110100",
}
MASK = np.array([[step == "1" for step in row] for row in PATTERNS.values()])
BATCH, STEPS = MASK.shape
FEATURES = 3

CELLS: dict[str, tuple[str, dict[str, Any]]] = {
    "lstm": ("LSTM", {}),
    "gru_after": ("GRU", {"reset_after": True}),
    "gru_before": ("GRU", {"reset_after": False}),
    "rnn": ("SimpleRNN", {}),
}

# Keras says so where a layer lets a mask go; that it does is what these tests are about.
pytestmark = pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask")

frameworks = pytest.mark.parametrize("framework", FRAMEWORKS)
cells = pytest.mark.parametrize("cell", CELLS)


class Quick:
    """The framework's layers, with an activation for which tf_keras does not build cuDNN's way, too.

    That takes it a second a layer; the models with the usual activation are few here.
    """

    def __init__(self, k: Any) -> None:
        self._layers = k.layers
        self._others = {"activation": "softsign"} if k is tf_keras else {}

    def __getattr__(self, name: str) -> Any:
        layer = getattr(self._layers, name)
        return functools.partial(layer, **self._others) if name in ("LSTM", "GRU") else layer


def make_cell(k: Any, cell: str, units: int = 4, **options: Any) -> Any:
    class_name, own = CELLS[cell]
    return getattr(Quick(k), class_name)(units, **{**own, **options})


def randomise(model: Any, seed: int = 1) -> Any:
    """Set all weights: gates move without saturating, no bias is zero, variances are positive."""
    rng = np.random.default_rng(seed)
    weights = []
    for variable, array in zip(model.weights, model.get_weights(), strict=True):
        spread = 0.8 / np.sqrt(array.shape[0]) if array.ndim == 2 else 0.5
        values = rng.uniform(-1, 1, array.shape) * spread
        values += 0.05 * np.sign(values)
        weights.append((np.abs(values) if "variance" in variable.name else values).astype("f4"))
    model.set_weights(weights)
    return model


def padded(value: float = 0.0, mask: np.ndarray = MASK, seed: int = 2) -> np.ndarray:
    """Sequences that hold ``value`` where they are masked."""
    x = np.random.default_rng(seed).normal(size=(*mask.shape, FEATURES))
    return np.where(mask[..., None], x, value).astype("float32")


def ids(mask: np.ndarray = MASK, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 9, mask.shape) * mask


def convert(model: Any, way: str, folder: Path | None = None) -> ModelSpec:
    if way == "live" or folder is None:
        return nc.from_keras(model)
    model.save(folder / f"model.{way}")
    return nc.convert(folder / f"model.{way}")


def assert_parity(spec: ModelSpec, model: Any, *xs: np.ndarray) -> list[np.ndarray]:
    """Compare with the framework in both back ends; return what the framework gave."""
    ys = run(model, xs)
    assert len(ys) == len(spec.outputs)
    names = [t.name for t in spec.inputs]
    xs = tuple(x.astype("int64") if t.whole else x for t, x in zip(spec.inputs, xs, strict=True))
    case = Case(dict(zip(names, xs, strict=True)), dict(zip(spec.outputs, ys, strict=True)))
    for backend in BACKENDS:
        Model(spec.with_cases([case]), backend).verify().check()
    return ys


def assert_parity_in_all_ways(
    framework: str, folder: Path, model: Any, *xs: np.ndarray
) -> list[np.ndarray]:
    first, *others = (convert(model, way, folder) for way in WAYS[framework])
    ys = assert_parity(first, model, *xs)
    for other in others:
        assert_same(first, other)
    return ys


def assert_close(ours: Any, theirs: Any) -> None:
    theirs = np.asarray(theirs)
    finite = np.abs(theirs[np.isfinite(theirs)])
    atol = 64 * np.finfo("float32").eps * max(1.0, finite.max(initial=0.0))
    np.testing.assert_allclose(ours, theirs, atol=atol, rtol=0)


def masked_input(k: Any, steps: int | None = None, name: str = "x") -> tuple[Any, Any]:
    """An input and the same with its mask."""
    inputs = k.Input((steps, FEATURES), name=name)
    return inputs, k.layers.Masking(name=f"masking_{name}")(inputs)


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


# Where masks go.


def between(k: Any) -> dict[str, list[Any]]:
    """Layers that stand between two recurrent ones."""
    L = Quick(k)
    leaky = {"negative_slope": 0.2} if k is keras else {"alpha": 0.2}
    chains = {
        "dense": [L.Dense(3, activation="tanh")],
        "dropout": [L.Dropout(0.5), L.SpatialDropout1D(0.2), L.GaussianNoise(0.1)],
        "more_noise": [L.AlphaDropout(0.1), L.GaussianDropout(0.1), L.ActivityRegularization(0.1)],
        "activation": [L.Activation("relu"), L.Activation("linear")],
        "activation_layers": [L.LeakyReLU(**leaky), L.ELU(0.7), L.ReLU(0.9)],
        "prelu": [L.PReLU(shared_axes=[1])],
        "identity": [L.Identity()],  # Keras 2 lets the mask go, Keras 3 does not
        "rescaling": [L.Rescaling(0.5)],  # likewise
        "batch_normalization": [L.BatchNormalization()],
        "layer_normalization": [L.LayerNormalization()],
        "time_distributed": [L.TimeDistributed(L.Dense(3)), L.TimeDistributed(L.Dropout(0.1))],
        "time_distributed_norm": [L.TimeDistributed(L.LayerNormalization())],
        "recurrent": [L.GRU(3, return_sequences=True)],
        "bidirectional": [L.Bidirectional(L.SimpleRNN(3, return_sequences=True))],
        "flatten": [L.Flatten(), L.Reshape((STEPS, 4))],
        "reshape": [L.Reshape((STEPS, 2, 2)), L.Reshape((STEPS, 4))],
        "permute": [L.Permute((2, 1))],
        "repeat": [L.LSTM(4), L.RepeatVector(5)],
        "conv": [L.Conv1D(3, 2, padding="causal")],
        "pooling": [L.MaxPooling1D(2)],
        "average_pooling": [L.AveragePooling1D(2, padding="same")],
        "up": [L.UpSampling1D(2)],
        "zero_padding": [L.ZeroPadding1D(1)],
        "cropping": [L.Cropping1D((1, 2))],
        "global_max": [L.GlobalMaxPooling1D(), L.RepeatVector(3)],
    }
    if k is keras:
        chains["identity"] = [L.Identity()]
    return chains


@pytest.mark.parametrize(
    ("framework", "chain"), [(f, c) for f, k in FRAMEWORKS.items() for c in between(k)]
)
def test_masks_pass_or_stop(framework: str, chain: str) -> None:
    k = FRAMEWORKS[framework]
    x, y = masked_input(k, STEPS)
    y = Quick(k).LSTM(4, return_sequences=True)(y)
    for layer in between(k)[chain]:
        y = layer(y)
    model = randomise(k.Model(x, [Quick(k).GRU(4, return_sequences=True)(y), y]))
    assert_parity(nc.from_keras(model), model, padded())


@frameworks
@pytest.mark.parametrize("layer", ["Identity", "Rescaling"])
def test_masks_that_pass_since_keras_3_in_a_sequential_model(framework: str, layer: str) -> None:
    """There the config spells no mask out: the rule alone decides."""
    k = FRAMEWORKS[framework]
    between = k.layers.Identity() if layer == "Identity" else k.layers.Rescaling(0.5)
    layers = [k.Input((STEPS, FEATURES)), k.layers.Masking(), between, Quick(k).LSTM(4)]
    model = randomise(k.Sequential(layers))
    assert_parity(nc.from_keras(model), model, padded())


@frameworks
def test_steps_of_steps_with_a_mask_are_refused(framework: str) -> None:
    k = FRAMEWORKS[framework]
    twice = k.layers.TimeDistributed(k.layers.TimeDistributed(k.layers.LSTM(3)), name="twice")
    model = k.Sequential([k.Input((2, 3, 4, 2)), k.layers.Masking(), twice])
    assert "twice: TimeDistributed(TimeDistributed) with a mask is not supported" in refused(model)


@frameworks
def test_a_long_stack_of_usual_layers(framework: str, tmp_path: Path) -> None:
    k = FRAMEWORKS[framework]
    L = k.layers  # the usual activations, in tf_keras, too
    layers = [
        L.Masking(-1.0), L.LSTM(5, return_sequences=True), L.Dropout(0.3), L.BatchNormalization(),
        L.Dense(4, activation="relu"), L.GRU(4, return_sequences=True, go_backwards=True),
        L.LayerNormalization(), L.TimeDistributed(L.Dense(3)), L.Activation("tanh"),
        L.Bidirectional(L.LSTM(2, return_sequences=True), merge_mode="ave"), L.SimpleRNN(3),
        L.Dense(2),
    ]  # fmt: skip
    model = randomise(k.Sequential([k.Input((None, FEATURES)), *layers]))
    specs = [convert(model, way, tmp_path) for way in ("live", "keras", "h5")]
    assert_parity(specs[0], model, padded(-1.0))
    for spec in specs[1:]:
        assert_same(specs[0], spec)


@frameworks
def test_average_over_the_steps_that_count(framework: str, tmp_path: Path) -> None:
    k = FRAMEWORKS[framework]
    x, y = masked_input(k)
    made = k.layers.GlobalAveragePooling1D(name="pool")(Quick(k).LSTM(4, return_sequences=True)(y))
    model = randomise(k.Model(x, made))
    # A row with nothing in it is the average of nothing, in Keras and here.
    assert_parity_in_all_ways(framework, tmp_path, model, np.delete(padded(), 6, axis=0))
    assert np.isnan(run(model, [padded()])[0][6]).all()
    assert np.isnan(Model(nc.from_keras(model)).predict(padded())[6]).all()


@frameworks
def test_softmax_over_what_a_mask_is_not_for_is_refused(framework: str) -> None:
    k = FRAMEWORKS[framework]
    x, y = masked_input(k)
    model = k.Model(x, k.layers.Softmax(name="soft")(Quick(k).LSTM(4, return_sequences=True)(y)))
    assert refused(model) == ("soft: Softmax with the mask of what it reads is not supported",)


@pytest.mark.parametrize("kind", ["Attention", "AdditiveAttention"])
@frameworks
def test_attention_with_a_mask(framework: str, kind: str, tmp_path: Path) -> None:
    k = FRAMEWORKS[framework]
    x, y = masked_input(k)
    y = Quick(k).LSTM(4, return_sequences=True)(y)
    model = randomise(k.Model(x, getattr(k.layers, kind)(name="look")([y, y])))
    assert_parity_in_all_ways(framework, tmp_path, model, padded())


# Masks of words of letters: (batch, words, letters).

LETTERS = np.array(
    [
        [[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]],
        [[1, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]],
        [[0, 0, 1, 1], [1, 0, 1, 0], [1, 1, 1, 1]],
    ]
)


def wrapped(k: Any) -> dict[str, Callable[[], Any]]:
    L = Quick(k)
    return {
        "lstm": lambda: L.LSTM(4),
        "lstm_sequences": lambda: L.LSTM(4, return_sequences=True),
        "gru": lambda: L.GRU(4, go_backwards=True),
        "pair": lambda: L.Bidirectional(L.SimpleRNN(3)),
        "average": lambda: L.GlobalAveragePooling1D(),
        "dense": lambda: L.Dense(3, activation="tanh"),
        "norm": lambda: L.LayerNormalization(),
    }


@pytest.mark.parametrize("kind", wrapped(keras))
@frameworks
def test_time_distributed_hands_each_step_its_mask(framework: str, kind: str) -> None:
    # Keras gives the layer inside the mask of each step; refusing is right, too.
    k = FRAMEWORKS[framework]
    x = k.Input((3, 4), name="x")
    y = k.layers.Embedding(9, 5, mask_zero=True, name="embedding")(x)
    model = k.Model(x, k.layers.TimeDistributed(wrapped(k)[kind](), name="each")(y))
    spec, reasons = try_converting(randomise(model))
    if spec is None:
        assert reasons
        assert all(reason.startswith("each: ") for reason in reasons)
        return
    data = (LETTERS * np.random.default_rng(3).integers(1, 9, LETTERS.shape)).astype("float32")
    # An average of nothing is no number that anyone relies on.
    assert_parity(spec, model, data[::2] if kind == "average" else data)


@frameworks
def test_a_mask_of_three_axes_reaches_a_recurrent_layer(framework: str) -> None:
    k = FRAMEWORKS[framework]
    x = k.Input((3, 4), name="x")
    y = k.layers.Embedding(9, 5, mask_zero=True, name="embedding")(x)
    y = k.layers.TimeDistributed(k.layers.SimpleRNN(4), name="words")(y)
    model = randomise(k.Model(x, k.layers.SimpleRNN(3, name="text")(y)))
    data = (LETTERS * np.random.default_rng(3).integers(1, 9, LETTERS.shape)).astype("float32")
    spec, reasons = try_converting(model)
    if spec is None:
        assert {reason.split(":")[0] for reason in reasons} <= {"words", "text"}
    else:
        assert_parity(spec, model, data)


@frameworks
def test_concatenation_of_features_where_the_mask_has_three_axes(framework: str) -> None:
    # Axis 2 is neither that of steps nor the last one: the mask grows with it.
    k = FRAMEWORKS[framework]
    x = k.Input((3, 4, 5), name="x")
    y = k.layers.Masking(name="masking")(x)
    y = k.layers.Concatenate(axis=2, name="both")([y, y])
    model = k.Model(x, k.layers.TimeDistributed(k.layers.SimpleRNN(4), name="each")(y))
    spec, reasons = try_converting(randomise(model))
    if spec is None:
        assert any(reason.startswith(("both: ", "each: ")) for reason in reasons)
        return
    data = np.random.default_rng(3).normal(size=(*LETTERS.shape, 5)) * LETTERS[..., None]
    assert_parity(spec, model, data.astype("float32"))


# States that are given.


@cells
@frameworks
def test_a_given_state(framework: str, cell: str, tmp_path: Path) -> None:
    # Keras 3 passes over the mask then, Keras 2 obeys it.
    k = FRAMEWORKS[framework]
    x, y = masked_input(k)
    count = 2 if cell == "lstm" else 1
    states = [k.Input((4,), name=f"state_{n}") for n in range(count)]
    options = {"return_sequences": True, "return_state": True}
    made = make_cell(k, cell, name="given", **options)(y, initial_state=states)
    plain = make_cell(k, cell, name="plain", return_sequences=True)(y)
    after = make_cell(k, cell, name="after")(made[0])
    model = randomise(k.Model([x, *states], [*made, plain, after]))
    rng = np.random.default_rng(4)
    begins = [rng.normal(size=(BATCH, 4)).astype("float32") for _ in states]
    ys = assert_parity_in_all_ways(framework, tmp_path, model, padded(), *begins)
    stands = np.array_equal(ys[1][6], begins[0][6])
    assert stands == (framework == "tf_keras")


@frameworks
def test_an_encoders_state_goes_on(framework: str, tmp_path: Path) -> None:
    k = FRAMEWORKS[framework]
    L = Quick(k)
    a, b = (k.Input((None,), name=name) for name in "ab")
    embedding = L.Embedding(9, 5, mask_zero=True, name="shared")
    _, *state = L.LSTM(4, return_state=True, name="encoder")(embedding(a))
    y = L.LSTM(4, return_sequences=True, name="decoder")(embedding(b), initial_state=state)
    model = randomise(k.Model([a, b], L.Dense(3, activation="softmax", name="words")(y)))
    data = ids().astype("float32"), ids(MASK[::-1], seed=5).astype("float32")
    assert_parity(convert(model, "keras", tmp_path), model, *data)


# Pairs.


@pytest.mark.parametrize("merge_mode", ["concat", "sum", "mul", "ave", None])
@frameworks
def test_pairs(framework: str, merge_mode: str | None, tmp_path: Path) -> None:
    k = FRAMEWORKS[framework]
    L = Quick(k)
    x, y = masked_input(k)
    outputs = []
    for cell in CELLS if merge_mode == "concat" else ("rnn",):
        for sequences in (False, True):
            inner = make_cell(k, cell, return_sequences=sequences)
            made = L.Bidirectional(inner, merge_mode=merge_mode, name=f"{cell}_{sequences}")(y)
            outputs += flat_tensors(made)
    model = randomise(k.Model(x, outputs))
    ys = assert_parity(convert(model, "keras", tmp_path), model, padded())
    assert not ys[0][6].any()
    assert not ys[-1][~MASK].any()


def flat_tensors(made: Any) -> list[Any]:
    return list(made) if isinstance(made, (list, tuple)) else [made]


@frameworks
def test_pairs_write_zeros_in_sequences(framework: str, tmp_path: Path) -> None:
    # Also where the layer inside was told otherwise, and where it is given a backward layer.
    k = FRAMEWORKS[framework]
    L = Quick(k)
    x, y = masked_input(k)
    forward = L.LSTM(4, return_sequences=True)
    backward = L.LSTM(4, return_sequences=True, go_backwards=True)
    inner = L.GRU(3, return_sequences=True, zero_output_for_mask=False)
    made = [
        L.Bidirectional(forward, backward_layer=backward, name="own")(y),
        L.Bidirectional(inner, name="told")(y),
    ]
    model = randomise(k.Model(x, made))
    for values in assert_parity_in_all_ways(framework, tmp_path, model, padded()):
        assert not values[~MASK].any()
        assert values[MASK].all()


@frameworks
def test_pairs_with_states(framework: str, tmp_path: Path) -> None:
    k = FRAMEWORKS[framework]
    L = Quick(k)
    x, y = masked_input(k)
    made = L.Bidirectional(L.LSTM(4, return_state=True, return_sequences=True), name="pair")(y)
    state = L.Bidirectional(L.GRU(3, return_state=True), merge_mode="sum", name="last")(y)
    again = L.Bidirectional(L.LSTM(4, return_sequences=True), name="again")(
        made[0], initial_state=list(made[1:])
    )
    model = randomise(k.Model(x, [*made, *state, again]))
    assert_parity(convert(model, "keras", tmp_path), model, padded())


@frameworks
def test_a_pair_hands_its_mask_on(framework: str) -> None:
    k = FRAMEWORKS[framework]
    L = Quick(k)
    x, y = masked_input(k)
    outputs = []
    for mode in ("concat", "sum", "mul", "ave"):
        pair = L.Bidirectional(L.SimpleRNN(4, return_sequences=True), merge_mode=mode)(y)
        outputs.append(L.SimpleRNN(3, return_sequences=True)(L.Dense(4)(pair)))
    model = randomise(k.Model(x, outputs))
    assert_parity(nc.from_keras(model), model, padded())


@frameworks
def test_a_pair_left_apart_hands_its_mask_on_twice(framework: str) -> None:
    k = FRAMEWORKS[framework]
    L = Quick(k)
    x, y = masked_input(k)
    apart = L.Bidirectional(L.GRU(4, return_sequences=True), merge_mode=None)(y)
    model = k.Model(x, [L.LSTM(3, return_sequences=True)(half) for half in apart])
    assert_parity(nc.from_keras(randomise(model)), model, padded())


# Merges.

OTHER = np.roll(MASK, 3, axis=0)


def two_sources(k: Any, which: str) -> tuple[list[Any], list[Any]]:
    """Two inputs; the ones named have masks."""
    inputs = [k.Input((STEPS, FEATURES), name=name) for name in "ab"]
    made = [
        k.layers.Masking(name=f"masking_{name}")(x) if name in which else x
        for name, x in zip("ab", inputs, strict=True)
    ]
    return inputs, made


@pytest.mark.parametrize("which", ["ab", "a", "b", ""])
@pytest.mark.parametrize("merge", ["Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate"])  # fmt: skip
@frameworks
def test_merges(framework: str, merge: str, which: str) -> None:
    k = FRAMEWORKS[framework]
    inputs, made = two_sources(k, which)
    y = getattr(k.layers, merge)(name="merge")(made)
    model = randomise(k.Model(inputs, Quick(k).LSTM(4, return_sequences=True)(y)))
    assert_parity(nc.from_keras(model), model, padded(), padded(mask=OTHER, seed=6))


@pytest.mark.parametrize("which", ["ab", "a", "b", ""])
@frameworks
def test_concatenation_of_steps(framework: str, which: str) -> None:
    k = FRAMEWORKS[framework]
    inputs, made = two_sources(k, which)
    try:
        y = k.layers.Concatenate(axis=1, name="merge")(made)
    except Exception:
        assert which in ("a", "b")  # the framework itself cannot
        return
    model = randomise(k.Model(inputs, Quick(k).LSTM(4, return_sequences=True)(y)))
    xs = padded(), padded(mask=OTHER, seed=6)
    if which in ("a", "b"):
        reason = "merge: Concatenate along the steps, with a mask for some of them"
        assert reason in refused(model)
        return
    assert_parity(nc.from_keras(model), model, *xs)


@frameworks
def test_merges_of_one_mask_and_of_three(framework: str, tmp_path: Path) -> None:
    k = FRAMEWORKS[framework]
    L = Quick(k)
    a, y = masked_input(k, name="a")
    skip = L.Add()([y, L.Dense(FEATURES)(y)])
    recurrent = L.LSTM(FEATURES, return_sequences=True)(skip)
    b, other = masked_input(k, name="b")
    three = L.Concatenate()([y, recurrent, other])
    model = k.Model([a, b], [L.GRU(4, return_sequences=True)(three), L.SimpleRNN(2)(skip)])
    xs = padded(), padded(mask=OTHER, seed=6)
    assert_parity_in_all_ways(framework, tmp_path, randomise(model), *xs)


@frameworks
def test_dot_lets_the_mask_go(framework: str) -> None:
    k = FRAMEWORKS[framework]
    x, y = masked_input(k, STEPS)
    y = k.layers.Dot((2, 2))([y, y])
    model = randomise(k.Model(x, Quick(k).LSTM(4, return_sequences=True)(y)))
    assert_parity(nc.from_keras(model), model, padded())


# Shared layers and models in models.


@frameworks
def test_a_shared_layer_with_and_without_a_mask(framework: str, tmp_path: Path) -> None:
    k = FRAMEWORKS[framework]
    L = Quick(k)
    x, y = masked_input(k)
    lstm = L.LSTM(4, return_sequences=True, name="shared")
    pair = L.Bidirectional(L.GRU(3, return_sequences=True), name="pair")
    model = randomise(k.Model(x, [lstm(x), lstm(y), pair(y), pair(x)]))
    ys = assert_parity(convert(model, "keras", tmp_path), model, padded())
    assert np.abs(ys[0] - ys[1])[1:].max() > 1e-3
    np.testing.assert_array_equal(ys[0][0], ys[1][0])


@frameworks
def test_a_shared_masking(framework: str) -> None:
    k = FRAMEWORKS[framework]
    a, b = (k.Input((None, FEATURES), name=name) for name in "ab")
    masking, lstm = k.layers.Masking(-1.0), Quick(k).LSTM(4)
    model = randomise(k.Model([a, b], [lstm(masking(a)), lstm(masking(b))]))
    assert_parity(nc.from_keras(model), model, padded(-1.0), padded(-1.0, OTHER, 6))


def models_in_models(k: Any) -> dict[str, Callable[[], Any]]:
    L = Quick(k)

    def inside() -> Any:
        """The mask is made inside and used inside."""
        x, y = masked_input(k, STEPS)
        inner = k.Model(x, L.LSTM(4, return_sequences=True)(y), name="inner")
        outer = k.Input((STEPS, FEATURES))
        return k.Model(outer, L.Dense(2)(inner(outer)))

    def out_of_functional() -> Any:
        x, y = masked_input(k, STEPS)
        inner = k.Model(x, L.LSTM(4, return_sequences=True)(y), name="inner")
        outer = k.Input((STEPS, FEATURES))
        return k.Model(outer, L.GRU(4, return_sequences=True)(inner(outer)))

    def out_of_sequential() -> Any:
        inner = k.Sequential([k.Input((STEPS, FEATURES)), L.Masking(), L.Dense(3)], name="inner")
        outer = k.Input((STEPS, FEATURES))
        return k.Model(outer, L.GRU(4, return_sequences=True)(inner(outer)))

    def into_functional() -> Any:
        x = k.Input((STEPS, FEATURES))
        inner = k.Model(x, L.LSTM(4, return_sequences=True)(L.Dense(3)(x)), name="inner")
        outer, masked = masked_input(k, STEPS, "outer")
        return k.Model(outer, inner(masked))

    def into_sequential() -> Any:
        inner = k.Sequential([k.Input((STEPS, FEATURES)), L.LSTM(4), L.Dense(2)], name="inner")
        outer, masked = masked_input(k, STEPS, "outer")
        return k.Model(outer, inner(masked))

    def with_and_without() -> Any:
        x = k.Input((STEPS, FEATURES))
        inner = k.Model(x, L.LSTM(4, return_sequences=True)(x), name="inner")
        outer, masked = masked_input(k, STEPS, "outer")
        return k.Model(outer, [inner(outer), inner(masked)])

    def joined_behind() -> Any:
        """Keras 3 writes the mask of the joined tensor: true everywhere, by what its graph knows."""
        x = k.Input((STEPS, FEATURES))
        inner = k.Model(x, L.GRU(4, return_sequences=True)(x), name="inner")
        outer, masked = masked_input(k, STEPS, "outer")
        y = k.layers.Concatenate()([inner(masked), masked])
        y = L.GRU(4, return_sequences=True)(y)
        return k.Model(outer, k.layers.Maximum()([y, L.Dense(4)(y)]))

    def in_a_sequential() -> Any:
        inner = k.Sequential([k.Input((STEPS, FEATURES)), L.Masking(), L.Dense(3)], name="inner")
        return k.Sequential([k.Input((STEPS, FEATURES)), inner, L.LSTM(4), L.Dense(2)])

    makers = (inside, out_of_functional, out_of_sequential, into_functional, into_sequential,
              with_and_without, joined_behind, in_a_sequential)  # fmt: skip
    return {make.__name__: make for make in makers}


@pytest.mark.parametrize("kind", models_in_models(keras))
@frameworks
def test_models_in_models(framework: str, kind: str, tmp_path: Path) -> None:
    model = randomise(models_in_models(FRAMEWORKS[framework])[kind]())
    assert_parity_in_all_ways(framework, tmp_path, model, padded())


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


@functools.cache
def bare(framework: str, cell: str, kind: str) -> tuple[Any, ModelSpec]:
    """A model of a recurrent layer or a pair, alone."""
    k = FRAMEWORKS[framework]
    layer = make_cell(k, cell, return_sequences=kind != "last", go_backwards=kind == "backwards")
    if kind == "pair":
        layer = k.layers.Bidirectional(layer, merge_mode="sum")
    model = randomise(k.Sequential([k.Input((None, FEATURES)), layer]))
    return model, nc.from_keras(model)


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


# States.


@cells
@frameworks
def test_states_after_masked_steps(framework: str, cell: str) -> None:
    k = FRAMEWORKS[framework]
    x, y = masked_input(k)
    made = make_cell(k, cell, name="cell", return_sequences=True, return_state=True)(y)
    model = randomise(k.Model(x, list(made)))
    theirs = run(model, [padded()])
    spec = nc.from_keras(model)
    for backend in BACKENDS:
        ours, state = Model(spec, backend).predict(padded(), return_state=True)
        for name, array in zip(spec.outputs, theirs, strict=True):
            assert_close(ours[name], array)
        for name, array in zip(state["cell"], theirs[1:], strict=True):
            assert_close(state["cell"][name], array)
            assert not state["cell"][name][6].any()


@cells
@frameworks
def test_a_given_state_is_carried_where_nothing_counts(framework: str, cell: str) -> None:
    model, spec = bare(framework, cell, "sequences")
    layer = model.layers[-1]
    (entry,) = spec.state_shapes()
    rng = np.random.default_rng(4)
    state = {n: rng.normal(size=(BATCH, *s)).astype("f4") for n, s in spec.state_shapes()[entry].items()}  # fmt: skip
    x = padded(5.0)
    as_tensor = keras.ops.convert_to_tensor
    theirs = np.array(layer(x, mask=as_tensor(MASK), initial_state=[as_tensor(a) for a in state.values()]))  # fmt: skip
    for backend in BACKENDS:
        ours, after = Model(spec, backend).predict(x, mask=MASK, state={entry: state}, return_state=True)  # fmt: skip
        assert_close(ours, theirs)
        for name, array in state.items():
            np.testing.assert_array_equal(after[entry][name][6], array[6])
            assert not np.array_equal(after[entry][name][5], array[5])


@cells
@frameworks
def test_a_sequence_cut_in_two(framework: str, cell: str) -> None:
    k = FRAMEWORKS[framework]
    layers = [k.layers.Masking(), make_cell(k, cell)]
    spec = nc.from_keras(randomise(k.Sequential([k.Input((None, FEATURES)), *layers])))
    for backend in BACKENDS:
        model = Model(spec, backend)
        x = padded()
        whole, end = model.predict(x, return_state=True)
        _, middle = model.predict(x[:, :4], return_state=True)
        # The output of the second part begins at zero, the state does not.
        _, after = model.predict(x[:, 4:], state=middle, return_state=True)
        for entry, arrays in end.items():
            for name, array in arrays.items():
                assert_close(after[entry][name], array)
        assert np.abs(whole - model.predict(x[:, 4:])).max() > 1e-3


# Streams.


def streams(k: Any) -> dict[str, list[Any]]:
    L = Quick(k)
    return {
        "masking": [L.Masking(), L.LSTM(4, return_sequences=True)],
        "zeros": [L.Masking(), L.GRU(4, return_sequences=True, zero_output_for_mask=True)],
        "stack": [L.Masking(), L.LSTM(4, return_sequences=True), L.Dense(3), L.LayerNormalization(), L.SimpleRNN(4, return_sequences=True)],
        "last": [L.Masking(), L.LSTM(4, return_sequences=True), L.GRU(3)],
    }  # fmt: skip


@pytest.mark.parametrize("kind", streams(keras))
@frameworks
def test_sessions_push_as_one(framework: str, kind: str) -> None:
    k = FRAMEWORKS[framework]
    built = randomise(k.Sequential([k.Input((None, FEATURES)), *streams(k)[kind]]))
    for backend in BACKENDS:
        model = Model(nc.from_keras(built), backend)
        if kind != "zeros":  # what came out before is not part of the state
            with pytest.raises(UnsupportedError, match="repeats its last output at masked steps"):
                model.session(BATCH)
            continue
        x = padded()
        (theirs,) = run(built, [x])
        for cuts in ([0, 7], [0, 3, 7], [0, 1, 2, 6, 7], list(range(8))):
            session = model.session(BATCH)
            parts = [session.push(x[:, a:b]) for a, b in itertools.pairwise(cuts)]
            y = parts[-1] if kind == "last" else np.concatenate(parts, axis=1)
            assert_close(y, theirs)
        session = model.session(BATCH)
        steps = [session.step(np.ascontiguousarray(x[:, t])) for t in range(STEPS)]
        assert_close(steps[-1] if kind == "last" else np.stack(steps, axis=1), theirs)


@frameworks
def test_sessions_of_embeddings(framework: str) -> None:
    k = FRAMEWORKS[framework]
    L = Quick(k)
    options = {"return_sequences": True, "zero_output_for_mask": True}
    layers = [L.Embedding(9, 5, mask_zero=True), L.LSTM(4, **options), L.GRU(3, **options)]
    built = randomise(k.Sequential([k.Input((None,)), *layers]))
    x = ids().astype("float32")
    for backend in BACKENDS:
        session = Model(nc.from_keras(built), backend).session(BATCH)
        parts = [session.push(x[:, a:b]) for a, b in ((0, 2), (2, 3), (3, 7))]
        assert_close(np.concatenate(parts, axis=1), run(built, [x])[0])


def test_a_session_carries_state_over_masked_pushes() -> None:
    L = keras.layers
    layers = [L.Masking(), L.LSTM(4, return_sequences=True, zero_output_for_mask=True)]
    built = randomise(keras.Sequential([keras.Input((None, FEATURES)), *layers]))
    for backend in BACKENDS:
        model = Model(nc.from_keras(built), backend)
        x = padded(mask=np.ones((2, 4), bool))
        gaps, plain = model.session(2), model.session(2)
        for part in np.split(x, 2, axis=1):
            first = gaps.push(part)
            still = gaps.push(np.zeros((2, 3, FEATURES)))
            np.testing.assert_array_equal(still, 0)
            np.testing.assert_array_equal(plain.push(part), first)
        for entry, arrays in plain.state.items():
            for name, array in arrays.items():
                np.testing.assert_array_equal(gaps.state[entry][name], array)


def test_a_mask_of_its_own_is_not_given_another(backend: str) -> None:
    layers = [keras.layers.Masking(), keras.layers.LSTM(4, name="lstm")]
    model = Model(
        nc.from_keras(keras.Sequential([keras.Input((None, FEATURES)), *layers])), backend
    )
    for given in ({"mask": MASK}, {"lengths": np.full(BATCH, 3)}):
        with pytest.raises(ShapeError, match="lstm has a mask that the model makes"):
            model.predict(padded(), **given)
