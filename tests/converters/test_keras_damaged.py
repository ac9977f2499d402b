"""Damaged Keras files, and files that point to others, converted in processes of their own."""

from __future__ import annotations

import io
import os
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import npylstm_converters as nc
import numpy as np
import pytest
from keras_hostile import (
    ARCHIVE,
    DATA,
    KERNEL,
    LEGACY,
    LSTM_GROUP,
    Maker,
    assert_one_line,
    edited,
    link,
    members,
    put,
)
from keras_hostile_worker import complaints, convert

import npylstm


def patched(source: Path, changes: dict[int, int]) -> bytes:
    """Other bytes in an HDF5 file; in that of a ``.keras``, whose checksum is mended."""
    inside = source.suffix == ".keras"
    data = bytearray(members(source)["model.weights.h5"] if inside else source.read_bytes())
    for at, value in changes.items():
        data[at] = value
    if not inside:
        return bytes(data)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as zipped:
        for name, content in (members(source) | {"model.weights.h5": bytes(data)}).items():
            zipped.writestr(name, content)
    return stream.getvalue()


FUZZED = [
    DATA / name
    for name in (
        "keras1_stacked.h5", "keras22_functional.h5", "tf24_stacked.h5", "tf213_stacked.h5",
        "tf213_functional.keras", "../../../models/damped_sine_keras/damped_sine.keras",
    )
]  # fmt: skip


@pytest.mark.exhaustive
@pytest.mark.parametrize("source", FUZZED, ids=lambda p: p.name)
def test_flipped_bits_of_hdf5(source: Path, tmp_path: Path) -> None:
    rng, sources = random.Random(source.name), []
    archived = source.suffix == ".keras"
    whole = members(source)["model.weights.h5"] if archived else source.read_bytes()
    for k in range(40):
        near = len(whole) if k % 2 else 3000  # anywhere, or in the first groups and attributes
        places = [rng.randrange(near) for _ in range(rng.choice([1, 1, 2, 8]))]
        changes = {at: whole[at] ^ 1 << rng.randrange(8) for at in places}
        sources.append(tmp_path / f"{k}.h5")
        sources[-1].write_bytes(patched(source, changes))
    outcomes = dict(zip((p.name for p in sources), convert(sources, forked=True), strict=True))
    assert not complaints(outcomes, (0, 2))
    assert {o.status for o in outcomes.values()} == {0, 2}  # the flips do hit, not always


# Single bytes on which libhdf5 1.14.6 was seen to misbehave: file, where, what, and how.
SINGLE_BYTES = [
    ("keras1_stacked.h5", 3561, 8, "loops in a global heap"),
    ("tf24_stacked.h5", 4689, 1, "loops in a global heap"),
    ("tf213_functional.keras", 2440, 72, "loops in a local heap, allocating"),
    ("keras22_functional.h5", 1009, 9, "crashes on an attribute of another type"),
    ("tf213_stacked.h5", 857, 3, "crashes on an attribute of another type"),
    ("keras22_functional.h5", 1043, 128, "allocates 2 GB for a text"),
    ("tf213_stacked.h5", 1043, 255, "allocates 4 GB for a text"),
]


@pytest.mark.parametrize(("name", "at", "value", "how"), SINGLE_BYTES)
def test_bytes_that_libhdf5_stumbles_over(
    name: str, at: int, value: int, how: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.h5"
    path.write_bytes(patched(DATA / name, {at: value}))
    assert not complaints({how: convert([path])[0]}, (2,))


@pytest.mark.exhaustive
@pytest.mark.parametrize("source", [LEGACY, ARCHIVE], ids=lambda p: p.name)
def test_truncated_anywhere(source: Path, tmp_path: Path) -> None:
    whole, sources = source.read_bytes(), []
    for size in {0, 1, 7, 8, 9, len(whole) - 1, *random.Random(4).sample(range(len(whole)), 30)}:
        sources.append(tmp_path / f"{size}.keras")
        sources[-1].write_bytes(whole[:size])
    outcomes = dict(zip((p.name for p in sources), convert(sources, forked=True), strict=True))
    assert not complaints(outcomes, (2,))


def test_flipped_bits_of_the_zip_are_noticed_or_harmless(tmp_path: Path) -> None:
    known, whole = nc.convert(ARCHIVE).to_json(), ARCHIVE.read_bytes()
    numbers = {n.name: dict(n.weights) for n in nc.convert(ARCHIVE).layers}
    rng, path, refused = random.Random(5), tmp_path / "model.keras", 0
    with zipfile.ZipFile(ARCHIVE) as zipped:
        directory = zipped.start_dir
        local = [i.header_offset for i in zipped.infolist()]
    for k in range(300):
        damaged = bytearray(whole)
        for _ in range(1 + k % 2):
            at = [
                rng.randrange(len(whole)),
                rng.choice(local) + rng.randrange(46),
                rng.randrange(directory, len(whole)),
            ][k % 3]
            damaged[at] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            spec = nc.convert(path)
        except (npylstm.NpylstmError, OSError):
            refused += 1
            continue
        found = spec.to_json()
        assert {**found, "provenance": 0} == {**known, "provenance": 0}
        for layer in spec.layers:
            for key, array in layer.weights.items():
                np.testing.assert_array_equal(array, numbers[layer.name][key])
    assert 150 < refused < 300


# --- files that point to others ------------------------------------------------------------------


def secret(folder: Path) -> Path:
    """A sound file next to the hostile one."""
    path = folder / "secret.h5"
    path.write_bytes(LEGACY.read_bytes())
    return path


def through_external(path: str) -> Callable[[h5py.File, str], None]:
    return lambda file, other: link(path, h5py.ExternalLink(other, path))(file)


def through_soft_and_external(path: str) -> Callable[[h5py.File, str], None]:
    def change(file: h5py.File, other: str) -> None:
        file["zzz"] = h5py.ExternalLink(other, path)
        link(path, h5py.SoftLink("/zzz"))(file)

    return change


def virtual(file: h5py.File, other: str) -> None:
    layout = h5py.VirtualLayout((3, 28), "f4")
    layout[:] = h5py.VirtualSource(other, KERNEL, (3, 28), "f4")
    file.pop(KERNEL)
    file.create_virtual_dataset(KERNEL, layout)


def growing_virtual(file: h5py.File, other: str) -> None:
    """Its shape alone asks the other file."""
    layout = h5py.VirtualLayout((3, 28), "f4", maxshape=(None, 28))
    source = h5py.VirtualSource(other, KERNEL, (3, 28), "f4", maxshape=(None, 28))
    layout[: h5py.h5s.UNLIMITED] = source[: h5py.h5s.UNLIMITED]
    file.pop(KERNEL)
    file.create_virtual_dataset(KERNEL, layout)


def external_data(file: h5py.File, other: str) -> None:
    put(KERNEL, (3, 28), "f4", external=[(other, 0, 336)])(file)


FOREIGN: dict[str, Callable[[h5py.File, str], None]] = {
    "external group": through_external(LSTM_GROUP),
    "external array": through_external(KERNEL),
    "soft link to external group": through_soft_and_external(LSTM_GROUP),
    "soft link to external array": through_soft_and_external(KERNEL),
    "virtual": virtual,
    "virtual of unknown length": growing_virtual,
    "external data": external_data,
}


def pointing_to(other: str, change: Callable[[h5py.File, str], None]) -> Maker:
    return edited(lambda file: change(file, other))


@pytest.mark.parametrize("name", FOREIGN)
def test_other_files_are_not_read(name: str, tmp_path: Path) -> None:
    """Refused with the other file there, and without opening it: a pipe would hang whoever did."""
    sound, pipe = secret(tmp_path), tmp_path / "pipe.h5"
    os.mkfifo(pipe)
    sources = []
    for other in (sound, pipe):
        path = tmp_path / f"by_{other.stem}.hdf5"
        pointing_to(str(other), FOREIGN[name])(path)
        sources.append(path)
    outcomes = convert(sources)
    for outcome in outcomes:
        assert outcome.status == 2, outcome
        assert_one_line(outcome.stderr)
