"""Keras models drawn at random, one layer after the other, with masks; against the framework.

``NPYLSTM_RANDOM_CHAINS=1000 NPYLSTM_RANDOM_SEED=80`` draws a thousand others. A
failure shows its seed and its layers.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras_graphs import FRAMEWORKS, IDS, assert_parity, convert, make_inputs, randomise, run

# Keras tells that a layer lets a mask go: that is what is tested.
pytestmark = pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask")

COUNT = int(os.environ.get("NPYLSTM_RANDOM_CHAINS", "80"))
FIRST = int(os.environ.get("NPYLSTM_RANDOM_SEED", "0"))
RUNS = ((5, 9), (1, 12))


class Chain:
    """Draws layers for a tensor ``(batch, steps, features)``, or ``(batch, features)``."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.framework = list(FRAMEWORKS)[seed % 2]
        self.k = FRAMEWORKS[self.framework]
        self.L = self.k.layers
        self.way = ["keras", "h5", "live"][seed // 2 % 3]
        self.timed, self.masked = True, False
        self.steps = 9  # a lower bound, so that windows fit
        self.layers: list[Any] = []
        self.log: list[str] = []

    def one(self, *options: Any) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def add(self, kind: str, *args: Any, **options: Any) -> Any:
        layer = getattr(self.L, kind)(*args, **options)
        self.layers.append(layer)
        shown = [str(getattr(a, "name", a)) for a in args] + [
            f"{k}={v}" for k, v in options.items()
        ]
        self.log.append(f"{kind}({', '.join(shown)})")
        return layer

    # What there is to draw.

    def recurrent_options(self, kind: str) -> dict[str, Any]:
        options: dict[str, Any] = {
            "activation": self.one("tanh", "tanh", "softsign", "relu"),
            "return_sequences": self.chance(0.6),
            "use_bias": self.chance(0.8),
        }
        if kind != "SimpleRNN":
            options["recurrent_activation"] = self.one("sigmoid", "hard_sigmoid", "tanh")
        if kind == "GRU":
            options["reset_after"] = self.chance(0.5)
        return options

    def recurrent(self) -> None:
        kind, units = self.one("LSTM", "GRU", "SimpleRNN"), int(self.rng.integers(1, 7))
        options = self.recurrent_options(kind)
        sequences = options["return_sequences"]
        shape = self.one("plain", "plain", "bidirectional", "cell")
        if shape == "cell":
            outer = {"return_sequences": options.pop("return_sequences")}
            cell = getattr(self.L, f"{kind}Cell")(units, **options)
            self.add("RNN", cell, go_backwards=self.chance(0.3), **outer)
        elif shape == "bidirectional":
            inner = getattr(self.L, kind)(units, **options)
            self.add("Bidirectional", inner, merge_mode=self.one("concat", "sum", "mul", "ave"))
        else:
            zeros = {"zero_output_for_mask": True} if self.chance(0.2) else {}
            self.add(kind, units, go_backwards=self.chance(0.2), **options, **zeros)
        self.timed = sequences
        self.masked = self.masked and sequences

    def convolution(self) -> None:
        kind = self.one("Conv1D", "Conv1D", "SeparableConv1D", "DepthwiseConv1D")
        size = int(self.rng.integers(1, 4))
        stride, dilation = self.one((1, 1), (1, 1), (2, 1), (1, 2))
        padding = (
            self.one("valid", "same", "causal") if kind == "Conv1D" else self.one("valid", "same")
        )
        reach = (size - 1) * dilation
        if padding == "valid" and self.steps <= reach:
            padding = "same"
        if kind == "SeparableConv1D":
            stride, dilation = 1, 1
        args = (size,) if kind == "DepthwiseConv1D" else (int(self.rng.integers(1, 6)), size)
        options = {} if stride == 1 else {"strides": stride}
        options |= {} if dilation == 1 or kind == "DepthwiseConv1D" else {"dilation_rate": dilation}
        self.add(
            kind, *args, padding=padding, activation=self.one("relu", "tanh", "linear"), **options
        )
        left = self.steps - reach if padding == "valid" else self.steps
        self.steps, self.masked = max(1, left // stride), False

    def pooling(self) -> None:
        padding = self.one("valid", "same")
        if self.steps < 2:
            padding = "same"
        self.add(
            self.one("MaxPooling1D", "AveragePooling1D"), 2, self.one(None, 1), padding=padding
        )
        self.steps, self.masked = max(1, self.steps // 2), False

    def stretching(self) -> None:
        kind = self.one("UpSampling1D", "ZeroPadding1D", "Cropping1D")
        if kind == "Cropping1D":
            if self.steps < 4:
                return
            self.add(kind, (1, 2))
            self.steps -= 3
        else:
            self.add(kind, 2)
        self.masked = False

    def by_step(self) -> None:
        kind = self.one("Dense", "TimeDistributed", "LayerNormalization", "BatchNormalization",
                        "Activation", "LeakyReLU", "Dropout", "SpatialDropout1D")  # fmt: skip
        units = int(self.rng.integers(2, 6))
        if kind == "Dense":
            self.add(kind, units, activation=self.one("tanh", "relu", "linear", "softmax"))
        elif kind == "TimeDistributed":
            self.add(kind, self.L.Dense(units, activation="relu"))
        elif kind == "Activation":
            self.add(kind, self.one("tanh", "softsign", "hard_sigmoid", "elu"))
        elif kind in ("Dropout", "SpatialDropout1D"):
            self.add(kind, 0.3)
        else:
            self.add(kind)

    def end_of_time(self) -> None:
        if self.masked:  # these take heed of masks
            self.add("LSTM", 3)
        else:
            self.add(self.one("GlobalMaxPooling1D", "GlobalAveragePooling1D"))
        self.timed = self.masked = False

    def by_row(self) -> None:
        if self.chance(0.4):
            steps = int(self.rng.integers(2, 6))
            self.add("RepeatVector", steps)
            self.timed, self.steps = True, steps
        else:
            self.add("Dense", int(self.rng.integers(2, 6)), activation=self.one("relu", "softmax"))

    def draw(self) -> Any:
        features = int(self.rng.integers(1, 5))
        if self.chance(0.25):
            self.layers.append(self.k.Input((None,), dtype="int32"))
            self.masked = self.chance(0.7)
            self.add("Embedding", IDS, features, mask_zero=self.masked)
        else:
            self.layers.append(self.k.Input((None, features)))
            if self.chance(0.5):
                self.add("Masking", 0.0)
                self.masked = True
        kinds: list[Callable[[], None]] = [self.recurrent] * 4 + [self.by_step] * 3
        kinds += [self.convolution, self.pooling, self.stretching]
        for _ in range(int(self.rng.integers(2, 8))):
            (self.one(*kinds) if self.timed else self.by_row)()
        if self.timed and self.chance(0.4):
            self.end_of_time()
        if not any("LSTM" in line or "RNN" in line or "GRU" in line for line in self.log):
            if not self.timed:
                self.add("RepeatVector", 3)
            self.add("LSTM", 4)
        return self.k.Sequential(self.layers)


def with_gaps(xs: list[np.ndarray], seed: int) -> list[np.ndarray]:
    """Make steps of sequences zero: in front, in the middle, at the end, everywhere, nowhere."""
    rng = np.random.default_rng(seed)
    for x in xs:
        steps = x.shape[1]
        for row, kind in enumerate(rng.permutation(5)[: len(x)]):
            gaps = [slice(0, 3), slice(3, 5), slice(steps - 4, steps), slice(None), slice(0, 0)]
            x[row, gaps[kind]] = 0
    return xs


@pytest.mark.parametrize("seed", range(FIRST, FIRST + COUNT))
def test_random_chain(seed: int, tmp_path: Path) -> None:
    chain = Chain(seed)
    model = chain.draw()
    randomise(model, seed)
    for layer in model.layers:  # a variance is none below zero
        if type(layer).__name__ == "BatchNormalization":
            *others, variance = layer.get_weights()
            layer.set_weights([*others, np.abs(variance) + 0.1])
    print(f"seed {seed}, {chain.framework}, {chain.way}: {' -> '.join(chain.log)}")
    runs = []
    for number, (batch, steps) in enumerate(RUNS):
        xs = with_gaps(make_inputs(model, batch, steps, seed + number), seed + number)
        runs.append((xs, run(model, xs)))
    assert_parity(convert(model, chain.way, tmp_path), runs)


def test_the_draw_reaches_everything() -> None:
    chains = [Chain(seed) for seed in range(200)]
    for chain in chains:
        chain.draw()
    text = "\n".join(line for chain in chains for line in chain.log)
    words = (
        "Masking", "mask_zero=True", "LSTM", "GRU", "SimpleRNN", "RNN(", "Bidirectional", "merge_mode=mul",
        "Conv1D", "SeparableConv1D", "DepthwiseConv1D", "padding=causal", "strides=2", "dilation_rate=2",
        "MaxPooling1D", "AveragePooling1D", "UpSampling1D", "ZeroPadding1D", "Cropping1D", "LayerNormalization",
        "BatchNormalization", "TimeDistributed", "GlobalMaxPooling1D", "GlobalAveragePooling1D", "RepeatVector",
        "go_backwards=True", "zero_output_for_mask=True", "reset_after=False",
    )  # fmt: skip
    assert not [word for word in words if text.count(word) < 5]
