"""Modules that remember the batch of an example, in numbers, tensors or a state."""

from __future__ import annotations

from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest
import torch
from torch import nn
from torch_modules import answers, assert_agrees, call, normal, seeded

from npylstm import Model, UnsupportedError


class Comparing(nn.Module):
    """AWD-LSTM: the states are made anew for another batch."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.bsz, self.rnn = batch, nn.LSTM(3, 5)
        self.reset()

    def reset(self) -> None:
        self.hidden = [(torch.zeros(1, self.bsz, 5), torch.zeros(1, self.bsz, 5))]

    def forward(self, x):
        if x.size(1) != self.bsz:
            self.bsz = x.size(1)
            self.reset()
        y, state = self.rnn(x, self.hidden[0])
        self.hidden = [state]
        return y


class Initialized(nn.Module):
    """The tutorials' init_hidden, called before or in forward, with a batch size as a number."""

    def __init__(self, batch: int, in_forward: bool) -> None:
        super().__init__()
        self.batch_size, self.in_forward = batch, in_forward
        self.rnn, self.head = nn.LSTM(3, 5, batch_first=True), nn.Linear(5, 2)
        self.hidden: Any = self.init_hidden()

    def init_hidden(self) -> Any:
        return torch.zeros(1, self.batch_size, 5), torch.zeros(1, self.batch_size, 5)

    def forward(self, x):
        if self.in_forward:
            self.hidden = self.init_hidden()
        y, self.hidden = self.rnn(x, self.hidden)
        return self.head(y.reshape(-1, 5)).view(self.batch_size, -1, 2)


class Buffered(nn.Module):
    def __init__(self, h0: torch.Tensor) -> None:
        super().__init__()
        self.rnn = nn.GRU(3, 5, batch_first=True)
        self.register_buffer("h0", h0)

    def forward(self, x):
        return self.rnn(x, self.h0)[0]


class Continuing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.hidden = nn.LSTM(3, 5, batch_first=True), None

    def forward(self, x):
        y, state = self.rnn(x, self.hidden)
        self.hidden = tuple(h.detach() for h in state)
        return y


@pytest.mark.parametrize("batch", [1, 3])
def test_a_comparison_with_the_last_batch(batch: int) -> None:
    module = seeded(Comparing(3))
    spec = nc.from_torch(module, normal(4, batch, 3))
    for x in (normal(4, 3, 3), normal(6, 2, 3), normal(1, 1, 3)):
        module.bsz = 0  # so that it starts anew
        np.testing.assert_allclose(answers(Model(spec), x)[0], call(module, x)[0], 1e-5, 1e-5)


@pytest.mark.parametrize("in_forward", [True, False])
def test_init_hidden(in_forward: bool) -> None:
    spec = nc.from_torch(seeded(Initialized(3, in_forward)), normal(3, 6, 3))
    assert any("batch_size = 3" in text for text in spec.provenance["decisions"])
    for batch in (1, 3, 4):
        fresh, x = seeded(Initialized(batch, in_forward)), normal(batch, 5, 3)
        np.testing.assert_allclose(answers(Model(spec), x)[0], call(fresh, x)[0], 1e-5, 1e-5)


def test_a_module_stays_as_it_was() -> None:
    module = seeded(Initialized(3, False))
    before = module.hidden
    nc.from_torch(module, normal(3, 6, 3))
    assert module.hidden is before
    assert module.batch_size == 3
    assert "forward" not in vars(module)


def test_a_buffer_of_equal_samples() -> None:
    row = normal(1, 1, 5)
    spec = nc.from_torch(seeded(Buffered(row.repeat(1, 3, 1))), normal(3, 6, 3))
    module, x = seeded(Buffered(row.repeat(1, 2, 1))), normal(2, 4, 3)
    np.testing.assert_allclose(answers(Model(spec), x)[0], call(module, x)[0], 1e-5, 1e-5)


def test_states_that_differ_are_named() -> None:
    module = seeded(Buffered(normal(1, 3, 5)))
    with pytest.raises(UnsupportedError, match=r"holds the example's batch in h0 \(1, 3, 5\)"):
        nc.from_torch(module, normal(3, 6, 3))
    used = seeded(Initialized(3, False))
    call(used, normal(3, 6, 3))
    with pytest.raises(UnsupportedError, match=r"hidden \(1, 3, 5\): reset that"):
        nc.from_torch(used, normal(3, 6, 3))


def test_a_state_kept_between_calls_is_a_sessions() -> None:
    module, x = seeded(Continuing()), normal(1, 6, 3)
    spec = nc.from_torch(module, x)
    assert module.hidden is None
    session = Model(spec).session()
    for part in (x[:, :2], x[:, 2:]):
        (wanted,) = call(module, part)
        np.testing.assert_allclose(session.push(part.numpy()), wanted, rtol=1e-5, atol=1e-5)


def test_a_batch_of_one_among_other_axes_of_one() -> None:
    class Model1(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.last = nn.GRU(1, 4, batch_first=True), None

        def forward(self, x):
            y, self.last = self.rnn(x)
            return y[:, -1]

    assert_agrees(seeded(Model1()), normal(1, 5, 1), normal(3, 2, 1))
