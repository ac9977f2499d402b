"""Damaged, lying and malicious model files: refused in one cheap line, or read as they were."""

from __future__ import annotations

import bz2
import copy
import io
import itertools
import json
import os
import pickle
import random
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from backends import COMPILED
from builders import make_chain

import npylstm
from npylstm.activations import Activation
from npylstm.cli import main
from npylstm.io import model_file
from npylstm.ops.cells import LSTM
from npylstm.ops.dense import Dense
from npylstm.spec import Case

ROOT = Path(__file__).parent.parent.parent
MODELS = [ROOT / "models/sine_keras/sine.npz", ROOT / "models/damped_sine_keras/damped_sine.npz"]
SPEC = "npylstm/spec.npy"
MB = 1 << 20
LONGEST_LINE = 4000  # a message that no screen holds is not clear
MODEL_COMMANDS = ("info", "verify", "predict", "trace", "bench")

Json = dict[str, Any]
Members = dict[str, bytes]


def small_model() -> npylstm.ModelSpec:
    """Make a model of two layers with one recorded case."""
    spec = make_chain(LSTM(3, 4), Dense(4, 2, Activation.of("relu", max_value=6.0)))
    x = np.linspace(-1, 1, 30, dtype=np.float32).reshape(2, 5, 3)
    y = npylstm.Model(spec, "numpy").predict(x)
    return spec.with_cases([Case({"x": x}, {"layer_1": y})])


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> Members:
    """All members of a small sound model file."""
    path = tmp_path_factory.mktemp("small") / "model.npz"
    npylstm.save(small_model(), path)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def npy(array: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def npy_with_header(header: str, data: bytes = b"", version: int = 1) -> bytes:
    """A ``.npy`` whose header says what it likes."""
    size = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + size + header.encode("latin-1") + data


def json_npy(document: object) -> bytes:
    return npy(np.frombuffer(json.dumps(document).encode(), np.uint8))


def spec_of(members: Members) -> Json:
    document: Json = json.loads(np.load(io.BytesIO(members[SPEC])).tobytes())
    return document


class Entry(NamedTuple):
    """A zip member, byte for byte; ``size`` and ``crc`` may lie, ``local=False`` leaves it out."""

    name: str
    data: bytes
    size: int
    method: int = zipfile.ZIP_STORED
    crc: int = 0
    local: bool = True


def stored(name: str, data: bytes) -> Entry:
    return Entry(name, data, len(data), crc=zlib.crc32(data))


def write_zip(path: Path, entries: list[Entry]) -> Path:
    body, directory = io.BytesIO(), io.BytesIO()
    for name, data, size, method, crc, local in entries:
        encoded, at = name.encode(), body.tell()
        common = struct.pack("<5H3L2H", 20, 0, method, 0, 33, crc, len(data), size, len(encoded), 0)
        if local:
            body.write(b"PK\x03\x04" + common + encoded + data)
        directory.write(b"PK\x01\x02\x14\x00" + common + struct.pack("<3H2L", 0, 0, 0, 0, at))
        directory.write(encoded)
    start, length, count = body.tell(), directory.tell(), min(len(entries), 0xFFFF)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, length, start, 0)
    path.write_bytes(body.getvalue() + directory.getvalue() + end)
    return path


def write_members(path: Path, members: Members) -> Path:
    return write_zip(path, [stored(name, data) for name, data in members.items()])


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


def fingerprint(spec: npylstm.ModelSpec) -> str:
    """Everything that a reading of a file can get wrong."""
    arrays = [(n.name, k, w.tobytes()) for n in spec.layers for k, w in n.weights.items()]
    cases = [
        [sorted((k, a.tobytes()) for k, a in part.items()) for part in (c.inputs, c.outputs)]
        + [sorted((k, n, a.tobytes()) for k, s in c.state.items() for n, a in s.items())]
        for c in spec.cases
    ]
    return repr((spec.to_json(), arrays, cases))


def reads_as(path: Path) -> str | None:
    """The fingerprint, or None where the file is refused as it should be."""
    try:
        return fingerprint(model_file.read(path))
    except (npylstm.NpylstmError, OSError):
        return None


def assert_one_line(status: int, stderr: str) -> None:
    assert (status, stderr.count("\n")) == (2, 1), stderr
    assert stderr.startswith("npylstm: error: ")
    assert len(stderr) < LONGEST_LINE
    assert stderr[:-1].isprintable()  # or a file sends codes to the terminal


def arguments(command: str, model: Path) -> list[str]:
    folder = model.parent
    more = {
        "predict": ["--input", str(folder / "x.npy"), "-o", str(folder / "y.npy")],
        "trace": ["--input", str(folder / "x.npy"), "-o", str(folder / "y.npz")],
        "bench": ["--seconds", "0.001"],
    }
    return [command, str(model), *more.get(command, [])]


def snapshot(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file() and p.stat().st_mode}


# --- damage -----------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS, ids=lambda p: p.stem)
def test_truncated_anywhere(model: Path, tmp_path: Path) -> None:
    whole, path = model.read_bytes(), tmp_path / "model.npz"
    rng = random.Random(1)
    for size in {0, 1, 2, 3, 4, len(whole) - 1, *rng.sample(range(len(whole)), 60)}:
        path.write_bytes(whole[:size])
        with pytest.raises(npylstm.FormatError, match=r"not an \.npz file"):
            model_file.read(path)


@pytest.mark.parametrize("model", MODELS, ids=lambda p: p.stem)
@pytest.mark.parametrize("bits", [1, 2, 8])
def test_flipped_bits_are_noticed_or_harmless(model: Path, bits: int, tmp_path: Path) -> None:
    whole, path = model.read_bytes(), tmp_path / "model.npz"
    known, rng = reads_as(model), random.Random(bits)
    with zipfile.ZipFile(model) as archive:
        directory = archive.start_dir
        local = [i.header_offset for i in archive.infolist()]
    refused = 0
    for k in range(120):
        damaged = bytearray(whole)
        for _ in range(bits):  # anywhere; in a member's headers; in the directory
            at = [
                rng.randrange(len(whole)),
                rng.choice(local) + rng.randrange(180),
                rng.randrange(directory, len(whole)),
            ][k % 3]
            damaged[at] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        found = reads_as(path)
        assert found in (None, known)
        refused += found is None
    assert refused > 60  # the flips do hit


def test_flipped_array_headers_with_a_valid_checksum(members: Members, tmp_path: Path) -> None:
    rng, path = random.Random(2), tmp_path / "model.npz"
    names = [name for name in members if name != SPEC]
    for _ in range(400):
        name = rng.choice(names)
        damaged = bytearray(members[name])
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(70)] = rng.choice(b"\x00'\"\\(){}[],:<>|L5Oefiub \n#\xff-")
        reads_as(write_members(path, members | {name: bytes(damaged)}))


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from leaves(value[key], (*path, key))


NASTY: list[Any] = [
    None, True, False, 0, -1, 2, 99, 1.5, 10**9, 10**30, 10**400, 1e308, float("nan"),
    float("inf"), "", "x", "batch", "softmax", "float64", "\ud800", "a/b", "\x1b[2J\n", [], {},
    [1], ["batch", "batch"], {"name": "relu"}, {"name": "softmax", "axis": 99},
    {"name": "softmax", "axis": None}, {"name": "relu", "cls": 1}, {"name": "relu", "name ": 1},
    {"name": "relu", "threshold": 10**400}, {"name": "elu", "alpha": float("nan")},
]  # fmt: skip


def test_any_value_of_the_spec_replaced(members: Members, tmp_path: Path) -> None:
    """Whatever stands in the spec: it is refused, or the model computes or says why not."""
    path, x, wrong = tmp_path / "model.npz", np.ones((2, 5, 3)), []
    document = spec_of(members)
    todo = list(itertools.product(leaves(document), NASTY))
    for place, value in random.Random(3).sample(todo, 1200):
        changed = [copy.deepcopy(document)]
        target: Any = changed
        for key in (0, *place)[:-1]:
            target = target[key]
        target[(0, *place)[-1]] = value
        write_members(path, members | {SPEC: json_npy(changed[0])})
        try:
            model = npylstm.load(path, "numpy")
            npylstm.save(model.spec, tmp_path / "again.npz")
            y = [m.predict(x) for m in (model, npylstm.Model(model.spec, COMPILED))]
            np.testing.assert_allclose(y[0], y[1], atol=1e-5)
        except npylstm.NpylstmError:
            pass
        except Exception as error:
            wrong.append(f"{place} = {value!r:.60}: {type(error).__name__}: {error!s:.80}")
    assert not wrong, f"{len(wrong)}:\n" + "\n".join(wrong)


# --- malice: each entry makes one file from the members of a sound one ---------------------------

Maker = Callable[[Members, Path], object]


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


# --- paths --------------------------------------------------------------------------------------


def unreadable(folder: Path) -> Iterator[tuple[str, Path]]:
    (folder / "file").write_text("x")
    (folder / "loop").symlink_to(folder / "loop")
    yield "a directory", folder
    yield "nobody there", folder / "none.npz"
    yield "below a file", folder / "file" / "model.npz"
    yield "a loop", folder / "loop"
    yield "a long name", folder / ("n" * 300)


@pytest.mark.parametrize("command", MODEL_COMMANDS)
def test_paths_that_cannot_be_read(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for what, path in unreadable(tmp_path):
        status = main([command, str(path), *arguments(command, tmp_path / "m")[2:]])
        err = capsys.readouterr().err
        assert (what, status, err.count("\n")) == (what, 2, 1)
        assert err.startswith(f"npylstm: error: {path}")


def test_no_permission(
    members: Members, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_members(tmp_path / "model.npz", members)
    path.chmod(0)
    user = os.geteuid()
    if user == 0:  # root reads everything
        os.seteuid(65534)
    try:
        status = main(["verify", str(path)])
    finally:
        os.seteuid(user)
    err = capsys.readouterr().err
    assert (status, err) == (2, f"npylstm: error: {path}: Permission denied\n")


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.npz"
    path.write_bytes(b"as before")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        npylstm.save(small_model(), path)
    assert snapshot(tmp_path) == {"model.npz": b"as before"}


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
