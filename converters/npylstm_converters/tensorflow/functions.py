"""From a signature of a SavedModel, which is a function, to a ModelSpec.

The function is written as a graph of ONNX in memory, and converted as such.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from npylstm import FormatError, ModelSpec, NpylstmError, UnsupportedError
from npylstm.arrays import Array
from npylstm_converters.errors import Reasons
from npylstm_converters.onnx.importer import convert_model
from npylstm_converters.tensorflow.checkpoint import open_checkpoint
from npylstm_converters.tensorflow.constants import DTYPES
from npylstm_converters.tensorflow.containers import open_tensorflow
from npylstm_converters.tensorflow.graph_def import (
    Function,
    Node,
    Program,
    Signature,
    TensorInfo,
    node_of,
)
from npylstm_converters.tensorflow.lowering import OPSET, Frame, Lowering, Variable, needed
from npylstm_converters.tensorflow.objects import ObjectGraph
from npylstm_converters.tensorflow.rows import ROWS, VARIADIC
from npylstm_converters.tensorflow.saved_model import read_functions
from npylstm_converters.tensorflow.sources import SourceFiles

__all__ = ["Variables", "convert_functions", "find_signature", "ordered_names"]

_DEFAULT = "serving_default"
_IR_VERSION = 9


def find_signature(files: SourceFiles, key: str | None) -> str | None:
    """Return the signature to convert; None if the source is to be converted by its config.

    That is one that ``key`` names, or the default one where no Keras model is described.

    Raises
    ------
    FormatError
        If a file is damaged.
    """
    if files.folder is None:
        return None
    program = read_functions(files.folder)
    names = [name for name, s in program.signatures.items() if s.inputs and s.outputs]
    if key is not None:
        return key if key in names else None
    chosen = _DEFAULT if _DEFAULT in names else names[0] if len(names) == 1 else None
    described = open_tensorflow(files).container.document is not None
    return None if described else chosen


def convert_functions(files: SourceFiles, signature: str) -> ModelSpec:
    """Convert a signature of a SavedModel.

    Raises
    ------
    UnsupportedError
        Lists every operation that is not supported.
    FormatError
        If a variable is missing or damaged.
    NpylstmError
        If the onnx package is not installed.
    """
    program = read_functions(str(files.folder))
    model, stored = _onnx_model(program, program.signatures[signature], Variables(files, program))
    spec = convert_model(model, {})
    version = program.version
    provenance = {
        **spec.provenance, "framework": "TensorFlow", "framework_version": version,
        "source_format": f"TensorFlow SavedModel, the function of its signature {signature}",
        "tensors": [entry for entry in spec.provenance["tensors"] if entry["source"] in stored],
        "decisions": [
            f"the operations of the signature {signature}, as TensorFlow {version} saved them",
            *spec.provenance["decisions"],
        ],
    }  # fmt: skip
    return replace(spec, provenance=provenance)


class Variables:
    """The values of variables by the nodes of the graph that hold their handles.

    Parameters
    ----------
    files, program
        The SavedModel, which says which objects the functions read.
    """

    def __init__(self, files: SourceFiles, program: Program) -> None:
        self._checkpoint = open_checkpoint(files.prefix)
        objects = self._checkpoint.objects
        self._objects = None if objects is None else ObjectGraph(objects)
        self._numbers: dict[str, int] = {}  # of the objects, by node
        for node in program.nodes.values():
            numbers = program.captured.get(str(node.attributes.get("f")), ())
            if numbers:
                inputs = node.inputs[-len(numbers) :]
                self._numbers.update(zip(map(node_of, inputs), numbers, strict=False))

    def read(self, handle: Variable) -> tuple[str, Array]:
        """Return name and values of a variable.

        Raises
        ------
        FormatError
            If the checkpoint has no such variable.
        """
        number, key, name = self._numbers.get(handle.node), handle.node, handle.node
        if number is not None and self._objects is not None and number < len(self._objects.nodes):
            node = self._objects.nodes[number]
            key, name = node.key, node.full_name or name
        stored = self._checkpoint.variables.get(key)
        if stored is None:
            raise FormatError(f"variable {handle.node!r:.80}: the checkpoint does not have it")
        return name, stored.read()


def ordered_names(signature: Signature, nodes: Mapping[str, Node]) -> tuple[list[str], list[str]]:
    """Return names of inputs and of outputs in the order of the function's arguments."""
    order: dict[str, int] = {}
    for info in signature.outputs.values():
        node = nodes.get(node_of(info.tensor))
        if node is not None:
            order |= {node_of(name): k for k, name in enumerate(node.inputs)}

    def place(info: TensorInfo) -> int:
        return order.get(node_of(info.tensor), len(order))

    def number(info: TensorInfo) -> int:
        last = info.tensor.rpartition(":")[2]
        return int(last) if last.isdecimal() else 0

    inputs, outputs = signature.inputs, signature.outputs
    return (
        sorted(inputs, key=lambda name: (place(inputs[name]), name)),
        sorted(outputs, key=lambda name: (number(outputs[name]), name)),
    )


def _onnx_model(
    program: Program, signature: Signature, variables: Variables
) -> tuple[Any, set[str]]:
    """Return the function as a ModelProto, and the names of the tensors that the files hold."""
    try:
        from onnx import helper, numpy_helper
    except ImportError:
        raise NpylstmError(
            "the onnx package is needed to convert functions of a SavedModel: "
            "pip install 'npylstm[onnx]'"
        ) from None
    reasons = Reasons()
    names, made_names = ordered_names(signature, program.nodes)
    lowering = Lowering(program, variables.read, (ROWS, VARIADIC), reasons)
    _, functions = program.reached(info.tensor for info in signature.outputs.values())
    lowering.scope = _common_scope(functions)
    inputs = [_input(name, signature.inputs[name], reasons) for name in names]
    reasons.raise_if_any()
    for name in (*names, *made_names):
        lowering.unused(name)
    values = {node_of(signature.inputs[name].tensor): name for name in names}
    frame = Frame(program.nodes, {**values})
    made = lowering.results(frame, [signature.outputs[name].tensor for name in made_names])
    reasons.raise_if_any()
    for name, value in zip(made_names, made, strict=True):
        if not isinstance(value, str):
            raise UnsupportedError([f"output {name}: is no tensor"])
        lowering.nodes.append(helper.make_node("Identity", [value], [name]))
    graph = helper.make_graph(
        needed(lowering.nodes, made_names), "model", inputs,
        [helper.make_empty_tensor_value_info(name) for name in made_names],
        [numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
         for name, array in lowering.constants.items()],
    )  # fmt: skip
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=_IR_VERSION,
        producer_name="TensorFlow", producer_version=program.version,
    )  # fmt: skip
    return model, lowering.stored


def _common_scope(functions: Iterable[Function]) -> str:
    """Return the part that the names of all operations begin with, such as the model's name."""
    names = [name for function in functions for name in function.nodes if "/" in name]
    scopes = {name.partition("/")[0] for name in names}
    return f"{scopes.pop()}/" if len(scopes) == 1 else ""


def _input(name: str, info: TensorInfo, reasons: Reasons) -> Any:
    from onnx import helper

    if info.kind not in DTYPES:
        reasons.add(f"input {name}: expected numbers, got TensorFlow's type {info.kind}")
        return None
    if info.shape is None:
        reasons.add(f"input {name}: its shape is not stored")
        return None
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(DTYPES[info.kind]))
    return helper.make_tensor_value_info(name, kind, info.shape)
