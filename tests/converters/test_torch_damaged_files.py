"""Damaged and odd zips and legacy files of PyTorch."""

from __future__ import annotations

import io
import random
import struct
import warnings
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest
from hostile_reader import Reader, refused, refused_or_harmless
from torch_pickles import (
    DATA,
    FRAMINGS,
    LEGACY,
    LONG,
    MB,
    MKDIR,
    NUMBERS,
    PERSID,
    PICKLED,
    PREAMBLE,
    SOUND,
    SOUND_LEGACY,
    SOUND_ZIP,
    Framing,
    archive,
    around,
    code,
    joined,
    legacy,
    members,
    program,
    zipped,
)


def entry(name: bytes, at: int, value: bytes) -> bytes:
    """Change a field of the central directory's entry of a member of the sound zip."""
    start = SOUND["zip"].rindex(name) - 46
    assert SOUND["zip"][start : start + 4] == b"PK\x01\x02"
    return SOUND["zip"][: start + at] + value + SOUND["zip"][start + at + len(value) :]


def twice(name: str, first: bytes, second: bytes) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w") as target:
        warnings.simplefilter("ignore")
        for key, data in members(SOUND["zip"]).items():
            for part in (first, second) if key == name else (data,):
                target.writestr(key, part)
    return stream.getvalue()


OTHER = (NUMBERS + 1).tobytes()
ZIPS: dict[str, tuple[bytes, str]] = {  # name: the file, the error
    "magic only": (b"PK\x03\x04", "FormatError"),
    "magic and noise": (b"PK\x03\x04" + random.Random(0).randbytes(999), "FormatError"),
    "an empty zip": (zipped({}), "FormatError"),
    "no pickle": (archive(None, {"data.pkl": None}), "FormatError"),
    "no data": (archive(None, {"data/0": None}), "FormatError"),
    "no data, but elsewhere": (zipped({**members(archive(None, {"data/0": None})), "other/data/0": DATA}), "FormatError"),
    "data empty": (archive(None, {"data/0": b""}), "FormatError"),
    "data short by a byte": (archive(None, {"data/0": DATA[:-1]}), "FormatError"),
    "data short by a number": (archive(None, {"data/0": DATA[:-4]}), "FormatError"),
    "data long by a byte": (archive(None, {"data/0": DATA + b"a"}), "FormatError"),
    "data long by a number": (archive(None, {"data/0": DATA + DATA[:4]}), "FormatError"),
    "data twice as long": (archive(None, {"data/0": DATA * 2}), "FormatError"),
    "pickle empty": (archive(b""), "FormatError"),
    "pickle of text": (archive(b"import torch\n" * 9), "FormatError"),
    "pickle is a zip": (archive(SOUND_ZIP), "FormatError"),
    "pickle is JSON": (archive(b'{"w": 3}'), "FormatError"),
    "byte order unknown": (archive(None, {"byteorder": b"middle"}), "FormatError"),
    "byte order empty": (archive(None, {"byteorder": b""}), "FormatError"),
    "byte order not text": (archive(None, {"byteorder": b"\xff\xfe"}), "FormatError"),
    "byte order long": (archive(None, {"byteorder": b"little" * MB}), "FormatError"),
    "two archives": (zipped({**members(SOUND["zip"]), "b/data.pkl": PICKLED, "b/data/0": OTHER}), "NpylstmError"),
    "two pickles": (twice("archive/data.pkl", PICKLED, program(MKDIR)), "FormatError"),
    "two pickles the other way": (twice("archive/data.pkl", program(MKDIR), PICKLED), "FormatError"),
    "two data": (twice("archive/data/0", DATA, OTHER), "FormatError"),
    "two byte orders": (twice("archive/byteorder", b"little", b"big"), "FormatError"),
    "checksum of data": (entry(b"archive/data/0", 16, b"abcd"), "FormatError"),
    "checksum of pickle": (entry(b"archive/data.pkl", 16, b"abcd"), "FormatError"),
    "a number changed": (SOUND["zip"].replace(DATA, OTHER), "FormatError"),
    "a name in the pickle changed": (SOUND["zip"].replace(PICKLED, PICKLED.replace(b"_v2", b"_v3")), "FormatError"),
    "encrypted": (entry(b"archive/data/0", 8, b"\x01\x00"), "NpylstmError"),
    "packed unknown": (entry(b"archive/data/0", 10, b"\x63\x00"), "NpylstmError"),
    "packed, so it says": (entry(b"archive/data/0", 10, b"\x08\x00"), "FormatError"),
    "data of 4 GB": (entry(b"archive/data/0", 20, b"\xfe\xff\xff\xff" * 2), "FormatError"),
    "data of 2 GB": (entry(b"archive/data/0", 24, b"\x00\x00\x00\x80"), "FormatError"),
    "data packed to 2 GB": (entry(b"archive/data/0", 20, b"\x00\x00\x00\x80"), "FormatError"),
    "pickle packed to 2 GB": (entry(b"archive/data.pkl", 20, b"\x00\x00\x00\x80"), "FormatError"),
    "pickle of 2 GB": (entry(b"archive/data.pkl", 24, b"\x00\x00\x00\x80"), "FormatError"),
    "data packed to nothing": (entry(b"archive/data/0", 20, bytes(4)), "FormatError"),
    "data smaller": (entry(b"archive/data/0", 20, struct.pack("<2L", 44, 44)), "FormatError"),
    "data of a size to come": (entry(b"archive/data/0", 20, b"\xff" * 8), "FormatError"),
    "data elsewhere": (entry(b"archive/data/0", 42, b"\x00\x00\x00\x00"), "FormatError"),
    "data beyond the end": (entry(b"archive/data/0", 42, b"\xff\xff\xff\x7f"), "FormatError"),
    "pickle beyond the end": (entry(b"archive/data.pkl", 42, b"\xff\xff\xff\x7f"), "FormatError"),
    "name not text": (entry(b"archive/data/0", 46, b"\xff\xfe"), "FormatError"),
    "a name of nobody": (entry(b"archive/data/0", 46, b"another"), "FormatError"),
    "extra fields beyond": (entry(b"archive/data/0", 30, b"\xff\xff"), "FormatError"),
    "end: no entries": (SOUND["zip"][:-14] + bytes(4) + SOUND["zip"][-10:], "NpylstmError"),
    "end: directory of 4 GB": (SOUND["zip"][:-10] + b"\xfe\xff\xff\xff" + SOUND["zip"][-6:], "FormatError"),
    "end: directory elsewhere": (SOUND["zip"][:-6] + b"\xff\xff\xff\x7f" + SOUND["zip"][-2:], "FormatError"),
}  # fmt: skip


def zip_files() -> Iterator[tuple[Any, bytes]]:
    return ((name, data) for name, (data, _) in ZIPS.items())


@pytest.mark.parametrize("name", ZIPS)
def test_damaged_zip(name: str, reader: Reader) -> None:
    outcome, kind = reader.row(zip_files, name), ZIPS[name][1]
    if name == "end: no entries":  # zipfile does not look at the number
        refused_or_harmless(outcome)
    else:
        refused(outcome, kind)


ODD_ZIPS: dict[str, bytes] = {
    "deflated": archive(None, {}, zipfile.ZIP_DEFLATED),
    "bzip2": archive(None, {}, zipfile.ZIP_BZIP2),
    "lzma": archive(None, {}, zipfile.ZIP_LZMA),
    "no folder": zipped({k.removeprefix("archive/"): v for k, v in members(SOUND["zip"]).items()}),
    "two folders": zipped({f"a/{k}": v for k, v in members(SOUND["zip"]).items()}),
    "folder above": zipped({f"../{k}": v for k, v in members(SOUND["zip"]).items()}),
    "bytes before": b"#!/bin/sh\n" + SOUND["zip"],
    "bytes behind": SOUND["zip"] + b"\x00" * 99,
    "a comment": SOUND["zip"][:-2] + b"\x05\x00abcde",
    "version of the future": archive(None, {"version": b"99\n"}),
    "version of no sense": archive(None, {"version": b"\xff" * 99}),
    "no version": archive(None, {"version": None}),
    "more members": archive(None, {"notes.txt": b"a", "../../evil.py": b"import os", "data/": b""}),
    "data nobody needs": archive(None, {"data/1": DATA, "data/evil": b""}),
}


@pytest.mark.parametrize("name", ODD_ZIPS)
def test_odd_zip(name: str, reader: Reader) -> None:
    refused_or_harmless(reader.read(ODD_ZIPS[name]))


# --- legacy files -------------------------------------------------------------------------------------


def stored(count: int, data: bytes = DATA) -> bytes:
    return legacy(program(LEGACY.state()), data=struct.pack("<q", count) + data)


LEGACIES: dict[str, bytes] = {
    "another magic": around(magic=0x1950A86A20F9469CFC6D),
    "magic a text": around(magic="torch"),
    "magic of 20,000 digits": around(magic=LONG),
    "magic a list": around(magic=[]),
    "magic a list of itself": legacy(program(LEGACY.state()), preamble=(b"\x80\x02]q\x01h\x01a.", *PREAMBLE[1:])),
    "magic alone": PREAMBLE[0],
    "magic twice": PREAMBLE[0] + SOUND_LEGACY,
    "preamble alone": b"".join(PREAMBLE),
    "version of the future": around(version=1002),
    "version none": around(version=None),
    "version of 20,000 digits": around(version=LONG),
    "keys none": around(keys=None),
    "keys a number": around(keys=3),
    "keys empty": around(keys=[]),
    "keys of numbers": around(keys=[0]),
    "keys of lists": around(keys=[[]]),
    "keys unknown": around(keys=["1"]),
    "keys one more": around(keys=["0", "1"]),
    "no keys": b"".join(PREAMBLE) + program(LEGACY.state()),
    "keys of many": legacy(program(LEGACY.state()), program(["0"] * 100_000, 2)),
    "no data": stored(12, b""),
    "half a count": legacy(program(LEGACY.state()), data=b"\x0c\x00"),
    "data short by a byte": stored(12, DATA[:-1]),
    "data short by a number": stored(12, DATA[:-4]),
    "count of data one less": stored(11),
    "count of data one more": stored(13),
    "count of data one more, and there": stored(13, DATA + b"abcd"),
    "count of data 0": stored(0),
    "count of data -1": stored(-1),
    "count of data -12": stored(-12),
    "count of data 2^62": stored(1 << 62),
    "count of data 2^62 + 12": stored((1 << 62) + 12),
    "count of data 2^29": stored(1 << 29),
    "count of bytes": stored(48),
}  # fmt: skip


@pytest.mark.parametrize("name", LEGACIES)
def test_damaged_legacy_file(name: str, reader: Reader) -> None:
    refused(reader.row(LEGACIES.items, name), "FormatError")


def view(f: Framing, third: Any, data: bytes = DATA, **options: Any) -> bytes:
    """The sixth entry of a legacy id, (key, offset, size): a part of a storage, by torch 0.x."""
    count = len(data) // 4
    pid = (*f.pid(count=count)[:5], third)
    return f.file(program({"w": f.tensor(storage=joined(code(pid), PERSID), **options)}), data)


@pytest.mark.parametrize("framing", FRAMINGS)
def test_views_of_storages(framing: str, reader: Reader) -> None:
    """Two offsets add up: what looks into a storage must not look beyond it into our memory."""
    f = FRAMINGS[framing]
    refused_or_harmless(reader.read(view(f, ("0v", 0, 12))))
    beyond = [("0v", 1, 12), ("0v", 12, 12), ("0v", 11, 12), ("0v", 0, 13), ("0v", 0, 11), ("0v", -1, 12),
              ("0v", -12, 12), ("0v", 0, -1), ("0v", 1 << 62, 12), ("0v", -(1 << 62), 12), ("0v", 12, 0),
              ("0v", 0, 1 << 60), ("0v", LONG, 12), ("0v", 0.5, 12), ("0v", None, 12), ("0v", 0, "12")]  # fmt: skip
    for outcome in reader.read_all(view(f, third) for third in beyond):
        refused(outcome)
    large, everything = bytes(4 * MB), {"size": (MB,), "stride": (1,)}
    for outcome in reader.read_all(
        view(f, ("0v", start, count), large, **everything)
        for start, count in [(1, MB), (MB, MB), (MB // 2, MB), (1 << 40, MB), (MB, 1 << 30)]
    ):
        refused(outcome)
    odd = (3, (), ("0v",), ("0v", 0), "abc", [], {}, ("0v", 0, 12, 0), ([], 0, 12), (None, 0, 12))
    refused_or_harmless(*reader.read_all(view(f, third) for third in odd))


@pytest.mark.parametrize("framing", FRAMINGS)
def test_part_of_a_storage(framing: str, reader: Reader) -> None:
    """As torch.load reads it, or not at all."""
    f = FRAMINGS[framing]
    for start, count in [(0, 6), (6, 6), (1, 6), (2, 8)]:
        outcome = reader.read(view(f, ("0v", start, count), size=(2, 3), stride=(3, 1)))
        assert outcome.misbehaviour() == []
        if not outcome.error:
            part = NUMBERS[start : start + 6].reshape(2, 3).tolist()
            assert outcome.tensors == {"w": ["<f4", [2, 3], part]}


def test_odd_legacy_files(reader: Reader) -> None:
    twice = legacy(
        program(LEGACY.state()), program(["0", "0"], 2), (struct.pack("<q", 12) + DATA) * 2
    )
    odd = (
        twice, SOUND_LEGACY + b"\x00" * 99, SOUND_LEGACY * 2, around(machine={}), around(machine=None),
        around(machine={"little_endian": False}), around(machine=[LONG]), around(keys=("0",)),
        around(keys={"0": 3}), around(version=1001.0), around(version=True),
    )  # fmt: skip
    refused_or_harmless(*reader.read_all(odd))
