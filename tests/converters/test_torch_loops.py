"""Loops over steps in forward: they run for any number of steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch_modules import answers, assert_agrees, call, normal, seeded

import npylstm
from npylstm import Model, ModelSpec


def kinds(spec: ModelSpec) -> list[str]:
    return [layer.kind for layer in spec.layers]


class Cells(nn.Module):
    """Two cells and a head in every step; reads each step in one of the usual forms."""

    def __init__(self, kind: str, form: str) -> None:
        super().__init__()
        cell = {"lstm": nn.LSTMCell, "gru": nn.GRUCell, "rnn": nn.RNNCell}[kind]
        self.first, self.second, self.head = cell(3, 4), cell(4, 5), nn.Linear(5, 2)
        self.lstm, self.form = kind == "lstm", form

    def zeros(self, x: torch.Tensor, size: int) -> Any:
        h = x.new_zeros(x.size(0), size)
        return (h, h.clone()) if self.lstm else h

    def forward(self, x):
        a, b, kept = self.zeros(x, 4), self.zeros(x, 5), []
        steps: Any = {
            "index": (x[:, t] for t in range(x.size(1))),
            "unbind": x.unbind(1),
            "split": (part.squeeze(1) for part in x.split(1, dim=1)),
            "moved": x.transpose(0, 1),
        }[self.form]
        for step in steps:
            a = self.first(step, a)
            b = self.second(a[0] if self.lstm else a, b)
            kept.append(torch.tanh(self.head(b[0] if self.lstm else b)))
        return torch.stack(kept, 1), a


@pytest.mark.parametrize(
    ("kind", "form"), [("lstm", "index"), ("gru", "unbind"), ("rnn", "split"), ("gru", "moved")]
)
def test_cells_become_layers(kind: str, form: str) -> None:
    module = seeded(Cells(kind, form))
    spec = assert_agrees(module, normal(3, 5, 3), normal(2, 8, 3), normal(1, 1, 3))
    assert {*kinds(spec)} <= {"lstm", "gru", "simple_rnn", "dense", "activation", "transpose"}
    assert [entry["layer"] for entry in spec.provenance["tensors"]][:1] == ["first"]


class Gates(nn.Module):
    """An LSTM written by hand, from parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.W, self.U = nn.Parameter(torch.zeros(3, 16)), nn.Parameter(torch.zeros(4, 16))
        self.b = nn.Parameter(torch.zeros(16))

    def forward(self, x):
        batch, steps, _ = x.size()
        h, c, kept = torch.zeros(batch, 4), torch.zeros(batch, 4), []
        for t in range(steps):
            i, f, g, o = (x[:, t] @ self.W + h @ self.U + self.b).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            kept.append(h.unsqueeze(1))
        return torch.cat(kept, 1), c


class Normalized(nn.Module):
    """A cell with layer normalization; the last step only."""

    def __init__(self) -> None:
        super().__init__()
        self.i, self.h = nn.Linear(3, 8), nn.Linear(4, 8, bias=False)
        self.norm = nn.LayerNorm(8)

    def forward(self, x):
        h = torch.zeros(x.size(0), 4)
        for step in x.unbind(1):
            update, new = self.norm(self.i(step) + self.h(h)).chunk(2, 1)
            h = h + torch.sigmoid(update) * (torch.tanh(new) - h)
        return h


class Written(nn.Module):
    """Results written into a tensor; a learned initial state; the first step is only read."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.h0 = nn.GRUCell(3, 4), nn.Parameter(torch.zeros(1, 4))

    def forward(self, x):
        h = self.h0.expand(x.size(0), 4) + x[:, 0, :1]
        y = torch.zeros(x.size(0), x.size(1), 4)
        for t in range(1, x.size(1)):
            h = self.cell(x[:, t], h)
            y[:, t] = h
        return y


class Images(nn.Module):
    """A convolutional LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x):
        batch, steps, _, height, width = x.shape
        h = c = x.new_zeros(batch, 2, height, width)
        for t in range(steps):
            i, f, o, g = torch.split(self.conv(torch.cat([x[:, t], h], 1)), 2, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        return h


@pytest.mark.parametrize("cls", [Gates, Normalized])
def test_other_loops_are_scans(cls: type[nn.Module]) -> None:
    spec = assert_agrees(seeded(cls()), normal(3, 5, 3), normal(2, 8, 3), normal(1, 1, 3))
    assert kinds(spec).count("scan") == 1
    assert all(entry["weights"] for entry in spec.provenance["tensors"])


def test_a_convolutional_lstm() -> None:
    spec = assert_agrees(seeded(Images()), normal(2, 4, 1, 5, 5), normal(1, 6, 1, 5, 5))
    assert "scan" in kinds(spec)


def test_written_steps_and_a_learned_state() -> None:
    assert_agrees(seeded(Written()), normal(3, 5, 3), normal(2, 8, 3))


def test_a_loop_runs_on_a_stream() -> None:
    module, x = seeded(Gates()), normal(2, 7, 3)
    session = Model(assert_agrees(module, normal(3, 5, 3))).session(batch_size=2)
    parts = [session.push(x[:, :3].numpy()), session.push(x[:, 3:].numpy())]
    if isinstance(parts[0], dict):
        parts = [next(iter(part.values())) for part in parts]
    np.testing.assert_allclose(np.concatenate(parts, 1), call(module, x)[0], 1e-5, 1e-5)


def test_a_loop_is_stored(tmp_path: Any) -> None:
    module, x = seeded(Gates()), normal(2, 7, 3)
    npylstm.save(assert_agrees(module, normal(3, 5, 3)), tmp_path / "model.npz")
    ours = answers(npylstm.load(tmp_path / "model.npz"), x)
    np.testing.assert_allclose(ours[0], call(module, x)[0], rtol=1e-5, atol=1e-5)


def test_steps_that_differ_stay_fixed() -> None:
    """A rule of the position is no loop of equal steps: the example's number of steps remains."""

    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.GRUCell(3, 4)

        def forward(self, x):
            h = torch.zeros(x.size(0), 4)
            for t in range(x.size(1)):
                h = self.cell(x[:, t] * (t + 1.0), h)
            return h

    spec = assert_agrees(seeded(Positions()), normal(3, 5, 3), normal(2, 5, 3))
    assert spec.inputs[0].shape == ("batch", 5, 3)


class Tokens(nn.Module):
    """Embeddings inside of the loop, from the last step to the first."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.cell = nn.Embedding(9, 3), nn.LSTMCell(3, 4)

    def forward(self, ids):
        h = c = torch.zeros(ids.size(0), 4)
        kept: list[Any] = []
        for t in reversed(range(ids.size(1))):
            h, c = self.cell(self.embed(ids[:, t]), (h, c))
            kept.insert(0, h)
        return torch.stack(kept, 1), h


class Masked(nn.Module):
    """Two sequences: the state stays where the mask is zero."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(3, 4)

    def forward(self, x, mask):
        h = torch.zeros(x.size(0), 4)
        for t in range(x.size(1)):
            kept = mask[:, t].unsqueeze(1)
            h = kept * self.cell(x[:, t], h) + (1 - kept) * h
        return h


class StepByStep(nn.Module):
    """A whole LSTM module that is called for each step, without a state at first."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x):
        state, kept = None, []
        for t in range(x.size(1)):
            y, state = self.rnn(x[:, t : t + 1], state)
            kept.append(self.head(y))
        return torch.cat(kept, 1)


def test_backwards_over_tokens() -> None:
    spec = assert_agrees(seeded(Tokens()), torch.randint(0, 9, (3, 5)), torch.randint(0, 9, (2, 8)))
    assert {*kinds(spec)} == {"embedding", "flip", "lstm"}


def test_two_sequences() -> None:
    def sample(batch: int, steps: int) -> Any:
        return normal(batch, steps, 3), (normal(batch, steps) > 0).float()

    assert_agrees(seeded(Masked()), sample(3, 5), sample(2, 8))


def test_a_module_called_for_each_step() -> None:
    spec = assert_agrees(seeded(StepByStep()), normal(3, 5, 3), normal(2, 8, 3))
    assert "lstm" in kinds(spec)


def test_a_scripted_loop() -> None:
    class Scripted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.GRUCell(3, 4)

        def forward(self, x):
            h = torch.zeros(x.size(0), 4)
            for t in range(x.size(1)):
                h = self.cell(x[:, t], h)
            return h

    module = seeded(Scripted())
    with pytest.warns(DeprecationWarning, match="torch.jit.script"):
        scripted = torch.jit.script(module)
    assert_agrees(module, normal(3, 5, 3), normal(2, 8, 3), source=scripted)


class Stepwise(nn.Module):
    """A loop over steps that does something else at some of them, or with the states at its end."""

    def __init__(self, change: Any, end: Any) -> None:
        super().__init__()
        self.cell, self.change, self.end = nn.GRUCell(3, 4), change, end

    def forward(self, x):
        h, kept = x.new_zeros(x.size(0), 4), []
        for t in range(x.size(1)):
            h = self.cell(x[:, t], self.change(t, h))
            kept.append(h)
        return self.end(kept)


@pytest.mark.parametrize(
    ("change", "end"),
    [
        (lambda t, h: h * 0 if t % 100 == 99 else h, lambda kept: torch.stack(kept, 1)),
        (lambda t, h: h if t < 50 else h.clamp(max=0), lambda kept: kept[-1]),
        (lambda t, h: h, lambda kept: torch.stack(kept[-20:], 1).mean(1)),
    ],
)
def test_what_only_a_long_loop_shows(change: Any, end: Any) -> None:
    """It keeps the example's number of steps, where the numbers are the module's."""
    module = seeded(Stepwise(change, end))
    spec = assert_agrees(module, normal(2, 6, 3), normal(3, 6, 3))
    assert spec.inputs[0].shape == ("batch", 6, 3)
