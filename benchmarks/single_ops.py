"""Single operations on the sequence of an LSTM, and ONNX Runtime's where one node does the same.

ONNX has its own layouts; ONNX Runtime gets the input, and returns the output, in the one that its
node wants.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from cases import Array
from onnx import TensorProto, helper, numpy_helper
from peers import onnx_session

import npylstm
from npylstm.activations import Activation
from npylstm.graph.parts import Edge, LayerSpec, TensorSpec
from npylstm.ops.arithmetic import Arithmetic, Reduce
from npylstm.ops.attention import Attention, MultiHeadAttention
from npylstm.ops.base import Operation
from npylstm.ops.cells import LSTM
from npylstm.ops.convolution import Pool1D
from npylstm.ops.dense import Dense
from npylstm.ops.indexing import Select
from npylstm.ops.masking import Masking
from npylstm.ops.normalization import BatchNormalization, LayerNormalization
from npylstm.ops.pointwise import ActivationLayer
from npylstm.ops.shaping import Concatenate, Reshape, Transpose

STEPS, FEATURES = 100, 128
Weights = dict[str, Array]


class Node(NamedTuple):
    """A node of ONNX: what is constant behind its inputs, its attributes, its layout."""

    kind: str
    constants: Callable[[Weights], list[Any]] = lambda weights: []
    attributes: Mapping[str, Any] = MappingProxyType({})
    layout: str = "same"
    reads: tuple[int, ...] = (0, 1)  # the inputs, as far as there are so many


class Layout(NamedTuple):
    """From (batch, steps, features) to what a node reads, and back."""

    there: Callable[[Array], Array]
    back: Callable[[Array], Array]


LAYOUTS = {
    "same": Layout(np.asarray, np.asarray),
    "features first": Layout(lambda x: x.swapaxes(1, 2), lambda y: y.swapaxes(1, 2)),
    "steps first": Layout(lambda x: x.swapaxes(0, 1), lambda y: y[:, 0].swapaxes(0, 1)),
    "rows": Layout(lambda x: x.reshape(-1, FEATURES), np.asarray),
}


class Op(NamedTuple):
    """An operation of npylstm, the number of its inputs, and the same in ONNX."""

    name: str
    operation: Operation
    inputs: int = 1
    node: Node | None = None


class OpCase(NamedTuple):
    """An operation on a batch of sequences."""

    op: Op
    batch: int

    def __str__(self) -> str:
        return f"{self.op.name}, batch {self.batch}"


def _lstm(weights: Weights) -> list[Any]:
    W, U, b = (np.concatenate([weights[f"{k}_{g}"] for g in "iofc"], -1) for k in "WUb")
    return [W.T[None], U.T[None], np.concatenate([b, 0 * b])[None]]


def _named(*names: str) -> Callable[[Weights], list[Any]]:
    return lambda weights: [weights[name] for name in names]


_DENSE = Node("Gemm", _named("kernel", "bias"), layout="rows")
_WINDOW = {"kernel_shape": [2], "strides": [2]}
_LSTM = LSTM(FEATURES, 128, return_sequences=True)
_NORMAL = _named("gamma", "beta", "moving_mean", "moving_variance")
OPS = [
    Op("LSTM(128)", _LSTM, 1, Node("LSTM", _lstm, {"hidden_size": 128}, "steps first")),
    Op("MaxPool(2)", Pool1D("max", 2, 2), 1,
       Node("MaxPool", attributes=_WINDOW, layout="features first")),
    Op("AveragePool(2)", Pool1D("mean", 2, 2), 1,
       Node("AveragePool", attributes=_WINDOW, layout="features first")),
    Op("BatchNorm", BatchNormalization(FEATURES, -1, 1e-3), 1,
       Node("BatchNormalization", _NORMAL, {"epsilon": 1e-3}, "features first")),
    Op("LayerNorm", LayerNormalization((FEATURES,), 1e-3), 1,
       Node("LayerNormalization", _named("gamma", "beta"), {"epsilon": 1e-3})),
    Op("Add", Arithmetic("add"), 2, Node("Add")),
    Op("Multiply", Arithmetic("multiply"), 2, Node("Mul")),
    Op("Concatenate", Concatenate(2), 2, Node("Concat", attributes={"axis": 2})),
    Op("Masking", Masking()),
    Op("Dense(64)", Dense(FEATURES, 64), 1, _DENSE),
    Op("Dense(65)", Dense(FEATURES, 65), 1, _DENSE),
    Op("Dense(17, softmax)", Dense(FEATURES, 17, Activation("softmax"))),
    Op("Attention", Attention(), 2,
       Node("Attention", attributes={"q_num_heads": 1, "kv_num_heads": 1, "scale": 1.0},
            reads=(0, 1, 1))),
    Op("MultiHeadAttention(4, 32)",
       MultiHeadAttention(FEATURES, FEATURES, FEATURES, 4, 32, 32, FEATURES), 2),
    Op("softmax over steps", ActivationLayer(Activation.of("softmax", axis=1)), 1,
       Node("Softmax", attributes={"axis": 1})),
    Op("softmax over features", ActivationLayer(Activation("softmax")), 1,
       Node("Softmax", attributes={"axis": 2})),
    Op("Permute", Transpose((0, 2, 1)), 1, Node("Transpose", attributes={"perm": [0, 2, 1]})),
    Op("Flatten", Reshape(((0, 0), STEPS * FEATURES)), 1, Node("Flatten")),
    Op("x[:, -1]", Select(1, -1), 1,
       Node("Gather", lambda weights: [np.array(-1)], {"axis": 1})),
    Op("GlobalAveragePooling", Reduce("mean", (1,)), 1,
       Node("GlobalAveragePool", layout="features first")),
]  # fmt: skip
CASES = [OpCase(op, batch) for op in OPS for batch in (1, 32)]


def make_calls(case: OpCase) -> dict[str, Callable[[], Array]]:
    """Return a call of npylstm, and one of ONNX Runtime; check that they agree."""
    op, batch = case
    rng = np.random.default_rng(30)
    xs = [rng.normal(size=(batch, STEPS, FEATURES)).astype(np.float32) for _ in range(op.inputs)]
    shapes = op.operation.weight_shapes()
    weights = {k: rng.uniform(0.01, 0.09, s).astype(np.float32) for k, s in shapes.items()}
    names = [f"x{k}" for k in range(op.inputs)]
    layer = LayerSpec("op", op.operation, weights)
    edge = Edge.call(layer, *names)
    tensors = tuple(TensorSpec(name, ("batch", STEPS, FEATURES)) for name in names)
    model = npylstm.Model(npylstm.ModelSpec((layer,), (edge,), tensors, edge.outputs[:1]))
    calls = {"npylstm": partial(model.predict, xs[0] if op.inputs == 1 else xs)}
    if op.node is not None:
        layout = LAYOUTS[op.node.layout]
        feeds = {n: np.ascontiguousarray(layout.there(x)) for n, x in zip(names, xs, strict=True)}
        session = onnx_session(make_onnx(op.node, feeds, weights), 1)
        calls["onnxruntime"] = lambda: session.run(None, feeds)[0]
        right = calls["npylstm"]()
        other = layout.back(calls["onnxruntime"]()).reshape(right.shape)
        np.testing.assert_allclose(other, right, atol=1e-5 * np.abs(right).max(), rtol=0)
    return calls


def make_onnx(node: Node, feeds: dict[str, Array], weights: Weights) -> bytes:
    """Return a model of one node, for inputs of fixed shapes."""
    inputs = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, x.shape) for n, x in feeds.items()
    ]
    constants = {f"c{k}": np.ascontiguousarray(c) for k, c in enumerate(node.constants(weights))}
    reads = [f"x{k}" for k in node.reads if f"x{k}" in feeds]
    made = helper.make_node(node.kind, [*reads, *constants], ["y"], **node.attributes)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    tensors = [numpy_helper.from_array(c, name) for name, c in constants.items()]
    graph = helper.make_graph([made], "op", inputs, [y], tensors)
    opsets = [helper.make_opsetid("", 23)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=11).SerializeToString())
