"""PyTorch's weight files are read without PyTorch, to the bit as ``torch.load`` reads them."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn
from torch_weight_files import (
    FRAMINGS,
    MODULES,
    NESTED,
    OLD_AND_NEW,
    OTHER,
    STATE,
    STEPS,
    TENSORS,
    Everything,
    as_array,
    assert_same,
    loaded,
    parameters,
    read,
    saved,
    seeded,
    shared,
    without_refusal,
)

import npylstm

PROTOCOLS = (2, 3, 4, 5)


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
