"""Keras models drawn at random, one layer after the other, with masks; against the framework.

``NPYLSTM_RANDOM_CHAINS=1000 NPYLSTM_RANDOM_SEED=80`` draws a thousand others. A failure shows its
seed and the smallest model that still fails.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from keras_graphs import FRAMEWORKS, IDS, assert_parity, convert, make_inputs, randomise, run

from npylstm import NpylstmError

# Keras tells that a layer lets a mask go, which is what is tested, and of attention to one step.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask"),
    pytest.mark.filterwarnings("ignore:.*You are using a softmax over axis:UserWarning"),
]

COUNT = int(os.environ.get("NPYLSTM_RANDOM_CHAINS", "120"))
FIRST = int(os.environ.get("NPYLSTM_RANDOM_SEED", "0"))
RUNS = ((5, 9), (1, 12))
WAYS = ("keras", "h5", "live", "json")
STEPS = 9  # of the shorter run


class Item(NamedTuple):
    """A link of the chain: a layer of Keras with its options, or one of the words of ``_WORDS``."""

    word: str
    options: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.word}({', '.join(f'{k}={v}' for k, v in self.options.items())})"


class Draw:
    """Draws items for a tensor ``(batch, steps, features)``, or ``(batch, features)``."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.timed, self.masked, self.steps = True, False, STEPS

    def one(self, *options: Any) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def size(self, low: int = 1, high: int = 6) -> int:
        return int(self.rng.integers(low, high + 1))

    def cell(self, kind: str) -> dict[str, Any]:
        options: dict[str, Any] = {"use_bias": self.chance(0.8)}
        options["activation"] = self.one("tanh", "tanh", "softsign", "relu")
        if kind != "SimpleRNN":
            options["recurrent_activation"] = self.one("sigmoid", "hard_sigmoid", "tanh")
        if kind == "GRU":
            options["reset_after"] = self.chance(0.5)
        return options

    def recurrent(self) -> Item:
        kind, sequences = self.one("LSTM", "GRU", "SimpleRNN"), self.chance(0.6)
        shape = self.one("plain", "plain", "bidirectional", "cells", "states")
        self.timed, self.masked = sequences, self.masked and sequences
        options = {"kind": kind, "units": self.size(), "return_sequences": sequences}
        options |= self.cell(kind)
        if shape == "bidirectional":
            options["merge_mode"] = self.one("concat", "sum", "mul", "ave")
        elif shape == "cells":
            del options["units"]
            options["cells"] = [self.size() for _ in range(self.size(1, 3))]
            # With several cells and a mask that is refused.
            alone = len(options["cells"]) == 1
            options["go_backwards"] = alone and self.chance(0.3)
        elif shape == "plain":
            options["go_backwards"] = self.chance(0.2)
            if self.chance(0.2):
                options["zero_output_for_mask"] = True
        return Item(shape, options)

    def convolution(self) -> Item:
        kind = self.one("Conv1D", "Conv1D", "SeparableConv1D", "DepthwiseConv1D")
        size, stride, dilation = self.size(1, 3), *self.one((1, 1), (1, 1), (2, 1), (1, 2))
        if kind == "SeparableConv1D":
            stride = 1
        if kind != "Conv1D":
            dilation = 1
        padding = self.one("valid", "same", *(["causal"] if kind == "Conv1D" else []))
        reach = (size - 1) * dilation
        if padding == "valid" and self.steps <= reach:
            padding = "same"
        options: dict[str, Any] = {"kernel_size": size, "padding": padding, "strides": stride}
        options |= {} if dilation == 1 else {"dilation_rate": dilation}
        options |= {} if kind == "DepthwiseConv1D" else {"filters": self.size(1, 5)}
        left = self.steps - reach if padding == "valid" else self.steps
        self.steps, self.masked = max(1, left // stride), False
        return Item(kind, {**options, "activation": self.one("relu", "tanh", "linear")})

    def pooling(self) -> Item:
        padding = self.one("valid", "same") if self.steps > 1 else "same"
        self.steps, self.masked = max(1, self.steps // 2), False
        kind = self.one("MaxPooling1D", "AveragePooling1D")
        return Item(kind, {"pool_size": 2, "strides": self.one(None, 1), "padding": padding})

    def stretching(self) -> Item:
        kind = self.one("UpSampling1D", "ZeroPadding1D", "Cropping1D")
        self.masked = False
        if kind == "Cropping1D" and self.steps > 3:
            self.steps -= 3
            return Item(kind, {"cropping": (1, 2)})
        if kind == "UpSampling1D":
            return Item(kind, {"size": 2})
        return Item("ZeroPadding1D", {"padding": 2})

    def by_step(self) -> Item:
        kind = self.one("Dense", "TimeDistributed", "LayerNormalization", "BatchNormalization",
                        "Activation", "LeakyReLU", "Dropout", "SpatialDropout1D", "PReLU",
                        "UnitNormalization", "Rescaling")  # fmt: skip
        units = self.size(2, 5)
        activation = self.one("tanh", "relu", "linear", "softmax")
        options: dict[str, dict[str, Any]] = {
            "Dense": {"units": units, "activation": activation},
            "TimeDistributed": {"units": units},
            "Activation": {"activation": self.one("tanh", "softsign", "hard_sigmoid", "elu")},
            "PReLU": {"shared_axes": [1]}, "Rescaling": {"scale": 0.5, "offset": 0.25},
            "Dropout": {"rate": 0.3}, "SpatialDropout1D": {"rate": 0.3},
        }  # fmt: skip
        self.masked = self.masked and kind != "Rescaling"
        return Item(kind, options.get(kind, {}))

    def looking(self) -> Item:
        """Attention, of the sequence to itself or to a second input."""
        kind = self.one("Attention", "AdditiveAttention", "MultiHeadAttention")
        options: dict[str, Any] = {"to": self.one("itself", "itself", "another")}
        if kind == "MultiHeadAttention":
            # With a key of one number and as many heads as steps, Keras 3 on TensorFlow adds the
            # heads' bias along the steps (`keras.ops.add`).
            options |= {"num_heads": self.size(1, 3), "key_dim": self.size(2, 4)}
        if kind != "AdditiveAttention":
            options["use_causal_mask"] = self.chance(0.3)
        return Item(kind, options)

    def merging(self) -> Item:
        kind = self.one("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum",
                        "Concatenate")  # fmt: skip
        if self.chance(0.5):
            return Item("merge", {"kind": kind, "with": self.one("Dense", "LSTM")})
        return Item("join", {"kind": kind, "masked": self.chance(0.5)})

    def model_inside(self) -> Item:
        """A model of its own, called on the sequence or on windows of it, one by one."""
        if self.chance(0.5):
            return Item("inside", {"units": self.size(2, 5)})
        self.masked = False
        return Item("windows", {"units": self.size(2, 5), "kind": self.one("LSTM", "Conv1D")})

    def by_row(self) -> Item:
        if self.chance(0.4):
            self.timed, self.steps = True, self.size(2, 5)
            return Item("RepeatVector", {"n": self.steps})
        activation = self.one("relu", "softmax")
        return Item("Dense", {"units": self.size(2, 5), "activation": activation})

    def chain(self) -> list[Item]:
        features = self.size(1, 4)
        if self.chance(0.25):
            self.masked = self.chance(0.7)
            items = [Item("ids", {"features": features, "mask_zero": self.masked})]
        else:
            self.masked = self.chance(0.5)
            items = [Item("sequence", {"features": features, "masked": self.masked})]
        kinds: list[Callable[[], Item]] = [self.recurrent] * 4 + [self.by_step] * 3
        kinds += [self.convolution, self.pooling, self.stretching]
        kinds += [self.looking, self.merging, self.merging, self.model_inside]
        for _ in range(self.size(2, 8)):
            items.append((self.one(*kinds) if self.timed else self.by_row)())
        if self.timed and self.chance(0.4):
            kind = self.one("GlobalMaxPooling1D", "GlobalAveragePooling1D")
            items.append(Item(kind, {}))
        return items


class Build:
    """Makes a model of items, in one of the two Kerases."""

    def __init__(self, k: Any) -> None:
        self.k, self.L = k, k.layers
        self.inputs: list[Any] = []

    def model(self, items: Sequence[Item]) -> Any:
        x = None
        for item in items:
            make = getattr(self, f"_{item.word}", None)
            if make is not None:
                x = make(x, **item.options)
            elif item.word in ("Attention", "AdditiveAttention", "MultiHeadAttention"):
                x = self._attend(x, item.word, **item.options)
            elif item.word == "TimeDistributed":
                x = self.L.TimeDistributed(self.L.Dense(**item.options))(x)
            else:
                x = getattr(self.L, item.word)(**item.options)(x)
        return self.k.Model(self.inputs[0] if len(self.inputs) == 1 else self.inputs, x)

    def _sequence(self, x: Any, features: int, masked: bool) -> Any:
        self.inputs.append(self.k.Input((None, features)))
        return self.L.Masking()(self.inputs[-1]) if masked else self.inputs[-1]

    def _ids(self, x: Any, features: int, mask_zero: bool) -> Any:
        self.inputs.append(self.k.Input((None,), dtype="int32"))
        return self.L.Embedding(IDS, features, mask_zero=mask_zero)(self.inputs[-1])

    def _plain(self, x: Any, kind: str, **options: Any) -> Any:
        return getattr(self.L, kind)(**options)(x)

    def _bidirectional(self, x: Any, kind: str, merge_mode: str, **options: Any) -> Any:
        return self.L.Bidirectional(getattr(self.L, kind)(**options), merge_mode=merge_mode)(x)

    def _cells(
        self, x: Any, kind: str, cells: list[int], return_sequences: bool, go_backwards: bool,
        **options: Any,
    ) -> Any:  # fmt: skip
        made = [getattr(self.L, f"{kind}Cell")(units, **options) for units in cells]
        outer = {"return_sequences": return_sequences, "go_backwards": go_backwards}
        return self.L.RNN(made[0] if len(made) == 1 else made, **outer)(x)

    def _states(self, x: Any, kind: str, return_sequences: bool, **options: Any) -> Any:
        """An encoder that hands its states over."""
        layer = getattr(self.L, kind)
        x, *states = layer(return_sequences=True, return_state=True, **options)(x)
        begin = states if kind == "LSTM" else states[0]
        return layer(return_sequences=return_sequences, **options)(x, initial_state=begin)

    def _attend(
        self, x: Any, kind: str, to: str, use_causal_mask: bool = False, **options: Any
    ) -> Any:
        other = x if to == "itself" else self._sequence(None, int(x.shape[-1]), True)
        call = {"use_causal_mask": True} if use_causal_mask else {}
        layer = getattr(self.L, kind)(**options)
        return layer(x, other, **call) if "key_dim" in options else layer([x, other], **call)

    def _merge(self, x: Any, kind: str, **options: Any) -> Any:
        """A branch around a layer."""
        units = int(x.shape[-1])
        branch = self.L.Dense(units, activation="tanh")
        if options["with"] == "LSTM":
            branch = self.L.LSTM(units, activation="softsign", return_sequences=True)
        return getattr(self.L, kind)()([x, branch(x)])

    def _join(self, x: Any, kind: str, masked: bool) -> Any:
        """A second input, of as many steps as the first has at the beginning."""
        return getattr(self.L, kind)()([x, self._sequence(None, int(x.shape[-1]), masked)])

    def _inside(self, x: Any, units: int) -> Any:
        start = self.k.Input((None, int(x.shape[-1])))
        y = self.L.GRU(units, activation="softsign", return_sequences=True)(start)
        return self.k.Model(start, self.L.Dense(units, activation="relu")(y))(x)

    def _windows(self, x: Any, units: int, kind: str) -> Any:
        """Take every step for a short sequence, and a model for that."""
        features = int(x.shape[-1])
        y = self.L.TimeDistributed(self.L.RepeatVector(4))(x)
        layers = [self.k.Input((4, features))]
        if kind == "LSTM":
            layers += [self.L.LSTM(units, activation="softsign")]
        else:
            layers += [self.L.Conv1D(units, 2), self.L.MaxPooling1D(2), self.L.Flatten()]
        return self.L.TimeDistributed(self.k.Sequential(layers))(y)


def with_gaps(xs: list[np.ndarray], seed: int, whole: bool) -> list[np.ndarray]:
    """Make steps of sequences zero: in front, in the middle, at the end, nowhere, everywhere.

    ``whole`` is whether a sequence may be zero everywhere.
    """
    rng = np.random.default_rng(seed)
    for x in xs:
        steps = x.shape[1]
        gaps = [slice(0, 3), slice(3, 5), slice(steps - 4, steps), slice(0, 0)]
        gaps.append(slice(None) if whole else slice(1, 2))
        for row, kind in enumerate(rng.permutation(len(gaps))[: len(x)]):
            x[row, gaps[kind]] = 0
    return xs


Built = tuple[Any, list[Any]]  # a model and its runs


def build(items: Sequence[Item], seed: int) -> Built:
    """Make a model with weights, and run it."""
    framework = list(FRAMEWORKS)[seed % 2]
    model = Build(FRAMEWORKS[framework]).model(items)
    randomise(model, seed)
    for layer in model.layers:  # a variance is none below zero
        if type(layer).__name__ == "BatchNormalization":
            *others, variance = layer.get_weights()
            layer.set_weights([*others, np.abs(variance) + 0.1])
    runs = []
    # The mean of nothing is no number, and so is the attention of Keras to nothing at times.
    whole = all("Average" not in item.word for item in items)
    for number, (batch, steps) in enumerate(RUNS):
        xs = with_gaps(make_inputs(model, batch, steps, seed + number), seed + number, whole)
        runs.append((xs, run(model, xs)))
    return model, runs


def check(built: Built, seed: int, folder: Path) -> None:
    """Convert and compare."""
    model, runs = built
    way = WAYS[seed // 2 % len(WAYS)]
    assert_parity(convert(model, way, folder), runs)


def try_building(items: Sequence[Item], seed: int) -> Built | None:
    """Build and run, unless Keras cannot make such a model, or it gives no numbers."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model, runs = build(items, seed)
    except Exception:  # whatever Keras raises
        return None
    finite = all(np.isfinite(y).all() for _, ys in runs for y in ys)
    return (model, runs) if finite and len(model.weights) > 0 else None


def smaller(items: Sequence[Item]) -> Iterator[list[Item]]:
    """Leave out a link, or an option of one."""
    for k in range(1, len(items)):
        yield [*items[:k], *items[k + 1 :]]
    for k, item in enumerate(items):
        for name in item.options:
            rest = {key: value for key, value in item.options.items() if key != name}
            yield [*items[:k], Item(item.word, rest), *items[k + 1 :]]


def shrink(items: list[Item], fails: Callable[[Sequence[Item]], bool]) -> list[Item]:
    """Make a chain smaller as long as it fails."""
    for fewer in smaller(items):
        if fails(fewer):
            return shrink(fewer, fails)
    return items


def draw(seed: int) -> tuple[list[Item], Built]:
    """The first chain from a seed on that Keras can make."""
    for attempt in range(100):
        items = Draw(seed + 1_000_003 * attempt).chain()
        built = try_building(items, seed)
        if built is not None:
            return items, built
    raise AssertionError(f"seed {seed}: Keras can make none of a hundred chains")


@pytest.mark.parametrize("seed", range(FIRST, FIRST + COUNT))
def test_random_chain(seed: int, tmp_path: Path) -> None:
    items, built = draw(seed)
    print(f"seed {seed}: {' -> '.join(map(str, items))}")
    try:
        check(built, seed, tmp_path)
    except (AssertionError, NpylstmError) as error:
        kind = type(error)

        def fails(fewer: Sequence[Item]) -> bool:
            built = try_building(fewer, seed)
            if built is None:
                return False
            try:
                check(built, seed, tmp_path)
            except kind:
                return True
            return False

        least = " -> ".join(map(str, shrink(items, fails)))
        raise AssertionError(f"seed {seed}, least: {least}: {error}") from error


def test_what_fails_is_shrunk() -> None:
    items = Draw(7).chain()
    items[1:1] = [Item("Dense", {"units": 3, "activation": "relu"})]
    least = shrink(items, lambda chain: any("relu" in map(str, i.options.values()) for i in chain))
    assert len(least) <= 2
    assert [i.options for i in least[1:]] in ([{"activation": "relu"}], [])


def test_the_draw_reaches_everything() -> None:
    text = "\n".join(str(item) for seed in range(300) for item in Draw(seed).chain())
    words = (
        "masked=True", "mask_zero=True", "kind=LSTM", "kind=GRU", "kind=SimpleRNN", "cells(", "bidirectional(",
        "states(", "merge_mode=mul", "Conv1D(", "SeparableConv1D", "DepthwiseConv1D", "padding=causal", "strides=2",
        "dilation_rate=2", "MaxPooling1D", "AveragePooling1D", "UpSampling1D", "ZeroPadding1D", "Cropping1D",
        "LayerNormalization", "UnitNormalization", "BatchNormalization", "TimeDistributed", "GlobalMaxPooling1D",
        "GlobalAveragePooling1D", "RepeatVector", "go_backwards=True", "zero_output_for_mask=True",
        "reset_after=False", "MultiHeadAttention", "AdditiveAttention", "use_causal_mask=True", "to=another",
        "merge(", "join(", "kind=Multiply", "kind=Maximum", "inside(", "windows(", "PReLU", "Rescaling",
    )  # fmt: skip
    assert not [word for word in words if text.count(word) < 5]
