"""A small model file, its members, and ways to write other files with them."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from builders import make_chain

import npylstm
from npylstm.activations import Activation
from npylstm.io import model_file
from npylstm.ops.cells import LSTM
from npylstm.ops.dense import Dense
from npylstm.spec import Case

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


def npy(array: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


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


Maker = Callable[[Members, Path], object]
