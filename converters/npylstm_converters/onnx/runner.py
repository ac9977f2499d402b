"""Run ONNX models in onnxruntime, to record its outputs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from npylstm import ModelSpec, NpylstmError
from npylstm_converters.onnx.graph import readable
from npylstm_converters.onnx.reading import initializers, read_model, type_of
from npylstm_converters.registry import Arrays
from npylstm_converters.toolkit.runners import fixed_sizes, one_line

__all__ = ["OnnxRunner"]


class OnnxRunner:
    """A session of onnxruntime on one thread.

    Parameters
    ----------
    source
        A path, bytes or a ModelProto.
    spec
        The converted model.
    constants
        Inputs with fixed values.
    """

    sets_state: bool = False
    sizes: Mapping[str, int]
    description: str

    def __init__(self, source: Any, spec: ModelSpec, constants: Mapping[str, Any]) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise NpylstmError(
                "onnxruntime records the outputs of ONNX models: pip install onnxruntime"
            ) from None
        model = read_model(source)
        own = initializers(model.graph)
        values = [value for value in model.graph.input if value.name not in own]
        self._dtypes = {value.name: type_of(value)[1] for value in values}
        dims = {value.name: tuple(type_of(value)[2]) for value in values}
        self.sizes = fixed_sizes(spec.inputs, [dims[t.name] for t in spec.inputs if t.name in dims])
        self._constants = {
            name: np.asarray(value, self._dtypes[name]).reshape(
                (1,) * len(dims[name]) if np.size(value) == 1 else np.shape(value)
            )
            for name, value in constants.items()
            if name in self._dtypes
        }
        self._ranks = {t.name: len(t.shape) for t in spec.output_specs}
        self._names = [value.name for value in model.graph.output]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        given = source if isinstance(source, (str, os.PathLike)) else model.SerializeToString()
        given = os.fspath(given) if isinstance(given, os.PathLike) else given
        try:
            self._session = onnxruntime.InferenceSession(
                given, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # it defines its own
            raise NpylstmError(f"onnxruntime: {one_line(error, 300)}") from None
        self.description = f"onnxruntime {onnxruntime.__version__}"

    def __call__(self, inputs: Arrays, state: Mapping[str, Arrays]) -> dict[str, Any]:
        feeds = {name: np.asarray(x, self._dtypes[name]) for name, x in inputs.items()}
        made = self._session.run(self._names, feeds | self._constants)
        outputs = dict(zip(map(readable, self._names), made, strict=True))
        return {name: self._as_declared(name, y) for name, y in outputs.items()}

    def _as_declared(self, name: str, y: Any) -> Any:
        """Return an output with the axes of size one that a Squeeze without axes has removed."""
        rank = self._ranks.get(name, y.ndim)
        missing = rank - y.ndim
        return y.reshape((1,) * missing + y.shape) if missing > 0 else y
