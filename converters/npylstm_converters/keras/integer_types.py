"""Which tensors hold integers in Keras: all are floats here, and floats round large integers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from npylstm.spec import LayerSpec
from npylstm_converters.keras.graph import Call, RawLayer, flat
from npylstm_converters.keras.inputs import INTEGERS, SMALL_INTEGERS
from npylstm_converters.toolkit.integer_checks import is_integer_type

__all__ = ["type_of_call", "type_of_input", "type_of_operation"]

BOOL, INDEX = "bool", "int32"

# Functions whose result has the type of the operands: of Keras 3, of TensorFlow, and nodes.
_OF_OPERANDS = frozenset((
    "Negative", "math.negative", "Neg", "Absolute", "Abs", "Fabs", "math.abs", "Square",
    "math.square", "Sign", "math.sign", "Add", "__operators__.add", "math.add", "AddV2",
    "Subtract", "math.subtract", "Sub", "Multiply", "math.multiply", "Mul", "FloorDivide",
    "compat.v1.floor_div", "math.floordiv", "FloorDiv", "Mod", "math.floormod", "math.mod",
    "FloorMod", "Fmod", "Power", "math.pow", "Pow", "Maximum", "math.maximum", "Minimum",
    "math.minimum", "math.squared_difference", "SquaredDifference", "math.add_n", "Where",
    "where", "where_v2", "SelectV2", "Clip", "clip_by_value", "ClipByValue", "Max", "Amax",
    "math.reduce_max", "Min", "Amin", "math.reduce_min", "Sort", "sort", "TopK", "math.top_k",
    "Diff", "Ptp", "Concatenate", "concat", "ConcatV2", "Stack", "stack", "Pack", "Split",
    "Hsplit", "Dsplit", "split", "Unstack", "unstack", "ExpandDims", "expand_dims", "Squeeze",
    "compat.v1.squeeze", "squeeze", "Reshape", "reshape", "BroadcastTo", "broadcast_to",
    "Transpose", "compat.v1.transpose", "transpose", "Swapaxes", "Moveaxis", "Flip", "reverse",
    "ReverseV2", "Fliplr", "Tile", "tile", "Repeat", "repeat", "Roll", "roll", "Pad",
    "compat.v1.pad", "pad", "PadV2", "Take", "compat.v1.gather", "gather", "GatherV2",
    "TakeAlongAxis", "compat.v1.gather_nd", "gather_nd", "Tril", "Triu", "linalg.band_part",
    "Matmul", "linalg.matmul", "MatMul", "BatchMatMulV2", "Dot", "Tensordot", "tensordot",
    "Einsum", "ExtractSequences", "ConvertToTensor", "identity", "Identity", "StopGradient",
    "stop_gradient", "Copy", "Array", "ensure_shape", "ZerosLike", "zeros_like", "OnesLike",
    "ones_like", "FullLike", "GetItem", "__operators__.getitem", "slice", "Slice",
    "strided_slice", "StridedSlice",
))  # fmt: skip
# The same, and truth values become integers.
_TOTALS = frozenset((
    "Sum", "math.reduce_sum", "Prod", "math.reduce_prod", "Cumsum", "math.cumsum", "Cumprod",
    "math.cumprod",
))  # fmt: skip
_INDICES = frozenset((
    "Argmax", "math.argmax", "ArgMax", "Argmin", "math.argmin", "ArgMin", "Argsort", "argsort",
))  # fmt: skip
_TRUTH = frozenset((
    "Equal", "math.equal", "NotEqual", "math.not_equal", "Less", "math.less", "LessEqual",
    "math.less_equal", "Greater", "math.greater", "GreaterEqual", "math.greater_equal",
    "LogicalAnd", "math.logical_and", "LogicalOr", "math.logical_or", "LogicalXor",
    "math.logical_xor", "LogicalNot", "math.logical_not", "Isnan", "math.is_nan", "Isinf",
    "math.is_inf", "Isfinite", "math.is_finite", "Any", "math.reduce_any", "All",
    "math.reduce_all",
))  # fmt: skip
_CASTS = ("Cast", "cast", "SaturateCast")
_MERGES = ("Maximum", "Minimum")  # layers that combine integers and give one of them


def type_of_input(dtype: Any) -> str:
    """Return the type of an input's integers; empty for floats."""
    return str(dtype) if dtype in (*INTEGERS, *SMALL_INTEGERS, BOOL) else ""


def type_of_operation(name: str, raw: RawLayer, call: Call, types: Sequence[str]) -> str:
    """Return the type of an operation's result: of integers, ``bool``, or empty for floats.

    Parameters
    ----------
    name, raw, call
        The function, its layer, and its call.
    types
        Of the tensors that it reads, as this function returns them.
    """
    if name in _INDICES or name in _TRUTH:
        return INDEX if name in _INDICES else BOOL
    if name not in _OF_OPERANDS | _TOTALS and name not in _CASTS:
        return ""
    is_keras = raw.class_name.startswith("ops.")
    own = raw.config if is_keras else {"constants": raw.config.get("constants")}
    asked = [call.keyword_arguments.get("dtype"), own.get("dtype")]
    asked += call.positional[1:] if name in _CASTS else ()
    for dtype in asked:
        if isinstance(dtype, str):
            return type_of_input(dtype)
    if name in _CASTS:
        return ""
    given = (call.positional, call.keyword_arguments, call.structures, own)
    kinds = {np.asarray(number).dtype.kind for part in given for number in _numbers(part)}
    if "f" in kinds:
        return ""
    found = _widest(types)
    return INDEX if found == BOOL and (kinds & {"i", "u"} or name in _TOTALS) else found


def type_of_call(raw: RawLayer, named: LayerSpec, types: Sequence[str]) -> str:
    """Return the type of what a layer returns, as :func:`type_of_operation` does."""
    layer = named.layer
    keeps = layer.moves_elements or layer.computes_integers or raw.class_name in _MERGES
    return _widest(types) if keeps and not named.weights else ""


def _widest(types: Sequence[str]) -> str:
    if not types or not all(types):
        return ""
    integers = [name for name in types if is_integer_type(name)]
    return max(integers, key=lambda name: (int(name.lstrip("uint")), name)) if integers else BOOL


def _numbers(value: Any) -> Iterator[Any]:
    """Yield the numbers and arrays in arguments."""
    if isinstance(value, Mapping):
        for entry in value.values():
            yield from _numbers(entry)
    else:
        for entry in flat(value):
            if isinstance(entry, (int, float, np.ndarray)) and not isinstance(entry, bool):
                yield entry
