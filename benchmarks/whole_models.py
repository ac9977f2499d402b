"""Whole models: which there are, their weights and inputs, and what is right for them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import modules as m
import numpy as np
import torch
from cases import Array
from torch import nn


class WholeModel(NamedTuple):
    """A model, its inputs, and how it is called.

    ``call`` is npylstm's word: ``predict``; with a state that is carried from call to call,
    ``step`` or ``push`` of a session, or ``step`` of a ``pool``. The other systems take the states
    as inputs. The inputs of a model with a state are several calls', one behind the other.
    """

    name: str
    batch: int
    make: Callable[[], nn.Module]
    inputs: Callable[[np.random.Generator, int], tuple[Array, ...]]
    call: str = "predict"
    steps: int = 1  # of a call, where a state is carried
    units: int = 0  # of the LSTM whose state that is

    def __str__(self) -> str:
        return f"{self.name}, batch {self.batch}"


def signal(steps: int, features: int) -> Callable[..., tuple[Array, ...]]:
    return lambda rng, batch: (rng.normal(size=(batch, steps, features)).astype(np.float32),)


def tokens(steps: int, vocabulary: int) -> Callable[..., tuple[Array, ...]]:
    return lambda rng, batch: (rng.integers(0, vocabulary, (batch, steps)),)


def ragged(rng: np.random.Generator, batch: int) -> tuple[Array, ...]:
    lengths = rng.integers(5, 201, batch)
    lengths[batch // 2] = 200
    return *signal(200, 64)(rng, batch), lengths


CALLS = 16  # whose outputs are compared, where a state is carried
MODELS = [
    WholeModel(name, batch, make, inputs)
    for name, make, inputs, batches in (
        ("sensor: Conv1D, MaxPool, LSTM 100", m.Sensor, signal(128, 9), (1, 32)),
        ("attention over LSTM 128", m.AdditiveAttention, signal(100, 64), (1, 32)),
        ("self-attention over LSTM 128", m.SelfAttention, signal(100, 64), (1, 32)),
        ("speech: GRU 2 x 256", m.Speech, signal(100, 40), (1, 16)),
        ("LSTM 128, LayerNorm, LSTM 128", m.NormalizedLayers, signal(100, 64), (1, 32)),
        ("LSTM 128, BatchNorm, LSTM 64", m.BatchNormalizedLayers, signal(100, 64), (1, 32)),
        ("residual LSTMs, 3 x 128", m.Residual, signal(100, 128), (1, 32)),
        ("multi-head attention, LSTM 128", m.Transformer, signal(100, 64), (1, 32)),
        ("tagger: BiLSTM 64", m.Tagger, tokens(50, 5000), (1, 32)),
        ("sentiment: LSTM 128", m.Sentiment, tokens(200, 20000), (1, 32)),
        ("forecaster: LSTM 64", m.Forecaster, signal(96, 8), (1, 32)),
        ("ragged 5 to 200, LSTM 128", m.RaggedClassifier, ragged, (64,)),
        ("ragged 5 to 200, LSTM 128, all steps", m.RaggedTagger, ragged, (64,)),
    )
    for batch in batches
] + [
    WholeModel("amp LSTM 20, by sample", 1, m.Amplifier, signal(CALLS, 1), "step", units=20),
    WholeModel("amp LSTM 20, blocks of 128", 1, m.Amplifier, signal(CALLS * 128, 1), "push",
               128, 20),
    *(
        WholeModel(f"character step, LSTM {units}", 1, partial(m.Language, 80, 64, units),
                   tokens(CALLS, 80), "step", units=units)
        for units in (128, 256, 512)
    ),
    WholeModel("decoder step, LSTM 256, 2,000 words", 1, partial(m.Language, 2000, 128, 256),
               tokens(CALLS, 2000), "step", units=256),
    WholeModel("pool of amps LSTM 20", 1000, m.Amplifier, signal(CALLS, 1), "pool", units=20),
]  # fmt: skip


def make_module(case: WholeModel) -> nn.Module:
    """Draw the weights; normalizations and biases begin neither as ones nor as zeros."""
    torch.manual_seed(20)
    module = case.make().eval().requires_grad_(False)
    for tensor in module.state_dict().values():
        if tensor.ndim == 1:
            tensor += torch.rand(tensor.shape) / 8
    return module


def make_calls(case: WholeModel) -> tuple[tuple[Array, ...], list[tuple[Array, ...]]]:
    """Draw the inputs: all, and those of every call."""
    arrays = case.inputs(np.random.default_rng(10), case.batch)
    if not case.units:
        return arrays, [arrays]
    cut = range(case.steps, arrays[0].shape[1], case.steps)
    return arrays, [(part,) for part in np.split(arrays[0], cut, axis=1)]


def reference(module: nn.Module, arrays: tuple[Array, ...]) -> Array:
    """Compute the output by torch in float64."""
    tensors = [torch.from_numpy(a) for a in arrays]
    doubles = [t.double() if t.is_floating_point() else t for t in tensors]
    return copy.deepcopy(module).double()(*doubles).numpy()
