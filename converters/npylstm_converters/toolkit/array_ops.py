"""Array operations with NumPy's names, for all importers.

Each function takes a graph (:class:`~npylstm_converters.toolkit.translation.Graph`), tensors, and
options with the meaning and the defaults that NumPy, Keras and PyTorch agree on. Axes may be
counted from the back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from npylstm.activations import Activation
from npylstm.ops.arithmetic import Arithmetic, Reduce, Where
from npylstm.ops.indexing import Flip
from npylstm.ops.normalization import UnitNormalization
from npylstm.ops.pointwise import ActivationLayer, Identity
from npylstm.ops.products import Einsum, MatMul
from npylstm.ops.shaping import Concatenate, Reshape, Stack, Transpose
from npylstm.ops.sorting import ArgReduce, Cumulative, TopK
from npylstm_converters.errors import Refusal
from npylstm_converters.toolkit.translation import Graph

__all__ = [
    "arg_reduce", "arithmetic", "axes_of", "axis_of", "clip", "concatenate",
    "cosine_similarity", "cumulative", "einsum", "expand_dims", "flip", "identity", "matmul",
    "merge", "pointwise", "reduce", "softmax", "spread", "squeeze", "stack", "standardize",
    "top_k", "transpose", "unit_normalization", "where",
]  # fmt: skip


def axis_of(graph: Graph, x: Any, axis: Any, extra: int = 0) -> int:
    """Return a nonnegative axis; ``extra`` is the number of axes that the result has more."""
    if isinstance(axis, (list, tuple)) and len(axis) == 1:
        axis = axis[0]
    rank = len(graph.shape(x)) + extra
    if type(axis) is not int or not -rank <= axis < rank:
        raise Refusal(f"axis: expected an integer from {-rank} to {rank - 1}, got {axis!r:.60}")
    return axis % rank


def axes_of(graph: Graph, x: Any, axes: Any) -> tuple[int, ...]:
    """Return sorted nonnegative axes; None or an empty sequence means all."""
    if axes is None or (isinstance(axes, (list, tuple)) and not axes):
        return tuple(range(len(graph.shape(x))))
    several = axes if isinstance(axes, (list, tuple)) else [axes]
    return tuple(sorted(axis_of(graph, x, axis) for axis in several))


def identity(graph: Graph, x: Any) -> Any:
    """Return the input."""
    return graph.add(Identity(), graph.tensor(x))


def pointwise(name: str, **params: float) -> Callable[..., Any]:
    """Return a function that applies an activation or another elementwise function."""

    def apply(graph: Graph, x: Any) -> Any:
        return graph.add(ActivationLayer(Activation.of(name, **params)), graph.tensor(x))

    return apply


def softmax(name: str = "softmax") -> Callable[..., Any]:
    """Return a function that computes softmax or log-softmax along an axis."""

    def apply(graph: Graph, x: Any, axis: Any = -1) -> Any:
        x = graph.tensor(x)
        from_back = axis_of(graph, x, axis) - len(graph.shape(x))  # kernels know the last as -1
        return graph.add(ActivationLayer(Activation.of(name, axis=from_back)), x)

    return apply


def arithmetic(operation: str) -> Callable[..., Any]:
    """Return a function of two operands, tensors or numbers."""

    def combine(graph: Graph, x: Any, y: Any) -> Any:
        a, b = graph.number(x), graph.number(y)
        if a is None and b is None:
            return graph.add(Arithmetic(operation), graph.tensor(x), graph.tensor(y))
        if a is not None and b is not None:
            raise Refusal(f"expected a tensor, got the numbers {a:g} and {b:g}")
        tensor = graph.tensor(y if b is None else x)
        return graph.add(
            Arithmetic(operation, a if b is None else b, number_first=b is None), tensor
        )

    return combine


def merge(operation: str) -> Callable[..., Any]:
    """Return a function that combines any number of tensors, from left to right."""

    def combine(graph: Graph, xs: Sequence[Any]) -> Any:
        tensors = _tensors(graph, xs)
        return graph.add(Arithmetic(operation), *tensors)

    return combine


def where(graph: Graph, condition: Any, x: Any, y: Any) -> Any:
    """Return ``x`` where the condition is not zero, else ``y``; both are tensors or numbers."""
    a, b = graph.number(x), graph.number(y)
    tensors = [graph.tensor(v) for v, n in ((x, a), (y, b)) if n is None]
    return graph.add(Where(a, b), graph.tensor(condition), *tensors)


def reduce(operation: str) -> Callable[..., Any]:
    """Return a function that combines entries along axes: a word of ``Reduce``."""

    def apply(graph: Graph, x: Any, axis: Any = None, keepdims: Any = False) -> Any:
        x = graph.tensor(x)
        return graph.add(Reduce(operation, axes_of(graph, x, axis), bool(keepdims)), x)

    return apply


def spread(operation: str) -> Callable[..., Any]:
    """Return a function that computes the variance ``var`` or the standard deviation ``std``."""

    def apply(graph: Graph, x: Any, axis: Any = None, ddof: Any = 0, keepdims: Any = False) -> Any:
        x = graph.tensor(x)
        if type(ddof) is not int:
            raise Refusal(f"ddof: expected an integer, got {ddof!r:.60}")
        return graph.add(Reduce(operation, axes_of(graph, x, axis), bool(keepdims), ddof), x)

    return apply


def arg_reduce(operation: str) -> Callable[..., Any]:
    """Return a function that finds the index of the largest (``max``) or smallest entry."""

    def apply(graph: Graph, x: Any, axis: Any, keepdims: Any = False, last: Any = False) -> Any:
        x = graph.tensor(x)
        axis = axis_of(graph, x, axis)
        return graph.add(ArgReduce(operation, axis, bool(keepdims), bool(last)), x)

    return apply


def top_k(result: str) -> Callable[..., Any]:
    """Return a function that sorts along an axis and returns ``values`` or ``indices``."""

    def apply(graph: Graph, x: Any, k: Any = None, axis: Any = -1, largest: Any = True) -> Any:
        x = graph.tensor(x)
        if k is not None and type(k) is not int:
            raise Refusal(f"k: expected an integer, got {k!r:.60}")
        axis = axis_of(graph, x, axis)
        return graph.add(TopK(axis, k, bool(largest), result == "indices"), x)

    return apply


def cumulative(operation: str) -> Callable[..., Any]:
    """Return a function of running totals: ``sum``, ``prod``, ``max``, ``min``, ``log_sum_exp``."""

    def apply(graph: Graph, x: Any, axis: Any, exclusive: Any = False, reverse: Any = False) -> Any:
        x = graph.tensor(x)
        axis = axis_of(graph, x, axis)
        return graph.add(Cumulative(operation, axis, bool(exclusive), bool(reverse)), x)

    return apply


def standardize(graph: Graph, x: Any, axis: Any = None, ddof: Any = 0, epsilon: float = 0.0) -> Any:
    """Return ``(x - mean) / (std + epsilon)``, with the mean and deviation along axes."""
    off = arithmetic("subtract")(graph, x, reduce("mean")(graph, x, axis, True))
    deviation = spread("std")(graph, x, axis, ddof, True)
    if epsilon:
        deviation = arithmetic("add")(graph, deviation, epsilon)
    return arithmetic("divide")(graph, off, deviation)


def unit_normalization(
    graph: Graph, x: Any, axis: Any = -1, p: float = 2.0, epsilon: float = 1e-12
) -> Any:
    """Divide by the norm along axes, or by ``epsilon`` if that is larger."""
    x = graph.tensor(x)
    return graph.add(UnitNormalization(axes_of(graph, x, axis), epsilon, float(p)), x)


def clip(graph: Graph, x: Any, low: Any = None, high: Any = None) -> Any:
    """Bound from below and above; a bound is a number, a tensor, or None."""
    numbers = {
        name: None if bound is None else graph.number(bound)
        for name, bound in (("low", low), ("high", high))
    }
    if (numbers["low"] is None) == (low is None) and (numbers["high"] is None) == (high is None):
        given = {name: number for name, number in numbers.items() if number is not None}
        return graph.add(ActivationLayer(Activation.of("clip", **given)), graph.tensor(x))
    x = x if low is None else arithmetic("maximum")(graph, x, low)
    return x if high is None else arithmetic("minimum")(graph, x, high)


def _tensors(graph: Graph, xs: Any) -> list[Any]:
    if not isinstance(xs, (list, tuple)) or not xs:
        raise Refusal("expected a list of tensors")
    return [graph.tensor(x) for x in xs]


def concatenate(graph: Graph, xs: Sequence[Any], axis: Any = -1) -> Any:
    """Concatenate tensors along an axis."""
    tensors = _tensors(graph, xs)
    return graph.add(Concatenate(axis_of(graph, tensors[0], axis)), *tensors)


def stack(graph: Graph, xs: Sequence[Any], axis: Any = 0) -> Any:
    """Stack tensors along a new axis."""
    tensors = _tensors(graph, xs)
    return graph.add(Stack(axis_of(graph, tensors[0], axis, extra=1)), *tensors)


def expand_dims(graph: Graph, x: Any, axis: Any) -> Any:
    """Insert axes of size one; the positions are those in the result."""
    x = graph.tensor(x)
    several = axis if isinstance(axis, (list, tuple)) else [axis]
    places = sorted(axis_of(graph, x, a, extra=len(several)) for a in several)
    if len({*places}) < len(places):
        raise Refusal(f"axes: expected different ones, got {places}")
    sizes: list[int | tuple[int, int]] = [(0, k) for k in range(len(graph.shape(x)))]
    for place in places:
        sizes.insert(place, 1)
    return graph.add(Reshape(tuple(sizes)), x)


def squeeze(graph: Graph, x: Any, axis: Any = None) -> Any:
    """Remove axes of size one; without ``axis`` all of them."""
    x = graph.tensor(x)
    shape = graph.shape(x)
    if axis is None:
        axis = [k for k, size in enumerate(shape) if size == 1]
    several = axis if isinstance(axis, (list, tuple)) else [axis]
    gone = {axis_of(graph, x, a) for a in several}
    for k in sorted(gone):
        if shape[k] != 1:
            raise Refusal(f"axis {k}: expected one of size 1, got size {shape[k]}")
    return graph.add(Reshape(tuple((0, k) for k in range(len(shape)) if k not in gone)), x)


def transpose(graph: Graph, x: Any, axes: Any = None) -> Any:
    """Reorder the axes; without an order, reverse it."""
    x = graph.tensor(x)
    rank = len(graph.shape(x))
    if axes is None:
        axes = range(rank)[::-1]
    elif not isinstance(axes, (list, tuple)) or any(type(a) is not int for a in axes):
        raise Refusal(f"axes: expected a list of integers, got {axes!r:.60}")
    return graph.add(Transpose(tuple(a % rank if -rank <= a < 0 else a for a in axes)), x)


def matmul(graph: Graph, x: Any, y: Any) -> Any:
    """Multiply two tensors as stacks of matrices, or a vector with such a stack."""
    x, y = graph.tensor(x), graph.tensor(y)
    vectors = len(graph.shape(x)) == 1, len(graph.shape(y)) == 1
    if not any(vectors):
        return graph.add(MatMul(), x, y)
    equation = {
        (True, True): "n,n->", (True, False): "n,...nk->...k", (False, True): "...n,n->...",
    }[vectors]  # fmt: skip
    return graph.add(Einsum(equation), x, y)


def einsum(graph: Graph, equation: Any, xs: Any) -> Any:
    """Multiply tensors and sum, by an equation of ``numpy.einsum``."""
    if not isinstance(equation, str):
        raise Refusal(f"equation: expected a string, got {equation!r:.60}")
    return graph.add(Einsum(equation), *_tensors(graph, xs))


def cosine_similarity(graph: Graph, x: Any, y: Any, axis: Any = 1, epsilon: float = 1e-8) -> Any:
    """Return the product of two tensors of norm 1, summed along an axis."""
    a, b = (unit_normalization(graph, v, axis, 2.0, epsilon) for v in (x, y))
    return reduce("sum")(graph, arithmetic("multiply")(graph, a, b), axis)


def flip(graph: Graph, x: Any, axis: Any = None) -> Any:
    """Reverse the order along axes."""
    x = graph.tensor(x)
    return graph.add(Flip(axes_of(graph, x, axis)), x)
