"""Graphs that were once converted wrongly, against onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from npylstm_converters import from_onnx

import npylstm
from npylstm import UnsupportedError

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

Array = np.ndarray[Any, Any]
FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
node = helper.make_node


def value(name: str, shape: Sequence[Any] | None, kind: int = FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


X = value("x", ["N", "S", 3])


def graph(
    nodes: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[Any],
    constants: Mapping[str, Any] = {}, opset: int = 17,
) -> Any:  # fmt: skip
    stored = [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()]
    made = helper.make_graph(nodes, "g", inputs, outputs, stored)
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(made, opset_imports=opsets, ir_version=8)


def same_as_onnxruntime(model: Any, **inputs: Any) -> npylstm.ModelSpec:
    """Compare all outputs; float32 sums of few terms are equal within some units of the last."""
    spec = from_onnx(model)
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    want = session.run(None, inputs)
    got = npylstm.Model(spec).predict(inputs)
    made = got if isinstance(got, dict) else {spec.outputs[0]: got}
    for name, expected in zip(spec.outputs, want, strict=True):
        assert made[name].shape == expected.shape
        np.testing.assert_allclose(made[name], expected, rtol=2e-6, atol=2e-6)
    return spec


def numbers(*shape: int) -> Array:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def counts(*shape: int) -> Array:
    return np.random.default_rng(1).integers(-9, 9, shape)


def size_of_steps(operator: str, number: int) -> tuple[list[Any], dict[str, Any]]:
    """The number of steps of ``x`` combined with a number, as the tensor ``v`` of one entry."""
    constants = {"one": np.array([1]), "k": np.array([number]), "zero": np.array([0]),
                 "end": np.array([2**63 - 1])}  # fmt: skip
    nodes = [node("Shape", ["x"], ["all"]), node("Gather", ["all", "one"], ["s"]),
             node(operator, ["s", "k"], ["v"])]  # fmt: skip
    return nodes, constants


@pytest.mark.parametrize("more", [0, 2])
def test_a_slice_that_begins_behind_the_last_step_is_refused(more: int) -> None:
    nodes, constants = size_of_steps("Add", more)
    nodes.append(node("Slice", ["x", "v", "end", "one"], ["y"]))
    with pytest.raises(UnsupportedError, match=f"begins {more} entries behind the last of S"):
        from_onnx(graph(nodes, [X], [value("y", None)], constants))


def test_the_last_steps_counted_by_the_size() -> None:
    nodes, constants = size_of_steps("Sub", 5)
    nodes.append(node("Slice", ["x", "v", "end", "one"], ["y"]))
    model = graph(nodes, [X], [value("y", None)], constants)
    spec = same_as_onnxruntime(model, x=numbers(2, 7, 3))
    # ONNX takes 2 of 3 steps, as 3 - 5 counts from the end again: no model means that.
    with pytest.raises(npylstm.NpylstmError, match="expected 5 to take"):
        npylstm.Model(spec).predict(numbers(2, 3, 3))


def test_an_index_before_the_first_step_is_an_error() -> None:
    nodes = [node("Gather", ["x", "k"], ["y"], axis=1)]
    model = graph(nodes, [X], [value("y", None)], {"k": np.array([-5])})
    spec = same_as_onnxruntime(model, x=numbers(2, 5, 3))
    with pytest.raises(npylstm.NpylstmError, match="expected 1 to take"):
        npylstm.Model(spec).predict(numbers(2, 3, 3))


def backwards(start: int, steps: Any = "S") -> Any:
    bounds = {"a": np.array([start]), "b": np.array([-(2**63)]), "axis": np.array([1]),
              "step": np.array([-1])}  # fmt: skip
    nodes = [node("Slice", ["x", "a", "b", "axis", "step"], ["y"])]
    return graph(nodes, [value("x", ["N", steps, 3])], [value("y", None)], bounds)


@pytest.mark.parametrize("start", [-1, -2, -9, 3, 9])
def test_slices_that_go_backwards(start: int) -> None:
    same_as_onnxruntime(backwards(start, 5), x=numbers(2, 5, 3))


def test_backwards_from_the_last_but_one_depends_on_the_steps() -> None:
    with pytest.raises(UnsupportedError, match="goes backwards from -2 in S entries"):
        from_onnx(backwards(-2))


def test_a_size_as_a_truth_value_is_one() -> None:
    nodes, constants = size_of_steps("Add", 0)
    nodes += [node("Cast", ["v"], ["b"], to=BOOL), node("Cast", ["b"], ["f"], to=FLOAT),
              node("Mul", ["x", "f"], ["y"])]  # fmt: skip
    same_as_onnxruntime(graph(nodes, [X], [value("y", None)], constants), x=numbers(2, 3, 3))


def test_a_size_divided_by_zero_is_refused() -> None:
    nodes, constants = size_of_steps("Div", 0)
    nodes.append(node("Slice", ["x", "zero", "v", "one"], ["y"]))
    with pytest.raises(UnsupportedError, match="cannot be computed from sizes"):
        from_onnx(graph(nodes, [X], [value("y", None)], constants))


def test_a_size_and_a_number_as_a_tensor() -> None:
    nodes, constants = size_of_steps("Sub", 5)
    nodes += [node("Cast", ["v"], ["f"], to=FLOAT), node("Mul", ["x", "f"], ["y"])]
    same_as_onnxruntime(graph(nodes, [X], [value("y", None)], constants), x=numbers(2, 3, 3))


def test_quotients_of_integers_that_were_chosen_or_looked_up_are_cut_off() -> None:
    integers = [value("x", ["N", "S", 3], INT64)]
    constants = {"z": np.array(0), "a": np.array(7), "b": np.array(5), "k": np.array(2),
                 "t": np.arange(20).reshape(10, 2) * 3}  # fmt: skip
    chosen = [node("Greater", ["x", "z"], ["c"]), node("Where", ["c", "a", "b"], ["w"]),
              node("Div", ["w", "k"], ["y"])]  # fmt: skip
    looked_up = [node("Gather", ["t", "x"], ["w"]), node("Div", ["w", "k"], ["y"])]
    mean = [node("ReduceMean", ["x"], ["y"], axes=[2])]
    for nodes, x in ((chosen, counts(2, 5, 3)), (looked_up, abs(counts(2, 5, 3))),
                     (mean, counts(2, 5, 3))):  # fmt: skip
        same_as_onnxruntime(graph(nodes, integers, [value("y", None, INT64)], constants), x=x)


def test_an_output_that_is_an_input() -> None:
    outputs = [value("y", None), value("x", ["N", "S", 3])]
    model = graph([node("Relu", ["x"], ["y"])], [X], outputs)
    same_as_onnxruntime(model, x=numbers(2, 5, 3))


def test_a_constant_number_as_an_output() -> None:
    nodes = [node("Relu", ["x"], ["y"]), node("Identity", ["k"], ["z"])]
    model = graph(nodes, [X], [value("y", None), value("z", None)], {"k": np.float32(3)})
    same_as_onnxruntime(model, x=numbers(2, 5, 3))


def step(name: str, kind: int = FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, None)


def scan(body: Sequence[Any], states: Sequence[str], axis: int = 0) -> Any:
    """A Scan over ``x``: the body reads ``xt``, writes ``STATE2`` and ``o``."""
    inner = helper.make_graph(
        body, "body", [*map(step, states), step("xt")],
        [*(step(f"{s}2") for s in states), step("o")],
    )  # fmt: skip
    initial, finals = [f"{s}0" for s in states], [f"{s}f" for s in states]
    call = node("Scan", [*initial, "x"], [*finals, "y"], body=inner, num_scan_inputs=1,
                scan_input_axes=[axis], scan_output_axes=[axis])  # fmt: skip
    dims = ["S", "N", 3] if axis == 0 else ["N", "S", 3]
    inputs = [value("x", dims), *(value(name, ["N", 3]) for name in initial)]
    return graph([call], inputs, [value("y", None), *(value(name, None) for name in finals)])


@pytest.mark.parametrize("axis", [0, 1])
def test_scans_whose_states_and_steps_are_outputs(axis: int) -> None:
    body = [node("Add", ["h", "xt"], ["s"]), node("Tanh", ["s"], ["h2"]),
            node("Relu", ["h2"], ["o"])]  # fmt: skip
    shape = (5, 2, 3) if axis == 0 else (2, 5, 3)
    spec = same_as_onnxruntime(scan(body, ["h"], axis), x=numbers(*shape), h0=numbers(2, 3))
    assert spec.state_pairs == (("h0", "hf"),)


def test_states_that_change_places() -> None:
    body = [node("Identity", ["a"], ["b2"]), node("Identity", ["b"], ["a2"]),
            node("Add", ["b", "xt"], ["o"])]  # fmt: skip
    a, b = numbers(2, 3), numbers(2, 3) + 1
    same_as_onnxruntime(scan(body, ["a", "b"]), x=numbers(5, 2, 3), a0=a, b0=b)


def doubling(limit: int, least: int | None = None) -> Any:
    """A loop of ``h = h + h``; with ``least`` while the next iteration's number is below it."""
    inner = [node("Add", ["h", "h"], ["h2"])]
    inner += (
        [node("Identity", ["go"], ["more"])] if least is None else
        [node("Add", ["t", "one"], ["n"]), node("Less", ["n", "least"], ["more"])]
    )  # fmt: skip
    body = helper.make_graph(
        inner, "body", [value("t", [], INT64), value("go", [], BOOL), step("h")],
        [value("more", [], BOOL), step("h2")],
    )  # fmt: skip
    constants = {"limit": np.array(limit), "true": np.array(True), "one": np.array(1),
                 "least": np.array(least or 0)}  # fmt: skip
    call = node("Loop", ["limit", "true", "h0"], ["y"], body=body)
    return graph([call], [value("h0", ["N", 3])], [value("y", None)], constants)


@pytest.mark.parametrize(("limit", "least"), [(3, None), (9, 2), (9, -3)])
def test_loops_without_sequences(limit: int, least: int | None) -> None:
    spec = same_as_onnxruntime(doubling(limit, least), h0=numbers(2, 3))
    assert not spec.state_pairs  # nothing comes step by step


@pytest.mark.parametrize("limit", [0, -2])
def test_a_loop_without_iterations_is_refused(limit: int) -> None:
    with pytest.raises(UnsupportedError, match="has no iteration"):
        from_onnx(doubling(limit))


def test_indices_below_zero_of_one_hot_count_from_the_end() -> None:
    nodes = [node("OneHot", ["x", "depth", "values"], ["y"], axis=1)]
    constants = {"depth": np.array(9), "values": np.array([0.25, 0.75], np.float32)}
    model = graph(nodes, [value("x", ["N", "S"], INT64)], [value("y", None)], constants)
    same_as_onnxruntime(model, x=counts(2, 5))


def test_integer_inputs_are_no_states() -> None:
    nodes = [node("GatherND", ["x", "at"], ["y"], batch_dims=1)]
    inputs = [value("x", ["N", 4, 3]), value("at", ["N", 1], INT64)]
    spec = same_as_onnxruntime(
        graph(nodes, inputs, [value("y", None)]), x=numbers(2, 4, 3), at=np.array([[3], [1]])
    )
    assert not spec.state_pairs


@pytest.mark.parametrize("operator", ["Softmax", "LogSoftmax"])
def test_softmax_of_old_versions_over_several_axes(operator: str) -> None:
    model = graph([node(operator, ["x"], ["y"], axis=1)], [X], [value("y", None)], opset=11)
    same_as_onnxruntime(model, x=numbers(2, 5, 3))


@pytest.mark.parametrize("mode", ["reflect", "edge"])
def test_a_pad_that_repeats_entries_does_not_use_its_value(mode: str) -> None:
    pad = node("Pad", ["x"], ["y"], mode=mode, pads=[0, 1, 2, 0, 1, 1], value=0.5)
    model = graph([pad], [X], [value("y", None)], opset=7)
    same_as_onnxruntime(model, x=numbers(2, 5, 3))


@pytest.mark.parametrize("parameters", [{}, {"alpha": 1.5, "gamma": 0.5}])
def test_selu(parameters: dict[str, float]) -> None:
    model = graph([node("Selu", ["x"], ["y"], **parameters)], [X], [value("y", None)])
    same_as_onnxruntime(model, x=numbers(2, 5, 3))


def test_half_of_the_steps_as_a_size() -> None:
    nodes, constants = size_of_steps("Div", 2)
    constants |= {"first": np.array([0]), "six": np.array([6])}
    nodes += [node("Gather", ["all", "first"], ["n"]),
              node("Concat", ["n", "v", "six"], ["to"], axis=0),
              node("Reshape", ["x", "to"], ["y"])]  # fmt: skip
    same_as_onnxruntime(graph(nodes, [X], [value("y", None)], constants), x=numbers(2, 4, 3))


def test_a_vector_times_a_matrix() -> None:
    constants = {"flat": np.array([-1]), "w": numbers(15, 2)}
    nodes = [node("Reshape", ["x", "flat"], ["v"]), node("MatMul", ["v", "w"], ["y"])]
    model = graph(nodes, [value("x", [1, 5, 3])], [value("y", None)], constants)
    same_as_onnxruntime(model, x=numbers(1, 5, 3))


@pytest.mark.parametrize(
    "broken",
    [
        node("Slice", ["x", "one"], ["y"]),
        node("ConstantOfShape", [""], ["y"]),
        node("Constant", [], ["y"]),
        node("Cast", ["x"], ["y"], to=-1),
        node("Gemm", ["x", "one"], ["y"]),
        node("Unsqueeze", ["x", ""], ["y"]),
        node("CumSum", ["x", "several"], ["y"]),
        node("OneHot", ["x", "one", "one"], ["y"]),
        node("Relu", [], ["y"]),
    ],
    ids=lambda broken: broken.op_type,
)
def test_damaged_nodes_are_refused_by_name(broken: Any) -> None:
    constants = {"one": np.array([1]), "several": np.array([1, 2])}
    with pytest.raises(UnsupportedError, match=f"{broken.op_type} y: "):
        from_onnx(graph([broken], [X], [value("y", None)], constants))


def test_a_recurrent_input_with_too_few_axes_is_refused() -> None:
    weights = {"W": numbers(1, 4, 3), "R": numbers(1, 4, 4)}
    model = graph([node("RNN", ["x", "W", "R"], ["y"])], [value("x", ["N"])], [value("y", None)],
                  weights)  # fmt: skip
    with pytest.raises(UnsupportedError, match="expected 3 axes, got 1"):
        from_onnx(model)


def test_inputs_of_any_size_are_no_reason_to_allocate_them() -> None:
    model = graph([node("Relu", ["x"], ["y"])], [value("x", ["N", 1 << 40])], [value("y", None)])
    assert not from_onnx(model).state_pairs


def backwards_on_the_last_step(direction: str, states: Sequence[str] = ()) -> Any:
    ways = 2 if direction == "bidirectional" else 1
    weights = {"W": numbers(ways, 8, 3), "R": numbers(ways, 8, 2), "last": np.array([-1])}
    read = ["step", "W", "R", "", "", *states] if states else ["step", "W", "R"]
    nodes = [node("Gather", ["x", "last"], ["step"], axis=0),
             node("LSTM", read, ["", "hn", "cn"], hidden_size=2, direction=direction)]  # fmt: skip
    inputs = [value("x", ["S", "N", 3]), *(value(n, [ways, "N", 2]) for n in states)]
    return graph(nodes, inputs, [value("hn", None), value("cn", None)], weights)


@pytest.mark.parametrize("direction", ["reverse", "bidirectional"])
def test_no_session_where_a_layer_would_run_once_for_each_push(direction: str) -> None:
    """Its state would depend on how many pushes the steps came in."""
    spec = same_as_onnxruntime(backwards_on_the_last_step(direction), x=numbers(5, 2, 3))
    with pytest.raises(UnsupportedError, match="not the time axis of the stream"):
        npylstm.Model(spec).session()


def test_with_states_among_the_inputs_each_push_is_a_call() -> None:
    x, state = numbers(5, 2, 3), np.zeros((2, 2, 2), np.float32)
    model = backwards_on_the_last_step("bidirectional", "hc")
    predictor = npylstm.Model(same_as_onnxruntime(model, x=x, h=state, c=state))
    first = predictor.predict({"x": x, "h": state, "c": state})
    second = predictor.predict({"x": x[1:], "h": first["hn"], "c": first["cn"]})
    session = predictor.session(2)
    session.push({"x": x})
    # Sums of a few terms, in the same order.
    np.testing.assert_allclose(session.push({"x": x[1:]})["hn"], second["hn"], atol=2e-6)


def test_masks_may_be_infinite() -> None:
    mask = np.triu(np.full((4, 4), -np.inf, np.float32), 1)
    nodes = [node("Add", ["x", "mask"], ["a"]), node("Softmax", ["a"], ["y"], axis=-1)]
    added = graph(nodes, [value("x", ["N", 4, 4])], [value("y", None)], {"mask": mask})
    same_as_onnxruntime(added, x=numbers(2, 4, 4))
    nodes = [node("Greater", ["x", "zero"], ["c"]), node("Where", ["c", "x", "never"], ["a"]),
             node("Softmax", ["a"], ["y"], axis=-1)]  # fmt: skip
    constants = {"zero": np.float32(-9), "never": np.float32(-np.inf)}
    chosen = graph(nodes, [value("x", ["N", 4])], [value("y", None)], constants)
    same_as_onnxruntime(chosen, x=numbers(3, 4))
