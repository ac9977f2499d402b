"""PyTorch's weight files are read without PyTorch, to the bit as ``torch.load`` reads them."""

from __future__ import annotations

import copy
import io
import json
import re
import subprocess
import sys
import zipfile
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from npylstm_converters.torch.files import read_checkpoint
from torch import nn

import npylstm

Tensors = Mapping[str, torch.Tensor]
FRAMINGS = {"zip": "PyTorch zip", "legacy": "PyTorch legacy pickle"}
PROTOCOLS = (2, 3, 4, 5)
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


@pytest.mark.parametrize("protocol", OLD_AND_NEW)
@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("name", MODULES)
def test_state_dict(name: str, framing: str, protocol: int, tmp_path: Path) -> None:
    state = seeded(MODULES[name]()).state_dict()
    checkpoint = read(saved(state, framing, protocol), tmp_path)
    assert checkpoint.format == FRAMINGS[framing]
    assert_same(checkpoint.tensors, state)


def test_element_types(tmp_path: Path) -> None:
    """Said once outright, for whoever doubts the comparison with torch."""
    state = Everything().state_dict()
    found = read(saved(state), tmp_path).tensors
    assert {k: a.dtype.str for k, a in found.items() if k.startswith("of_")} == {
        "of_float32": "<f4", "of_float64": "<f8", "of_int64": "<i8", "of_int32": "<i4",
        "of_int16": "<i2", "of_int8": "|i1", "of_uint8": "|u1", "of_bool": "|b1",
        "of_float16": "<f4", "of_bfloat16": "<f4",
    }  # fmt: skip
    assert found["norm.num_batches_tracked"].dtype == np.int64
    assert found["scale"].shape == ()
    assert found["nothing"].shape == (0, 3)
    np.testing.assert_array_equal(found["of_bfloat16"], np.arange(-3, 4))


# --- tensors of every make ------------------------------------------------------------------------


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


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("name", TENSORS)
def test_tensors(name: str, framing: str, protocol: int, tmp_path: Path) -> None:
    tensors = TENSORS[name]()
    data = saved(tensors, framing, protocol)
    assert_same(loaded(data), tensors)
    assert_same(read(data, tmp_path).tensors, tensors)


def test_arrays_outlive_the_file(tmp_path: Path) -> None:
    for framing in FRAMINGS:
        tensors = shared()
        found = read(saved(tensors, framing), tmp_path).tensors
        (tmp_path / "checkpoint.pt").unlink()
        assert_same(found, tensors)


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("device", ["cuda:0", "cuda:7", "cuda", "mps", "xpu:1", "a place unknown"])
def test_saved_on_another_device(
    device: str, framing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = seeded(nn.LSTM(3, 5)).state_dict()
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: device)
    data = saved({"model": state}, framing)
    assert device.encode() in data
    assert_same(read(data, tmp_path).tensors, state)


# --- zips: byte order, names, versions ------------------------------------------------------------


def members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(parts: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return stream.getvalue()


def swapped(data: bytes, size: int) -> bytes:
    return np.frombuffer(data, f"u{size}").byteswap().tobytes()


def test_big_endian(tmp_path: Path) -> None:
    """A file of an IBM mainframe, as torch itself reads it."""
    tensors = dict(special()) | {"a": torch.arange(24.0).view(4, 6).T, "b": torch.arange(9)[2:]}
    tensors |= {"scalar": torch.tensor(258), "empty": torch.zeros(0, 2)}
    parts = members(saved(tensors))
    assert parts["archive/byteorder"] == b"little"
    parts["archive/byteorder"] = b"big"
    sizes = {str(k): t.element_size() for k, t in enumerate(tensors.values())}
    for key, size in sizes.items():
        parts[f"archive/data/{key}"] = swapped(parts[f"archive/data/{key}"], size)
    data = zipped(parts)
    assert_same(loaded(data), tensors)  # the swap above is the right one
    assert_same(read(data, tmp_path).tensors, tensors)


def test_legacy_data_are_little_endian_whoever_wrote_them(tmp_path: Path) -> None:
    """The header of a mainframe says otherwise, but torch swaps before it writes."""
    state = seeded(nn.LSTM(3, 5)).state_dict()
    data = saved(state, "legacy")
    flag = b"little_endianq\x02\x88"
    assert data.count(flag) == 1
    data = data.replace(flag, flag[:-1] + b"\x89")
    assert_same(loaded(data), state)
    assert_same(read(data, tmp_path).tensors, state)


def test_zip_of_an_older_torch(tmp_path: Path) -> None:
    """No byte order, no alignment, no serialization id before torch 1.14."""
    state = seeded(Everything()).state_dict()
    parts = members(saved(state))
    old = re.compile(r"archive/(data\.pkl|data/\d+|version)")
    data = zipped({name: part for name, part in parts.items() if old.fullmatch(name)})
    assert_same(loaded(data), state)
    assert_same(read(data, tmp_path).tensors, state)


@pytest.mark.parametrize(
    "stem", ["archive", "epoch=3-val_loss=0.12", "data", "model.v2", "größe", "a b", "x" * 150]
)
def test_zip_named_after_its_file(stem: str, tmp_path: Path) -> None:
    state = seeded(nn.LSTM(3, 5)).state_dict()
    path = tmp_path / f"{stem}.pt"
    torch.save(state, path)
    assert_same(read_checkpoint(path).tensors, state)
    assert_same(read_checkpoint(str(path)).tensors, state)
    path = path.rename(tmp_path / "renamed.bin")
    assert_same(read_checkpoint(path).tensors, state)


@pytest.mark.parametrize(
    "suffix", [".pt", ".pth", ".bin", ".safetensors", ".npz", ".keras", ".txt", ""]
)
def test_content_counts_not_suffix(suffix: str, tmp_path: Path) -> None:
    state = seeded(nn.LSTM(3, 5)).state_dict()
    contents = {form: saved(state, framing) for framing, form in FRAMINGS.items()}
    contents["safetensors"] = safetensors.torch.save(state)
    for form, data in contents.items():
        path = tmp_path / f"model{suffix}"
        path.write_bytes(data)
        checkpoint = read_checkpoint(path)
        assert checkpoint.format == form
        assert_same({name: checkpoint.tensors[name] for name in state}, state)


# --- safetensors ----------------------------------------------------------------------------------


def in_header(data: bytes) -> list[str]:
    """Names in the file's order: 8 bytes of length, then JSON, then numbers."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return [name for name in header if name != "__metadata__"]


@pytest.mark.parametrize("name", MODULES)
def test_safetensors(name: str, tmp_path: Path) -> None:
    state = seeded(MODULES[name]()).state_dict()
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(state, path, metadata={"format": "pt", "größe": "1"})
    checkpoint = read_checkpoint(path)
    assert checkpoint.format == "safetensors"
    assert list(checkpoint.tensors) == in_header(path.read_bytes())
    assert_same({key: checkpoint.tensors[key] for key in state}, state)


LENGTHS = [0x180, 0x280, 0x480, 0x4B50, 0x14B50, 0x8A80, 0x17B, 0x1F8B, 0x100, 0x200]


@pytest.mark.parametrize("length", LENGTHS)
def test_safetensors_whose_length_looks_like_another_magic(length: int, tmp_path: Path) -> None:
    """Its first bytes are a number, which may spell PK, or the first opcode of a pickle."""
    numbers = np.arange(3, dtype="<f4")
    header = b'{"w": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}}'.ljust(length)
    data = length.to_bytes(8, "little") + header + numbers.tobytes()
    np.testing.assert_array_equal(safetensors.torch.load(data)["w"].numpy(), numbers)
    checkpoint = read(data, tmp_path)
    assert checkpoint.format == "safetensors"
    np.testing.assert_array_equal(checkpoint.tensors["w"], numbers)


@pytest.mark.parametrize(
    "name", ["empty", "special numbers", "every half", "many", "odd names", "one"]
)
def test_tensors_in_safetensors(name: str, tmp_path: Path) -> None:
    tensors = {key: tensor.contiguous().clone() for key, tensor in TENSORS[name]().items()}
    found = read(safetensors.torch.save(tensors), tmp_path).tensors
    assert sorted(found) == sorted(tensors)
    assert_same({key: found[key] for key in tensors}, tensors)


def test_safetensors_hold_no_nested_state(tmp_path: Path) -> None:
    state = seeded(nn.DataParallel(nn.LSTM(3, 5))).state_dict()
    data = safetensors.torch.save(state)
    expected = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    found = read(data, tmp_path).tensors
    assert_same({name: found[name] for name in expected}, expected)
    with pytest.raises(npylstm.NpylstmError, match="model_state"):
        read(data, tmp_path, key="model_state")


# --- which entry is the state_dict ----------------------------------------------------------------


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


@pytest.mark.parametrize("protocol", OLD_AND_NEW)
@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("name", NESTED)
def test_the_only_state_dict(name: str, framing: str, protocol: int, tmp_path: Path) -> None:
    thing, key = NESTED[name]
    data = saved(thing, framing, protocol)
    assert_same(read(data, tmp_path).tensors, STATE)
    assert_same(read(data, tmp_path, key=key).tensors, STATE)
    with pytest.raises(npylstm.NpylstmError) as error:
        read(data, tmp_path, key="nowhere")
    assert "nowhere" in message(error, tmp_path)
    assert key in message(error, tmp_path)


@pytest.mark.parametrize("optimizer", ["Adam", "SGD", "RMSprop", "Adagrad", "LBFGS"])
@pytest.mark.parametrize("framing", FRAMINGS)
def test_state_of_optimizers_is_no_candidate(optimizer: str, framing: str, tmp_path: Path) -> None:
    model, chosen, _ = trained(optimizer)
    state, steps = model.state_dict(), chosen.state_dict()
    beside = {"model": state, "optimizer": steps, "optimizers": [steps], "by_name": {"a": steps}}
    assert_same(read(saved(beside, framing), tmp_path).tensors, state)
    for alone in (steps, {"optimizer": steps, "epoch": 3}):
        with pytest.raises(npylstm.NpylstmError, match="state_dict"):
            read(saved(alone, framing), tmp_path)


SEVERAL: dict[str, tuple[Any, dict[str, Any]]] = {
    "average": ({"model": STATE, "ema": OTHER, "optimizer": STEPS}, {"model": STATE, "ema": OTHER}),
    "nested": ({"nets": {"actor": STATE, "critic": OTHER}, "epoch": 3},
               {"nets.actor": STATE, "nets.critic": OTHER}),
    "of all depths": ({"a": STATE, "b": {"c": OTHER, "d": {"e": STATE}}},
                      {"a": STATE, "b.c": OTHER, "b.d.e": STATE}),
}  # fmt: skip


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("name", SEVERAL)
def test_several_state_dicts(name: str, framing: str, tmp_path: Path) -> None:
    thing, states = SEVERAL[name]
    data = saved(thing, framing)
    with pytest.raises(npylstm.NpylstmError) as error:
        read(data, tmp_path)
    text = message(error, tmp_path)
    assert re.search(r"`?\bkey\b", text)
    assert "--key" in text
    assert all(path in text for path in states), text
    assert not re.search("['\"`]optim", text), text
    for path, state in states.items():
        assert_same(read(data, tmp_path, key=path).tensors, state)


COINCIDING: dict[str, Any] = {
    "dots in a name": {"a": {"b": STATE}, "a.b": OTHER},
    "dots in a name, first": {"a.b": OTHER, "a": {"b": STATE}},
    "a number and its digits": {"1": STATE, 1: OTHER},
    "a list and its digits": {"a": [STATE], "a.0": OTHER},
    "none and its name": {None: OTHER, "None": STATE},
}


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("name", COINCIDING)
def test_paths_that_coincide(name: str, framing: str, tmp_path: Path) -> None:
    """Two state_dicts of one path are two: none may be chosen unasked, unless the other cannot."""
    found = without_refusal(saved(COINCIDING[name], framing), tmp_path)
    if found is not None:  # what lies below numbers, lists or None has no dotted path
        assert "dots" not in name
        assert_same(found, OTHER if name == "a list and its digits" else STATE)


@pytest.mark.parametrize("key", ["nowhere", "Model", "model.", ".model", "model.weight_ih_l0", "ema.x",
                                 "epoch", "optimizer", "optimizer.state", "", " ", "*"])  # fmt: skip
@pytest.mark.parametrize("framing", FRAMINGS)
def test_unknown_key(key: str, framing: str, tmp_path: Path) -> None:
    data = saved({"model": STATE, "ema": OTHER, "optimizer": STEPS, "epoch": 3}, framing)
    with pytest.raises(npylstm.NpylstmError) as error:
        read(data, tmp_path, key=key)
    text = message(error, tmp_path)
    assert key in text
    assert "model" in text
    assert "ema" in text


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_key_where_there_is_nothing_to_choose(framing: str, tmp_path: Path) -> None:
    with pytest.raises(npylstm.NpylstmError, match="model_state"):
        read(saved(STATE, framing), tmp_path, key="model_state")


NO_STATE_DICT: dict[str, Any] = {
    "none": None, "number": 3, "text": "state_dict", "numbers": {"epoch": 3}, "empty list": [],
    "a tensor": torch.ones(3), "numbered tensors": {0: torch.ones(3)}, "tuples": {("a",): torch.ones(2)},
    "a parameter": nn.Parameter(torch.ones(2)), "steps": {"optimizer": STEPS},
}  # fmt: skip


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("name", NO_STATE_DICT)
def test_no_state_dict(name: str, framing: str, tmp_path: Path) -> None:
    with pytest.raises(npylstm.NpylstmError) as error:
        read(saved(NO_STATE_DICT[name], framing), tmp_path)
    assert "state_dict" in message(error, tmp_path)


# --- names that wrappers change -------------------------------------------------------------------


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


# --- read as torch reads them, or refused: never read otherwise -----------------------------------


def with_note(tensor: Any) -> Any:
    tensor.note = "an attribute of its own"
    return tensor


SELDOM: dict[str, Callable[[], Any]] = {
    "negated lazily": lambda: {"w": (torch.arange(4.0) + 1j * torch.arange(4.0)).conj().imag},
    "conjugated lazily": lambda: {"w": (torch.arange(4.0) + 1j * torch.arange(4.0)).conj()},
    "complex": lambda: {"w": torch.arange(4.0) * 1j},
    "uint16": lambda: {"w": torch.arange(4).to(torch.uint16), "v": torch.ones(2)},
    "uint64": lambda: {"w": torch.arange(4).to(torch.uint64)},
    "float8": lambda: {"w": torch.arange(4.0).to(torch.float8_e4m3fn)},
    "attribute": lambda: {"w": with_note(torch.arange(3.0))},
    "attribute of a parameter": lambda: {"w": with_note(nn.Parameter(torch.arange(3.0)))},
    "buffer": lambda: {"w": nn.Buffer(torch.arange(3.0))},
    "sparse": lambda: {"w": torch.eye(3).to_sparse()},
    "sparse rows": lambda: {"w": torch.eye(3).to_sparse_coo().coalesce()},
    "meta": lambda: {"w": torch.ones(3, device="meta")},
    "NumPy scalars": lambda: {"model": STATE, "loss": np.float64(0.5), "epoch": np.int64(3)},
    "NumPy array": lambda: {"model": STATE, "mean": np.arange(3.0), "names": np.array(["a", "b"])},
    "NumPy objects": lambda: {"model": STATE, "mean": np.array([{}, None], object)},
    "bytes": lambda: {"model": STATE, "raw": b"ab\xff", "more": bytearray(b"x")},
    "sets": lambda: {"model": STATE, "tags": {"a", "b"}, "frozen": frozenset([1])},
    "counters": lambda: {"model": STATE, "seen": Counter("ab"), "lists": defaultdict(list)},
    "complex number": lambda: {"model": STATE, "z": 1 + 2j, "range": range(3), "slice": slice(3)},
    "dtype and device": lambda: {
        "model": STATE,
        "dtype": torch.float32,
        "device": torch.device("cpu"),
    },
    "bare storage": lambda: {"model": STATE, "bytes": torch.ones(3).untyped_storage()},
    "list of states": lambda: [STATE, STEPS],
    "tuple of states": lambda: (STATE, 3),
    "state under a number": lambda: {0: STATE},
    "empty": lambda: OrderedDict(),
    "the same twice": lambda: {"model": STATE, "alias": STATE},
    "a version beside": lambda: {"w": torch.arange(3.0), "version": 3},
    "an extra state": lambda: {"w": torch.arange(3.0), "_extra_state": None},
}


@pytest.mark.filterwarnings("ignore:.*(S|s)parse:UserWarning")
@pytest.mark.parametrize("protocol", OLD_AND_NEW)
@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("name", SELDOM)
def test_seldom_things(name: str, framing: str, protocol: int, tmp_path: Path) -> None:
    thing = SELDOM[name]()
    found = without_refusal(saved(thing, framing, protocol), tmp_path)
    if found is None:
        return
    if isinstance(thing, dict) and isinstance(thing.get("w"), torch.Tensor):
        thing = {k: v for k, v in thing.items() if isinstance(v, torch.Tensor)}
        assert sorted(found) == sorted(thing)
        for key, tensor in thing.items():
            assert tensor.layout == torch.strided
            assert not tensor.is_meta
            np.testing.assert_array_equal(found[key], as_array(tensor), err_msg=name)
    elif name != "empty":
        assert_same(found, STATE)


def test_an_odd_storage_is_refused_by_name(tmp_path: Path) -> None:
    for name, word in [("sparse", "torch._utils._rebuild_sparse_tensor"), ("meta", "meta")]:
        with pytest.raises(npylstm.UnsupportedError, match=word):
            read(saved(SELDOM[name]()), tmp_path)


# --- other files, that hold modules or programs ---------------------------------------------------


def scripted() -> bytes:
    stream = io.BytesIO()
    torch.jit.save(torch.jit.script(nn.Linear(2, 3)), stream)
    return stream.getvalue()


def exported() -> bytes:
    stream = io.BytesIO()
    torch.export.save(torch.export.export(nn.Linear(2, 3), (torch.ones(1, 2),)), stream)
    return stream.getvalue()


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"
)
@pytest.mark.parametrize("make", [scripted, exported])
def test_programs(make: Callable[[], bytes], tmp_path: Path) -> None:
    with pytest.raises(npylstm.NpylstmError) as error:
        read(make(), tmp_path)
    assert message(error, tmp_path)


def test_files_of_others(root: Path, tmp_path: Path) -> None:
    paths = [root / "models/sine_keras/sine.npz", root / "tests/data/keras/tf213_stacked.keras",
             root / "tests/data/keras/tf24_stacked.h5", root / "README.md"]  # fmt: skip
    for path in paths:
        with pytest.raises(npylstm.NpylstmError):
            read_checkpoint(path)
    for path in (tmp_path, tmp_path / "nobody.pt"):
        with pytest.raises((npylstm.NpylstmError, OSError)):
            read_checkpoint(path)


def test_numpy_files(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", w=np.ones(3))
    np.save(tmp_path / "a.npy", np.ones(3))
    for name in ("a.npz", "a.npy"):
        with pytest.raises(npylstm.NpylstmError):
            read_checkpoint(tmp_path / name)


def test_reading_twice_gives_the_same(tmp_path: Path) -> None:
    """No memo, storage or global outlives a file, and no array is shared by two readings."""
    data = saved(STATE)
    first = read(data, tmp_path).tensors
    kept = copy.deepcopy(dict(first))
    read(saved({"model": OTHER}), tmp_path)
    second = read(data, tmp_path).tensors
    assert_same(second, STATE)
    for name, array in first.items():
        np.testing.assert_array_equal(array, kept[name])
        assert not np.shares_memory(array, second[name])


# --- without torch --------------------------------------------------------------------------------

BARRED = """
import sys

class Bar:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "safetensors"):
            raise RuntimeError(f"{name} was imported")

sys.meta_path.insert(0, Bar())
import npylstm
from npylstm_converters.torch.files import read_checkpoint

for path in sys.argv[2:]:
    try:
        print(read_checkpoint(path).format)
    except npylstm.NpylstmError as error:
        print(type(error).__name__)
exec(sys.argv[1])
assert not [name for name in sys.modules if name.partition(".")[0] in ("torch", "safetensors")]
"""


def without_torch(statement: str, paths: list[Path]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", BARRED, statement, *map(str, paths)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_torch_is_not_imported(tmp_path: Path) -> None:
    contents = {
        "zip": saved(NESTED["of Lightning"][0]), "legacy": saved(parameters(), "legacy", 5),
        "safe": safetensors.torch.save(STATE), "module": saved(nn.LSTM(3, 5)),
        "module in legacy": saved(nn.LSTM(3, 5), "legacy"), "sparse": saved(SELDOM["sparse"]()),
        "damaged": saved(STATE)[:-9],
    }  # fmt: skip
    paths = []
    for name, data in contents.items():
        paths.append(tmp_path / name)
        paths[-1].write_bytes(data)
    done = without_torch("pass", paths)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "PyTorch zip", "PyTorch legacy pickle", "safetensors", "a pickled module (PyTorch zip)",
        "a pickled module (PyTorch legacy pickle)", "UnsupportedError", "FormatError",
    ]  # fmt: skip


@pytest.mark.parametrize("statement", ["import torch", "import torch.nn", "import safetensors"])
def test_that_the_import_would_be_noticed(statement: str) -> None:
    done = without_torch(statement, [])
    assert done.returncode != 0
    assert "was imported" in done.stderr
