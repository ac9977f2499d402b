"""Costly and damaged models of TensorFlow.js: cheap to refuse, whichever value or byte is replaced."""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest
from tfjs_hostile import (
    DATA,
    LONGEST_LINE,
    MB,
    SHARD,
    Maker,
    document,
    layers,
    nested,
    paths,
    sound,
    text,
    top,
)
from tfjs_layout import read, write_json

import npylstm

pytestmark = pytest.mark.usefixtures("deadline")


# --- sizes: in a process of its own, under limits ------------------------------------------------

LIMITED = """
import resource, signal, sys, time
import npylstm, npylstm_converters as nc
nc.from_tfjs(sys.argv[1])  # imports what it needs
with open("/proc/self/statm") as statm:
    size = int(statm.read().split()[0]) * resource.getpagesize()
limit = size + int(sys.argv[2]) * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
signal.alarm(20)
for path in sys.argv[3:]:
    start = time.process_time()
    try:
        print("converted", nc.from_tfjs(path).parameters)
    except npylstm.NpylstmError as error:
        print("refused", str(error)[:200].replace(chr(10), " "))
    except BaseException as error:
        print("failed", type(error).__name__, str(error)[:200])
    print(round(time.process_time() - start), flush=True)
"""


def limited(path: Path, megabytes: int = 300) -> tuple[str, int]:
    command = [
        sys.executable,
        "-c",
        LIMITED,
        str(DATA / "lstm/model.json"),
        str(megabytes),
        str(path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr)
    said, seconds = done.stdout.splitlines()
    return said, int(seconds)


def sparse(path: Path, size: int) -> None:
    with open(path, "r+b" if path.exists() else "wb") as stream:
        stream.truncate(size)


def a_pipe(folder: Path) -> None:
    paths(["pipe.bin"])(folder)
    os.mkfifo(folder / "pipe.bin")


def many_shards(folder: Path) -> None:
    paths([SHARD] * 200_000)(folder)


def long_shard(folder: Path) -> None:
    sound().write(folder)
    sparse(folder / SHARD, 1 << 40)


def long_json(folder: Path) -> None:
    path = sound().write(folder)
    sparse(path, 1 << 40)  # ends in zeros


def long_entries(folder: Path) -> None:
    document(lambda d: d["weightsManifest"][0]["weights"].extend(
        {"name": f"w{k}", "shape": [0], "dtype": "float32"} for k in range(200_000)
    ))(folder)  # fmt: skip


def many_layers(folder: Path) -> None:
    layers(lambda found: found.extend(
        {"class_name": "Dense", "config": {"name": f"d{k}", "units": 2}} for k in range(5_000)
    ))(folder)  # fmt: skip


COSTLY: dict[str, tuple[Maker, str]] = {
    "a pipe": (a_pipe, "pipe.bin"),
    "many shards": (many_shards, "bytes"),
    "a terabyte of a shard": (long_shard, "bytes"),
    "a terabyte of JSON": (long_json, ""),
    "many entries": (long_entries, "w0|w1|JSON"),
    "many layers": (many_layers, "d0|d1"),
    "deep": (text(b'{"modelTopology":' + b"[" * 5_000_000), ""),
    "many numbers": (top(modelTopology=[0] * 3_000_000), ""),
}  # fmt: skip


@pytest.mark.parametrize("name", COSTLY)
def test_costs_little(name: str, folder: Path) -> None:
    make, message = COSTLY[name]
    make(folder)
    said, seconds = limited(folder / "model.json")
    assert said.startswith("refused"), said
    assert any(word in said for word in message.split("|")), said
    assert seconds <= 6


def test_the_limits_let_models_through() -> None:
    assert limited(DATA / "lstm/model.json")[0] == "converted 192"
    assert limited(DATA / "lstm/model.json", megabytes=0)[0].startswith(("failed", "converted"))


@pytest.mark.parametrize("size", [1000, 1_000_000])
def test_metadata_of_any_size(size: int, folder: Path) -> None:
    top(userDefinedMetadata={"notes": ["x" * 10] * (size // 13)})(folder)
    said, seconds = limited(folder / "model.json")
    assert said == "converted 192"
    assert seconds <= 6


# --- any value of model.json replaced, any byte flipped ------------------------------------------

NASTY: list[Any] = [
    None, True, 0, -1, 2, 99, 1.5, 10**9, 2**63, 10**400, float("nan"), "", "x", "softmax", "\ud800",
    "a/b", "..", [], {}, [1], [[1]], ["lstm", 0, 0], {"class_name": "ELU", "config": {"alpha": "x"}},
    {"class_name": "Lambda", "config": {}}, {"paths": [], "weights": []}, nested(900),
]  # fmt: skip


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from leaves(value[key], (*path, key))


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "source", ["lstm_stack", "nested", "seq2seq", "merges", "bidirectional", "embedding", "trained"]
)
def test_any_value_replaced(source: str, folder: Path, tmp_path: Path) -> None:
    """Whatever it says: it is refused, or what is converted can be written and computes."""
    layout = read(DATA / source)
    path = layout.write(folder)
    whole = json.loads(path.read_text())
    nc.from_tfjs(path)
    sites = [p for p in leaves(whole) if p and not any("initializer" in str(k) for k in p)]
    todo = random.Random(3).sample(list(itertools.product(sites, NASTY)), 400)
    wrong, output, refused = [], tmp_path / "m.npz", 0
    for place, value in todo:
        changed = copy.deepcopy(whole)
        target: Any = changed
        for key in place[:-1]:
            target = target[key]
        target[place[-1]] = value
        path.write_text(json.dumps(changed))
        what = f"{place} = {value!r:.60}"
        try:
            npylstm.save(nc.from_tfjs(path), output)
        except (npylstm.FormatError, npylstm.UnsupportedError) as error:
            refused += 1
            if len(str(error)) > LONGEST_LINE or not str(error).isprintable():
                wrong.append(f"{what}: says {error!s:.80}")
            continue
        except Exception as error:
            wrong.append(f"{what}: {type(error).__name__}: {error!s:.80}")
            continue
        try:
            model = npylstm.load(output, "numpy")
            sizes = [[2 if isinstance(d, str) else d for d in t.shape] for t in model.inputs]
            if all(np.prod(s, dtype=object) < MB for s in sizes):
                model.predict(
                    [np.zeros(s) for s in sizes] if len(sizes) > 1 else np.zeros(sizes[0])
                )
        except Exception as error:
            wrong.append(f"{what}: converted, but {type(error).__name__}: {error!s:.80}")
    assert not wrong, f"{len(wrong)}:\n" + "\n".join(wrong)
    assert refused > 50


@pytest.mark.parametrize("source", ["lstm_stack", "seq2seq"])
def test_any_key_removed(source: str, folder: Path) -> None:
    """What is missing has its default in TensorFlow.js, or is asked for."""
    path = read(DATA / source).write(folder)
    whole = json.loads(path.read_text())
    wrong = []
    for place in leaves(whole):
        if not place:
            continue
        changed = copy.deepcopy(whole)
        target: Any = changed
        for key in place[:-1]:
            target = target[key]
        del target[place[-1]]
        path.write_text(json.dumps(changed))
        try:
            nc.from_tfjs(path)
        except (npylstm.FormatError, npylstm.UnsupportedError):
            continue
        except Exception as error:
            wrong.append(f"{place}: {type(error).__name__}: {error!s:.80}")
    assert not wrong, f"{len(wrong)}:\n" + "\n".join(wrong)


@pytest.mark.exhaustive
@pytest.mark.parametrize("source", ["lstm", "seq2seq"])
def test_any_byte_flipped(source: str, folder: Path) -> None:
    path = read(DATA / source).write(folder)
    data, rng, wrong = path.read_bytes(), random.Random(5), []
    for k in range(600):
        damaged = bytearray(data)
        if k % 3:
            damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        else:
            a, b = sorted(rng.sample(range(len(data)), 2))
            del damaged[a : min(b, a + 40)]
        path.write_bytes(bytes(damaged))
        for function in (nc.from_tfjs, nc.convert):
            try:
                function(path)
            except (npylstm.FormatError, npylstm.UnsupportedError):
                continue
            except Exception as error:
                wrong.append(f"{k}: {function.__name__}: {type(error).__name__}: {error!s:.80}")
    assert not wrong, f"{len(wrong)}:\n" + "\n".join(wrong)


def test_keys_twice(folder: Path) -> None:
    """JSON lets a key stand twice; the last counts in JavaScript, as it does here."""
    path = sound().write(folder)
    found = path.read_text()
    path.write_text(found.replace('"units": 5', '"units": 7, "units": 5'))
    assert found != path.read_text()
    with contextlib.suppress(npylstm.FormatError):
        assert nc.from_tfjs(path).parameters == 192


def test_a_second_document_of_weights_is_not_asked_for(folder: Path) -> None:
    """``weightSpecs``, as in memory dumps of models, are no manifest."""
    manifest, _ = sound().parts()
    sound().write(folder)
    write_json(folder, {**sound().document, "weightSpecs": manifest[0]["weights"]})
    with pytest.raises(npylstm.NpylstmError, match="weight"):
        nc.from_tfjs(folder / "model.json")
