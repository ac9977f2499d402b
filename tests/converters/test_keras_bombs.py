"""Small Keras files that would cost much time or memory: cheap to refuse."""

from __future__ import annotations

import bz2
import io
import json
import os
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from keras_hostile import (
    MB,
    ROOT_GROUP,
    Json,
    Maker,
    archive,
    assert_one_line,
    edited,
    edited_archive,
    members,
    sound_config,
)
from keras_hostile_worker import complaints, convert, run


def zeros_deflated(count: int, noise: int = 0) -> bytes:
    """Deflate a little noise and many zeros, the zeros' block many times over."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = packer.compress(random.Random(0).randbytes(noise)) + packer.flush(zlib.Z_FULL_FLUSH)
    megabyte = packer.compress(bytes(MB)) + packer.flush(zlib.Z_FULL_FLUSH)
    return data + megabyte * (count // MB) + packer.flush()


def zeros_zlib(count: int) -> bytes:
    return b"\x78\xda" + zeros_deflated(count) + struct.pack(">L", count % 65521 << 16 | 1)


def zip_bomb(member: str, data: bytes, size: int, method: int = zipfile.ZIP_DEFLATED) -> Maker:
    """A ``.keras`` with one member given packed; its checksum, wrong, would be judged too late."""

    def make(path: Path) -> None:
        body, directory = io.BytesIO(), io.BytesIO()
        parts = {n: (0, zlib.crc32(d), len(d), d) for n, d in members().items() if n != member}
        for name, (kind, crc, length, content) in (
            parts | {member: (method, 0, size, data)}
        ).items():
            at, encoded = body.tell(), name.encode()
            common = struct.pack(
                "<5H3L2H", 20, 0, kind, 0, 33, crc, len(content), length, len(encoded), 0
            )
            body.write(b"PK\x03\x04" + common + encoded + content)
            directory.write(b"PK\x01\x02\x14\x00" + common)
            directory.write(struct.pack("<3H2L", 0, 0, 0, 0, at) + encoded)
        end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 3, 3, directory.tell(), body.tell(), 0)
        path.write_bytes(body.getvalue() + directory.getvalue() + end)

    return make


def high(member: str) -> Maker:
    return zip_bomb(member, zeros_deflated(2048 * MB), 2048 * MB)


def low(member: str) -> Maker:
    return zip_bomb(member, zeros_deflated(400 * MB, 6 * MB), 406 * MB)


def lying_bzip2(path: Path) -> None:
    zip_bomb("config.json", bz2.compress(bytes(150 * MB)), 3000, zipfile.ZIP_BZIP2)(path)


FAT_JSON = b'{"class_name": "Sequential", "config": [' + b'{"":0},' * (15 * MB // 7) + b"0]}"


def fat_json(path: Path) -> None:
    """JSON of 15 MB that takes thirty times as much in memory; the zip makes it a few KB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, data in (members() | {"config.json": FAT_JSON}).items():
            zipped.writestr(name, data)


def many_layers(path: Path) -> None:
    document = sound_config()
    document["config"]["layers"] += [
        {"class_name": "Dropout", "config": {"name": f"l{k}"}} for k in range(30_000)
    ]
    document["config"]["layers"].append({"class_name": "Lambda", "config": {"name": "end"}})
    archive(config=json.dumps(document).encode())(path)


def many_reasons(path: Path) -> None:
    document = sound_config()
    document["config"]["layers"] += [
        {"class_name": "Lambda", "config": {"name": f"l{k}"}} for k in range(2_000)
    ]
    archive(config=json.dumps(document).encode())(path)


def backward_calls(path: Path) -> None:
    """Layers listed from the last to the first: each look finds one that is ready."""
    count = 4000
    layers: list[Json] = [
        {"class_name": "Dropout", "name": f"l{k}", "config": {"name": f"l{k}"},
         "inbound_nodes": [[[f"l{k - 1}", 0, 0, {}]]]}
        for k in range(count, 0, -1)
    ]  # fmt: skip
    layers.append({"class_name": "InputLayer", "name": "l0", "config": {"name": "l0"}})
    graph = {"layers": layers, "input_layers": [["l0", 0, 0]], "output_layers": [["none", 0, 0]]}
    graph["output_layers"] = [["l1", 0, 7]]
    archive(config=json.dumps({"class_name": "Model", "config": graph}).encode())(path)


ROWS = 160 * MB  # of 16 float32: 10 GB


def widened(change: Callable[[h5py.File, int], None], rows: int) -> Maker:
    """An LSTM of 4 units on very many features, its kernel made by ``change``."""

    def make(path: Path) -> None:
        layers = [{"class_name": "LSTM", "config": {"name": "lstm", "units": 4}}]
        with h5py.File(path, "w") as file:
            document = {"class_name": "Sequential", "config": layers}
            file.attrs["model_config"] = json.dumps(document)
            file.attrs["keras_version"] = "2.4.0"
            file.attrs["layer_names"] = [b"lstm"]
            group = file.create_group("lstm")
            group.attrs["weight_names"] = [b"kernel", b"recurrent", b"bias"]
            change(group, rows)
            group["recurrent"] = np.ones((4, 15), "f4")  # wrong: the bomb is for nothing
            group["bias"] = np.ones(16, "f4")

    return make


def nothing_stored(group: h5py.Group, rows: int) -> None:
    group.create_dataset("kernel", (rows, 16), "f4")


def filled(group: h5py.Group, rows: int) -> None:
    group.create_dataset("kernel", (rows, 16), "f4", chunks=(MB // 64, 16), fillvalue=0.5)


def gzipped(noise: int) -> Callable[[h5py.Group, int], None]:
    """Chunks of 16 MB, the same packed one every time."""

    def change(group: h5py.Group, rows: int) -> None:
        chunk = random.Random(0).randbytes(noise) + bytes(16 * MB - noise)
        packed_chunk = zlib.compress(chunk, 9)
        dataset = group.create_dataset(
            "kernel", (rows, 16), "f4", chunks=(MB // 4, 16), compression="gzip"
        )
        for at in range(0, rows, MB // 4):
            dataset.id.write_direct_chunk((at, 0), packed_chunk)

    return change


def wide_chunk(group: h5py.Group, rows: int) -> None:
    """A small array in one chunk of 400 MB."""
    dataset = group.create_dataset(
        "kernel", (3, 16), "f4", maxshape=(None, 16), chunks=(400 * MB // 64, 16),
        compression="gzip",
    )  # fmt: skip
    dataset.id.write_direct_chunk((0, 0), zeros_zlib(400 * MB))


def long_stream(group: h5py.Group, rows: int) -> None:
    """A chunk of 19 KB whose stream unpacks to 400 MB."""
    dataset = group.create_dataset("kernel", (300, 16), "f4", chunks=(300, 16), compression="gzip")
    dataset.id.write_direct_chunk((0, 0), zeros_zlib(400 * MB))


def tower(file: h5py.File) -> None:
    """Forty groups, each with two names for the next: 2^40 paths."""
    group = file[ROOT_GROUP]
    for _ in range(40):
        inner = group.create_group("a")
        group["b"] = inner
        group = inner


def one_text_many_times(path: Path) -> None:
    """A list of 3,000 names that are all the same text of 1 MB."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = np.array(["x" * MB, *["y"] * 3000], object)
    data = path.read_bytes()
    heaps = [i for i in range(0, len(data), 8) if data.startswith(b"GCOL", i)]
    at = max(data.find(struct.pack("<LQ", MB, heap)) for heap in heaps)
    assert at > 0
    big = data[at : at + 16]
    path.write_bytes(data[:at] + big * 3001 + data[at + 16 * 3001 :])


def fat_attribute(path: Path) -> None:
    edited(lambda file: file.attrs.__setitem__("model_config", FAT_JSON.decode()))(path)


def sparse(path: Path) -> None:
    """Ten gigabytes of nothing behind a zip's first bytes."""
    path.write_bytes(b"PK\x03\x04")
    os.truncate(path, 10 << 30)


BOMBS: dict[str, Maker] = {
    "weights": high("model.weights.h5"),
    "config": high("config.json"),
    "metadata": high("metadata.json"),
    "weights, low ratio": low("model.weights.h5"),
    "config, low ratio": low("config.json"),
    "metadata, low ratio": low("metadata.json"),
    "bzip2 of a lying size": lying_bzip2,
    "fat json": fat_json,
    "fat attribute": fat_attribute,
    "many layers": many_layers,
    "many reasons": many_reasons,
    "backward calls": backward_calls,
    "hdf5: 10 GB not stored": widened(nothing_stored, ROWS),
    "hdf5: 10 GB of one fill value": widened(filled, ROWS),
    "hdf5: 10 GB gzipped": widened(gzipped(0), ROWS),
    "hdf5: 400 MB gzipped, low ratio": widened(gzipped(MB // 4), 400 * MB // 64),
    "hdf5: chunk wider than its array": widened(wide_chunk, 3),
    "hdf5: stream longer than its chunk": widened(long_stream, 3),
    "hdf5: 2^40 paths": edited_archive(tower),
    "hdf5: one text many times": one_text_many_times,
    "sparse": sparse,
}


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.one_in(2)
def test_a_bomb_is_cheap_to_refuse(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    BOMBS[name](path)
    assert name == "sparse" or path.stat().st_size < 25 * MB
    outcome = convert([path])[0]
    assert not complaints({name: outcome}, (2,))
    assert_one_line(outcome.stderr)


def test_the_worker_sees_waste() -> None:
    assert complaints({"waste": run([["waste"]])[0]}, (200 << 20,))
