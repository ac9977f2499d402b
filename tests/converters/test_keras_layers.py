"""Keras' layers around the recurrent ones: convolutions, pooling, normalisation, attention, wrappers.

Each group is one model: a GRU, then the layer in all its variants side by side, one output each;
a recurrent layer reads the first of them. It is saved in both formats, converted and compared at
two sizes in both back ends by the rule of ``npylstm/parity.py``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import npylstm_converters as nc
import pytest
import tensorflow as tf
import tf_keras
from backends import BACKENDS
from keras_graphs import FRAMEWORKS, run
from keras_layer_parity import (
    FIXED,
    assert_parity,
    frameworks,
    make_inputs,
    randomise,
    side_by_side,
)

from npylstm import Model, ModelSpec, ShapeError


def saved(model: Any, folder: Path) -> list[ModelSpec]:
    specs = []
    for end in ("keras", "h5"):
        model.save(folder / f"model.{end}")
        specs.append(nc.convert(folder / f"model.{end}"))
    return specs


Maker = Callable[[Any, Any], Iterator[Any]]
FREE: dict[str, Maker] = {}
PINNED: dict[str, Maker] = {}


def group(table: dict[str, Maker]) -> Callable[[Maker], Maker]:
    def register(maker: Maker) -> Maker:
        table[maker.__name__] = maker
        return maker

    return register


@group(FREE)
def conv(k: Any, L: Any) -> Iterator[Any]:
    yield L.Conv1D(4, 3, name="valid")
    yield L.Conv1D(5, 3, padding="same", activation="tanh", name="same")
    yield L.Conv1D(5, 4, padding="same", name="same_even")
    yield L.Conv1D(4, 3, padding="causal", activation="relu", name="causal")
    yield L.Conv1D(4, 1, use_bias=False, name="one")


@group(FREE)
def conv_strides(k: Any, L: Any) -> Iterator[Any]:
    yield L.Conv1D(4, 3, strides=2, name="valid")
    yield L.Conv1D(4, 3, strides=2, padding="same", name="same")
    yield L.Conv1D(4, 2, strides=3, padding="same", activation="softmax", name="same_three")
    yield L.Conv1D(4, 5, strides=4, padding="same", name="same_four")
    yield L.Conv1D(4, 3, strides=2, padding="causal", name="causal")


@group(FREE)
def conv_dilation(k: Any, L: Any) -> Iterator[Any]:
    yield L.Conv1D(4, 3, dilation_rate=2, name="valid")
    yield L.Conv1D(4, 3, dilation_rate=2, padding="same", name="same")
    yield L.Conv1D(4, 2, dilation_rate=3, padding="same", name="same_odd")
    yield L.Conv1D(4, 3, dilation_rate=4, padding="causal", use_bias=False, name="causal")


@group(FREE)
def depthwise(k: Any, L: Any) -> Iterator[Any]:
    yield L.DepthwiseConv1D(3, name="valid")
    yield L.DepthwiseConv1D(3, depth_multiplier=2, padding="same", name="twice")
    yield L.DepthwiseConv1D(2, strides=2, padding="same", activation="tanh", name="strides")
    yield L.DepthwiseConv1D(3, depth_multiplier=3, use_bias=False, name="bare")
    yield L.DepthwiseConv1D(3, strides=3, name="valid_strides")


@group(FREE)
def separable(k: Any, L: Any) -> Iterator[Any]:
    yield L.SeparableConv1D(4, 3, name="valid")
    yield L.SeparableConv1D(5, 3, depth_multiplier=2, padding="same", name="twice")
    yield L.SeparableConv1D(4, 2, strides=2, padding="same", activation="tanh", name="strides")
    yield L.SeparableConv1D(4, 3, use_bias=False, name="bare")
    if k is tf_keras:
        yield L.SeparableConv1D(4, 3, padding="causal", name="causal")
    yield L.SeparableConv1D(4, 3, dilation_rate=2, name="dilation")


@group(FREE)
def pooling(k: Any, L: Any) -> Iterator[Any]:
    for kind in ("MaxPooling1D", "AveragePooling1D"):
        yield getattr(L, kind)(2, name=f"{kind}_usual")
        yield getattr(L, kind)(3, padding="same", name=f"{kind}_same")
        yield getattr(L, kind)(3, strides=1, padding="same", name=f"{kind}_slide")
        yield getattr(L, kind)(2, strides=3, name=f"{kind}_gaps")
        yield getattr(L, kind)(4, strides=2, padding="same", name=f"{kind}_over")
        yield getattr(L, kind)(3, strides=2, name=f"{kind}_valid")


@group(FREE)
def global_pooling(k: Any, L: Any) -> Iterator[Any]:
    yield L.GlobalMaxPooling1D(keepdims=True, name="max_kept")
    yield L.GlobalMaxPooling1D(name="max")
    yield L.GlobalAveragePooling1D(name="mean")
    yield L.GlobalAveragePooling1D(keepdims=True, name="mean_kept")


@group(PINNED)
def channels_first(k: Any, L: Any) -> Iterator[Any]:
    first = {"data_format": "channels_first"}
    yield L.GlobalMaxPooling1D(name="max", **first)
    yield L.GlobalAveragePooling1D(name="mean", keepdims=True, **first)
    if k is keras:  # tf_keras cannot on a CPU
        yield L.MaxPooling1D(2, name="pool", **first)
        yield L.AveragePooling1D(3, padding="same", name="average", **first)


@group(FREE)
def stretching(k: Any, L: Any) -> Iterator[Any]:
    yield L.UpSampling1D(3, name="three")
    yield L.UpSampling1D(name="two")
    yield L.ZeroPadding1D(name="pad")
    yield L.ZeroPadding1D((2, 0), name="pad_before")
    yield L.ZeroPadding1D((0, 3), name="pad_after")
    yield L.Cropping1D(name="crop")
    yield L.Cropping1D((2, 0), name="crop_before")
    yield L.Cropping1D((0, 3), name="crop_after")
    yield L.Cropping1D((0, 0), name="crop_nothing")


@group(FREE)
def layer_normalization(k: Any, L: Any) -> Iterator[Any]:
    yield L.LayerNormalization(name="usual")
    yield L.LayerNormalization(axis=2, epsilon=0.1, name="second")
    yield L.LayerNormalization(axis=[-1], scale=False, name="center")
    yield L.LayerNormalization(center=False, name="scale")


@group(PINNED)
def layer_normalization_of_two_axes(k: Any, L: Any) -> Iterator[Any]:
    yield L.LayerNormalization(axis=[1, 2], name="both")
    yield L.LayerNormalization(axis=[-2, -1], scale=False, name="from_behind")


@group(FREE)
def batch_normalization(k: Any, L: Any) -> Iterator[Any]:
    yield L.BatchNormalization(name="usual")
    yield L.BatchNormalization(axis=2, epsilon=0.1, name="second")
    yield L.BatchNormalization(scale=False, name="center")
    yield L.BatchNormalization(center=False, momentum=0.5, name="scale")
    yield L.BatchNormalization(center=False, scale=False, name="bare")


@group(PINNED)
def batch_normalization_of_steps(k: Any, L: Any) -> Iterator[Any]:
    yield L.BatchNormalization(axis=1, name="steps")
    yield L.BatchNormalization(axis=-2, scale=False, name="from_behind")


@group(FREE)
def prelu(k: Any, L: Any) -> Iterator[Any]:
    yield L.PReLU(shared_axes=[1], name="features")
    yield L.PReLU(shared_axes=[1, 2], name="all")


@group(PINNED)
def prelu_of_steps(k: Any, L: Any) -> Iterator[Any]:
    yield L.PReLU(name="each")
    yield L.PReLU(shared_axes=[2], name="steps")
    yield L.PReLU(shared_axes=[1], name="features")


@group(FREE)
def rescaling(k: Any, L: Any) -> Iterator[Any]:
    yield L.Rescaling(0.25, name="quarter")
    yield L.Rescaling(-3, name="negative")


@group(FREE)
def pairs(k: Any, L: Any) -> Iterator[Any]:
    for mode in ("concat", "sum", "mul", "ave", None):
        yield L.Bidirectional(L.SimpleRNN(3, return_sequences=True), merge_mode=mode, name=f"sequences_{mode}")  # fmt: skip
        yield L.Bidirectional(L.SimpleRNN(3), merge_mode=mode, name=f"last_{mode}")


@group(FREE)
def pairs_with_more(k: Any, L: Any) -> Iterator[Any]:
    own = L.LSTM(5, go_backwards=True, activation="relu", return_sequences=True)
    yield L.Bidirectional(L.LSTM(5, activation="softsign", return_sequences=True), backward_layer=own, name="own")  # fmt: skip
    other = L.SimpleRNN(4, go_backwards=True)
    yield L.Bidirectional(L.GRU(4, activation="elu"), backward_layer=other, merge_mode="sum", name="two_kinds")  # fmt: skip
    state = {"return_state": True, "activation": "softsign"}
    yield L.Bidirectional(L.LSTM(3, **state), name="state")
    yield L.Bidirectional(L.GRU(3, return_sequences=True, **state), merge_mode="ave", name="state_sequences")  # fmt: skip
    yield L.Bidirectional(L.SimpleRNN(3, return_state=True), merge_mode=None, name="state_apart")
    yield L.Bidirectional(L.LSTM(3, activation="softsign", use_bias=False), name="bare")


@group(FREE)
def cells(k: Any, L: Any) -> Iterator[Any]:
    yield L.RNN(L.LSTMCell(4), return_sequences=True, name="lstm")
    yield L.RNN(L.LSTMCell(4, use_bias=False, recurrent_activation="hard_sigmoid"), name="bare")
    yield L.RNN(L.GRUCell(4), go_backwards=True, return_sequences=True, name="gru_after")
    yield L.RNN(L.GRUCell(4, reset_after=False, activation="relu"), name="gru_before")
    yield L.RNN(L.SimpleRNNCell(4), return_state=True, name="rnn")
    yield L.RNN(L.LSTMCell(3, dropout=0.2, recurrent_dropout=0.1), return_state=True, name="state")
    yield L.Bidirectional(L.RNN(L.GRUCell(3), return_sequences=True), name="pair")


@group(FREE)
def lists_of_one_cell(k: Any, L: Any) -> Iterator[Any]:
    yield L.RNN([L.LSTMCell(4)], return_sequences=True, name="lstm")
    yield L.RNN([L.GRUCell(4)], go_backwards=True, name="gru")
    yield L.RNN(L.StackedRNNCells([L.SimpleRNNCell(4)]), name="rnn")


@frameworks
@pytest.mark.parametrize("name", FREE)
def test_layers_of_any_number_of_steps(framework: str, name: str, tmp_path: Path) -> None:
    k = FRAMEWORKS[framework]
    model = side_by_side(k, list(FREE[name](k, k.layers)))
    assert_parity(model, saved(model, tmp_path))


@frameworks
@pytest.mark.parametrize("name", PINNED)
def test_layers_of_a_fixed_number_of_steps(framework: str, name: str, tmp_path: Path) -> None:
    k = FRAMEWORKS[framework]
    model = side_by_side(k, list(PINNED[name](k, k.layers)), FIXED)
    assert_parity(model, saved(model, tmp_path))


# What some machines cannot run: then there is nothing to compare with.


@pytest.mark.parametrize(
    "options",
    [
        {"groups": 2},
        {"groups": 3, "padding": "same", "strides": 2},
        {"data_format": "channels_first"},
        {"data_format": "channels_first", "padding": "same", "strides": 2},
    ],
    ids=str,
)
@frameworks
def test_convolutions_that_need_more(
    framework: str, options: dict[str, Any], tmp_path: Path
) -> None:
    k = FRAMEWORKS[framework]
    model = side_by_side(k, [k.layers.Conv1D(6, 3, name="conv", **options)], FIXED)
    try:
        run(model, make_inputs(model, 2, FIXED, 0))
    except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError):
        pytest.skip("TensorFlow has no kernel for it on this processor")
    assert_parity(model, saved(model, tmp_path))


# Models with inputs of another form.


@frameworks
def test_time_distributed(framework: str, tmp_path: Path) -> None:
    k = FRAMEWORKS[framework]
    L = k.layers
    soft = {"activation": "softsign"}
    wrapped = {
        "gru": L.GRU(3, **soft),
        "lstm": L.LSTM(3, return_sequences=True, **soft),
        "rnn": L.SimpleRNN(3, go_backwards=True),
        "pair": L.Bidirectional(L.SimpleRNN(3, return_sequences=True), merge_mode="sum"),
        "conv": L.Conv1D(3, 2, activation="tanh"),
        "pool": L.MaxPooling1D(2),
        "average": L.AveragePooling1D(2, padding="same"),
        "most": L.GlobalMaxPooling1D(),
        "mean": L.GlobalAveragePooling1D(),
        "flatten": L.Flatten(),
        "dense": L.Dense(3, activation="softmax"),
        "batch_norm": L.BatchNormalization(),
        "layer_norm": L.LayerNormalization(),
        "reshape": L.Reshape((5, 4)),
        "permute": L.Permute((2, 1)),
        "softmax": L.Softmax(),
    }
    x = k.Input((None, 4, 5), name="x")
    made = [L.TimeDistributed(layer, name=name)(x) for name, layer in wrapped.items()]
    nested = L.TimeDistributed(L.TimeDistributed(L.Dense(2)), name="nested")(x)
    after = L.GRU(3, return_sequences=True, name="after", **soft)(made[0])
    model = randomise(k.Model(x, [*made, nested, after]))
    assert_parity(model, saved(model, tmp_path))


@frameworks
def test_time_distributed_embedding(framework: str, tmp_path: Path) -> None:
    # Words of letters: a recurrent layer reads each word, another the words.
    k = FRAMEWORKS[framework]
    L = k.layers
    x = k.Input((None, 4), dtype="int32", name="x")
    letters = L.TimeDistributed(L.Embedding(9, 5), name="letters")(x)
    words = L.TimeDistributed(L.GRU(3, activation="softsign"), name="words")(letters)
    model = randomise(k.Model(x, [letters, L.SimpleRNN(4, name="text")(words)]))
    assert_parity(model, saved(model, tmp_path))


@frameworks
def test_embedding(framework: str, tmp_path: Path) -> None:
    k = FRAMEWORKS[framework]
    L = k.layers
    layers = [L.Embedding(9, 5, name="embedding"), L.GRU(4, activation="softsign"), L.Dense(3)]
    model = randomise(k.Sequential([k.Input((None,), dtype="int32"), *layers]))
    specs = saved(model, tmp_path)
    assert_parity(model, specs)
    for backend in BACKENDS:
        ours = Model(specs[0], backend)
        for wrong in (9, -1, 2.5):
            with pytest.raises(ShapeError):
                ours.predict([[1, wrong, 2]])


@pytest.mark.parametrize("kind", ["Attention", "AdditiveAttention"])
@frameworks
def test_attention(framework: str, kind: str, tmp_path: Path) -> None:
    k = FRAMEWORKS[framework]
    L = k.layers
    x, other = k.Input((None, 4), name="x"), k.Input((5, 3), name="other")
    query = L.SimpleRNN(6, return_sequences=True, name="query")(x)
    value = L.SimpleRNN(6, return_sequences=True, name="value")(other)
    key = L.SimpleRNN(6, return_sequences=True, go_backwards=True, name="key")(other)
    # tf_keras takes the size of the additive scale from the values.
    wide = L.Dense(2 if kind == "Attention" else 6, name="wide")(value)
    outputs = []
    for scale in (False, True):
        make = functools.partial(getattr(L, kind), use_scale=scale)
        outputs += [
            make(name=f"two_{scale}")([query, value]),
            make(dropout=0.2, name=f"three_{scale}")([query, wide, key]),
            make(name=f"itself_{scale}")([query, query]),
        ]
    outputs.append(L.SimpleRNN(3, name="after")(L.Concatenate(name="both")([query, outputs[0]])))
    model = randomise(k.Model([x, other], outputs))
    assert_parity(model, saved(model, tmp_path))


@frameworks
def test_scores_that_would_overflow(framework: str) -> None:
    k = FRAMEWORKS[framework]
    x = k.Input((None, 4), name="x")
    y = k.layers.Dense(4, name="large")(x)
    model = randomise(k.Model(x, k.layers.Attention(name="look")([y, x])))
    model.set_weights([300 * w for w in model.get_weights()])
    assert_parity(model, [nc.from_keras(model)])
