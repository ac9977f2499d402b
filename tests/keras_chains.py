"""Weights-only files of Keras 1 and 2, and the words that join their layers.

The framework's own model is what the numbers are compared with; the file has its weights alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tf_keras
from keras_graphs import make_inputs, randomise, run

from npylstm.cli import main

L = tf_keras.layers


def sequential(shape: tuple[Any, ...], *layers: Any) -> Any:
    return tf_keras.Sequential([L.InputLayer(shape), *layers])


class Said(NamedTuple):
    """A model, what is said about it, and each part of that with what is missed without it.

    ``missing`` has the part to leave out, by what to replace it, the layer that is named then and
    a word of what is asked for.
    """

    build: Callable[[], Any]
    layers: str
    missing: tuple[tuple[str, str, str, str], ...] = ()
    steps: int = 6


def lstm_stack() -> Any:
    return sequential(
        (None, 3), L.LSTM(5, return_sequences=True, name="lstm_1"), L.Dropout(0.5, name="dropout_1"),
        L.LSTM(4, name="lstm_2"), L.Dense(3, activation="softmax", name="dense_1"),
    )  # fmt: skip


def lstm_sequences() -> Any:
    return sequential(
        (None, 3), L.LSTM(5, return_sequences=True, name="lstm_1"),
        L.TimeDistributed(L.Dense(2, activation="relu"), name="time_distributed_1"),
    )  # fmt: skip


def dense_over_steps() -> Any:
    return sequential(
        (None, 3), L.LSTM(5, return_sequences=True, name="lstm_1"),
        L.Dense(2, activation="tanh", name="dense_1"),
    )  # fmt: skip


def gru_after() -> Any:
    return sequential((None, 3), L.GRU(5, name="gru_1"), L.Dense(2, name="dense_1"))


def gru_before() -> Any:
    return sequential(
        (None, 3), L.GRU(5, reset_after=False, return_sequences=True, name="gru_1"),
        L.GRU(4, reset_after=False, name="gru_2"), L.Dense(2, name="dense_1"),
    )  # fmt: skip


def gru_bare(reset_after: bool) -> Callable[[], Any]:
    def build() -> Any:
        return sequential(
            (None, 3), L.GRU(5, use_bias=False, reset_after=reset_after, name="gru_1"),
            L.Dense(2, name="dense_1"),
        )  # fmt: skip

    return build


def simple() -> Any:
    return sequential(
        (None, 3), L.SimpleRNN(5, return_sequences=True, use_bias=False, name="simple_rnn_1"),
        L.SimpleRNN(4, activation="relu", name="simple_rnn_2"),
        L.Dense(1, activation="sigmoid", name="dense_1"),
    )  # fmt: skip


def both_ways() -> Any:
    return sequential(
        (None, 3), L.Bidirectional(L.LSTM(4, return_sequences=True), name="bidirectional_1"),
        L.Bidirectional(L.GRU(3), merge_mode="sum", name="bidirectional_2"),
        L.Dense(2, name="dense_1"),
    )  # fmt: skip


def embedding() -> Any:
    return tf_keras.Sequential([
        L.InputLayer((None,), dtype="int32"), L.Embedding(9, 4, name="embedding_1"), L.SpatialDropout1D(0.2, name="spatial_dropout1d_1"),
        L.LSTM(5, name="lstm_1"), L.Dense(1, activation="sigmoid", name="dense_1"),
    ])  # fmt: skip


def convolution() -> Any:
    return sequential(
        (None, 3), L.Conv1D(4, 3, padding="same", activation="relu", name="conv1d_1"),
        L.MaxPooling1D(2, name="max_pooling1d_1"),
        L.Conv1D(5, 2, strides=2, name="conv1d_2"),
        L.BatchNormalization(epsilon=0.01, name="batch_normalization_1"),
        L.Activation("tanh", name="activation_1"), L.LSTM(4, name="lstm_1"),
        L.Dense(2, name="dense_1"),
    )  # fmt: skip


def autoencoder() -> Any:
    return sequential(
        (None, 3), L.LSTM(6, activation="relu", name="lstm_1"),
        L.RepeatVector(5, name="repeat_vector_1"),
        L.LSTM(6, activation="relu", return_sequences=True, name="lstm_2"),
        L.TimeDistributed(L.Dense(3), name="time_distributed_1"),
    )  # fmt: skip


def dense_only() -> Any:
    return sequential(
        (3,), L.Dense(5, activation="relu", name="dense_1"), L.BatchNormalization(name="bn"),
        L.Dense(2, use_bias=False, name="dense_2"),
    )  # fmt: skip


SAID: dict[str, Said] = {
    "lstm_stack": Said(
        lstm_stack, "lstm_1 -> dropout_1 -> lstm_2(last) -> dense_1(softmax)",
        (("lstm_2(last)", "lstm_2", "lstm_2", "lstm_2(last)"),),
    ),
    "lstm_sequences": Said(
        lstm_sequences, "lstm_1(sequences) -> time_distributed_1(relu)",
    ),
    "dense_over_steps": Said(
        dense_over_steps, "lstm_1(sequences) -> dense_1(tanh)",
        (("(sequences)", "", "lstm_1", "lstm_1(last)"),),
    ),
    "gru_after": Said(
        gru_after, "gru_1(last) -> dense_1(linear)",
        (("gru_1(last)", "gru_1", "gru_1", "gru_1(last)"),),
    ),
    "gru_before": Said(
        gru_before, "gru_1 -> gru_2(last) -> dense_1(linear)",
        (("gru_2(last)", "gru_2", "gru_2", "gru_2(last)"),),
    ),
    "gru_bare_after": Said(
        gru_bare(True), "gru_1(last, reset_after=true) -> dense_1(linear)",
        ((", reset_after=true", "", "gru_1", "reset_after"),),
    ),
    "gru_bare_before": Said(
        gru_bare(False), "gru_1(last, reset_after=false) -> dense_1(linear)",
        ((", reset_after=false", "", "gru_1", "reset_after"),),
    ),
    "simple": Said(
        simple, "simple_rnn_1 -> simple_rnn_2(last, relu) -> dense_1(sigmoid)",
        (("(last, relu)", "(relu)", "simple_rnn_2", "simple_rnn_2(last)"),),
    ),
    "both_ways": Said(
        both_ways,
        "bidirectional_1(merge_mode=concat) -> bidirectional_2(last, merge_mode=sum) -> dense_1(linear)",
        (("last, ", "", "bidirectional_2", "bidirectional_2(last)"),
         ("(merge_mode=concat)", "", "bidirectional_1", "merge_mode")),
    ),
    "embedding": Said(
        embedding, "embedding_1(mask_zero=false) -> Dropout -> lstm_1(last) -> dense_1(sigmoid)",
        (("(last)", "", "lstm_1", "lstm_1(last)"),),
    ),
    "convolution": Said(
        convolution,
        "conv1d_1(relu, padding=same, strides=1, dilation_rate=1) -> max_pooling1d_1(pool_size=2) -> "
        "conv1d_2(linear, padding=valid, strides=2, dilation_rate=1) -> batch_normalization_1(epsilon=0.01) -> "
        "activation_1(tanh) -> lstm_1(last) -> dense_1(linear)",
        (("padding=same, ", "", "conv1d_1", "padding"),
         ("strides=1, ", "", "conv1d_1", "strides"),
         ("padding=valid, ", "", "conv1d_2", "padding"),
         ("strides=2, ", "", "conv1d_2", "strides"),
         ("(pool_size=2)", "", "max_pooling1d_1", "pool_size"),
         ("(epsilon=0.01)", "", "batch_normalization_1", "epsilon"),
         ("activation_1(tanh)", "activation_1", "activation_1", "activation"),
         ("lstm_1(last)", "lstm_1", "lstm_1", "lstm_1(last)")),
        12,
    ),
    "autoencoder": Said(
        autoencoder,
        "lstm_1(last, relu) -> repeat_vector_1(n=5) -> lstm_2(sequences, relu) -> "
        "time_distributed_1(linear)",
        (("(n=5)", "", "repeat_vector_1", "n=1"),),
    ),
    "dense_only": Said(
        dense_only, "dense_1(relu) -> bn(epsilon=0.001) -> dense_2(linear)",
        (("(epsilon=0.001)", "", "bn", "epsilon"),),
    ),
}  # fmt: skip


def weights_of(model: Any, folder: Path) -> Path:
    """Its weights alone, in the older form of HDF5; the statistics are what a variance can be."""
    randomise(model, 5)
    for layer in model.layers:
        if isinstance(layer, L.BatchNormalization):
            gamma, beta, mean, variance = layer.get_weights()
            layer.set_weights([gamma, beta, mean, np.abs(variance) + 0.5])
    path = folder / "x_weights.h5"
    model.save_weights(path)
    return path


class Built(NamedTuple):
    """A model, its file of weights, what the framework computes."""

    model: Any
    path: Path
    runs: list[Any]


def runs_of(model: Any, steps: int) -> list[Any]:
    given = [make_inputs(model, 3, steps, 0), make_inputs(model, 1, steps + 5, 1)]
    return [(xs, run(model, xs)) for xs in given]


def run_main(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    status = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


STACK = "lstm_1 -> dropout_1 -> lstm_2(last) -> dense_1(softmax)"


def command_of(text: str) -> str:
    (line,) = [line.strip() for line in text.splitlines() if line.strip().startswith("npylstm ")]
    return line


def said_names(text: str) -> list[str]:
    return [step.split("(")[0] for step in text.split(" -> ")]


def build(name: str, folder: Path) -> Built:
    model = SAID[name].build()
    return Built(model, weights_of(model, folder), runs_of(model, SAID[name].steps))
