"""In-place operations: they also change every other view of the memory, in modules and programs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest
import torch
from torch import nn
from torch_modules import assert_agrees, normal, seeded

import npylstm
from npylstm import Model


class Written(nn.Module):
    """An LSTM, and what a test does with its output."""

    def __init__(self, forward: Callable[..., Any], kind: type[nn.Module] = nn.LSTM) -> None:
        super().__init__()
        self.rnn, self.after = kind(3, 4, batch_first=True), forward

    def forward(self, x):
        return self.after(self.rnn(x)[0])


def part(h):
    h.chunk(2, -1)[0].mul_(2)
    return h


def column(h):
    h[:, :, 0] = 3
    return h


def axis(h):
    h.unsqueeze(1).add_(1)
    return h


def dropped(h):
    made = nn.functional.dropout(h, 0.5, training=False)
    made += 1
    return h


def returned(h):
    made = nn.functional.dropout(h, 0.5, training=False)
    h.mul_(3)
    return made, h


def same_type(h):
    made = h.type_as(h.detach())
    made.add_(1)
    return h


def detached(h):
    h.detach().relu_()
    return h


def copied(h):
    made = h.permute(2, 0, 1).contiguous()
    made.add_(1)
    return h, made.permute(1, 2, 0)


FORMS = [part, column, axis, dropped, returned, same_type, detached, copied]


@pytest.mark.parametrize("forward", FORMS)
def test_writes_to_views(forward: Callable[..., Any]) -> None:
    module = seeded(Written(forward))
    assert_agrees(module, normal(2, 5, 3), normal(3, 5, 3))


@pytest.mark.filterwarnings("ignore:.*assigned during export")
@pytest.mark.parametrize("forward", FORMS)
def test_programs_that_write_to_views(forward: Callable[..., Any], tmp_path: Any) -> None:
    module, x = seeded(Written(forward)), normal(2, 5, 3)
    with torch.no_grad():
        program = torch.export.export(
            module, (x,), dynamic_shapes=({0: torch.export.Dim.AUTO},)
        )  # fmt: skip
        wanted = module(x)
    torch.export.save(program, tmp_path / "model.pt2")
    for source in (program, tmp_path / "model.pt2"):
        made = Model(nc.from_torch(source), "numpy").predict(x.numpy())
        several = list(made.values()) if isinstance(made, dict) else [made]
        for ours, theirs in zip(several, torch.utils._pytree.tree_leaves(wanted), strict=False):
            np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_contiguous_copies_a_recurrent_output(kind: type[nn.Module]) -> None:
    """PyTorch computes it with the steps first: contiguous() copies it, unless there is one step."""

    def residual(h):
        return h + nn.functional.relu(h.contiguous(), inplace=True)

    module = seeded(Written(residual, kind))
    with pytest.raises(npylstm.UnsupportedError, match=r"batch of 1: .* in-place") as caught:
        nc.from_torch(module, normal(2, 5, 3))
    assert "example" not in str(caught.value)


def test_a_conversion_that_differs_for_the_example() -> None:
    """A forward that does something else while it is traced."""
    module = seeded(Written(lambda h: h * (1 + torch.compiler.is_exporting())))
    with pytest.raises(
        npylstm.UnsupportedError, match="other numbers than forward for the example"
    ):
        nc.from_torch(module, normal(2, 5, 3))
