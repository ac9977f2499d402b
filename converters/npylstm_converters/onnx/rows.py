"""Every supported operator: a row for each version of the operator set that changed it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from npylstm_converters.onnx import (
    control,
    elementwise,
    indexing,
    layers,
    loops,
    normalization,
    recurrent,
    reshaping,
    resizing,
    shaping,
)
from npylstm_converters.toolkit import array_ops, index_ops
from npylstm_converters.toolkit.translation import Row, table

__all__ = ["ROWS", "VARIADIC"]

# Operators with any number of inputs: their functions take them as a list.
VARIADIC = frozenset({"Concat", "Einsum", "Loop", "Max", "Mean", "Min", "Scan", "Sum"})

Versions = dict[int, Row]


def _row(
    name: str, function: Callable[..., Any], since: int = 1, *, neutral: tuple[str, ...] = (),
    only: Mapping[str, tuple[Any, ...]] = {}, **rename: str,
) -> tuple[str, int, Row]:  # fmt: skip
    return name, since, Row(f"{name}-{since}", function, rename, only, neutral)


def _rows() -> Iterator[tuple[str, int, Row]]:
    # Recurrent.
    yield _row("LSTM", recurrent.lstm, neutral=("output_sequence",))
    yield _row("GRU", recurrent.gru, neutral=("output_sequence",))
    yield _row("RNN", recurrent.rnn, neutral=("output_sequence",))
    # With weights, windows, statistics.
    yield _row("MatMul", layers.matmul)
    yield _row("Gemm", layers.gemm, neutral=("broadcast",))
    yield _row("Conv", layers.conv)
    yield _row("MaxPool", layers.pool("max"), only={"storage_order": (0,)})
    yield _row("AveragePool", layers.pool("mean"))
    yield _row("LpPool", layers.pool("lp"))
    yield _row("GlobalMaxPool", layers.global_pool("max"))
    yield _row("GlobalAveragePool", layers.global_pool("mean"))
    yield _row("ConvTranspose", layers.conv_transpose, neutral=("kernel_shape",))
    yield _row("BatchNormalization", normalization.batch_normalization,
               neutral=("momentum", "consumed_inputs"))  # fmt: skip
    yield _row("LayerNormalization", normalization.layer_normalization)
    yield _row("InstanceNormalization", normalization.instance_normalization,
               neutral=("consumed_inputs",))  # fmt: skip
    yield _row("GroupNormalization", normalization.group_normalization)
    yield _row("RMSNormalization", normalization.rms_normalization)
    yield _row("LpNormalization", normalization.lp_normalization)
    yield _row("MeanVarianceNormalization", normalization.mean_variance_normalization)
    yield _row("LRN", normalization.lrn)
    yield _row("Resize", resizing.resize_by, 10)
    yield _row("Resize", resizing.resize, 11, neutral=("extrapolation_value",))
    yield _row("Upsample", resizing.resize_by)
    yield _row("DepthToSpace", resizing.depth_to_space)
    yield _row("SpaceToDepth", resizing.space_to_depth)
    yield _row("ReverseSequence", resizing.reverse_sequence)
    yield _row("Einsum", indexing.einsum)
    yield _row("PRelu", layers.prelu)
    yield _row("Dropout", layers.dropout, neutral=("ratio", "consumed_inputs"))
    yield _row("Dropout", layers.dropout, 12, neutral=("seed",))
    # Elements in other places.
    yield _row("Identity", shaping.same, input="x")
    yield _row("Shape", shaping.shape)
    yield _row("Size", shaping.size)
    yield _row("ConstantOfShape", shaping.constant_of_shape)
    yield _row("Cast", shaping.cast, neutral=("saturate", "round_mode"))
    yield _row("Reshape", reshaping.reshape)
    yield _row("Flatten", reshaping.flatten)
    yield _row("Squeeze", reshaping.squeeze)
    yield _row("Unsqueeze", reshaping.unsqueeze)
    yield _row("Transpose", shaping.transpose)
    yield _row("Expand", reshaping.expand)
    yield _row("Slice", shaping.slice_)
    yield _row("Gather", shaping.gather)
    yield _row("Concat", shaping.concat)
    yield _row("Split", shaping.split)
    yield _row("Pad", indexing.pad)
    yield _row("GatherND", index_ops.gather_nd)
    yield _row("Range", shaping.range_)
    yield _row("GatherElements", indexing.gather_elements)
    yield _row("ScatterElements", indexing.scatter)
    yield _row("Scatter", indexing.scatter)
    yield _row("ScatterND", indexing.scatter_nd)
    yield _row("OneHot", indexing.one_hot)
    yield _row("Trilu", indexing.trilu)
    yield _row("Tile", reshaping.tile)
    # Along axes.
    for name, operation in {"ReduceMean": "mean", "ReduceSum": "sum", "ReduceMax": "max",
                            "ReduceMin": "min", "ReduceProd": "prod", "ReduceL2": "norm",
                            "ReduceL1": "l1", "ReduceSumSquare": "sum_square",
                            "ReduceLogSum": "log_sum",
                            "ReduceLogSumExp": "log_sum_exp"}.items():  # fmt: skip
        yield _row(name, layers.reduce(operation))
    for name, function in {"Softmax": "softmax", "LogSoftmax": "log_softmax"}.items():
        yield _row(name, layers.softmax_of_rows(function))
        yield _row(name, layers.softmax(function), 13)
    yield _row("ArgMax", indexing.arg_reduce("max"))
    yield _row("ArgMin", indexing.arg_reduce("min"))
    yield _row("TopK", indexing.top_k, neutral=("sorted",))
    yield _row("CumSum", indexing.cum_sum)
    # Graphs inside.
    yield _row("If", control.if_)
    yield _row("Loop", loops.loop)
    yield _row("Scan", loops.scan, 9)
    # Arithmetic.
    for name, operation in {"Add": "add", "Sub": "subtract", "Mul": "multiply",
                            "Pow": "power"}.items():  # fmt: skip
        yield _row(name, elementwise.of_axes(operation), neutral=("consumed_inputs",))
        special = {"Mul": elementwise.multiply, "Pow": elementwise.power}
        own = special.get(name) or array_ops.arithmetic(operation)
        yield _row(name, own, 7)
    yield _row("Div", elementwise.of_axes("divide"), neutral=("consumed_inputs",))
    yield _row("Div", elementwise.divide, 7)
    yield _row("Mod", elementwise.modulo)
    for name, operation in {"Equal": "equal", "Less": "less", "LessOrEqual": "less_equal",
                            "Greater": "greater", "GreaterOrEqual": "greater_equal",
                            "And": "logical_and", "Or": "logical_or",
                            "Xor": "logical_xor"}.items():  # fmt: skip
        yield _row(name, elementwise.compare(operation))
    yield _row("Where", elementwise.where)
    for name, operation in {"Max": "maximum", "Min": "minimum", "Sum": "add",
                            "Mean": "average"}.items():  # fmt: skip
        yield _row(name, elementwise.of_all(operation), neutral=("consumed_inputs",))
    yield _row("Clip", elementwise.clip, neutral=("consumed_inputs",))
    # Element by element.
    for name, function in {
        "Abs": "abs", "Acos": "acos", "Acosh": "acosh", "Asin": "asin", "Asinh": "asinh",
        "Atan": "atan", "Atanh": "atanh", "Ceil": "ceil", "Cos": "cos", "Cosh": "cosh",
        "Erf": "erf", "Exp": "exponential", "Floor": "floor", "HardSwish": "hard_silu",
        "IsNaN": "is_nan", "Log": "log", "Mish": "mish", "Neg": "negative",
        "Reciprocal": "reciprocal", "Relu": "relu", "Round": "round", "Sigmoid": "sigmoid",
        "Sign": "sign", "Sin": "sin", "Sinh": "sinh", "Softplus": "softplus",
        "Softsign": "softsign", "Sqrt": "sqrt", "Tan": "tan", "Tanh": "tanh",
    }.items():  # fmt: skip
        yield _row(name, array_ops.pointwise(function), neutral=("consumed_inputs",))
    yield _row("Not", elementwise.compare_one("logical_not"))
    yield _row("IsInf", elementwise.is_inf)
    for name, (function, params) in elementwise.WITH_PARAMETERS.items():
        made = elementwise.with_parameters(function, params)
        yield _row(name, made, neutral=("consumed_inputs",))
    yield _row("Gelu", elementwise.gelu)
    yield _row("Selu", elementwise.selu, neutral=("consumed_inputs",))


def _by_version() -> dict[str, Versions]:
    rows = [*_rows()]
    table(row for _, _, row in rows)  # names occur once, functions have named arguments
    found: dict[str, Versions] = {}
    for name, since, row in rows:
        found.setdefault(name, {})[since] = row
    return found


ROWS = _by_version()
