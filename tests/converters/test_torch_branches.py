"""Branches of forward on sizes: each condition is tried on both sides of the numbers in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import npylstm_converters as nc
import pytest
import torch
from torch import nn
from torch_modules import assert_agrees, normal, seeded

from npylstm import UnsupportedError


class Branching(nn.Module):
    """An LSTM, and a forward of a test."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        super().__init__()
        self.rnn, self.run = nn.LSTM(3, 4, batch_first=True), forward

    def forward(self, x):
        return self.run(self.rnn, x)


@pytest.mark.parametrize(
    ("forward", "condition"),
    [
        (lambda rnn, x: rnn(x[:, -7:] if x.size(1) > 2000 else x)[0][:, 0], r"size\(1\) <= 2000"),
        (lambda rnn, x: rnn(-x if x.size(1) == 100 else x)[0][:, -1], r"size\(1\) != 100"),
        (lambda rnn, x: rnn(-x if 3 * x.size(1) > 700 else x)[0][:, -1], r"700"),
        (lambda rnn, x: rnn(-x if x.size(0) > 40 else x)[0][:, -1], r"size\(0\) <= 40"),
    ],
)
def test_branches_at_any_size(forward: Callable[..., Any], condition: str) -> None:
    with pytest.raises(UnsupportedError, match=f"forward takes another way unless .*{condition}"):
        nc.from_torch(seeded(Branching(forward)), normal(2, 6, 3))


def test_a_branch_beyond_what_is_compared() -> None:
    module = seeded(Branching(lambda rnn, x: rnn(-x if x.size(1) > 10**6 else x)[0]))
    spec = assert_agrees(module, normal(2, 6, 3), normal(3, 9, 3))
    note = "forward was not compared where x.size(1) <= 1000000 does not hold"
    assert note in spec.provenance["decisions"]


def test_branches_that_change_small_outputs() -> None:
    """The tolerance follows the outputs: these are near 0.001."""

    def forward(rnn, x):
        return rnn(x)[0] * (0.001 if x.size(1) < 5 else 0.0012)

    with pytest.raises(UnsupportedError, match="takes another way"):
        nc.from_torch(seeded(Branching(forward)), normal(2, 6, 3))


def test_examples_of_zeros_show_branches() -> None:
    def forward(rnn, x):
        return rnn(-x if x.size(1) > 4 else x)[0]

    with pytest.raises(UnsupportedError, match="takes another way"):
        nc.from_torch(seeded(Branching(forward)), torch.zeros(2, 6, 3))
