"""Read ONNX models with the onnx package: files, bytes, and models in memory."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from npylstm import FormatError, NpylstmError, UnsupportedError
from npylstm.arrays import Array

__all__ = ["initializers", "is_onnx", "opset_of", "read_model", "type_of"]

# Fields of ModelProto: number and wire type (0 a number, 2 bytes).
_FIELDS = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}

_DEEPEST = 32  # graphs inside nodes; programs write two or three


def is_onnx(head: bytes) -> bool:
    """Whether a file begins like an ONNX model: with fields of ModelProto, the version first."""
    at, seen = 0, list[int]()
    while at < len(head) and len(seen) < 4:
        tag, at = _varint(head, at)
        number, wire = tag >> 3, tag & 7
        if _FIELDS.get(number) != wire:
            return False
        value, at = _varint(head, at)
        if number == 1 and not 0 < value < 64:
            return False
        if number in (2, 3) and not head[at : at + value].isascii():
            return False
        seen.append(number)
        at += value if wire == 2 else 0
    return 1 in seen and len(seen) > 1


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            break
    return value, at


def read_model(source: Any) -> Any:
    """Return the ModelProto of a path, bytes or a ModelProto, with its functions written out.

    Raises
    ------
    NpylstmError
        If the onnx package is not installed.
    FormatError
        If the model is damaged.
    """
    try:
        import onnx
        from onnx import inliner
    except ImportError:
        raise NpylstmError(
            "the onnx package reads ONNX files: pip install 'npylstm[onnx]'"
        ) from None
    label = os.fspath(source) if isinstance(source, (str, os.PathLike)) else "the model"
    try:
        if isinstance(source, onnx.ModelProto):
            model = source
        elif isinstance(source, (bytes, bytearray)):
            model = onnx.load_model_from_string(bytes(source))
        else:
            model = onnx.load_model(source)
        if model.functions:
            model = inliner.inline_local_functions(model)
    except OSError:
        raise
    except Exception as error:  # protobuf, and what the package checks
        reason = " ".join(str(error).split())[:200]
        raise FormatError(f"{label}: is no ONNX model, or a damaged one: {reason}") from None
    if not model.HasField("graph") or not model.graph.output:
        raise FormatError(f"{label}: has no graph with outputs")
    _check_names(model, label)
    return model


def _check_names(model: Any, label: str) -> None:
    """Check that names are text and unique, and that graphs in nodes are not nested too deep."""
    level = [model.graph]
    for _ in range(_DEEPEST):
        inner = []
        for graph in level:
            values = {value.name for value in (*graph.input, *graph.initializer)}
            made = [*values, *(name for node in graph.node for name in node.output if name)]
            names = [*made, *(value.name for value in graph.output)]
            for node in graph.node:
                names += [node.op_type, node.domain, node.name, *node.input]
                names += [attribute.name for attribute in node.attribute]
                inner += [a.g for a in node.attribute if a.HasField("g")]
            wrong = [name for name in names if not isinstance(name, str)]
            if wrong:
                raise FormatError(f"{label}: is damaged: the name {wrong[0]!r:.40} is no text")
            twice = [name for name, count in Counter(made).items() if count > 1]
            if twice:
                raise FormatError(f"{label}: is damaged: two nodes make {twice[0]!r:.80}")
        level = inner
        if not level:
            return
    raise FormatError(f"{label}: graphs inside nodes are nested more than {_DEEPEST} deep")


def opset_of(model: Any) -> int:
    """Return the version of the standard operator set.

    Raises
    ------
    UnsupportedError
        If the model does not name it.
    """
    versions = {entry.domain: entry.version for entry in model.opset_import}
    version = versions.get("", versions.get("ai.onnx", 0))
    if not version:
        raise UnsupportedError(["the model does not say which version of the operators it uses"])
    return int(version)


def initializers(graph: Any) -> dict[str, Array]:
    """Return the arrays that a graph stores, by name.

    Raises
    ------
    FormatError
        If one is damaged.
    """
    from onnx import numpy_helper

    arrays: dict[str, Array] = {}
    for tensor in graph.initializer:
        try:
            arrays[tensor.name] = numpy_helper.to_array(tensor)
        except Exception as error:  # too short, of an unknown type
            raise FormatError(f"initializer {tensor.name!r}: {error}") from None
    for sparse in graph.sparse_initializer:
        raise FormatError(f"initializer {sparse.values.name!r}: is sparse, which is not supported")
    return arrays


_KINDS: Mapping[str, str] = {"f": "f", "i": "i", "u": "i", "b": "b"}


def type_of(value: Any) -> tuple[str, np.dtype[Any], list[int | str | None]]:
    """Return kind (``f``, ``i``, ``b``), dtype and sizes of a graph's input or output.

    Raises
    ------
    UnsupportedError
        If it is no tensor of numbers.
    """
    from onnx import helper

    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not tensor.elem_type:
        kind = value.type.WhichOneof("value") or "unknown"
        raise UnsupportedError([f"{value.name}: expected a tensor, got {kind}"])
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    if dtype.kind not in _KINDS:
        raise UnsupportedError([f"{value.name}: expected numbers, got {dtype}"])
    dims: list[int | str | None] = []
    for dim in tensor.shape.dim:
        if dim.HasField("dim_value") and dim.dim_value > 0:
            dims.append(int(dim.dim_value))
        else:
            dims.append(dim.dim_param or None)
    return _KINDS[dtype.kind], dtype, dims
