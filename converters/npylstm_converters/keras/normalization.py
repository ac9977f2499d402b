"""Keras' layers that normalize or rescale."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from npylstm.arrays import Array
from npylstm.ops.base import Operation
from npylstm.ops.group_normalization import GroupNormalization
from npylstm.ops.normalization import (
    BatchNormalization,
    LayerNormalization,
    RMSNormalization,
    UnitNormalization,
)
from npylstm.ops.pointwise import Rescaling
from npylstm_converters.errors import Refusal
from npylstm_converters.keras.config import WEIGHT_SHAPERS, Config, Translation, without_weights
from npylstm_converters.keras.tensors import LayerTensors, read_array

__all__ = ["TRANSLATORS"]

_NEUTRAL = (
    *(f"{w}_{s}" for w in ("beta", "gamma", "moving_mean", "moving_variance")
      for s in WEIGHT_SHAPERS),
    "momentum", "renorm", "renorm_clipping", "renorm_momentum", "synchronized", "fused",
    "beta_init", "gamma_init", "init", "weights", "virtual_batch_size", "adjustment",
)  # fmt: skip


def _batch_normalization(config: Config, tensors: LayerTensors) -> Translation:
    axis = config.axis("axis")
    if config.take("mode", default=0) not in (0, 2):
        raise Refusal("mode: expected 0 or 2, which use the moving statistics")
    config.neutral(*_NEUTRAL)
    scale, center = config.flag("scale", default=True), config.flag("center", default=True)
    epsilon = config.number("epsilon", default=1e-3)
    roles = ["gamma"] * scale + ["beta"] * center + ["moving_mean", "moving_variance"]
    sources = tensors.take(*roles)
    (features,) = {source.shape[0] for source in sources.values() if len(source.shape) == 1} or {0}
    weights = {role: read_array(source, (features,)) for role, source in sources.items()}
    return BatchNormalization(features, axis, epsilon, scale, center), weights


def _layer_normalization(config: Config, tensors: LayerTensors) -> Translation:
    axes = list(config.axes("axis"))
    if axes != list(range(axes[0], axes[0] + len(axes))) or (axes[0] < 0 and axes[-1] != -1):
        raise Refusal(f"axis {axes}: expected the last axes")
    uncentered = config.flag("rms_scaling")
    config.neutral(*_NEUTRAL)
    scale, center = config.flag("scale", default=True), config.flag("center", default=True)
    scale, center = scale or uncentered, center and not uncentered
    sources = tensors.take(*(["gamma"] * scale + ["beta"] * center))
    if not sources:
        raise Refusal("without scale and center its size is nowhere to be seen")
    shape = next(iter(sources.values())).shape
    if len(shape) != len(axes):
        raise Refusal(f"axis {axes}: expected weights of {len(axes)} axes, got {shape}")
    weights = {role: read_array(source, shape) for role, source in sources.items()}
    epsilon = config.number("epsilon", default=1e-3)
    first = axes[0] if axes[0] >= 0 else None
    layer = LayerNormalization(shape, epsilon, scale, center, first, not uncentered)
    return layer, weights


def _group_normalization(config: Config, tensors: LayerTensors) -> Translation:
    axis, groups = config.axis("axis"), config.take("groups", default=32)
    config.neutral(*_NEUTRAL)
    scale, center = config.flag("scale", default=True), config.flag("center", default=True)
    epsilon = config.number("epsilon", default=1e-3)
    sources = tensors.take(*(["gamma"] * scale + ["beta"] * center))
    if not sources:
        raise Refusal("without scale and center its size is nowhere to be seen")
    (features,) = {source.shape[0] for source in sources.values() if len(source.shape) == 1} or {0}
    if type(groups) is not int or not (groups == -1 or 0 < groups <= features):
        raise Refusal(f"groups: expected -1 or a number up to {features}, got {groups!r:.40}")
    weights = {role: read_array(source, (features,)) for role, source in sources.items()}
    count = features if groups == -1 else groups
    return GroupNormalization(features, count, axis, epsilon, scale, center), weights


def _rms_normalization(config: Config, tensors: LayerTensors) -> Translation:
    axes = config.axes("axis")
    source = tensors.take("scale")["scale"]
    if axes not in ((-1,), tuple(range(-len(axes), 0))) or len(source.shape) != len(axes):
        raise Refusal(f"axis {list(axes)}: expected the last axes")
    epsilon = config.number("epsilon", default=1e-6)
    layer = RMSNormalization(source.shape, epsilon)
    return layer, {"gamma": read_array(source, source.shape)}


def _unit_normalization(config: Config) -> Operation:
    # TensorFlow bounds the sum of squares, Keras 3 the norm, by the same number.
    epsilon = 1e-12 if config.writer.major >= 3 else 1e-6
    return UnitNormalization(config.axes("axis"), epsilon)


def _normalization(config: Config, tensors: LayerTensors) -> Translation:
    axis = config.take("axis", default=-1)
    axes = axis if isinstance(axis, list) else [] if axis is None else [axis]
    if len(axes) > 1 or any(type(a) is not int for a in axes):
        raise Refusal(f"axis: expected one axis or none, got {axis!r:.60}")
    invert = config.flag("invert")
    mean, variance = config.numbers("mean", None), config.numbers("variance", None)
    dtype = config.dtype
    if mean is None or variance is None:
        sources = tensors.take("mean", "variance", "count")
        shape = sources["mean"].shape
        arrays = [read_array(sources[role], shape) for role in ("mean", "variance")]
        dtype = arrays[0].dtype
        mean, variance = (array.astype(np.float64) for array in arrays)
    spread = np.maximum(np.sqrt(variance), 1e-7)
    axis = axes[0] if axes else -1
    if invert:
        return _affine(spread, mean, axis, dtype)
    if mean.size == 1:
        return _affine(1 / spread, -mean / spread, axis, dtype)
    if mean.shape != (mean.size,):
        raise Refusal(f"expected numbers along one axis, got {mean.shape}")
    weights = {"moving_mean": mean, "moving_variance": spread * spread}
    layer = BatchNormalization(mean.size, axis, 0.0, scale=False, center=False)
    return layer, {name: array.astype(dtype) for name, array in weights.items()}


def _affine(scale: Array, offset: Array, axis: int, dtype: np.dtype[Any]) -> Translation:
    """Return ``scale * x + offset``, with one number, or one per entry along an axis."""
    if scale.size == offset.size == 1:
        return Rescaling(scale.item(), offset.item()), {}
    scale, offset = np.broadcast_arrays(scale.squeeze(), offset.squeeze())
    if scale.ndim != 1:
        raise Refusal(f"expected numbers along one axis, got {scale.shape}")
    weights = {"gamma": scale, "beta": offset, "moving_mean": np.zeros_like(scale),
               "moving_variance": np.ones_like(scale)}  # fmt: skip
    layer = BatchNormalization(len(scale), axis, 0.0)
    return layer, {name: array.astype(dtype) for name, array in weights.items()}


def _rescaling(config: Config) -> Translation:
    scale, offset = (  # TensorFlow first converts both to float32, whatever the layer's dtype
        np.asarray(config.numbers(name, default), np.float32).astype(np.float64)
        for name, default in (("scale", 1.0), ("offset", 0.0))
    )
    return _affine(scale, offset, -1, config.dtype)


TRANSLATORS: dict[str, Callable[[Config, LayerTensors], Translation]] = {
    "BatchNormalization": _batch_normalization,
    "LayerNormalization": _layer_normalization,
    "GroupNormalization": _group_normalization,
    "RMSNormalization": _rms_normalization,
    "UnitNormalization": without_weights(_unit_normalization),
    "Normalization": _normalization,
    "Rescaling": lambda config, _: _rescaling(config),
}
