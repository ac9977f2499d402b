"""Runs a function of a SavedModel in TensorFlow, to record its outputs.

TensorFlow's own loader also runs functions that only the file knows. Here a graph is made of the
operations that the conversion has read, all of which are supported ones, and the variables get the
values that the checkpoint holds.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from npylstm import ModelSpec, NpylstmError
from npylstm_converters.registry import Arrays
from npylstm_converters.tensorflow.checkpoint import read_file
from npylstm_converters.tensorflow.constants import DTYPES
from npylstm_converters.tensorflow.functions import Variables, ordered_names
from npylstm_converters.tensorflow.graph_def import Node, node_of
from npylstm_converters.tensorflow.lowering import Variable
from npylstm_converters.tensorflow.rows import ROWS
from npylstm_converters.tensorflow.saved_model import read_functions
from npylstm_converters.tensorflow.sources import SourceFiles
from npylstm_converters.toolkit.runners import fixed_sizes, one_line

__all__ = ["FunctionRunner"]

_HARMLESS = ("Const", "NoOp", "Placeholder", "VarHandleOp")


class FunctionRunner:
    """A session of TensorFlow with one signature.

    Parameters
    ----------
    files
        The SavedModel.
    signature
        The name of its signature.
    spec
        The converted model.

    Raises
    ------
    NpylstmError
        If TensorFlow is not installed, cannot load the function, or the function holds operations
        that are not run.
    """

    sets_state: bool = False
    sizes: Mapping[str, int]
    description: str

    def __init__(self, files: SourceFiles, signature: str, spec: ModelSpec) -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        try:
            tf = importlib.import_module("tensorflow")
        except ImportError:
            raise NpylstmError(
                "TensorFlow records the outputs of a SavedModel: pip install tensorflow"
            ) from None
        program = read_functions(str(files.folder))
        own = program.signatures[signature]
        inputs, outputs = ordered_names(own, program.nodes)
        reached, functions = program.reached(own.outputs[name].tensor for name in outputs)
        _check([*reached, *(node for f in functions for node in f.nodes.values())])
        shapes = [own.inputs[name].shape or () for name in inputs]
        self.sizes = fixed_sizes(spec.inputs, shapes)
        self._dtypes = {name: np.dtype(DTYPES[own.inputs[name].kind]) for name in inputs}
        names = {node.name for node in reached} | {
            node_of(own.inputs[name].tensor) for name in inputs
        }
        self.description = f"TensorFlow {tf.__version__}"
        try:
            self._session = _session(tf, files, names, {f.name for f in functions})
            graph = self._session.graph
            self._feeds = {n: graph.get_tensor_by_name(own.inputs[n].tensor) for n in inputs}
            self._fetches = [graph.get_tensor_by_name(own.outputs[n].tensor) for n in outputs]
            variables = Variables(files, program)
            for node in reached:
                if node.operation == "VarHandleOp":
                    _, array = variables.read(Variable(node.name))
                    self._assign(tf, node.name, array)
        except NpylstmError:
            raise
        except Exception as error:  # frameworks raise anything
            raise NpylstmError(f"TensorFlow: {one_line(error, 300)}") from None
        self._names = spec.outputs

    def _assign(self, tf: Any, name: str, array: Any) -> None:
        graph = self._session.graph
        handle = graph.get_tensor_by_name(f"{name}:0")
        kind = graph.get_operation_by_name(name).get_attr("dtype")
        with graph.as_default():
            value = tf.compat.v1.placeholder(kind, array.shape)
            assigned = tf.raw_ops.AssignVariableOp(resource=handle, value=value)
        self._session.run(assigned, {value: array})

    def __call__(self, inputs: Arrays, state: Mapping[str, Arrays]) -> dict[str, Any]:
        feeds = {self._feeds[name]: np.asarray(x, self._dtypes[name]) for name, x in inputs.items()}
        try:
            made = self._session.run(self._fetches, feeds)
        except Exception as error:  # frameworks raise anything
            raise NpylstmError(f"TensorFlow: {one_line(error, 300)}") from None
        return dict(zip(self._names, made, strict=True))


def _check(nodes: list[Node]) -> None:
    """Check that TensorFlow would compute supported operations only, and nothing beside them."""
    others = {node.operation for node in nodes} - {*ROWS, *_HARMLESS}
    if others:
        raise NpylstmError(
            f"the function also holds {', '.join(sorted(others))}, which is not run; record cases "
            "in your own program by npylstm_converters.record"
        )


def _session(tf: Any, files: SourceFiles, names: set[str], functions: set[str]) -> Any:
    """Return a session with these nodes of the SavedModel's graph, and these functions."""
    protos = importlib.import_module("tensorflow.core.protobuf.saved_model_pb2")
    saved = protos.SavedModel()
    saved.ParseFromString(read_file(os.path.join(str(files.folder), "saved_model.pb")))
    tagged = [m for m in saved.meta_graphs if "serve" in m.meta_info_def.tags]
    whole = (tagged or [*saved.meta_graphs])[0].graph_def
    part = type(whole)(versions=whole.versions)
    for node in whole.node:
        if node.name in names:
            kept = [name for name in node.input if not name.startswith("^")]
            copied = part.node.add()
            copied.CopyFrom(node)
            del copied.input[:]
            copied.input.extend(kept)
    for function in whole.library.function:
        if function.signature.name in functions:
            part.library.function.add().CopyFrom(function)
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(part, name="")
    config = tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=1, inter_op_parallelism_threads=1
    )
    return tf.compat.v1.Session(graph=graph, config=config)
