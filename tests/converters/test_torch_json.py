"""A state_dict as JSON, which RTNeural's examples use: read like other files of weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import npylstm_converters as nc
import numpy as np
import oracle
import pytest
from amp_files import draw, gates, in_rows

import npylstm
from npylstm import FormatError, UnsupportedError
from npylstm.cli import main

RNG = np.random.default_rng(0)
GRU, KERNEL, BIAS = gates(RNG, "zrh", 1, 4), draw(RNG, 1, 4), draw(RNG, 1)
CHAIN = {"layers": "gru -> dense", "batch_first": True}


def tensors() -> dict[str, Any]:
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    own = dict(zip((f"gru.{n}" for n in names), in_rows(GRU, "rzh"), strict=True))
    return {k: w.tolist() for k, w in {**own, "dense.weight": KERNEL, "dense.bias": BIAS}.items()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "gru.json"
    path.write_text(json.dumps(tensors()))
    return path


def test_the_chain_computes_what_the_network_does(path: Path) -> None:
    x = RNG.uniform(-1, 1, (2, 19, 1))
    expected = oracle.dense({"kernel": KERNEL.T, "bias": BIAS}, oracle.gru(GRU, x))
    spec = nc.convert(path, **CHAIN)
    # 19 steps of a cell that contracts; weights are exact in float32.
    y = npylstm.Model(spec.astype("float64")).predict(x)
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-12)
    assert spec.provenance["source_format"] == "JSON state_dict"
    assert spec.provenance["proof"] == "stated"
    runner = nc.find_importer(path).runner(path, spec, **CHAIN)
    assert npylstm.Model(nc.record(spec, runner, 3)).verify().passed


def test_info_asks_what_it_leaves_open(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(path)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("JSON state_dict, the weights of 2 modules:")
    assert '--layers "gru -> last -> dense" --batch-first' in said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dense.bias": [float("nan")]}, "dense.bias: expected finite numbers"),
        ({"dense.bias": ["1"]}, "dense.bias: expected a number, got '1'"),
        ({"dense.weight": [[1.0], 2.0]}, "dense.weight: expected numbers of shape"),
        ({"dense.weight": [[]]}, "dense.weight: expected numbers in up to 32 levels"),
    ],
)
def test_damaged_tensors_are_named(change: dict[str, Any], message: str, path: Path) -> None:
    path.write_text(json.dumps({**tensors(), **change}))
    with pytest.raises(FormatError, match=message):
        nc.convert(path, **CHAIN)


def test_a_flat_kernel_is_no_recurrent_layer(path: Path) -> None:
    flat = [row[0] for row in tensors()["gru.weight_ih_l0"]]
    path.write_text(json.dumps({**tensors(), "gru.weight_ih_l0": flat}))
    with pytest.raises(UnsupportedError, match="gru"):
        nc.convert(path, **CHAIN)


def test_nested_lists_have_a_limit(path: Path) -> None:
    path.write_text('{"weight": ' + 40 * "[" + "1" + 40 * "]" + "}")
    with pytest.raises(FormatError, match="weight: expected numbers in up to 32 levels of lists"):
        nc.convert(path, layers="model")


def test_it_has_no_keys(path: Path) -> None:
    with pytest.raises(FormatError, match="is a state_dict itself, and takes no key"):
        nc.convert(path, key="model", **CHAIN)
