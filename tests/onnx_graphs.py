"""ONNX graphs for tests: how they are built, and compared with onnxruntime."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import npylstm_converters as nc
import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

import npylstm
from npylstm import ModelSpec

__all__ = [
    "Array", "agree", "body", "draw", "graph_of", "node", "predict", "recurrent_weights",
    "run_onnxruntime", "value",
]  # fmt: skip

Array = np.ndarray[Any, Any]
Shapes = Mapping[str, Sequence[int | str]]

# The newest version that onnxruntime and this onnx package both know is not the newest one.
OPSET = 17
IR_VERSION = 8
# float32 sums of tens of terms in tens of steps of cells that contract, both sides.
ATOL = 2e-6

node = helper.make_node


def value(name: str, shape: Sequence[int | str] | None, dtype: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, dtype, shape)


def _values(named: Shapes | Iterable[Any]) -> list[Any]:
    if isinstance(named, Mapping):
        return [value(name, shape) for name, shape in named.items()]
    return [value(v, None) if isinstance(v, str) else v for v in named]


def graph_of(
    nodes: Sequence[NodeProto], inputs: Shapes | Iterable[Any], outputs: Iterable[Any],
    arrays: Mapping[str, Any] = {}, opset: int = OPSET,
) -> ModelProto:  # fmt: skip
    """Return a model of float32 inputs by name and shape (or of ready values), and arrays."""
    stored = [numpy_helper.from_array(np.asarray(a), name) for name, a in arrays.items()]
    graph = helper.make_graph([*nodes], "graph", _values(inputs), _values(outputs), stored)
    ir = IR_VERSION if opset >= 9 else 3
    if ir == 3:  # these versions list arrays among the inputs
        graph.input.extend(
            value(t.name, t.dims, t.data_type) for t in stored
        )  # fmt: skip
    made: ModelProto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir
    )
    return made


def body(
    nodes: Sequence[NodeProto], inputs: Iterable[Any], outputs: Iterable[Any],
    arrays: Mapping[str, Any] = {},
) -> Any:  # fmt: skip
    """Return the graph inside a node."""
    stored = [numpy_helper.from_array(np.asarray(a), name) for name, a in arrays.items()]
    return helper.make_graph([*nodes], "body", _values(inputs), _values(outputs), stored)


def run_onnxruntime(model: ModelProto | bytes, feeds: Mapping[str, Any]) -> dict[str, Any]:
    """Return the outputs by name; without optimizations, which would change sums."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    data = model if isinstance(model, bytes) else model.SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def predict(spec: ModelSpec, feeds: Mapping[str, Any], backend: str = "auto") -> dict[str, Any]:
    made = npylstm.Model(spec, backend).predict({t.name: feeds[t.name] for t in spec.inputs})
    return made if isinstance(made, dict) else {spec.outputs[0]: made}


def agree(
    model: ModelProto, *several: Mapping[str, Any], constants: Mapping[str, Any] = {},
    atol: float = ATOL,
) -> ModelSpec:  # fmt: skip
    """Compare all outputs with onnxruntime's, for several inputs; return the converted model."""
    spec = nc.from_onnx(model, constants=constants)
    for feeds in several:
        expected = run_onnxruntime(model, feeds)
        made = predict(spec, feeds)
        assert len(made) == len(expected)
        for own, theirs in zip(made.values(), expected.values(), strict=True):
            assert own.shape == theirs.shape
            np.testing.assert_allclose(own, theirs, rtol=0, atol=atol)
    return spec


def draw(rng: np.random.Generator, *shape: int) -> Array:
    """Return float32 numbers of both signs, none of them near zero."""
    numbers = rng.uniform(-1, 1, shape)
    return (0.6 * numbers + 0.05 * np.sign(numbers)).astype("float32")


GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def recurrent_weights(
    kind: str, features: int, units: int, directions: int = 1, seed: int = 0, prefix: str = ""
) -> dict[str, Array]:
    """Return W, R and B."""
    rng, gates = np.random.default_rng(seed), GATES[kind]
    return {
        f"{prefix}W": draw(rng, directions, gates * units, features),
        f"{prefix}R": draw(rng, directions, gates * units, units),
        f"{prefix}B": draw(rng, directions, 2 * gates * units),
    }
