"""Every operation of traced programs: one row each (:mod:`npylstm_converters.toolkit`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from npylstm_converters.toolkit import array_ops
from npylstm_converters.toolkit.translation import Row, table
from npylstm_converters.torch import lengths_ops, ops, shape_ops
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

# torch's names of most operations' arguments. Element types are checked at the outputs.
_NAMES = {"self": "x", "input": "x", "other": "y", "mat2": "y", "dim": "axis", "dims": "axes",
          "keepdim": "keepdims", "tensors": "xs"}  # fmt: skip
_NEUTRAL = ("dtype", "layout", "device", "pin_memory", "non_blocking", "copy", "memory_format",
            "half_to_float")  # fmt: skip


def _row(
    function: Callable[..., Any], *names: str, neutral: Sequence[str] = (), **rename: str
) -> Iterator[Row]:
    for name in names:
        yield Row(f"aten.{name}", function, {**_NAMES, **rename}, neutral=(*_NEUTRAL, *neutral))


def _only(rows: Iterator[Row], **only: tuple[Any, ...]) -> Iterator[Row]:
    return (row._replace(only=only) for row in rows)


_SHAPE = ("size", "shape", "sizes", "dim", "start_dim", "end_dim", "other", "implicit")
_POOL = {"ceil_mode": (False,)}


def _all_rows() -> Iterator[Row]:
    # Return the input.
    yield from _row(ops.same, "alias.default", "clone.default", "contiguous.default",
                    "detach.default", "detach_.default", "lift_fresh_copy.default",
                    "positive.default")  # fmt: skip
    yield from _row(ops.same, "to.other", "type_as.default", neutral=("other",))
    yield from _row(ops.cast, "to.dtype", "to.dtype_layout", "to.device", "_to_copy.default")
    for kind in ("", "alpha_", "feature_", "feature_alpha_"):
        yield from _row(ops.dropout, f"{kind}dropout.default")
    # Layers.
    yield from _row(ops.linear, "linear.default")
    yield from _only(_row(ops.addmm, "addmm.default", self="bias", mat1="x", mat2="kernel"),
                     beta=(1,), alpha=(1,))  # fmt: skip
    yield from _row(ops.embedding, "embedding.default",
                    neutral=("padding_idx", "scale_grad_by_freq", "sparse"))  # fmt: skip
    yield from _row(ops.batch_norm, "batch_norm.default", neutral=("momentum", "cudnn_enabled"))
    yield from _row(ops.layer_norm, "layer_norm.default", neutral=("cudnn_enable",),
                    normalized_shape="shape")  # fmt: skip
    yield from _row(ops.prelu, "prelu.default")
    yield from _row(ops.conv1d, "conv1d.default", "conv1d.padding")
    yield from _only(_row(ops.conv1d, "convolution.default", neutral=("output_padding",)),
                     transposed=(False,))  # fmt: skip
    yield from _only(_row(ops.pool("max"), "max_pool1d.default"), **_POOL)
    yield from _only(_row(ops.pool("mean"), "avg_pool1d.default"), **_POOL)
    yield from _row(ops.adaptive_pool("mean"), "adaptive_avg_pool1d.default")
    yield from _row(ops.adaptive_pool("max"), "adaptive_max_pool1d.default")
    for name, mode in _RECURRENT.items():
        yield from _row(recurrent(mode), f"{name}.input",
                        neutral=("has_biases", "dropout", "train"))  # fmt: skip
        yield from _row(cell(mode), f"{name}_cell.default")
    yield Row("npylstm.with_lengths.default", lengths_ops.with_lengths)
    yield Row("npylstm.padded.default", lengths_ops.padded)
    # Shapes, and the order of elements.
    yield from _row(shape_ops.view, "view.default", "reshape.default", "_unsafe_view.default",
                    "unsqueeze.default", "squeeze.default", "squeeze.dim", "squeeze.dims",
                    "flatten.using_ints", "unflatten.int", "view_copy.default",
                    "_reshape_copy.default", "reshape_as.default", "view_as.default",
                    neutral=_SHAPE)  # fmt: skip
    yield from _row(shape_ops.expand, "expand.default", "expand_as.default", neutral=_SHAPE)
    yield from _row(shape_ops.repeat, "repeat.default")
    yield from _row(shape_ops.select, "select.int")
    yield from _row(shape_ops.slice_, "slice.Tensor")
    yield from _row(shape_ops.narrow, "narrow.default")
    yield from _row(shape_ops.split, "split.Tensor", "split.sizes", "split_with_sizes.default",
                    "chunk.default", neutral=("split_size", "split_sizes", "chunks"))  # fmt: skip
    yield from _row(shape_ops.unbind, "unbind.int")
    yield from _row(shape_ops.permute, "permute.default")
    yield from _row(shape_ops.swap_axes, "transpose.int", "swapdims.default", dim0="a", dim1="b")
    yield from _row(shape_ops.swap_axes, "swapaxes.default", axis0="a", axis1="b")
    yield from _row(shape_ops.reverse_axes, "t.default", "numpy_T.default")
    yield from _row(shape_ops.last_two, "mT.default")
    yield from _row(shape_ops.move_axes, "movedim.int", "movedim.intlist", "moveaxis.int",
                    "moveaxis.intlist")  # fmt: skip
    yield from _row(shape_ops.cat, "cat.default", "concat.default")
    yield from _row(shape_ops.stack, "stack.default")
    yield from _row(array_ops.flip, "flip.default", dims="axis")
    # Tensors of one value.
    for name, value in {"zeros": 0.0, "ones": 1.0}.items():
        yield from _row(shape_ops.fill(value), f"{name}.default", f"{name}_like.default",
                        f"new_{name}.default", neutral=("self", "size"))  # fmt: skip
    yield from _row(shape_ops.fill(0.0), "zero.default", neutral=("self",))
    yield from _row(shape_ops.full, "full.default", "full_like.default", "new_full.default",
                    "fill.Scalar", neutral=("self", "size"), fill_value="value")  # fmt: skip
    yield from _row(shape_ops.empty, "empty.memory_format", "empty_like.default",
                    "new_empty.default", neutral=("self", "size"))  # fmt: skip
    # Reductions and other operations along axes.
    yield from _row(ops.reduce("mean"), "mean.dim", "mean.default")
    yield from _row(ops.reduce("sum"), "sum.dim_IntList", "sum.default")
    yield from _row(ops.reduce("max"), "amax.default", "max.dim")
    yield from _row(ops.reduce("min"), "amin.default", "min.dim")
    yield from _row(ops.norm, "linalg_vector_norm.default", "norm.ScalarOpt_dim", "norm.Scalar",
                    ord="order", p="order")  # fmt: skip
    yield from _row(array_ops.softmax("softmax"), "softmax.int", "_softmax.default")
    yield from _row(array_ops.softmax("log_softmax"), "log_softmax.int", "_log_softmax.default")
    # Arithmetic.
    for name, operation in {"add": "add", "sub": "subtract", "subtract": "subtract"}.items():
        yield from _row(ops.scaled(operation), f"{name}.Tensor", f"{name}.Scalar")
    for name, operation in {"mul": "multiply", "multiply": "multiply", "div": "divide",
                            "divide": "divide", "true_divide": "divide"}.items():  # fmt: skip
        yield from _row(array_ops.arithmetic(operation), f"{name}.Tensor", f"{name}.Scalar")
    yield from _only(_row(array_ops.arithmetic("divide"), "div.Tensor_mode"),
                     rounding_mode=(None,))  # fmt: skip
    yield from _row(array_ops.arithmetic("maximum"), "maximum.default", "max.other")
    yield from _row(array_ops.arithmetic("minimum"), "minimum.default", "min.other")
    yield from _only(_row(ops.subtract_from, "rsub.Scalar", "rsub.Tensor"), alpha=(1,))
    yield from _row(ops.power, "pow.Tensor_Scalar", "pow.Tensor_Tensor")
    yield from _row(ops.matmul, "matmul.default", "bmm.default", "mm.default")
    # Element by element.
    for name, function in {
        "abs": "abs", "cos": "cos", "log": "log", "log1p": "log1p", "neg": "negative",
        "expm1": "expm1", "reciprocal": "reciprocal", "rsqrt": "rsqrt", "sign": "sign",
        "sin": "sin", "sqrt": "sqrt", "square": "square", "relu": "relu", "tanh": "tanh",
        "sigmoid": "sigmoid", "exp": "exponential", "silu": "silu", "mish": "mish", "selu": "selu",
        "hardsigmoid": "hard_sigmoid_sixth", "hardswish": "hard_silu",
        "log_sigmoid": "log_sigmoid", "softsign": "softsign",
    }.items():  # fmt: skip
        yield from _row(array_ops.pointwise(function), f"{name}.default")
    yield from _row(array_ops.pointwise("relu", max_value=6.0), "relu6.default")
    yield from _row(ops.gelu, "gelu.default")
    yield from _only(_row(ops.with_alpha("elu"), "elu.default"), scale=(1,), input_scale=(1,))
    yield from _row(ops.softplus, "softplus.default")
    yield from _row(ops.with_alpha("celu"), "celu.default")
    yield from _row(ops.leaky_relu, "leaky_relu.default")
    yield from _row(ops.with_threshold("soft_shrink"), "softshrink.default", lambd="threshold")
    yield from _row(ops.with_threshold("hard_shrink"), "hardshrink.default", lambd="threshold")
    yield from _row(ops.hardtanh, "hardtanh.default", min_val="low", max_val="high")
    yield from _row(ops.clamp, "clamp.default", "clip.default", "clamp_min.default",
                    "clamp_max.default", min="low", max="high")  # fmt: skip
    yield from _row(ops.glu, "glu.default")


ROWS = table(_all_rows())
