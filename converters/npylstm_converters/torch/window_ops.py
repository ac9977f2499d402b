"""Convolutions, pooling, padding and normalization by groups in traced programs.

See :mod:`npylstm_converters.torch.ops`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from npylstm_converters.errors import Refusal
from npylstm_converters.toolkit import index_ops, window_ops
from npylstm_converters.torch import layers
from npylstm_converters.torch.calls import Call

__all__ = [
    "adaptive_pool",
    "convolution",
    "convolution_transpose",
    "group_norm",
    "instance_norm",
    "pad",
    "pad_as",
    "pool",
    "rms_norm",
]


def convolution(
    call: Call, x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1, transposed: bool = False, output_padding: Any = 0,
) -> Any:  # fmt: skip
    """Convolve along all axes but the first two, or the transpose of that."""
    size = call.array(weight).shape[2:]
    if transposed:
        make = functools.partial(
            layers.convolution_transpose,
            stride=window_ops.integers("stride", stride, len(size)),
            dilation=window_ops.integers("dilation", dilation, len(size)),
            padding=window_ops.pairs("padding", padding, len(size)),
            output_padding=window_ops.integers("output_padding", output_padding, len(size)),
            groups=groups,
        )
        return call.add_layer(make, x, weight=weight, bias=bias)
    spread = window_ops.integers("dilation", dilation, len(size))
    pads: tuple[int, ...] = (0,) * (2 * len(size))
    if not isinstance(padding, str):
        pads = window_ops.pairs("padding", padding, len(size))
    elif padding == "same":
        totals = [d * (n - 1) for d, n in zip(spread, size, strict=True)]
        pads = tuple(v for total in totals for v in (total // 2, total - total // 2))
    make = functools.partial(
        layers.convolution, stride=window_ops.integers("stride", stride, len(size)),
        dilation=spread, padding=pads, groups=groups,
    )  # fmt: skip
    return call.add_layer(make, x, weight=weight, bias=bias)


def convolution_transpose(
    call: Call, x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
    output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Any:  # fmt: skip
    """Apply the transpose of a convolution."""
    return convolution(
        call, x, weight, bias, stride, padding, dilation, groups, True, output_padding
    )


def pool(operation: str, axes: int) -> Callable[..., Any]:
    """Return a function that pools along the last axes."""

    def apply(
        call: Call, x: Any, kernel_size: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1,
        ceil_mode: bool = False, count_include_pad: bool = False, divisor_override: Any = None,
    ) -> Any:  # fmt: skip
        if divisor_override is not None:
            raise Refusal(f"divisor_override={divisor_override} is not supported")
        layer = window_ops.pool(
            operation, window_ops.integers("kernel_size", kernel_size, axes),
            stride=window_ops.integers("stride", stride or kernel_size, axes),
            dilation=window_ops.integers("dilation", dilation, axes),
            padding=window_ops.pairs("padding", padding, axes),
            count_padding=bool(count_include_pad), channels_first=True, ceil=bool(ceil_mode),
        )  # fmt: skip
        return _with_indices(call, call.add(layer, call.tensor(x)))

    return apply


def adaptive_pool(operation: str) -> Callable[..., Any]:
    """Return a function that pools the last axes to fixed sizes."""
    combine = window_ops.adaptive_pool(operation, channels_first=True)

    def apply(call: Call, x: Any, output_size: Any) -> Any:
        sizes = [n if isinstance(n, int) else None for n in output_size]
        return _with_indices(call, combine(call, x, sizes))

    return apply


def _with_indices(call: Call, made: Any) -> Any:
    return [made, None] if len(call.traced) > 1 else made


_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def pad(call: Call, x: Any, pad: Sequence[Any], mode: str = "constant", value: Any = None) -> Any:
    """Pad from the last axis on."""
    if mode not in _MODES:
        raise Refusal(f"mode={mode!r} is not supported")
    rank = call.rank(x)
    widths = [(0, 0)] * rank
    for k in range(len(pad) // 2):
        widths[rank - 1 - k] = (pad[2 * k], pad[2 * k + 1])
    return index_ops.pad(call, x, widths, _MODES[mode], 0.0 if value is None else value)


def pad_as(mode: str) -> Callable[..., Any]:
    """Return a function that pads in one mode."""
    return lambda call, x, padding: pad(call, x, padding, mode)


def interpolate(mode: str, axes: int, rounding: str = "floor") -> Callable[..., Any]:
    """Return a function that resizes the last axes."""

    def apply(
        call: Call, x: Any, output_size: Any = None, align_corners: bool = False,
        scale_factors: Any = None,
    ) -> Any:  # fmt: skip
        places = [*range(call.rank(x) - axes, call.rank(x))]
        aligned = "align_corners" if align_corners else "half_pixel"
        exact = rounding != "floor"
        return window_ops.resize(
            call, x, places, None if scale_factors else output_size, scale_factors or None, mode,
            "asymmetric" if mode == "nearest" and not exact else aligned, rounding, pytorch=True,
        )  # fmt: skip

    return apply


def group_norm(
    call: Call, x: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Any:
    """Normalize groups of features of each sample."""
    features = x.traced[1]
    make = functools.partial(layers.group_norm, features=features, groups=num_groups, eps=eps)
    return call.add_layer(make, x, weight=weight, bias=bias)


def instance_norm(
    call: Call, x: Any, weight: Any, bias: Any, running_mean: Any, running_var: Any,
    use_input_stats: bool, eps: float,
) -> Any:  # fmt: skip
    """Normalize each feature of each sample, or by recorded statistics."""
    if not use_input_stats:
        make = functools.partial(layers.batch_norm, eps=float(eps))
        arrays = {"running_mean": running_mean, "running_var": running_var}
        return call.add_layer(make, x, **arrays, weight=weight, bias=bias)
    return group_norm(call, x, x.traced[1], weight, bias, eps)


def rms_norm(call: Call, x: Any, shape: Sequence[int], weight: Any = None, eps: Any = None) -> Any:
    """Normalize by the root mean square of the last axes."""
    import numpy as np

    epsilon = float(np.finfo(call.builder.dtype).eps) if eps is None else float(eps)
    make = functools.partial(layers.rms_norm, shape=[int(d) for d in shape], eps=epsilon)
    return call.add_layer(make, x, weight=weight)
