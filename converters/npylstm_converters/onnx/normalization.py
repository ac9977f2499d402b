"""Operators that normalize: by recorded statistics, or by the tensor's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from npylstm.ops.group_normalization import GroupNormalization, LocalResponseNormalization
from npylstm.ops.normalization import BatchNormalization, LayerNormalization, RMSNormalization
from npylstm_converters.errors import Refusal
from npylstm_converters.onnx.layers import optional, required
from npylstm_converters.onnx.values import Value
from npylstm_converters.toolkit import array_ops

__all__ = [
    "batch_normalization", "group_normalization", "instance_normalization", "layer_normalization",
    "lp_normalization", "lrn", "mean_variance_normalization", "rms_normalization",
]  # fmt: skip


def batch_normalization(
    graph: Any, X: Value, scale: Value, B: Value, mean: Value, var: Value, *,
    epsilon: float = 1e-5, training_mode: int = 0, is_test: int = 1, spatial: int = 1,
) -> Any:  # fmt: skip
    """Normalize axis 1 by recorded statistics."""
    if training_mode or not is_test:
        raise Refusal("normalizes by the batch itself (training_mode)")
    if not spatial:
        raise Refusal("spatial=0 is not supported")
    if len(graph.outputs) > 1 and any(graph.outputs[1:]):
        raise Refusal("returns statistics of training")
    names = {"gamma": scale, "beta": B, "moving_mean": mean, "moving_variance": var}
    weights = {name: required(value, name) for name, value in names.items()}
    layer = BatchNormalization(weights["gamma"].size, 1, epsilon)
    return graph.layer(layer, weights, graph.tensor(X), values=(scale, B, mean, var))[0]


def layer_normalization(
    graph: Any, X: Value, Scale: Value, B: Value | None = None, *, axis: int = -1,
    epsilon: float = 1e-5, stash_type: int = 1,
) -> Any:  # fmt: skip
    """Normalize the last axes by their own statistics."""
    if stash_type != 1:
        raise Refusal(f"stash_type={stash_type} is not supported, only 1")
    x, gamma, beta = graph.tensor(X), required(Scale, "Scale"), optional(B, "B")
    shape = graph.shape(x)[array_ops.axis_of(graph, x, axis) :]
    if not all(isinstance(d, int) for d in shape):
        raise Refusal(f"normalizes {shape}, sizes that depend on the call")
    weights = {
        name: np.broadcast_to(array, shape)
        for name, array in (("gamma", gamma), ("beta", beta)) if array is not None
    }  # fmt: skip
    layer = LayerNormalization(shape, epsilon, center=beta is not None)
    (made,) = graph.layer(layer, weights, x, values=(Scale, B))
    if not any(graph.outputs[1:]):
        return made
    axes = [*range(len(graph.shape(x)) - len(shape), len(graph.shape(x)))]
    variance = array_ops.spread("var")(graph, x, axes, 0, True)
    shifted = array_ops.arithmetic("add")(graph, variance, epsilon)
    return [made, array_ops.reduce("mean")(graph, x, axes, True),
            array_ops.pointwise("rsqrt")(graph, shifted)]  # fmt: skip


def instance_normalization(
    graph: Any, input: Value, scale: Value, B: Value, *, epsilon: float = 1e-5
) -> Any:
    """Normalize every feature of axis 1 by its own statistics."""
    gamma, beta = required(scale, "scale"), required(B, "B")
    layer = GroupNormalization(gamma.size, gamma.size, 1, epsilon)
    weights = {"gamma": gamma, "beta": beta}
    return graph.layer(layer, weights, graph.tensor(input), values=(scale, B))[0]


def group_normalization(
    graph: Any, X: Value, scale: Value, bias: Value, *, num_groups: int, epsilon: float = 1e-5,
    stash_type: int = 1,
) -> Any:  # fmt: skip
    """Normalize groups of features of axis 1; versions before 21 have a scale for each group."""
    if stash_type != 1:
        raise Refusal(f"stash_type={stash_type} is not supported, only 1")
    x, gamma, beta = graph.tensor(X), required(scale, "scale"), required(bias, "bias")
    features = graph.shape(x)[1]
    if isinstance(features, int) and gamma.size == num_groups != features:
        gamma, beta = (np.repeat(a, features // num_groups) for a in (gamma, beta))
    layer = GroupNormalization(gamma.size, num_groups, 1, epsilon)
    return graph.layer(layer, {"gamma": gamma, "beta": beta}, x, values=(scale, bias))[0]


def rms_normalization(
    graph: Any, X: Value, scale: Value, *, axis: int = -1, epsilon: float = 1e-5,
    stash_type: int = 1,
) -> Any:  # fmt: skip
    """Divide the last axes by the root of their mean square."""
    if stash_type != 1:
        raise Refusal(f"stash_type={stash_type} is not supported, only 1")
    x, gamma = graph.tensor(X), required(scale, "scale")
    shape = graph.shape(x)[array_ops.axis_of(graph, x, axis) :]
    if not all(isinstance(d, int) for d in shape):
        raise Refusal(f"normalizes {shape}, sizes that depend on the call")
    layer = RMSNormalization(shape, epsilon)
    return graph.layer(layer, {"gamma": np.broadcast_to(gamma, shape)}, x, values=(scale,))[0]


def lp_normalization(graph: Any, input: Value, *, axis: int = -1, p: int = 2) -> Any:
    """Divide by the norm along an axis."""
    x = graph.tensor(input)
    return array_ops.unit_normalization(graph, x, axis, float(p))


def lrn(
    graph: Any, X: Value, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0
) -> Any:
    """Divide by the sum of squares of neighbouring features."""
    before = (size - 1) // 2
    layer = LocalResponseNormalization(before, size - 1 - before, alpha, beta, bias, 1)
    return graph.add(layer, graph.tensor(X))


def mean_variance_normalization(graph: Any, X: Value, *, axes: Sequence[int] = (0, 2, 3)) -> Any:
    """Subtract the mean and divide by the deviation along axes."""
    return array_ops.standardize(graph, X, [*axes], 0, 1e-9)
