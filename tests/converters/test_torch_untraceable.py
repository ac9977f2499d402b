"""Modules that torch.export cannot trace, that keep a state, or whose types are not supported."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch_refusals import build, converted, expected, lstm, normal, reasons

from npylstm import Model, NpylstmError, UnsupportedError

pytestmark = pytest.mark.usefixtures("one_thread")


# ---------------------------------------------------------------- what torch.export cannot trace


class Positive(nn.Module):
    def forward(self, x: torch.Tensor) -> Any:
        if x.sum() > 0:
            return x
        return -x


class UntilSmall(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(3, 3)

    def forward(self, x: torch.Tensor) -> Any:
        while x.abs().max().item() > 0.1:
            x = self.cell(x) / 2
        return x


class ToNumpy(nn.Module):
    def forward(self, x: torch.Tensor) -> Any:
        return torch.as_tensor(np.tanh(x.numpy()))


class PackingWhole(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = lstm()

    def forward(self, x: torch.Tensor) -> Any:
        rows = pack_padded_sequence(x, torch.tensor([6, 4]), batch_first=True)
        return self.rnn(rows)[1][0][-1]


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> Any:
        self.seen += 1
        return x * self.seen


class Remembering(nn.Module):
    """A stateful layer as people write it: the state is an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = lstm()
        self.register_buffer("h", torch.zeros(1, 2, 6))
        self.register_buffer("c", torch.zeros(1, 2, 6))

    def forward(self, x: torch.Tensor) -> Any:
        y, (h, c) = self.rnn(x, (self.h, self.c))
        self.h.copy_(h)
        self.c.copy_(c)
        return y


class Renorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(9, 4, max_norm=0.5)

    def forward(self, ids: torch.Tensor) -> Any:
        return self.words(ids)


UNTRACEABLE: dict[str, tuple[type[nn.Module], Any, str]] = {
    "a branch on numbers": (Positive, normal(2, 6, 3), "Positive: forward takes a number out of a tensor"),
    "a loop on numbers": (UntilSmall, normal(2, 3), "UntilSmall: forward takes a number out of a tensor"),
    "numpy": (ToNumpy, normal(2, 6, 3), "numpy|cannot trace it"),
    "packing by a constant": (PackingWhole, normal(2, 6, 3), "2 lengths that are fixed"),
    "a counter": (Counting, normal(2, 6, 3), "seen: the module writes to this buffer"),
    "a state in buffers": (Remembering, normal(2, 6, 3), "h: the module writes to this buffer"),
    "an embedding that renormalises": (Renorm, torch.tensor([[1, 2], [3, 4]]), "embedding_renorm|words"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNTRACEABLE)
def test_code_that_has_no_graph(name: str) -> None:
    make, example, pattern = UNTRACEABLE[name]
    module = make()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    found = reasons(module, example)
    assert any(re.search(pattern, r) for r in found), found
    for key, value in module.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)


class Continuing(nn.Module):
    """Stateful, and without a state at first."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = lstm()
        self.hidden: Any = None

    def forward(self, x: torch.Tensor) -> Any:
        y, self.hidden = self.rnn(x, self.hidden)
        return y


def test_a_state_that_the_module_keeps_for_itself(backend: str) -> None:
    """Refused; or the model begins where the module does, and goes on by its own state."""
    module = Continuing()
    spec = converted(module, normal(2, 6, 3), "hidden")
    assert module.hidden is None, "the conversion left a state in the module"
    if spec is None:
        return
    model = Model(spec, backend)
    first, second = normal(4, 5, 3), normal(4, 3, 3)
    y, state = model.predict(first.numpy(), return_state=True)
    np.testing.assert_allclose(y, expected(module, first)[0], atol=1e-6, rtol=0)
    y = model.predict(second.numpy(), state=state)
    np.testing.assert_allclose(y, expected(module, second)[0], atol=1e-6, rtol=0)


def test_a_state_in_buffers_names_them_all() -> None:
    found = reasons(Remembering(), normal(2, 6, 3))
    assert [r.partition(":")[0] for r in found] == ["h", "c"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_in_half_precision(dtype: torch.dtype) -> None:
    name = str(dtype).removeprefix("torch.")
    module = build(lambda self, x: self.rnn(x)[0], rnn=lstm()).to(dtype)
    (reason,) = reasons(module, normal(2, 6, 3).to(dtype))
    assert name in reason
    assert "module.float()" in reason


def test_inputs_in_half_precision() -> None:
    found = reasons(build(lambda self, x: x * 2), normal(2, 6, 3).half())
    assert any("float16" in r for r in found), found


def test_weights_of_two_types() -> None:
    module = build(lambda self, x: self.b(self.a(x.double()).float()), a=nn.Linear(3, 3).double(), b=nn.Linear(3, 3))  # fmt: skip
    found = reasons(module, normal(2, 6, 3))
    assert any("float32 and float64" in r for r in found), found


def test_weights_without_numbers() -> None:
    module = build(lambda self, x: self.out(x), out=nn.Linear(3, 2)).to("meta")
    with pytest.raises(NpylstmError):
        nc.from_torch(module, normal(2, 6, 3).to("meta"))


def test_complex_weights() -> None:
    module = build(lambda self, x: torch.real(x * self.w), w=nn.Parameter(torch.ones(3, dtype=torch.complex64)))  # fmt: skip
    with pytest.raises(UnsupportedError):
        nc.from_torch(module, normal(2, 6, 3))


@pytest.fixture(autouse=True)
def _old_formats() -> Iterator[None]:
    """TorchScript is deprecated, and torch says so at every turn."""
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):
            warnings.filterwarnings("ignore", category=category, module=r"torch\.|copyreg")
        yield
