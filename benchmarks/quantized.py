"""Weights in fewer bits: npylstm's and every peer's own quantized form, beside float32."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cases
import numpy as np
import onnx
import peers
from onnx import TensorProto, helper, numpy_helper

import npylstm
from npylstm.ops.dense import Dense
from npylstm.spec import LayerSpec, TensorSpec

Array = np.ndarray


class DenseCase(NamedTuple):
    """A dense layer, such as the output layer of a large vocabulary."""

    batch: int
    features: int
    units: int

    def __str__(self) -> str:
        return f"dense {self.batch} x {self.features}, {self.units}"


CASES = [
    *(cases.Case("lstm", *sizes) for sizes in (
        (1, 100, 1, 128, 1), (1, 100, 128, 128, 1), (1, 100, 256, 256, 1), (1, 50, 512, 512, 1),
        (1, 20, 1024, 1024, 1), (32, 50, 128, 128, 1), (32, 20, 256, 256, 1), (32, 10, 512, 512, 1),
    )),
    cases.Case("gru", 1, 100, 256, 256, 1),
    DenseCase(1, 256, 8000), DenseCase(1, 512, 30000),
]  # fmt: skip
PEERS = ("onnxruntime int8", "onnxruntime int8 by column", "torch int8", "openvino bfloat16")


def make_systems(case: Any) -> tuple[dict[str, Callable[[], Array]], Array]:
    """Return calls by the names of systems, and the right output."""
    warnings.filterwarnings("ignore", module="torch")
    logging.getLogger().setLevel(logging.ERROR)
    make = _dense if isinstance(case, DenseCase) else _recurrent
    spec, model, module, x, right = make(case)
    calls: dict[str, Callable[[], Array]] = {}
    for name in ("float32", "int8", "bfloat16"):
        ours = npylstm.Model(spec if name == "float32" else spec.quantize(name))
        calls[f"npylstm {name}"] = partial(ours.predict, x)
    fed = x if isinstance(case, DenseCase) else np.ascontiguousarray(x.swapaxes(0, 1))
    feeds = {"X": fed, **_zeros(model, case)}
    back = (lambda y: y) if isinstance(case, DenseCase) else (lambda y: y.swapaxes(0, 1))
    for name, content in (
        ("float32", model), ("int8", in_int8(model)), ("int8 by column", in_int8(model, True)),
    ):  # fmt: skip
        session = peers.onnx_session(content, 1)
        output = [session.get_outputs()[0].name]
        calls[f"onnxruntime {name}"] = partial(_run_onnx, session, output, feeds, back)
    request = _openvino(model)
    calls["openvino bfloat16"] = lambda: back(request.infer(feeds, share_inputs=True)[0])
    calls["torch int8"] = _torch_int8(module, x)
    return calls, right


def _run_onnx(session: Any, output: list[str], feeds: Any, back: Any) -> Array:
    return back(session.run(output, feeds)[0])


def _recurrent(case: Any) -> tuple[Any, bytes, Any, Array, Array]:
    weights, x = cases.make_weights(case), cases.make_input(case)
    module = peers.Torch(case, weights, 1)._module
    right = cases.reference(case, weights, x)
    return peers.make_spec(case, weights), peers.make_onnx(case, weights), module, x, right


def _dense(case: DenseCase) -> tuple[Any, bytes, Any, Array, Array]:
    import torch

    rng = np.random.default_rng(20)
    bound = 1 / np.sqrt(case.features)
    kernel = rng.uniform(-bound, bound, (case.features, case.units)).astype(np.float32)
    bias = rng.uniform(-bound, bound, case.units).astype(np.float32)
    x = rng.normal(size=(case.batch, case.features)).astype(np.float32)
    layer = LayerSpec("dense", Dense(case.features, case.units), {"kernel": kernel, "bias": bias})
    spec = npylstm.ModelSpec.chain([layer], TensorSpec("x", ("batch", case.features)))
    constants = [numpy_helper.from_array(kernel, "W"), numpy_helper.from_array(bias, "b")]
    nodes = [
        helper.make_node("MatMul", ["X", "W"], ["p"]),
        helper.make_node("Add", ["p", "b"], ["Y"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, (case.batch, size))
        for name, size in (("X", case.features), ("Y", case.units))
    ]
    graph = helper.make_graph(nodes, "dense", ends[:1], ends[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    linear = torch.nn.Linear(case.features, case.units)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(kernel.T))
        linear.bias.copy_(torch.from_numpy(bias))
    module = torch.nn.Sequential(linear).eval()
    right = x.astype(np.float64) @ kernel + bias
    return spec, bytes(model.SerializeToString()), module, x, right


def _zeros(model: bytes, case: Any) -> dict[str, Array]:
    """Return zero states for the other inputs of a model."""
    names = [value.name for value in onnx.load_from_string(model).graph.input]
    return {n: np.zeros((1, case.batch, case.units), np.float32) for n in names if n != "X"}


def in_int8(model: bytes, per_channel: bool = False) -> bytes:
    """Quantize a model as ONNX Runtime does: weights ahead, activations at run time."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        source, target = (Path(folder) / name for name in ("float32.onnx", "int8.onnx"))
        source.write_bytes(model)
        quantize_dynamic(source, target, per_channel=per_channel, weight_type=QuantType.QInt8)
        return target.read_bytes()


def _openvino(model: bytes) -> Any:
    import openvino

    core = openvino.Core()
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1,
                "INFERENCE_PRECISION_HINT": "bf16"}  # fmt: skip
    return core.compile_model(core.read_model(model), "CPU", settings).create_infer_request()


def _torch_int8(module: Any, x: Array) -> Callable[[], Array]:
    import torch

    if not isinstance(module, torch.nn.Sequential):
        module = torch.nn.Sequential(module)
    kinds = {torch.nn.LSTM, torch.nn.GRU, torch.nn.Linear}
    quantized = torch.ao.quantization.quantize_dynamic(module, kinds, dtype=torch.qint8)
    given = torch.from_numpy(x)

    def run() -> Array:
        with torch.inference_mode():
            made = quantized(given)
            return (made[0] if isinstance(made, tuple) else made).numpy()

    return run
