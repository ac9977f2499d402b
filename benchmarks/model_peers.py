"""The systems that whole models are compared on, set up for CPU latency.

Every class takes a model, its module and its inputs. :meth:`bind` returns a call for some inputs:
a function without arguments that returns the output, and goes on from the state of the call
before where the model carries one.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from cases import Array
from npylstm_converters import from_torch
from peers import onnx_session, openvino_model
from torch import nn
from whole_models import WholeModel

import npylstm

Call = Callable[[], Array]
_INPUTS = ("x", "lengths")


def _states(case: WholeModel) -> list[Array]:
    shape = (1, case.batch, case.units)
    return [np.zeros(shape, np.float32), np.zeros(shape, np.float32)] if case.units else []


class Npylstm:
    """npylstm with the kernels that it chooses itself, on the module that its importer converts."""

    name = "npylstm"

    def __init__(self, case: WholeModel, module: nn.Module, arrays: tuple[Array, ...]) -> None:
        model = npylstm.Model(from_torch(module, tuple(map(torch.from_numpy, arrays))))
        self._at_step = case.call in ("step", "pool")
        if case.call == "predict":
            self._call: Callable[..., Any] = model.predict
        elif case.call == "pool":
            pool, keys = model.pool(case.batch), list(range(case.batch))
            pool.add(keys)
            self._call = partial(pool.step, keys)
        else:
            self._call = getattr(model.session(case.batch), case.call)

    def bind(self, arrays: tuple[Array, ...]) -> Call:
        if self._at_step:
            arrays = tuple(np.ascontiguousarray(a[:, 0]) for a in arrays)
        return partial(self._call, arrays[0] if len(arrays) == 1 else list(arrays))


class Torch:
    """The module itself under inference_mode."""

    name = "torch"

    def __init__(self, case: WholeModel, module: nn.Module, arrays: tuple[Array, ...]) -> None:
        torch.set_num_threads(1)
        self._state = [torch.from_numpy(a) for a in _states(case)]
        example = [torch.from_numpy(a[:, : case.steps] if case.units else a) for a in arrays]
        self._module = self.prepare(module, (*example, *self._state))

    def prepare(self, module: nn.Module, example: tuple[Any, ...]) -> Any:
        return module

    def bind(self, arrays: tuple[Array, ...]) -> Call:
        tensors = [torch.from_numpy(a) for a in arrays]

        def call() -> Array:
            with torch.inference_mode():
                made = self._module(*tensors, *self._state)
                if self._state:
                    made, *self._state = made
                return made.numpy()

        return call


class TorchScript(Torch):
    """The module traced, frozen and optimized for inference."""

    name = "torch.jit"

    def prepare(self, module: nn.Module, example: tuple[Any, ...]) -> Any:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(module, example, check_trace=False)
            return torch.jit.optimize_for_inference(torch.jit.freeze(traced))


def _feeds(arrays: tuple[Array, ...]) -> dict[str, Array]:
    """Name the inputs; ONNX counts steps in 32 bits."""
    feeds = dict(zip(_INPUTS, arrays, strict=False))
    if "lengths" in feeds:
        feeds["lengths"] = feeds["lengths"].astype(np.int32)
    return feeds


def make_onnx(case: WholeModel, module: nn.Module, arrays: tuple[Array, ...]) -> bytes:
    """Export the module with the sizes of a call; behind the inputs the states, if it has any."""
    import onnx

    example = [torch.from_numpy(a[:, : case.steps] if case.units else a) for a in arrays]
    states = ["h", "c"] if case.units else []
    example += map(torch.from_numpy, _states(case))
    file = io.BytesIO()
    module.packed = False
    torch.backends.mha.set_fastpath_enabled(False)  # an operation that the exporter does not know
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, tuple(example), file, dynamo=False, opset_version=17,
            input_names=[*_INPUTS[: len(arrays)], *states],
            output_names=["y", *(f"{name}_n" for name in states)],
        )  # fmt: skip
    torch.backends.mha.set_fastpath_enabled(True)
    module.packed = True
    model = onnx.load_from_string(file.getvalue())
    if len(arrays) == 2:  # the exporter drops what an unpacked LSTM does not read
        lengths = onnx.helper.make_tensor_value_info(
            "lengths", onnx.TensorProto.INT32, [case.batch]
        )
        model.graph.input.append(lengths)
        next(node for node in model.graph.node if node.op_type == "LSTM").input[4] = "lengths"
    return bytes(model.SerializeToString())


class OnnxRuntime:
    """ONNX Runtime."""

    name = "onnxruntime"

    def __init__(self, case: WholeModel, module: nn.Module, arrays: tuple[Array, ...]) -> None:
        self._session = onnx_session(make_onnx(case, module, arrays), 1)
        self._state = dict(zip("hc", _states(case), strict=False))

    def bind(self, arrays: tuple[Array, ...]) -> Call:
        feeds = _feeds(arrays)

        def call() -> Array:
            y, *state = self._session.run(None, feeds | self._state)
            self._state = dict(zip(self._state, state, strict=True))
            return y

        return call


class OpenVino:
    """OpenVINO."""

    name = "openvino"

    def __init__(self, case: WholeModel, module: nn.Module, arrays: tuple[Array, ...]) -> None:
        compiled = openvino_model(make_onnx(case, module, arrays), 1)
        self._request = compiled.create_infer_request()
        self._state = dict(zip("hc", _states(case), strict=False))

    def bind(self, arrays: tuple[Array, ...]) -> Call:
        feeds = _feeds(arrays)

        def call() -> Array:
            # An output that is the next input must not share its memory with the next output.
            made = self._request.infer(
                feeds | self._state, share_inputs=True, share_outputs=not self._state
            )
            self._state = {name: made[k + 1] for k, name in enumerate(self._state)}
            return made[0]

        return call


PEERS = [Torch, TorchScript, OnnxRuntime, OpenVino]
