"""The models whose files are mutated: small, and together with every layer and every option.

Keras and PyTorch record the cases themselves, exactly as a conversion does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import npylstm_converters as nc
import torch
from keras_graphs import randomise
from npylstm_converters.keras.runner import KerasRunner
from npylstm_converters.torch.runner import TorchRunner
from recorded_graphs import GRAPHS
from torch import nn

from npylstm import ModelSpec

__all__ = ["MODELS"]

L = keras.layers
MODELS: dict[str, Callable[[], ModelSpec]] = {}


def _from_keras(model: Any) -> ModelSpec:
    randomise(model, seed=3)
    for variable in model.weights:
        if "variance" in variable.name:
            variable.assign(abs(variable.numpy()) + 0.2)
    spec = nc.from_keras(model)
    return nc.record(spec, KerasRunner(model, spec), budget=math.inf)


def _from_torch(module: nn.Module, *example: Any) -> ModelSpec:
    module.eval()
    spec = nc.from_torch(module, example)
    return nc.record(spec, TorchRunner(module, spec), budget=math.inf)


def _graph(name: str) -> Callable[[], ModelSpec]:
    return lambda: _from_keras(GRAPHS[name](keras, L, keras.ops))


for _name in GRAPHS:
    MODELS[_name] = _graph(_name)


def keras_model(build: Callable[[], Any]) -> Callable[[], Any]:
    MODELS[build.__name__] = lambda: _from_keras(build())
    return build


def torch_model(build: Callable[[], tuple[Any, ...]]) -> Callable[[], tuple[Any, ...]]:
    def make() -> ModelSpec:
        torch.manual_seed(3)
        return _from_torch(*build())

    MODELS[build.__name__] = make
    return build


def _sequential(shape: tuple[int | None, ...], *layers: Any) -> Any:
    return keras.Sequential([keras.Input(shape), *layers])


SEQ = {"return_sequences": True}


@keras_model
def gru_of_both_kinds() -> Any:
    return _sequential(
        (None, 3), L.GRU(3, reset_after=False, recurrent_activation="hard_sigmoid", **SEQ),
        L.BatchNormalization(epsilon=1e-2), L.GRU(3, **SEQ), L.Dense(2, "elu"),
    )  # fmt: skip


@keras_model
def merged_directions() -> Any:
    x = keras.Input((6, 2))
    ways = [L.Bidirectional(L.SimpleRNN(3, **SEQ), merge_mode=m)(x) for m in ("sum", "mul", "ave")]
    y = L.Concatenate()(ways)
    return keras.Model(x, L.Bidirectional(L.LSTM(2))(y))


@keras_model
def activations_with_numbers() -> Any:
    return _sequential(
        (5, 3), L.Dense(4), L.LeakyReLU(0.25), L.Dense(4), L.PReLU(shared_axes=[1]), L.Dense(4),
        L.ELU(0.7), L.Dense(4), L.ReLU(1.5, 0.2, 0.1), L.LSTM(3, **SEQ), L.Softmax(axis=1),
    )  # fmt: skip


@keras_model
def convolutions_and_pools() -> Any:
    return _sequential(
        (12, 4), L.Conv1D(4, 3, strides=2, padding="same", groups=2, activation="relu"),
        L.ZeroPadding1D((1, 2)), L.MaxPooling1D(2, 1), L.Conv1D(3, 2, dilation_rate=2),
        L.AveragePooling1D(2, 1, padding="same"), L.Cropping1D((1, 0)), L.UpSampling1D(2),
        L.GRU(3),
    )  # fmt: skip


@keras_model
def shapes_and_merges() -> Any:
    a, b = keras.Input((4, 6)), keras.Input((4, 6))
    y = L.Subtract()([L.Permute((2, 1))(a), L.Permute((2, 1))(b)])
    y = L.LSTM(4, **SEQ)(L.Reshape((4, 6))(y))
    z = L.Dot(axes=2, normalize=True)([y, L.SimpleRNN(4, **SEQ)(b)])
    z = L.Flatten()(L.Maximum()([z, L.Average()([z, L.Multiply()([z, z])])]))
    return keras.Model([a, b], L.GRU(2)(L.RepeatVector(3)(z)))


@keras_model
def attention_of_heads() -> Any:
    x = keras.Input((None, 4))
    y = L.LSTM(4, **SEQ)(L.Masking(0.5)(x))
    heads = L.MultiHeadAttention(2, 3)
    return keras.Model(x, L.Dense(2)(heads(y, y, use_causal_mask=True)))


@keras_model
def attention_of_two_scores() -> Any:
    x, q = keras.Input((5, 3)), keras.Input((4, 3))
    values = L.GRU(3, **SEQ)(x)
    first = L.Attention(use_scale=True)([q, values])
    second = L.AdditiveAttention()([q, values])
    third = L.Attention(score_mode="concat")([q, values])
    return keras.Model([x, q], [first, second, third])


@keras_model
def norms() -> Any:
    return _sequential(
        (5, 4), L.Rescaling(0.5, 0.25), L.LayerNormalization(epsilon=1e-2), L.LSTM(4, **SEQ),
        L.UnitNormalization(), L.LayerNormalization(axis=[1, 2], center=False),
    )  # fmt: skip


@keras_model
def padding_behind_a_rescaling() -> Any:
    return _sequential((6, 2), L.Rescaling(2.0, 2.0), L.Masking(0.0), L.LSTM(3), L.Dense(2))


@keras_model
def masked_merges() -> Any:
    ids = keras.Input((7,), dtype="int32")
    a = L.LSTM(3, **SEQ)(L.Embedding(9, 2, mask_zero=True)(ids))
    b = L.GRU(3, **SEQ)(L.Embedding(9, 2, mask_zero=True)(ids))
    return keras.Model(ids, L.SimpleRNN(3)(L.Add()([a, b])))


@keras_model
def states_returned() -> Any:
    x = keras.Input((None, 2))
    y, h, c = L.LSTM(3, return_state=True, **SEQ)(x)
    z, g = L.GRU(3, return_state=True)(y, initial_state=h)
    return keras.Model(x, [y, h, c, z, g])


class _Stack(nn.Module):
    def __init__(self, recurrent: nn.Module, width: int) -> None:
        super().__init__()
        self.recurrent, self.norm, self.head = recurrent, nn.LayerNorm(width), nn.Linear(width, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.recurrent(x)[0])
        return self.head(nn.functional.leaky_relu(y, 0.1))  # type: ignore[no-any-return]


@torch_model
def torch_lstm_both_ways() -> tuple[Any, ...]:
    rnn = nn.LSTM(3, 4, 2, batch_first=True, bidirectional=True)
    return _Stack(rnn, 8), torch.randn(3, 5, 3)


@torch_model
def torch_lstm_projected() -> tuple[Any, ...]:
    return _Stack(nn.LSTM(3, 4, proj_size=2), 2), torch.randn(5, 3, 3)


@torch_model
def torch_gru_bare() -> tuple[Any, ...]:
    return nn.GRU(3, 3, 2, batch_first=True), torch.randn(3, 5, 3), torch.randn(2, 3, 3)


@torch_model
def torch_rnn_of_relu() -> tuple[Any, ...]:
    return _Stack(nn.RNN(3, 4, nonlinearity="relu", batch_first=True), 4), torch.randn(3, 5, 3)


@torch_model
def torch_convolution() -> tuple[Any, ...]:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv1d(3, 4, 3, padding=1), nn.BatchNorm1d(4)
            self.lstm = nn.LSTM(4, 3, batch_first=True)
            for array in (self.norm.running_mean, self.norm.running_var):
                assert array is not None
                array.uniform_(0.3, 1.2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = nn.functional.gelu(self.norm(self.conv(x.transpose(1, 2)))).transpose(1, 2)
            return torch.softmax(self.lstm(y)[0][:, -1], -1)

    return Net(), torch.randn(3, 6, 3)
