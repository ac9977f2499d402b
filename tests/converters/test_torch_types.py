"""Element types in traced programs: truth values, integers, random numbers, negative bounds."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest
import torch
from torch import nn
from torch_modules import assert_agrees, normal, seeded

from npylstm import Model, UnsupportedError


class Typed(nn.Module):
    """A dense layer, and what a test computes from its output."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        super().__init__()
        self.dense, self.weight, self.run = nn.Linear(3, 6), nn.Parameter(torch.zeros(6)), forward

    def forward(self, x):
        return self.run(self, self.dense(x) * 5)


def program(module: nn.Module, x: torch.Tensor) -> Any:
    """The exported program: it is not compared with the module while it is converted."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        return torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim.AUTO},))


def clamped(self, h):
    h[..., -10:2] = 0
    return h


@pytest.mark.parametrize(
    "forward",
    [
        lambda self, h: ((h > 0) + (h > -1)).float(),
        lambda self, h: ((h > 0) * (h > -1)).float(),
        lambda self, h: h.type_as(torch.ones(1, dtype=torch.long)).float(),
        lambda self, h: h.to(torch.ones(1, dtype=torch.int32)) * 1.0,
        lambda self, h: (h > 0).to(torch.uint8) * 3.0,
        lambda self, h: (h > 0).sum(1, dtype=torch.int64) * 1.0,
        lambda self, h: h.long().cumsum(1, dtype=torch.int64) * 1.0,
        lambda self, h: h * nn.functional.dropout(self.weight, 0.5, training=False),
        clamped,
    ],
)
def test_types(forward: Callable[..., Any]) -> None:
    module, x = seeded(Typed(forward)), normal(2, 5, 3)
    assert_agrees(module, x, normal(4, 5, 3))
    made = Model(nc.from_torch(program(module, x)), "numpy").predict(x.numpy())
    with torch.no_grad():
        np.testing.assert_allclose(made, module(x).numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        (lambda self, h: h.to(torch.uint8).float(), "casts to uint8, where numbers outside"),
        (lambda self, h: h.long().to(torch.int8) * 1.0, "casts to int8, where numbers outside"),
        (lambda self, h: h.sum(1, dtype=torch.int64) * 1.0, "casts to int64 before it computes"),
        (lambda self, h: h.cumsum(1, dtype=torch.int32) * 1.0, "casts to int32 before it"),
        (lambda self, h: h + torch.randn_like(self.weight), "draws random numbers"),
        (lambda self, h: h * torch.bernoulli(self.weight.abs()), "draws random numbers"),
        (lambda self, h: h * nn.functional.dropout(self.weight), "draws random numbers"),
    ],
)
def test_refused_types(forward: Callable[..., Any], reason: str) -> None:
    module, x = seeded(Typed(forward)), normal(2, 5, 3)
    for source in (program(module, x), module):
        with pytest.raises(UnsupportedError, match=reason):
            nc.from_torch(source, x)
