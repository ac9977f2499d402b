"""Zips, legacy files and safetensors of PyTorch of all versions, and files of other kinds."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from npylstm_converters.torch.files import read_checkpoint
from torch import nn
from torch_weight_files import (
    FRAMINGS,
    MODULES,
    TENSORS,
    Everything,
    assert_same,
    loaded,
    message,
    read,
    saved,
    seeded,
    special,
)

import npylstm


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
