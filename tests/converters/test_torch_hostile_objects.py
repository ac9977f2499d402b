"""Pickles of foreign objects that are written to harm: nothing runs, and the work is bounded."""

from __future__ import annotations

import pickle
import struct
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from npylstm_converters.torch import pickle_reader
from npylstm_converters.torch.files import read_checkpoint

from npylstm import NpylstmError

MOST_SECONDS = 8.0  # of the processor: four million opcodes on a slow machine
WATCHED = {"os.system", "os.exec", "os.mkdir", "subprocess.Popen", "pickle.find_class"}
watching: list[bool] = []
events: list[str] = []


def hook(event: str, arguments: Any) -> None:
    if watching and event in WATCHED:
        events.append(f"{event} {arguments!r:.80}")


sys.addaudithook(hook)


@pytest.fixture(autouse=True)
def _nothing_runs_and_work_is_bounded(tmp_path: Path) -> Iterator[None]:
    read(tmp_path, STATE)  # what is imported late is imported now
    events.clear()
    start = time.process_time()
    watching.append(True)
    yield
    watching.clear()
    assert events == []
    assert time.process_time() - start < MOST_SECONDS


def test_the_hook_notices() -> None:
    pickle.loads(b"cbuiltins\nlen\n.")
    assert events
    events.clear()


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def name(path: str) -> bytes:
    module, _, attribute = path.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


def put(number: int) -> bytes:
    return b"r" + struct.pack("<I", number)


def get(number: int) -> bytes:
    return b"j" + struct.pack("<I", number)


TENSOR = (
    name("torch._utils._rebuild_tensor_v2") + b"((" + text("storage") + name("torch.FloatStorage")
    + text("0") + text("cpu") + b"K\x06tQK\x00K\x02K\x03\x86K\x03K\x01\x86\x89}tR"
)  # fmt: skip
STATE = b"}" + text("a.weight") + TENSOR + b"s"
MODULE = name("net.Net") + b")\x81}(" + text("_parameters") + b"}" + text("_buffers") + b"}"


def module(*submodules: tuple[str, bytes], own: bytes = b"") -> bytes:
    """A module whose submodules are made by these opcodes."""
    parts = b"".join(text(k) + opcodes for k, opcodes in submodules)
    table = (text("_parameters") + b"}(" + own + b"u" + text("_buffers") + b"}"
             + text("_modules") + b"}(" + parts + b"u")  # fmt: skip
    return name("net.Net") + b")\x81}(" + table + b"ub"


def beside(opcodes: bytes) -> bytes:
    """A checkpoint with a state_dict, and what the opcodes push."""
    return b"}(" + text("x") + opcodes + text("model") + STATE + b"u"


def saved(folder: Path, opcodes: bytes) -> Path:
    path = folder / "m.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", b"\x80\x04" + opcodes + b".")
        archive.writestr("m/data/0", np.arange(6, dtype="<f4").tobytes())
    return path


def read(folder: Path, opcodes: bytes) -> dict[str, Any] | str:
    """The tensors, or the message of npylstm's own error."""
    try:
        return read_checkpoint(saved(folder, opcodes)).tensors
    except NpylstmError as error:
        return str(error)


def is_model(found: Any) -> None:
    assert list(found) == ["a.weight"]
    np.testing.assert_array_equal(found["a.weight"], np.arange(6, dtype="f4").reshape(2, 3))


def deep(opcodes: bytes, wrap: bytes, times: int) -> bytes:
    return opcodes + wrap * times


def laughs(levels: int, first: bytes, join: bytes) -> bytes:
    """Each level holds the one below twice."""
    made = first + put(0)
    for k in range(levels):
        made += b"0" + b"(" + get(k) + get(k) + join + put(k + 1)
    return made


SHELL = name("os.system") + text("mkdir executed") + b"\x85R"
BESIDE = {
    "call": SHELL,
    "a call of a call": name("builtins.getattr") + SHELL + text("a") + b"\x86R" + b")R",
    "a call of a module": MODULE + b"ub" + b")R",
    "call with names": name("os.system") + b")}" + text("command") + text("mkdir executed") + b"s\x92",
    "old instance": b"(" + text("mkdir executed") + b"ios\nsystem\n",
    "old object": b"(" + name("os.system") + text("mkdir executed") + b"o",
    "reconstructor": name("copyreg._reconstructor") + name("os.system") + name("builtins.object") + b"N\x87R",
    "state by a call": name("net.Net") + b")\x81" + SHELL + b"b",
    "attributes of a call": SHELL + b"}" + text("__class__") + name("os.system") + b"sb",
    "a hundred thousand calls": b"](" + SHELL * 5_000 + b"e",
    "a call of its own result": SHELL + b"q\x01" + (b"0h\x01h\x01\x85Rq\x01") * 5_000,
    "a call around a call": deep(SHELL, b"q\x010" + name("os.system") + b"h\x01\x85R", 5_000),
    "object in itself": name("net.Net") + b")\x81q\x01}" + text("self") + b"h\x01sb",
    "list in itself": b"]q\x01h\x01a",
    "dictionary in itself": b"}q\x01" + text("x") + b"h\x01s",
    "objects in a ring": name("a.A") + b")\x81q\x010" + name("b.B") + b")\x81q\x02}" + text("a") + b"h\x01sb"
    + b"0h\x01}" + text("b") + b"h\x02sb",
    "a module in itself": name("net.Net") + b")\x81q\x01}(" + text("_parameters") + b"}"
    + text("_modules") + b"}" + text("m") + b"h\x01sub",
    "2^60 tuples": laughs(60, SHELL, b"t"),
    "2^60 lists": laughs(60, SHELL, b"l"),
    "2^60 dictionaries": b"N" + put(0) + b"".join(
        b"0}(" + text("a") + get(k) + text("b") + get(k) + b"u" + put(k + 1) for k in range(60)),
    "2^60 modules": laughs(0, b"N", b"t") + b"0" + b"".join(
        (module(*((f"m{j}", get(k)) for j in range(2))) if k else module()) + put(k + 1) + b"0"
        for k in range(60)) + get(60),
    "a memo of a large number": b"Nr" + struct.pack("<I", 0xFFFFFFFF),
    "nested tuples": deep(b")", b"\x85", 20_000),
    "nested lists": deep(b"]", b"q\x010]h\x01a", 20_000),
    "nested foreign objects": deep(name("a.A"), b"\x85q\x010" + name("a.A") + b"h\x01R", 5_000),
    "sets of objects": b"\x8f(" + SHELL * 100 + b"\x90",
    "keys of objects": b"}" + SHELL + b"K\x01s" + SHELL + b"K\x02s",
    "keys of tuples of objects": b"}" + SHELL + b"\x85" + SHELL + b"s",
    "keys of one hash": b"}(" + b"".join(
        b"\x8a\x0b" + (k * ((1 << 61) - 1)).to_bytes(11, "little") + b"N" for k in range(20_000)) + b"u",
    "items of an object": name("a.A") + b")\x81(" + text("a") + SHELL + b"u(" + SHELL + b"e",
    "array of objects": name("numpy._core.multiarray._reconstruct") + name("numpy.ndarray")
    + b"K\x00\x85" + text("b") + b"\x87R(K\x01K\x02\x85" + name("numpy.dtype") + text("O8")
    + b"\x89\x88\x87R\x89](" + SHELL * 2 + b"etb",
    "storage of bytes": name("torch.storage._load_from_bytes") + b"C\x03abc\x85R",
    "storage of a call": name("torch.storage._load_from_bytes") + SHELL + b"\x85R",
    "storages in storages": name("torch.storage._load_from_bytes") + b"B" + struct.pack("<I", 4)
    + b"\x80\x02N." + b"\x85R",
}  # fmt: skip


@pytest.mark.parametrize("case", BESIDE)
def test_what_is_beside_the_weights_does_no_harm(case: str, tmp_path: Path) -> None:
    """The weights do not need it: they are read. A module that holds itself is refused."""
    found = read(tmp_path, beside(BESIDE[case]))
    if "modules" in case or case == "a module in itself":
        assert isinstance(found, dict) or "state_dict" in found
    else:
        is_model(found)


@pytest.mark.parametrize("case", BESIDE)
def test_what_is_in_place_of_the_weights_is_refused(case: str, tmp_path: Path) -> None:
    for opcodes in (BESIDE[case], b"}" + text("a.weight") + BESIDE[case] + b"s"):
        assert isinstance(read(tmp_path, opcodes), str)


CLAIMS = {
    "bytes": b"\x8e" + struct.pack("<Q", 1 << 60),
    "text": b"\x8d" + struct.pack("<Q", 1 << 62),
    "array of bytes": b"\x96" + struct.pack("<Q", (1 << 63) + 5),
    "integer": b"\x8b" + struct.pack("<i", 0x7FFFFFFF),
    "marks": b"(" * 5000 + b"N",
    "state set twice": name("a.A") + b")\x81}b}b",
    "a long name": b"ca\n" + b"b" * 5000 + b"\n",
    "opcodes": b"N0" * 30_000 + b"N",
    "objects": b"]0" * 15_000 + b"N",
    "entries of the memo": b"N" + b"\x94" * 15_000,
    "foreign objects": name("a.A") + b"q\x010" + b"h\x01)\x810" * 12_000 + b"N",
    "texts": (b"X" + struct.pack("<I", 1 << 14) + b"a" * (1 << 14) + b"0") * 140 + b"N",
}


@pytest.mark.parametrize("case", CLAIMS)
def test_a_claim_beyond_the_limits_is_refused(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limits are a hundredth of the true ones, so that the test is quick."""
    for limit in ("_MOST_WORK", "_MOST_OBJECTS", "_MOST_BYTES"):
        monkeypatch.setattr(pickle_reader, limit, getattr(pickle_reader, limit) // 100)
    found = read(tmp_path, beside(CLAIMS[case]))
    assert isinstance(found, str)
    assert "pickle: " in found or "damaged" in found


MODULES = {
    "in itself": name("net.Net") + b")\x81q\x01}(" + text("_parameters") + b"}(" + text("w") + TENSOR
    + b"u" + text("_modules") + b"}" + text("m") + b"h\x01sub",
    "2^60 paths": b"N0" + b"".join(
        (module(*((f"m{j}", get(k)) for j in range(2)), own=b"") if k else module(own=text("w") + TENSOR))
        + put(k + 1) + b"0" for k in range(60)) + get(60),
    "deep": module(own=text("w") + TENSOR) + b"".join(
        put(k) + b"0" + module(("m", get(k))) for k in range(500)),
    "tables of others": name("net.Net") + b")\x81}(" + text("_parameters") + b"](K\x03e" + text("_modules")
    + b"}ub",
    "numbers for tensors": module(own=text("w") + b"K\x03"),
    "objects for tensors": module(own=text("w") + SHELL),
    "objects for modules": module(("m", SHELL), own=text("w") + TENSOR),
}  # fmt: skip


@pytest.mark.parametrize("case", MODULES)
def test_a_module_that_no_torch_wrote_is_refused(case: str, tmp_path: Path) -> None:
    found = read(tmp_path, MODULES[case])
    assert isinstance(found, str), found


def test_what_is_added_later_is_not_in_the_object(tmp_path: Path) -> None:
    """BUILD copies attributes: a dictionary that is shared and changed later changes no module."""
    state = (
        b"}q\x01("
        + text("_parameters")
        + b"}("
        + text("weight")
        + TENSOR
        + b"u"
        + text("_modules")
        + b"}u"
    )
    later = (
        state + b"0" + name("net.Net") + b")\x81h\x01bq\x020h\x01(" + text("forward") + b"Nu0h\x02"
    )
    assert list(read(tmp_path, later)) == ["weight"]
