"""Model files that are small and expand to much: refusing them is cheap."""

from __future__ import annotations

import bz2
import io
import itertools
import json
import random
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from npz_files import (
    MB,
    SPEC,
    Entry,
    Maker,
    Members,
    assert_one_line,
    json_npy,
    npy,
    small_model,
    spec_of,
    stored,
    write_members,
    write_zip,
)

import npylstm


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> Members:
    """All members of a small sound model file."""
    path = tmp_path_factory.mktemp("small") / "model.npz"
    npylstm.save(small_model(), path)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def deflated(name: str, head: bytes, zeros: int, noise: int = 0) -> Entry:
    """A deflated member: ``head``, then noise that keeps the ratio low, then zeros.

    The checksum is left wrong: it is known only when all has been unpacked.
    """
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = packer.compress(head + random.Random(0).randbytes(noise))
    data += packer.flush(zlib.Z_FULL_FLUSH)
    megabyte = packer.compress(bytes(MB)) + packer.flush(zlib.Z_FULL_FLUSH)
    data += megabyte * (zeros // MB) + packer.flush()
    return Entry(name, data, len(head) + noise + zeros // MB * MB, zipfile.ZIP_DEFLATED)


def array_head(shape: tuple[int, ...], dtype: str = "<f4") -> bytes:
    stream = io.BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue()


# --- bombs: what refusing costs, in a process of its own ----------------------------------------

METER = """
import json, os, sys
import numpy, npylstm_converters.keras
from npylstm.cli import main

def peak():  # ru_maxrss would begin with the peak of the process that started this one
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) / 1024 for line in status if "VmHWM" in line)
    except FileNotFoundError:
        import resource
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

def seconds():  # of the processor: the clock would measure how busy the machine is
    return sum(os.times()[:4])

before, start = peak(), seconds()
if sys.argv[1] == "waste":
    status = len(bytes(b"x") * (200 << 20)) and 2
else:
    status = main(sys.argv[1:])
print(json.dumps([status, peak() - before, seconds() - start]))
"""


def cost(*arguments: str) -> tuple[int, str, float, float]:
    """Status, stderr, megabytes and seconds of a command."""
    done = subprocess.run(
        [sys.executable, "-c", METER, *arguments], capture_output=True, text=True, timeout=20
    )
    assert done.stdout, done.stderr
    status, megabytes, seconds = json.loads(done.stdout.splitlines()[-1])
    return status, done.stderr, megabytes, seconds


def replacing(name: str, entry: Callable[[Members], Entry]) -> Maker:
    """A sound file, but for one member."""

    def make(members: Members, path: Path) -> None:
        entries = [stored(n, d) for n, d in members.items() if n != name]
        write_zip(path, [*entries, entry(members)])

    return make


def lying_bzip2(members: Members) -> Entry:
    data = bz2.compress(array_head((3, 4)) + bytes(150 * MB))
    return Entry("layer_0/W_i.npy", data, 176, zipfile.ZIP_BZIP2)


def long_header(members: Members) -> Entry:
    head = b"\x93NUMPY\x02\x00" + struct.pack("<I", 400 * MB)
    return deflated("layer_0/W_i.npy", head, 400 * MB)


def wide_model(members: Members, path: Path) -> None:
    """A model whose weights fit its spec, unpack to 800 MB, and end with a key too many."""
    document = spec_of(members)
    document["layers"] = [
        {"name": "dense", "kind": "dense", "config": {"features": 100 * MB, "units": 1}}
    ]
    document["inputs"][0]["shape"] = ["batch", 100 * MB]
    document["edges"] = [{"layer": "dense", "inputs": ["x"], "outputs": ["y"]}]
    document["outputs"] = ["y"]
    kernel = deflated("dense/kernel.npy", array_head((100 * MB, 1)), 392 * MB, 8 * MB)
    entries = [stored(SPEC, json_npy(document)), kernel]
    entries += [stored(f"{n}.npy", npy(np.ones(1, "f4"))) for n in ("dense/bias", "extra")]
    write_zip(path, entries)


def many_cases(members: Members, path: Path) -> None:
    """Sixty arrays below the size that is looked at, 900 MB together."""
    entries = [stored(n, d) for n, d in members.items()]
    head = array_head((15 * MB // 12, 1, 3))
    data = head + bytes(15 * MB // 12 * 12)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(data) + packer.flush()
    one = Entry("", packed, len(data), zipfile.ZIP_DEFLATED, zlib.crc32(data))
    entries += [one._replace(name=f"case/{k}/input/x.npy") for k in range(1, 61)]
    write_zip(path, entries)


def many_members(members: Members, path: Path) -> None:
    entries = [stored(n, d) for n, d in members.items()]
    write_zip(path, entries + [Entry(f"{k:x}", b"", 0, local=False) for k in range(250_000)])


def many_members_disguised(members: Members, path: Path) -> None:
    """The same, and the end record's offset reads like the signature of an end record."""
    many_members(members, path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-6] + b"PK\x05\x06" + whole[-2:])


def fat_json(members: Members, path: Path) -> None:
    """JSON of 15 MB that takes thirty times as much in memory."""
    text = b'{"format_version": [' + b'{"":0},' * (15 * MB // 7) + b"0]}"
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = npy(np.frombuffer(text, np.uint8))
    packed = packer.compress(data) + packer.flush()
    write_zip(path, [Entry(SPEC, packed, len(data), zipfile.ZIP_DEFLATED, zlib.crc32(data))])


def many_layers(members: Members, path: Path) -> None:
    document = spec_of(members)
    layers = [{"name": f"l{k}", "kind": "identity", "config": {}} for k in range(30_000)]
    write_members(path, members | {SPEC: json_npy(document | {"layers": layers})})


def growing_shapes(members: Members, path: Path) -> None:
    """Each layer makes the name of an unknown size longer."""
    document = spec_of(members)
    kinds = [("reshape", {"target_shape": [-1, 1]}), ("flatten", {})] * 10_000
    document["layers"] = [
        {"name": f"l{k}", "kind": kind, "config": config} for k, (kind, config) in enumerate(kinds)
    ]
    tensors = ["x", *(f"l{k}" for k in range(len(kinds)))]
    document["edges"] = [
        {"layer": name, "inputs": [source], "outputs": [name]}
        for source, name in itertools.pairwise(tensors)
    ]
    document["outputs"] = ["none"]
    write_members(path, {SPEC: json_npy(document)})


BOMBS: dict[str, Maker] = {
    "weights": replacing("layer_0/W_i.npy", lambda m: deflated(
        "layer_0/W_i.npy", array_head((3, 4)), 2048 * MB)),
    "weights, honest header": replacing("layer_0/W_i.npy", lambda m: deflated(
        "layer_0/W_i.npy", array_head((512 * MB,)), 2048 * MB)),
    "weights, low ratio": wide_model,
    "spec": replacing(SPEC, lambda m: deflated(SPEC, array_head((2048 * MB,), "|u1"), 2048 * MB)),
    "spec, low ratio": replacing(SPEC, lambda m: deflated(
        SPEC, array_head((404 * MB,), "|u1"), 400 * MB, 4 * MB)),
    "case": replacing("case/0/input/x.npy", lambda m: deflated(
        "case/0/input/x.npy", array_head((MB, 128, 4)), 2048 * MB)),
    "unasked for": replacing("extra.npy", lambda m: deflated(
        "extra.npy", array_head((512 * MB,)), 2048 * MB)),
    "array header": replacing("layer_0/W_i.npy", long_header),
    "bzip2 of a lying size": replacing("layer_0/W_i.npy", lying_bzip2),
    "many cases": many_cases,
    "many members": many_members,
    "many members, disguised": many_members_disguised,
    "fat json": fat_json,
    "many layers": many_layers,
    "growing shapes": growing_shapes,
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.one_in(2)
def test_a_bomb_is_cheap_to_refuse(name: str, members: Members, tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    BOMBS[name](members, path)
    assert path.stat().st_size < 25 * MB
    status, stderr, megabytes, seconds = cost("verify", str(path))
    assert_one_line(status, stderr)
    assert megabytes < 100
    assert seconds < 5


def test_the_meter_sees_waste() -> None:
    status, _, megabytes, _ = cost("waste")
    assert status == 2
    assert megabytes > 150
