"""PyTorch and safetensors files that would cost much time or memory are cheap to read or refuse."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hostile_reader import PLAIN, Reader, refused, refused_or_harmless
from torch_pickles import (
    BUILD,
    FRAMINGS,
    MB,
    NONE,
    ORDERED,
    PERSID,
    PICKLED,
    REDUCE,
    SOUND,
    ZIP,
    Framing,
    Ops,
    Pickled,
    archive,
    call,
    code,
    deep_dict,
    joined,
    laughs,
    legacy,
    members,
    named,
    one,
    plain,
    program,
    raw_zip,
    safe,
    stack_named,
    tower,
    whole,
)


def memoized(value: Any, index: int = 500) -> bytes:
    return code(value) + b"r" + struct.pack("<I", index) + b"0"


def got(index: int = 500) -> Ops:
    return Ops(b"j" + struct.pack("<I", index))


def over_and_over(value: Any, item: Callable[[Ops], Any], count: int) -> bytes:
    """A program with one value that is used many times."""
    body = b"".join(code(f"t{k}") + code(item(got())) for k in range(count))
    return b"\x80\x04" + memoized(value) + b"}(" + body + b"u."


def views(f: Framing, kind: str) -> bytes:
    """A thousand tensors of one storage of 8 MB; widened or copied they take gigabytes."""
    count = 2 * MB if kind == "Float" else 4 * MB
    storage = joined(code(f.pid(kind=named(f"torch.{kind}Storage"), count=count)), PERSID)
    body = b"".join(
        code(f"t{k}") + f.tensor((count - k,), (1,), k, storage=got()) for k in range(1000)
    )
    pickled = b"\x80\x04" + memoized(storage) + b"}(" + body + b"u."
    if f.name == "zip":
        return f.file(pickled, bytes(8 * MB))
    return legacy(pickled, data=struct.pack("<q", count) + bytes(8 * MB))


def candidates(f: Framing) -> bytes:
    """Thirty thousand names of one state_dict of five thousand tensors."""
    entries = b"".join(code(f"t{k}") + got(501) for k in range(5000))
    state = Ops(b"}(" + entries + b"u")
    body = b"".join(code(f"c{k}") + got() for k in range(30_000))
    return b"\x80\x04" + memoized(f.tensor(), 501) + memoized(state) + b"}(" + body + b"u."


def nearly(f: Framing) -> bytes:
    """The same, but none is a state_dict: the last entry of each is a number."""
    entries = b"".join(code(f"t{k}") + got(501) for k in range(5000)) + code("last") + code(3)
    state = Ops(b"}(" + entries + b"u")
    body = b"".join(code(f"c{k}") + got() for k in range(30_000))
    return b"\x80\x04" + memoized(f.tensor(), 501) + memoized(state) + b"}(" + body + b"u."


def long_path(leaf: Any) -> Ops:
    """Twenty-five dictionaries, one in the other, with names of 1000 characters."""
    return Ops((b"}" + code("a" * 1000)) * 25 + code(leaf) + b"s" * 25)


def filler(opcode: bytes, count: int) -> Pickled:
    return lambda f: b"\x80\x04" + opcode * count + program(f.state())[2:]


BOMBS: dict[str, Pickled] = {  # pickles
    "empty lists": filler(b"]", 24 * MB),

    "marks": filler(b"(", 24 * MB),
    "a hundred thousand marks": filler(b"(", 100_000),
    "floats": filler(b"G" + bytes(8), 4 * MB),
    "texts": filler(b"X\x02\x00\x00\x00\xc3\xb6", 4 * MB),
    "tuples": filler(b"N\x85", 15 * MB),

    "put and get": filler(b"]\x940", 10 * MB),
    "marks and tuples on a long stack": lambda f: b"\x80\x04" + b"N" * 100_000 + b"(t0" * 100_000 + program(f.state())[2:],
    "pops to marks on a long stack": lambda f: b"\x80\x04" + b"N" * 100_000 + b"(1" * 100_000 + program(f.state())[2:],
    "marks closed": lambda f: b"\x80\x04" + b"(" * 100_000 + b"t" * 100_000 + b"0" + program(f.state())[2:],
    "ordered dicts of one list": lambda f: over_and_over(
        [*(Ops(code((f"k{k}", 3))) for k in range(20_000))], lambda x: call(ORDERED, x), 2000),
    "sizes of one tuple": lambda f: over_and_over((3,) * 20_000, lambda x: call("torch.Size", x), 20_000),
    "tensors of one long size": lambda f: over_and_over(
        (1,) * 20_000, lambda x: f.tensor(size=x, stride=x), 20_000),
    "builds of one dict": lambda f: over_and_over(
        {f"k{k}": 3 for k in range(20_000)}, lambda x: joined(call(ORDERED), x, BUILD), 2000),
    "sets of one list": lambda f: over_and_over([*range(20_000)], lambda x: call("builtins.set", x), 2000),
    "one text for a hundred thousand names": lambda f: over_and_over(
        "a" * MB, lambda x: stack_named(x, "b"), 1000),
    "a thousand names of a megabyte": lambda f: b"\x80\x04" + memoized("a" * MB) + b"".join(
        stack_named(got(), f"b{k}") + b"0" for k in range(1000)) + program(f.state())[2:],
    "thirty thousand names": lambda f: b"\x80\x04" + b"".join(
        named(f"os.system{k}") + b"0" for k in range(30_000)) + program(f.state())[2:],
    "a path 20,000 long": lambda f: program(deep_dict(20_000, f.state())),
    "a path of long names": lambda f: b"\x80\x04" + memoized("a" * 99_999) + b"".join(
        b"}" + got() for _ in range(900)) + code(f.state()) + b"s" * 900 + b".",
    "2^40 paths": lambda f: program(tower(f.state())),
    "2^40 paths to nothing": lambda f: program(tower(3)),
    "paths of 2^40 beside": lambda f: program({"model": f.state(), "x": tower({"w": 3})}),
    "a list of 2^40": lambda f: program({"model": f.state(), "x": laughs(f.state(), b"]", 40)}),
    "many candidates": candidates,
    "many that are nearly": nearly,
    "ordered dicts of one list, by their type": lambda f: over_and_over(
        [*(Ops(code((f"k{k}", 3))) for k in range(20_000))], lambda x: call(
            "torch._tensor._rebuild_from_type_v2", ORDERED, named("torch.Tensor"), (x,), {}), 2000),
    "one hundred thousand arguments": lambda f: over_and_over(
        (3,) * 100_000, lambda x: joined(named("torch.device"), x, REDUCE), 10_000),
    "integers of one hash for keys": lambda f: program(
        {"model": f.state(), "x": Ops(b"}(" + b"".join(
            whole(k * ((1 << 61) - 1)) + NONE for k in range(60_000)) + b"u")}),
    "integers of one hash in a set": lambda f: program(
        {"model": f.state(), "x": Ops(b"\x8f(" + b"".join(
            whole(k * ((1 << 61) - 1)) for k in range(60_000)) + b"\x90")}),
    "a long path to many": lambda f: program({"model": f.state(), "x": long_path(
        Ops(b"}(" + b"".join(code(f"{k}") + got() for k in range(60_000)) + b"u"))}).replace(
            b"\x80\x04", b"\x80\x04" + memoized([]), 1),
    "a long integer, pushed often": lambda f: over_and_over(1 << 80_000, lambda x: [x, x], 2000),
    "a long integer for each offset": lambda f: over_and_over(
        1 << 800_000, lambda x: f.tensor(offset=x, size=(x, x)), 2000),
}  # fmt: skip


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_cheap(name: str, framing: str, reader: Reader) -> None:
    f = FRAMINGS[framing]
    pickled = BOMBS[name](f)
    outcome = reader.read(f.file(pickled), trace=False)
    assert outcome.misbehaviour() == []
    if not outcome.error:
        assert outcome.tensors
        assert PLAIN["w"] in outcome.tensors.values()


@pytest.mark.parametrize("opcode", [b"]", b"}", b"\x8f", b"N\x85", b"]\x940", b"J\x00\x00\x00\x7f"])
def test_a_small_zip_of_a_long_pickle_is_cheap(opcode: bytes, reader: Reader) -> None:
    """Twelve megabytes of opcodes that deflate to as many kilobytes."""
    pickled = filler(opcode, 12 * MB // len(opcode))(ZIP)
    data = archive(pickled, method=zipfile.ZIP_DEFLATED)
    assert len(data) < MB // 8
    refused_or_harmless(reader.read(data, trace=False))


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("kind", ["Float", "Half", "BFloat16"])
def test_views_of_one_storage_are_cheap(kind: str, framing: str, reader: Reader) -> None:
    outcome = reader.read(views(FRAMINGS[framing], kind))
    assert outcome.misbehaviour() == []
    if not outcome.error:
        assert outcome.tensors
        assert len(outcome.tensors) == 1000


def zeros_deflated(count: int) -> bytes:
    """Deflate many zeros, one packed megabyte many times over."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    megabyte = packer.compress(bytes(MB)) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(bytes(MB)) + packer.flush(zlib.Z_FULL_FLUSH)
    return megabyte + again * (count // MB - 1) + packer.flush()


def zip_bomb(member: str, size: int, claimed: int | None = None, pickled: bytes = PICKLED) -> bytes:
    parts = {name: plain(data) for name, data in members(archive(pickled)).items()}
    packed = zeros_deflated(size)
    return raw_zip(
        parts | {f"archive/{member}": (8, 0, size if claimed is None else claimed, packed)}
    )


def of_floats(count: int) -> bytes:
    return program({"w": ZIP.tensor((count,), (1,), count=count)})


def nested_members(count: int, size_of_all: int) -> bytes:
    """Stored members, each within the one before, each nearly as large as the file."""
    tail = bytes(size_of_all)
    inner, places = tail, []
    for k in reversed(range(count)):
        name = f"archive/data/{k}".encode()
        size = len(inner)
        header = struct.pack(
            "<4s5H3L2H", b"PK\x03\x04", 20, 0, 0, 0, 33, zlib.crc32(inner), size, size, len(name), 0
        )
        places.append((name, zlib.crc32(inner), size, len(inner)))
        inner = header + name + inner
    tensors = {
        f"t{k}": ZIP.tensor((size // 4,), (1,), key=name.decode().removeprefix("archive/data/"),
                            kind=named("torch.ByteStorage"), count=size)
        for k, (name, _, size, _) in enumerate(places)
    }  # fmt: skip
    pickled, directory, body = program(tensors), io.BytesIO(), io.BytesIO()
    name = b"archive/data.pkl"
    common = struct.pack(
        "<5H3L2H", 20, 0, 0, 0, 33, zlib.crc32(pickled), len(pickled), len(pickled), len(name), 0
    )
    body.write(b"PK\x03\x04" + common + name + pickled)
    directory.write(b"PK\x01\x02\x14\x00" + common + struct.pack("<3H2L", 0, 0, 0, 0, 0) + name)
    start = body.tell()
    body.write(inner)
    for name, checksum, size, behind in places:
        at = start + len(inner) - behind - 30 - len(name)
        common = struct.pack("<5H3L2H", 20, 0, 0, 0, 33, checksum, size, size, len(name), 0)
        directory.write(
            b"PK\x01\x02\x14\x00" + common + struct.pack("<3H2L", 0, 0, 0, 0, at) + name
        )
    listed = directory.getvalue()
    end = struct.pack(
        "<4s4H2LH", b"PK\x05\x06", 0, 0, count + 1, count + 1, len(listed), body.tell(), 0
    )
    return body.getvalue() + listed + end


ZIP_BOMBS: dict[str, Callable[[], bytes]] = {
    "data": lambda: zip_bomb("data/0", 2048 * MB, pickled=of_floats(512 * MB)),
    "data of a lying size": lambda: zip_bomb("data/0", 2048 * MB, 48),
    "data of a size that suits": lambda: zip_bomb(
        "data/0", 1024 * MB, 2048 * MB, of_floats(512 * MB)
    ),
    "pickle": lambda: zip_bomb("data.pkl", 2048 * MB),
    "pickle of a lying size": lambda: zip_bomb("data.pkl", 1024 * MB, 500),
    "byte order": lambda: zip_bomb("byteorder", 2048 * MB),
    "byte order of a lying size": lambda: zip_bomb("byteorder", 1024 * MB, 6),
    "version": lambda: zip_bomb("version", 2048 * MB),
    "members in members": lambda: nested_members(150, 4 * MB),
    "a few members in members": lambda: nested_members(14, 32 * MB),
    "a million members": lambda: raw_zip(
        {n: plain(d) for n, d in members(SOUND["zip"]).items()}, 150_000
    ),
}


@pytest.mark.parametrize("name", ZIP_BOMBS)
def test_a_zip_bomb_is_cheap(name: str, reader: Reader) -> None:
    outcome = reader.read(ZIP_BOMBS[name]())
    if name == "version":  # nobody needs to read it
        refused_or_harmless(outcome)
    else:
        refused(outcome, "FormatError")


def fat(entries: int) -> bytes:
    """JSON that takes thirty times as much in memory."""
    return b'{"w":[' + b'{"":0},' * entries + b"0]}"


SAFE_BOMBS: dict[str, Callable[[], bytes]] = {
    "fat header": lambda: safe(fat(5 * MB)),
    "fat header of 3 MB": lambda: safe(fat(MB // 2)),
    "fat metadata": lambda: safe(b'{"__metadata__":' + fat(5 * MB) + b"}"),
    "fat header of 30 MB": lambda: safe(fat(4 * MB)),
    "a hundred thousand axes": lambda: one(shape=[1] * 100_000 + [12]),
    "a hundred thousand axes, and none": lambda: one(shape=[1] * 100_000 + [0], data_offsets=[0, 0]),
    "axes of 4,000 digits": lambda: one(shape=[10**4000] * 700),
    "axes of 4,000 digits and none": lambda: one(shape=[*[10**4000] * 700, 0]),
    "a header of spaces": lambda: safe(b"{" + b" " * (60 * MB) + b"}"),
    "one place five thousand times": lambda: safe(
        {f"t{k}": {"dtype": "F16", "shape": [2 * MB], "data_offsets": [0, 4 * MB]} for k in range(5_000)}, bytes(4 * MB)),
}  # fmt: skip


@pytest.mark.parametrize("name", SAFE_BOMBS)
def test_a_safetensors_bomb_is_cheap(name: str, reader: Reader) -> None:
    refused(reader.read(SAFE_BOMBS[name]()), "FormatError")
