"""Models of ICU's lstm_word_segmentation, against an oracle in float64."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import npylstm_converters as nc
import numpy as np
import oracle
import pytest
from amp_files import draw, gates, in_columns

import npylstm
from npylstm import FormatError, ShapeError, UnsupportedError

LETTERS, FEATURES, UNITS = "กขคງ", 3, 5
ORDER = "ifco"
# Sums of up to 10 terms in 13 steps of cells that contract, each rounding by 1.1e-16.
IN_FLOAT64 = 1e-12


def matrix(array: Any) -> dict[str, Any]:
    return {"v": 1, "dim": list(array.shape), "data": array.ravel().tolist()}


RNG = np.random.default_rng(0)
TABLE = draw(RNG, len(LETTERS) + 1, FEATURES)
SIDES = [gates(RNG, ORDER, FEATURES, UNITS) for _ in range(2)]
KERNEL, BIAS = draw(RNG, 2 * UNITS, 4), draw(RNG, 4)


def document() -> dict[str, Any]:
    arrays = [TABLE, *(a for side in SIDES for a in in_columns(side, ORDER)[:3]), KERNEL, BIAS]
    mats = {f"mat{k}": matrix(array) for k, array in enumerate(arrays, 1)}
    letters = {letter: k for k, letter in enumerate(LETTERS)}
    return {"model": "Thai_codepoints_exclusive_model4_heavy", "dic": letters, **mats}


def expected(ids: Any) -> Any:
    x = TABLE[ids]
    forward, _ = oracle.lstm(SIDES[0], x)
    backward, _ = oracle.lstm(SIDES[1], x, backwards=True)
    both = np.concatenate([forward, backward[:, ::-1]], -1)
    return oracle.dense({"kernel": KERNEL, "bias": BIAS}, both, "softmax")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "weights.json"
    path.write_text(json.dumps(document(), ensure_ascii=False), encoding="utf-8")
    return path


IDS = np.random.default_rng(1).integers(0, len(LETTERS) + 1, (3, 13))


def test_the_model_computes_what_the_network_does(path: Path) -> None:
    spec = nc.from_icu(path)
    y = npylstm.Model(spec.astype("float64")).predict(IDS)
    np.testing.assert_allclose(y, expected(IDS), rtol=0, atol=IN_FLOAT64)
    y = npylstm.Model(spec).predict(IDS)
    np.testing.assert_allclose(y, expected(IDS), rtol=0, atol=1e-5)
    np.testing.assert_allclose(y.sum(-1), 1, atol=1e-6)
    with pytest.raises(ShapeError, match="integers from 0 to 4"):
        npylstm.Model(spec).predict([[5]])


def test_ids_and_labels_are_in_the_provenance(path: Path, tmp_path: Path) -> None:
    npylstm.save(nc.convert(path), tmp_path / "m.npz")
    origin = npylstm.load(tmp_path / "m.npz").spec.provenance
    assert origin["dic"] == {letter: k for k, letter in enumerate(LETTERS)}
    assert origin["labels"] == ["B", "I", "E", "S"]
    assert origin["proof"] == "proven"
    sources = [entry["source"] for entry in origin["tensors"]]
    assert sorted(sources) == [f"mat{k}" for k in range(1, 10)]
    assert all(entry["weights"] for entry in origin["tensors"])


def test_torch_runs_the_network_of_the_file(path: Path) -> None:
    importer = nc.find_importer(path)
    assert importer.name == "icu"
    spec = importer.convert(path)
    runner = importer.runner(path, spec)
    (y,) = runner({"ids": IDS}, {}).values()
    np.testing.assert_allclose(y, expected(IDS), rtol=0, atol=1e-5)
    assert npylstm.Model(nc.record(spec, runner, 4)).verify().passed


Change = Callable[[dict[str, Any]], object]
REFUSED: list[tuple[Change, str]] = [
    (lambda d: d.update(model="Thai_genvec123_model5_heavy"), r"generalised vectors \(genvec\)"),
    (lambda d: d.pop("dic"), r"generalised vectors \(genvec\)"),
    (lambda d: d.update(mat10=d["mat9"]), "key 'mat10' is not supported"),
    (lambda d: d["mat3"].update(v=2), "mat3: v=2 is not supported, only 1"),
    (lambda d: d["mat3"].update(scale=2), "mat3: key 'scale' is not supported"),
]
DAMAGED: list[tuple[Change, str]] = [
    (lambda d: d.update(model=3), "model: expected a name, got 3"),
    (lambda d: d.update(model="../../x"), "model: expected a name"),
    (lambda d: d.update(dic=[]), "dic: expected an object, got list"),
    (lambda d: d["dic"].update(x=9), "dic: expected the ids 0 to 4, each once"),
    (lambda d: d["dic"].update({LETTERS[0]: False}), "dic: expected the ids 0 to 3, each once"),
    (lambda d: d.pop("mat5"), "mat5: expected an object with dim and data"),
    (lambda d: d["mat1"].update(dim=[4, 3]), r"mat1: expected dim \[5, 3\], got \[4, 3\]"),
    (lambda d: d["mat2"].update(dim=[20, 3]), r"mat2: expected dim \[3, 20\], got \[20, 3\]"),
    (lambda d: d["mat3"].update(dim=[10**15, 20]), "mat2: expected dim"),
    (lambda d: d["mat9"].update(dim=[2, 2]), r"mat9: dim: expected 1 sizes, got \[2, 2\]"),
    (lambda d: d["mat1"].update(dim=[5, -3]), "mat1: dim: expected an integer from 1 on, got -3"),
    (lambda d: d["mat4"]["data"].pop(), r"mat4: data: expected numbers of shape \(20,\), found a list of 19"),
    (lambda d: d["mat4"].pop("data"), "mat4: data: expected numbers"),
    (lambda d: d["mat8"]["data"].__setitem__(0, float("nan")), "mat8: data: expected finite numbers"),
    (lambda d: d["mat8"]["data"].__setitem__(0, "1"), "mat8: data: expected a number, got '1'"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), REFUSED + DAMAGED)
def test_other_files_are_refused(change: Change, message: str, path: Path) -> None:
    made = document()
    change(made)
    path.write_text(json.dumps(made))
    kind = UnsupportedError if (change, message) in REFUSED else FormatError
    with pytest.raises(kind, match=message) as caught:
        nc.from_icu(path)
    assert str(path) in str(caught.value)
