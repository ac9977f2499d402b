"""Exported programs: what they were exported for, and what they do not show about other sizes."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest
import torch
from torch import nn
from torch_modules import normal, seeded

import npylstm
from npylstm import Model, ShapeError, UnsupportedError

AUTO, DIM = torch.export.Dim.AUTO, torch.export.Dim


class Sized(nn.Module):
    """A layer that keeps sizes free in torch.export, and what a test does around it."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        super().__init__()
        self.dense, self.run = nn.Linear(3, 4), forward

    def forward(self, x):
        return self.run(self.dense, x)


def mean(dense, x):
    return dense(x).sum(1) / x.size(1)


def root(dense, x):
    return dense(x) * x.size(1) ** 0.5


def middle(dense, x):
    return dense(x)[:, x.size(1) // 2]


def branch(dense, x):
    return -dense(x) if x.size(1) > 4 else dense(x)


def odd(dense, x):
    return -dense(x) if x.size(1) % 2 == 0 else dense(x)


def plain(dense, x):
    return torch.tanh(dense(x))[:, -1]


def program(forward: Callable[..., Any], *sizes: Any) -> tuple[nn.Module, Any]:
    module = seeded(Sized(forward))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dynamic = (dict(enumerate(sizes)),) if sizes else None
        return module, torch.export.export(module, (normal(2, 6, 3),), dynamic_shapes=dynamic)


def assert_same(module: nn.Module, spec: Any, x: torch.Tensor) -> None:
    with torch.no_grad():
        wanted = module(x).numpy()
    made = Model(spec, "numpy").predict(x.numpy())
    np.testing.assert_allclose(made, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("forward", [mean, root, middle])
def test_a_fixed_program_with_a_number_keeps_its_steps(forward: Any, tmp_path: Any) -> None:
    module, exported = program(forward)
    torch.export.save(exported, tmp_path / "model.pt2")
    for source in (exported, tmp_path / "model.pt2"):
        spec = nc.from_torch(source)
        assert spec.inputs[0].shape == ("batch", 6, 3)
        assert_same(module, spec, normal(5, 6, 3))
        with pytest.raises(ShapeError, match=r"expected \(batch, 6, 3\)"):
            Model(spec, "numpy").predict(normal(5, 8, 3).numpy())
        assert spec.provenance["proof"] == "assumed"
        assert "which holds" in spec.provenance["stated"][1]


def test_a_fixed_program_is_not_called_proven() -> None:
    """Its code may have another way for other sizes: nothing in the program shows that."""
    module, exported = program(plain)
    spec = nc.from_torch(exported)
    assert spec.inputs[0].shape == ("batch", "steps", 3)
    assert_same(module, spec, normal(5, 9, 3))
    assert spec.provenance["proof"] == "assumed"
    assert "for any batch and steps is assumed" in spec.provenance["stated"][0]
    verdict = nc.compare(spec, module, cases=2).verdict
    assert "agrees with torch; not proven: the program was exported with fixed sizes" in verdict


@pytest.mark.parametrize(
    ("forward", "sizes", "condition"),
    [
        (branch, (AUTO, AUTO), r"x\.size\(1\) > 4"),
        (odd, (AUTO, AUTO), r"x\.size\(1\) % 2\) == 0"),
        (plain, (DIM("n", max=64), AUTO), r"x\.size\(0\) <= 64"),
        (plain, (AUTO, DIM("t", min=4, max=99)), r"x\.size\(1\) >= 4"),
    ],
)
def test_conditions_of_a_program(forward: Any, sizes: Any, condition: str, tmp_path: Any) -> None:
    module, exported = program(forward, *sizes)
    torch.export.save(exported, tmp_path / "model.pt2")
    for source in (exported, tmp_path / "model.pt2"):
        spec = nc.from_torch(source)
        assert spec.provenance["proof"] == "assumed"
        assert re.search(condition, " ".join(spec.provenance["stated"]))
        assert_same(module, spec, normal(3, 8, 3))


@pytest.mark.parametrize("sizes", [(AUTO, AUTO), (AUTO,), (DIM("n"), DIM("t"))])
def test_a_program_for_all_sizes_is_proven(sizes: Any) -> None:
    module, exported = program(plain, *sizes)
    spec = nc.from_torch(exported)
    assert (spec.provenance["proof"], spec.provenance["stated"]) == ("proven", [])
    assert_same(module, spec, normal(5, 6, 3))


def half(dense, x):
    return dense(x)[:, : x.size(1) // 2].mean(1)


def average(dense, x):
    return dense(x).sum(1) / float(x.size(1))


def weighted(dense, x):
    return sum(dense(x)[:, t] * (t + 1) for t in range(x.size(1)))


@pytest.mark.parametrize("forward", [middle, half, average, weighted])
def test_steps_that_a_trace_fixed_cannot_be_free(forward: Any, tmp_path: Any) -> None:
    """The model holds numbers that were computed from them."""
    module = seeded(Sized(forward))
    spec = nc.from_torch(module, normal(2, 6, 3))
    if spec.inputs[0].shape == ("batch", "steps", 3):
        assert_same(module, spec, normal(4, 9, 3))
        return
    npylstm.save(spec, tmp_path / "model.npz")
    model = npylstm.load(tmp_path / "model.npz")
    for free in (spec.with_free_steps, model.with_free_steps):
        with pytest.raises(UnsupportedError, match="steps of x cannot be free: the trace fixed"):
            free()
    for run in (model.predict, model.trace):
        with pytest.raises(ShapeError) as caught:
            run(normal(2, 9, 3).numpy())
        assert "with_free_steps" not in str(caught.value)


def test_steps_of_a_program_without_numbers_can_be_free() -> None:
    module, exported = program(plain, AUTO)
    spec = nc.from_torch(exported)
    if spec.inputs[0].shape == ("batch", 6, 3):
        spec = spec.with_free_steps()
    assert_same(module, spec, normal(4, 9, 3))
