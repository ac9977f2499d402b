"""TensorFlow's checkpoints: checksums, tables, snappy, types of tensors, and damage."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from npylstm_converters.errors import Refusal
from npylstm_converters.tensorflow.checkpoint import open_checkpoint
from npylstm_converters.tensorflow.crc32c import crc32c, masked_crc32c
from npylstm_converters.tensorflow.snappy import decompress
from npylstm_converters.tensorflow.table import read_table
from tensorflow_layout import (
    compress,
    entry,
    field,
    fixed32,
    masked,
    slow_crc32c,
    table,
    varint,
    write,
)  # fmt: skip

from npylstm import FormatError, UnsupportedError

RNG = np.random.default_rng(4)


# --- checksums ------------------------------------------------------------------------------------
# From RFC 3720, B.4.
@pytest.mark.parametrize(
    ("data", "crc"),
    [
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b"", 0),
    ],
)
def test_published_checksums(data: bytes, crc: int) -> None:
    assert crc32c(data) == crc


# Around the length where strips begin, and with remainders behind them.
@pytest.mark.parametrize("length", [4095, 4096, 4097, 5001, 8192, 20_011])
def test_checksums_of_strips(length: int) -> None:
    data = RNG.bytes(length)
    assert crc32c(data) == slow_crc32c(data)
    assert crc32c(data[1000:], crc32c(data[:1000])) == crc32c(data)
    assert masked_crc32c(memoryview(data)) == masked(data)


def test_one_bit_in_megabytes_changes_the_checksum() -> None:
    data = bytearray(RNG.bytes(3_000_001))
    before = crc32c(bytes(data))
    data[2_345_678] ^= 1
    assert crc32c(bytes(data)) != before


# --- snappy ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("data", [b"", b"a", b"abcd" * 9, bytes(range(256)) * 2, b"ab" * 40])
def test_snappy_returns_what_was_compressed(data: bytes) -> None:
    assert decompress(memoryview(compress(data))) == data


def test_snappy_elements() -> None:
    """Literals with long lengths, copies with offsets of 1, 2 and 4 bytes, and overlaps."""
    text = bytes(range(70))
    literal = bytes([60 << 2, 69]) + text  # one byte of length
    short = bytes([1 | 0 << 2 | 0 << 5, 70])  # 4 bytes from 70 before
    medium = bytes([2 | 9 << 2]) + (2).to_bytes(2, "little")  # 10 bytes from 2 before
    wide = bytes([3 | 4 << 2]) + (80).to_bytes(4, "little")  # 5 bytes from 80 before
    expected = text + text[:4]
    expected += (expected[-2:] * 5)[:10]
    expected += expected[-80:][:5]
    data = varint(len(expected)) + literal + short + medium + wide
    assert decompress(memoryview(data)) == expected


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (varint(5) + b"\x00a", "expected 5 bytes, got 1"),
        (varint(1) + b"\x04ab", "expected 1 bytes, got 2"),
        (varint(9) + bytes([8 << 2]) + b"abc", "literal of 9 bytes is cut off"),
        (varint(9) + bytes([61 << 2, 1]), "the last element is cut off"),
        (varint(4) + bytes([1, 1]), "a copy from 1 bytes before, of 0"),
        (varint(5) + b"\x00a" + bytes([1, 0]), "a copy from 0 bytes before, of 1"),
        (varint(1 << 40) + b"\x00a", "cannot hold"),
    ],
)
def test_damaged_snappy(data: bytes, says: str) -> None:
    with pytest.raises(FormatError, match=says):
        decompress(memoryview(data))


# --- tables ---------------------------------------------------------------------------------------
ENTRIES = {f"layer-{k}/kernel".encode(): f"value {k}".encode() * k for k in range(20)}


@pytest.mark.parametrize("snappy", [False, True])
def test_tables(snappy: bool) -> None:
    found = dict(read_table(table(ENTRIES, snappy)))
    assert {key: bytes(value) for key, value in found.items()} == ENTRIES


@pytest.mark.parametrize("snappy", [False, True])
def test_no_flipped_bit_of_a_table_passes(snappy: bool) -> None:
    sound = table(ENTRIES, snappy)
    rng = random.Random(5)
    for _ in range(300):
        data = bytearray(sound)
        data[rng.randrange(len(sound))] ^= 1 << rng.randrange(8)
        try:
            found = {key: bytes(value) for key, value in read_table(bytes(data))}
        except FormatError:
            continue
        assert found == ENTRIES  # the block of metadata and padding, which nobody reads


def test_damaged_tables() -> None:
    sound = table({b"a": b"1", b"b": b"2"})
    for data, says in (
        (b"", "does not end as a table"),
        (sound[:-1], "does not end as a table"),
        (sound[-48:], "bytes are not there"),
        (sound[:3] + sound[4:], "bytes are not there"),
        (table({b"a": b"1"}, per_block=1).replace(b"a", b"b", 1), "checksum differs"),
    ):
        with pytest.raises(FormatError, match=says):
            list(read_table(data))


def test_a_block_that_is_listed_twice() -> None:
    """Each block may be read once, or a small file could ask for endless work."""
    from tensorflow_layout import MAGIC, block

    made = b""

    def add(data: bytes) -> bytes:
        nonlocal made
        handle = varint(len(made)) + varint(len(data))
        made += data + b"\0" + masked(data + b"\0").to_bytes(4, "little")
        return handle

    first = add(block([(b"a", b"1")]))
    footer = add(block([])) + add(block([(b"a", first), (b"b", first)]))
    data = made + footer + bytes(40 - len(footer)) + MAGIC
    with pytest.raises(FormatError, match="overlaps the one before"):
        list(read_table(data))


# --- tensors --------------------------------------------------------------------------------------
X = RNG.normal(size=(3, 4))
TYPES = {
    1: X.astype("<f4"), 2: X.astype("<f8"), 3: X.astype("<i4"), 4: X.astype("u1"),
    6: X.astype("i1"), 9: X.astype("<i8"), 10: X > 0, 19: X.astype("<f2"),
}  # fmt: skip


def test_types(tmp_path: Path) -> None:
    prefix = write(tmp_path / "ck", {f"v{kind}": (kind, x) for kind, x in TYPES.items()})
    found = open_checkpoint(str(prefix)).variables
    for kind, x in TYPES.items():
        variable = found[f"v{kind}"]
        assert variable.shape == (3, 4)
        assert variable.dtype == (np.float32 if kind == 19 else x.dtype)
        np.testing.assert_array_equal(variable.read(), x)


def test_bfloat16_is_widened_exactly(tmp_path: Path) -> None:
    halves = (X.astype("<f4").view("<u4") >> 16).astype("<u2")
    prefix = write(tmp_path / "ck", {"v": (14, halves)}, snappy=True)
    variable = open_checkpoint(str(prefix)).variables["v"]
    assert (variable.half, variable.dtype) == ("bfloat16", np.float32)
    np.testing.assert_array_equal(variable.read().view("<u4"), halves.astype("<u4") << 16)


def test_unknown_types_are_named_when_they_are_read(tmp_path: Path) -> None:
    prefix = write(tmp_path / "ck", {"table": (20, X), "v": (1, X.astype("<f4"))})
    variable = open_checkpoint(str(prefix)).variables["table"]
    with pytest.raises(Refusal, match="table: TensorFlow's type 20 is not supported"):
        variable.read()


def test_scalars_and_empty_arrays(tmp_path: Path) -> None:
    arrays = {"one": (1, np.float32(3)), "none": (1, np.zeros((0, 4), "<f4"))}
    found = open_checkpoint(str(write(tmp_path / "ck", arrays))).variables
    assert found["one"].read() == 3
    assert found["none"].read().shape == (0, 4)


def test_a_flipped_bit_of_the_data(tmp_path: Path) -> None:
    prefix = write(tmp_path / "ck", {"a": (1, X.astype("<f4")), "b": (1, X.astype("<f4"))})
    path = tmp_path / "ck.data-00000-of-00001"
    data = bytearray(path.read_bytes())
    data[50] ^= 4
    path.write_bytes(data)
    found = open_checkpoint(str(prefix)).variables
    np.testing.assert_array_equal(found["a"].read(), X.astype("<f4"))
    with pytest.raises(FormatError, match="checksum of b differs, so the file is damaged"):
        found["b"].read()


def rewrite(prefix: Path, entries: dict[bytes, bytes]) -> str:
    prefix.with_name(f"{prefix.name}.index").write_bytes(table(entries))
    return str(prefix)


def test_what_an_index_may_not_claim(tmp_path: Path) -> None:
    data = X.astype("<f4").tobytes()
    prefix = write(tmp_path / "ck", {"v": (1, X.astype("<f4"))})
    header = {b"": field(1, 1)}
    part = field(7, b"\x0a\x00")
    for entries, error, says in (
        ({}, FormatError, "no header"),
        ({b"": b""}, FormatError, "expected 1 to 99,999 files of data, got 0"),
        ({b"": field(1, 1) + field(2, 1)}, UnsupportedError, "ck.index: is big-endian"),
        (header | {b"v": entry(1, (3, 5), data)}, FormatError, "48 bytes do not fill shape"),
        (header | {b"v": entry(1, (3, 4), data, offset=4)}, FormatError, "expected 52 bytes"),
        (header | {b"v": entry(1, (3, 4), data, shard=1)}, FormatError, "file 1 of 1"),
        (header | {b"v": entry(1, (1,) * 33, data)}, FormatError, "up to 32 axes"),
        (header | {b"\xff": entry(1, (3, 4), data)}, FormatError, "expected UTF-8"),
        (header | {b"v": entry(1, (2**63, 2), data)}, FormatError, "do not fill shape"),
        (header | {b"v": field(1, 1) + part}, UnsupportedError, "several slices .*: v"),
        (header | dict.fromkeys((b"v", b"w"), entry(1, (3, 4), data)), FormatError, "w overlaps"),
        ({b"": field(1, 2), b"v": entry(1, (3, 4), data)}, FormatError, "of-00002: is missing"),
    ):
        with pytest.raises(error, match=says):
            open_checkpoint(rewrite(prefix, entries))


def test_a_short_file_of_data(tmp_path: Path) -> None:
    prefix = write(tmp_path / "ck", {"v": (1, X.astype("<f4"))})
    path = tmp_path / "ck.data-00000-of-00001"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FormatError, match="expected 48 bytes or more, for v, got 47"):
        open_checkpoint(str(prefix))


def test_the_object_graph_is_checked(tmp_path: Path) -> None:
    """A string: its length, a checksum of that, and the bytes; the entry has one of all."""
    text = b"graph of objects"
    size = len(text).to_bytes(4, "little")
    checksum = masked(size).to_bytes(4, "little")
    data = varint(len(text)) + checksum + text
    (tmp_path / "ck.data-00000-of-00001").write_bytes(data)
    sound = (
        field(1, 7)
        + field(2, b"")
        + field(5, len(data))
        + fixed32(6, masked(size + checksum + text))
    )
    key = b"_CHECKPOINTABLE_OBJECT_GRAPH"
    prefix = rewrite(tmp_path / "ck", {b"": field(1, 1), key: sound})
    assert open_checkpoint(prefix).objects == text
    for damaged in (b"G", b"\x11"):
        at = 0 if damaged == b"\x11" else 5
        (tmp_path / "ck.data-00000-of-00001").write_bytes(data[:at] + damaged + data[at + 1 :])
        with pytest.raises(FormatError, match="GRAPH"):
            open_checkpoint(prefix)


def test_two_files_of_data_as_tensorflow_writes_them(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    parts = []
    for k in range(2):
        part = str(tmp_path / f"part{k}")
        value = tf.constant(X + k)
        tf.raw_ops.SaveV2(
            prefix=part, tensor_names=[f"v{k}"], shape_and_slices=[""], tensors=[value]
        )
        parts.append(part)
    prefix = str(tmp_path / "both")
    tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=parts, destination_prefix=prefix)
    found = open_checkpoint(prefix).variables
    assert {v.file[-14:] for v in found.values()} == {"00000-of-00002", "00001-of-00002"}
    for k in range(2):
        np.testing.assert_array_equal(found[f"v{k}"].read(), X + k)
