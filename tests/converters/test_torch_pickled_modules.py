"""Whole modules saved by torch.save: weights and options from the file, the forward from the user."""

from __future__ import annotations

import io
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest
import torch
from npylstm_converters.torch.describing import describe
from npylstm_converters.torch.files import read_checkpoint
from npylstm_converters.torch.runner import TorchRunner
from torch import nn

from npylstm import Model, NpylstmError, UnsupportedError
from npylstm.cli import main


def seeded(module: nn.Module) -> nn.Module:
    """A module in evaluation mode with weights and statistics that differ from one another."""
    generator = torch.Generator().manual_seed(3)
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.is_floating_point():
            low = 0.5 if "running_var" in name else -0.6
            tensor.data.uniform_(low, low + 1.2, generator=generator)
    return module.eval()


def signal(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def computed(module: Callable[..., Any], x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    with torch.no_grad():
        y = module(torch.from_numpy(x))
    return np.asarray(y)


def agrees(found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> None:
    """Equal up to the rounding of sums of some ten float32 products of numbers of size one."""
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-6)


class Net(nn.Module):
    """A class of the author's: convolutions, a recurrent layer, a head, and modules to ignore."""

    def __init__(self, batch_first: bool = True, kind: type[nn.RNNBase] = nn.LSTM, **options: Any):
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv1d(3, 6, 3, stride=1, padding=2, dilation=2, groups=3),
            nn.Sequential(nn.BatchNorm1d(6, eps=1e-2), nn.LeakyReLU(0.3)),
            nn.MaxPool1d(3, 2, padding=1),
        )
        self.rnn = kind(6, 5, 2, batch_first=batch_first, bidirectional=True, **options)
        self.drop = nn.Dropout(0.4)
        self.relu = nn.ReLU()  # the name of a word of the chain
        self.head = nn.Sequential(
            nn.Linear(10, 4, bias=False),
            nn.LayerNorm(4, eps=1e-3),
            nn.GELU("tanh"),
            nn.Linear(4, 2),
        )
        self.softmax = nn.Softmax(dim=1)
        self.criterion = nn.CrossEntropyLoss(weight=torch.ones(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x).transpose(1, 2)
        y = y if self.rnn.batch_first else y.transpose(0, 1)
        y = self.rnn(y)[0]
        y = y[:, -1] if self.rnn.batch_first else y[-1]
        return self.softmax(self.head(self.relu(self.drop(y))))


CHAIN = "conv -> transpose -> rnn -> last -> relu -> head -> softmax"


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_only_the_forward_is_stated(zipped: bool, protocol: int, tmp_path: Path) -> None:
    net = seeded(Net())
    path = tmp_path / "m.pt"
    torch.save(net, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    spec = nc.from_torch(path, layers=CHAIN, allow_unused=["criterion"])
    assert spec.provenance["proof"] == "stated"
    assert not [s for s in spec.provenance["stated"] if "has eps" in s or "dilation" in s]
    for x in (signal(2, 3, 9), signal(3, 3, 6)):
        agrees(Model(spec).predict(x), computed(net, x))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("batch_first", [True, False])
def test_the_order_of_axes_is_in_the_file(
    kind: type[nn.RNNBase], batch_first: bool, tmp_path: Path
) -> None:
    options = {"nonlinearity": "relu"} if kind is nn.RNN else {}
    rnn = seeded(kind(3, 4, batch_first=batch_first, **options))
    torch.save({"model": rnn, "epoch": 3}, tmp_path / "m.pt")
    spec = nc.from_torch(tmp_path / "m.pt", layers="model")
    x = signal(2, 5, 3)
    agrees(Model(spec).predict(x), computed(lambda x: rnn(x)[0], x))
    flag = "batch" if batch_first else "steps"
    with pytest.raises(
        UnsupportedError, match=f"has batch_first={batch_first} in the file.*{flag}"
    ):
        nc.from_torch(tmp_path / "m.pt", layers="model", batch_first=not batch_first)


def test_exchanged_axes_are_stated(tmp_path: Path) -> None:
    net = seeded(Net(batch_first=False))
    torch.save(net, tmp_path / "m.pt")
    chain = CHAIN.replace("-> transpose", "-> transpose -> transpose(0, 1)")
    with pytest.raises(UnsupportedError, match="batch_first is not in the file for this chain"):
        nc.from_torch(tmp_path / "m.pt", layers=chain, allow_unused=["criterion"])
    spec = nc.from_torch(
        tmp_path / "m.pt", layers=chain, batch_first=True, allow_unused=["criterion"]
    )
    x = signal(2, 3, 9)
    agrees(Model(spec).predict(x), computed(net, x))
    with pytest.raises(
        UnsupportedError, match=r"reads \(steps, batch, features\).*transpose.0, 1."
    ):
        nc.from_torch(tmp_path / "m.pt", layers=CHAIN, allow_unused=["criterion"])


SEQUENTIALS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), (5, 3)),
    "nested": (lambda: nn.Sequential(
        nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.ELU(0.7), nn.Dropout())),
        nn.BatchNorm1d(4, affine=False), nn.Identity(), nn.Sequential(), nn.PReLU(4),
        nn.LayerNorm(4, bias=False), nn.LogSoftmax(dim=-1)), (5, 3)),
    "convolutions": (lambda: nn.Sequential(
        nn.Conv1d(2, 4, 3, padding="same"), nn.ReLU6(), nn.AvgPool1d(2), nn.Conv1d(4, 3, 2, 2),
        nn.Hardtanh(), nn.MaxPool1d(2, padding=1), nn.Softmax(dim=1)), (5, 2, 19)),
    "named": (lambda: nn.Sequential(
        __import__("collections").OrderedDict(relu=nn.Linear(3, 3), tanh=nn.Tanh())), (5, 3)),
    "parallel": (lambda: nn.DataParallel(nn.Sequential(nn.Linear(3, 4), nn.SiLU())), (5, 3)),
}  # fmt: skip


@pytest.mark.parametrize("name", SEQUENTIALS)
def test_a_sequential_needs_no_chain(name: str, tmp_path: Path) -> None:
    build, shape = SEQUENTIALS[name]
    module = seeded(build())
    torch.save(module, tmp_path / "m.pt")
    spec = nc.from_torch(tmp_path / "m.pt")
    assert spec.provenance["proof"] == "proven"
    x = signal(*shape)
    inner = module.module if isinstance(module, nn.DataParallel) else module
    agrees(Model(spec).predict(x), computed(inner, x))
    recorded = nc.record(spec, TorchRunner(tmp_path / "m.pt", spec))
    Model(recorded).verify().check()


class Picker(nn.Module):
    def forward(self, x: Any) -> Any:
        return x[0]


REFUSED: dict[str, tuple[Callable[[], Any], str | None, str]] = {
    "own class in it": (lambda: nn.Sequential(nn.LSTM(3, 4), Picker(), nn.Linear(4, 1)), None,
                        "The forward of a class is not in the file"),
    "two results": (lambda: nn.Sequential(nn.Linear(3, 4), nn.LSTM(4, 4)), None, "forward of a class"),
    "class of torch": (lambda: nn.Sequential(nn.Linear(3, 4), nn.GroupNorm(2, 4)), None,
                       "1: is a GroupNorm.*not supported here.*from_torch.module, example"),
    "padding": (lambda: nn.Sequential(nn.Conv1d(3, 4, 3, padding=1, padding_mode="reflect")), None,
                "0: .*padding_mode='reflect', only 'zeros'"),
    "own statistics": (lambda: nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False)), None,
                       "track_running_stats=False, only True"),
    "norm of rows": (lambda: nn.Sequential(nn.Embedding(9, 3, max_norm=1.0), nn.Linear(3, 2)), None,
                     "max_norm=1.0"),
    "a part of a Sequential": (lambda: nn.ModuleDict({"a": nn.Sequential(nn.Linear(3, 4), Picker())}),
                               "a", "a.1: is a .*Picker, whose forward is not in the file"),
    "options": (lambda: nn.ModuleDict({"a": nn.Conv1d(3, 4, 3)}), "a(stride=2)",
                "whose options are in the file; got stride=2"),
    "options of a word": (lambda: nn.ModuleDict({"a": nn.ELU(), "b": nn.Linear(3, 4)}), "b -> a(0.3)",
                          "a: takes no options"),
    "several of a name": (lambda: nn.ModuleDict({"a": nn.ModuleDict({"x": nn.Linear(3, 4)}),
                                                 "b": nn.ModuleDict({"x": nn.Linear(4, 4)})}), "x",
                          "x: fits several modules: a.x, b.x"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_file_does_not_say(name: str, tmp_path: Path) -> None:
    build, chain, message = REFUSED[name]
    torch.save(build(), tmp_path / "m.pt")
    with pytest.raises(UnsupportedError, match=message):
        nc.from_torch(tmp_path / "m.pt", layers=chain)


def test_what_changes_a_forward_from_outside(tmp_path: Path) -> None:
    hooked = nn.Linear(3, 4)
    hooked.register_forward_hook(print)
    replaced = nn.Sequential(nn.Linear(3, 4))
    replaced.forward = types.MethodType(print, 3)  # type: ignore[method-assign]
    torch.save(nn.Sequential(hooked, replaced), tmp_path / "m.pt")
    with pytest.raises(UnsupportedError) as error:
        nc.from_torch(tmp_path / "m.pt")
    assert "0 (Linear): has a hook on its forward, __builtin__.print" in str(error.value)
    assert "1 (Sequential): its forward was replaced on the object" in str(error.value)


def test_weights_equal_the_state_dict(tmp_path: Path) -> None:
    net = seeded(Net())
    net.register_buffer("scratch", torch.ones(3), persistent=False)
    torch.save(net, tmp_path / "m.pt")
    found = read_checkpoint(tmp_path / "m.pt")
    assert list(found.tensors) == list(net.state_dict())
    for name, tensor in net.state_dict().items():
        np.testing.assert_array_equal(found.tensors[name], tensor.numpy())
    assert found.modules["conv.1.0"].attributes["eps"] == 1e-2


def test_info_of_a_module(tmp_path: Path, capsys: Any) -> None:
    torch.save(seeded(Net()), tmp_path / "m.pt")
    found = describe(tmp_path / "m.pt")
    assert "rnn: LSTM(6 -> 5, 2 layers, bidirectional), batch_first=True" in found["modules"]
    assert "conv.2: MaxPool1d(3, stride=2, padding=1)" in found["modules"]
    assert not [q for q in found["asked"] if "head.1" in q or "conv.0" in q or "comes first" in q]
    assert found["command"].endswith(" --allow-unused criterion")
    assert main(["info", str(tmp_path / "m.pt")]) == 0
    assert found["command"] in capsys.readouterr().out
    torch.save(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), tmp_path / "s.pt")
    assert main(["info", str(tmp_path / "s.pt")]) == 0
    out = capsys.readouterr().out
    assert "says how they are joined" in out
    assert f"npylstm convert {tmp_path / 's.pt'} MODEL.npz\n" in out


class Scale(nn.Module):
    """Its tensors are those of a Linear."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(3, 3)), nn.Parameter(torch.ones(3))


def test_a_class_of_the_author_is_named(tmp_path: Path) -> None:
    torch.save(nn.Sequential(nn.Linear(3, 3), Scale()), tmp_path / "m.pt")
    found = describe(tmp_path / "m.pt")
    assert any("test_torch_pickled_modules.Scale, compute what a Linear does?" in q
               for q in found["asked"])  # fmt: skip
    with pytest.raises(UnsupportedError, match="The forward of a class is not in the file"):
        nc.from_torch(tmp_path / "m.pt")
    spec = nc.from_torch(tmp_path / "m.pt", layers="0 -> 1")
    assert any(s.endswith("Scale, computes what a Linear does") for s in spec.provenance["stated"])


def test_parameters_beside_a_submodule_of_the_name_model(tmp_path: Path) -> None:
    torch.save({"query": torch.ones(3), **nn.ModuleDict({"model": nn.Linear(3, 2)}).state_dict()},
               tmp_path / "m.pt")  # fmt: skip
    with pytest.raises(UnsupportedError, match=r"root: .*query .3,.*: is not in layers"):
        nc.from_torch(tmp_path / "m.pt", layers="model")
    spec = nc.from_torch(tmp_path / "m.pt", layers="model", allow_unused=["root"])
    sources = {entry["source"] for entry in spec.provenance["tensors"]}
    assert sources == {"query", "model.weight", "model.bias"}


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_the_source_in_an_older_file_is_shown(tmp_path: Path, capsys: Any) -> None:
    """Before torch 1.6 a class was a persistent id with its source."""
    import pickle

    class Pickler(pickle.Pickler):
        def persistent_id(self, thing: Any) -> Any:
            if isinstance(thing, type) and issubclass(thing, nn.Module) and thing not in seen:
                seen.add(thing)
                text = "class Net:\n    def forward(self, x): \x1b[31m" if thing is Net else "class"
                return ("module", thing, "net.py", text)
            if isinstance(thing, torch.storage.TypedStorage):
                keys.append(str(len(keys)))
                storages.append(thing)
                return ("storage", torch.FloatStorage, keys[-1], "cpu", len(thing), None)
            return None

    seen: set[type] = set()
    keys: list[str] = []
    storages: list[Any] = []
    stream = io.BytesIO()
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    for thing in (0x1950A86A20F9469CFC6C, 1001, system):
        pickle.dump(thing, stream, 2)
    net = seeded(Net())
    net.criterion = None  # its count of batches is no FloatStorage
    net.conv[1][0].num_batches_tracked = None
    Pickler(stream, 2).dump(net)
    pickle.dump(keys, stream, 2)
    for storage in storages:
        stream.write(len(storage).to_bytes(8, "little"))
        stream.write(np.array(storage.tolist(), "<f4").tobytes())
    (tmp_path / "m.pt").write_bytes(stream.getvalue())
    x = signal(2, 3, 9)
    agrees(Model(nc.from_torch(tmp_path / "m.pt", layers=CHAIN)).predict(x), computed(net, x))
    assert main(["info", str(tmp_path / "m.pt")]) == 0
    out = capsys.readouterr().out
    assert "Net, as the file holds it:\n    class Net:\n        def forward(self, x): " in out
    assert "\x1b" not in out


def test_a_file_of_joblib_is_named(tmp_path: Path) -> None:
    joblib = pytest.importorskip("joblib", reason="joblib is an optional package")
    joblib.dump({"w": np.ones((20, 20))}, tmp_path / "m.pkl", protocol=4)
    with pytest.raises(NpylstmError, match="joblib"):
        read_checkpoint(tmp_path / "m.pkl")
