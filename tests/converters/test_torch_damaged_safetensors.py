"""Damaged and odd safetensors files."""

from __future__ import annotations

import json
import struct

import pytest
from hostile_reader import PLAIN, Reader, refused, refused_or_harmless
from torch_pickles import SAFE, W, one, safe


def two(first: list[int], second: list[int], shape: tuple[int, ...] = (6,)) -> bytes:
    entries = {
        k: W | {"shape": list(shape), "data_offsets": at} for k, at in [("w", first), ("v", second)]
    }
    return safe(entries)


SAFETENSORS: dict[str, bytes] = {
    "half a length": SAFE[:4],
    "only a length": SAFE[:8],
    "length 0": safe(b"", length=0),
    "length of 2^63": safe({"w": W}, length=1 << 63),
    "length of 2^64 - 1": safe({"w": W}, length=(1 << 64) - 1),
    "length of 2^31": safe({"w": W}, length=1 << 31),
    "length to the end": safe({"w": W}, length=len(SAFE)),
    "length one less": SAFE[:0] + struct.pack("<Q", len(SAFE) - 8 - 48 - 1) + SAFE[8:],
    "length one more": struct.pack("<Q", len(SAFE) - 8 - 48 + 1) + SAFE[8:],
    "header empty text": safe(b'""'),
    "header a list": safe(b"[]" + b" " * 60),
    "header null": safe(b"null"),
    "header a number": safe(b"3"),
    "header cut": safe(json.dumps({"w": W}).encode()[:-1]),
    "header twice": safe(json.dumps({"w": W}).encode() * 2),
    "header not JSON": safe(b"{w: 3}" + b" " * 60),
    "header of quotes": safe(repr({"w": W}).encode()),
    "header not UTF-8": safe(b'{"\xff": ' + json.dumps(W).encode() + b"}"),
    "header in UTF-16": safe(json.dumps({"w": W}).encode("utf-16")),
    "header very deep": safe(b'{"w":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "header very deep, of objects": safe(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "header of a long number": safe(b'{"w": ' + b"9" * 100_000 + b"}"),
    "header with nan": safe(b'{"w": NaN}'),
    "names twice": safe(b'{"w": %s, "w": %s}' % ((json.dumps(W).encode(),) * 2)),
    "fields twice": safe(b'{"w": {"dtype": "F64", "dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]}}'),
    "metadata twice": safe(b'{"__metadata__": {}, "__metadata__": {}, "w": %s}' % json.dumps(W).encode()),
    "tensor a list": safe({"w": [3]}),
    "tensor null": safe({"w": None}),
    "tensor a text": safe({"w": "F32"}),
    "tensor empty": safe({"w": {}}),
    "no type": one(dtype=...),
    "no shape": one(shape=...),
    "no place": one(data_offsets=...),
    "type a number": one(dtype=3),
    "type null": one(dtype=None),
    "type a list": one(dtype=["F32"]),
    "type an object": one(dtype={}),
    "wider type": one(dtype="F64"),
    "narrower type": one(dtype="F16"),
    "bytes": one(dtype="U8"),
    "shape a number": one(shape=12),
    "shape null": one(shape=None),
    "shape a text": one(shape="34"),
    "shape an object": one(shape={"3": 4}),
    "shape of floats": one(shape=[3.0, 4.0]),
    "shape of texts": one(shape=["3", "4"]),
    "shape of nulls": one(shape=[None]),
    "shape of lists": one(shape=[[3], [4]]),
    "shape of true": one(shape=[True, 12]),
    "shape negative": one(shape=[-3, -4]),
    "shape negative and none": one(shape=[0, -4]),
    "shape larger": one(shape=[4, 4]),
    "shape smaller": one(shape=[2, 4]),
    "shape none": one(shape=[0]),
    "no axes": one(shape=[]),
    "shape of 2^64 + 3": one(shape=[(1 << 64) + 3, 4]),
    "shape overflows to 0": safe({"w": W | {"shape": [1 << 32, 1 << 32], "data_offsets": [0, 0]}}, b""),
    "shape overflows to 12": one(shape=[(1 << 62) + 3, 4]),
    "bytes overflow to 48": one(shape=[(1 << 62) + 12]),
    "shape of 5,000 digits": one(shape=[10**4200, 4]),
    "shape of 2^29": one(shape=[1 << 29], data_offsets=[0, 1 << 31]),
    "place a number": one(data_offsets=48),
    "place null": one(data_offsets=None),
    "place of one": one(data_offsets=[48]),
    "place of three": one(data_offsets=[0, 48, 48]),
    "place of floats": one(data_offsets=[0.0, 48.0]),
    "place of texts": one(data_offsets=["0", "48"]),
    "place negative": one(data_offsets=[-48, 0]),
    "place negative from the end": one(data_offsets=[0, -1]),
    "place backwards": one(data_offsets=[48, 0]),
    "place beyond": one(data_offsets=[48, 96]),
    "place partly beyond": one(data_offsets=[1, 49]),
    "place of 2^64": one(data_offsets=[1 << 64, (1 << 64) + 48]),
    "place of 4,000 digits": one(data_offsets=[0, 10**4200]),
    "place in the header": one(data_offsets=[-8, 40]),
    "shorter by a byte": SAFE[:-1],
    "longer by a byte": SAFE + b"a",
    "longer by a number": SAFE + b"abcd",
    "longer by a file": SAFE * 2,
    "overlapping": two([0, 24], [12, 36]),
    "overlapping wholly": two([0, 24], [0, 24]),
    "a hole": two([0, 20], [28, 48], (5,)),
    "a hole at the start": one(shape=[11], data_offsets=[4, 48]),
    "a hole at the end": one(shape=[11], data_offsets=[0, 44]),
}  # fmt: skip


@pytest.mark.parametrize("name", SAFETENSORS)
def test_damaged_safetensors(name: str, reader: Reader) -> None:
    refused(reader.row(SAFETENSORS.items, name), "FormatError")


@pytest.mark.parametrize(
    "dtype",
    ["f32", "F33", "", "float32", "F8_E4M3", "F8_E5M2", "U16", "U64", "C64", "O", "<f4", "F32 "],
)
def test_element_types_of_safetensors_that_are_not_read(dtype: str, reader: Reader) -> None:
    for size in (1, 2, 4, 8):
        outcome = reader.read(one(dtype=dtype, shape=[48 // size]))
        assert outcome.misbehaviour() == []
        if not outcome.error:  # of a size to compare, and of whole numbers
            assert dtype in ("U16", "U64", "C64")
    refused(reader.read(one(dtype=dtype)))


def test_odd_safetensors(reader: Reader) -> None:
    assert reader.read(SAFE).tensors == PLAIN
    header = json.dumps({"w": W}).encode()
    names = ("\ud800", "\x1b[2J", "__metadata__x", "../w", "a" * 9999, "")
    metadata = ([], 3, {"a": 3}, {"a": {"b": {}}}, {}, None)
    refused_or_harmless(*reader.read_all(safe({"__metadata__": data, "w": W}) for data in metadata))
    refused_or_harmless(*reader.read_all([one(stride=[1, 4]), one(data_offsets=[False, 48])]))
    for data in (safe(header + b" " * 7), safe(b" " + header), safe(header + b"\n"), safe(header + b"\x00"),
                 safe({"w": W, "__metadata__": {}}), safe({"w": W, "v": W | {"shape": [0], "data_offsets": [48, 48]}}),
                 *(safe({name: W}) for name in names)):  # fmt: skip
        outcome = reader.read(data)
        assert outcome.misbehaviour() == []
        if not outcome.error:
            assert outcome.tensors
            assert next(iter(outcome.tensors.values())) == PLAIN["w"]
