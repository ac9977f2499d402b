"""Operations of TensorFlow's graphs, as the layers of TensorFlow 2.0 to 2.3 stored them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from npylstm_converters.errors import Refusal
from npylstm_converters.keras.graph import Call, RawLayer, Slot, Tensor
from npylstm_converters.keras.nodes import ROWS
from npylstm_converters.keras.operations import plan_of

A, B = np.random.default_rng(1).normal(size=(2, 3, 6, 4)).round(2) + 0.005  # never zero
Oracle = Callable[..., Any]
BOTH: Mapping[str, Any] = {"incompatible_shape_error": {"b": True}}
# The tensors that a node reads, its constants by place, its attributes, and what it computes.
NODES: dict[str, tuple[int, dict[str, Any], Mapping[str, Any], Oracle]] = {
    **{name: (1, {}, {}, oracle) for name, oracle in {
        "Neg": np.negative, "Abs": np.abs, "Square": np.square, "Sin": np.sin, "Cos": np.cos,
        "Exp": np.exp, "Tanh": np.tanh, "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
        "Relu": lambda x: np.maximum(x, 0), "Softplus": lambda x: np.log1p(np.exp(x)),
        "Elu": lambda x: np.where(x > 0, x, np.expm1(x)), "Sign": np.sign, "Floor": np.floor,
        "Ceil": np.ceil, "Reciprocal": lambda x: 1 / x, "Relu6": lambda x: np.clip(x, 0, 6),
        "Softsign": lambda x: x / (1 + np.abs(x)), "StopGradient": lambda x: x,
        "Identity": lambda x: x, "ZerosLike": np.zeros_like, "OnesLike": np.ones_like,
        "Softmax": lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True)}.items()},
    **{name: (2, {}, {}, oracle) for name, oracle in {
        "AddV2": np.add, "Sub": np.subtract, "Mul": np.multiply, "RealDiv": np.divide,
        "Maximum": np.maximum, "Minimum": np.minimum, "FloorDiv": np.floor_divide,
        "FloorMod": np.mod, "Less": np.less, "GreaterEqual": np.greater_equal,
        "SquaredDifference": lambda x, y: (x - y) ** 2}.items()},
    "Equal": (2, {}, BOTH, np.equal),
    **{name: (1, {"1": axis}, {"keep_dims": {"b": kept}}, oracle) for name, axis, kept, oracle in (
        ("Mean", 1, False, lambda x: x.mean(1)), ("Sum", [1, 2], True, lambda x: x.sum((1, 2), keepdims=True)),
        ("Max", -1, False, lambda x: x.max(-1)), ("Min", [1], False, lambda x: x.min(1)))},
    "LeakyRelu": (1, {}, {"alpha": {"f": 0.1}}, lambda x: np.where(x > 0, x, 0.1 * x)),
    "BatchMatMulV2": (2, {}, {"adj_x": {"b": False}, "adj_y": {"b": True}}, lambda x, y: x @ y.swapaxes(1, 2)),
    "MatMul": (1, {"1": [[1.0], [2.0], [0.0], [3.0]]}, {"transpose_a": {"b": False}, "transpose_b": {"b": False}},
               lambda x: x @ [[1.0], [2.0], [0.0], [3.0]]),
    "StridedSlice": (1, {"1": [0, 1], "2": [0, 3], "3": [1, 1]}, {"begin_mask": {"i": "1"}, "end_mask": {"i": "1"}},
                     lambda x: x[:, 1:3]),
    "Slice": (1, {"1": [0, 1, 0], "2": [-1, 2, -1]}, {}, lambda x: x[:, 1:3]),
    "ConcatV2": (2, {"2": 2}, {"N": {"i": "2"}}, lambda x, y: np.concatenate([x, y], 2)),
    "Pack": (2, {}, {"axis": {"i": "1"}, "N": {"i": "2"}}, lambda x, y: np.stack([x, y], 1)),
    "ExpandDims": (1, {"1": 1}, {"Tdim": {"type": "DT_INT32"}}, lambda x: x[:, None]),
    "Squeeze": (1, {}, {"squeeze_dims": {"list": {"i": []}}}, lambda x: x),
    "Reshape": (1, {"1": [-1, 24]}, {}, lambda x: x.reshape(-1, 24)),
    "Transpose": (1, {"1": [0, 2, 1]}, {}, lambda x: x.transpose(0, 2, 1)),
    "Tile": (1, {"1": [1, 2, 1]}, {}, lambda x: np.tile(x, (1, 2, 1))),
    "Pad": (1, {"1": [[0, 0], [1, 0], [0, 0]]}, {}, lambda x: np.pad(x, ((0, 0), (1, 0), (0, 0)))),
    "GatherV2": (1, {"1": [2, 0], "2": 1}, {"batch_dims": {"i": "0"}}, lambda x: x[:, [2, 0]]),
    "SelectV2": (2, {"2": 0.5}, {}, lambda x, y: np.where(x != 0, y, 0.5)),
    "ClipByValue": (1, {"1": -0.5, "2": 0.5}, {}, lambda x: np.clip(x, -0.5, 0.5)),
    "Cumsum": (1, {"1": 1}, {"exclusive": {"b": False}, "reverse": {"b": True}},
               lambda x: x[:, ::-1].cumsum(1)[:, ::-1]),
    "ReverseV2": (1, {"1": [1]}, {}, lambda x: x[:, ::-1]),
    "ArgMax": (1, {"1": 1}, {"output_type": {"type": "DT_INT64"}}, lambda x: x.argmax(1)),
}  # fmt: skip


def node(name: str) -> tuple[RawLayer, Call, list[Any]]:
    count, constants, attributes, _ = NODES[name]
    held = {"op": name, "attr": {"T": {"type": "DT_FLOAT"}, **attributes}}
    config = {
        "name": "y",
        "trainable": True,
        "dtype": "float32",
        "node_def": held,
        "constants": constants,
    }
    raw = RawLayer("y", "TensorFlowOpLayer", config)
    tensors = tuple(Tensor(f"x{k}") for k in range(count))
    call = Call("y", 0, tensors, positional=tuple(Slot(k) for k in range(count)))
    return raw, call, [("batch", 6, 4)] * count


def planned(raw: RawLayer, call: Call, shapes: list[Any]) -> Any:
    names = [f"x{k}" for k in range(len(shapes))]
    return plan_of(raw, call, names, shapes, [None] * len(shapes))


@pytest.mark.parametrize("name", NODES)
def test_numbers(name: str) -> None:
    raw, call, shapes = node(name)
    plan, results, _ = planned(raw, call, shapes)
    tensors: dict[int, Any] = dict(enumerate([A, B][: len(shapes)]))
    for step in plan.steps:
        reads = [np.asarray(tensors[k]) for k in step.reads]
        (tensors[step.made],), _ = step.operation.forward(step.weights, reads, {})
    (result,) = results
    want = NODES[name][3](*[A, B][: len(shapes)])
    np.testing.assert_allclose(tensors[result.number], want, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("name", NODES)
def test_every_argument_is_read(name: str) -> None:
    """One attribute or argument too many, of whatever value, is refused."""
    raw, call, shapes = node(name)
    for value in ({"f": 0.5}, {"b": False}, {"s": "half"}, None):
        held = raw.config["node_def"]
        odd = {**held, "attr": {**held["attr"], "temperature": value}}
        with pytest.raises(Refusal, match="temperature"):
            planned(replace(raw, config={**raw.config, "node_def": odd}), call, shapes)
    with pytest.raises(Refusal, match="config not understood: heat"):
        planned(replace(raw, config={**raw.config, "heat": 1}), call, shapes)


def test_nodes_without_a_row() -> None:
    raw, call, shapes = node("Neg")
    held = {**raw.config["node_def"], "op": "RandomUniform"}
    with pytest.raises(Refusal, match="operation 'RandomUniform of a TensorFlow graph'"):
        planned(replace(raw, config={**raw.config, "node_def": held}), call, shapes)
    assert set(NODES) <= set(ROWS)


def test_a_state_of_zeros() -> None:
    """``tf.zeros([tf.shape(x)[0], 5])``, as TensorFlow 2.0 stored it: four nodes, one operation."""
    value: Any = None
    for name, constants, attributes in (
        ("Shape", {}, {"out_type": {"type": "DT_INT32"}}),
        ("StridedSlice", {"1": [0], "2": [1], "3": [1]}, {"shrink_axis_mask": {"i": "1"}}),
        ("Pack", {"1": 5}, {"N": {"i": "2"}, "axis": {"i": "0"}}),
        ("Fill", {"1": 0.5}, {"index_type": {"type": "DT_INT32"}}),
    ):
        held = {"op": name, "attr": {"T": {"type": "DT_FLOAT"}, **attributes}}
        raw = RawLayer(
            "y", "TensorFlowOpLayer", {"name": "y", "node_def": held, "constants": constants}
        )
        call = Call("y", 0, (Tensor("x"),), positional=(Slot(0),))
        tensor, shape = ("x", ("batch", 6, 4)) if value is None else ("", ())
        plan, results, value = plan_of(raw, call, [tensor], [shape], [value])
    assert results is not None
    (step,) = plan.steps
    assert [plan.tensors[k] for k in step.reads] == ["x"]
    (y,), _ = step.operation.forward({}, [A], {})
    np.testing.assert_array_equal(y, np.full((3, 5), 0.5))
