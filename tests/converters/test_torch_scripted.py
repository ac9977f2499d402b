"""TorchScript: scripted, traced and frozen; conditions, loops and states inside."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Dict, List, NamedTuple  # noqa: UP035 - TorchScript's own

import npylstm_converters as nc
import pytest
import torch
from npylstm_converters.torch.importer import IMPORTER
from torch import nn
from torch.nn import functional as F  # noqa: N812 - everybody's name for it
from torch_modules import assert_agrees, normal, seeded

from npylstm import Model, NpylstmError, UnsupportedError

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.*deprecated")


class OptionalState(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(3, 5, batch_first=True), nn.Linear(5, 2)

    def forward(self, x, h: torch.Tensor | None = None):
        y, h = self.rnn(x, h)
        return self.head(y), h


class States(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(3, 5, 2, batch_first=True), nn.Linear(5, 2)

    def forward(self, x, state: tuple[torch.Tensor, torch.Tensor]):
        y, state = self.rnn(x, state)
        return self.head(F.relu(y)), state


class Result(NamedTuple):
    logits: torch.Tensor
    hidden: torch.Tensor


class Decisions(nn.Module):
    """A flag of the module, a list of layers, a dictionary, a size, a result with names."""

    def __init__(self, residual: bool) -> None:
        super().__init__()
        self.residual = residual
        self.layers = nn.ModuleList([nn.LSTM(4, 4, batch_first=True) for _ in range(2)])
        self.head = nn.Sequential(nn.Dropout(0.4), nn.Linear(4, 3), nn.Tanh())

    def forward(self, x):
        if x.dim() != 3:
            raise ValueError(f"expected three axes, got {x.dim()}")
        kept: List[torch.Tensor] = []  # noqa: UP006
        named: Dict[str, torch.Tensor] = {}  # noqa: UP006
        for layer in self.layers:
            y, _ = layer(x)
            x = x + y if self.residual else y
            kept.append(x[:, -1])
        named["all"] = torch.cat(kept, 1)
        total = torch.zeros(x.size(0), 4)
        for k in range(len(kept)):
            total = total + kept[k] * float(k + 1)
        return Result(self.head(total).view(x.size(0), -1), named["all"])


def script(module: nn.Module, *_: Any) -> Any:
    return torch.jit.script(module)


def trace(module: nn.Module, *example: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TracerWarning, about PyTorch's own LSTM
        return torch.jit.trace(module, example, check_trace=False)


def freeze(module: nn.Module, *_: Any) -> Any:
    return torch.jit.freeze(torch.jit.script(module))


@pytest.mark.parametrize("make", [script, trace, freeze])
def test_states_in_and_out(make: Callable[..., Any], tmp_path: Path) -> None:
    def sample(batch: int, steps: int) -> Any:
        return normal(batch, steps, 3), (normal(2, batch, 5, seed=1), normal(2, batch, 5, seed=2))

    module = seeded(States())
    make(module, *sample(3, 5)).save(str(tmp_path / "model.pt"))
    assert_agrees(module, sample(3, 5), sample(1, 1), sample(4, 8), source=tmp_path / "model.pt")


@pytest.mark.parametrize("make", [script, freeze])
def test_an_optional_state_is_there_or_not(make: Callable[..., Any]) -> None:
    module = seeded(OptionalState())
    scripted = make(module)
    assert_agrees(module, normal(3, 5, 3), normal(1, 2, 3), source=scripted)
    given = (normal(3, 5, 3), normal(1, 3, 5))
    assert_agrees(module, given, (normal(2, 7, 3), normal(1, 2, 5)), source=scripted)


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("make", [script, trace, freeze])
def test_conditions_loops_and_containers(make: Callable[..., Any], residual: bool) -> None:
    module = seeded(Decisions(residual))
    source = make(module, normal(3, 5, 4))
    assert_agrees(module, normal(3, 5, 4), normal(2, 9, 4), source=source)


@pytest.mark.parametrize("make", [script, trace])
def test_every_tensor_is_in_the_ledger(make: Callable[..., Any], tmp_path: Path) -> None:
    """By its own name, with the gates that it has become."""
    module = seeded(Decisions(True))
    make(module, normal(3, 5, 4)).save(str(tmp_path / "model.pt"))
    spec = nc.from_torch(tmp_path / "model.pt", normal(3, 5, 4))
    found = {entry["source"]: entry for entry in spec.provenance["tensors"]}
    assert {name for name in found if not name.startswith("constant")} == {*module.state_dict()}
    assert found["layers.1.weight_ih_l0"]["weights"] == ["W_i", "W_f", "W_c", "W_o"]
    assert found["layers.0.bias_hh_l0"]["layer"] != found["layers.1.bias_hh_l0"]["layer"]
    assert found["head.1.weight"]["weights"] == ["kernel"]


def test_its_outputs_are_recorded_by_torch(tmp_path: Path) -> None:
    module, x = seeded(OptionalState()), normal(3, 5, 3)
    script(module).save(str(tmp_path / "model.pt"))
    spec = nc.from_torch(tmp_path / "model.pt", x)
    runner = IMPORTER.runner(tmp_path / "model.pt", spec, example=x)
    report = Model(nc.record(spec, runner, 4)).verify()
    assert report.passed
    assert report.cases == 4


def test_a_condition_on_the_steps_is_found() -> None:
    """The example decides it; another length takes the other way, which is an error."""

    class Branch(nn.Module):
        def forward(self, x):
            return x * 2.0 if x.size(1) > 3 else x * 3.0

    with pytest.raises(UnsupportedError, match=r"another way unless .*x\.size\(1\)"):
        nc.from_torch(script(Branch()), normal(2, 5, 3))


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(NpylstmError, match="expected arrays for x, h, got y"):
        nc.from_torch(script(OptionalState()), {"y": normal(3, 5, 3)})


class Cell(nn.Module):
    """PyTorch's example of a custom cell (fastrnns)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight_ih, self.weight_hh = nn.Parameter(normal(16, 3)), nn.Parameter(normal(16, 4))
        self.bias = nn.Parameter(normal(16))

    def forward(self, x: torch.Tensor, state: tuple[torch.Tensor, torch.Tensor]):
        h, c = state
        gates = torch.mm(x, self.weight_ih.t()) + self.bias + torch.mm(h, self.weight_hh.t())
        i, f, g, o = gates.chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return h, (h, c)


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = Cell()

    def forward(self, x: torch.Tensor, state: tuple[torch.Tensor, torch.Tensor]):
        steps = x.unbind(0)
        outputs: List[torch.Tensor] = []  # noqa: UP006
        for k in range(len(steps)):
            out, state = self.cell(steps[k], state)
            outputs += [out]
        return torch.stack(outputs), state


def test_a_loop_of_a_custom_cell() -> None:
    def sample(steps: int, batch: int) -> Any:
        return normal(steps, batch, 3), (normal(batch, 4, seed=1), normal(batch, 4, seed=2))

    module = seeded(Layer())
    spec = assert_agrees(module, sample(5, 3), sample(8, 2), source=script(module))
    assert "scan" in [layer.kind for layer in spec.layers]


@pytest.mark.parametrize("make", [script, trace])
def test_attention(make: Callable[..., Any]) -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
            self.norm = nn.LayerNorm(4)

        def forward(self, x):
            return self.norm(x + F.gelu(self.attention(x, x, x)[0]))

    module, x = seeded(Attention()), normal(3, 5, 4)
    assert_agrees(module, x, normal(2, 8, 4), source=make(module, x))
