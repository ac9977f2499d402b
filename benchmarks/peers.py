"""The systems that are compared: each builds a case and runs it, set up for CPU latency.

Every class takes a case, its weights and the number of threads; :meth:`run` computes the
sequence, and :meth:`step` one time step, the state carried on.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from cases import GATES, Array, Case

Weights = list[dict[str, Array]]


def _gates(case: Case, array: Array, order: str) -> Array:
    """Put the gates along the last axis into another order."""
    ours = "ifco" if case.kind == "lstm" else "zrh"
    parts = dict(zip(ours, np.split(array, GATES[case.kind], axis=-1), strict=True))
    return np.concatenate([parts[gate] for gate in order], axis=-1)


class Npylstm:
    """npylstm, with the back end that it chooses itself."""

    name = "npylstm"
    backend = "auto"

    def __init__(self, case: Case, weights: Weights, threads: int) -> None:
        import npylstm

        self._model = npylstm.Model(make_spec(case, weights), backend=self.backend)
        self._threads = threads
        self._session = self._model.session(case.batch)

    def run(self, x: Array) -> Array:
        return self._model.predict(x, threads=self._threads)

    def step(self, x: Array) -> Array:
        return self._session.step(x)


class NpylstmNumpy(Npylstm):
    """The NumPy back end."""

    name = "npylstm (NumPy)"
    backend = "numpy"


def make_spec(case: Case, weights: Weights) -> Any:
    """The case as a spec of npylstm."""
    import npylstm
    from npylstm.ops.cells import GRU, LSTM
    from npylstm.spec import LayerSpec, TensorSpec

    layers = []
    for k, (features, arrays) in enumerate(zip(case.sizes, weights, strict=True)):
        kind = LSTM if case.kind == "lstm" else GRU
        layer = kind(features, case.units, return_sequences=True)
        own = {
            f"{key}_{gate}": part
            for key, array in arrays.items()
            for gate, part in zip(
                layer.gates, np.split(array, GATES[case.kind], axis=-1), strict=True
            )
        }
        layers.append(LayerSpec(f"layer_{k}", layer, own))
    source = TensorSpec("x", ("batch", "steps", case.features))
    return npylstm.ModelSpec.chain(layers, source, dtype="float32")


class Torch:
    """torch.nn.LSTM and GRU under inference_mode."""

    name = "torch"

    def __init__(self, case: Case, weights: Weights, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self._torch = torch
        kind = torch.nn.LSTM if case.kind == "lstm" else torch.nn.GRU
        order = "ifco" if case.kind == "lstm" else "rzh"
        self._module = kind(case.features, case.units, case.layers, batch_first=True).eval()
        with torch.no_grad():
            for k, arrays in enumerate(weights):
                named = {
                    "weight_ih": _gates(case, arrays["W"], order).T,
                    "weight_hh": _gates(case, arrays["U"], order).T,
                    "bias_ih": _gates(case, arrays["b"], order),
                    "bias_hh": _gates(case, arrays.get("rb", 0 * arrays["b"]), order),
                }
                for name, array in named.items():
                    getattr(self._module, f"{name}_l{k}").copy_(torch.tensor(array.copy()))
        self._state: Any = None

    def run(self, x: Array) -> Array:
        with self._torch.inference_mode():
            return self._module(self._torch.from_numpy(x))[0].numpy()

    def step(self, x: Array) -> Array:
        with self._torch.inference_mode():
            y, self._state = self._module(self._torch.from_numpy(x[:, None]), self._state)
            return y.numpy()[:, 0]


def make_onnx(case: Case, weights: Weights) -> bytes:
    """The case as an ONNX model: X (steps, batch, features), a state in and out per layer."""
    from onnx import TensorProto, helper, numpy_helper

    nodes, constants, inputs, outputs = [], [], [], []
    states = ("h", "c") if case.kind == "lstm" else ("h",)

    def constant(name: str, array: Array) -> str:
        constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    order = "iofc" if case.kind == "lstm" else "zrh"
    current = "X"
    axes = constant("axes", np.array([1], np.int64))
    for k, arrays in enumerate(weights):
        W = constant(f"W{k}", _gates(case, arrays["W"], order).T[None])
        R = constant(f"R{k}", _gates(case, arrays["U"], order).T[None])
        biases = [arrays["b"], arrays.get("rb", 0 * arrays["b"])]
        B = constant(f"B{k}", np.concatenate([_gates(case, b, order) for b in biases])[None])
        shape = (1, case.batch, case.units)
        for s in states:
            inputs.append(helper.make_tensor_value_info(f"{s}{k}", TensorProto.FLOAT, shape))
            outputs.append(helper.make_tensor_value_info(f"{s}{k}_n", TensorProto.FLOAT, shape))
        extra = {"linear_before_reset": 1} if case.kind == "gru" else {}
        nodes.append(
            helper.make_node(
                case.kind.upper(),
                [current, W, R, B, "", *(f"{s}{k}" for s in states)],
                [f"Y{k}", *(f"{s}{k}_n" for s in states)],
                hidden_size=case.units,
                **extra,
            )
        )
        nodes.append(helper.make_node("Squeeze", [f"Y{k}", axes], [f"S{k}"]))
        current = f"S{k}"
    x = helper.make_tensor_value_info(
        "X", TensorProto.FLOAT, (case.steps, case.batch, case.features)
    )
    y = helper.make_tensor_value_info(
        current, TensorProto.FLOAT, (case.steps, case.batch, case.units)
    )
    graph = helper.make_graph(nodes, "case", [x, *inputs], [y, *outputs], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    return bytes(model.SerializeToString())


def onnx_session(model: bytes, threads: int) -> Any:
    """Return ONNX Runtime's session: sequential, all graph optimisations, no spinning threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def openvino_model(model: bytes, threads: int) -> Any:
    """Return OpenVINO's compiled model, with the latency hint, in float32."""
    import openvino

    core = openvino.Core()
    settings = {
        "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "f32",
    }  # fmt: skip
    return core.compile_model(core.read_model(model), "CPU", settings)


class OnnxRuntime:
    """ONNX Runtime."""

    name = "onnxruntime"

    def __init__(self, case: Case, weights: Weights, threads: int) -> None:
        self._session = onnx_session(make_onnx(case, weights), threads)
        names = [i.name for i in self._session.get_inputs()[1:]]
        zeros = np.zeros((1, case.batch, case.units), np.float32)
        self._zeros = dict.fromkeys(names, zeros)
        self._state = dict(self._zeros)
        self._output = [self._session.get_outputs()[0].name]

    def run(self, x: Array) -> Array:
        feeds = {"X": np.ascontiguousarray(x.swapaxes(0, 1)), **self._zeros}
        return self._session.run(self._output, feeds)[0].swapaxes(0, 1)

    def step(self, x: Array) -> Array:
        y, *state = self._session.run(None, {"X": x[None], **self._state})
        self._state = dict(zip(self._state, state, strict=True))
        return y[0]


class OpenVino:
    """OpenVINO."""

    name = "openvino"

    def __init__(self, case: Case, weights: Weights, threads: int) -> None:
        compiled = openvino_model(make_onnx(case, weights), threads)
        self._request = compiled.create_infer_request()
        names = [port.get_any_name() for port in compiled.inputs if port.get_any_name() != "X"]
        zeros = np.zeros((1, case.batch, case.units), np.float32)
        self._zeros = dict.fromkeys(names, zeros)
        self._state = dict(self._zeros)

    def run(self, x: Array) -> Array:
        feeds = {"X": np.ascontiguousarray(x.swapaxes(0, 1)), **self._zeros}
        made = self._request.infer(feeds, share_inputs=True, share_outputs=True)
        return made[0].swapaxes(0, 1)

    def step(self, x: Array) -> Array:
        made = self._request.infer({"X": x[None], **self._state}, share_inputs=True)
        self._state = {name: made[k + 1] for k, name in enumerate(self._state)}
        return made[0][0]


class TensorFlow:
    """Keras layers in a tf.function, for one shape."""

    name = "tf.function"

    def __init__(self, case: Case, weights: Weights, threads: int) -> None:
        import keras
        import tensorflow as tf

        kind = keras.layers.LSTM if case.kind == "lstm" else keras.layers.GRU
        layers = []
        for features, arrays in zip(case.sizes, weights, strict=True):
            layer = kind(case.units, return_sequences=True, return_state=True)
            layer.build((case.batch, case.steps, features))
            bias = np.stack([arrays["b"], arrays["rb"]]) if case.kind == "gru" else arrays["b"]
            layer.set_weights([arrays["W"], arrays["U"], bias])
            layers.append(layer)

        def forward(x: Any, *states: Any) -> Any:
            after = []
            each = len(states) // len(layers)
            for k, layer in enumerate(layers):
                x, *new = layer(x, initial_state=list(states[k * each : (k + 1) * each]))
                after += new
            return x, after

        self._tf = tf
        self._function = tf.function(forward, autograph=False)
        count = case.layers * (2 if case.kind == "lstm" else 1)
        self._zeros = [tf.zeros((case.batch, case.units))] * count
        self._state = self._zeros

    def run(self, x: Array) -> Array:
        return self._function(self._tf.constant(x), *self._zeros)[0].numpy()

    def step(self, x: Array) -> Array:
        y, self._state = self._function(self._tf.constant(x[:, None]), *self._state)
        return y.numpy()[:, 0]


OURS = [Npylstm, NpylstmNumpy]
PEERS = [Torch, OnnxRuntime, OpenVino, TensorFlow]
