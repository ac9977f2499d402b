"""Scan and If of ONNX, against onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest
from onnx_cells import (
    ELMAN,
    ELMAN_STATE,
    INT,
    LSTM,
    LSTM_STATES,
    SIZES,
    WEIGHTS,
    F,
    X,
    feeds,
    state,
    zeros,
)
from onnx_graphs import ATOL, agree, body, graph_of, node, predict, run_onnxruntime, value

import npylstm
from npylstm import UnsupportedError


def scan_of(
    step: Sequence[Any], carried: Mapping[str, str], reads: Sequence[Any], made: Sequence[str],
    inputs: Mapping[str, Sequence[int | str]], data: Sequence[str], before: Sequence[Any] = (),
    **attributes: Any,
) -> Any:  # fmt: skip
    own = body(
        [*step, *[node("Identity", [name], [f"{name}_"]) for name in made]],
        [*[state(name) for name in carried], *reads],
        [*[state(name) for name in carried.values()], *[state(f"{name}_") for name in made]],
    )
    names = [f"{name}s" for name in made]
    finals = [f"{name}_final" for name in carried]
    call = node(
        "Scan", [*[f"{name}0" for name in carried], *data], [*finals, *names], name="scan",
        body=own, num_scan_inputs=len(data), **attributes,
    )  # fmt: skip
    nodes = [*before, *[n for name in carried for n in zeros(f"{name}0")], call]
    return graph_of(nodes, inputs, [*finals, *names], WEIGHTS | SIZES)


XT = value("xt", ["batch", F])


def of_lstm(**attributes: Any) -> Any:
    return scan_of(LSTM, LSTM_STATES, [XT], ["new", "newc"], X, ["x"], **attributes)


@pytest.mark.parametrize("attributes", [
    {}, {"scan_input_directions": [1]}, {"scan_output_directions": [1, 0]},
    {"scan_output_axes": [1, 2]}, {"scan_output_axes": [-1, 0], "scan_output_directions": [0, 1]},
    {"scan_input_directions": [1], "scan_output_directions": [1, 1], "scan_output_axes": [1, 1]},
])  # fmt: skip
@pytest.mark.parametrize("opset", [11, 17])
def test_scans(attributes: dict[str, Any], opset: int) -> None:
    model = of_lstm(**attributes)
    model.opset_import[0].version = max(opset, 15)  # Shape has limits since 15
    agree(model, feeds(), feeds(1, 1), feeds(9, 3))


@pytest.mark.parametrize("axis", [1, -2])
def test_a_scan_along_another_axis(axis: int) -> None:
    """The batch comes first."""
    zero = [
        node("Shape", ["x"], ["h0_shape"], start=0, end=1),
        node("Concat", ["h0_shape", "units"], ["h0_sizes"], axis=0),
        node("ConstantOfShape", ["h0_sizes"], ["h0"]),
    ]
    model = scan_of(ELMAN, ELMAN_STATE, [XT], ["new"], {"x": ["batch", "steps", F]}, ["x"],
                    scan_input_axes=[axis], scan_output_axes=[1])  # fmt: skip
    for old in [n for n in model.graph.node if n.output[0].startswith("h0")]:
        model.graph.node.remove(old)
    for new in reversed(zero):
        model.graph.node.insert(0, new)
    x = feeds(6, 3)["x"].swapaxes(0, 1).copy()
    spec = agree(model, {"x": x}, {"x": x[:1, :2]})
    assert spec.inputs[0].shape == ("batch", "steps", F)
    session = npylstm.Model(spec.subgraph(["x"], ["news"])).session(3)
    parts = [session.push(part) for part in np.split(x, [2, 3], axis=1)]
    np.testing.assert_allclose(np.concatenate(parts, 1), predict(spec, {"x": x})["news"], atol=1e-6)


def test_a_scan_of_two_sequences_in_two_directions() -> None:
    step = [*ELMAN[:-1], node("MatMul", ["yt", "Wh"], ["w"]), node("Add", ["s", "w"], ["sw"]),
            node("Tanh", ["sw"], ["new"])]  # fmt: skip
    inputs = {"x": ["steps", "batch", F], "y": ["steps", "batch", F]}
    model = scan_of(step, ELMAN_STATE, [XT, value("yt", ["batch", F])], ["new"], inputs, ["x", "y"],
                    scan_input_directions=[0, 1])  # fmt: skip
    agree(model, {"x": feeds(6)["x"], "y": 2 * feeds(6)["x"]})


def test_a_scan_without_states() -> None:
    model = scan_of([node("MatMul", ["xt", "Wh"], ["new"])], {}, [XT], ["new"], X, ["x"])
    agree(model, feeds(), feeds(1, 1))


def test_scans_of_version_8_are_refused() -> None:
    model = of_lstm()
    model.opset_import[0].version = 8
    with pytest.raises(UnsupportedError, match="is not supported in version 8 of the operator set"):
        nc.from_onnx(model)


# --- If ------------------------------------------------------------------------------------------


def chooses(*before: Any, inputs: Sequence[Any] = (), more: Mapping[str, Any] = {}) -> Any:
    inner = node(
        "If", ["true"], ["a"], then_branch=body([node("Tanh", ["p"], ["t"])], [], ["t"]),
        else_branch=body([node("Abs", ["p"], ["t"])], [], ["t"]),
    )  # fmt: skip
    then = body([node("MatMul", ["x", "Wh"], ["p"]), inner], [], ["a"])
    other = body([node("MatMul", ["x", "V"], ["n"])], [], ["n"], {"V": -WEIGHTS["Wh"]})
    call = node("If", ["chosen"], ["y"], name="if", then_branch=then, else_branch=other)
    return graph_of(
        [*before, call], [value("x", X["x"]), *inputs], ["y"], {**WEIGHTS, **SIZES, **more}
    )


@pytest.mark.parametrize("flag", [True, False])
def test_a_condition_that_is_a_constant(flag: bool) -> None:
    agree(chooses(more={"chosen": np.array(flag)}), feeds())


@pytest.mark.parametrize("rate", [8000, 16000])
def test_a_condition_on_an_input_that_is_fixed(rate: int) -> None:
    before = [node("Equal", ["sr", "wide"], ["chosen"])]
    model = chooses(*before, inputs=[value("sr", [], INT)], more={"wide": np.array(16000)})
    spec = nc.from_onnx(model, constants={"sr": rate})
    assert [t.name for t in spec.inputs] == ["x"]
    expected = run_onnxruntime(model, {**feeds(), "sr": np.array(rate)})["y"]
    np.testing.assert_allclose(predict(spec, feeds())["y"], expected, rtol=0, atol=ATOL)
    with pytest.raises(
        UnsupportedError, match=r"If if: its condition depends on .* --set NAME=VALUE"
    ):
        nc.from_onnx(model)


def test_a_condition_on_a_size() -> None:
    before = [node("Shape", ["x"], ["shape"]), node("Gather", ["shape", "last"], ["f"], axis=0),
              node("Equal", ["f", "three"], ["chosen"])]  # fmt: skip
    agree(chooses(*before, more={"last": np.array(2), "three": np.array(3)}), feeds())
    before[1] = node("Gather", ["shape", "first"], ["f"], axis=0)
    model = chooses(*before, more={"three": np.array(3)})
    with pytest.raises(
        UnsupportedError,
        match="whether steps is equal to 3 depends on the call; --set steps=NUMBER fixes it",
    ):
        nc.from_onnx(model)
    fixed = nc.from_onnx(model, constants={"steps": 3})
    assert fixed.inputs[0].shape == (3, "batch", F)


@pytest.mark.parametrize(("dims", "hint"), [
    (["N", "T", F], "; --set N=NUMBER fixes it"), ([None, None, F], "$"),
])  # fmt: skip
def test_a_condition_on_the_batch_has_the_name_that_the_file_gives_it(dims: Any, hint: str) -> None:
    before = [node("Shape", ["x"], ["shape"]), node("Gather", ["shape", "first"], ["n"], axis=0),
              node("Equal", ["n", "three"], ["chosen"])]  # fmt: skip
    model = chooses(*before, more={"three": np.array(3)})
    model.graph.input[0].CopyFrom(value("x", dims))
    with pytest.raises(
        UnsupportedError, match=f"whether batch is equal to 3 depends on the call.*{hint}"
    ):
        nc.from_onnx(model)
    if dims[0]:
        assert nc.from_onnx(model, constants={"N": 3}).inputs[0].shape[0] == 3
