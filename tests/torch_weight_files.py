"""Write weight files with PyTorch, and compare what npylstm reads with what PyTorch reads."""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from npylstm_converters.torch.files import read_checkpoint
from torch import nn

import npylstm

Tensors = Mapping[str, torch.Tensor]
FRAMINGS = {"zip": "PyTorch zip", "legacy": "PyTorch legacy pickle"}
OLD_AND_NEW = (2, 4)  # 3 adds only bytes to 2, and 5 only buffers to 4
HALF = (torch.float16, torch.bfloat16)
WIDENED = (*HALF, torch.float8_e4m3fn)
KEPT = (torch.float32, torch.float64, torch.int64, torch.int32, torch.int16, torch.int8,
        torch.uint8, torch.bool)  # fmt: skip


def saved(thing: Any, framing: str = "zip", protocol: int = 2) -> bytes:
    """What ``torch.save`` writes."""
    stream = io.BytesIO()
    torch.save(
        thing, stream, pickle_protocol=protocol, _use_new_zipfile_serialization=framing == "zip"
    )
    return stream.getvalue()


def loaded(data: bytes) -> dict[str, np.ndarray[Any, Any]]:
    """What torch makes of a file; protocols above 2 it reads only as programs."""
    state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=False)
    return {name: as_array(tensor) for name, tensor in state.items()}


def read(data: bytes, folder: Path, key: str | None = None) -> Any:
    path = folder / "checkpoint.pt"
    path.write_bytes(data)
    return read_checkpoint(path, key=key)


def as_array(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    plain = tensor.detach().resolve_neg().resolve_conj()
    return np.asarray((plain.float() if plain.dtype in WIDENED else plain).numpy())


def assert_same(found: Mapping[str, Any], expected: Tensors) -> None:
    """Names in order, element types, shapes, and every number with its sign."""
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        array, target = found[name], as_array(tensor)
        assert type(array) is np.ndarray, name
        np.testing.assert_array_equal(array, target, err_msg=name, strict=True)
        assert array.dtype.isnative, name
        if array.dtype.kind == "f":
            np.testing.assert_array_equal(np.signbit(array), np.signbit(target), err_msg=name)


def without_refusal(data: bytes, folder: Path) -> dict[str, Any] | None:
    try:
        return dict(read(data, folder).tensors)
    except npylstm.NpylstmError:
        return None


def message(error: pytest.ExceptionInfo[BaseException], folder: Path) -> str:
    """What an error says, without the name of the test that is in the path."""
    return str(error.value).replace(str(folder), "")


def seeded(module: nn.Module) -> nn.Module:
    """A module with numbers that differ everywhere; torch begins with ones and zeros in places."""
    generator = torch.Generator().manual_seed(7)
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            tensor.data = torch.randn(tensor.shape, generator=generator).to(tensor.dtype)
    return module


class Everything(nn.Module):
    """All that a recurrent model is made of, and a buffer of every element type."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 5, padding_idx=0)
        self.conv = nn.Conv1d(5, 6, 3)
        self.norm = nn.BatchNorm1d(6)
        self.lstm = nn.LSTM(6, 8, num_layers=2, bidirectional=True, proj_size=3)
        self.gru = nn.GRU(6, 4, bias=False)
        self.rnn = nn.RNN(4, 4)
        self.heads = nn.ModuleDict({"a": nn.Linear(4, 2), "b": nn.Linear(4, 1, bias=False)})
        self.register_buffer("scale", torch.tensor(2.5))
        self.register_buffer("nothing", torch.zeros(0, 3))
        for dtype in (*KEPT, *HALF):
            name = str(dtype).removeprefix("torch.")
            self.register_buffer(f"of_{name}", torch.arange(-3, 4).to(dtype))


MODULES: dict[str, Callable[[], nn.Module]] = {
    "lstm": lambda: nn.LSTM(3, 5),
    "lstm of two layers": lambda: nn.LSTM(3, 5, num_layers=2, batch_first=True),
    "lstm bidirectional": lambda: nn.LSTM(3, 5, num_layers=2, bidirectional=True),
    "lstm projected": lambda: nn.LSTM(3, 5, proj_size=2),
    "lstm without bias": lambda: nn.LSTM(3, 5, bias=False),
    "lstm cell": lambda: nn.LSTMCell(3, 5),
    "gru": lambda: nn.GRU(3, 5),
    "rnn": lambda: nn.RNN(3, 5),
    "linear": lambda: nn.Linear(3, 5),
    "embedding": lambda: nn.Embedding(7, 3),
    "batch norm": lambda: nn.BatchNorm1d(4),
    "conv": lambda: nn.Conv1d(3, 4, 5),
    "sequential": lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)),
    "double": lambda: nn.LSTM(3, 5).double(),
    "half": lambda: nn.LSTM(3, 5).half(),
    "bfloat16": lambda: nn.LSTM(3, 5).bfloat16(),
    "everything": Everything,
}


def shared() -> Tensors:
    base = torch.arange(24.0)
    table = base.view(4, 6)
    return {
        "whole": base, "table": table, "part": base[5:11], "every third": base[1::3],
        "transposed": table.T, "column": table[:, 2], "block": table[1:3, 2:5],
        "block transposed": table[1:3, 2:5].T, "diagonal": table[:, :4].diagonal(),
        "permuted": base.view(2, 3, 4).permute(2, 0, 1), "one": base[13], "again": base,
    }  # fmt: skip


def strided() -> Tensors:
    return {
        "expanded": torch.arange(3.0).expand(4, 3),
        "expanded in the middle": torch.arange(6.0).view(2, 1, 3).expand(2, 5, 3),
        "expanded scalar": torch.tensor(7.0).expand(2, 3),
        "overlapping": torch.arange(6.0).as_strided((3, 4), (1, 1)),
        "unfolded": torch.arange(9.0).unfold(0, 4, 2),
        "one long step": torch.arange(4.0).as_strided((1, 4), (10**6, 1)),
        "one step of none": torch.arange(4.0).as_strided((4, 1), (1, 0)),
        "offset": torch.arange(9.0).as_strided((2, 2), (3, 1), 4),
        "channels last": torch.arange(24.0).view(1, 2, 3, 4).to(memory_format=torch.channels_last),
        "eight axes": torch.arange(256.0).view([2] * 8).permute(7, 1, 2, 5, 4, 3, 6, 0),
    }


def empty() -> Tensors:
    return {
        "none": torch.zeros(0), "none of three": torch.zeros(0, 3), "three of none": torch.zeros(3, 0, 2),
        "none of bool": torch.zeros(0, dtype=torch.bool), "none of half": torch.zeros(0).half(),
        "from the end": torch.arange(5.0)[5:], "from the middle": torch.arange(5.0)[3:3],
        "none expanded": torch.zeros(1, 0).expand(4, 0),
    }  # fmt: skip


def special() -> Tensors:
    numbers: dict[str, torch.Tensor] = {}
    for dtype in (torch.float64, torch.float32, *HALF):
        limits = torch.finfo(dtype)
        numbers[f"{dtype}"] = torch.tensor(
            [np.nan, np.inf, -np.inf, 0.0, -0.0, limits.tiny, limits.tiny / 4, -limits.max, limits.eps],
            dtype=dtype,
        )  # fmt: skip
        numbers[f"{dtype} scalar"] = torch.tensor(-0.0, dtype=dtype)
        numbers[f"{dtype} transposed"] = torch.arange(-6, 6).view(3, 4).to(dtype).T
    for dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
        span = torch.iinfo(dtype)
        numbers[f"{dtype}"] = torch.tensor([span.min, span.max, 1], dtype=dtype)
        numbers[f"{dtype} scalar"] = torch.tensor(span.max, dtype=dtype)
    numbers["bool"] = torch.tensor([[True, False, True], [False, False, True]]).T
    return numbers


def every_half() -> Tensors:
    """All 65,536 bit patterns of both half precisions."""
    bits = torch.arange(-(1 << 15), 1 << 15).to(torch.int16)
    return {f"{dtype}": bits.clone().view(dtype) for dtype in HALF}


def parameters() -> Tensors:
    weight = nn.Parameter(torch.arange(6.0).view(2, 3))
    return {
        "weight": weight, "tied": weight, "frozen": nn.Parameter(torch.ones(2), requires_grad=False),
        "view": weight[1], "buffer": torch.arange(3),
        "half": nn.Parameter(torch.arange(3.0).half()), "grad": torch.ones(2, requires_grad=True),
    }  # fmt: skip


def many() -> Tensors:
    """More than the short opcodes hold: memo indices, batches of items, storage keys, sizes."""
    state = {f"layers.{k}.weight": torch.full((1 + k % 3,), float(k)) for k in range(1200)}
    long = torch.arange(200_000)
    return state | {
        "long": long, "far": long[70_000:70_003], "farther": long[::66_000],
        "n" * 70_000: torch.ones(1), "n" * 256: torch.ones(2),
    }  # fmt: skip


def odd_names() -> Tensors:
    names = (
        "",
        " ",
        ".",
        "a b",
        "größe",
        "权重",
        "🙂",
        "a\nb",
        "a\\u0041",
        "__class__",
        "state.x",
        "é",
    )
    return {name: torch.tensor([k + 0.5]) for k, name in enumerate(names)}


TENSORS: dict[str, Callable[[], Tensors]] = {
    "shared storage": shared,
    "strides": strided,
    "empty": empty,
    "special numbers": special,
    "every half": every_half,
    "parameters": parameters,
    "many": many,
    "odd names": odd_names,
    "one": lambda: {"w": torch.ones(1)},
}


def trained(optimizer: str = "Adam") -> tuple[nn.Module, Any, Any]:
    """A model, an optimizer that has made a step, and a scheduler."""
    model = seeded(nn.LSTM(3, 5))
    options: dict[str, dict[str, Any]] = {
        "Adam": {}, "SGD": {"momentum": 0.9}, "RMSprop": {"centered": True}, "Adagrad": {},
        "LBFGS": {},
    }  # fmt: skip
    chosen = getattr(torch.optim, optimizer)(model.parameters(), lr=0.01, **options[optimizer])
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4, 2, 3, generator=generator)

    def loss() -> torch.Tensor:
        chosen.zero_grad()
        value = model(x)[0].square().sum()
        value.backward()
        return value

    chosen.step(loss)
    scheduler = torch.optim.lr_scheduler.StepLR(chosen, 2)
    assert chosen.state_dict()["state"]
    return model, chosen, scheduler


MODEL, OPTIMIZER, SCHEDULER = trained()
STATE = {name: tensor.clone() for name, tensor in MODEL.state_dict().items()}
OTHER = {name: tensor * 2 for name, tensor in STATE.items()}
STEPS = OPTIMIZER.state_dict()

NESTED: dict[str, tuple[Any, str]] = {  # name: the checkpoint, where its only state_dict is
    "of the issue": ({"model_state": STATE, "optimizer": STEPS, "epoch": 3}, "model_state"),
    "optimizer first": ({"optimizer": STEPS, "state_dict": STATE}, "state_dict"),
    "ordered": ({"model": MODEL.state_dict(), "optimizer": STEPS}, "model"),
    "scheduler": ({"model": STATE, "scheduler": SCHEDULER.state_dict()}, "model"),
    "of Lightning": (
        {"epoch": 3, "global_step": 70, "pytorch-lightning_version": "2.5.0", "state_dict": STATE,
         "loops": {"fit_loop": {"state_dict": {}, "progress": {"total": {"ready": 4}}}},
         "callbacks": {"ModelCheckpoint{'monitor': 'loss'}": {"best": torch.tensor(0.5), "dir": "a"}},
         "optimizer_states": [STEPS], "lr_schedulers": [SCHEDULER.state_dict()],
         "hparams_name": "kwargs", "hyper_parameters": {"hidden": 5, "lr": 0.01}}, "state_dict"),
    "two deep": ({"a": {"b": STATE}, "epoch": 3}, "a.b"),
    "four deep": ({"a": {"b": {"c": {"d": STATE}}}}, "a.b.c.d"),
    "dotted name": ({"nets.actor": STATE, "epoch": 3}, "nets.actor"),
    "a lone tensor beside": ({"model": STATE, "loss": torch.tensor(0.5), "epoch": 3}, "model"),
    "optimizer by names": (
        {"model": STATE, "optim": {"state": {f"net.{k}": {"exp_avg": v, "step": torch.tensor(3.0)} for k, v in STATE.items()},
                                   "param_groups": [{"lr": 0.1, "params": list(STATE)}]}}, "model"),
    "a long history": ({"model": STATE, "losses": [0.5] * 30_000, "steps": list(range(20_000))}, "model"),
    "random state beside": ({"model": STATE, "rng": torch.get_rng_state()}, "model"),
    "nothing beside": ({"weights": STATE}, "weights"),
    "empty beside": ({"model": STATE, "ema": {}, "extra": OrderedDict()}, "model"),
    "parameters": ({"net": {k: nn.Parameter(v) for k, v in STATE.items()}, "epoch": 3}, "net"),
    "tensors in lists": ({"model": STATE, "losses": [torch.tensor(1.0), torch.tensor(0.5)]}, "model"),
    "tuples for keys": ({"model": STATE, "seen": {(0, 1): 3, ("a", (2, None)): 4}}, "model"),
    "plain values of all kinds": (
        {"model": STATE, "none": None, "yes": True, "no": False, "one": 1, "minus": -1, "byte": 255,
         "short": 65_535, "int": 2**31 - 1, "more": 2**31, "less": -(2**40), "big": 2**100,
         "biggest": -(2**3000), "float": 1e-3, "nan": float("nan"), "text": "größe" * 99,
         "size": torch.ones(2, 3).shape, "tuple": (1, (2, (3, 4, 5, 6)), ()), "list": [[], [1, 2]],
         "dict": {1: 2, None: 6, 2.5: 7, False: 8}, "order": OrderedDict(a=1)}, "model"),
}  # fmt: skip
