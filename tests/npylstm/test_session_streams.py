"""Which models a session can stream: those give the numbers of the whole, others are named."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from builders import make_chain
from session_models import LONG, V, X, agree, graph, numbers

from npylstm import Model, UnsupportedError
from npylstm.activations import Activation
from npylstm.ops.arithmetic import Arithmetic, Constant, Reduce
from npylstm.ops.bidirectional import Bidirectional
from npylstm.ops.cells import GRU, LSTM, SimpleRNN
from npylstm.ops.convolution import Conv1D, Pool1D
from npylstm.ops.dense import Dense, Embedding
from npylstm.ops.indexing import Flip, Select, Slice
from npylstm.ops.normalization import BatchNormalization, LayerNormalization
from npylstm.ops.pointwise import ActivationLayer, Identity, PReLU
from npylstm.ops.products import MatMul
from npylstm.ops.shaping import Concatenate, Reshape, Stack, Transpose


def both_ways() -> Bidirectional:
    forward = LSTM(3, 5, return_sequences=True)
    return Bidirectional(forward, replace(forward, go_backwards=True))


SEQUENCE = LSTM(3, 5, return_sequences=True)

# Layers, shape of the input, and which layers may be named: any of them tells where to look.
CANNOT: dict[str, Any] = {
    "bidirectional": ([both_ways()], X, "layer_0"),
    "bidirectional in the middle": ([Identity(), both_ways(), LSTM(10, 2)], X, "layer_1"),
    "backwards": ([LSTM(3, 5, go_backwards=True)], X, "layer_0"),
    "backwards gru": ([SEQUENCE, GRU(5, 2, go_backwards=True)], X, "layer_1"),
    "flatten": ([SEQUENCE, Reshape(((0, 0), -1)), Dense(120, 2)], LONG, "layer_1"),
    "flatten of any steps": ([SEQUENCE, Reshape(((0, 0), -1))], X, "layer_1"),
    "flatten of the input": ([Reshape(((0, 0), -1)), Dense(72, 2)], LONG, "layer_0"),
    "repeat": ([LSTM(3, 5), Stack(1, 4), LSTM(5, 2)], X, "layer_[12]"),
    "last as a sequence": ([LSTM(3, 5), Reshape(((0, 0), 5, 1)), GRU(1, 2)], X, "layer_[12]"),
    "softmax": ([SEQUENCE, ActivationLayer(Activation.of("softmax", axis=1))], X, "layer_1"),
    "softmax from behind": (
        [SEQUENCE, ActivationLayer(Activation.of("softmax", axis=-2))], X, "layer_1"
    ),
    "log softmax": (
        [SEQUENCE, ActivationLayer(Activation.of("log_softmax", axis=1))], X, "layer_1"
    ),
    "mean": ([SEQUENCE, Reduce("mean", (1,))], X, "layer_1"),
    "largest": ([SEQUENCE, Reduce("max", (1,), keepdims=True)], X, "layer_1"),
    "sum of all": ([SEQUENCE, Reduce("sum", (1, 2))], X, "layer_1"),
    "norm": ([SEQUENCE, Reduce("norm", (1,))], X, "layer_1"),
    "convolution": ([Conv1D(3, 4, 3, padding=(2, 0)), LSTM(4, 2)], X, "layer_0"),
    "strided convolution": ([Conv1D(3, 4, 2, stride=2), LSTM(4, 2)], X, "layer_0"),
    "pooling": ([SEQUENCE, Pool1D("max", 2, 2)], X, "layer_1"),
    "normalisation over steps": ([LayerNormalization((24, 3), 1e-3), LSTM(3, 2)], LONG, "layer_0"),
    "a number per step": ([BatchNormalization(24, 1, 1.0), LSTM(3, 2)], LONG, "layer_0"),
    "a slope per step": ([SEQUENCE, PReLU((24, 5), 1)], LONG, "layer_1"),
    "a slope per step for all": ([SEQUENCE, PReLU((24,), 1)], LONG, "layer_1"),
    "first": ([SEQUENCE, Select(1, 0)], X, "layer_1"),
    "last but one": ([SEQUENCE, Select(1, -2)], X, "layer_1"),
    "first of pinned ones": ([SEQUENCE, Select(1, 0)], LONG, "layer_1"),
    "all but the first": ([SEQUENCE, Slice(1, 1), LSTM(5, 2)], X, "layer_1"),
    "every second": ([SEQUENCE, Slice(1, 0, None, 2)], X, "layer_1"),
    "last few": ([SEQUENCE, Slice(1, -3)], X, "layer_1"),
    "reversed": ([Flip((1,)), LSTM(3, 2)], X, "layer_0"),
    "steps as features": ([Transpose((0, 2, 1)), LSTM(24, 2)], LONG, "layer_[01]"),
    "steps taken together": ([Reshape(((0, 0), 12, 6)), LSTM(6, 2)], LONG, "layer_0"),
    "flatten one feature": (
        [SimpleRNN(3, 1, return_sequences=True), Reshape(((0, 0), -1)), Dense(24, 2)], LONG, "layer_[12]"
    ),
    "softmax over a value per step": (
        [SimpleRNN(3, 1, return_sequences=True), Reshape(((0, 0), -1)),
         ActivationLayer(Activation("softmax"))], X, "layer_[12]",
    ),
    "softmax over what were steps": (
        [SimpleRNN(3, 1, return_sequences=True), Reshape(((0, 0), -1)), ActivationLayer(Activation("softmax"))],
        LONG, "layer_[12]",
    ),
    "normalisation over what were steps": (
        [Transpose((0, 2, 1)), LayerNormalization((24,), 1e-3)], LONG, "layer_[01]"
    ),
    "sum over what were steps": ([Transpose((0, 2, 1)), Reduce("sum", (2,))], LONG, "layer_[01]"),
    "convolution over features": (
        [Conv1D(24, 4, 2), Reshape(((0, 0), -1))], ("batch", 3, 24), "layer_[01]"
    ),
    "dense over steps": ([SEQUENCE, Transpose((0, 2, 1)), Dense(24, 2)], LONG, "layer_[12]"),
}  # fmt: skip


@pytest.mark.parametrize("kind", CANNOT)
def test_what_cannot_stream_is_named(kind: str, backend: str) -> None:
    layers, shape, name = CANNOT[kind]
    model = Model(make_chain(*layers, shape=shape), backend)
    with pytest.raises(UnsupportedError, match=name) as caught:
        model.session()
    others = {f"layer_{k}" for k in range(len(layers))} - set(re.findall("layer_.", name))
    if "[" not in name:
        subjects = [reason.split(":")[0] for reason in caught.value.reasons]
        assert not others & set(subjects)


CANNOT_GRAPHS: dict[str, Any] = {
    "seq2seq": (
        graph(
            {"x": X, "d": ("batch", "steps_2", 2)}, ("dec",),
            ("enc", LSTM(3, 4, return_state=True), "x"),
            ("dec", LSTM(2, 4, return_sequences=True), "d", "enc/h", "enc/c"),
        ),
        "dec|enc",
    ),
    "attention": (
        graph(
            {"x": X}, ("out",), ("a", LSTM(3, 4, return_sequences=True), "x"),
            ("t", Transpose((0, 2, 1)), "a"), ("scores", MatMul(), "a", "t"),
            ("weights", ActivationLayer(Activation("softmax")), "scores"),
            ("out", MatMul(), "weights", "a"),
        ),
        "t|scores|weights|out",
    ),
    "steps set end to end": (
        graph(
            {"x": X, "z": X}, ("out",), ("join", Concatenate(1), "x", "z"),
            ("out", LSTM(3, 4), "join"),
        ),
        "join",
    ),
    "a number for each step": (
        graph(
            {"x": LONG}, ("out",), ("table", Constant((24, 3)), ),
            ("sum", Arithmetic("add"), "x", "table"), ("out", LSTM(3, 4), "sum"),
        ),
        "sum|table",
    ),
    "the last step at every step": (
        graph(
            {"x": X}, ("out",), ("a", LSTM(3, 4, return_sequences=True), "x"),
            ("last", Select(1, -1), "a"), ("row", Reshape(((0, 0), 1, 4)), "last"),
            ("out", Arithmetic("subtract"), "a", "row"),
        ),
        "out|row|last",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", CANNOT_GRAPHS)
def test_graphs_that_cannot_stream_are_named(kind: str, backend: str) -> None:
    spec, name = CANNOT_GRAPHS[kind]
    with pytest.raises(UnsupportedError, match=rf"\b({name})\b"):
        Model(spec, backend).session()


# A stream may refuse these; if it takes them, then with the numbers of the whole.
MAY: dict[str, Any] = {
    "a state that is given": graph(
        {"x": X, "h": ("batch", 4)}, ("rnn",), ("rnn", GRU(3, 4), "x", "h"),
    ),
    "a sequence made of a static input": graph(
        {"x": X, "v": V}, ("out",), ("rnn", LSTM(3, 4), "x"), ("rows", Stack(1, 5), "v"),
        ("other", LSTM(2, 4), "rows"), ("out", Arithmetic("add"), "rnn", "other"),
    ),
    "a static id": graph(
        {"x": X, "id": ("batch", 1)}, ("out",), ("rnn", LSTM(3, 4), "x"),
        ("table", Embedding(5, 4), "id"), ("flat", Reshape(((0, 0), -1)), "table"),
        ("out", Arithmetic("add"), "rnn", "flat"),
    ),
    "steps of two lengths": graph(
        {"x": X, "z": ("batch", "steps_2", 3)}, ("out",), ("a", LSTM(3, 4), "x"),
        ("b", GRU(3, 4), "z"), ("out", Arithmetic("add"), "a", "b"),
    ),
    "a state as an output of a layer with a given state": graph(
        {"x": X, "h": ("batch", 4)}, ("rnn/h",), ("rnn", GRU(3, 4, return_state=True), "x", "h"),
    ),
    "a convolution of one step": graph(
        {"x": X}, ("rnn",), ("conv", Conv1D(3, 4, 1), "x"), ("rnn", GRU(4, 2), "conv"),
    ),
    "the last step as one": graph(
        {"x": X}, ("out",), ("rnn", GRU(3, 2, return_sequences=True), "x"),
        ("last", Slice(1, -1), "rnn"), ("out", Dense(2, 2), "last"),
    ),
    "the last step as one, read again": graph(
        {"x": X}, ("out",), ("rnn", GRU(3, 2, return_sequences=True), "x"),
        ("last", Slice(1, -1), "rnn"), ("out", LSTM(2, 2), "last"),
    ),
    "steps as the last axis": graph(
        {"x": ("batch", 3, "steps")}, ("rnn",), ("turn", Transpose((0, 2, 1)), "x"),
        ("rnn", GRU(3, 2), "turn"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", MAY)
def test_what_streams_gives_the_numbers_of_the_whole(kind: str, backend: str) -> None:
    spec = MAY[kind]
    model = Model(spec, backend)
    sizes = {"batch": 2, "steps": 12, "steps_2": 12}
    inputs, axes = {}, {}
    for k, t in enumerate(spec.inputs):
        x = numbers(*(sizes.get(d, d) for d in t.shape), seed=k)
        inputs[t.name] = np.array([[0], [4]]) if t.name == "id" else x
        axes[t.name] = next((a for a, d in enumerate(t.shape) if str(d).startswith("steps")), None)
    try:
        session = model.session(2)
    except UnsupportedError:
        return
    for start in range(0, 12, 4):
        y = session.push({
            name: x if axes[name] is None else np.take(x, range(start, start + 4), axes[name])
            for name, x in inputs.items()
        })  # fmt: skip
    agree(y, model.predict(inputs), backend)


def test_all_that_cannot_stream_is_said_at_once(backend: str) -> None:
    layers = [
        both_ways(), ActivationLayer(Activation.of("softmax", axis=1)),
        GRU(10, 5, go_backwards=True, return_sequences=True), Reshape(((0, 0), -1)),
    ]  # fmt: skip
    model = Model(make_chain(*layers), backend)
    with pytest.raises(UnsupportedError) as caught:
        model.session(4)
    for k in range(4):
        assert sum(f"layer_{k}" in reason for reason in caught.value.reasons) == 1
    assert model.predict(numbers(2, 4, 3)).shape == (2, 20)  # the model is as good as before
