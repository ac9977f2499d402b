"""Keras' layers around the recurrent ones: convolutions, pooling, normalisation, attention, wrappers.

Each group is one model: a GRU, then the layer in all its variants side by side, one output each;
a recurrent layer reads the first of them. It is saved in both formats, converted and compared at
two sizes in both back ends by the rule of ``npylstm/parity.py``.
"""

from __future__ import annotations

import functools
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import keras
import npylstm_converters as nc
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from backends import BACKENDS
from keras_graphs import FRAMEWORKS, assert_same, refused, run, try_converting

from npylstm import Model, ModelSpec, ShapeError, UnsupportedError
from npylstm.spec import Case

FIXED = 6  # steps where a layer must know them; as many as features: axes that are mixed up fit

frameworks = pytest.mark.parametrize("framework", FRAMEWORKS)


def randomise(model: Any, seed: int = 1) -> Any:
    """Set all weights: nothing saturates, no bias is zero, variances are positive."""
    rng = np.random.default_rng(seed)
    weights = []
    for variable, array in zip(model.weights, model.get_weights(), strict=True):
        fan = np.prod(array.shape[:-1]) if array.ndim > 1 else 2
        values = np.asarray(rng.uniform(-1, 1, array.shape) / np.sqrt(fan))
        values = values + 0.05 * np.sign(values)
        weights.append((np.abs(values) if "variance" in variable.name else values).astype("f4"))
    model.set_weights(weights)
    return model


def make_inputs(model: Any, batch: int, steps: int, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    arrays = []
    for tensor in model.inputs:
        shape = (batch, *(steps if d is None else int(d) for d in tensor.shape[1:]))
        if "int" in str(getattr(tensor.dtype, "name", tensor.dtype)):
            arrays.append(rng.integers(0, 9, shape).astype("int32"))
        else:
            arrays.append(rng.normal(size=shape).astype("float32"))
    return arrays


def flat(value: Any) -> list[Any]:
    """All tensors in nested lists, as they are."""
    if isinstance(value, (list, tuple)):
        return [tensor for entry in value for tensor in flat(entry)]
    return [value]


def assert_parity(model: Any, specs: Sequence[ModelSpec], seed: int = 7) -> None:
    """Compare the first spec with the framework, the others with the first."""
    runs = []
    for batch, steps in ((3, 9), (2, 14)):
        xs = make_inputs(model, batch, steps, seed + batch)
        runs.append((xs, run(model, xs)))
    assert all(np.isfinite(y).all() and np.ptp(y) > 0 for _, ys in runs for y in ys)
    spec = specs[0]
    names = [t.name for t in spec.inputs]
    assert all(len(ys) == len(spec.outputs) for _, ys in runs)
    cases = [
        Case(dict(zip(names, xs, strict=True)), dict(zip(spec.outputs, ys, strict=True)))
        for xs, ys in runs
    ]
    for backend in BACKENDS:
        Model(spec.with_cases(cases), backend).verify().check()
    for other in specs[1:]:
        assert_same(spec, other)


def saved(model: Any, folder: Path) -> list[ModelSpec]:
    specs = []
    for end in ("keras", "h5"):
        model.save(folder / f"model.{end}")
        specs.append(nc.convert(folder / f"model.{end}"))
    return specs


def side_by_side(k: Any, layers: Sequence[Any], steps: int | None = None, features: int = 4) -> Any:
    """A GRU, all layers on its sequence, and a recurrent layer on what the first one gives."""
    x = k.Input((steps, features), name="x")
    options = {"activation": "softsign"} if k is tf_keras else {}  # tf_keras builds that faster
    y = k.layers.GRU(6, return_sequences=True, name="before", **options)(x)
    made = [layer(y) for layer in layers]
    first = made[0]
    outputs = flat(made)
    if len(flat(first)) == 1 and len(first.shape) == 3:
        outputs.append(k.layers.SimpleRNN(3, return_sequences=True, name="after")(first))
    return randomise(k.Model(x, outputs))


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


# What is refused, with the layer and the reason; never wrong numbers.


def refusals(k: Any) -> dict[str, tuple[Callable[[], Any], str]]:
    """Layers on (batch, 6, 6), so that whatever is mistaken for another axis fits."""
    L = k.layers
    cases = {
        "norm of steps": (lambda: L.LayerNormalization(axis=1, name="odd"), "axis"),
        "norm of steps, from behind": (lambda: L.LayerNormalization(axis=-2, name="odd"), "axis"),
        "two cells": (
            lambda: L.Bidirectional(L.RNN([L.LSTMCell(3), L.LSTMCell(2)]), name="odd"),
            "2 cells",
        ),
    }
    if k is keras:
        first = {"data_format": "channels_first"}
        cases |= {
            "channels first": (lambda: L.ZeroPadding1D(1, name="odd", **first), "channels_first"),
        }
    return cases


@pytest.mark.parametrize(
    ("framework", "name"), [(f, n) for f, k in FRAMEWORKS.items() for n in refusals(k)]
)
def test_refusals(framework: str, name: str, tmp_path: Path) -> None:
    k = FRAMEWORKS[framework]
    make, reason = refusals(k)[name]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*rms_scaling")
        layers = [make(), k.layers.SimpleRNN(3)] if name != "two cells" else [make()]
        model = k.Sequential([k.Input((FIXED, FIXED)), *layers])
    model.save(tmp_path / "model.keras")
    for source in (model, tmp_path / "model.keras"):
        (only,) = refused(source)
        assert only.startswith("odd: ")
        assert reason in only


def doubtful(k: Any) -> dict[str, Callable[[], Any]]:
    """What may be refused, but must be right if it is not."""
    L = k.layers
    soft = {"activation": "softsign"}
    return {
        "axes in another order": lambda: L.LayerNormalization(axis=[2, 1], name="odd"),
        "bare norm": lambda: L.LayerNormalization(center=False, scale=False, name="odd"),
        "offset": lambda: L.Rescaling(2.0, offset=0.5, name="odd"),
        "scales": lambda: L.Rescaling([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], name="odd"),
        "pair turned around": lambda: L.Bidirectional(L.GRU(3, go_backwards=True, **soft), name="odd"),
        "pair given in the other order": lambda: L.Bidirectional(
            L.SimpleRNN(3, go_backwards=True), backward_layer=L.SimpleRNN(3), name="odd"),
        "softmax of steps in time": lambda: L.TimeDistributed(L.Softmax(axis=1), name="odd"),
        "unit norm": lambda: L.UnitNormalization(name="odd"),
        "permuted": lambda: L.Permute((2, 1), name="odd"),
        "depthwise dilation": lambda: L.DepthwiseConv1D(2, dilation_rate=2, name="odd"),
        "transposed": lambda: L.Conv1DTranspose(3, 2, name="odd"),
        "local attention": lambda: L.Softmax(axis=[1, 2], name="odd"),
    }  # fmt: skip


# Keras 3 itself raises for these.
IMPOSSIBLE = {("keras3", "pair turned around")}


@pytest.mark.parametrize(
    ("framework", "name"),
    [(f, n) for f, k in FRAMEWORKS.items() for n in doubtful(k) if (f, n) not in IMPOSSIBLE],
)
def test_refused_or_right(framework: str, name: str) -> None:
    k = FRAMEWORKS[framework]
    model = side_by_side(k, [doubtful(k)[name]()], FIXED)
    run(model, make_inputs(model, 2, FIXED, 0))
    spec, reasons = try_converting(model)
    if spec is None:
        assert len(reasons) == 1
        assert reasons[0].startswith("odd: ")
    else:
        assert_parity(model, [spec])


@frameworks
def test_attention_by_concatenation_or_causal(framework: str) -> None:
    k = FRAMEWORKS[framework]
    L = k.layers
    for options, call in (
        ({"score_mode": "concat"}, {}),
        ({}, {"use_causal_mask": True}),
        ({}, {"return_attention_scores": True}),
    ):
        x = k.Input((None, 4), name="x")
        y = L.SimpleRNN(4, return_sequences=True)(x)
        made = L.Attention(name="look", **options)([y, x], **call)
        model = randomise(k.Model(x, made))
        spec, reasons = try_converting(model)
        assert all(reason.startswith("look: ") for reason in reasons), reasons
        if spec is not None:
            assert_parity(model, [spec])


@frameworks
def test_each_refusal_is_told(framework: str) -> None:
    k = FRAMEWORKS[framework]
    L = k.layers
    layers = [
        L.Bidirectional(
            L.RNN([L.SimpleRNNCell(3), L.GRUCell(3)], return_sequences=True), name="one"
        ),
        L.SimpleRNN(4, return_sequences=True, name="fine"),
        L.Bidirectional(L.RNN([L.LSTMCell(6), L.LSTMCell(6)]), name="two"),
    ]
    model = k.Sequential([k.Input((FIXED, FIXED)), *layers])
    assert [reason.split(":")[0] for reason in refused(model)] == ["one", "two"]


# CuDNNGRU of Keras 2.2: a file as that Keras wrote it, from arrays that are known.


def scrambled(kernel: np.ndarray, recurrent: np.ndarray, bias: np.ndarray) -> list[np.ndarray]:
    """Lay the arrays of a GRU out as cuDNN takes them; a gate's kernel lies in memory transposed."""
    inputs = [k.T.reshape(k.shape) for k in np.split(kernel, 3, axis=1)]
    recurrents = [u.T for u in np.split(recurrent, 3, axis=1)]
    return [np.concatenate(inputs, axis=1), np.concatenate(recurrents, axis=1), bias.reshape(-1)]


def write_keras22(path: Path, layers: list[tuple[str, dict[str, Any], list[np.ndarray]]]) -> None:
    """Write a Sequential model as Keras 2.2.4 does: class, config and named arrays of each layer."""
    config = {
        "class_name": "Sequential",
        "config": {
            "name": "sequential_1",
            "layers": [{"class_name": kind, "config": options} for kind, options, _ in layers],
        },
    }
    roles = {3: ("kernel", "recurrent_kernel", "bias"), 2: ("kernel", "bias")}
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"], file.attrs["backend"] = b"2.2.4", b"tensorflow"
        file.attrs["model_config"] = json.dumps(config).encode()
        root = file.create_group("model_weights")
        root.attrs["keras_version"], root.attrs["backend"] = b"2.2.4", b"tensorflow"
        root.attrs["layer_names"] = [options["name"].encode() for _, options, _ in layers]
        for _, options, arrays in layers:
            name = options["name"]
            names = [f"{name}/{role}:0" for role in roles[len(arrays)]]
            at = root.create_group(name)
            at.attrs["weight_names"] = [n.encode() for n in names]
            for key, array in zip(names, arrays, strict=True):
                at[key] = array


def cudnn_config(name: str, units: int, **options: Any) -> dict[str, Any]:
    zeros = {"class_name": "Zeros", "config": {}}
    return {
        "name": name, "trainable": True, "return_sequences": False, "return_state": False,
        "go_backwards": False, "stateful": False, "units": units, "kernel_initializer": zeros,
        "recurrent_initializer": zeros, "bias_initializer": zeros, "kernel_regularizer": None,
        "recurrent_regularizer": None, "bias_regularizer": None, "activity_regularizer": None,
        "kernel_constraint": None, "recurrent_constraint": None, "bias_constraint": None,
        **options,
    }  # fmt: skip


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(("features", "units"), [(3, 4), (5, 2), (4, 4), (1, 3)])
def test_cudnn_gru(features: int, units: int, backwards: bool, tmp_path: Path) -> None:
    L = keras.layers
    twin = keras.Sequential([keras.Input((None, features)),
        L.GRU(units, return_sequences=True, reset_after=True, go_backwards=backwards),
        L.GRU(units + 1, reset_after=True), L.Dense(2)])  # fmt: skip
    randomise(twin)
    first, second, dense = (layer.get_weights() for layer in twin.layers)
    layers = [
        ("CuDNNGRU", cudnn_config("cu_dnngru_1", units, return_sequences=True, go_backwards=backwards, batch_input_shape=[None, None, features], dtype="float32"), scrambled(*first)),
        ("CuDNNGRU", cudnn_config("cu_dnngru_2", units + 1), scrambled(*second)),
        ("Dense", {"name": "dense_1", "trainable": True, "units": 2, "activation": "linear", "use_bias": True}, dense),
    ]  # fmt: skip
    write_keras22(tmp_path / "old.h5", layers)
    assert layers[0][2][2].shape == (6 * units,)
    spec = nc.convert(tmp_path / "old.h5")
    x = np.random.default_rng(3).normal(size=(4, 9, features)).astype("float32")
    (y,) = run(twin, [x])
    case = Case({spec.inputs[0].name: x}, {spec.outputs[0]: y})
    for backend in BACKENDS:
        Model(spec, backend).verify([case]).check()
        gates = {
            a for a in (layer.config.get("recurrent_activation") for layer in spec.layers) if a
        }
        assert gates == {"sigmoid"}


def test_cudnn_biases_in_a_gru_of_another_name(tmp_path: Path) -> None:
    # The arrays of a CuDNNGRU under the config of a GRU: the flat bias gives them away.
    twin = keras.Sequential([keras.Input((None, 3)), keras.layers.GRU(4, reset_after=True)])
    randomise(twin)
    options = cudnn_config("gru_1", 4, batch_input_shape=[None, None, 3], activation="tanh",
        recurrent_activation="sigmoid", use_bias=True, reset_after=True, implementation=1)  # fmt: skip
    write_keras22(tmp_path / "old.h5", [("GRU", options, scrambled(*twin.get_weights()))])
    spec = nc.convert(tmp_path / "old.h5")
    x = np.random.default_rng(3).normal(size=(4, 9, 3)).astype("float32")
    case = Case({spec.inputs[0].name: x}, {spec.outputs[0]: run(twin, [x])[0]})
    for backend in BACKENDS:
        Model(spec, backend).verify([case]).check()


def test_cudnn_gru_of_a_wrong_size_is_refused(tmp_path: Path) -> None:
    arrays = [np.ones(s, "float32") for s in ((3, 12), (4, 12), (12,))]
    options = cudnn_config("cu_dnngru_1", 4, batch_input_shape=[None, None, 3])
    write_keras22(tmp_path / "old.h5", [("CuDNNGRU", options, arrays)])
    with pytest.raises(UnsupportedError, match="cu_dnngru_1"):
        nc.convert(tmp_path / "old.h5")
