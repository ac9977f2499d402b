"""The ledger on the command line, and arrays that are left over."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import npylstm_converters as nc
import numpy as np
import pytest
import tfjs_layout
from keras_graphs import FRAMEWORKS, randomise
from ledgers import BOTH, DATA, TFJS, entries_of, names, source_of

import npylstm
from npylstm import FormatError, ModelSpec, UnsupportedError
from npylstm.cli import main


def run_main(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    status = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def rows_of(out: str) -> list[list[str]]:
    lines = out.splitlines()
    (start,) = [k for k, line in enumerate(lines) if line.startswith("tensor of the source")]
    assert re.split(r"\s{2,}", lines[start]) == [
        "tensor of the source",
        "shape",
        "layer",
        "weights",
    ]
    assert set(lines[start + 1]) == {"-", " "}
    rows = [re.split(r"\s{2,}", line.strip()) for line in lines[start + 2 :]]
    return [row for row in rows if len(row) == 4]


def expected_rows(spec: ModelSpec) -> list[list[str]]:
    return [
        [e["source"], str(tuple(e["shape"])), e["layer"], ", ".join(e["weights"])]
        for e in entries_of(spec)
    ]


@pytest.mark.parametrize("source", [
    DATA / "keras" / "keras1_stacked.h5", DATA / "keras" / "tf213_functional.keras",
    DATA / "keras" / "tf115_cudnn.h5", TFJS[0] / "model.json",
], ids=lambda p: p.name)  # fmt: skip
def test_the_table(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = nc.convert(source)
    out = tmp_path / "m.npz"
    status, text, err = run_main(capsys, "convert", source, out, "--record", 0)
    assert (status, err) == (0, "")
    assert rows_of(text) == expected_rows(spec)
    for given in (source, out):
        status, text, err = run_main(capsys, "info", given)
        assert (status, err) == (0, "")
        assert rows_of(text) == expected_rows(spec)
        document = json.loads(run_main(capsys, "info", given, "--json")[1])
        assert document["provenance"]["tensors"] == entries_of(spec)
    assert npylstm.load(out).spec.provenance["tensors"] == entries_of(spec)


# --- what is left over ---------------------------------------------------------------------------


def small(k: Any) -> Any:
    layers = [
        k.Input((None, 3)), k.layers.LSTM(4, name="l"), k.layers.Dropout(0.5, name="drop"),
        k.layers.Dense(2, name="d"),
    ]  # fmt: skip
    return k.Sequential(layers)


def small_file(framework: str, way: str, folder: Path) -> Path:
    model = small(FRAMEWORKS[framework])
    randomise(model, 6)
    path: Path = source_of(model, way, folder)
    return path


def add_to_group(path: Path, layer: str, name: str) -> None:
    """Another array among those of a layer, in an HDF5 file."""
    with h5py.File(path, "r+") as file:
        group = file["model_weights"][layer]
        group[name] = np.zeros((2, 5), "float32")
        listed = [*names(group.attrs["weight_names"]), name]
        group.attrs["weight_names"] = [n.encode() for n in listed]


def add_group(path: Path, layer: str, name: str) -> None:
    """The arrays of one more layer, in an HDF5 file."""
    with h5py.File(path, "r+") as file:
        root = file["model_weights"]
        root.attrs["layer_names"] = [n.encode() for n in [*names(root.attrs["layer_names"]), layer]]
        group = root.create_group(layer)
        group[name] = np.zeros((2, 5), "float32")
        group.attrs["weight_names"] = [name.encode()]


def add_to_zip(path: Path, name: str) -> None:
    """Another array in the weights of a .keras file."""
    with zipfile.ZipFile(path) as archive:
        members = {n: archive.read(n) for n in archive.namelist()}
    stream = io.BytesIO(members["model.weights.h5"])
    with h5py.File(stream, "r+") as file:
        file[name] = np.zeros((2, 5), "float32")
    members["model.weights.h5"] = stream.getvalue()
    with zipfile.ZipFile(path, "w") as archive:
        for n, data in members.items():
            archive.writestr(n, data)


Extra = tuple[str, str, Callable[[Path], None]]  # way, path in messages, how it gets there
EXTRAS: dict[str, Extra] = {
    "of_an_lstm": ("h5", "l/l/odd:0", lambda p: add_to_group(p, "l", "l/odd:0")),
    "of_a_dense": ("h5", "d/d/odd:0", lambda p: add_to_group(p, "d", "d/odd:0")),
    "of_a_dropout": ("h5", "drop/drop/odd:0", lambda p: add_to_group(p, "drop", "drop/odd:0")),
    "of_a_group": ("h5", "odd/odd/kernel:0", lambda p: add_group(p, "odd", "odd/kernel:0")),
    "zip_own_group": ("keras", "mine/vars/0", lambda p: add_to_zip(p, "mine/vars/0")),
    "zip_at_the_top": ("keras", "mine", lambda p: add_to_zip(p, "mine")),
    "zip_layer": ("keras", "layers/mine/vars/0", lambda p: add_to_zip(p, "layers/mine/vars/0")),
    "zip_of_a_dense": ("keras", "layers/dense/vars/2", lambda p: add_to_zip(p, "layers/dense/vars/2")),
    "zip_of_a_dropout": (
        "keras", "layers/dropout/vars/0", lambda p: add_to_zip(p, "layers/dropout/vars/0"),
    ),
    "zip_beside_a_cell": (
        "keras", "layers/lstm/cell/mine", lambda p: add_to_zip(p, "layers/lstm/cell/mine"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EXTRAS)
@BOTH
def test_an_array_too_many(framework: str, name: str, tmp_path: Path) -> None:
    way, path, add = EXTRAS[name]
    source = small_file(framework, way, tmp_path)
    honest = entries_of(nc.from_keras(source))
    add(source)
    with pytest.raises(UnsupportedError) as caught:
        nc.from_keras(source)
    (reason,) = caught.value.reasons
    assert f"{path} (2, 5)" in reason
    assert_complete_but(nc.from_keras(source, allow_unused=[path]), path, honest)


@pytest.mark.parametrize("name", ["of_a_group", "of_a_dropout", "zip_own_group"])
def test_an_array_too_many_on_the_command_line(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    way, path, add = EXTRAS[name]
    source = small_file("tf_keras", way, tmp_path)
    add(source)
    status, out, err = run_main(capsys, "convert", source, tmp_path / "m.npz", "--record", 0)
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert path in err

    given = (source, tmp_path / "m.npz", "--record", 0, "--allow-unused", path)
    status, out, err = run_main(capsys, "convert", *given)
    assert (status, err) == (0, "")
    assert_shown_as_left(out, path)


def assert_shown_as_left(out: str, path: str) -> None:
    ((_, shape, layer, fate),) = [row for row in rows_of(out) if row[0] == path]
    assert (shape, layer) == ("(2, 5)", "-")
    assert fate.startswith("left over")


def assert_complete_but(spec: ModelSpec, path: str, honest: list[dict[str, Any]]) -> None:
    entries = entries_of(spec)
    left = {"source": path, "shape": [2, 5], "layer": "", "weights": []}
    assert [e for e in entries if e["source"] == path] == [left]
    assert [e for e in entries if e["source"] != path] == honest


@pytest.mark.parametrize("name", EXTRAS)
def test_an_array_too_many_comes_with_advice(name: str, tmp_path: Path) -> None:
    way, path, add = EXTRAS[name]
    source = small_file("tf_keras", way, tmp_path)
    add(source)
    with pytest.raises(UnsupportedError, match=re.escape(f"--allow-unused {path}")):
        nc.from_keras(source)


def test_a_layer_too_many_with_names_that_are_taken(tmp_path: Path) -> None:
    source = small_file("tf_keras", "h5", tmp_path)
    honest = entries_of(nc.from_keras(source))
    add_group(source, "copy", "d/kernel:0")
    with pytest.raises(UnsupportedError, match="d/kernel:0") as caught:
        nc.from_keras(source)
    advice = re.search(r"--allow-unused (\S+?)\)?$", caught.value.reasons[0])
    assert advice is not None
    assert_complete_but(nc.from_keras(source, allow_unused=[advice[1]]), advice[1], honest)


def test_several_are_named_at_once(tmp_path: Path) -> None:
    source = small_file("tf_keras", "h5", tmp_path)
    add_group(source, "odd", "odd/kernel:0")
    add_group(source, "even", "even/kernel:0")
    with pytest.raises(UnsupportedError) as caught:
        nc.from_keras(source)
    assert len(caught.value.reasons) == 2
    with pytest.raises(UnsupportedError, match="odd/kernel:0") as caught:
        nc.from_keras(source, allow_unused=["even/even/kernel:0"])
    assert len(caught.value.reasons) == 1
    spec = nc.from_keras(source, allow_unused=["odd/odd/kernel:0", "even/even/kernel:0"])
    assert [e["source"] for e in entries_of(spec) if not e["layer"]] == [
        "odd/odd/kernel:0", "even/even/kernel:0",
    ]  # fmt: skip


@pytest.mark.parametrize("way", ["keras", "h5"])
@BOTH
def test_nothing_of_that_name_is_left_over(framework: str, way: str, tmp_path: Path) -> None:
    source = small_file(framework, way, tmp_path)
    for name in ("nothing/here", "l", "layers", ""):
        with pytest.raises(FormatError, match=f"allow_unused: .*{name!r}"):
            nc.from_keras(source, allow_unused=[name])


@pytest.mark.parametrize("way", ["keras", "h5"])
@BOTH
def test_what_a_layer_needs_cannot_be_left_over(framework: str, way: str, tmp_path: Path) -> None:
    source = small_file(framework, way, tmp_path)
    for entry in entries_of(nc.from_keras(source)):
        with pytest.raises(UnsupportedError, match=f"{entry['layer']}: "):
            nc.from_keras(source, allow_unused=[entry["source"]])


def test_advice_for_tfjs_can_be_followed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = next(p for p in TFJS if p.name == "lstm")
    layout = tfjs_layout.read(folder)
    odd = tfjs_layout.weight("odd/kernel", np.zeros((2, 5)))
    layout.with_weights([*layout.weights, odd]).write(tmp_path)
    status, _, err = run_main(capsys, "convert", tmp_path, tmp_path / "m.npz", "--record", 0)
    assert status == 2
    assert "odd/kernel (2, 5)" in err
    options = [("--allow-unused", "odd/kernel")] if "--allow-unused" in err else []
    for option in options:
        given = (tmp_path, tmp_path / "m.npz", "--record", 0, *option)
        status, out, err = run_main(capsys, "convert", *given)
        assert (status, err) == (0, "")
        assert_shown_as_left(out, "odd/kernel")


def unmatched_factors(spec: ModelSpec) -> Iterator[str]:
    return (e["source"] for e in entries_of(spec) if not e["layer"])


def test_nothing_is_left_over_of_an_honest_file(tmp_path: Path) -> None:
    assert list(unmatched_factors(nc.from_keras(small_file("keras3", "keras", tmp_path)))) == []
