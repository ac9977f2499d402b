"""Elementwise operators whose arguments differ from NumPy's."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from npylstm.activations import Activation
from npylstm.ops.arithmetic import Arithmetic
from npylstm.ops.pointwise import ActivationLayer
from npylstm.ops.shapes import broadcast
from npylstm.ops.shaping import Reshape
from npylstm_converters.errors import Refusal
from npylstm_converters.onnx.values import ConstantTensor, Ref, Value, kind_of
from npylstm_converters.toolkit import array_ops

__all__ = [
    "WITH_PARAMETERS", "clip", "compare", "compare_one", "divide", "gelu", "is_inf", "modulo",
    "multiply", "of_all", "of_axes", "power", "selu", "where", "with_parameters",
]  # fmt: skip

# Operators with alpha, beta and so on: the activation, its parameters and their defaults.
WITH_PARAMETERS: Mapping[str, tuple[str, Mapping[str, tuple[str, float]]]] = {
    "LeakyRelu": ("relu", {"alpha": ("negative_slope", 0.01)}),
    "Elu": ("elu", {"alpha": ("alpha", 1.0)}),
    "Celu": ("celu", {"alpha": ("alpha", 1.0)}),
    "ThresholdedRelu": ("thresholded_relu", {"alpha": ("theta", 1.0)}),
    "HardSigmoid": ("hard_sigmoid", {"alpha": ("alpha", 0.2), "beta": ("beta", 0.5)}),
    "Shrink": ("shrink", {"bias": ("bias", 0.0), "lambd": ("lambd", 0.5)}),
}


def with_parameters(name: str, params: Mapping[str, tuple[str, float]]) -> Callable[..., Any]:
    """Return a function that applies an activation with parameters."""

    def apply(graph: Any, X: Value, **values: float) -> Any:
        ours = {key: float(values.get(theirs, d)) for theirs, (key, d) in params.items()}
        return graph.add(ActivationLayer(Activation.of(name, **ours)), graph.tensor(X))

    keywords = [
        inspect.Parameter(theirs, inspect.Parameter.KEYWORD_ONLY, default=default)
        for theirs, (_, default) in params.items()
    ]
    own = inspect.signature(apply)
    apply.__signature__ = own.replace(  # type: ignore[attr-defined]
        parameters=[*[*own.parameters.values()][:2], *keywords]
    )
    return apply


def of_axes(operation: str) -> Callable[..., Any]:
    """Return the arithmetic of versions before 7: B is aligned at an axis if it is broadcast."""
    combine = array_ops.arithmetic(operation)

    def apply(
        graph: Any, A: Value, B: Value, *, broadcast: int = 0, axis: int | None = None
    ) -> Any:
        if axis is None or not broadcast:
            return combine(graph, A, B)
        a, b = graph.tensor(A), graph.tensor(B)
        missing = len(graph.shape(a)) - axis - len(graph.shape(b))
        if missing < 0:
            raise Refusal(f"axis={axis} does not fit shapes {graph.shape(a)}, {graph.shape(b)}")
        sizes: list[Any] = [(0, k) for k in range(len(graph.shape(b)))] + [1] * missing
        return combine(
            graph, a, graph.add(Reshape(tuple(sizes)), b, part="aligned") if missing else b
        )

    return apply


def multiply(graph: Any, A: Value, B: Value) -> Any:
    """Multiply; by ones it is the other tensor."""
    for x, ones in ((A, B), (B, A)):
        if isinstance(x, Ref) and graph.is_uniform(ones, 1):
            shape = graph.shape(x)
            other = graph.shape(ones) if isinstance(ones, Ref) else np.shape(_array(ones))
            if broadcast([shape, other]) == shape:
                return x
    return array_ops.arithmetic("multiply")(graph, A, B)


def _array(value: Value) -> Any:
    return value.array if isinstance(value, ConstantTensor) else None


def divide(graph: Any, A: Value, B: Value) -> Any:
    """Divide; the quotient of integers is cut off."""
    made = array_ops.arithmetic("divide")(graph, A, B)
    if kind_of(A) != "i":
        return made
    return graph.add(ActivationLayer(Activation("trunc")), made, part="whole", kind="i")


def power(graph: Any, X: Value, Y: Value) -> Any:
    """Return a power; that of integers is cut off."""
    made = array_ops.arithmetic("power")(graph, X, Y)
    if kind_of(X) != "i":
        return made
    return graph.add(ActivationLayer(Activation("trunc")), made, part="whole", kind="i")


def modulo(graph: Any, A: Value, B: Value, *, fmod: int = 0) -> Any:
    """Return the remainder, with the sign of the divisor or, with fmod, of the dividend."""
    return array_ops.arithmetic("fmod" if fmod else "mod")(graph, A, B)


def compare(operation: str) -> Callable[..., Any]:
    """Return a function of two tensors whose result is true or false."""
    combine = array_ops.arithmetic(operation)

    def apply(
        graph: Any, A: Value, B: Value, *, broadcast: int = 0, axis: int | None = None
    ) -> Any:
        if axis is not None and broadcast:
            raise Refusal(f"axis={axis} is not supported")
        return Ref(combine(graph, A, B).name, "b")

    return apply


def compare_one(name: str) -> Callable[..., Any]:
    """Return a function of one tensor whose result is true or false."""

    def apply(graph: Any, X: Value) -> Any:
        return Ref(array_ops.pointwise(name)(graph, X).name, "b")

    return apply


def is_inf(graph: Any, X: Value, *, detect_negative: int = 1, detect_positive: int = 1) -> Any:
    """Return where a tensor is infinite."""
    if detect_negative and detect_positive:
        return Ref(array_ops.pointwise("is_inf")(graph, X).name, "b")
    if not detect_negative and not detect_positive:
        raise Refusal("detects neither sign")
    limit = Arithmetic("equal", math.inf if detect_positive else -math.inf)
    return graph.add(limit, graph.tensor(X), kind="b")


def where(graph: Any, condition: Value, X: Value, Y: Value) -> Any:
    """Choose between two tensors; a constant condition of one value chooses one of them."""
    made = array_ops.where(graph, condition, X, Y)
    return Ref(made.name, kind_of(X))


def of_all(operation: str) -> Callable[..., Any]:
    """Return a function of any number of tensors, combined from left to right."""
    combine = array_ops.arithmetic("add" if operation == "average" else operation)

    def apply(graph: Any, inputs: Sequence[Value]) -> Any:
        made: Any = inputs[0]
        for other in inputs[1:]:
            made = combine(graph, made, other)
        if operation != "average" or len(inputs) == 1:
            return graph.tensor(made)
        return graph.add(Arithmetic("divide", float(len(inputs))), made)

    return apply


def clip(
    graph: Any, input: Value, low: Value | None = None, high: Value | None = None, *,
    min: float | None = None, max: float | None = None,
) -> Any:  # fmt: skip
    """Bound from below and above; versions before 11 have the bounds as attributes."""
    bounds = [
        b if a is None else ConstantTensor(np.asarray(a, np.float64))
        for a, b in ((min, low), (max, high))
    ]
    bounds = [None if _is_unbounded(b, s) else b for b, s in zip(bounds, (-1, 1), strict=True)]
    if bounds == [None, None]:
        return input
    return array_ops.clip(graph, input, *bounds)


def _is_unbounded(bound: Value | None, sign: int) -> bool:
    """Whether a bound changes no number, infinity included."""
    return isinstance(bound, ConstantTensor) and bool((bound.array == sign * math.inf).all())


def selu(
    graph: Any, X: Value, *, alpha: float = 1.6732632423543772, gamma: float = 1.0507009873554805
) -> Any:
    """Apply SELU."""
    scaled = graph.add(ActivationLayer(Activation.of("elu", alpha=alpha)), graph.tensor(X))
    return graph.add(Arithmetic("multiply", gamma), scaled, part="scaled")


def gelu(graph: Any, X: Value, *, approximate: str = "none") -> Any:
    """Apply GELU, exact or by tanh."""
    names = {"none": "gelu", "tanh": "gelu_tanh"}
    if approximate not in names:
        raise Refusal(f"approximate={approximate!r:.40} is not supported")
    return array_ops.pointwise(names[approximate])(graph, X)
