"""Modules that keep a state from call to call: it is stated, and their attributes stay as they were."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import npylstm_converters as nc
import pytest
import torch
from torch import nn
from torch_modules import answers, assert_agrees, call, normal, seeded

from npylstm import Model, UnsupportedError


class Stateful(nn.Module):
    """A GRU, and a forward of a test."""

    def __init__(self, forward: Callable[..., Any], **attributes: Any) -> None:
        super().__init__()
        self.rnn, self.run = nn.GRU(3, 4, batch_first=True), forward
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x):
        return self.run(self, x)


def attribute(self, x):
    y, self.h = self.rnn(x, self.h)
    return y


def private(self, x):
    y, self._h = self.rnn(x, self._h)
    return y


def in_object(self, x):
    y, self.box.h = self.rnn(x, self.box.h)
    return y


def in_dict(self, x):
    y, self.kept["h"] = self.rnn(x, self.kept.get("h"))
    return y


def in_list(self, x):
    y, h = self.rnn(x, self.kept[-1] if self.kept else None)
    self.kept.append(h)
    return y


def counter(self, x):
    self.calls += 1
    return self.rnn(x)[0] * self.calls


def buffers(self, x):
    y, h = self.rnn(x, self._buffers.get("h"))
    self._buffers["h"] = h
    return y


@pytest.mark.parametrize(
    ("forward", "attributes", "name"),
    [
        (attribute, {"h": None}, "h"),
        (private, {"_h": None}, "_h"),
        (in_object, {"box": SimpleNamespace(h=None)}, "box"),
        (in_dict, {"kept": {}}, "kept"),
        (in_list, {"kept": []}, "kept"),
        (counter, {"calls": 0}, "calls"),
    ],
)
def test_a_state_is_stated(forward: Any, attributes: dict[str, Any], name: str) -> None:
    module, x = seeded(Stateful(forward, **attributes)), normal(2, 5, 3)
    before = repr(attributes)
    spec = nc.from_torch(module, x)
    assert repr(attributes) == before
    assert spec.provenance["proof"] == "assumed"
    assert spec.provenance["stated"] == [
        f"every call starts from the {name} that the module had when it was converted; forward "
        "changes it from call to call"
    ]
    (first,), (again,) = call(module, x), call(module, x)
    (made,) = answers(Model(spec, "numpy"), x)
    assert torch.allclose(torch.as_tensor(made), first, atol=1e-6)
    assert not torch.allclose(first, again, atol=1e-3)


def test_a_buffer_that_is_replaced() -> None:
    module, x = Stateful(buffers), normal(2, 5, 3)
    module.register_buffer("h", torch.zeros(1, 2, 4))
    kept = seeded(module).h
    spec = nc.from_torch(module, x)
    assert "from the h that" in spec.provenance["stated"][0]
    assert module.h is kept


_KEPT: dict[str, Any] = {}
_STATE: Any = None


def in_global_container(self, x):
    y, _KEPT["h"] = self.rnn(x, _KEPT.get("h"))
    return y


def in_global(self, x):
    global _STATE
    y, _STATE = self.rnn(x, _STATE)
    return y


@pytest.mark.parametrize(
    ("forward", "name"), [(in_global_container, "_KEPT"), (in_global, "_STATE")]
)
def test_a_global_state(forward: Any, name: str) -> None:
    spec = nc.from_torch(seeded(Stateful(forward)), normal(2, 5, 3))
    assert f"from the {name} that" in spec.provenance["stated"][0]
    assert not _KEPT
    assert _STATE is None


def test_a_state_that_cannot_be_found() -> None:
    numbers = iter(range(1, 1000))
    module = seeded(Stateful(lambda self, x: self.rnn(x)[0] * next(numbers)))
    with pytest.raises(UnsupportedError, match="keeps a state outside the module"):
        nc.from_torch(module, normal(2, 5, 3))


def test_a_state_in_a_weight() -> None:
    def forward(self, x):
        self.scale.data = self.scale * 2
        return self.rnn(x)[0] * self.scale

    module = seeded(Stateful(forward, scale=nn.Parameter(torch.ones(4))))
    weight = module.scale.clone()
    with pytest.raises(UnsupportedError, match="same inputs: it keeps a state in scale"):
        nc.from_torch(module, normal(2, 5, 3))
    assert torch.equal(module.scale, weight)


def test_what_forward_only_stores_is_no_state() -> None:
    def forward(self, x):
        self.calls, self.last = self.calls + 1, self.rnn(x)[0]
        self.seen.append(self.last)
        return self.last

    module = seeded(Stateful(forward, calls=0, last=None, seen=[]))
    spec = assert_agrees(module, normal(2, 5, 3), normal(3, 7, 3))
    assert (spec.provenance["proof"], spec.provenance["stated"]) == ("proven", [])


class Scripted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.calls = nn.GRU(3, 4, batch_first=True), 1

    def forward(self, x):
        self.calls = self.calls * 2
        return self.rnn(x)[0] * self.calls


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_state_of_torchscript() -> None:
    scripted = torch.jit.script(seeded(Scripted()))
    spec = nc.from_torch(scripted, normal(2, 5, 3))
    assert "from the calls that" in spec.provenance["stated"][0]
    assert scripted.calls == 1
    (first,) = call(scripted, normal(2, 5, 3))
    (made,) = answers(Model(spec, "numpy"), normal(2, 5, 3))
    assert torch.allclose(torch.as_tensor(made), first, atol=1e-6)
