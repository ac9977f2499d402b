"""Operations of traced programs that exist only in PyTorch, or differ there.

Each function takes a :class:`~npylstm_converters.torch.calls.Call` and the arguments of torch's
schema, under the names in its row (:mod:`npylstm_converters.torch.rows`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from npylstm.activations import Activation
from npylstm.ops.arithmetic import Arithmetic
from npylstm.ops.indexing import Slice
from npylstm.ops.pointwise import ActivationLayer
from npylstm_converters.errors import Refusal
from npylstm_converters.toolkit import array_ops
from npylstm_converters.torch import layers
from npylstm_converters.torch.builder import ConstantTensor, Ref
from npylstm_converters.torch.calls import Call


def same(_: Call, x: Any) -> Any:
    """Return the input: for copies and memory layouts."""
    return x


def dropout(_: Call, x: Any, p: float, train: bool) -> Any:
    """Return the input; raise Refusal if dropout is active, because outputs are then random."""
    if train and p > 0:
        raise Refusal("is left on in inference: its result is random")
    return x


def linear(call: Call, x: Any, weight: Any, bias: Any = None) -> Ref:
    """Add ``x @ weight.T + bias``."""
    call.check_rank(weight, 2)
    return call.add_layer(layers.linear, x, weight=weight, bias=bias)


def addmm(call: Call, bias: Any, x: Any, kernel: Any) -> Ref:
    """Add ``bias + x @ kernel``."""
    call.check_rank(kernel, 2)
    call.check_rank(bias, 1)
    return call.add_layer(layers.dense, x, kernel=kernel, bias=bias)


def matmul(call: Call, x: Any, y: Any) -> Ref:
    """Return ``x @ y``; a constant y makes a dense layer."""
    if isinstance(y, ConstantTensor) and len(y.traced) == 2:  # a Linear without its module
        return call.add_layer(layers.dense, x, kernel=y)
    made: Ref = array_ops.matmul(call, x, y)
    return made


def einsum(call: Call, equation: str, tensors: Sequence[Any]) -> Ref:
    """Multiply tensors and sum, as an equation states."""
    made: Ref = array_ops.einsum(call, equation, tensors)
    return made


def baddbmm(call: Call, bias: Any, x: Any, y: Any) -> Any:
    """Return ``bias + x @ y``."""
    product = array_ops.matmul(call, x, y)
    return call.add(Arithmetic("add"), call.tensor(bias), product)


def outer(call: Call, x: Any, y: Any) -> Ref:
    """Return the products of all pairs of entries of two vectors."""
    return einsum(call, "i,j->ij", [x, y])


def embedding(call: Call, weight: Any, indices: Any) -> Ref:
    """Look up rows."""
    call.check_rank(weight, 2)
    return call.add_layer(layers.embedding, indices, weight=weight)


def batch_norm(
    call: Call, x: Any, weight: Any, bias: Any, running_mean: Any, running_var: Any,
    training: bool, eps: float,
) -> Ref:  # fmt: skip
    """Normalize by moving statistics."""
    if training:
        raise Refusal("normalises by the batch itself")
    if running_mean is None or running_var is None:
        raise Refusal("without running statistics normalises by the batch itself")
    make = functools.partial(layers.batch_norm, eps=float(eps))
    arrays = {"running_mean": running_mean, "running_var": running_var}
    return call.add_layer(make, x, **arrays, weight=weight, bias=bias)


def layer_norm(call: Call, x: Any, shape: Sequence[int], weight: Any, bias: Any, eps: float) -> Ref:
    """Normalize by each sample's own statistics."""
    make = functools.partial(layers.layer_norm, shape=[int(d) for d in shape], eps=float(eps))
    return call.add_layer(make, x, weight=weight, bias=bias)


def prelu(call: Call, x: Any, weight: Any) -> Ref:
    """Apply PReLU."""
    source = call.tensor(x)
    make = functools.partial(layers.prelu, rank=len(call.shape(source)))
    return call.add_layer(make, source, weight=weight)


def norm(call: Call, x: Any, order: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Return the norm along axes."""
    words = {2: "norm", 1: "l1", None: "norm"}
    if order in words:
        return array_ops.reduce(words[order])(call, x, axis, keepdims)
    if order in (float("inf"), float("-inf")):
        size = array_ops.pointwise("abs")(call, x)
        return array_ops.reduce("max" if order > 0 else "min")(call, size, axis, keepdims)
    raise Refusal(f"of order {order} is not supported")


def scaled(operation: str) -> Callable[..., Ref]:
    """Return a function of ``x`` and ``alpha * y``."""
    combine = array_ops.arithmetic(operation)

    def apply(call: Call, x: Any, y: Any, alpha: Any = 1) -> Ref:
        if call.dtype == "bool":  # True + True is True
            either: Ref = array_ops.arithmetic("logical_or")(call, x, y)
            return either
        number = call.number(y)
        if alpha != 1 and number is not None:
            y = alpha * number
        elif alpha != 1:
            tensor = call.builder.ref(y, f"{call.node}_other")
            y = call.add(Arithmetic("multiply", float(alpha)), tensor, part="alpha")
        made: Ref = combine(call, x, y)
        return made

    return apply


def subtract_from(call: Call, x: Any, y: Any) -> Any:
    """Return ``y - x``."""
    return array_ops.arithmetic("subtract")(call, y, x)


def power(call: Call, x: Any, exponent: Any) -> Any:
    """Return ``x ** exponent``."""
    if exponent == 2:
        return array_ops.pointwise("square")(call, x)
    return array_ops.arithmetic("power")(call, x, exponent)


def _activation(call: Call, x: Any, name: str, **params: float) -> Ref:
    apply = array_ops.pointwise(name, **{key: float(value) for key, value in params.items()})
    made: Ref = apply(call, x)
    return made


def with_alpha(name: str) -> Callable[..., Ref]:
    """Return a function that applies an activation with a parameter ``alpha``."""
    return lambda call, x, alpha: _activation(call, x, name, alpha=alpha)


def with_threshold(name: str) -> Callable[..., Ref]:
    """Return a function that applies an activation with a parameter ``threshold``."""
    return lambda call, x, threshold: _activation(call, x, name, threshold=threshold)


def leaky_relu(call: Call, x: Any, negative_slope: float) -> Ref:
    """Apply a leaky ReLU."""
    return _activation(call, x, "relu", negative_slope=negative_slope)


def softplus(call: Call, x: Any, beta: float, threshold: float) -> Ref:
    """Apply softplus, which is the identity above a threshold."""
    return _activation(call, x, "softplus", beta=beta, threshold=threshold)


def gelu(call: Call, x: Any, approximate: str) -> Ref:
    """Apply GELU: exact, or the tanh approximation."""
    return _activation(call, x, "gelu_tanh" if approximate == "tanh" else "gelu")


def hardtanh(call: Call, x: Any, low: float, high: float) -> Ref:
    """Clamp to ``[low, high]``; the usual bounds make an activation."""
    if (low, high) == (0.0, 6.0):
        return _activation(call, x, "relu", max_value=6.0)
    if (low, high) == (-1.0, 1.0):
        return _activation(call, x, "hard_tanh")
    made: Ref = array_ops.clip(call, x, float(low), float(high))
    return made


def glu(call: Call, x: Any, axis: int) -> Ref:
    """Return ``a * sigmoid(b)``, a and b the halves along an axis."""
    axis, source = call.axis(x, axis), call.tensor(x)
    size = source.traced[axis]
    if not isinstance(size, int):
        raise Refusal("along an axis whose size is free")
    halves = (Slice(axis, 0, size // 2), Slice(axis, size // 2, size))
    a, b = (call.add(half, source, part="half") for half in halves)
    gate = call.add(ActivationLayer(Activation("sigmoid")), b, part="gate")
    return call.add(Arithmetic("multiply"), a, gate)


def combined(operation: str) -> Callable[..., Any]:
    """Return a function of ``z + value * (x operation y)``."""
    combine = array_ops.arithmetic(operation)

    def apply(call: Call, z: Any, x: Any, y: Any, value: Any = 1) -> Any:
        return scaled("add")(call, z, combine(call, x, y), value)

    return apply


def lerp(call: Call, x: Any, y: Any, weight: Any) -> Any:
    """Return ``x + weight * (y - x)``."""
    off = array_ops.arithmetic("subtract")(call, y, x)
    off = array_ops.arithmetic("multiply")(call, off, weight)
    return array_ops.arithmetic("add")(call, x, off)


def threshold(call: Call, x: Any, threshold: float, value: float) -> Any:
    """Return ``x`` where it is above a threshold, else a value."""
    source = call.tensor(x)
    above = array_ops.arithmetic("greater")(call, source, float(threshold))
    return array_ops.where(call, above, source, float(value))


def fraction(call: Call, x: Any) -> Any:
    """Return ``x`` without its integer part."""
    source = call.tensor(x)
    whole = array_ops.pointwise("trunc")(call, source)
    return array_ops.arithmetic("subtract")(call, source, whole)
