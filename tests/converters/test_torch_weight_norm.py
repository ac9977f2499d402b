"""Names that wrappers of PyTorch change: DataParallel and weight_norm."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn
from torch_weight_files import FRAMINGS, Tensors, assert_same, read, saved, seeded, without_refusal

import npylstm


@pytest.mark.parametrize("framing", FRAMINGS)
def test_prefix_of_data_parallel(framing: str, tmp_path: Path) -> None:
    model = seeded(nn.Sequential(OrderedDict(rnn=nn.LSTM(3, 5), out=nn.Linear(5, 1))))
    wrapped = nn.DataParallel(model).state_dict()
    assert all(name.startswith("module.") for name in wrapped)
    for thing in (wrapped, {"state_dict": wrapped, "epoch": 3}):
        assert_same(read(saved(thing, framing), tmp_path).tensors, model.state_dict())


def test_prefix_that_some_keys_lack_stays(tmp_path: Path) -> None:
    state = {"module.weight": torch.ones(2), "bias": torch.zeros(2), "my.x.module": torch.ones(1)}
    assert_same(read(saved(state), tmp_path).tensors, state)
    state = {"modules.weight": torch.ones(2), "modulebias": torch.zeros(2)}
    assert_same(read(saved(state), tmp_path).tensors, state)


def old_norm(module: nn.Module, name: str, dim: int | None) -> nn.Module:
    return nn.utils.weight_norm(module, name, dim)


def new_norm(module: nn.Module, name: str, dim: int | None) -> nn.Module:
    return nn.utils.parametrizations.weight_norm(module, name, dim)


NORMED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "linear": (lambda: nn.Linear(4, 3), "weight"),
    "square": (lambda: nn.Linear(4, 4), "weight"),  # g's shape alone tells the axis
    "row": (lambda: nn.Linear(4, 1), "weight"),
    "column": (lambda: nn.Linear(1, 4), "weight"),
    "one": (lambda: nn.Linear(1, 1), "weight"),
    "conv": (lambda: nn.Conv1d(3, 4, 5), "weight"),
    "conv of two axes": (lambda: nn.Conv2d(2, 3, 3), "weight"),
    "lstm": (lambda: nn.LSTM(3, 5), "weight_hh_l0"),
    "double": (lambda: nn.Linear(4, 3).double(), "weight"),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize("dim", [0, 1, None])
@pytest.mark.parametrize("norm", [old_norm, new_norm], ids=["old", "new"])
@pytest.mark.parametrize("name", NORMED)
def test_weight_norm(
    name: str, norm: Callable[..., nn.Module], dim: int | None, tmp_path: Path
) -> None:
    make, weight = NORMED[name]
    module = norm(make(), weight, dim)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():  # else g is the norm of v, and v the weight
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    state = module.state_dict()
    pair = [key for key in state if weight in key and key != weight]
    assert len(pair) == 2
    g, v = (state[key] for key in pair)
    expected = {key: tensor for key, tensor in state.items() if key not in pair}
    expected[weight] = torch._weight_norm(v, g, -1 if dim is None else dim)
    tolerance = 3e-7 if g.dtype == torch.float32 else 1e-15  # a few roundings: sum, root, quotient
    for prefix in ("", "rnn.", "module."):
        named = {prefix + key: tensor for key, tensor in state.items()}
        wanted = {prefix.replace("module.", "") + key: tensor for key, tensor in expected.items()}
        for data in (
            saved(named),
            saved({"model": named}, "legacy"),
            safetensors.torch.save(named),
        ):
            found = read(data, tmp_path).tensors
            assert sorted(found) == sorted(wanted)
            for key, tensor in wanted.items():
                assert found[key].dtype == tensor.numpy().dtype
                np.testing.assert_allclose(found[key], tensor, rtol=tolerance, err_msg=key)


def test_weight_norm_of_a_row_of_zeros(tmp_path: Path) -> None:
    """0 / 0 as in torch, and no warning."""
    g, v = torch.tensor([[2.0], [3.0]]), torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    found = read(saved({"weight_g": g, "weight_v": v}), tmp_path).tensors
    np.testing.assert_allclose(found["weight"], torch._weight_norm(v, g, 0), rtol=3e-7)
    assert np.isnan(found["weight"][0]).all()


def test_half_a_pair_is_a_parameter_like_any(tmp_path: Path) -> None:
    for state in (
        {"weight_g": torch.ones(3, 1), "bias": torch.ones(3)},
        {"weight_v": torch.ones(3, 2), "bias": torch.ones(3)},
        {"a_g": torch.ones(3), "b_v": torch.ones(3)},
    ):
        assert_same(read(saved(state), tmp_path).tensors, state)


CONTRADICTING_PAIRS: dict[str, Tensors] = {
    "shapes": {"w_g": torch.ones(5, 1), "w_v": torch.ones(3, 2)},
    "more axes": {"w_g": torch.ones(3, 1, 1), "w_v": torch.ones(3, 2)},
    "wider": {"w_g": torch.ones(3, 2), "w_v": torch.ones(3, 2)},
    "no axis": {"w_g": torch.ones(3), "w_v": torch.tensor(1.0)},
    "whole numbers": {"w_g": torch.ones(3, 1).long(), "w_v": torch.ones(3, 2).long()},
    "both there": {"w_g": torch.ones(3, 1), "w_v": torch.ones(3, 2), "w": torch.zeros(3, 2)},
    "both there, new": {
        "w": torch.zeros(3, 2),
        "parametrizations.w.original0": torch.ones(3, 1),
        "parametrizations.w.original1": torch.ones(3, 2),
    },
    "both there, new, later": {
        "parametrizations.w.original0": torch.ones(3, 1),
        "parametrizations.w.original1": torch.ones(3, 2),
        "w": torch.zeros(3, 2),
    },
    "old and new": {
        "w_g": torch.ones(3, 1),
        "w_v": torch.ones(3, 2),
        "parametrizations.w.original0": torch.ones(3, 1) * 2,
        "parametrizations.w.original1": torch.ones(3, 2),
    },
    "gate and value": {"w_q": torch.ones(3, 3), "w_v": torch.ones(3, 3), "w_g": torch.ones(3, 3)},
    "named g and v": {"_g": torch.ones(3, 1), "_v": torch.ones(3, 2)},
}


@pytest.mark.parametrize("name", CONTRADICTING_PAIRS)
def test_pairs_that_are_none(name: str, tmp_path: Path) -> None:
    """Refused, or left alone; only a name without a stem might be joined."""
    state = CONTRADICTING_PAIRS[name]
    try:
        found = read(saved(state), tmp_path).tensors
    except npylstm.NpylstmError:
        return
    if list(found) != [""]:
        assert_same(found, state)


def test_other_parametrizations_are_not_taken_for_weight_norm(tmp_path: Path) -> None:
    state = nn.utils.parametrizations.orthogonal(nn.Linear(4, 3)).state_dict()
    assert without_refusal(saved(state), tmp_path) is None
