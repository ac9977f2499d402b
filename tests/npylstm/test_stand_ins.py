"""Files that are there in place of a model are named for what they are."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import npylstm_converters as nc
import pytest

from npylstm import FormatError, NpylstmError
from npylstm.io.stand_ins import check_content

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize 12345\n" % (b"ab" * 32)
ANNEX = b"/annex/objects/SHA256E-s12345--%s.h5\n" % (b"ab" * 32)
PAGE = (
    b"\xef\xbb\xbf\n<!DOCTYPE html>\n<html lang='en'><head><title>Sign in\n</title></head></html>\n"
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (LFS, r"m\.h5: is a Git LFS pointer.*a file of 12,345 bytes.*`git lfs pull`"),
        (LFS.replace(b"git-lfs", b"hawser"), "Git LFS pointer"),
        (ANNEX, "git-annex pointer.*`git annex get`"),
        (PAGE, "an HTML page titled 'Sign in', not a model: the download .*raw file"),
        (b"<html>nothing", "an HTML page, not a model"),
        (b"\x1f\x8b\x08" + bytes(9), "compressed with gzip: unpack it first"),
        (b"7z\xbc\xaf\x27\x1c\0", "compressed with 7-Zip"),
    ],
)
def test_files_in_place_of_a_model(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=message):
        nc.convert(path)


@pytest.mark.parametrize("name", ["keras22_stacked.h5", "keras20_shapes.h5"])
def test_a_part_of_an_hdf5_file(name: str, keras_data: Path, tmp_path: Path) -> None:
    whole = (keras_data / name).read_bytes()
    path = tmp_path / "m.h5"
    path.write_bytes(whole[: len(whole) // 2])
    expected = f"incomplete: an HDF5 file of {len(whole):,} bytes, of which {len(whole) // 2:,} are"
    for convert in (nc.convert, nc.from_keras):
        with pytest.raises(FormatError, match=expected):
            convert(path)
    path.write_bytes(whole + b"more")
    check_content(path)


def test_a_part_of_a_zip(tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}" * 50)
    check_content(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(FormatError, match="incomplete: a zip file of 100 bytes without its end"):
        nc.convert(path)


def test_a_pointer_inside_a_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.weights.h5").write_bytes(LFS)
    with pytest.raises(NpylstmError, match=r"model\.weights\.h5: is a Git LFS pointer"):
        nc.convert(tmp_path)


def test_a_pointer_beside_a_file(tmp_path: Path, root: Path, keras_data: Path) -> None:
    """Weights of TensorFlow.js and an architecture are files of their own."""
    source = root / "models/stateful_sine_tfjs"
    folder = next(path.parent for path in source.rglob("model.json"))
    shutil.copytree(folder, tmp_path / "tfjs")
    shard = next((tmp_path / "tfjs").glob("*.bin"))
    shard.write_bytes(LFS)
    with pytest.raises(FormatError, match=rf"{shard.name}: is a Git LFS pointer"):
        nc.convert(tmp_path / "tfjs/model.json")
    (tmp_path / "m.json").write_bytes(LFS)
    with pytest.raises(FormatError, match=r"m\.json: is a Git LFS pointer"):
        nc.convert(keras_data / "keras22_stacked_weights.h5", architecture=tmp_path / "m.json")
