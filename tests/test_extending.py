"""The worked examples of docs/extending.md: each block is run where it says that it goes."""

from __future__ import annotations

import importlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest
from builders import make_chain
from npylstm_converters import registry
from npylstm_converters.torch import rows
from operations.check import check_operation

from npylstm import Model, UnsupportedError, activations, load, ops, save, storage
from npylstm.activations import Activation
from npylstm.kernels import arguments, layers, table
from npylstm.kernels.library import Kernel
from npylstm.ops import pointwise
from npylstm.ops.dense import Dense
from npylstm.ops.pointwise import Rescaling

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"```python\n# (?P<place>[^\n:]+)[^\n]*\n(?P<code>.*?)```", re.DOTALL)


def blocks(place: str) -> list[str]:
    """The code of the blocks that go into a file."""
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    found = [match["code"] for match in BLOCK.finditer(text) if match["place"] == place]
    assert found, place
    return found


def run_in(module: Any, code: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run a block with the names of a module; what it defines is there until the test ends."""
    names = dict(vars(module))
    exec(compile(code, module.__name__, "exec"), names)
    made = {k: v for k, v in names.items() if k not in vars(module)}
    for name, value in made.items():
        if not name.startswith("__"):
            monkeypatch.setattr(module, name, value, raising=False)
    return made


def test_every_block_is_run_and_every_file_is_there() -> None:
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    places = [match["place"] for match in BLOCK.finditer(text)]
    assert len(places) == text.count("```python\n") == 10
    for place in places:
        assert (ROOT / place).exists() or "/toy/" in place


def test_an_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "_TABLE", dict(ops._TABLE))
    (code,), (row,) = blocks("npylstm/ops/pointwise.py"), blocks("npylstm/ops/__init__.py")
    cube = run_in(pointwise, code, monkeypatch)["Cube"]
    exec(row, vars(ops))
    (check,) = blocks("tests/operations/cases.py")
    exec(check, {"check_operation": check_operation, "Cube": cube})
    model = Model(make_chain(cube()), "numpy")
    assert model.session().push(np.full((1, 2, 3), 2.0)).tolist() == [[[8.0] * 3] * 2]


def test_a_name_of_a_framework(monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = blocks("converters/npylstm_converters/torch/rows.py")
    made = run_in(rows, code, monkeypatch)["added"]
    assert [row.name for row in made] == ["aten.cube.default"]


def test_an_activation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activations, "TABLE", dict(activations.TABLE))
    (code,) = blocks("npylstm/activations.py")
    exec(code, vars(activations))
    clip = Activation.from_json({"name": "soft_clip", "limit": 2.0})
    assert clip(np.float64([100.0]))[0] == 2.0


def test_a_kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("numba", reason="numba is an optional package")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    (columns,) = blocks("npylstm/kernels/arguments.py")
    made = run_in(arguments, columns, monkeypatch)
    for module in (layers, table):
        monkeypatch.setattr(module, "RESCALING", made["RESCALING"], raising=False)
    (code,), (row,) = blocks("npylstm/kernels/layers.py"), blocks("npylstm/kernels/table.py")
    run_in(layers, code, monkeypatch)
    new = run_in(table, row, monkeypatch)["row"]
    assert isinstance(new.kernel, Kernel)
    spec = make_chain(Rescaling(2.0, -1.0), dtype="float64")
    x = np.random.default_rng(0).normal(size=(2, 5, 3))
    plain = Model(spec, "numba").predict(x)
    monkeypatch.setattr(table, "_ROWS", (*table._ROWS, new))
    model = Model(spec, "numba")
    assert [type(run).__name__ for run in model._engine._runs] == ["Segment"]  # type: ignore[attr-defined]
    np.testing.assert_array_equal(model.predict(x), plain)


def test_a_storage_type(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(storage, "STORAGE", dict(storage.STORAGE))
    (code,) = blocks("npylstm/storage.py")
    exec(code, vars(storage))
    (layer,) = make_chain(Dense(features=3, units=2)).layers
    narrow = layer.in_storage("int8")
    kernel = layer.weights["kernel"]
    assert 0 < np.abs(narrow.weights["kernel"] - kernel).max() < np.abs(kernel).max() / 127
    spec = make_chain(Dense(features=3, units=2))
    spec = replace(spec, layers=tuple(named.in_storage("int8") for named in spec.layers))
    save(spec, tmp_path / "m.npz")
    with np.load(tmp_path / "m.npz") as file:
        assert file[f"{layer.name}/kernel"].dtype == np.int8
        assert file[f"{layer.name}/kernel.scale"].shape == (2,)
    assert load(tmp_path / "m.npz").spec == spec


def test_an_importer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (code,) = blocks("converters/npylstm_converters/toy/importer.py")
    names: dict[str, Any] = {"json": json, "Path": Path}
    for module in ("npylstm", "npylstm.graph.builder", "npylstm.graph.parts",
                   "npylstm_converters.errors", "npylstm_converters.registry",
                   "npylstm_converters.toolkit.translation"):  # fmt: skip
        names |= vars(importlib.import_module(module))
    names["array_ops"] = importlib.import_module("npylstm_converters.toolkit.array_ops")
    exec(code, names)
    monkeypatch.setattr(registry, "importers", lambda: [names["ToyImporter"]()])
    calls = [["a", "relu", {"x": "input"}], ["b", "plus", {"left": "a", "right": 1.5}]]
    document = {"toy": 1, "features": 3, "calls": calls, "output": "b"}
    (tmp_path / "m.toy").write_text(json.dumps(document))
    model = Model(nc.convert(tmp_path / "m.toy"), "numpy")
    assert model.predict(np.full((1, 1, 3), -2.0)).tolist() == [[[1.5] * 3]]
    calls += [["c", "plus", {"left": "a", "right": "b", "how": 1}], ["d", "sort", {"x": "a"}]]
    (tmp_path / "m.toy").write_text(json.dumps(document))
    with pytest.raises(UnsupportedError) as caught:
        nc.convert(tmp_path / "m.toy")
    assert caught.value.reasons == (
        "c: argument how=1 is not supported", "d: operation 'sort' is not supported",
    )  # fmt: skip
