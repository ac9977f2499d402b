"""Operations of TensorFlow that compute with numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from npylstm_converters.errors import Refusal
from npylstm_converters.tensorflow.constants import DTYPES

__all__ = [
    "add_n", "along_last", "arg_reduce", "batch_matmul", "bias_add", "clip", "cumsum", "divide",
    "divide_no_nan", "einsum", "floor_divide", "leaky_relu", "matmul", "not_equal", "reduce",
    "reduce_truth", "relu6", "rsqrt", "same", "square", "squared_difference",
]  # fmt: skip


def same(operator: str) -> Callable[..., str]:
    """Return a function for an operation that ONNX has, too; its inputs may be one or two."""

    def apply(call: Any, x: str, y: str | None = None) -> str:
        made: str = call.emit(operator, x, *([] if y is None else [y]))
        return made

    return apply


def add_n(call: Any, inputs: Sequence[str]) -> str:
    """Add any number of tensors."""
    made: str = call.emit("Sum", *inputs)
    return made


def bias_add(call: Any, value: str, bias: str, *, data_format: str = "NHWC") -> str:
    """Add to the features, which are last."""
    if data_format != "NHWC":
        raise Refusal(f"data_format={data_format!r:.20} is not supported, only 'NHWC'")
    made: str = call.emit("Add", value, bias)
    return made


def _is_whole(call: Any) -> bool:
    """Whether an operation computes with integers."""
    kind = call.node.attributes.get("T")
    return kind is None or np.dtype(DTYPES.get(int(kind), "float32")).kind in "iu"


def divide(call: Any, x: str, y: str) -> str:
    """Divide; for integers TensorFlow cuts the quotient off, as ONNX does."""
    made: str = call.emit("Div", x, y)
    return made


def divide_no_nan(call: Any, x: str, y: str) -> str:
    """Divide; by zero the quotient is zero."""
    zero = call.constant(np.float32(0))
    is_zero = call.emit("Equal", y, zero, part="is_zero")
    one = call.constant(np.float32(1))
    divisor = call.emit("Where", is_zero, one, y, part="divisor")
    quotient = call.emit("Div", x, divisor, part="quotient")
    made: str = call.emit("Where", is_zero, zero, quotient)
    return made


def floor_divide(call: Any, x: str, y: str) -> str:
    """Divide and round down."""
    made: str
    if not _is_whole(call):
        made = call.emit("Floor", call.emit("Div", x, y, part="quotient"))
        return made
    rest = call.emit("Mod", x, y, part="rest")
    made = call.emit("Div", call.emit("Sub", x, rest, part="multiple"), y)
    return made


def not_equal(call: Any, x: str, y: str) -> str:
    """Return where two tensors differ."""
    made: str = call.emit("Not", call.emit("Equal", x, y, part="equal"))
    return made


def rsqrt(call: Any, x: str) -> str:
    """Return one divided by the square root."""
    made: str = call.emit("Reciprocal", call.emit("Sqrt", x, part="root"))
    return made


def square(call: Any, x: str) -> str:
    """Multiply a tensor by itself."""
    made: str = call.emit("Mul", x, x)
    return made


def squared_difference(call: Any, x: str, y: str) -> str:
    """Return the squares of differences."""
    difference = call.emit("Sub", x, y, part="difference")
    made: str = call.emit("Mul", difference, difference)
    return made


def relu6(call: Any, x: str) -> str:
    """Bound to 0 and 6."""
    low, high = call.constant(np.float32(0)), call.constant(np.float32(6))
    made: str = call.emit("Clip", x, low, high)
    return made


def leaky_relu(call: Any, x: str, *, alpha: float = 0.2) -> str:
    """Multiply negative numbers by alpha."""
    made: str = call.emit("LeakyRelu", x, alpha=float(alpha))
    return made


def along_last(operator: str) -> Callable[..., str]:
    """Return a function of the last axis."""

    def apply(call: Any, x: str) -> str:
        made: str = call.emit(operator, x, axis=-1)
        return made

    return apply


def clip(call: Any, x: str, low: str, high: str) -> str:
    """Bound from below and above."""
    made: str = call.emit("Min", call.emit("Max", x, low, part="low"), high)
    return made


def matmul(
    call: Any, a: str, b: str, *, transpose_a: bool = False, transpose_b: bool = False
) -> str:
    """Multiply two matrices."""
    a = call.emit("Transpose", a, part="a", perm=[1, 0]) if transpose_a else a
    b = call.emit("Transpose", b, part="b", perm=[1, 0]) if transpose_b else b
    made: str = call.emit("MatMul", a, b)
    return made


def batch_matmul(call: Any, x: str, y: str, *, adj_x: bool = False, adj_y: bool = False) -> str:
    """Multiply matrices in the last two axes."""
    made: str
    if not adj_x and not adj_y:
        made = call.emit("MatMul", x, y)
        return made
    first, second = "ji" if adj_x else "ij", "kj" if adj_y else "jk"
    made = call.emit("Einsum", x, y, equation=f"...{first},...{second}->...ik")
    return made


def einsum(call: Any, inputs: Sequence[str], *, equation: str) -> str:
    """Sum products as an equation says."""
    made: str = call.emit("Einsum", *inputs, equation=equation)
    return made


def reduce(operator: str) -> Callable[..., str]:
    """Return a function that combines the entries along axes."""

    def apply(call: Any, x: str, axes: str, *, keep_dims: bool = False) -> str:
        along = call.axes(axes)
        if not along:
            return x
        made: str = call.emit(operator, x, call.integers(along), keepdims=int(keep_dims))
        return made

    return apply


def reduce_truth(operator: str) -> Callable[..., str]:
    """Return a function that tells whether all or any entries along axes are true."""
    from_numbers = reduce(operator)

    def apply(call: Any, x: str, axes: str, *, keep_dims: bool = False) -> str:
        numbers = call.emit("Cast", x, part="numbers", to=1)
        made: str = call.emit("Cast", from_numbers(call, numbers, axes, keep_dims=keep_dims), to=9)
        return made

    return apply


def arg_reduce(operator: str) -> Callable[..., str]:
    """Return a function that finds the largest or smallest entry along an axis."""

    def apply(call: Any, x: str, axis: str) -> str:
        made: str = call.emit(operator, x, axis=call.axis(axis), keepdims=0)
        return made

    return apply


def cumsum(call: Any, x: str, axis: str, *, exclusive: bool = False, reverse: bool = False) -> str:
    """Return running totals along an axis."""
    along = call.constant(np.int64(call.axis(axis)))
    made: str = call.emit("CumSum", x, along, exclusive=int(exclusive), reverse=int(reverse))
    return made
