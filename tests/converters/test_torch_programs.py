"""Exported programs and TorchScript, from files and in memory."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest
import torch
from backends import BACKENDS
from torch import nn
from torch_refusals import build, converted, expected, lstm, normal, outputs

from npylstm import Model, NpylstmError, UnsupportedError

pytestmark = pytest.mark.usefixtures("one_thread")


class Gamma(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        running = torch.lgamma(x)
        return running * 2


# ---------------------------------------------------------------- saved programs


class Saved(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(3, 6, 2, batch_first=True)
        self.norm = nn.LayerNorm(6)
        self.out = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> Any:
        y, _ = self.rnn(x)
        return self.out(self.norm(y[:, -1, :]))


class SavedState(Saved):
    def forward(self, x: torch.Tensor) -> Any:
        y, (h, c) = self.rnn(x)
        return self.out(self.norm(y)), h[-1], c


@pytest.fixture
def saved() -> nn.Module:
    torch.manual_seed(7)
    return Saved().eval()


@pytest.fixture(autouse=True)
def _old_formats() -> Iterator[None]:
    """TorchScript is deprecated, and torch says so at every turn."""
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):
            warnings.filterwarnings("ignore", category=category, module=r"torch\.|copyreg")
        yield


def export(module: nn.Module, x: torch.Tensor, dynamic: Any = None) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about its own LSTM
        return torch.export.export(module, (x,), dynamic_shapes=dynamic)


def assert_same_numbers(spec: Any, module: nn.Module, *xs: torch.Tensor) -> None:
    live = nc.from_torch(module, normal(2, 6, 3))
    for backend in BACKENDS:
        for x in xs:
            ours = outputs(Model(spec, backend), x)
            for y, theirs in zip(ours, expected(module, x), strict=True):
                np.testing.assert_allclose(y, theirs, atol=1e-6, rtol=0)
            for y, theirs in zip(ours, outputs(Model(live, backend), x), strict=True):
                np.testing.assert_array_equal(y, theirs)


@pytest.mark.parametrize("dynamic", [{0: torch.export.Dim.AUTO}, {0: torch.export.Dim("n")}])
def test_exported_programs_with_a_free_batch(
    saved: nn.Module, dynamic: Any, tmp_path: Path
) -> None:
    program = export(saved, normal(2, 6, 3), {"x": dynamic})
    torch.export.save(program, tmp_path / "model.pt2")
    xs = [normal(2, 6, 3), normal(5, 6, 3), normal(1, 6, 3)]
    for source in (program, tmp_path / "model.pt2", str(tmp_path / "model.pt2")):
        spec = nc.from_torch(source)
        assert_same_numbers(spec, saved, *xs)
        assert_same_numbers(nc.convert(source), saved, *xs)
    assert len(nc.from_torch(tmp_path / "model.pt2").provenance["source_sha256"]) == 64


@pytest.mark.parametrize("batch", [1, 2])
def test_exported_programs_with_every_size_pinned(
    saved: nn.Module, batch: int, tmp_path: Path
) -> None:
    program = export(saved, normal(batch, 6, 3))
    torch.export.save(program, tmp_path / "model.pt2")
    for source in (program, tmp_path / "model.pt2"):
        spec = nc.from_torch(source)
        assert_same_numbers(spec, saved, normal(batch, 6, 3), normal(5, 6, 3))


def test_a_program_of_a_refused_module(tmp_path: Path) -> None:
    program = export(Gamma(), normal(2, 6, 3))
    torch.export.save(program, tmp_path / "model.pt2")
    for source in (program, tmp_path / "model.pt2"):
        with pytest.raises(UnsupportedError, match="lgamma is not supported"):
            nc.from_torch(source)


def test_a_pinned_program_that_mixes_samples() -> None:
    program = export(build(lambda self, x: self.rnn(x)[0][-1], rnn=lstm()), normal(2, 6, 3))
    with pytest.raises(UnsupportedError, match="batch"):
        nc.from_torch(program)


def script(module: nn.Module, x: torch.Tensor) -> Any:
    return torch.jit.script(module)


def trace(module: nn.Module, x: torch.Tensor) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TracerWarning, about PyTorch's own LSTM
        return torch.jit.trace(module, x)


def freeze(module: nn.Module, x: torch.Tensor) -> Any:
    return torch.jit.freeze(torch.jit.script(module))


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("make", [script, trace, freeze])
def test_torchscript(
    saved: nn.Module, make: Callable[..., Any], batch: int, tmp_path: Path
) -> None:
    x = normal(batch, 6, 3)
    make(saved, x).save(str(tmp_path / "model.pt"))
    spec = nc.from_torch(tmp_path / "model.pt", x)
    assert_same_numbers(spec, saved, x, normal(4, 9, 3), normal(1, 3, 3))


@pytest.mark.parametrize("make", [script, trace])
def test_torchscript_that_returns_states(make: Callable[..., Any], tmp_path: Path) -> None:
    """torch itself cannot export a scripted LSTM whose states are used; a traced one it can."""
    module, x = SavedState().eval(), normal(2, 6, 3)
    make(module, x).save(str(tmp_path / "model.pt"))
    spec = converted(tmp_path / "model.pt", x, r"model\.pt: torch cannot load it")
    assert spec is not None or make is script
    if spec is not None:
        assert_same_numbers(spec, module, x, normal(4, 9, 3))


def test_torchscript_without_an_example(saved: nn.Module, tmp_path: Path) -> None:
    script(saved, normal(2, 6, 3)).save(str(tmp_path / "model.pt"))
    with pytest.raises(
        NpylstmError, match=r"model\.pt: is TorchScript, which needs example inputs"
    ):
        nc.from_torch(tmp_path / "model.pt")


def test_torchscript_of_a_refused_module(tmp_path: Path) -> None:
    torch.jit.trace(Gamma(), normal(2, 6, 3)).save(str(tmp_path / "model.pt"))
    with pytest.raises(NpylstmError, match="lgamma"):
        nc.from_torch(tmp_path / "model.pt", normal(2, 6, 3))


def test_torchscript_in_memory(saved: nn.Module) -> None:
    """Converted as its file is, or refused with what to do."""
    spec = converted(script(saved, normal(2, 6, 3)), normal(2, 6, 3), "TorchScript|save")
    if spec is not None:
        assert_same_numbers(spec, saved, normal(2, 6, 3), normal(4, 9, 3))


@pytest.mark.parametrize(
    ("member", "change", "message"),
    [
        ("data/weights/model_weights_config.json",
         lambda b: b.replace(b'"use_pickle": false', b'"use_pickle": true'), "is a pickle"),
        ("data/weights/model_weights_config.json",
         lambda b: b.replace(b"weight_0", b"opaque_obj_0"), "holds an object or machine code"),
        ("data/weights/model_weights_config.json", lambda b: b[:-9], "expected a list of tensors"),
        ("data/sample_inputs/model.pt", lambda b: b"cos\nmkdir\n(S'x'\ntR.", "expected what torch.save writes"),
        ("data/constants/opaque_obj_0", lambda b: b"x", "holds an object or machine code"),
        ("data/aotinductor/model/model.so", lambda b: b"x", "holds an object or machine code"),
    ],
)  # fmt: skip
def test_a_program_with_pickles_is_not_loaded(
    member: str, change: Callable[[bytes], bytes], message: str, tmp_path: Path
) -> None:
    """torch.export.load unpickles what a program's lists tell it to, weights_only or not."""
    program = torch.export.export(nn.Linear(2, 3), (torch.zeros(2, 2),))
    torch.export.save(program, tmp_path / "sound.pt2")
    with zipfile.ZipFile(tmp_path / "sound.pt2") as archive:
        parts = {n: archive.read(n) for n in archive.namelist()}
    prefix = next(iter(parts)).partition("/")[0]
    name = f"{prefix}/{member}"
    changed = {**parts, name: change(parts.get(name, b""))}
    assert changed != parts
    with zipfile.ZipFile(tmp_path / "evil.pt2", "w") as archive:
        for part, content in changed.items():
            archive.writestr(part, content)
    with pytest.raises(NpylstmError, match=message):
        nc.from_torch(tmp_path / "evil.pt2")
