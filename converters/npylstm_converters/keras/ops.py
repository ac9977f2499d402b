"""Computations: what Keras' and TensorFlow's functions mean in words of the toolkit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from npylstm.ops.arithmetic import Arithmetic
from npylstm.ops.pointwise import Rescaling
from npylstm.ops.shaping import Transpose
from npylstm.ops.sorting import ArgReduce
from npylstm_converters.errors import Refusal
from npylstm_converters.keras import shape_ops
from npylstm_converters.toolkit import array_ops, index_ops
from npylstm_converters.toolkit.array_ops import arithmetic, axis_of, pointwise, reduce
from npylstm_converters.toolkit.translation import Graph


def matmul(
    graph: Graph, x: Any, y: Any, *, transpose_a: Any = None, transpose_b: Any = None,
    adjoint_a: Any = None, adjoint_b: Any = None,
) -> Any:  # fmt: skip
    """Multiply as matrices; each may be transposed before."""
    operands = []
    for operand, flags in ((x, (transpose_a, adjoint_a)), (y, (transpose_b, adjoint_b))):
        tensor = graph.tensor(operand)
        if any(flags):
            rank = len(graph.shape(tensor))
            axes = (*range(rank - 2), rank - 1, rank - 2)
            tensor = graph.add(Transpose(axes), tensor, part="transposed")
        operands.append(tensor)
    return array_ops.matmul(graph, *operands)


def cumulative(operation: str) -> Callable[..., Any]:
    """Return a function of running totals along an axis that must be given."""

    def apply(
        graph: Graph, x: Any, axis: Any = None, exclusive: Any = False, reverse: Any = False
    ) -> Any:
        if axis is None:
            raise Refusal("axis=None: would mix samples; expected an axis behind the batch")
        return array_ops.cumulative(operation)(graph, x, axis, exclusive, reverse)

    return apply


def arg_reduce(operation: str, orders_zeros: bool = False) -> Callable[..., Any]:
    """Return a function that finds an index along an axis that must be given.

    TensorFlow passes over nan. ``orders_zeros``: of floats, -0.0 is smaller than 0.0.
    """

    def apply(graph: Any, x: Any, axis: Any = None, keepdims: Any = False) -> Any:
        if axis is None:
            raise Refusal("axis=None: would mix samples; expected an axis behind the batch")
        x = graph.tensor(x)
        zeros = orders_zeros and not graph.holds_integers(x)
        made = ArgReduce(
            operation, axis_of(graph, x, axis), bool(keepdims), skips_nan=True, orders_zeros=zeros
        )
        return graph.add(made, x)

    return apply


def top_k(graph: Graph, x: Any, k: Any = 1) -> list[Any]:
    """Return the largest entries of the last axis, and their indices."""
    return [array_ops.top_k(result)(graph, x, k) for result in ("values", "indices")]


def sort(result: str) -> Callable[..., Any]:
    """Return a function that sorts along an axis and returns ``values`` or ``indices``."""

    def apply(graph: Graph, x: Any, axis: Any = -1, direction: Any = "ASCENDING") -> Any:
        if direction not in ("ASCENDING", "DESCENDING"):
            raise Refusal(f"direction={direction!r:.40} is not supported")
        return array_ops.top_k(result)(graph, x, None, axis, direction == "DESCENDING")

    return apply


def moments(graph: Graph, x: Any, axes: Any, keepdims: Any = False) -> list[Any]:
    """Return mean and variance along axes."""
    mean = reduce("mean")(graph, x, axes, keepdims)
    return [mean, array_ops.spread("var")(graph, x, axes, 0, keepdims)]


def norm(graph: Graph, x: Any, ord: Any = None, axis: Any = None, keepdims: Any = False) -> Any:
    """Return the norm of vectors along one axis."""
    words = {None: "norm", 2: "norm", "euclidean": "norm", 1: "l1"}
    if axis is None or (
        isinstance(axis, list) and len(axis) != 1 and ord not in (None, "euclidean")
    ):
        raise Refusal(f"axis={axis!r:.40}: expected one axis")
    if isinstance(ord, (list, dict)) or ord not in words:
        raise Refusal(f"ord={ord!r:.40} is not supported, only 1 and 2")
    return reduce(words[ord])(graph, x, axis, keepdims)


def unit_normalization(
    graph: Graph, x: Any, axis: Any = -1, order: Any = 2, epsilon: Any = None
) -> Any:
    """Divide by the norm, which is at least epsilon: ``keras.ops.normalize``."""
    number = 1e-7 if epsilon is None else graph.number(epsilon)
    if number is None or type(order) not in (int, float):
        raise Refusal(f"expected numbers order and epsilon, got {order!r:.40}, {epsilon!r:.40}")
    return array_ops.unit_normalization(graph, x, axis, order, number)


def l2_normalize(graph: Graph, x: Any, axis: Any = None, epsilon: Any = 1e-12) -> Any:
    """Divide by the norm; the sum of squares is at least epsilon: TensorFlow's function."""
    if axis is None:
        raise Refusal("axis=None: would mix samples; expected an axis behind the batch")
    return array_ops.unit_normalization(graph, x, axis, 2.0, math.sqrt(epsilon))


def spread_along(operation: str) -> Callable[..., Any]:
    """Return a function of the variance or deviation, divided by the number of entries."""

    def apply(graph: Graph, x: Any, axis: Any = None, keepdims: Any = False) -> Any:
        return array_ops.spread(operation)(graph, x, axis, 0, keepdims)

    return apply


def peak_to_peak(graph: Graph, x: Any, axis: Any = None, keepdims: Any = False) -> Any:
    """Subtract the smallest entry from the largest."""
    most, least = (reduce(word)(graph, x, axis, keepdims) for word in ("max", "min"))
    return arithmetic("subtract")(graph, most, least)


def squared_difference(graph: Graph, x: Any, y: Any) -> Any:
    """Square the difference."""
    return pointwise("square")(graph, arithmetic("subtract")(graph, x, y))


def divide_no_nan(graph: Graph, x: Any, y: Any) -> Any:
    """Divide, with 0 where the divisor is 0."""
    zero = arithmetic("equal")(graph, y, 0)
    return array_ops.where(graph, zero, 0.0, arithmetic("divide")(graph, x, y))


def is_finite(graph: Graph, x: Any) -> Any:
    """Whether entries are neither infinite nor nan."""
    other = arithmetic("logical_or")(
        graph, pointwise("is_inf")(graph, x), pointwise("is_nan")(graph, x)
    )
    return pointwise("logical_not")(graph, other)


def scaled(factor: float) -> Callable[..., Any]:
    """Return a function that multiplies by a number."""

    def apply(graph: Graph, x: Any) -> Any:
        return graph.add(Rescaling(factor), graph.tensor(x))

    return apply


def difference(graph: Graph, a: Any, n: Any = 1, axis: Any = -1) -> Any:
    """Subtract from each entry along an axis the one before, ``n`` times."""
    if type(n) is not int or not 0 <= n < 100:
        raise Refusal(f"n: expected a number of times, got {n!r:.40}")
    x = graph.tensor(a)
    for _ in range(n):
        after = index_ops.slice_axis(graph, x, axis, 1)
        x = arithmetic("subtract")(graph, after, index_ops.slice_axis(graph, x, axis, None, -1))
    return x


def one_hot(
    graph: Graph, x: Any, depth: Any, axis: Any = -1, on: Any = None, off: Any = None
) -> Any:
    """Return 1 at the index along a new axis, 0 elsewhere; nothing for indices out of range."""
    values = 1.0 if on is None else on, 0.0 if off is None else off
    return index_ops.one_hot(graph, x, depth, -1 if axis is None else axis, *values)


def gelu(graph: Graph, x: Any, approximate: Any = False) -> Any:
    """Apply gelu, exact or by tanh."""
    return pointwise("gelu_tanh" if approximate else "gelu")(graph, x)


def with_number(name: str, param: str, default: float) -> Callable[..., Any]:
    """Return a function that applies an activation with one number."""

    def apply(graph: Graph, x: Any, number: Any = default) -> Any:
        value = graph.number(number)
        if value is None:
            raise Refusal(f"{param}: expected a number, got a tensor")
        return pointwise(name, **{param: value})(graph, x)

    return apply


def silu(graph: Graph, x: Any, beta: Any = 1.0) -> Any:
    """Apply silu."""
    if beta != 1.0:
        raise Refusal(f"beta={beta!r:.40} is not supported, only 1.0")
    return pointwise("silu")(graph, x)


def glu(graph: Graph, x: Any, axis: Any = -1) -> Any:
    """Multiply one half with the sigmoid of the other."""
    left, right = shape_ops.split(graph, x, 2, axis)
    return arithmetic("multiply")(graph, left, pointwise("sigmoid")(graph, right))


def threshold(graph: Graph, x: Any, threshold: Any, default_value: Any) -> Any:
    """Replace entries that are not above a number."""
    above = arithmetic("greater")(graph, x, threshold)
    return array_ops.where(graph, above, x, default_value)


def round_half_even(graph: Graph, x: Any, decimals: Any = 0) -> Any:
    """Round to integers."""
    if decimals:
        raise Refusal(f"decimals={decimals!r:.40} is not supported, only 0")
    return pointwise("round")(graph, x)


def tensordot(graph: Graph, x: Any, y: Any, axes: Any = 2) -> Any:
    """Sum products along pairs of axes."""
    x, y = graph.tensor(x), graph.tensor(y)
    ranks = len(graph.shape(x)), len(graph.shape(y))
    if type(axes) is int:
        pairs = [[*range(ranks[0] - axes, ranks[0])], [*range(axes)]]
    elif isinstance(axes, list) and len(axes) == 2:
        pairs = [a if isinstance(a, list) else [a] for a in axes]
    else:
        raise Refusal(f"axes: expected a number or two lists, got {axes!r:.60}")
    left = [axis_of(graph, x, a) for a in pairs[0]]
    right = [axis_of(graph, y, a) for a in pairs[1]]
    letters = [chr(ord("a") + k) for k in range(ranks[0])]
    others = [chr(ord("A") + k) for k in range(ranks[1])]
    for a, b in zip(left, right, strict=True):
        others[b] = letters[a]
    kept = [c for k, c in enumerate(letters) if k not in left]
    kept += [c for k, c in enumerate(others) if k not in right]
    equation = f"{''.join(letters)},{''.join(others)}->{''.join(kept)}"
    return array_ops.einsum(graph, equation, [x, y])


def dot(graph: Graph, x: Any, y: Any) -> Any:
    """Multiply with a matrix or a vector; NumPy's product of two stacks would mix samples."""
    x, y = graph.tensor(x), graph.tensor(y)
    if len(graph.shape(y)) > 2:
        raise Refusal("dot of two stacks of matrices is not supported; use matmul or einsum")
    return array_ops.matmul(graph, x, y)


def einsum(graph: Graph, operands: Sequence[Any], subscripts: Any) -> Any:
    """Multiply and sum by an equation."""
    return array_ops.einsum(graph, subscripts, operands)


def hypot(graph: Graph, x: Any, y: Any) -> Any:
    """Return the root of the sum of squares."""
    squares = [pointwise("square")(graph, v) for v in (x, y)]
    return pointwise("sqrt")(graph, graph.add(Arithmetic("add"), *squares))


def band_part(graph: Graph, x: Any, num_lower: Any, num_upper: Any) -> Any:
    """Keep a triangle of matrices."""
    if (num_lower, num_upper) == (-1, 0):
        return index_ops.trilu(graph, x)
    if (num_lower, num_upper) == (0, -1):
        return index_ops.trilu(graph, x, upper=True)
    raise Refusal(f"num_lower={num_lower!r:.20}, num_upper={num_upper!r:.20} is not supported")


def add_all(graph: Graph, xs: Any) -> Any:
    """Add tensors."""
    return array_ops.merge("add")(graph, xs)
