"""Damaged model files, and paths that cannot be read or written."""

from __future__ import annotations

import copy
import itertools
import os
import random
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from backends import COMPILED
from npz_files import (
    MODEL_COMMANDS,
    SPEC,
    Members,
    arguments,
    json_npy,
    reads_as,
    small_model,
    snapshot,
    spec_of,
    write_members,
)

import npylstm
from npylstm.cli import main
from npylstm.io import model_file

ROOT = Path(__file__).parent.parent.parent
MODELS = [ROOT / "models/sine_keras/sine.npz", ROOT / "models/damped_sine_keras/damped_sine.npz"]


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> Members:
    """All members of a small sound model file."""
    path = tmp_path_factory.mktemp("small") / "model.npz"
    npylstm.save(small_model(), path)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


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
