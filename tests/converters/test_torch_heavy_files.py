"""Small values of pickles that would grow, and large files of nothing, are cheap to read or refuse."""

from __future__ import annotations

import itertools
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hostile_reader import PLAIN, Reader, refused, refused_or_harmless
from torch_pickles import (
    BUILD,
    DATA,
    FRAMINGS,
    MB,
    NO_HOOKS,
    ORDERED,
    PERSID,
    PREAMBLE,
    REDUCE,
    SAFE,
    SOUND_LEGACY,
    ZIP,
    Framing,
    Ops,
    archive,
    around,
    call,
    code,
    deep_dict,
    joined,
    laughs,
    members,
    plain,
    program,
    raw_zip,
    stack_named,
    tower,
)


def deep_tuple(depth: int) -> Ops:
    return Ops(b")" + b"\x85" * depth)


def deep_list(depth: int) -> Ops:
    return Ops(b"]" * depth + b"a" * (depth - 1))


def itself(opcode: bytes, item: bytes) -> Ops:
    """A list or dict that holds itself."""
    return Ops(opcode + b"r\x00\x10\x00\x00" + item)


CYCLES = {
    "list": itself(b"]", b"j\x00\x10\x00\x00a"),
    "dict": itself(b"}", code("self") + b"j\x00\x10\x00\x00s"),
    "ordered dict": itself(call(ORDERED), code("self") + b"j\x00\x10\x00\x00s"),
    "list in a tuple": itself(b"]", b"j\x00\x10\x00\x00\x85a"),
    "two lists": Ops(b"]r\x00\x10\x00\x00]r\x01\x10\x00\x00j\x00\x10\x00\x00aa"),
    "state": itself(b"}", b"j\x00\x10\x00\x00" + code({"__class__": 3}) + b"b0"),
}
HEAVY: dict[str, Any] = {
    "laughs of tuples": laughs(), "laughs of lists": laughs(opcode=b"]"), "laughs of texts": laughs("a" * 9999),
    "tower": tower({}), "tuples 5,000 deep": deep_tuple(5_000), "lists 5,000 deep": deep_list(5_000),
    "dicts 5,000 deep": deep_dict(5_000, 3), **{f"cycle of a {k}": v for k, v in CYCLES.items()},
    "a long number": 1 << 2_000_000, "a long text": "a" * MB, "an odd text": "\x1b[2J\ud800" * 9999,
}  # fmt: skip
PLACES: dict[str, Callable[[Framing, Any], bytes]] = {
    "beside": lambda f, x: program({"model": f.state(), "x": x}),
    "beside a tensor": lambda f, x: program({"w": f.tensor(), "x": x}),
    "alone": lambda f, x: program(x),
    "key": lambda f, x: program({"model": f.state(), x: 3}),
    "key twice": lambda f, x: program({"model": f.state(), "x": Ops(b"}(" + (code(x) + code(3)) * 2 + b"u")}),
    "key in a set": lambda f, x: program({"model": f.state(), "x": joined(b"\x8f(", code(x), b"\x90")}),
    "key in a frozen set": lambda f, x: program({"model": f.state(), "x": joined(b"(", code(x), b"\x91")}),
    "key in a tuple": lambda f, x: program({"model": f.state(), (x, 3): 3}),
    "key of a tensor": lambda f, x: program({x: f.tensor()}),
    "id": lambda f, x: program({"w": f.tensor(storage=joined(code(x), PERSID))}),
    "kind": lambda f, x: program({"w": f.tensor(kind=x)}),
    "storage's key": lambda f, x: program({"w": f.tensor(key=x)}),
    "location": lambda f, x: program({"w": f.tensor(location=x)}),
    "count": lambda f, x: program({"w": f.tensor(count=x)}),
    "word": lambda f, x: program({"w": f.tensor(word=x)}),
    "size": lambda f, x: program({"w": f.tensor(size=x)}),
    "sizes": lambda f, x: program({"w": f.tensor(size=(x, x))}),
    "stride": lambda f, x: program({"w": f.tensor(stride=x)}),
    "offset": lambda f, x: program({"w": f.tensor(offset=x)}),
    "storage": lambda f, x: program({"w": f.tensor(storage=Ops(code(x)))}),
    "hooks": lambda f, x: program({"w": f.tensor(rest=(x, x))}),
    "metadata": lambda f, x: program({"w": f.tensor(rest=(False, NO_HOOKS, x))}),
    "function": lambda f, x: program({"model": f.state(), "x": joined(code(x), b")R")}),
    "arguments": lambda f, x: program({"model": f.state(), "x": joined(ORDERED, code(x), REDUCE)}),
    "argument": lambda f, x: program({"model": f.state(), "x": call(ORDERED, x)}),
    "sizes of torch": lambda f, x: program({"model": f.state(), "x": call("torch.Size", x)}),
    "refused argument": lambda f, x: program({"model": f.state(), "x": call("net.Net", x)}),
    "build": lambda f, x: program({"model": f.state(), "x": joined(call(ORDERED), code(x), BUILD)}),
    "refused build": lambda f, x: program({"model": f.state(), "x": joined(call("net.Net"), code(x), BUILD)}),
    "module": lambda f, x: program({"model": f.state(), "x": stack_named(x, "a")}),
    "name": lambda f, x: program({"model": f.state(), "x": stack_named("a", x)}),
}  # fmt: skip


def heavy_files() -> Iterator[tuple[Any, bytes]]:
    for (name, value), (place, made) in itertools.product(HEAVY.items(), PLACES.items()):
        yield (name, place), ZIP.file(made(ZIP, value))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", HEAVY)
def test_heavy_values_anywhere(name: str, place: str, reader: Reader) -> None:
    """Whoever hashes, compares, copies, prints or walks them in full never comes back."""
    outcome = reader.row(heavy_files, (name, place), trace=False)
    assert outcome.misbehaviour() == []
    if not outcome.error:
        assert outcome.tensors is not None
        assert [*outcome.tensors.values()] == [*PLAIN.values()]


AROUND: dict[str, Callable[[Any], bytes]] = {
    "magic": lambda x: around(magic=x), "version": lambda x: around(version=x),
    "machine": lambda x: around(machine=x), "keys": lambda x: around(keys=x), "key": lambda x: around(keys=[x]),
}  # fmt: skip


def heavy_around() -> Iterator[tuple[Any, bytes]]:
    for (name, value), (place, made) in itertools.product(HEAVY.items(), AROUND.items()):
        yield (name, place), made(value)


@pytest.mark.parametrize("place", AROUND)
@pytest.mark.parametrize("name", HEAVY)
def test_heavy_values_around_the_legacy_pickle(name: str, place: str, reader: Reader) -> None:
    outcome = reader.row(heavy_around, (name, place), trace=False)
    assert outcome.misbehaviour() == []
    if place in ("magic", "keys", "key"):
        refused(outcome, "FormatError")


ZEROS = bytes(MB)

SPARSE: dict[str, bytes] = {  # what stands before three gigabytes of nothing
    "nothing": b"",
    "zip": b"PK\x03\x04",
    "legacy": b"".join(PREAMBLE),
    "pickle": b"\x80\x02",
    "text of nothing": b"".join(PREAMBLE) + b"\x80\x04\x8d" + struct.pack("<Q", 2 << 30),
    "bytes of nothing": b"".join(PREAMBLE) + b"\x80\x04\x8e" + struct.pack("<Q", 2 << 30),
    "long of nothing": b"".join(PREAMBLE) + b"\x80\x02\x8b" + struct.pack("<i", (1 << 31) - 1),
    "line of nothing": b"".join(PREAMBLE) + b"\x80\x02V",
    "line of a number": b"".join(PREAMBLE) + b"\x80\x02I",
    "magic of nothing": b"\x80\x02\x8b" + struct.pack("<i", (1 << 31) - 1),
    "header of nothing": struct.pack("<Q", 2 << 30) + b'{"w": ',
    "sound safetensors": SAFE,
    "sound legacy": SOUND_LEGACY,
}


@pytest.mark.parametrize("name", SPARSE)
def test_three_gigabytes_of_nothing(name: str, reader: Reader, tmp_path: Path) -> None:
    path = tmp_path / "large.pt"
    path.write_bytes(SPARSE[name])
    os.truncate(path, 3 << 30)
    if name == "sound legacy":  # torch does not mind what comes behind
        refused_or_harmless(reader.read(path))
    else:
        refused(reader.read(path), "FormatError")


def test_texts_of_nothing(reader: Reader, tmp_path: Path) -> None:
    """Fifty texts of 16 MB, none of which is on the disk."""
    path, size = tmp_path / "large.pt", 16 * MB - 5
    with open(path, "wb") as stream:
        stream.write(b"".join(PREAMBLE) + b"\x80\x04](")
        for _ in range(50):
            stream.write(b"X" + struct.pack("<I", size))
            stream.seek(size, os.SEEK_CUR)
        stream.write(b"e.")
    refused(reader.read(path))


@pytest.mark.parametrize("framing", FRAMINGS)
def test_storages_that_nobody_asks_for_are_not_read(
    framing: str, reader: Reader, tmp_path: Path
) -> None:
    """Two thirds of a checkpoint are the optimizer's. Here, a gigabyte that is not on the disk."""
    f, path, size = FRAMINGS[framing], tmp_path / "large.pt", 1 << 30
    large = f.tensor((size // 4,), (1,), key="1", count=size // 4)
    pickled = program({"model": f.state(), "optimizer": [large]})
    with open(path, "wb") as stream:
        if framing == "legacy":
            stream.write(b"".join(PREAMBLE) + pickled + program(["0", "1"], 2))
            stream.write(struct.pack("<q", 12) + DATA + struct.pack("<q", size // 4))
            stream.truncate(stream.tell() + size)
        else:
            parts = {name: plain(data) for name, data in members(archive(pickled)).items()}
            checksum = 0
            for _ in range(size // MB):
                checksum = zlib.crc32(ZEROS, checksum)
            listed = raw_zip(parts | {"archive/data/1": (zipfile.ZIP_STORED, checksum, size, b"")})
            start = listed.index(b"PK\x01\x02")
            directory = bytearray(listed[start:])
            place = bytes(directory).index(b"archive/data/1") - 46
            struct.pack_into("<L", directory, place + 20, size)
            end = len(directory) - 22
            struct.pack_into("<L", directory, end + 16, start + size)
            local = bytearray(listed[:start])
            struct.pack_into("<L", local, local.index(b"archive/data/1") - 12, size)
            stream.write(local)
            stream.seek(size, os.SEEK_CUR)
            stream.write(directory)
    if framing == "zip":
        with zipfile.ZipFile(path) as sound, sound.open("archive/data/1") as member:
            assert member.read(9) == bytes(9)
    outcome = reader.read(path)
    assert outcome.misbehaviour() == []
    assert outcome.tensors == PLAIN


def test_paths_that_are_no_files(reader: Reader, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    paths = [tmp_path / name for name in (".", "none", "loop", "pipe")]
    for path in (*paths, Path("/dev/zero"), Path("/dev/null")):
        outcome = reader.read(path, patience=10)  # seconds: whoever opens a pipe waits
        if "OSError" not in outcome.error:
            refused(outcome)
        assert outcome.seconds < 1
        assert outcome.megabytes < 50
