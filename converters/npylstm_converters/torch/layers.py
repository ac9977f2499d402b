"""Torch's modules with weights, as operations: what their arrays become.

Neither a traced program nor a state_dict is known here; both importers pass the arrays. Each
function returns the operation and its weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from npylstm.arrays import Array
from npylstm.ops.base import Operation
from npylstm.ops.convolution import Conv1D
from npylstm.ops.convolution_nd import ConvolutionTranspose
from npylstm.ops.dense import Dense, Embedding
from npylstm.ops.group_normalization import GroupNormalization
from npylstm.ops.normalization import BatchNormalization, LayerNormalization, RMSNormalization
from npylstm.ops.pointwise import PReLU
from npylstm_converters.toolkit import window_ops

__all__ = [
    "batch_norm", "conv1d", "convolution", "convolution_transpose", "dense", "embedding",
    "group_norm", "layer_norm", "linear", "prelu", "rms_norm",
]  # fmt: skip

Layer = tuple[Operation, dict[str, Array]]


def _there(**arrays: Array | None) -> dict[str, Array]:
    return {name: array for name, array in arrays.items() if array is not None}


def dense(kernel: Array, bias: Array | None = None) -> Layer:
    """``x @ kernel + bias``."""
    features, units = kernel.shape
    layer = Dense(features, units, use_bias=bias is not None)
    return layer, _there(kernel=kernel, bias=bias)


def linear(weight: Array, bias: Array | None = None) -> Layer:
    """``x @ weight.T + bias``."""
    return dense(weight.T, bias)


def embedding(weight: Array) -> Layer:
    """Rows of a table."""
    return Embedding(*weight.shape), {"embeddings": weight}


def batch_norm(
    running_mean: Array, running_var: Array, weight: Array | None = None, bias: Array | None = None,
    *, eps: float,
) -> Layer:  # fmt: skip
    """Normalization of axis 1 by recorded statistics."""
    layer = BatchNormalization(
        len(running_mean), 1, eps, scale=weight is not None, center=bias is not None
    )
    return layer, _there(
        moving_mean=running_mean, moving_variance=running_var, gamma=weight, beta=bias
    )


def layer_norm(
    weight: Array | None = None, bias: Array | None = None, *, shape: Sequence[int], eps: float
) -> Layer:
    """Normalization of the last axes by each sample's own statistics."""
    layer = LayerNormalization(tuple(shape), eps, scale=weight is not None, center=bias is not None)
    return layer, _there(gamma=weight, beta=bias)


def prelu(weight: Array, *, rank: int) -> Layer:
    """One slope for all, or one for each feature on axis 1."""
    return PReLU(weight.shape, min(1, rank - 1)), {"alpha": weight}


def conv1d(
    weight: Array, bias: Array | None = None, *, stride: int, padding: tuple[int, int],
    dilation: int, groups: int,
) -> Layer:  # fmt: skip
    """Convolution along the last axis; ``weight`` is (units, features / groups, size)."""
    units, per_group, size = weight.shape
    layer = Conv1D(
        features=per_group * groups, units=units, size=size, stride=stride, dilation=dilation,
        groups=groups, padding=padding, channels_first=True, use_bias=bias is not None,
    )  # fmt: skip
    return layer, _there(kernel=weight.transpose(2, 1, 0), bias=bias)


def convolution(
    weight: Array, bias: Array | None = None, *, stride: Sequence[int], padding: Sequence[int],
    dilation: Sequence[int], groups: int,
) -> Layer:  # fmt: skip
    """Convolution along all axes but two; ``weight`` is (units, features / groups, *size)."""
    units, per_group, *size = weight.shape
    layer = window_ops.convolution(
        per_group * groups, units, size, stride=stride, dilation=dilation, padding=padding,
        groups=groups, channels_first=True, use_bias=bias is not None,
    )  # fmt: skip
    kernel = weight.transpose(*range(2, weight.ndim), 1, 0)
    return layer, _there(kernel=kernel, bias=bias)


def convolution_transpose(
    weight: Array, bias: Array | None = None, *, stride: Sequence[int], padding: Sequence[int],
    dilation: Sequence[int], output_padding: Sequence[int], groups: int,
) -> Layer:  # fmt: skip
    """Transpose of a convolution; ``weight`` is (features, units / groups, *size)."""
    features, per_group, *size = weight.shape
    layer = ConvolutionTranspose(
        features, per_group * groups, tuple(size), tuple(stride), tuple(dilation), tuple(padding),
        groups, True, bias is not None, output_padding=tuple(output_padding),
    )  # fmt: skip
    order = (*range(2, weight.ndim), 0, 1)
    kernel = np.concatenate([w.transpose(order) for w in np.split(weight, groups)], -1)
    return layer, _there(kernel=kernel, bias=bias)


def group_norm(
    weight: Array | None = None, bias: Array | None = None, *, features: int, groups: int,
    eps: float,
) -> Layer:  # fmt: skip
    """Normalization of groups of features on axis 1, of each sample."""
    layer = GroupNormalization(
        features, groups, 1, eps, scale=weight is not None, center=bias is not None
    )
    return layer, _there(gamma=weight, beta=bias)


def rms_norm(weight: Array | None = None, *, shape: Sequence[int], eps: float) -> Layer:
    """Normalization of the last axes by their root mean square."""
    layer = RMSNormalization(tuple(shape), eps, scale=weight is not None)
    return layer, _there(gamma=weight)
