"""Hostile PyTorch files, written opcode by opcode.

A pickle is a program. Ours are written opcode by opcode (see the comments of ``pickletools``) and
put where ``torch.save`` puts its own.
"""

from __future__ import annotations

import io
import itertools
import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

MB = 1 << 20


class Ops(bytes):
    """Opcodes, to stand in a value as they are."""


MARK, STOP, NONE, REDUCE, BUILD, PERSID = b"(", b".", b"N", b"R", b"b", b"Q"


def whole(number: int) -> bytes:
    """LONG1 or LONG4, of any length."""
    data = number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
    short = len(data) < 256
    return (
        b"\x8a" + bytes([len(data)]) if short else b"\x8b" + struct.pack("<i", len(data))
    ) + data


def code(value: Any) -> bytes:
    """Opcodes that push a value."""
    match value:
        case Ops():
            return bytes(value)
        case bool():
            return b"\x88" if value else b"\x89"
        case None:
            return NONE
        case int():
            return whole(value)
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            data = value.encode("utf-8", "surrogatepass")
            return b"X" + struct.pack("<I", len(data)) + data
        case bytes():
            return b"B" + struct.pack("<I", len(value)) + value
        case tuple():
            return MARK + b"".join(map(code, value)) + b"t"
        case list():
            return b"](" + b"".join(map(code, value)) + b"e"
        case dict():
            return b"}(" + b"".join(map(code, itertools.chain(*value.items()))) + b"u"
    raise TypeError(value)


def named(path: str) -> Ops:
    """GLOBAL: the thing of a name, such as ``os.system``."""
    module, _, name = path.rpartition(".")
    return Ops(b"c" + module.encode() + b"\n" + name.encode() + b"\n")


def stack_named(module: Any, name: Any) -> Ops:
    """STACK_GLOBAL: module and name are values."""
    return Ops(code(module) + code(name) + b"\x93")


def call(function: Any, *arguments: Any) -> Ops:
    """REDUCE: call a thing."""
    thing = named(function) if isinstance(function, str) else function
    return Ops(code(thing) + code(arguments) + REDUCE)


def joined(*parts: bytes) -> Ops:
    return Ops(b"".join(parts))


def program(value: Any, protocol: int = 4) -> bytes:
    return b"\x80" + bytes([protocol]) + code(value) + STOP


NUMBERS = np.arange(12, dtype="<f4") - 3.5
DATA = NUMBERS.tobytes()
FLOATS = named("torch.FloatStorage")
ORDERED = named("collections.OrderedDict")
NO_HOOKS = call(ORDERED)


class Framing:
    """One of the two ways in which PyTorch wraps its pickles."""

    def __init__(self, name: str) -> None:
        self.name = name

    def pid(
        self, kind: Any = FLOATS, key: Any = "0", location: Any = "cpu",
        count: Any = 12, word: Any = "storage",
    ) -> tuple[Any, ...]:  # fmt: skip
        """The persistent id of a storage; that of legacy files ends with its view."""
        return (word, kind, key, location, count, *([None] if self.name == "legacy" else []))

    def tensor(
        self, size: Any = (3, 4), stride: Any = (4, 1), offset: Any = 0, storage: Any = None,
        function: str = "torch._utils._rebuild_tensor_v2", rest: tuple[Any, ...] = (False, NO_HOOKS),
        **pid: Any,
    ) -> Ops:  # fmt: skip
        if storage is None:
            storage = joined(code(self.pid(**pid)), PERSID)
        return call(function, storage, offset, size, stride, *rest)

    def state(self, **others: Any) -> dict[str, Any]:
        return {"w": self.tensor(), **others}

    def file(self, pickled: bytes, data: bytes = DATA) -> bytes:
        return self.files(pickled, {"0": data})

    def files(self, pickled: bytes, data: Mapping[str, bytes]) -> bytes:
        if self.name == "zip":
            return archive(pickled, {f"data/{key}": part for key, part in data.items()})
        stored = [struct.pack("<q", len(part) // 4) + part for part in data.values()]
        return legacy(pickled, program(list(data), 2), b"".join(stored))


def saved(thing: Any, framing: str = "zip") -> bytes:
    stream = io.BytesIO()
    torch.save(thing, stream, _use_new_zipfile_serialization=framing == "zip")
    return stream.getvalue()


def members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as zipped:
        return {name: zipped.read(name) for name in zipped.namelist()}


def zipped(parts: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as target:
        for name, data in parts.items():
            target.writestr(name, data)
    return stream.getvalue()


SOUND_ZIP = saved({"w": torch.from_numpy(NUMBERS.reshape(3, 4).copy())})
SOUND_LEGACY = saved({"w": torch.from_numpy(NUMBERS.reshape(3, 4).copy())}, "legacy")
PREAMBLE = (program(0x1950A86A20F9469CFC6C, 2), program(1001, 2), program(
    {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}, 2
))  # fmt: skip


def archive(
    pickled: bytes | None = None, others: Mapping[str, bytes | None] | None = None,
    method: int = zipfile.ZIP_STORED,
) -> bytes:  # fmt: skip
    """What torch.save made, with another ``data.pkl`` or other members; None: left out."""
    parts: dict[str, bytes | None] = dict(members(SOUND_ZIP))
    if pickled is not None:
        parts["archive/data.pkl"] = pickled
    parts |= {f"archive/{name}": data for name, data in (others or {}).items()}
    return zipped({name: data for name, data in parts.items() if data is not None}, method)


def legacy(
    pickled: bytes, keys: bytes | None = None, data: bytes | None = None,
    preamble: tuple[bytes, ...] = PREAMBLE,
) -> bytes:  # fmt: skip
    """Five pickles, then the storages, each after its count of elements."""
    keys = program(["0"], 2) if keys is None else keys
    data = struct.pack("<q", 12) + DATA if data is None else data
    return b"".join(preamble) + pickled + keys + data


ZIP, LEGACY = Framing("zip"), Framing("legacy")
FRAMINGS = {"zip": ZIP, "legacy": LEGACY}
SOUND = {name: f.file(program(f.state())) for name, f in FRAMINGS.items()}
MKDIR = call("os.mkdir", "executed")

Pickled = Callable[[Framing], bytes]

LONG = 1 << 66_000  # Python refuses to print it

PICKLED = members(SOUND["zip"])["archive/data.pkl"]


def around(**changes: Any) -> bytes:
    """A legacy file whose magic number, version, machine or list of storages is another."""
    values: dict[str, Any] = {"keys": ["0"]} | changes
    preamble = [program(values[name], 2) if name in values else PREAMBLE[k]
                for k, name in enumerate(["magic", "version", "machine"])]  # fmt: skip
    return legacy(program(LEGACY.state()), program(values["keys"], 2), preamble=tuple(preamble))


W = {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]}


def safe(header: Any, data: bytes = DATA, length: int | None = None) -> bytes:
    """8 bytes of length, then JSON, then numbers."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def one(**changes: Any) -> bytes:
    """Of one tensor, with other entries; ``...``: left out."""
    return safe({"w": {k: v for k, v in (W | changes).items() if v is not ...}})


SAFE = safe({"__metadata__": {"format": "pt"}, "w": W})


def laughs(leaf: Any = 3, opcode: bytes = b"\x86", levels: int = 60, base: int = 1000) -> Ops:
    """A pair of a pair of a pair ..., each pair twice the same: 2^levels leaves in 700 bytes."""

    def get(k: int) -> bytes:
        return b"j" + struct.pack("<I", base + k)

    def put(k: int) -> bytes:
        return b"r" + struct.pack("<I", base + k) + b"0"

    before, after = (b"", opcode) if opcode == b"\x86" else (opcode + b"(", b"e")
    parts = [code(leaf), put(0)]
    for k in range(levels):
        parts += [before, get(k), get(k), after, put(k + 1)]
    return joined(*parts, get(levels))


def tower(leaf: Any, levels: int = 40) -> Ops:
    """Dicts that hold the next under two names: 2^levels paths."""
    parts = [code(leaf), b"r\x00\x10\x00\x000"]
    for k in range(levels):
        get = b"j" + struct.pack("<I", 0x1000 + k)
        parts += [
            b"}(",
            code("a"),
            get,
            code("b"),
            get,
            b"ur" + struct.pack("<I", 0x1001 + k) + b"0",
        ]
    return joined(*parts, b"j" + struct.pack("<I", 0x1000 + levels))


def deep_dict(depth: int, leaf: Any) -> Ops:
    return Ops((b"}" + code("a")) * depth + code(leaf) + b"s" * depth)


def raw_zip(parts: Mapping[str, tuple[int, int, int, bytes]], copies: int = 1) -> bytes:
    """Members given packed: method, checksum, size, bytes; the list of them many times over."""
    body, directory = io.BytesIO(), io.BytesIO()
    for name, (method, checksum, size, content) in parts.items():
        at, encoded = body.tell(), name.encode()
        common = struct.pack(
            "<5H3L2H", 20, 0, method, 0, 33, checksum, len(content), size, len(encoded), 0
        )
        body.write(b"PK\x03\x04" + common + encoded + content)
        directory.write(b"PK\x01\x02\x14\x00" + common)
        directory.write(struct.pack("<3H2L", 0, 0, 0, 0, at) + encoded)
    listed = directory.getvalue() * copies
    count = min(len(parts) * copies, 65_535)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, len(listed), body.tell(), 0)
    return body.getvalue() + listed + end


def plain(data: bytes) -> tuple[int, int, int, bytes]:
    return zipfile.ZIP_STORED, zlib.crc32(data), len(data), data
