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
from npylstm.ops.convolution import Pool1D
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


def cast(call: Call, x: Any) -> Any:
    """Return the input; raise Refusal if the cast from floats to integers truncates."""
    if call.truncates:
        raise Refusal("cuts fractions off")
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


def _one(value: Any) -> int:
    """Return a number that torch may write as a list of one."""
    (number,) = value if isinstance(value, (list, tuple)) else [value]
    return int(number)


def conv1d(
    call: Call, x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any,
    groups: int,
) -> Ref:  # fmt: skip
    """Convolve along the last axis."""
    call.check_rank(weight, 3)
    pads = (0, 0)
    if not isinstance(padding, str):
        pads = (_one(padding), _one(padding))
    elif padding == "same":
        total = _one(dilation) * (call.array(weight).shape[2] - 1)
        pads = (total // 2, total - total // 2)
    make = functools.partial(
        layers.conv1d, stride=_one(stride), padding=pads, dilation=_one(dilation), groups=groups
    )
    return call.add_layer(make, x, weight=weight, bias=bias)


def pool(operation: str) -> Callable[..., Any]:
    """Return a function that pools along the last axis."""

    def apply(
        call: Call, x: Any, kernel_size: Any, stride: Any, padding: Any, dilation: Any = 1,
        count_include_pad: bool = False,
    ) -> Any:  # fmt: skip
        layer = Pool1D(
            operation, size=_one(kernel_size), stride=_one(stride or kernel_size),
            dilation=_one(dilation), padding=(_one(padding),) * 2,
            count_padding=bool(count_include_pad), channels_first=True,
        )  # fmt: skip
        return _with_indices(call, call.add(layer, call.tensor(x)))

    return apply


def adaptive_pool(operation: str) -> Callable[..., Any]:
    """Return a function that pools the last axis to one entry."""

    def apply(call: Call, x: Any, output_size: Any) -> Any:
        if _one(output_size) != 1:
            raise Refusal("to another size than 1 is not supported")
        return _with_indices(call, array_ops.reduce(operation)(call, x, -1, keepdims=True))

    return apply


def reduce(operation: str) -> Callable[..., Any]:
    """Return a function that reduces along axes; indices that it returns must stay unused."""
    apply_one = array_ops.reduce(operation)

    def apply(call: Call, x: Any, axis: Any = None, keepdims: bool = False) -> Any:
        return _with_indices(call, apply_one(call, x, axis, keepdims))

    return apply


def _with_indices(call: Call, made: Ref) -> Any:
    return [made, None] if len(call.traced) > 1 else made


def norm(call: Call, x: Any, order: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Return the norm along axes."""
    if order != 2:
        raise Refusal("of another order than 2 is not supported")
    return array_ops.reduce("norm")(call, x, axis, keepdims)


def scaled(operation: str) -> Callable[..., Ref]:
    """Return a function of ``x`` and ``alpha * y``."""
    combine = array_ops.arithmetic(operation)

    def apply(call: Call, x: Any, y: Any, alpha: Any = 1) -> Ref:
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


def clamp(call: Call, x: Any, low: Any = None, high: Any = None) -> Ref:
    """Clamp to ``[low, high]``, either of which may be None."""
    made = call.tensor(x)
    bounds = [("maximum", low), ("minimum", high)]
    for k, (operation, bound) in enumerate(bounds):
        if bound is None:
            continue
        if not isinstance(bound, (int, float)):
            raise Refusal("with a bound that is a tensor is not supported")
        part = "low" if k == 0 and high is not None else ""
        made = call.add(Arithmetic(operation, float(bound)), made, part=part)
    return made


def hardtanh(call: Call, x: Any, low: float, high: float) -> Ref:
    """Clamp to ``[low, high]``; the usual bounds make an activation."""
    if (low, high) == (0.0, 6.0):
        return _activation(call, x, "relu", max_value=6.0)
    if (low, high) == (-1.0, 1.0):
        return _activation(call, x, "hard_tanh")
    return clamp(call, x, float(low), float(high))


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
