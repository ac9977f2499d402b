"""Tensors of PyTorch files whose fields contradict each other are refused."""

from __future__ import annotations

import itertools
import random
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hostile_reader import PLAIN, Reader, refused
from torch_pickles import (
    DATA,
    FRAMINGS,
    LEGACY,
    LONG,
    MB,
    NO_HOOKS,
    NONE,
    ORDERED,
    PERSID,
    ZIP,
    Ops,
    call,
    code,
    joined,
    legacy,
    named,
    program,
)

LIES: dict[str, dict[str, Any]] = {
    "count of 2^60": {"count": 1 << 60},
    "count of 2^60, all seen": {"count": 1 << 60, "size": (1 << 60,), "stride": (1,)},
    "count of 2^29, all seen": {"count": 1 << 29, "size": (1 << 29,), "stride": (1,)},
    "count of 2^62": {"count": 1 << 62},
    "count of 2^64 + 12": {"count": (1 << 64) + 12},
    "count of 2^62 + 12": {"count": (1 << 62) + 12},
    "count of 20,000 digits": {"count": LONG},
    "count negative": {"count": -12},
    "count zero": {"count": 0},
    "count one more": {"count": 13},
    "count one less": {"count": 11, "size": (11,), "stride": (1,)},
    "count a float": {"count": 12.5},
    "count nan": {"count": float("nan")},
    "count a text": {"count": "12"},
    "count none": {"count": None},
    "count a list": {"count": [12]},
    "count a tensor": {"count": ZIP.tensor()},
    "doubles": {"kind": named("torch.DoubleStorage")},
    "longs": {"kind": named("torch.LongStorage")},
    "kind a text": {"kind": "FloatStorage"},
    "kind none": {"kind": None},
    "kind a number": {"kind": 4},
    "kind a list": {"kind": []},
    "kind a function": {"kind": named("torch._utils._rebuild_tensor_v2")},
    "kind a class": {"kind": ORDERED},
    "kind an ordered dict": {"kind": NO_HOOKS},
    "key of no data": {"key": "1"},
    "key empty": {"key": ""},
    "key a path": {"key": "../data/0"},
    "key a root": {"key": "/etc/passwd"},
    "key of many": {"key": "0" * MB},
    "key of half a character": {"key": "\ud800"},
    "key of a null": {"key": "0\x00"},
    "key of codes": {"key": "\x1b[2J"},
    "key none": {"key": None},
    "key a list": {"key": []},
    "key a dict": {"key": {}},
    "key a tuple": {"key": ("0",)},
    "key of 20,000 digits": {"key": LONG},
    "word another": {"word": "Storage"},
    "word none": {"word": None},
    "word a list": {"word": []},
    "word a number": {"word": LONG},
    "word empty": {"word": ""},
    "offset one": {"offset": 1},
    "offset at the end": {"offset": 12},
    "offset beyond": {"offset": 13, "size": (), "stride": ()},
    "offset negative": {"offset": -1},
    "offset negative, all there": {"offset": -4, "size": (2, 4)},
    "offset of -2^63": {"offset": -(1 << 63)},
    "offset of 2^62": {"offset": 1 << 62},
    "offset of 2^64": {"offset": 1 << 64},
    "offset of 20,000 digits": {"offset": LONG},
    "offset a float": {"offset": 0.5},
    "offset a text": {"offset": "0"},
    "offset none": {"offset": None},
    "offset a list": {"offset": []},
    "one row more": {"size": (4, 4)},
    "one column more": {"size": (3, 5)},
    "one number more": {"size": (13,), "stride": (1,)},
    "rows negative": {"size": (-3, 4)},
    "columns negative": {"size": (3, -4)},
    "both negative": {"size": (-3, -4)},
    "one negative of none": {"size": (0, -4)},
    "size of 2^62": {"size": (1 << 62,), "stride": (1,)},
    "size of 2^63": {"size": (1 << 63,), "stride": (1,)},
    "size of 2^64 + 3": {"size": ((1 << 64) + 3, 4)},
    "size of 20,000 digits": {"size": (LONG, 4)},
    "size overflows to 0": {"size": (1 << 32, 1 << 32), "stride": (1, 1)},
    "size overflows to 12": {"size": ((1 << 62) + 3, 4), "stride": (4, 1)},
    "product of steps of 0 overflows": {"size": (1 << 32, 1 << 32), "stride": (0, 0)},
    "size of steps of 0 of 2^64": {"size": (1 << 64,), "stride": (0,)},
    "step too wide": {"stride": (5, 1)},
    "step of columns too wide": {"stride": (4, 2)},
    "step negative": {"stride": (-4, 1)},
    "step negative from the end": {"stride": (-4, 1), "offset": 8},
    "step of -1 from the end": {"size": (12,), "stride": (-1,), "offset": 11},
    "steps that even out": {"size": (3, 4), "stride": (-4, 4)},
    "step of 2^62": {"stride": (1 << 62, 1)},
    "step that overflows to 0": {"size": (5, 4), "stride": (1 << 62, 1)},
    "bytes that overflow to 0": {"size": (5, 4), "stride": (1 << 60, 1)},
    "step of -2^63": {"stride": (-(1 << 63), 1)},
    "step of 20,000 digits": {"stride": (LONG, 1)},
    "fewer steps": {"stride": (4,)},
    "more steps": {"stride": (4, 1, 1)},
    "no steps": {"stride": ()},
    "no size": {"size": ()},
    "size a number": {"size": 12, "stride": 1},
    "size none": {"size": None},
    "size a text": {"size": "34", "stride": "41"},
    "size bytes": {"size": b"\x03\x04", "stride": b"\x04\x01"},
    "size a dict": {"size": {3: 0, 4: 0}},
    "size of floats": {"size": (3.0, 4.0)},
    "size of nan": {"size": (float("nan"), 4)},
    "size of texts": {"size": ("3", "4")},
    "size of none": {"size": (None, None)},
    "size of tuples": {"size": ((3,), (4,))},
    "step none": {"stride": None},
    "step of floats": {"stride": (4.0, 1.0)},
    "step of texts": {"stride": ("4", "1")},
    "storage none": {"storage": Ops(NONE)},
    "storage a number": {"storage": Ops(code(0))},
    "storage a text": {"storage": Ops(code("0"))},
    "storage bytes": {"storage": Ops(code(DATA))},
    "storage a dict": {"storage": Ops(b"}")},
    "storage an id": {"storage": Ops(code(ZIP.pid()))},
    "storage a class": {"storage": named("torch.FloatStorage")},
    "storage an ordered dict": {"storage": NO_HOOKS},
    "storage a tensor": {"storage": ZIP.tensor()},
    "id none": {"storage": Ops(NONE + PERSID)},
    "id a text": {"storage": Ops(code("storage") + PERSID)},
    "id a number": {"storage": Ops(code(LONG) + PERSID)},
    "id a list": {"storage": Ops(code(list(ZIP.pid())) + PERSID)},
    "id a dict": {"storage": Ops(code({}) + PERSID)},
    "id a tensor": {"storage": Ops(ZIP.tensor() + PERSID)},
    "id empty": {"storage": Ops(b")" + PERSID)},
    "id of a word": {"storage": Ops(code(("storage",)) + PERSID)},
    "id of four": {"storage": Ops(code(ZIP.pid()[:4]) + PERSID)},
    "id of nine": {"storage": Ops(code((*ZIP.pid(), None, None, None, None)) + PERSID)},
    "id by line": {"storage": Ops(b"Pstorage\n")},
    "id by line of nothing": {"storage": Ops(b"P\n")},
    "id of a module": {"storage": Ops(code(("module", ORDERED, "a.py", "import os")) + PERSID)},
    "parameter of a storage": {"function": "torch._utils._rebuild_parameter"},
}  # fmt: skip


def liars() -> Iterator[tuple[Any, bytes]]:
    for (name, made), (framing, f) in itertools.product(LIES.items(), FRAMINGS.items()):
        yield (name, framing), f.file(program({"w": f.tensor(**made)}))


def liars_beside() -> Iterator[tuple[Any, bytes]]:
    for (name, made), (framing, f) in itertools.product(LIES.items(), FRAMINGS.items()):
        yield (name, framing), f.file(program(f.state(v=f.tensor(**made))))


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("name", LIES)
def test_tensors_that_lie(name: str, framing: str, reader: Reader) -> None:
    refused(reader.row(liars, (name, framing)), "FormatError")
    refused(reader.row(liars_beside, (name, framing)), "FormatError")


DOUBTFUL: dict[str, dict[str, Any]] = {  # torch might take these: refused, or of the shape they say
    "none of 2^62": {"size": (0, 1 << 62), "stride": (1, 1)},
    "none of many": {"size": (1 << 40, 0, 1 << 40), "stride": (1, 1, 1)},
    "none, from afar": {"size": (0,), "stride": (1,), "offset": 1 << 62},
    "none, steps of 2^62": {"size": (0, 3), "stride": (1 << 62, 1 << 62)},
    "one, step of 2^62": {"size": (1,), "stride": (1 << 62,)},
    "many of one": {"size": (1 << 20, 1 << 20), "stride": (0, 0)},
    "many of four": {"size": (1 << 40, 4), "stride": (0, 1)},
    "64 axes": {"size": (1,) * 64, "stride": (1,) * 64},
    "65 axes": {"size": (1,) * 65, "stride": (1,) * 65},
    "20,000 axes": {"size": (1,) * 20_000, "stride": (1,) * 20_000},
    "64 axes of 2": {"size": (2,) * 64, "stride": (0,) * 64},
    "axes of true": {"size": (True, True), "stride": (True, True)},
    "axes of whole floats": {"size": (1.0,), "stride": (1.0,)},
}


@pytest.mark.parametrize("kind", ["Float", "Half"])
@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("name", DOUBTFUL)
def test_tensors_that_are_odd(name: str, framing: str, kind: str, reader: Reader) -> None:
    f = FRAMINGS[framing]
    count = 12 if kind == "Float" else 24
    tensor = f.tensor(**DOUBTFUL[name], kind=named(f"torch.{kind}Storage"), count=count)
    data = DATA if framing == "zip" or kind == "Float" else None
    made = f.file(program({"w": tensor}), DATA)
    if data is None:  # 24 halves in the 48 bytes
        made = legacy(program({"w": tensor}), data=struct.pack("<q", 24) + DATA)
    outcome = reader.read(made)
    assert outcome.misbehaviour() == []
    if not outcome.error:
        assert outcome.tensors
        assert outcome.tensors["w"][1] == list(DOUBTFUL[name]["size"])


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_lie_does_not_vouch_for_another_tensor(framing: str, reader: Reader) -> None:
    """Much shown of little is measured by what the file holds, not by what others claim."""
    f = FRAMINGS[framing]
    many = {"size": (1 << 14, 1 << 14), "stride": (0, 0)}
    for lie in (
        {"count": 1 << 60},
        {"count": 1 << 60, "key": "1"},
        {"count": 1 << 60, "key": "data"},
    ):
        for other in ({}, {"size": (0,), "stride": (1,)}, {"size": (1 << 60,), "stride": (1,)}):
            tensors = [("v", f.tensor(**many)), ("w", f.tensor(**{**other, **lie}))]
            for order in (tensors, tensors[::-1]):
                refused(reader.read(f.file(program(dict(order)))))


def test_one_storage_of_two_kinds(reader: Reader) -> None:
    """Torch refuses to write that, and reads it as whatever came first."""
    for f in FRAMINGS.values():
        other = f.tensor(kind=named("torch.IntStorage"))
        outcome = reader.read(f.file(program({"w": f.tensor(), "v": other})))
        assert outcome.misbehaviour() == []
        if not outcome.error:
            assert outcome.tensors
            assert outcome.tensors["w"] == PLAIN["w"]


# How NumPy sees the types that the third form of a tensor may name, and how many fit 48 bytes.
TYPES = {"float32": "<f4", "float64": "<f8", "float16": "<f2", "bfloat16": "<u2", "int64": "<i8",
         "int32": "<i4", "int16": "<i2", "int8": "i1", "uint8": "u1", "bool": "?"}  # fmt: skip
STORAGES = {"torch.FloatStorage": 12, "torch.HalfStorage": 24, "torch.BFloat16Storage": 24,
            "torch.LongStorage": 6, "torch.BoolStorage": 48, "torch.storage.UntypedStorage": 48}  # fmt: skip


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_type_that_is_not_of_the_storage(framing: str, name: str, reader: Reader) -> None:
    """The third form of a tensor says its type itself: as torch sees those bytes, or refused."""
    f, kind = FRAMINGS[framing], TYPES[name]
    cases, made = list(itertools.product(STORAGES.items(), (0, 1))), []
    data = b"\x01\x00" * 24  # in every type a number, and a truth
    for (storage, count), offset in cases:
        size = 48 // np.dtype(kind).itemsize - offset
        tensor = f.tensor(
            (size,), (1,), offset, kind=named(storage), count=count,
            function="torch._utils._rebuild_tensor_v3",
            rest=(False, NO_HOOKS, named(f"torch.{name}"), None),
        )  # fmt: skip
        pickled = program({"w": tensor})
        stored = struct.pack("<q", count) + data
        made.append(f.file(pickled, data) if framing == "zip" else legacy(pickled, data=stored))
    for ((storage, _), offset), outcome in zip(cases, reader.read_all(made), strict=True):
        assert outcome.misbehaviour() == []
        if not outcome.error:
            assert outcome.tensors
            plain = np.frombuffer(data, kind)[offset:]
            if name == "bfloat16":
                plain = (plain.astype("u4") << 16).view("f4")
            assert (
                outcome.tensors["w"][2]
                == plain.astype("f4" if name == "float16" else plain.dtype).tolist()
            ), storage


NASTY: list[Any] = [
    None, True, False, 0, 1, -1, 2, 12, 1 << 31, 1 << 63, -(1 << 63), 1 << 64, LONG, 0.5, 3.0, "", "0",
    "storage", "a/b", "\ud800", b"", b"0", (), (0,), (3, 4), (1, 1), (1 << 40, 1 << 40), ((),), [], [1], {},
    {"a": 1}, ORDERED, NO_HOOKS, named("torch.FloatStorage"), named("torch.ByteStorage"),
    named("torch.BFloat16Storage"), call("torch.Size", (3, 4)), ZIP.tensor(),
    joined(code(ZIP.pid()), PERSID), joined(code(LEGACY.pid()), PERSID), Ops(b"\x8f"),
]  # fmt: skip
FIELDS = ("kind", "key", "location", "count", "word", "size", "stride", "offset", "storage", "rest")


@pytest.mark.parametrize("framing", FRAMINGS)
def test_any_two_fields_replaced(framing: str, reader: Reader) -> None:
    f, rng, made = FRAMINGS[framing], random.Random(11), []
    todo = [(field, value) for field in FIELDS for value in range(len(NASTY))]
    for field, value in todo:
        also, other = rng.choice(todo)
        fields = {field: NASTY[value], **({also: NASTY[other]} if rng.random() < 0.3 else {})}
        if "rest" in fields:
            fields["rest"] = (fields["rest"], NASTY[other])
        if "storage" in fields:
            fields["storage"] = joined(code(fields["storage"]), PERSID * rng.choice([0, 1]))
        made.append(f.file(program({"w": f.tensor(**fields)})))
    outcomes = zip(made, reader.read_all(made), strict=True)
    assert [(data, found) for data, outcome in outcomes if (found := outcome.misbehaviour())] == []
