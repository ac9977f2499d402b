"""The modules of the whole models: recurrent layers with what stands around them in public ones.

A model that carries a state takes it behind its input, one LSTM's ``h`` and ``c``, and then
returns it behind its output; without a state, it starts from zeros and returns the output alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, relu, softmax
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class Sensor(nn.Module):
    """A classifier of windows of sensor data."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(9, 64, 3)
        self.pool = nn.MaxPool1d(2)
        self.lstm = nn.LSTM(64, 100, batch_first=True)
        self.out = nn.Linear(100, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(relu(self.convolution(x.transpose(1, 2)))).transpose(1, 2)
        return softmax(self.out(self.lstm(x)[0][:, -1]), -1)


class AdditiveAttention(nn.Module):
    """A mean over the steps of an LSTM, by learned weights."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(64, 128, batch_first=True)
        self.hidden = nn.Linear(128, 64)
        self.score = nn.Linear(64, 1)
        self.out = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.lstm(x)[0]
        weights = softmax(self.score(torch.tanh(self.hidden(y))), 1)
        return softmax(self.out((weights * y).sum(1)), -1)


class SelfAttention(nn.Module):
    """Every step of an LSTM attends to all."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(64, 128, batch_first=True)
        self.query, self.key, self.value = (nn.Linear(128, 64) for _ in range(3))
        self.out = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.lstm(x)[0]
        weights = softmax(self.query(y) @ self.key(y).transpose(1, 2) / 8, -1)
        return softmax(self.out((weights @ self.value(y)).mean(1)), -1)


class Speech(nn.Module):
    """Log-probabilities of characters for each frame, as for CTC."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(40, 256, 2, batch_first=True)
        self.out = nn.Linear(256, 29)

    def forward(self, x: Tensor) -> Tensor:
        return log_softmax(self.out(self.gru(x)[0]), -1)


class NormalizedLayers(nn.Module):
    """LSTMs with a layer normalization between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.LSTM(64, 128, batch_first=True)
        self.norm = nn.LayerNorm(128)
        self.second = nn.LSTM(128, 128, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.norm(self.first(x)[0]))[0]


class BatchNormalizedLayers(nn.Module):
    """LSTMs with a batch normalization between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.LSTM(64, 128, batch_first=True)
        self.norm = nn.BatchNorm1d(128)
        self.second = nn.LSTM(128, 64, batch_first=True)
        self.out = nn.Linear(64, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.first(x)[0].transpose(1, 2)).transpose(1, 2)
        return self.out(self.second(y)[0][:, -1])


class Residual(nn.Module):
    """Three LSTMs; the last two add to what they read."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.LSTM(128, 128, batch_first=True) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers[0](x)[0]
        for layer in self.layers[1:]:
            y = y + layer(y)[0]
        return y


class Transformer(nn.Module):
    """A block of multi-head attention, then an LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(64, 128)
        self.attention = nn.MultiheadAttention(128, 4, batch_first=True)
        self.norm = nn.LayerNorm(128)
        self.lstm = nn.LSTM(128, 128, batch_first=True)
        self.out = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.project(x)
        x = self.norm(x + self.attention(x, x, x, need_weights=False)[0])
        return self.out(self.lstm(x)[0][:, -1])


class Tagger(nn.Module):
    """Probabilities of 17 tags for each word."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5000, 100)
        self.lstm = nn.LSTM(100, 64, batch_first=True, bidirectional=True)
        self.out = nn.Linear(128, 17)

    def forward(self, ids: Tensor) -> Tensor:
        return softmax(self.out(self.lstm(self.embedding(ids))[0]), -1)


class Sentiment(nn.Module):
    """Whether a review is good, as in examples for the data set imdb."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20000, 100)
        self.lstm = nn.LSTM(100, 128, batch_first=True)
        self.out = nn.Linear(128, 1)

    def forward(self, ids: Tensor) -> Tensor:
        return torch.sigmoid(self.out(self.lstm(self.embedding(ids))[0][:, -1]))


class Forecaster(nn.Module):
    """The next 24 values of a time series."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 64, batch_first=True)
        self.out = nn.Linear(64, 24)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.lstm(x)[0][:, -1])


class Amplifier(nn.Module):
    """A guitar amplifier, sample by sample."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(1, 20, batch_first=True)
        self.out = nn.Linear(20, 1)

    def forward(self, x: Tensor, *state: Tensor) -> Any:
        y, carried = self.lstm(x, state or None)
        y = x + self.out(y)
        return (y, *carried) if state else y


class Language(nn.Module):
    """The next token's logits: a character model, or the decoder of a translation."""

    def __init__(self, vocabulary: int, embedding: int, units: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.lstm = nn.LSTM(embedding, units, batch_first=True)
        self.out = nn.Linear(units, vocabulary)

    def forward(self, ids: Tensor, *state: Tensor) -> Any:
        y, carried = self.lstm(self.embedding(ids), state or None)
        y = self.out(y)
        return (y, *carried) if state else y


class RaggedClassifier(nn.Module):
    """The last state of sequences of different lengths."""

    packed = True  # ONNX has no packed sequences: its LSTM takes the lengths

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(64, 128, batch_first=True)
        self.out = nn.Linear(128, 10)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        if self.packed:
            x = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return self.out(self.lstm(x)[1][0][-1])


class RaggedTagger(RaggedClassifier):
    """All steps, padded with zeros behind the end."""

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        if not self.packed:
            return self.out(self.lstm(x)[0])
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        y = self.lstm(packed)[0]
        return self.out(pad_packed_sequence(y, batch_first=True, total_length=x.shape[1])[0])
