"""JSON sources: each importer takes its own files and no other's."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import npylstm_converters as nc
import pytest
from amp_files import CAPTURES, aidax, nam
from npylstm_converters.toolkit.json_files import read_object, top_keys

from npylstm import FormatError

TFJS = {"format": "layers-model", "modelTopology": {"layers": [], "in_shape": 1, "mat1": 2}, "weightsManifest": []}  # fmt: skip
ICU = {"model": "x", "dic": {}, **{f"mat{k}": {"v": 1, "dim": [1], "data": [0]} for k in range(1, 10)}}  # fmt: skip
FILES: dict[str, tuple[Any, str]] = {
    **{name: (make().document, "amp") for name, make in CAPTURES.items()},
    "tfjs": (TFJS, "tfjs"),
    "icu": (ICU, "icu"),
    # The ninth byte of safetensors is a brace, too.
    "icu, mat1 first": (dict(sorted(ICU.items())), "icu"),
    "torch": ({"rnn.weight_ih_l0": [[1.0]], "rnn.weight_hh_l0": [[1.0]]}, "torch"),
    "torch, one module": ({"weight": [[1.0]], "bias": [1.0]}, "torch"),
    "a capture that quotes another format": (
        {**nam().document, "metadata": {"name": '"modelTopology": 3', "modelTopology": "x"}}, "amp",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("indent", [None, 1])
def test_each_importer_takes_its_own_files(name: str, indent: int | None, tmp_path: Path) -> None:
    document, importer = FILES[name]
    path = tmp_path / "model.json"
    path.write_text(json.dumps(document, indent=indent))
    assert nc.find_importer(path).name == importer
    path.write_text("\ufeff\n " + json.dumps(document))
    assert nc.find_importer(path).name == importer


@pytest.mark.parametrize("text", ['{"a": 1}', "{}", "[1]", '{"weight": 1, "other": 2}', "{"])
def test_other_json_is_nobodys(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(FormatError, match="no importer knows"):
        nc.find_importer(path)


def test_keys_of_damaged_files_are_those_that_look_like_keys(tmp_path: Path) -> None:
    path = tmp_path / "cut.json"
    path.write_text('{"in_shape": [1], "layers": [{"type": "ls')
    assert top_keys(path) == {"in_shape", "layers", "type"}
    path.write_bytes(b"\xff\xfe\x00")
    assert top_keys(path) == set()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FormatError, match="expected a file"):
        read_object(tmp_path / "pipe")


def test_a_document_is_an_object(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("[1, 2]")
    with pytest.raises(FormatError, match="expected a JSON object, got list"):
        read_object(path)
    path.write_text(json.dumps(aidax().document), encoding="utf-16")
    with pytest.raises(FormatError, match="not JSON, or damaged"):
        read_object(path)
