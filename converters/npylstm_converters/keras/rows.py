"""Operations on tensors, one row each: the names of Keras 3 and of TensorFlow's functions."""

from __future__ import annotations

import math

from npylstm_converters.keras import ops, shape_ops
from npylstm_converters.keras.slicing import get_item, strided_slice
from npylstm_converters.toolkit import index_ops, shaping_ops
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
from npylstm_converters.toolkit.translation import Row, table

__all__ = ["ROWS", "TAKE_LISTS"]

_OFF = (None, False)
_ONE = {"input": "x", "features": "x", "tensor": "x", "logits": "x"}
_TWO = {"x1": "x", "x2": "y", "a": "x", "b": "y"}
_LIST = {"values": "xs", "x": "xs", "inputs": "xs"}
_REDUCED = {"input_tensor": "x", "keep_dims": "keepdims", "tensor": "x", "input": "x"}
_NAMED = {"name": _OFF}

_POINTWISE = {
    "negative": ("Negative", "math.negative"), "abs": ("Absolute", "Abs", "Fabs", "math.abs"),
    "square": ("Square", "math.square"), "sqrt": ("Sqrt", "math.sqrt"),
    "rsqrt": ("Rsqrt", "math.rsqrt"), "reciprocal": ("Reciprocal", "math.reciprocal"),
    "exponential": ("Exp", "math.exp"), "exp2": ("Exp2",), "expm1": ("Expm1", "math.expm1"),
    "log": ("Log", "math.log"), "log2": ("Log2",), "log10": ("Log10",),
    "log1p": ("Log1p", "math.log1p"), "erf": ("Erf", "math.erf"),
    "sin": ("Sin", "math.sin"), "cos": ("Cos", "math.cos"), "tan": ("Tan", "math.tan"),
    "asin": ("Arcsin", "math.asin"), "acos": ("Arccos", "math.acos"),
    "atan": ("Arctan", "math.atan"), "sinh": ("Sinh", "math.sinh"), "cosh": ("Cosh", "math.cosh"),
    "asinh": ("Arcsinh", "math.asinh"), "acosh": ("Arccosh", "math.acosh"),
    "atanh": ("Arctanh", "math.atanh"), "tanh": ("Tanh", "math.tanh"),
    "sigmoid": ("Sigmoid", "math.sigmoid"), "relu": ("Relu", "nn.relu"),
    "softplus": ("Softplus", "math.softplus", "nn.softplus"),
    "softsign": ("Softsign", "nn.softsign"), "selu": ("Selu", "nn.selu"),
    "log_sigmoid": ("LogSigmoid", "math.log_sigmoid"), "hard_silu": ("HardSilu",),
    "hard_tanh": ("HardTanh",), "tanh_shrink": ("TanhShrink",), "sparse_plus": ("SparsePlus",),
    "sparse_sigmoid": ("SparseSigmoid",), "hard_sigmoid_sixth": ("HardSigmoid",),
    "floor": ("Floor", "math.floor"), "ceil": ("Ceil", "math.ceil"), "trunc": ("Trunc",),
    "sign": ("Sign", "math.sign"), "logical_not": ("LogicalNot", "math.logical_not"),
    "is_nan": ("Isnan", "math.is_nan"), "is_inf": ("Isinf", "math.is_inf"),
}  # fmt: skip
_ARITHMETIC = {
    "add": ("Add", "__operators__.add", "math.add"), "subtract": ("Subtract", "math.subtract"),
    "multiply": ("Multiply", "math.multiply"),
    "divide": ("TrueDivide", "Divide", "math.truediv", "math.divide"),
    "floor_divide": ("FloorDivide", "compat.v1.floor_div", "math.floordiv"),
    "mod": ("Mod", "math.floormod", "math.mod"), "fmod": ("Fmod",),
    "power": ("Power", "math.pow"), "atan2": ("Arctan2",),
    "maximum": ("Maximum", "math.maximum"), "minimum": ("Minimum", "math.minimum"),
    "equal": ("Equal", "math.equal"), "not_equal": ("NotEqual", "math.not_equal"),
    "less": ("Less", "math.less"), "less_equal": ("LessEqual", "math.less_equal"),
    "greater": ("Greater", "math.greater"),
    "greater_equal": ("GreaterEqual", "math.greater_equal"),
    "logical_and": ("LogicalAnd", "math.logical_and"),
    "logical_or": ("LogicalOr", "math.logical_or"),
    "logical_xor": ("LogicalXor", "math.logical_xor"),
}  # fmt: skip
_REDUCE = {
    "mean": ("Mean", "math.reduce_mean"), "sum": ("Sum", "math.reduce_sum"),
    "prod": ("Prod", "math.reduce_prod"),
    "max": ("Max", "Amax", "math.reduce_max"), "min": ("Min", "Amin", "math.reduce_min"),
    "any": ("Any", "math.reduce_any"), "all": ("All", "math.reduce_all"),
    "log_sum_exp": ("Logsumexp", "math.reduce_logsumexp"),
    "norm": ("math.reduce_euclidean_norm",),
}  # fmt: skip
_SHAPE_DTYPE = {"dtype": (None, "float32", "float64")}

_ALIASES: dict[tuple[str, ...], Row] = {
    ("math.atan2",): Row("", arithmetic("atan2"), {"y": "x", "x": "y"}),
    ("Round", "math.round"): Row("", ops.round_half_even),
    ("Relu6", "nn.relu6"): Row("", pointwise("relu", max_value=6.0), _ONE),
    ("Elu", "nn.elu"): Row("", ops.with_number("elu", "alpha", 1.0), {**_ONE, "alpha": "number"}),
    ("Celu",): Row("", ops.with_number("celu", "alpha", 1.0), {"alpha": "number"}),
    ("LeakyRelu", "nn.leaky_relu"): Row(
        "", ops.with_number("relu", "negative_slope", 0.2),
        {**_ONE, "alpha": "number", "negative_slope": "number"}),
    ("SoftShrink",): Row("", ops.with_number("soft_shrink", "threshold", 0.5),
                         {"threshold": "number"}),
    ("HardShrink",): Row("", ops.with_number("hard_shrink", "threshold", 0.5),
                         {"threshold": "number"}),
    ("Squareplus",): Row("", ops.with_number("squareplus", "b", 4.0), {"b": "number"}),
    ("Silu", "nn.silu"): Row("", ops.silu, _ONE),
    ("Gelu", "nn.gelu"): Row("", ops.gelu, _ONE),
    ("Glu",): Row("", ops.glu),
    ("Threshold",): Row("", ops.threshold),
    ("Deg2rad",): Row("", ops.scaled(math.pi / 180)),
    ("Rad2deg",): Row("", ops.scaled(180 / math.pi)),
    ("Hypot",): Row("", ops.hypot, _TWO),
    ("Isfinite", "math.is_finite"): Row("", ops.is_finite),
    ("DivideNoNan", "math.divide_no_nan"): Row("", ops.divide_no_nan, _TWO),
    ("math.squared_difference",): Row("", ops.squared_difference),
    ("math.add_n",): Row("", ops.add_all, _LIST),
    ("nn.bias_add",): Row("", arithmetic("add"), {"value": "x", "bias": "y"},
                          only={"data_format": (None, "NHWC", "N...C")}),
    ("Softmax", "nn.softmax"): Row("", softmax(), _ONE),
    ("LogSoftmax", "nn.log_softmax"): Row("", softmax("log_softmax"), _ONE),
    ("Var", "math.reduce_variance"): Row("", ops.spread_along("var"), _REDUCED),
    ("Std", "math.reduce_std"): Row("", ops.spread_along("std"), _REDUCED),
    ("Moments",): Row("", ops.moments, only={"synchronized": _OFF}),
    ("Average",): Row("", lambda graph, x, axis=None: reduce("mean")(graph, x, axis),
                      only={"weights": (None,)}),
    ("Ptp",): Row("", ops.peak_to_peak),
    ("Norm", "compat.v1.norm", "norm"): Row("", ops.norm, _REDUCED),
    ("Normalize",): Row("", ops.unit_normalization),
    ("math.l2_normalize",): Row("", ops.l2_normalize, only={"dim": (None,)}),
    ("Where", "where", "where_v2"): Row("", where, {"x1": "x", "x2": "y"}),
    ("Clip", "clip_by_value"): Row(
        "", clip, {"x_min": "low", "x_max": "high", "t": "x", "clip_value_min": "low",
                       "clip_value_max": "high"}),
    ("Argmax",): Row("", ops.arg_reduce("max", orders_zeros=True)),
    ("Argmin",): Row("", ops.arg_reduce("min", orders_zeros=True)),
    ("math.argmax",): Row("", ops.arg_reduce("max"), _ONE, neutral=("output_type",)),
    ("math.argmin",): Row("", ops.arg_reduce("min"), _ONE, neutral=("output_type",)),
    ("TopK", "math.top_k"): Row("", ops.top_k, _ONE, only={"sorted": (True,)},
                                neutral=("index_type",)),
    ("Sort", "sort"): Row("", ops.sort("values"), {"values": "x"}),
    ("Argsort", "argsort"): Row("", ops.sort("indices"), {"values": "x"}, neutral=("stable",)),
    ("Cumsum", "math.cumsum"): Row("", ops.cumulative("sum"), only=_SHAPE_DTYPE),
    ("Cumprod", "math.cumprod"): Row("", ops.cumulative("prod"), only=_SHAPE_DTYPE),
    ("math.cumulative_logsumexp",): Row("", ops.cumulative("log_sum_exp")),
    ("Diff",): Row("", ops.difference),
    ("Concatenate", "concat"): Row("", concatenate, _LIST),
    ("Stack", "stack"): Row("", shape_ops.stack, _LIST),
    ("Split",): Row("", shape_ops.split_at),
    ("Hsplit",): Row("", shape_ops.split_along(1)),
    ("Dsplit",): Row("", shape_ops.split_along(2)),
    ("split",): Row("", shape_ops.split, {"value": "x", "num_or_size_splits": "parts"},
                    only={"num": (None,)}),
    ("Unstack", "unstack"): Row("", shape_ops.unstack, {"value": "x"}),
    ("ExpandDims", "expand_dims"): Row("", shape_ops.expand_dims, {"input": "x"}),
    ("Squeeze", "compat.v1.squeeze", "squeeze"):
        Row("", squeeze, {"input": "x"}, only={"squeeze_dims": _OFF}),
    ("Reshape", "reshape"): Row("", shape_ops.reshape, {"tensor": "x", "newshape": "shape"}),
    ("BroadcastTo", "broadcast_to"): Row("", shape_ops.broadcast_to, _ONE),
    ("Transpose", "compat.v1.transpose", "transpose"):
        Row("", transpose, {"a": "x", "perm": "axes"}, only={"conjugate": _OFF}),
    ("Swapaxes",): Row("", shape_ops.swapaxes),
    ("Moveaxis",): Row("", shape_ops.moveaxis),
    ("Flip", "reverse"): Row("", flip, _ONE),
    ("Fliplr",): Row("", lambda graph, x: flip(graph, x, 1)),
    ("Tile", "tile"): Row(
        "", shape_ops.tile, {"repeats": "times", "multiples": "times", "input": "x"}),
    ("Repeat", "repeat"): Row("", shaping_ops.repeat, {"repeats": "times", "input": "x"}),
    ("Roll", "roll"): Row("", shaping_ops.roll, _ONE),
    ("Pad", "compat.v1.pad", "pad"): Row(
        "", shape_ops.pad, {"pad_width": "widths", "paddings": "widths", "constant_values": "value",
                      "tensor": "x"}),
    ("Take",): Row("", shape_ops.take),
    ("compat.v1.gather", "gather"): Row("", shape_ops.gather, {"params": "x"},
                                        only={"validate_indices": (None,)}),
    ("TakeAlongAxis",): Row("", shape_ops.take_along_axis),
    ("compat.v1.gather_nd", "gather_nd"): Row("", index_ops.gather_nd, {"params": "x"},
                                              only={"bad_indices_policy": ("", None)}),
    ("OneHot", "one_hot"): Row(
        "", ops.one_hot, {"num_classes": "depth", "indices": "x", "on_value": "on",
                          "off_value": "off"},
        only={"sparse": _OFF}, neutral=("dtype",)),
    ("Tril",): Row("", index_ops.trilu),
    ("Triu",): Row("", lambda graph, x, k=0: index_ops.trilu(graph, x, k, True)),
    ("linalg.band_part",): Row("", ops.band_part, _ONE),
    ("Matmul", "linalg.matmul"): Row("", ops.matmul, _TWO, only=dict.fromkeys(
        ("a_is_sparse", "b_is_sparse", "output_type", "grad_a", "grad_b"), _OFF)),
    ("Dot",): Row("", ops.dot, _TWO),
    ("Tensordot", "tensordot"): Row("", ops.tensordot, _TWO),
    ("Einsum",): Row("", ops.einsum),
    ("ExtractSequences",): Row("", shaping_ops.sliding_windows,
                               {"sequence_length": "size", "sequence_stride": "stride"}),
    ("Cast", "cast", "SaturateCast"): Row("", shape_ops.cast, {"input": "x"}),
    ("ConvertToTensor",): Row("", shape_ops.cast, only={"sparse": _OFF, "ragged": _OFF}),
    ("identity", "StopGradient", "stop_gradient", "Copy"):
        Row("", identity, {**_ONE, "variable": "x"}),
    ("Array",): Row("", shape_ops.cast),
    ("ensure_shape",): Row("", shape_ops.ensure_shape),
    ("ZerosLike", "zeros_like"): Row("", shape_ops.full_like(0.0), _ONE, neutral=("dtype",)),
    ("OnesLike", "ones_like"): Row("", shape_ops.full_like(1.0), _ONE, neutral=("dtype",)),
    ("FullLike",): Row("", shape_ops.filled_like, {"fill_value": "value"}, neutral=("dtype",)),
    ("zeros",): Row("", shape_ops.filled, neutral=("dtype",)),
    ("ones",): Row(
        "", lambda graph, shape: shape_ops.filled(graph, shape, 1.0), neutral=("dtype",)),
    ("fill",): Row("", shape_ops.filled, {"dims": "shape"}),
    ("compat.v1.shape", "shape", "shape_v2"): Row(
        "", shape_ops.shape_of, _ONE, neutral=("out_type",)),
    ("GetItem", "__operators__.getitem"):
        Row("", get_item, {"slice_spec": "key"}, only={"var": _OFF}),
    ("slice",): Row("", shape_ops.sliced, {"input_": "x"}),
    ("strided_slice",): Row("", strided_slice, {"input_": "x"}, only={"var": _OFF}),
    ("Slice",): Row(
        "", shape_ops.sliced, {"inputs": "x", "start_indices": "begin", "shape": "size"}),
}  # fmt: skip
_ALIASES |= {names: Row("", pointwise(word), _ONE) for word, names in _POINTWISE.items()}
_ALIASES |= {names: Row("", arithmetic(word), _TWO) for word, names in _ARITHMETIC.items()}
_ALIASES |= {
    names: Row("", reduce(word), _REDUCED, only={"initial": _OFF, "dtype": (None,)})
    for word, names in _REDUCE.items()
}
ROWS = table(row._replace(name=name) for names, row in _ALIASES.items() for name in names)
# Functions of a list whose entries Keras writes as separate arguments.
TAKE_LISTS = ("Concatenate", "concat", "Stack", "stack", "math.add_n", "zeros", "ones", "fill",
              "Einsum")  # fmt: skip
