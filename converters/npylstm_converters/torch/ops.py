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
from npylstm.ops.indexing import Select, Slice
from npylstm.ops.pointwise import ActivationLayer
from npylstm.ops.shaping import Concatenate, Expand, Reshape, Stack
from npylstm_converters.errors import Refusal
from npylstm_converters.toolkit import array_ops
from npylstm_converters.torch import layers
from npylstm_converters.torch.builder import (
    ConstantTensor,
    FilledTensor,
    Ref,
    StackedTensors,
    SymbolicSize,
)
from npylstm_converters.torch.calls import Call

_END = 2**63 - 1  # torch writes it for a slice without an end


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


def select(call: Call, x: Any, axis: int, index: Any) -> Any:
    """Return one entry along an axis."""
    axis = call.axis(x, axis)
    if isinstance(index, SymbolicSize):  # x.size(1) - 1 is the last entry
        index = index.size - x.traced[axis]
        index = int(index) if getattr(index, "is_Integer", False) else None
    if not isinstance(index, int):
        raise Refusal("by an index that depends on the inputs")
    if isinstance(x, StackedTensors) and axis == 0:
        return x.pieces[index]
    return call.add(Select(axis, index), call.tensor(x))


def slice_(call: Call, x: Any, axis: int, start: Any, end: Any, step: int) -> Any:
    """Return ``x[start:end:step]`` along an axis."""
    start, stop = start or 0, None if end is None or end == _END else end
    if not all(v is None or isinstance(v, int) for v in (start, stop, step)):
        raise Refusal("with a bound that depends on the inputs")
    if (start, stop, step) == (0, None, 1):
        return x
    axis = call.axis(x, axis)
    if isinstance(x, StackedTensors) and axis == 0:
        return StackedTensors(x.pieces[start:stop:step])
    size = call.traced[0][axis]
    known = None
    if isinstance(size, int) and not isinstance(x.traced[axis], int):
        first = (start, stop, step) == (0, 1, 1)  # no axis is empty
        known = size if first or call.builder.slices_known else None
    return call.add(Slice(axis, start, stop, step, known), call.tensor(x))


def narrow(call: Call, x: Any, axis: int, start: Any, length: Any) -> Any:
    """Return ``length`` entries along an axis, from ``start`` on."""
    if not isinstance(start, int) or not isinstance(length, int) or start < 0:
        raise Refusal("with a bound that depends on the inputs")
    return call.add(Slice(call.axis(x, axis), start, start + length), call.tensor(x))


def split(call: Call, x: Any, axis: int) -> list[Ref]:
    """Split along an axis; the sizes are those of the outputs."""
    axis, source = call.axis(x, axis), call.tensor(x)
    made, at = [], 0
    for traced in call.traced:
        size = traced[axis]
        if not isinstance(size, int):
            raise Refusal("along an axis whose size is free")
        made.append(call.add(Slice(axis, at, at + size), source))
        at += size
    return made


def unbind(call: Call, x: Any, axis: int) -> list[Ref]:
    """Return all entries along an axis as separate tensors."""
    axis = call.axis(x, axis)
    if isinstance(x, StackedTensors) and axis == 0:
        return list(x.pieces)
    source = call.tensor(x)
    return [call.add(Select(axis, k), source) for k in range(len(call.traced))]


def permute(call: Call, x: Any, axes: Sequence[int]) -> Any:
    """Reorder all axes."""
    axes = [call.axis(x, axis) for axis in axes]
    return x if axes == [*range(len(axes))] else array_ops.transpose(call, x, axes)


def swap_axes(call: Call, x: Any, a: int, b: int) -> Any:
    """Exchange two axes."""
    axes = [*range(call.rank(x))]
    a, b = call.axis(x, a), call.axis(x, b)
    axes[a], axes[b] = axes[b], axes[a]
    return permute(call, x, axes)


def last_two(call: Call, x: Any) -> Any:
    """Exchange the last two axes."""
    return swap_axes(call, x, -2, -1)


def reverse_axes(call: Call, x: Any) -> Any:
    """Reverse the order of the axes."""
    return permute(call, x, [*range(call.rank(x))][::-1])


def move_axes(call: Call, x: Any, source: Any, destination: Any) -> Any:
    """Move axes to other positions; the others keep their order."""
    pairs = [v if isinstance(v, (list, tuple)) else [v] for v in (source, destination)]
    origins, targets = ([call.axis(x, axis) for axis in axes] for axes in pairs)
    rest = iter(a for a in range(call.rank(x)) if a not in origins)
    placed = dict(zip(targets, origins, strict=True))
    order = [placed[k] if k in placed else next(rest) for k in range(call.rank(x))]
    return permute(call, x, order)


def view(call: Call, x: Any) -> Any:
    """Reshape to the traced shape of the output; the arguments are ignored."""
    target = call.traced[0]
    if isinstance(x, StackedTensors) and len(x.pieces) == 1 and target == x.pieces[0].traced:
        return x.pieces[0]
    if isinstance(x, FilledTensor):
        return FilledTensor(x.value, target)
    if x.traced == target:
        return x
    sizes, sources = call.builder.sizes(target, [call.tensor(x)], infer=True)
    return call.add(Reshape(sizes), *sources)


def expand(call: Call, x: Any) -> Any:
    """Broadcast axes of size one to the shape of the output."""
    target = call.traced[0]
    if isinstance(x, FilledTensor):
        return FilledTensor(x.value, target)
    source = call.tensor(x)
    if source.traced == target:
        return source
    sizes, sources = call.builder.sizes(target, [source])
    return call.add(Expand(sizes), *sources)


def repeat(call: Call, x: Any, repeats: Sequence[int]) -> Any:
    """Repeat along axes of size one, which equals :func:`expand`."""
    own = (1,) * (len(repeats) - call.rank(x)) + tuple(call.tensor(x).traced)
    if any(r != 1 and size != 1 for r, size in zip(repeats, own, strict=True)):
        raise Refusal("along an axis of another size than 1 is not supported")
    return expand(call, call.tensor(x))


def fill(value: float) -> Callable[..., FilledTensor]:
    """Return a function that returns one value in the shape of the output."""
    return lambda call: FilledTensor(value, call.traced[0])


def full(call: Call, value: Any) -> FilledTensor:
    """Return a value in the shape of the output."""
    if not isinstance(value, (int, float)):
        raise Refusal("with a value that depends on the inputs")
    return FilledTensor(float(value), call.traced[0])


def empty(call: Call) -> FilledTensor:
    """Return uninitialised memory."""
    return FilledTensor(None, call.traced[0])


def cat(call: Call, xs: Sequence[Any], axis: int) -> Any:
    """Concatenate tensors, without the empty ones."""
    there = [x for x in xs if getattr(x, "traced", None) != (0,)]
    parts = [call.builder.ref(t, f"{call.node}_{k}") for k, t in enumerate(there)]
    if len(parts) == 1:
        return parts[0]
    return call.add(Concatenate(axis % len(call.shape(parts[0]))), *parts)


def stack(call: Call, xs: Sequence[Any], axis: int) -> Any:
    """Stack tensors along a new axis; along the first only when an operation reads the stack."""
    parts = [call.builder.ref(t, f"{call.node}_{k}") for k, t in enumerate(xs)]
    axis = call.axis(parts[0], axis, extra=1)
    return StackedTensors(tuple(parts)) if axis == 0 else call.add(Stack(axis), *parts)


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
    given = {key: float(value) for key, value in params.items()}
    return call.add(ActivationLayer(Activation.of(name, **given)), call.tensor(x))


def elu(call: Call, x: Any, alpha: float) -> Ref:
    """Apply ELU."""
    return _activation(call, x, "elu", alpha=alpha)


def celu(call: Call, x: Any, alpha: float) -> Ref:
    """Apply CELU."""
    return _activation(call, x, "celu", alpha=alpha)


def leaky_relu(call: Call, x: Any, negative_slope: float) -> Ref:
    """Apply a leaky ReLU."""
    return _activation(call, x, "relu", negative_slope=negative_slope)


def softplus(call: Call, x: Any, beta: float, threshold: float) -> Ref:
    """Apply softplus, which is the identity above a threshold."""
    return _activation(call, x, "softplus", beta=beta, threshold=threshold)


def soft_shrink(call: Call, x: Any, threshold: float) -> Ref:
    """Apply softshrink."""
    return _activation(call, x, "soft_shrink", threshold=threshold)


def hard_shrink(call: Call, x: Any, threshold: float) -> Ref:
    """Apply hardshrink."""
    return _activation(call, x, "hard_shrink", threshold=threshold)


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
