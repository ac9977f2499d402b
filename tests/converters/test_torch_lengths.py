"""Padded sequences, and states that go in and out, against PyTorch itself."""

from __future__ import annotations

from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest
import torch
from builders import agree
from torch import nn
from torch_parity import FLOAT64_TOLERANCE, assert_parity, build, flat, lstm, normal, packed

from npylstm import Model

# PyTorch's own, about how it runs what it runs; conversion must say nothing all the same.
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN"),
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths"),
]


# ---------------------------------------------------------------- lengths and states


@pytest.mark.parametrize("batch_first", [True, False])
def test_lengths_around_every_recurrent_layer(batch_first: bool) -> None:
    lengths = [3, 8, 1, 5]
    first = nn.LSTM(3, 4, 2, batch_first=batch_first, bidirectional=True)
    second = nn.GRU(8, 5, batch_first=batch_first)

    def forward(self: Any, x: torch.Tensor) -> Any:
        y, (h, c) = self.first(x)
        z, last = self.second(torch.tanh(self.between(y)))
        return y, h, c, z, last

    def reference(x: torch.Tensor) -> Any:
        y, (h, c) = packed(first, x, lengths)
        z, last = packed(second, torch.tanh(module.between(y)), lengths)
        return y, h, c, z, last

    module = build(forward, first=first, between=nn.Linear(8, 8), second=second)
    shape = (4, 8, 3) if batch_first else (8, 4, 3)
    example = normal(2, 5, 3)
    assert_parity(module, example, normal(*shape), reference=reference, lengths=lengths)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_the_last_step_of_a_padded_sequence_is_zero(kind: str, bidirectional: bool) -> None:
    """``output[:, -1]`` behind ``pad_packed_sequence`` is zero but for the longest sequences."""
    rnn = getattr(nn, kind)(3, 4, batch_first=True, bidirectional=bidirectional)
    module = build(lambda self, x: self.rnn(x)[0][:, -1], rnn=rnn)
    lengths = [6, 2, 5, 1]
    assert_parity(
        module, normal(2, 5, 3), normal(4, 6, 3), lengths=lengths,
        reference=lambda x: packed(rnn, x, lengths)[0][:, -1],
    )  # fmt: skip


def test_lengths_do_not_depend_on_what_is_in_the_padding(backend: str) -> None:
    rnn = nn.LSTM(3, 4, 2, batch_first=True, bidirectional=True)
    model = Model(nc.from_torch(rnn, normal(2, 5, 3)), backend)
    x = normal(3, 7, 3).numpy()
    wild = x.copy()
    lengths = [2, 7, 4]
    for row, length in zip(wild, lengths, strict=True):
        row[length:] = np.nan
    clean, dirty = (model.predict(v, lengths=lengths) for v in (x, wild))
    for name in clean:
        np.testing.assert_array_equal(clean[name], dirty[name])


def test_lengths_in_parts(backend: str) -> None:
    rnn = nn.LSTM(3, 4, 2, bidirectional=True)
    model = Model(nc.from_torch(rnn, normal(5, 2, 3)), backend)
    x, lengths = normal(7, 6, 3).numpy(), np.array([2, 7, 4, 1, 5, 3])
    together = model.predict(x, lengths=lengths)
    for options in ({"batch_size": 2}, {"batch_size": 4, "threads": 2}, {"threads": 3}):
        parts = model.predict(x, lengths=lengths, **options)
        for name in together:
            agree(parts[name], together[name], 8 + 4 + 1, backend)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_states_go_in_and_out(kind: str, ragged: bool, bidirectional: bool, backend: str) -> None:
    """The state that comes out is PyTorch's, and going on from it is what PyTorch does."""
    options = {"proj_size": 3} if kind == "LSTM" else {}
    rnn = getattr(nn, kind)(
        3, 4, 2, batch_first=True, bidirectional=bidirectional, **options
    ).double()
    module = build(lambda self, x: self.rnn(x)[0], rnn=rnn)
    model = Model(nc.from_torch(module, normal(2, 5, 3).double()), backend)
    lengths = [4, 6, 1] if ragged else [6, 6, 6]
    ways = ["forward/", "backward/"] if bidirectional else [""]
    state, states = None, None
    for part in range(3):
        x = normal(3, 6, 3, seed=part).double()
        y, states = packed(rnn, x, lengths, states)
        ours, state = model.predict(
            x.numpy(), state=state, return_state=True, lengths=lengths if ragged else None
        )
        np.testing.assert_allclose(ours, y.detach().numpy(), atol=FLOAT64_TOLERANCE, rtol=0)
        assert list(state) == ["rnn_l0", "rnn_l1"]
        for letter, stack in zip("hc", states if kind == "LSTM" else [states], strict=False):
            own = [state[f"rnn_l{layer}"][way + letter] for layer in range(2) for way in ways]
            expected = stack.detach().numpy()
            np.testing.assert_allclose(np.stack(own), expected, atol=FLOAT64_TOLERANCE, rtol=0)


def test_a_layer_that_is_given_its_state_carries_none(backend: str) -> None:
    def example(batch: int) -> Any:
        return normal(batch, 5, 3), normal(1, batch, 6), normal(1, batch, 6)

    module = build(lambda self, x, h, c: self.rnn(x, (h, c))[0], **lstm())
    model = Model(nc.from_torch(module, example(2)), backend)
    y, state = model.predict(flat(example(3)), return_state=True)
    assert state == {}
    np.testing.assert_array_equal(y, model.predict(flat(example(3))))


def test_a_module_called_twice_carries_two_states(backend: str) -> None:
    module = build(lambda self, a, b: self.rnn(a)[0] - 3 * self.rnn(b)[0], **lstm()).double()
    a, b = normal(2, 8, 3).double(), normal(2, 8, 3, seed=1).double()
    model = Model(nc.from_torch(module, (a, b)), backend)
    together = model.predict(flat((a, b)))
    _, state = model.predict(flat((a[:, :3], b[:, :3])), return_state=True)
    assert len(state) == 2
    rest = model.predict(flat((a[:, 3:], b[:, 3:])), state=state)
    np.testing.assert_allclose(rest, together[:, 3:], atol=FLOAT64_TOLERANCE, rtol=0)
