"""Weights that a module computes from other tensors: the weights of evaluation mode are read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest
import torch
from npylstm_converters.torch.files import read_checkpoint
from torch import nn
from torch.nn.utils import parametrizations, prune

from npylstm import FormatError, Model

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.rnn = nn.LSTM(3, 4, batch_first=True)
        self.fc = nn.Linear(4, 5)
        self.conv = nn.Conv1d(5, 2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.conv(self.fc(self.rnn(x)[0]).transpose(1, 2))
        return y


CHAIN = "rnn -> fc -> transpose -> conv(stride=1, padding=0, dilation=1, groups=1)"


def old_norms(net: Net) -> None:
    nn.utils.weight_norm(net.rnn, "weight_hh_l0")
    nn.utils.weight_norm(net.fc, dim=1)
    nn.utils.spectral_norm(net.conv)


def new_norms(net: Net) -> None:
    parametrizations.weight_norm(net.rnn, "weight_hh_l0")
    parametrizations.spectral_norm(net.fc)
    parametrizations.spectral_norm(net.conv, dim=0)


def pruned(net: Net) -> None:
    prune.l1_unstructured(net.fc, "weight", 0.4)
    prune.random_structured(net.conv, "weight", 0.5, dim=0)
    prune.l1_unstructured(net.fc, "bias", 2)


KINDS: dict[str, Callable[[Net], None]] = {"old": old_norms, "new": new_norms, "pruned": pruned}


# torch itself cannot pickle a module with the new parametrizations.
@pytest.mark.parametrize(
    ("name", "whole"), [(n, w) for n in KINDS for w in (True, False) if (n, w) != ("new", True)]
)
def test_the_weights_of_evaluation_mode(name: str, whole: bool, tmp_path: Path) -> None:
    net = Net()
    KINDS[name](net)
    net.train()(torch.randn(2, 6, 3))  # spectral norm improves its estimate
    net.eval()
    if whole:
        net(torch.randn(2, 6, 3))  # what hooks set on the modules is of this mode
        with torch.no_grad():
            net.fc.weight, net.conv.weight  # noqa: B018
        for module in net.modules():  # tensors that hooks computed cannot be copied with a gradient
            for key, value in [*vars(module).items()]:
                if isinstance(value, torch.Tensor):
                    vars(module)[key] = value.detach()
        net.rnn._flat_weights = []  # nor is this copy read
    torch.save(net if whole else net.state_dict(), tmp_path / "w.pt")
    found = read_checkpoint(tmp_path / "w.pt")
    assert sorted(found.tensors) == sorted(Net().state_dict())
    assert len([n for n in found.notes if "applied" in n or "pruned" in n]) == 3
    if whole:
        return
    x = np.random.default_rng(0).normal(size=(2, 8, 3)).astype(np.float32)
    with torch.no_grad():
        expected = net(torch.from_numpy(x)).numpy()
    spec = nc.from_torch(tmp_path / "w.pt", layers=CHAIN, batch_first=True)
    assert any("applied" in d or "pruned" in d for d in spec.provenance["decisions"])
    np.testing.assert_allclose(Model(spec).predict(x), expected, rtol=1e-5, atol=2e-6)


def awd(state: dict[str, Any]) -> dict[str, Any]:
    """AWD-LSTM: the recurrent weights moved to the wrapper."""
    moved = {k.replace("rnn.", "rnn.module."): v for k, v in state.items()}
    moved["rnn.weight_hh_l0_raw"] = moved.pop("rnn.module.weight_hh_l0")
    return moved


def fastai(state: dict[str, Any]) -> dict[str, Any]:
    """Later fastai: the wrapped module has a copy, as dropped in the last step of training."""
    moved = {k.replace("rnn.", "rnn.module."): v for k, v in state.items()}
    moved["rnn.weight_hh_l0_raw"] = state["rnn.weight_hh_l0"]
    return moved | {"rnn.module.weight_hh_l0": torch.zeros(16, 4)}


def torchnlp(state: dict[str, Any]) -> dict[str, Any]:
    """PyTorch-NLP: on the module itself."""
    renamed = dict(state)
    renamed["rnn.weight_hh_l0_raw"] = renamed.pop("rnn.weight_hh_l0")
    return renamed


@pytest.mark.parametrize("write", [awd, fastai, torchnlp])
@pytest.mark.parametrize("prefix", ["", "encoder."])
def test_weight_drop(write: Callable[[Any], Any], prefix: str, tmp_path: Path) -> None:
    state = Net().state_dict()
    torch.save({prefix + k: v for k, v in write(state).items()}, tmp_path / "w.pt")
    found = read_checkpoint(tmp_path / "w.pt")
    assert sorted(found.tensors) == sorted(prefix + k for k in state)
    for name, tensor in state.items():
        np.testing.assert_array_equal(found.tensors[prefix + name], tensor.numpy())
    assert found.notes[-1].endswith("weight_hh_l0_raw, as WeightDrop uses it")


def test_parts_that_do_not_fit(tmp_path: Path) -> None:
    state = parametrizations.spectral_norm(nn.Linear(4, 3)).state_dict()
    torch.save({**state, "parametrizations.weight.0._u": torch.ones(7)}, tmp_path / "w.pt")
    with pytest.raises(FormatError, match="weight: expected the parts of a spectral norm"):
        read_checkpoint(tmp_path / "w.pt")
    torch.save({**state, "weight": torch.ones(3, 4)}, tmp_path / "w.pt")
    with pytest.raises(FormatError, match="with and without its parametrization"):
        read_checkpoint(tmp_path / "w.pt")
    odd = {"weight_orig": torch.ones(3, 4), "weight_u": torch.ones(9), "weight_v": torch.ones(4)}
    torch.save(odd, tmp_path / "w.pt")  # tensors of the author's own
    assert list(read_checkpoint(tmp_path / "w.pt").tensors) == list(odd)
