"""Operations of TensorFlow's graphs, as TensorFlow 2.0 to 2.3 stored them: one row each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from npylstm_converters.keras import ops, shape_ops
from npylstm_converters.keras.slicing import strided_slice
from npylstm_converters.toolkit import index_ops
from npylstm_converters.toolkit.array_ops import (
    arithmetic,
    clip,
    concatenate,
    flip,
    identity,
    pointwise,
    reduce,
    softmax,
    squeeze,
    transpose,
    where,
)
from npylstm_converters.toolkit.translation import Graph, Row, table

__all__ = ["ROWS", "TAKE_LISTS", "plain"]

_POINTWISE = {
    "negative": "Neg", "abs": "Abs", "square": "Square", "sqrt": "Sqrt", "rsqrt": "Rsqrt",
    "log": "Log", "log1p": "Log1p", "sin": "Sin", "cos": "Cos", "exponential": "Exp",
    "tanh": "Tanh", "sigmoid": "Sigmoid", "relu": "Relu", "softplus": "Softplus", "elu": "Elu",
    "selu": "Selu", "softsign": "Softsign", "sign": "Sign", "floor": "Floor", "ceil": "Ceil",
    "erf": "Erf", "logical_not": "LogicalNot", "reciprocal": "Reciprocal",
}  # fmt: skip
_ARITHMETIC = {
    "add": "AddV2", "subtract": "Sub", "multiply": "Mul", "divide": "RealDiv",
    "maximum": "Maximum", "minimum": "Minimum", "power": "Pow", "floor_divide": "FloorDiv",
    "mod": "FloorMod", "equal": "Equal", "not_equal": "NotEqual", "less": "Less",
    "less_equal": "LessEqual", "greater": "Greater", "greater_equal": "GreaterEqual",
    "logical_and": "LogicalAnd", "logical_or": "LogicalOr",
}  # fmt: skip
_REDUCE = {
    "mean": "Mean", "sum": "Sum", "max": "Max", "min": "Min", "prod": "Prod", "any": "Any",
    "all": "All",
}  # fmt: skip
_TYPES = ("Tidx", "Tindices", "Tparams", "Tperm", "Tshape", "Tmultiples", "Tpaddings", "Tdim",
          "TI", "SrcT", "output_type", "out_type", "index_type", "N", "Taxis")  # fmt: skip


def _concatenate(graph: Graph, xs: Any, axis: Any) -> Any:
    return concatenate(graph, xs, axis)


_ROWS = [
    *(Row(name, pointwise(word)) for word, name in _POINTWISE.items()),
    *(
        Row(name, arithmetic(word), only={"incompatible_shape_error": (True,)})
        for word, name in _ARITHMETIC.items()
    ),
    *(Row(name, reduce(word), {"keep_dims": "keepdims"}) for word, name in _REDUCE.items()),
    Row("Relu6", pointwise("relu", max_value=6.0)),
    Row("LeakyRelu", ops.with_number("relu", "negative_slope", 0.2), {"alpha": "number"}),
    Row("Softmax", softmax()),
    Row("LogSoftmax", softmax("log_softmax")),
    Row("SquaredDifference", ops.squared_difference),
    Row("BatchMatMulV2", ops.matmul, {"adj_x": "adjoint_a", "adj_y": "adjoint_b"}),
    Row("MatMul", ops.matmul),
    Row("StridedSlice", strided_slice),
    Row("Slice", shape_ops.sliced),
    Row("ConcatV2", _concatenate),
    Row("Pack", shape_ops.stack),
    Row("ExpandDims", shape_ops.expand_dims),
    Row("Squeeze", squeeze, {"squeeze_dims": "axis"}),
    Row("Reshape", shape_ops.reshape),
    Row("Transpose", transpose),
    Row("Tile", shape_ops.tile),
    Row("PadV2", lambda graph, x, widths, value: shape_ops.pad(graph, x, widths, value=value)),
    Row("Pad", shape_ops.pad),
    Row("GatherV2", shape_ops.gather),
    Row("SelectV2", where),
    Row("ClipByValue", clip),
    Row("OneHot", lambda graph, x, depth, on, off, axis=-1: index_ops.one_hot(
        graph, x, depth, axis, on, off)),
    Row("Cumsum", ops.cumulative("sum")),
    Row("Cumprod", ops.cumulative("prod")),
    Row("ReverseV2", flip),
    Row("ArgMax", ops.arg_reduce("max")),
    Row("ArgMin", ops.arg_reduce("min")),
    Row("Shape", shape_ops.shape_of),
    Row("Fill", shape_ops.filled),
    Row("ZerosLike", shape_ops.full_like(0.0)),
    Row("OnesLike", shape_ops.full_like(1.0)),
    Row("StopGradient", identity),
    Row("Identity", identity),
]  # fmt: skip
TAKE_LISTS = {"ConcatV2": 1, "Pack": 0}  # how many arguments follow the tensors of a list
ROWS = table(row._replace(neutral=(*row.neutral, *_TYPES)) for row in _ROWS)


def plain(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a node without their wrappers: ``{"b": true}`` is True."""
    return {name: _unwrapped(value) for name, value in attributes.items()}


def _unwrapped(value: Any) -> Any:
    if not isinstance(value, Mapping) or len(value) != 1:
        return value
    ((kind, held),) = value.items()
    if kind == "i" and isinstance(held, (str, int)):
        return int(held) if str(held).lstrip("-").isdecimal() else held
    if kind == "list" and isinstance(held, Mapping):
        return [_unwrapped({k: v}) for k, several in held.items() for v in several]
    return held if kind in ("b", "f", "s") else value
