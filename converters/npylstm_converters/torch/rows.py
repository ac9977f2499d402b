"""Every operation of traced programs: one row each (:mod:`npylstm_converters.toolkit`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from npylstm_converters.toolkit import array_ops, shaping_ops
from npylstm_converters.toolkit.translation import Row, table
from npylstm_converters.torch import (
    array_rows,
    attention_ops,
    lengths_ops,
    logic_ops,
    ops,
    shape_ops,
)
from npylstm_converters.torch.naming import only, rows
from npylstm_converters.torch.recurrent_ops import cell, recurrent

__all__ = ["IGNORED", "ROWS", "TIME_AXES"]


def _flag_at(position: int) -> Callable[[Sequence[Any]], int]:
    """Return a function from a recurrent op's arguments to its batch axis."""
    return lambda args: 0 if args[position] else 1


_RECURRENT = {"lstm": "LSTM", "gru": "GRU", "rnn_tanh": "RNN_TANH", "rnn_relu": "RNN_RELU"}

# Operations whose arguments determine the batch axis of their first argument.
TIME_AXES: dict[str, Callable[[Sequence[Any]], int]] = {
    **{f"aten.{op}.input": _flag_at(8) for op in _RECURRENT},
    **dict.fromkeys((f"aten.{op}_cell.default" for op in _RECURRENT), lambda args: 0),
}

# Checks and hints that compute nothing.
IGNORED = {
    "aten._assert_async.msg", "aten._assert_scalar.default", "aten._assert_tensor_metadata.default",
    "aten.sym_constrain_range.default", "aten.sym_constrain_range_for_size.default",
    "aten.dim.default", "aten._functional_assert_async.msg",
}  # fmt: skip

_SHAPE = ("size", "shape", "sizes", "dim", "start_dim", "end_dim", "other", "implicit")


def _all_rows() -> Iterator[Row]:
    # Return the input.
    yield from rows(ops.same, "alias.default", "clone.default", "contiguous.default",
                    "detach.default", "detach_.default", "lift_fresh_copy.default",
                    "positive.default")  # fmt: skip
    yield from rows(logic_ops.cast, "to.other", "type_as.default", neutral=("other",))
    yield from rows(logic_ops.cast, "to.dtype", "to.dtype_layout", "to.device", "_to_copy.default")
    for kind in ("", "alpha_", "feature_", "feature_alpha_"):
        yield from rows(ops.dropout, f"{kind}dropout.default")
    # Layers.
    yield from rows(ops.linear, "linear.default")
    yield from only(rows(ops.addmm, "addmm.default", self="bias", mat1="x", mat2="kernel"),
                     beta=(1,), alpha=(1,))  # fmt: skip
    yield from rows(ops.embedding, "embedding.default",
                    neutral=("padding_idx", "scale_grad_by_freq", "sparse"))  # fmt: skip
    yield from rows(ops.batch_norm, "batch_norm.default", neutral=("momentum", "cudnn_enabled"))
    yield from rows(ops.layer_norm, "layer_norm.default", neutral=("cudnn_enable",),
                    normalized_shape="shape")  # fmt: skip
    yield from rows(ops.prelu, "prelu.default")
    for name, mode in _RECURRENT.items():
        yield from rows(recurrent(mode), f"{name}.input",
                        neutral=("has_biases", "dropout", "train"))  # fmt: skip
        yield from rows(cell(mode), f"{name}_cell.default")
    yield Row("npylstm.with_lengths.default", lengths_ops.with_lengths)
    yield Row("npylstm.padded.default", lengths_ops.padded, neutral=("removes",))
    # Shapes, and the order of elements.
    yield from rows(shape_ops.view, "view.default", "reshape.default", "_unsafe_view.default",
                    "unsqueeze.default", "squeeze.default", "squeeze.dim", "squeeze.dims",
                    "flatten.using_ints", "unflatten.int", "view_copy.default",
                    "_reshape_copy.default", "reshape_as.default", "view_as.default",
                    neutral=_SHAPE)  # fmt: skip
    yield from rows(
        shape_ops.expand,
        "expand.default",
        "expand_as.default",
        "broadcast_to.default",
        neutral=_SHAPE,
    )
    yield from rows(shape_ops.repeat, "repeat.default", "tile.default", dims="repeats")
    yield from rows(shape_ops.repeat_interleave, "repeat_interleave.self_int",
                    neutral=("output_size",))  # fmt: skip
    yield from rows(shape_ops.roll, "roll.default", dims="axes")
    yield from only(rows(shape_ops.diff, "diff.default"), prepend=(None,), append=(None,))
    yield from rows(shaping_ops.sliding_windows, "unfold.default", dimension="axis", step="stride")
    yield from rows(shape_ops.select, "select.int")
    yield from rows(shape_ops.slice_, "slice.Tensor")
    yield from rows(shape_ops.narrow, "narrow.default")
    parts = ("split.Tensor", "split.sizes", "split_with_sizes.default", "chunk.default")
    unsafe = ("unsafe_split.Tensor", "unsafe_split_with_sizes.default", "unsafe_chunk.default")
    yield from rows(shape_ops.split, *parts, *unsafe,
                    neutral=("split_size", "split_sizes", "chunks"))  # fmt: skip
    yield from rows(shape_ops.unbind, "unbind.int")
    yield from rows(shape_ops.permute, "permute.default")
    yield from rows(shape_ops.swap_axes, "transpose.int", "swapdims.default", dim0="a", dim1="b")
    yield from rows(shape_ops.swap_axes, "swapaxes.default", axis0="a", axis1="b")
    yield from rows(shape_ops.reverse_axes, "t.default", "numpy_T.default")
    yield from rows(shape_ops.last_two, "mT.default")
    yield from rows(shape_ops.move_axes, "movedim.int", "movedim.intlist", "moveaxis.int",
                    "moveaxis.intlist")  # fmt: skip
    yield from rows(shape_ops.cat, "cat.default", "concat.default")
    yield from rows(shape_ops.stack, "stack.default")
    yield from rows(array_ops.flip, "flip.default", dims="axis")
    # Tensors of one value.
    for name, value in {"zeros": 0.0, "ones": 1.0}.items():
        yield from rows(shape_ops.fill(value), f"{name}.default", f"{name}_like.default",
                        f"new_{name}.default", neutral=("self", "size"))  # fmt: skip
    yield from rows(shape_ops.fill(0.0), "zero.default", neutral=("self",))
    yield from rows(shape_ops.full, "full.default", "full_like.default", "new_full.default",
                    "fill.Scalar", "fill.Tensor", neutral=("self", "size"),
                    fill_value="value")  # fmt: skip
    yield from rows(shape_ops.empty, "empty.memory_format", "empty_like.default",
                    "new_empty.default", neutral=("self", "size"))  # fmt: skip
    # Reductions and other operations along axes.
    yield from rows(array_ops.reduce("mean"), "mean.dim", "mean.default")
    yield from rows(array_ops.reduce("sum"), "sum.dim_IntList", "sum.default")
    yield from rows(ops.norm, "linalg_vector_norm.default", "norm.ScalarOpt_dim", "norm.Scalar",
                    ord="order", p="order")  # fmt: skip
    yield from rows(array_ops.softmax("softmax"), "softmax.int", "_softmax.default")
    yield from rows(array_ops.softmax("log_softmax"), "log_softmax.int", "_log_softmax.default")
    # Arithmetic.
    for name, operation in {"add": "add", "sub": "subtract", "subtract": "subtract"}.items():
        yield from rows(ops.scaled(operation), f"{name}.Tensor", f"{name}.Scalar")
    for name, operation in {"mul": "multiply", "multiply": "multiply", "div": "divide",
                            "divide": "divide", "true_divide": "divide"}.items():  # fmt: skip
        yield from rows(array_ops.arithmetic(operation), f"{name}.Tensor", f"{name}.Scalar")
    yield from only(rows(ops.subtract_from, "rsub.Scalar", "rsub.Tensor"), alpha=(1,))
    yield from rows(ops.power, "pow.Tensor_Scalar", "pow.Tensor_Tensor")
    yield from rows(ops.matmul, "matmul.default", "bmm.default", "mm.default", "mv.default",
                    "dot.default", vec="y", tensor="y")  # fmt: skip
    yield from rows(ops.einsum, "einsum.default", neutral=("path",), tensors="tensors")
    yield from only(rows(ops.baddbmm, "baddbmm.default", self="bias", batch1="x", batch2="y"),
                    beta=(1,), alpha=(1,))  # fmt: skip
    yield from rows(ops.outer, "outer.default", vec2="y")
    # Element by element.
    for name, function in {
        "abs": "abs", "cos": "cos", "log": "log", "log1p": "log1p", "neg": "negative",
        "expm1": "expm1", "reciprocal": "reciprocal", "rsqrt": "rsqrt", "sign": "sign",
        "sin": "sin", "tan": "tan", "asin": "asin", "acos": "acos", "atan": "atan", "sinh": "sinh",
        "cosh": "cosh", "asinh": "asinh", "acosh": "acosh", "atanh": "atanh", "erf": "erf",
        "exp2": "exp2", "log2": "log2", "log10": "log10", "ceil": "ceil", "floor": "floor",
        "round": "round", "trunc": "trunc", "isnan": "is_nan", "isinf": "is_inf",
        "logical_not": "logical_not", "arctan": "atan", "arcsin": "asin", "arccos": "acos",
        "negative": "negative", "absolute": "abs",
        "fix": "trunc", "sgn": "sign", "special_expm1": "expm1", "special_log1p": "log1p",
        "sqrt": "sqrt", "square": "square", "relu": "relu", "tanh": "tanh",
        "sigmoid": "sigmoid", "exp": "exponential", "silu": "silu", "mish": "mish", "selu": "selu",
        "hardsigmoid": "hard_sigmoid_sixth", "hardswish": "hard_silu",
        "log_sigmoid": "log_sigmoid", "softsign": "softsign",
    }.items():  # fmt: skip
        yield from rows(array_ops.pointwise(function), f"{name}.default")
    yield from rows(array_ops.pointwise("relu", max_value=6.0), "relu6.default")
    yield from rows(ops.gelu, "gelu.default")
    yield from only(rows(ops.with_alpha("elu"), "elu.default"), scale=(1,), input_scale=(1,))
    yield from rows(ops.softplus, "softplus.default")
    yield from rows(ops.with_alpha("celu"), "celu.default")
    yield from rows(ops.leaky_relu, "leaky_relu.default")
    yield from rows(ops.with_threshold("soft_shrink"), "softshrink.default", lambd="threshold")
    yield from rows(ops.with_threshold("hard_shrink"), "hardshrink.default", lambd="threshold")
    yield from rows(ops.hardtanh, "hardtanh.default", min_val="low", max_val="high")
    yield from rows(ops.glu, "glu.default")
    yield from rows(ops.combined("multiply"), "addcmul.default", tensor1="x", tensor2="y", self="z")
    yield from rows(ops.combined("divide"), "addcdiv.default", tensor1="x", tensor2="y", self="z")
    yield from rows(ops.lerp, "lerp.Scalar", "lerp.Tensor", end="y")
    yield from rows(ops.threshold, "threshold.default")
    yield from rows(ops.fraction, "frac.default")
    yield from rows(attention_ops.scaled_dot_product, "scaled_dot_product_attention.default",
                    attn_mask="mask")  # fmt: skip


ROWS = table([*_all_rows(), *array_rows.all_rows()])
