"""Malicious model files: refused in one line; nothing in them is run."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from npz_files import (
    MB,
    MODEL_COMMANDS,
    SPEC,
    Entry,
    Json,
    Maker,
    Members,
    arguments,
    assert_one_line,
    json_npy,
    npy,
    reads_as,
    small_model,
    snapshot,
    spec_of,
    stored,
    write_members,
    write_zip,
)

import npylstm
from npylstm.cli import main


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> Members:
    """All members of a small sound model file."""
    path = tmp_path_factory.mktemp("small") / "model.npz"
    npylstm.save(small_model(), path)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def npy_with_header(header: str, data: bytes = b"", version: int = 1) -> bytes:
    """A ``.npy`` whose header says what it likes."""
    size = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + size + header.encode("latin-1") + data


# --- malice: each entry makes one file from the members of a sound one ---------------------------


def with_spec(change: Callable[[Json], object]) -> Maker:
    def make(members: Members, path: Path) -> None:
        document = spec_of(members)
        change(document)
        write_members(path, members | {SPEC: json_npy(document)})

    return make


def with_spec_bytes(text: bytes) -> Maker:
    return with_member(SPEC, npy(np.frombuffer(text, np.uint8)))


def with_member(name: str, data: bytes) -> Maker:
    return lambda members, path: write_members(path, members | {name: data})


def with_weight(change: Callable[[np.ndarray[Any, Any]], Any]) -> Maker:
    def make(members: Members, path: Path) -> None:
        array = np.load(io.BytesIO(members["layer_0/W_i.npy"]))
        write_members(path, members | {"layer_0/W_i.npy": npy(change(array))})

    return make


def with_header(header: str, version: int = 1) -> Maker:
    return with_member("layer_0/W_i.npy", npy_with_header(header, bytes(48), version))


def with_config(**values: Any) -> Maker:
    return with_spec(lambda d: d["layers"][0]["config"].update(values))


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def poke(value: float) -> Maker:
    def change(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        array[1, 1] = value
        return array

    return with_weight(change)


def lzma_damaged(members: Members, path: Path) -> None:
    data = b"\x09\x04\x05\x00\x5d\x00\x00\x00\x01" + b"\xff" * 60
    entries = [stored(n, d) for n, d in members.items() if n != "layer_0/W_i.npy"]
    write_zip(path, [*entries, Entry("layer_0/W_i.npy", data, 176, zipfile.ZIP_LZMA)])


def twice(members: Members, path: Path) -> None:
    entries = [stored(n, d) for n, d in members.items()]
    write_zip(path, [*entries, stored("layer_0/W_i.npy", members["layer_0/W_i.npy"])])


def without(name: str) -> Maker:
    return lambda members, path: write_members(
        path, {n: d for n, d in members.items() if n != name}
    )


class Boom:
    """Whoever unpickles this leaves a file behind."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("unpickled",)


OBJECTS = npy(np.array([Boom(), 1], object), allow_pickle=True)
HEADER = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }"

HOSTILE: dict[str, tuple[Maker, str]] = {
    # name: how it is made, what the message must say
    "empty": (lambda m, p: p.write_bytes(b""), "not an .npz|empty"),
    "empty zip": (lambda m, p: write_zip(p, []), "npylstm/spec|no importer"),
    "zip of something else": (lambda m, p: np.savez(p, x=np.ones(3)), "not"),
    "only a directory": (lambda m, p: write_zip(p, [Entry("a", b"", 0, local=False)]), "not"),
    "png": (lambda m, p: p.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64)), "not|no importer"),
    "text": (lambda m, p: p.write_text("W_i = 1\n" * 20), "not|no importer"),
    "pickle": (lambda m, p: p.write_bytes(pickle.dumps(Boom())), "not|no importer"),
    "npy": (lambda m, p: p.write_bytes(npy(np.ones(3))), "not|no importer"),
    "objects as weights": (with_member("layer_0/W_i.npy", OBJECTS), "layer_0/W_i.*objects"),
    "objects as spec": (with_member(SPEC, OBJECTS), "npylstm/spec.*objects"),
    "objects in a case": (with_member("case/0/input/x.npy", OBJECTS), "case/0.*objects"),
    "objects unasked for": (with_member("extra.npy", OBJECTS), "extra"),
    "pickle as weights": (with_member("layer_0/W_i.npy", pickle.dumps(Boom())), "layer_0/W_i"),
    "strings in a case": (with_member("case/0/input/x.npy", npy(np.array(["a"]))), "case/0"),
    "transposed": (with_weight(lambda w: w.T), r"layer_0/W_i: expected shape \(3, 4\).*\(4, 3\)"),
    "one row less": (with_weight(lambda w: w[:-1]), r"layer_0/W_i: expected shape \(3, 4\)"),
    "a scalar": (with_weight(lambda w: w[0, 0]), r"layer_0/W_i: expected shape \(3, 4\)"),
    "float64": (with_weight(lambda w: w.astype("f8")), "layer_0/W_i: .*float32.*float64"),
    "float16": (with_weight(lambda w: w.astype("f2")), "layer_0/W_i: .*float32.*float16"),
    "big endian": (with_weight(lambda w: w.astype(">f4")), "layer_0/W_i: .*float32.*>f4"),
    "int32": (with_weight(lambda w: w.view("i4")), "layer_0/W_i: .*float32.*int32"),
    "a record": (with_weight(lambda w: w.view([("a", "f4")])), "layer_0/W_i"),
    "nan": (poke(np.nan), "layer_0/W_i: .*finite.*1 nan or inf"),
    "inf": (poke(np.inf), "layer_0/W_i: .*finite.*1 nan or inf"),
    "missing weights": (without("layer_0/U_f.npy"), r"layer_0/U_f: missing.*\(4, 4\)"),
    "missing spec": (without(SPEC), "npylstm/spec|not a .keras"),
    "missing input of a case": (without("case/0/input/x.npy"), "case/0"),
    "superfluous weights": (with_member("layer_0/W_z.npy", npy(np.ones(3))), "layer_0/W_z"),
    "superfluous file": (with_member("readme.txt", b"hello"), "readme.txt"),
    "key twice": (twice, "twice"),
    "key twice in disguise": (with_member("layer_0/W_i", b""), "twice"),
    "header: shape lies": (with_header(HEADER.replace("3, 4", "300, 4")), "layer_0/W_i.*4800"),
    "header: huge": (with_header(HEADER.replace("3", "10**9".replace("**", "0"))), "layer_0/W_i"),
    "header: negative": (with_header(HEADER.replace("3, 4", "-3, -4")), "layer_0/W_i"),
    "header: open bracket": (with_header("{'descr': '<f4', 'shape': (3, 4,"), "layer_0/W_i"),
    "header: python 2": (with_header(HEADER.replace("4, )", "4L)").replace("4)", "4L)")), "W_i"),
    "header: bad escape": (with_header(HEADER.replace("<f4", "\\d")), "layer_0/W_i"),
    "header: deep": (with_header("(" * 5000 + ")" * 5000), "layer_0/W_i"),
    "header: signs": (with_header("-" * 9000 + "1"), "layer_0/W_i"),
    "header: long": (with_header(HEADER + " " * 50_000), "layer_0/W_i"),
    "header: version 9": (with_header(HEADER, version=9), "layer_0/W_i"),
    "header: no items": (with_header(HEADER.replace("<f4", "S0")), "layer_0/W_i"),
    "damaged lzma": (lzma_damaged, "layer_0/W_i"),
    "newer format": (with_spec(lambda d: d.update(format_version=3)), "format_version.*newer"),
    "format zero": (with_spec(lambda d: d.update(format_version=0)), "format_version.*positive"),
    "format true": (with_spec(lambda d: d.update(format_version=True)), "format_version.*True"),
    "format missing": (with_spec(lambda d: d.pop("format_version")), "format_version.*None"),
    "format float": (with_spec(lambda d: d.update(format_version=1.0)), "format_version.*1.0"),
    "spec not json": (with_spec_bytes(b"{'a': 1}"), "npylstm/spec: not JSON"),
    "spec not text": (with_spec_bytes(b"\xff\xfe\x00"), "npylstm/spec: not JSON"),
    "spec a list": (with_spec_bytes(b"[]"), "npylstm/spec: expected a JSON object"),
    "spec empty": (with_spec_bytes(b""), "npylstm/spec"),
    "spec an image": (with_member(SPEC, npy(np.zeros((4, 4), np.uint8))), "npylstm/spec"),
    "spec of floats": (with_member(SPEC, npy(np.zeros(4))), "npylstm/spec"),
    "json: very deep": (with_spec_bytes(b"[" * 100_000), "npylstm/spec: not JSON"),
    "json: deep": (with_spec(lambda d: d.update(format_version=nested(900))), "format_version"),
    "json: long number": (with_spec_bytes(b"9" * 9000), "npylstm/spec"),
    "json: long string": (with_spec(lambda d: d["layers"][0].update(kind="k" * MB)), "layer_0"),
    "units negative": (with_config(units=-4), "units.*-4"),
    "units zero": (with_config(units=0), "units.*0"),
    "units huge": (with_config(units=10**9), r"layer_0/W_i: .*1000000000"),
    "units true": (with_config(units=True), "units.*True"),
    "units float": (with_config(units=4.0), "units.*4.0"),
    "units text": (with_config(units="4"), "units.*'4'"),
    "features true": (with_config(features=True), "features.*True"),
    "bias one": (with_config(use_bias=1), "use_bias.*1"),
    "config unknown": (with_config(unit=4), "unit"),
    "axis of the batch not the input's": (with_config(time_major=True), "time_major|batch|steps"),
    "dtype unknown": (with_spec(lambda d: d.update(dtype="garbage")), "dtype|garbage"),
    "dtype half": (with_spec(lambda d: d.update(dtype="float16")), "float16"),
    "surrogates": (with_spec(lambda d: d.update(name="\ud800")), "name|UTF-8"),
    "terminal codes": (with_spec(lambda d: d["layers"][0].update(name="\x1b[2J")), "2J"),
    "case of another shape": (
        with_member("case/0/input/x.npy", npy(np.zeros((2, 5, 7), "f4"))), "case/0|input 'x'",
    ),
    "case output of another shape": (
        with_member("case/0/output/layer_1.npy", npy(np.zeros((3, 9), "f4"))), "case/0|layer_1",
    ),
    "case state of nobody": (
        with_member("case/0/state/layer_9/h.npy", npy(np.zeros((2, 4), "f4"))), "layer_9",
    ),
    "case state of another shape": (
        with_member("case/0/state/layer_0/h.npy", npy(np.zeros((2, 9), "f4"))), "layer_0|case",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_refused_at_load(
    name: str, members: Members, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, message = HOSTILE[name]
    path = tmp_path / "model.npz"
    make(members, path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(npylstm.FormatError, match=message) as caught:
        npylstm.load(path, "numpy")
    assert str(caught.value).startswith(str(path))
    assert os.listdir(tmp_path) == ["model.npz"]  # nothing was unpickled


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.one_in(4)
def test_refused_in_one_line(
    name: str, members: Members, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, _ = HOSTILE[name]
    path = tmp_path / "model.npz"
    make(members, path)
    np.save(tmp_path / "x.npy", np.ones((2, 5, 3), np.float32))
    (tmp_path / "y.npz").write_bytes(b"as before")
    before = snapshot(tmp_path)
    for command in MODEL_COMMANDS:
        status = main(arguments(command, path))
        out, err = capsys.readouterr()
        assert_one_line(status, err)
        assert "model.npz" in err
        assert out == ""
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("command", MODEL_COMMANDS)
def test_a_sound_file_is_not_refused(
    command: str, members: Members, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_members(tmp_path / "model.npz", members)
    np.save(tmp_path / "x.npy", np.ones((2, 5, 3), np.float32))
    assert main(arguments(command, path)) == 0
    assert capsys.readouterr().out


def test_two_models_in_one_zip_are_not_mixed(members: Members, tmp_path: Path) -> None:
    """A member appended behind the directory is no part of the file."""
    path = write_members(tmp_path / "model.npz", members)
    known = reads_as(path)
    path.write_bytes(path.read_bytes() + members["layer_0/W_i.npy"])
    assert reads_as(path) in (None, known)
