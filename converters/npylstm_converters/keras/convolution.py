"""Keras' convolution, pooling, padding, cropping and upsampling layers over the steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from npylstm.arrays import Array
from npylstm.ops.arithmetic import Reduce
from npylstm.ops.base import Operation
from npylstm.ops.convolution import Conv1D, Pool1D
from npylstm.ops.indexing import Pad, Repeat, Slice
from npylstm_converters.errors import Refusal
from npylstm_converters.keras.config import Config, Translation, without_weights
from npylstm_converters.keras.tensors import LayerTensors, Source, read_array

__all__ = ["TRANSLATORS"]

_NEUTRAL = (
    *(f"{w}_{s}" for w in ("kernel", "bias", "depthwise", "pointwise")
      for s in ("initializer", "regularizer", "constraint")),
    "init", "weights", "W_regularizer", "b_regularizer", "W_constraint", "b_constraint",
    "lora_rank", "lora_alpha", "quantization_config",
)  # fmt: skip


def _one(config: Config, *names: str, default: Any = ...) -> int:
    """Remove and return a size that may be in a list of one."""
    value = config.take(*names, default=default)
    value = value[0] if isinstance(value, list) and len(value) == 1 else value
    if type(value) is not int or value < 1:
        raise Refusal(f"{names[0]}: expected a positive integer, got {value!r:.60}")
    return value


def _pair(config: Config, *names: str, default: Any) -> tuple[int, int]:
    """Remove and return sizes before and after: one number for both, or two."""
    value = config.take(*names, default=default)
    value = value[0] if isinstance(value, list) and len(value) == 1 else value
    pair = [value, value] if type(value) is int else value
    if (
        not isinstance(pair, list)
        or len(pair) != 2
        or any(type(v) is not int or v < 0 for v in pair)
    ):
        raise Refusal(f"{names[0]}: expected one or two numbers from 0 on, got {value!r:.60}")
    return pair[0], pair[1]


def _channels_first(config: Config) -> bool:
    value = config.take("data_format", default=None)
    if value not in (None, "channels_last", "channels_first"):
        raise Refusal(f"data_format: {value!r:.60} is not supported")
    return bool(value == "channels_first")


def _padding(config: Config, span: int) -> dict[str, Any]:
    """Remove and return the padding mode, in the words of our operations."""
    kind = config.take("padding", "border_mode", default="valid")
    if kind == "same":
        return {"same": True}
    if kind not in ("valid", "causal"):
        raise Refusal(f"padding: {kind!r:.60} is not supported")
    return {"padding": (span - 1, 0) if kind == "causal" else (0, 0)}


def _window(config: Config) -> dict[str, Any]:
    """Remove and return the options that all convolutions share."""
    config.neutral(*_NEUTRAL)
    size = _one(config, "kernel_size", "filter_length")
    dilation = _one(config, "dilation_rate", "atrous_rate", default=1)
    return {
        "size": size,
        "stride": _one(config, "strides", "subsample_length", default=1),
        "dilation": dilation,
        "channels_first": _channels_first(config),
        "activation": config.activation("activation", default="linear"),
        "use_bias": config.flag("use_bias", "bias", default=True),
        **_padding(config, (size - 1) * dilation + 1),
    }


def _finished(
    options: dict[str, Any], kernel: Array, bias: Source | None, groups: int = 1
) -> Translation:
    _, features, units = kernel.shape
    weights = {"kernel": kernel}
    if bias is not None:
        weights["bias"] = read_array(bias, (units,))
    return Conv1D(features * groups, units, groups=groups, **options), weights


def _convolution(config: Config, tensors: LayerTensors) -> Translation:
    options = _window(config)
    units = config.size("filters", "nb_filter")
    groups = _one(config, "groups", default=1)
    sources = tensors.take(*("kernel", "bias")[: 2 if options["use_bias"] else 1])
    shape, size = sources["kernel"].shape, options["size"]
    if len(shape) == 4:  # Keras 1: 2D with a width of one
        if shape[:2] == (size, 1):
            kernel = read_array(sources["kernel"], (size, 1, shape[2], units))[:, 0]
        else:  # Theano's order, with a flipped kernel
            kernel = read_array(sources["kernel"], (units, shape[1], size, 1))
            kernel = kernel[:, :, ::-1, 0].transpose(2, 1, 0)
    else:
        features = shape[1] if len(shape) == 3 else 0
        kernel = read_array(sources["kernel"], (size, features, units))
    return _finished(options, kernel, sources.get("bias"), groups)


def _refuse_groups(config: Config) -> None:
    """Accept only ``groups=1``, which Keras 2 writes for layers without groups."""
    if config.take("groups", default=1) != 1:
        raise Refusal("groups: expected 1")


def _depthwise(config: Config, tensors: LayerTensors) -> Translation:
    options = _window(config)
    _refuse_groups(config)
    multiplier = _one(config, "depth_multiplier", default=1)
    sources = tensors.take(*("kernel", "bias")[: 2 if options["use_bias"] else 1])
    size, features = options["size"], sources["kernel"].shape[1]
    kernel = read_array(sources["kernel"], (size, features, multiplier))
    return _finished(options, kernel.reshape(size, 1, -1), sources.get("bias"), groups=features)


def _separable(config: Config, tensors: LayerTensors) -> Translation:
    """Return one convolution for both parts: depthwise, then pointwise."""
    options = _window(config)
    _refuse_groups(config)
    multiplier = _one(config, "depth_multiplier", default=1)
    units = config.size("filters")
    roles = ("depthwise_kernel", "pointwise_kernel", "bias")
    sources = tensors.take(*roles[: 3 if options["use_bias"] else 2])
    size, features = options["size"], sources["depthwise_kernel"].shape[1]
    depthwise = read_array(sources["depthwise_kernel"], (size, features, multiplier))
    pointwise = read_array(sources["pointwise_kernel"], (1, features * multiplier, units))
    wide = pointwise.astype(np.float64).reshape(features, multiplier, units)
    kernel = np.einsum("kfm,fmu->kfu", depthwise.astype(np.float64), wide)
    return _finished(options, kernel.astype(depthwise.dtype), sources.get("bias"))


def _pooling(operation: str) -> Callable[..., Translation]:
    def translate_it(config: Config) -> Operation:
        size = _one(config, "pool_size", "pool_length", default=2)
        stride = config.take("strides", "stride", default=None)
        stride = stride[0] if isinstance(stride, list) and len(stride) == 1 else stride
        if stride is not None and (type(stride) is not int or stride < 1):
            raise Refusal(f"strides: expected a positive integer, got {stride!r:.60}")
        options = _padding(config, 1)
        first = _channels_first(config)
        return Pool1D(operation, size, stride or size, channels_first=first, **options)

    return without_weights(translate_it)


def _global_pooling(operation: str) -> Callable[..., Translation]:
    def translate_it(config: Config) -> Operation:
        axis = 2 if _channels_first(config) else 1
        return Reduce(operation, (axis,), config.flag("keepdims"))

    return without_weights(translate_it)


def _upsampling(config: Config) -> Operation:
    return Repeat(1, _one(config, "size", "length", default=2))


def _zero_padding(config: Config) -> Operation:
    if _channels_first(config):
        raise Refusal("data_format 'channels_first' is not supported")
    return Pad(1, *_pair(config, "padding", default=1))


def _cropping(config: Config) -> Operation:
    before, after = _pair(config, "cropping", default=[1, 1])
    return Slice(1, before, -after if after else None)


TRANSLATORS: dict[str, Callable[[Config, LayerTensors], Translation]] = {
    **dict.fromkeys(("Conv1D", "Convolution1D", "AtrousConvolution1D"), _convolution),
    "DepthwiseConv1D": _depthwise,
    "SeparableConv1D": _separable,
    "MaxPooling1D": _pooling("max"),
    "AveragePooling1D": _pooling("mean"),
    "GlobalMaxPooling1D": _global_pooling("max"),
    "GlobalAveragePooling1D": _global_pooling("mean"),
    "UpSampling1D": without_weights(_upsampling),
    "ZeroPadding1D": without_weights(_zero_padding),
    "Cropping1D": without_weights(_cropping),
}
