"""PyTorch and safetensors files damaged at random places: read right, or refused."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile_reader import Reader, refused_or_harmless
from hypothesis import example, given, settings
from hypothesis import strategies as st
from npylstm_converters.torch.files import read_checkpoint
from torch import nn
from torch_pickles import (
    DATA,
    FRAMINGS,
    NO_HOOKS,
    ORDERED,
    PERSID,
    PREAMBLE,
    SAFE,
    SOUND,
    STOP,
    ZIP,
    W,
    code,
    members,
    named,
    safe,
    saved,
    zipped,
)

import npylstm


def realistic() -> dict[str, Any]:
    """A checkpoint as people save them, small."""
    torch.manual_seed(5)
    model = nn.Sequential(nn.LSTM(2, 3), nn.Linear(3, 1))
    optimizer = torch.optim.Adam(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return {"model_state": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}


def expected(thing: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    return {k: ["<f4", list(t.shape), t.tolist()] for k, t in thing.items()}


CHECKPOINT = realistic()
STATE = expected(CHECKPOINT["model_state"])
WHOLE: dict[str, bytes] = {
    "zip": saved(CHECKPOINT), "legacy": saved(CHECKPOINT, "legacy"),
    "safetensors": safe({"__metadata__": {"format": "pt"}, "w": W | {"data_offsets": [0, 48]},
                         "v": W | {"dtype": "F16", "shape": [2, 6], "data_offsets": [48, 72]}}, DATA + DATA[:24]),
}  # fmt: skip
FUZZ = settings(derandomize=True, deadline=None, max_examples=15, database=None)


def changes(size: int) -> st.SearchStrategy[list[list[tuple[int, int]]]]:
    """Ten times a few bytes and what to flip in them: ten files cost hardly more than one."""
    place = st.tuples(st.integers(0, size - 1), st.integers(1, 255))
    flips = st.lists(place, min_size=1, max_size=4, unique_by=lambda pair: pair[0])
    return st.lists(flips, min_size=10, max_size=10)


def changed(data: bytes, flips: list[tuple[int, int]]) -> bytes:
    other = bytearray(data)
    for at, bits in flips:
        other[at] ^= bits
    return bytes(other)


@pytest.mark.parametrize("form", WHOLE)
def test_whole_again(form: str, reader: Reader) -> None:
    """What is cut and flipped below was sound before."""
    outcome = reader.read(WHOLE[form])
    assert outcome.misbehaviour() == []
    assert outcome.error == []
    assert form == "safetensors" or outcome.tensors == STATE


@pytest.mark.parametrize("form", WHOLE)
def test_truncated(form: str, tmp_path: Path) -> None:
    data, path = WHOLE[form], tmp_path / "checkpoint.pt"

    @settings(FUZZ, max_examples=150)
    @given(st.integers(0, len(data) - 1))
    @example(0)
    @example(1)
    @example(8)
    @example(len(data) - 1)
    def cut(size: int) -> None:
        path.write_bytes(data[:size])
        with pytest.raises(npylstm.FormatError):
            read_checkpoint(path)

    cut()


@pytest.mark.parametrize("data", [*SOUND.values(), SAFE], ids=[*SOUND, "safetensors"])
def test_truncated_at_any_byte(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    for size in range(len(data)):
        path.write_bytes(data[:size])
        with pytest.raises(npylstm.FormatError):
            read_checkpoint(path)


@pytest.mark.parametrize("form", WHOLE)
def test_flipped_bytes(form: str, reader: Reader) -> None:
    """Zips have checksums. Elsewhere a number may change, but nothing worse may happen."""
    data, refusals = WHOLE[form], 0

    @FUZZ
    @given(changes(len(data)))
    def flip(some: list[list[tuple[int, int]]]) -> None:
        nonlocal refusals
        for outcome in reader.read_all(changed(data, flips) for flips in some):
            assert outcome.misbehaviour() == []
            refusals += bool(outcome.error)
            assert form != "zip" or outcome.error or outcome.tensors == STATE

    flip()
    assert refusals > 20


@pytest.mark.parametrize("name", ["small", "realistic"])
def test_flipped_bytes_of_a_pickle_whose_checksum_is_mended(name: str, reader: Reader) -> None:
    parts = members(SOUND["zip"] if name == "small" else WHOLE["zip"])
    pickled = parts["archive/data.pkl"]

    @FUZZ
    @given(changes(len(pickled)))
    def flip(some: list[list[tuple[int, int]]]) -> None:
        mended = (parts | {"archive/data.pkl": changed(pickled, flips)} for flips in some)
        for outcome in reader.read_all(map(zipped, mended)):
            assert outcome.misbehaviour() == []

    flip()


def test_flipped_bits_of_the_directory_of_a_zip(reader: Reader) -> None:
    """Where its 46-byte entries and its end are."""
    data = SOUND["zip"]
    start = data.index(b"PK\x01\x02")
    flips = [changed(data, [(at, 1 << at % 8)]) for at in range(start, len(data))]
    refused_or_harmless(*reader.read_all(flips))


SIMPLE = b"()]}N.012t\x85\x86\x87RQbsueald\x81\x92\x8f\x90\x91\x88\x89\x94o\x93\x97\x98"
OPCODES: list[bytes] = [
    *(bytes([b]) for b in SIMPLE), *(bytes([b]) for b in b"RQbt(}]sua" * 2), b"q\x00", b"q\x01", b"h\x00", b"h\x01",
    b"j\x00\x00\x00\x00", b"r\x01\x00\x00\x00", b"g0\n", b"p1\n", b"K\x00", b"K\x0c", b"J\xff\xff\xff\xff",
    b"\x8a\x01\x04", b"\x8a\x09" + b"\x00" * 8 + b"\x01", b"G" + bytes(8), b"I5\n", b"L5L\n", b"\x80\x02", b"\x80\x05",
    code("w"), code("storage"), code("0"), code("cpu"), code("torch"), code("FloatStorage"), code(b"ab"),
    code((3, 4)), code((4, 1)), code(ZIP.pid()), code(ZIP.pid()) + PERSID, ORDERED, NO_HOOKS,
    named("torch._utils._rebuild_tensor_v2"), named("torch._utils._rebuild_parameter"), named("torch.Size"),
    named("torch.FloatStorage"), named("os.mkdir"), ZIP.tensor(), code({"w": ZIP.tensor()}), b"ios\nmkdir\n",
    b"Pa\n", b"\x82\xf0", b"\x96" + struct.pack("<Q", 1) + b"a", b"\x95" + bytes(8), code("executed"), b"S'a'\n", b"Va\n",
]  # fmt: skip


@pytest.mark.parametrize("framing", FRAMINGS)
def test_any_sequence_of_opcodes(framing: str, reader: Reader) -> None:
    f = FRAMINGS[framing]

    @FUZZ
    @given(
        st.lists(
            st.lists(st.sampled_from(OPCODES), min_size=1, max_size=30), min_size=10, max_size=10
        )
    )
    def run(programs: list[list[bytes]]) -> None:
        files = [f.file(b"\x80\x04" + b"".join(opcodes) + STOP) for opcodes in programs]
        for opcodes, outcome in zip(programs, reader.read_all(files), strict=True):
            assert outcome.misbehaviour() == []
            assert outcome.error or STOP in opcodes or named("os.mkdir") not in opcodes

    run()


@settings(FUZZ, max_examples=150)
@given(data=st.binary(max_size=300), start=st.sampled_from([b"", b"\x80\x02", b"PK\x03\x04", b"\x01" + bytes(7) + b"{",
                                                            b"".join(PREAMBLE), PREAMBLE[0], b"\x80\x04\x95"]))  # fmt: skip
def test_noise(data: bytes, start: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "noise.pt"
    path.write_bytes(start + data)
    with pytest.raises(npylstm.NpylstmError):
        read_checkpoint(path)


@settings(FUZZ, max_examples=150)
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-1, 50)
        | st.floats()
        | st.sampled_from(["F32", "F16", "w", ""]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["dtype", "shape", "data_offsets", "w", "__metadata__"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_any_header_of_safetensors(tmp_path_factory: pytest.TempPathFactory, header: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "header.safetensors"
    for document in (
        header,
        {"w": header},
        {"w": W, "v": header},
        {"__metadata__": header, "w": W},
    ):
        path.write_bytes(safe(document))
        with contextlib.suppress(npylstm.NpylstmError):
            found = read_checkpoint(path).tensors
            assert "w" in found
            assert found["w"].nbytes in (48, 96)
