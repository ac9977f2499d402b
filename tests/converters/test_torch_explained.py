"""Why a module cannot be traced: the cause, the line of forward, what to do instead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import functional as F  # noqa: N812 - everybody's name for it
from torch_modules import assert_agrees, call, normal, seeded

from npylstm import UnsupportedError


def build(forward: Callable[..., Any]) -> nn.Module:
    made = type("Forward", (nn.Module,), {"forward": forward})()
    made.rnn = nn.GRU(3, 4, batch_first=True)
    return made


def branch(self, x):
    y = self.rnn(x)[0]
    if y.sum() > 0:
        y = y * 2
    return y


def count(self, x):
    steps = int((x > 0).sum().item())
    return x[:, :steps]


def leave(self, x):
    return torch.from_numpy(np.tanh(x.numpy()))


CAUSES = {
    branch: ("takes a number out of a tensor .*torch.where", "if y.sum() > 0:"),
    count: ("takes a number out of a tensor", "int((x > 0).sum().item())"),
    leave: ("leaves torch for NumPy", "x.numpy()"),
}


@pytest.mark.parametrize("forward", CAUSES, ids=lambda f: f.__name__)
def test_the_cause_and_the_line(forward: Callable[..., Any]) -> None:
    pattern, line = CAUSES[forward]
    with pytest.raises(UnsupportedError, match=pattern) as caught:
        nc.from_torch(build(forward), normal(3, 5, 3))
    assert Path(__file__).name in str(caught.value)
    assert line in str(caught.value)


def test_a_loop_that_may_have_no_end_is_not_run() -> None:
    """Only torch's trace meets the loop, and stops there."""
    runs = []

    def repeat(self, x):
        runs.append(isinstance(x, FakeTensor))
        while x.norm() > 0.1:
            x = x / 2
        return x

    with pytest.raises(UnsupportedError, match="takes a number out of a tensor"):
        nc.from_torch(build(repeat), normal(3, 5, 3))
    assert runs
    assert all(runs)


def test_arguments_that_do_not_fit() -> None:
    module = build(lambda self, x, state: x)
    with pytest.raises(UnsupportedError, match=r"does not fit forward\(x, state\): missing a req"):
        nc.from_torch(module, normal(3, 5, 3))


class Dropping(nn.Module):
    """A recurrent kernel that forward computes from another parameter (AWD-LSTM, fastai)."""

    def __init__(self, by_data: bool) -> None:
        super().__init__()
        self.rnn, self.by_data = nn.LSTM(3, 4, batch_first=True), by_data
        self.raw = nn.Parameter(self.rnn.weight_hh_l0.data.clone())
        if not by_data:
            del self.rnn._parameters["weight_hh_l0"]

    def forward(self, x):
        dropped = F.dropout(self.raw, 0.5, self.training)
        if self.by_data:
            self.rnn.weight_hh_l0.data = dropped.data
        else:
            self.rnn.weight_hh_l0 = dropped
        return self.rnn(x)[0]


@pytest.mark.parametrize("by_data", [True, False])
def test_weights_that_forward_assigns(by_data: bool) -> None:
    module = seeded(Dropping(by_data))
    assert_agrees(module, normal(3, 5, 3), normal(2, 8, 3))
    data = torch.Tensor.data
    weight = nn.Parameter(torch.zeros(2))
    weight.data = torch.ones(2)  # as ever
    assert data is torch.Tensor.data
    assert weight.sum() == 2
    assert call(module, normal(2, 8, 3))[0].shape == (2, 8, 4)
