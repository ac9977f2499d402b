"""Keras' masks: which layers pass them on, through merges, shared layers and models in models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import npylstm_converters as nc
import numpy as np
import pytest
from keras_graphs import FRAMEWORKS, assert_same, refused, run, try_converting
from keras_masks import (
    FEATURES,
    MASK,
    STEPS,
    Quick,
    assert_parity,
    assert_parity_in_all_ways,
    convert,
    frameworks,
    masked_input,
    padded,
    randomise,
)

from npylstm import Model

# Keras says so where a layer lets a mask go; that it does is what these tests are about.
pytestmark = pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask")


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
