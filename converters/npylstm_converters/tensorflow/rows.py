"""Every supported operation of TensorFlow: how it is written with ONNX's operators."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from npylstm_converters.tensorflow import (
    arithmetic,
    arrays,
    lists,
    slicing,
    while_loops,
    windows,
)
from npylstm_converters.toolkit.translation import Row, table

__all__ = ["ROWS", "VARIADIC"]

# Operations with any number of inputs: their functions take them as a list.
VARIADIC = frozenset({
    "AddN", "ConcatV2", "Einsum", "IdentityN", "Pack", "PartitionedCall", "StatefulPartitionedCall",
    "StatelessWhile", "While",
})  # fmt: skip

_SAME = {
    "Abs": "Abs", "Acos": "Acos", "Acosh": "Acosh", "Add": "Add", "AddV2": "Add", "Asin": "Asin",
    "Asinh": "Asinh", "Atan": "Atan", "Atanh": "Atanh", "Ceil": "Ceil", "Cos": "Cos",
    "Cosh": "Cosh", "Equal": "Equal", "Erf": "Erf", "Exp": "Exp", "Floor": "Floor",
    "Greater": "Greater", "GreaterEqual": "GreaterOrEqual", "IsInf": "IsInf", "IsNan": "IsNaN",
    "Less": "Less", "LessEqual": "LessOrEqual", "Log": "Log", "LogicalAnd": "And",
    "LogicalNot": "Not", "LogicalOr": "Or", "Maximum": "Max", "Minimum": "Min", "Mul": "Mul",
    "Neg": "Neg", "Pow": "Pow", "RealDiv": "Div", "Reciprocal": "Reciprocal", "Relu": "Relu",
    "Round": "Round", "Selu": "Selu", "Sigmoid": "Sigmoid", "Sign": "Sign", "Sin": "Sin",
    "Sinh": "Sinh", "Softplus": "Softplus", "Softsign": "Softsign", "Sqrt": "Sqrt", "Sub": "Sub",
    "Tan": "Tan", "Tanh": "Tanh",
}  # fmt: skip
_REDUCTIONS = {"Max": "ReduceMax", "Mean": "ReduceMean", "Min": "ReduceMin", "Prod": "ReduceProd",
               "Sum": "ReduceSum"}  # fmt: skip
_PASSING = ("EnsureShape", "Identity", "PreventGradient", "Snapshot", "StopGradient")


def _row(name: str, function: Callable[..., Any], *neutral: str, **rename: str) -> Row:
    return Row(name, function, rename, {}, neutral)


def _rows() -> Iterator[Row]:
    for name in _PASSING:
        yield _row(name, arrays.same, "shape", "message")
    yield _row("IdentityN", arrays.all_same)
    yield _row("ReadVariableOp", arrays.read_variable)
    yield _row("ResourceGather", arrays.resource_gather)
    yield _row("GatherV2", arrays.gather)
    yield _row("GatherNd", arrays.gather_nd, "bad_indices_policy")
    # Arithmetic.
    for name, operator in _SAME.items():
        yield _row(name, arithmetic.same(operator))
    yield _row("AddN", arithmetic.add_n, "N")
    yield _row("BiasAdd", arithmetic.bias_add)
    yield _row("Div", arithmetic.divide)
    yield _row("DivNoNan", arithmetic.divide_no_nan)
    yield _row("FloorDiv", arithmetic.floor_divide)
    yield _row("FloorMod", arithmetic.same("Mod"))
    yield _row("NotEqual", arithmetic.not_equal)
    yield _row("Rsqrt", arithmetic.rsqrt)
    yield _row("Square", arithmetic.square)
    yield _row("SquaredDifference", arithmetic.squared_difference)
    yield _row("Relu6", arithmetic.relu6)
    yield _row("LeakyRelu", arithmetic.leaky_relu)
    yield _row("Elu", arithmetic.same("Elu"))
    yield _row("Softmax", arithmetic.along_last("Softmax"))
    yield _row("LogSoftmax", arithmetic.along_last("LogSoftmax"))
    yield _row("ClipByValue", arithmetic.clip)
    yield _row("MatMul", arithmetic.matmul, "grad_a", "grad_b")
    for name in ("BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"):
        yield _row(name, arithmetic.batch_matmul, "grad_x", "grad_y")
    yield _row("Einsum", arithmetic.einsum, "N")
    for name, operator in _REDUCTIONS.items():
        yield _row(name, arithmetic.reduce(operator))
    yield _row("All", arithmetic.reduce_truth("ReduceMin"))
    yield _row("Any", arithmetic.reduce_truth("ReduceMax"))
    yield _row("ArgMax", arithmetic.arg_reduce("ArgMax"))
    yield _row("ArgMin", arithmetic.arg_reduce("ArgMin"))
    yield _row("Cumsum", arithmetic.cumsum)
    yield _row("SelectV2", arrays.select_v2)
    yield _row("Cast", arrays.cast, "Truncate", "SrcT")
    # Elements in other places.
    yield _row("Shape", arrays.shape)
    yield _row("Size", arrays.size)
    yield _row("Reshape", arrays.reshape)
    yield _row("ExpandDims", arrays.expand_dims)
    yield _row("Squeeze", arrays.squeeze)
    yield _row("Transpose", arrays.transpose)
    yield _row("StridedSlice", slicing.strided_slice)
    yield _row("Slice", arrays.slice_)
    yield _row("Pack", arrays.pack, "N")
    yield _row("Unpack", arrays.unpack)
    yield _row("ConcatV2", arrays.concat, "N")
    yield _row("Split", arrays.split)
    yield _row("SplitV", arrays.split_sizes, "num_split")
    yield _row("Fill", arrays.fill)
    yield _row("ZerosLike", arrays.filled_like(0))
    yield _row("OnesLike", arrays.filled_like(1))
    yield _row("BroadcastTo", arrays.broadcast_to)
    yield _row("Tile", arrays.tile)
    yield _row("Range", arrays.range_)
    yield _row("Pad", arrays.pad)
    yield _row("PadV2", arrays.pad)
    yield _row("MirrorPad", arrays.mirror_pad)
    yield _row("ReverseV2", arrays.reverse)
    yield _row("OneHot", arrays.one_hot)
    yield _row("TopKV2", arrays.top_k, "sorted")
    # Windows, statistics.
    yield _row("Conv2D", windows.conv2d)
    yield _row("DepthwiseConv2dNative", windows.depthwise_conv2d)
    yield _row("MaxPool", windows.pool("MaxPool"))
    yield _row("AvgPool", windows.pool("AveragePool"))
    yield _row("FusedBatchNormV3", windows.batch_norm)
    # Functions, loops, and the lists that loops read and write.
    for name in ("PartitionedCall", "StatefulPartitionedCall"):
        yield _row(name, arrays.call_function)
    for name in ("StatelessWhile", "While"):
        yield _row(name, while_loops.while_, "output_shapes")
    yield _row("TensorListFromTensor", lists.from_tensor)
    yield _row("TensorListReserve", lists.reserve)
    yield _row("TensorListGetItem", lists.get_item)
    yield _row("TensorListSetItem", lists.set_item, "resize_if_index_out_of_bounds")
    yield _row("TensorListStack", lists.stack, "num_elements")
    yield _row("TensorListLength", lists.length)


ROWS = table(_rows())
