"""Inputs and outputs of modules in structures: dictionaries, tuples, dataclasses, one sequence."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest
import torch
from npylstm_converters.torch.importer import IMPORTER
from torch import nn
from torch_modules import answers, assert_agrees, normal, seeded

from npylstm import Model


@dataclass
class Batch:
    x: torch.Tensor
    static: torch.Tensor | None = None


@dataclass
class Result:
    sequence: torch.Tensor
    last: torch.Tensor


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(3, 4, batch_first=True), nn.Linear(4, 2)

    def read(self, x: torch.Tensor, static: torch.Tensor | None) -> Any:
        y, h = self.rnn(x, None if static is None else static.unsqueeze(0))
        return self.head(y), h[-1]


class OfDataclass(Network):
    def forward(self, batch: Batch):
        return Result(*self.read(batch.x, batch.static))


class OfDictionary(Network):
    def forward(self, batch):
        y, h = self.read(batch["x"], batch.get("static"))
        return OrderedDict(y=y, h=h)


class OfTuple(Network):
    def forward(self, batch):
        x, static = batch
        return self.read(x, static)


FORMS = {
    OfDataclass: lambda x, s: Batch(x, s),
    OfDictionary: lambda x, s: {"x": x} if s is None else {"x": x, "static": s},
    OfTuple: lambda x, s: (x, s),
}


@pytest.mark.parametrize("cls", FORMS)
@pytest.mark.parametrize("with_static", [True, False])
def test_structures(cls: type[Network], with_static: bool) -> None:
    module, make = seeded(cls()), FORMS[cls]

    def sample(batch: int, steps: int) -> tuple[Any, ...]:
        static = normal(batch, 4) if with_static else None
        return (make(normal(batch, steps, 3), static),)

    spec = nc.from_torch(module, sample(3, 5))
    assert len(spec.inputs) == 1 + with_static
    x, static = normal(2, 8, 3), normal(2, 4)
    ours = answers(Model(spec), (x, static) if with_static else x)
    with torch.no_grad():
        theirs = module.read(x, static if with_static else None)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


class Sentence(nn.Module):
    """The tagger of PyTorch's tutorial: one sentence, without a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.rnn, self.head = nn.Embedding(20, 3), nn.LSTM(3, 4), nn.Linear(4, 2)

    def forward(self, sentence):
        y, _ = self.rnn(self.embed(sentence).view(len(sentence), 1, -1))
        return torch.log_softmax(self.head(y.view(len(sentence), -1)), 1)


class Unbatched(nn.Module):
    def __init__(self, bidirectional: bool) -> None:
        super().__init__()
        self.rnn = nn.LSTM(3, 4, 2, bidirectional=bidirectional)

    def forward(self, x):
        y, (h, _) = self.rnn(x)
        return y, h


def test_a_sentence() -> None:
    module = seeded(Sentence())
    ids = [torch.arange(n) % 20 for n in (5, 8, 1)]
    spec = assert_agrees(module, *ids)
    assert spec.inputs[0].shape == ("steps",)
    spec = nc.record(spec, IMPORTER.runner(module, spec, example=ids[0]), 4)
    assert Model(spec).verify().passed


@pytest.mark.parametrize("bidirectional", [False, True])
def test_one_sequence_without_a_batch(bidirectional: bool) -> None:
    spec = assert_agrees(seeded(Unbatched(bidirectional)), normal(5, 3), normal(8, 3))
    assert spec.inputs[0].shape == ("steps", 3)


def test_an_optional_state() -> None:
    class Optional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(3, 4, batch_first=True)

        def forward(self, x, state=None):
            return self.rnn(x, state)

    module = seeded(Optional())
    assert_agrees(module, normal(3, 5, 3), normal(1, 2, 3))
    state = normal(1, 3, 4), normal(1, 3, 4, seed=1)
    other = normal(1, 2, 4), normal(1, 2, 4, seed=1)
    assert_agrees(module, (normal(3, 5, 3), state), (normal(2, 8, 3), other))
