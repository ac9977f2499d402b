"""Operators with weights, and those that combine several elements: products, windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from npylstm.activations import Activation
from npylstm.arrays import Array
from npylstm.ops.arithmetic import Arithmetic
from npylstm.ops.convolution_nd import ConvolutionTranspose
from npylstm.ops.dense import Dense
from npylstm.ops.pointwise import ActivationLayer, PReLU
from npylstm.ops.shaping import Reshape
from npylstm_converters.errors import Refusal
from npylstm_converters.onnx.values import ConstantTensor, Ref, Value, flag, integers
from npylstm_converters.toolkit import array_ops, window_ops

__all__ = [
    "conv", "conv_transpose", "dropout", "gemm", "global_pool", "matmul", "optional", "pool",
    "prelu", "reduce", "required", "softmax", "softmax_of_rows", "there",
]  # fmt: skip


def optional(value: Value | None, name: str) -> Array | None:
    """Return the array of a constant; None if it is absent."""
    if value is None:
        return None
    if not isinstance(value, ConstantTensor):
        raise Refusal(f"{name}: is computed from an input, which is supported for constants only")
    return value.array


def required(value: Value, name: str) -> Array:
    """Return the array of a constant."""
    array = optional(value, name)
    assert array is not None
    return array


def there(**arrays: Array | None) -> dict[str, Array]:
    """Return the arrays that are not None."""
    return {name: array for name, array in arrays.items() if array is not None}


def matmul(graph: Any, A: Value, B: Value) -> Any:
    """Multiply; by a constant matrix it is a dense layer."""
    vector = len(graph.shape(graph.tensor(A))) == 1
    if isinstance(B, ConstantTensor) and B.array.ndim == 2 and not vector:
        features, units = B.array.shape
        layer = Dense(features, units, use_bias=False)
        return graph.layer(layer, {"kernel": B.array}, A, values=(B,), kind="f")[0]
    made: Ref = array_ops.matmul(graph, A, B)
    return made


def gemm(
    graph: Any, A: Value, B: Value, C: Value | None = None, *, alpha: float = 1.0,
    beta: float = 1.0, transA: int = 0, transB: int = 0,
) -> Any:  # fmt: skip
    """Add ``alpha A B + beta C``, with a constant B."""
    kernel = required(B, "B")
    kernel = kernel.T if transB else kernel
    kernel = kernel if alpha == 1 else kernel * np.asarray(alpha, kernel.dtype)
    x = graph.tensor(A)
    if transA:
        x = array_ops.transpose(graph, x)
    units = kernel.shape[1]
    bias = optional(C, "C") if isinstance(C, ConstantTensor) or C is None else None
    if bias is not None:
        bias = bias * np.asarray(beta, bias.dtype) if beta != 1 else bias
        bias = np.broadcast_to(bias, (units,)) if bias.size in (1, units) and bias.ndim < 2 else (
            bias.reshape(-1) if bias.shape == (1, units) else None)  # fmt: skip
    layer = Dense(len(kernel), units, use_bias=bias is not None)
    weights = there(kernel=kernel, bias=bias)
    values = (B, C) if bias is not None else (B,)
    (made,) = graph.layer(
        layer, weights, x, values=values, variant=(alpha, beta, transB),
        part="" if bias is not None or C is None else "product", kind="f",
    )  # fmt: skip
    if bias is not None or C is None:
        return made
    rest = C if beta == 1 else graph.add(Arithmetic("multiply", beta), graph.tensor(C), part="beta")
    added: Ref = array_ops.arithmetic("add")(graph, made, rest)
    return added


def _paddings(pads: Any, auto_pad: str, count: int) -> tuple[tuple[int, ...], str]:
    """Return the padding of each axis, before and after, and how TensorFlow would choose it."""
    if auto_pad in ("NOTSET", "VALID"):
        numbers = [int(p) for p in pads or [0] * 2 * count]
        if len(numbers) != 2 * count:
            raise Refusal(f"pads: expected {2 * count} numbers, got {numbers}")
        return tuple(numbers[k + side * count] for k in range(count) for side in (0, 1)), ""
    kinds = {"SAME_UPPER": "upper", "SAME_LOWER": "lower"}
    if auto_pad not in kinds:
        raise Refusal(f"auto_pad={auto_pad!r:.40} is not supported")
    return (), kinds[auto_pad]


def conv(
    graph: Any, X: Value, W: Value, B: Value | None = None, *, kernel_shape: Any = None,
    strides: Any = None, dilations: Any = None, pads: Any = None, group: int = 1,
    auto_pad: str = "NOTSET",
) -> Any:  # fmt: skip
    """Convolve the axes after the first two."""
    kernel, bias = required(W, "W"), optional(B, "B")
    units, per_group, *size = kernel.shape
    if kernel_shape is not None and [*kernel_shape] != size:
        raise Refusal(f"kernel_shape: expected {size}, got {list(kernel_shape)}")
    padding, same = _paddings(pads, auto_pad, len(size))
    layer = window_ops.convolution(
        per_group * group, units, size, stride=strides or (), dilation=dilations or (),
        padding=padding, groups=group, channels_first=True, use_bias=bias is not None, same=same,
    )  # fmt: skip
    weights = there(kernel=np.moveaxis(kernel, (0, 1), (-1, -2)), bias=bias)
    return graph.layer(layer, weights, graph.tensor(X), values=(W, B))[0]


class _Window:
    """The windows of a transposed convolution along each axis."""

    def __init__(self, size: Any, strides: Any, dilations: Any, more: Any) -> None:
        count = len(size)
        self.size, self.strides = size, strides or [1] * count
        self.dilations, self.more = dilations or [1] * count, [*(more or [0] * count)]

    def paddings(self, entries: Sequence[Any], wanted: Any, auto_pad: str) -> tuple[int, ...]:
        """Return the padding for which the output has the wanted sizes, or entries * stride.

        Where the output would be too small, ``more`` grows.
        """
        made: list[int] = []
        for k, n in enumerate(entries):
            if not isinstance(n, int):
                raise Refusal(f"pads {n} entries to a size, which depends on the call")
            size = n * self.strides[k] if wanted is None else wanted[-len(self.size) :][k]
            span = (self.size[k] - 1) * self.dilations[k] + 1
            total = self.strides[k] * (n - 1) + self.more[k] + span - size
            self.more[k] -= min(total, 0)
            total = max(total, 0)
            half = total // 2
            made += [half, total - half] if auto_pad == "SAME_UPPER" else [total - half, half]
        return tuple(made)


def conv_transpose(
    graph: Any, X: Value, W: Value, B: Value | None = None, *, strides: Any = None,
    dilations: Any = None, pads: Any = None, group: int = 1,
    auto_pad: str = "NOTSET", output_padding: Any = None, output_shape: Any = None,
) -> Any:  # fmt: skip
    """Add the transpose of a convolution."""
    kernel, bias = required(W, "W"), optional(B, "B")
    features, per_group, *size = kernel.shape
    x = graph.tensor(X)
    window = _Window(size, strides, dilations, output_padding)
    if output_shape is not None or auto_pad.startswith("SAME"):
        padding = window.paddings(graph.shape(x)[2:], output_shape, auto_pad)
    else:
        padding, _ = _paddings(pads, auto_pad, len(size))
    parts = np.split(kernel, group)  # (features / groups, units / groups, *size) each
    grouped = np.concatenate([np.moveaxis(p, (0, 1), (-2, -1)) for p in parts], axis=-1)
    layer = ConvolutionTranspose(
        features, per_group * group, tuple(size), tuple(strides or ()), tuple(dilations or ()),
        padding, group, True, bias is not None, output_padding=tuple(window.more),
    )  # fmt: skip
    weights = there(kernel=grouped, bias=bias)
    return graph.layer(layer, weights, x, values=(W, B))[0]


def pool(operation: str) -> Callable[..., Any]:
    """Return a function that pools the axes after the first two."""

    def apply(
        graph: Any, X: Value, *, kernel_shape: Any, strides: Any = None, dilations: Any = None,
        pads: Any = None, auto_pad: str = "NOTSET", ceil_mode: int = 0, count_include_pad: int = 0,
        p: float = 2.0,
    ) -> Any:  # fmt: skip
        if len(graph.outputs) > 1 and any(graph.outputs[1:]):
            raise Refusal("returns indices")
        padding, same = _paddings(pads, auto_pad, len(kernel_shape))
        layer = window_ops.pool(
            operation, kernel_shape, stride=strides or (), dilation=dilations or (),
            padding=padding, count_padding=bool(count_include_pad), channels_first=True, same=same,
            ceil=bool(ceil_mode), p=float(p),
        )  # fmt: skip
        return graph.add(layer, graph.tensor(X))

    return apply


def global_pool(operation: str) -> Callable[..., Any]:
    """Return a function that reduces the axes after the first two to size one."""
    along = window_ops.global_pool(operation, channels_first=True)

    def apply(graph: Any, X: Value) -> Any:
        return along(graph, X, True)

    return apply


def prelu(graph: Any, X: Value, slope: Value) -> Any:
    """Apply PReLU; slopes are broadcast to the input."""
    x, alpha = graph.tensor(X), required(slope, "slope")
    rank, alpha = len(graph.shape(x)), np.atleast_1d(alpha)
    if alpha.ndim > rank:
        raise Refusal(f"slope: expected at most {rank} axes, got shape {alpha.shape}")
    while alpha.ndim > 1 and alpha.shape[0] == 1:
        alpha = alpha[0]
    layer = PReLU(alpha.shape, rank - alpha.ndim)
    return graph.layer(layer, {"alpha": alpha}, x, values=(slope,))[0]


def dropout(
    graph: Any, data: Value, _ratio: Value | None = None, training_mode: Value | None = None, *,
    is_test: int = 1,
) -> Any:  # fmt: skip
    """Return the input."""
    if (training_mode is not None and flag(training_mode)) or not is_test:
        raise Refusal("is on in inference: its result is random")
    if not any(graph.outputs[1:]):
        return data
    x = graph.tensor(data)
    return [x, Ref(array_ops.arithmetic("logical_or")(graph, x, 1.0).name, "b")]


def softmax(name: str) -> Callable[..., Any]:
    """Return a function that computes softmax or log-softmax along an axis."""
    along = array_ops.softmax(name)

    def apply(graph: Any, input: Value, *, axis: int = -1) -> Any:
        return along(graph, input, axis)

    return apply


def softmax_of_rows(name: str) -> Callable[..., Any]:
    """Return the softmax of versions before 13: over all axes from one on."""
    along = array_ops.softmax(name)

    def apply(graph: Any, input: Value, *, axis: int = 1) -> Any:
        x = graph.tensor(input)
        rank = len(graph.shape(x))
        axis = array_ops.axis_of(graph, x, axis)
        if all(d == 1 for d in graph.shape(x)[axis + 1 :]):
            return along(graph, x, axis)
        kept: list[Any] = [(0, k) for k in range(axis)]
        merged = graph.add(Reshape((*kept, -1)), x, part="merged")
        made = along(graph, merged, axis)
        sizes = tuple((1, k) for k in range(rank))
        return graph.add(Reshape(sizes), made, x, part="shaped")

    return apply


def reduce(operation: str) -> Callable[..., Any]:
    """Return a function that combines the entries along axes."""
    along = array_ops.reduce(operation)

    def apply(
        graph: Any, data: Value, axes: Any = None, *, keepdims: int = 1,
        noop_with_empty_axes: int = 0,
    ) -> Any:  # fmt: skip
        which = None if axes is None else [int(a) for a in integers(axes)]
        if not which and noop_with_empty_axes:
            return data
        made = along(graph, data, which, bool(keepdims))
        if operation != "mean" or made.kind != "i":
            return made
        return graph.add(ActivationLayer(Activation("trunc")), made, part="whole")

    return apply
