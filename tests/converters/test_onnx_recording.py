"""ONNX on the command line: onnxruntime's outputs are recorded and replayed; what is missing is named."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import npylstm_converters as nc
import numpy as np
import onnxruntime
import pytest
from npylstm_converters.onnx.runner import OnnxRunner
from onnx import TensorProto
from onnx_graphs import Array, draw, graph_of, node, recurrent_weights, value

import npylstm
from npylstm import NpylstmError, UnsupportedError
from npylstm.cli import main

F, U = 3, 4


def run(capsys: Any, *arguments: Any) -> tuple[int, str, str]:
    try:
        status = main([str(a) for a in arguments])
    except SystemExit as exit_:
        status = int(exit_.code or 0)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def stateful() -> Any:
    """Return an LSTM that takes and returns its states, with a Dense layer."""
    nodes = [
        node("LSTM", ["x", "W", "R", "B", "", "h", "c"], ["y4", "hn", "cn"], hidden_size=U),
        node("Squeeze", ["y4", "one"], ["steps"]),
        node("MatMul", ["steps", "kernel"], ["product"]),
        node("Add", ["product", "bias"], ["y"]),
    ]
    rng = np.random.default_rng(0)
    arrays: dict[str, Array] = recurrent_weights("LSTM", F, U) | {
        "one": np.array([1]), "kernel": draw(rng, U, 2), "bias": draw(rng, 2),
    }  # fmt: skip
    state = [1, "batch", U]
    inputs = {"x": ["steps", "batch", F], "h": state, "c": state}
    return graph_of(nodes, inputs, ["y", "hn", "cn"], arrays)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(stateful().SerializeToString())
    return path


def test_convert_records_and_verify_passes(path: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "m.npz"
    status, stdout, stderr = run(capsys, "convert", path, out)
    assert (status, stderr) == (0, "")
    version = onnxruntime.__version__
    assert f"recorded cases against onnxruntime {version}" in stdout
    assert "parity held" in stdout
    for name in ("W", "R", "B", "kernel", "bias"):
        assert any(line.startswith(f"{name} ") for line in stdout.splitlines()), stdout
    spec = npylstm.load(out).spec
    assert spec.cases
    assert {t.name for t in spec.inputs} == {"x", "h", "c"}
    assert all({*case.outputs} == {"y", "hn", "cn"} for case in spec.cases)
    assert any(np.asarray(case.inputs["h"]).any() for case in spec.cases)
    sizes = {np.asarray(case.inputs["x"]).shape[:2] for case in spec.cases}
    assert len({steps for steps, _ in sizes}) > 1
    assert len({batch for _, batch in sizes}) > 1
    assert run(capsys, "verify", out)[0] == 0
    status, stdout, _ = run(capsys, "verify", out, "--against", path, "--cases", 3, "--seed", 4)
    assert status == 0
    assert f"3 recorded cases against onnxruntime {version}, seed 4" in stdout
    status, stdout, _ = run(capsys, "info", out)
    assert status == 0
    assert "operator set 17" in stdout


def test_another_model_is_not_held_for_this_one(path: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "m.npz"
    assert run(capsys, "convert", path, out, "--record", 0)[0] == 0
    model = stateful()
    (tensor,) = [t for t in model.graph.initializer if t.name == "bias"]
    from onnx import numpy_helper

    tensor.CopyFrom(numpy_helper.from_array(np.float32([0.5, 0.6]), "bias"))
    other = tmp_path / "other.onnx"
    other.write_bytes(model.SerializeToString())
    status, stdout, _ = run(capsys, "verify", out, "--against", other, "--cases", 3)
    assert status == 1
    assert "parity FAILED" in stdout


def test_without_onnxruntime_a_warning_says_so(
    path: Path, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    status, stdout, stderr = run(capsys, "convert", path, tmp_path / "m.npz")
    assert status == 0
    assert "0 recorded cases" in stdout
    assert len(stderr.splitlines()) == 1
    assert "onnxruntime records the outputs of ONNX models: pip install onnxruntime" in stderr
    status, _, stderr = run(capsys, "verify", tmp_path / "m.npz", "--against", path)
    assert status == 2
    assert "pip install onnxruntime" in stderr


def test_without_onnx_the_extra_is_named(
    path: Path, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    status, _, stderr = run(capsys, "convert", path, tmp_path / "m.npz")
    assert status == 2
    assert "the onnx package reads ONNX files: pip install 'npylstm[onnx]'" in stderr


def test_refusals_come_in_one_line(tmp_path: Path, capsys: Any) -> None:
    nodes = [node("Bernoulli", ["x"], ["a"]), node("Det", ["x"], ["b"])]
    path = tmp_path / "m.onnx"
    path.write_bytes(graph_of(nodes, {"x": ["batch", 4, 4]}, ["a", "b"]).SerializeToString())
    status, _, stderr = run(capsys, "convert", path, tmp_path / "m.npz")
    assert status == 2
    assert "Bernoulli a: is not supported; Det b: is not supported" in stderr
    status, _, stderr = run(capsys, "convert", path, tmp_path / "m.npz", "--json")
    assert status == 2


def test_json(path: Path, tmp_path: Path, capsys: Any) -> None:
    status, stdout, _ = run(capsys, "convert", path, tmp_path / "m.npz", "--record", 2, "--json")
    assert status == 0
    document = json.loads(stdout)
    assert document["cases"] == 2
    assert document["provenance"]["framework"] == "ONNX"
    assert document["parity"]["passed"]


@pytest.mark.parametrize("dims", [[], [1]])
def test_the_runner_fixes_inputs_as_the_conversion_does(dims: list[int]) -> None:
    nodes = [
        node("Cast", ["rate"], ["r"], to=TensorProto.FLOAT),
        node("Div", ["x", "r"], ["scaled"]),
        node("GRU", ["scaled", "W", "R", "B"], ["", "h"], hidden_size=U),
    ]
    inputs = [value("x", ["steps", "batch", F]), value("rate", dims, TensorProto.INT64)]
    model = graph_of(nodes, inputs, ["h"], recurrent_weights("GRU", F, U))
    constants = {"rate": 5}
    spec = nc.from_onnx(model, constants=constants)
    recorded = nc.record(spec, OnnxRunner(model, spec, constants), 4)
    assert npylstm.Model(recorded).verify().passed
    assert all({*case.inputs} == {"x"} for case in recorded.cases)


def test_sizes_that_a_file_fixes_are_recorded_with() -> None:
    call = node("GRU", ["x", "W", "R", "B"], ["", "h"], hidden_size=U)
    model = graph_of([call], {"x": [5, 1, F]}, ["h"], recurrent_weights("GRU", F, U))
    spec = nc.from_onnx(model)
    assert spec.inputs[0].shape == (5, "batch", F)
    recorded = nc.record(spec, OnnxRunner(model, spec, {}))
    assert {np.asarray(case.inputs["x"]).shape for case in recorded.cases} == {(5, 1, F)}
    assert npylstm.Model(recorded).verify().passed


def test_an_error_of_onnxruntime_is_one_line() -> None:
    model = graph_of([node("Tanh", ["x"], ["y"])], {"x": ["batch", 4]}, ["y"])
    spec = nc.from_onnx(model)
    model.graph.node[0].op_type = "Nothing"
    with pytest.raises(NpylstmError, match=r"onnxruntime: .*Nothing"):
        OnnxRunner(model, spec, {})
    with pytest.raises(UnsupportedError, match="Nothing y: is not supported"):
        nc.from_onnx(model)
