"""Formulas in NumPy that several groups of cases share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from npylstm.activations import Activation
from npylstm.ops.pointwise import ActivationLayer

Array = np.ndarray[Any, Any]
Weights = Mapping[str, Array]


def softmax(axis: int, name: str = "softmax") -> ActivationLayer:
    return ActivationLayer(Activation.of(name, axis=axis))


def softmax_of(x: Array, axis: int = -1) -> Array:
    e = np.exp(x - x.max(axis, keepdims=True))
    total: Array = e / e.sum(axis, keepdims=True)
    return total


def masked_mean(keepdims: bool) -> Callable[..., Array]:
    """The mean over the steps that are not masked, one sample after the other; nan if all are."""

    def mean(x: Array, mask: Array) -> Array:
        with np.errstate(invalid="ignore"):
            kept = [sample[own != 0] for sample, own in zip(x, mask, strict=True)]
            made = np.array([np.sum(k, axis=0) / np.float64(len(k)) for k in kept])
        return made[:, None] if keepdims else made

    return mean


def masked_softmax(axis: int, nothing: float | None = None) -> Callable[..., Array]:
    """Softmax of the entries that are not masked; of all, or ``nothing``, where all are."""

    def softmax(x: Array, mask: Array) -> Array:
        rows, on = (
            np.moveaxis(a, axis, -1).reshape(-1, x.shape[axis])
            for a in (x, np.broadcast_to(mask != 0, x.shape))
        )
        made = np.zeros(rows.shape)
        for row, own, target in zip(rows, on, made, strict=True):
            if own.any():
                target[own] = softmax_of(row[own])
            else:
                target[:] = 1 / len(row) if nothing is None else nothing
        shape = np.moveaxis(x, axis, -1).shape
        return np.moveaxis(made.reshape(shape), -1, axis)

    return softmax


def masked_merge(operation: str, masked: tuple[int, ...]) -> Callable[..., Array]:
    """Combine, step by step, the tensors that are not masked there."""
    combine = {"multiply": np.prod, "maximum": np.max, "minimum": np.min}[operation]

    def merge(*inputs: Array) -> Array:
        count = len(inputs) - len(masked)
        on = {k: m != 0 for k, m in zip(masked, inputs[count:], strict=True)}
        made = np.zeros(inputs[0].shape)
        for at in np.ndindex(made.shape[:-1]):
            tensors = [x[at] for k, x in enumerate(inputs[:count]) if k not in on or on[k][at]]
            if tensors:
                made[at] = combine(tensors, axis=0)
            elif operation != "multiply":  # all are masked: the first tensor
                made[at] = inputs[0][at]
        return made

    return merge


def attended_by_heads(weights: Any, query: Any, value: Any) -> Any:
    """Multi-head attention of keys that are the values, sample by sample and head by head."""
    w, made = weights, []
    for q, v in zip(query, value, strict=True):
        y = w["output_bias"]
        for h in range(w["query_kernel"].shape[1]):
            a, b, c = (
                x @ w[f"{part}_kernel"][:, h] + w[f"{part}_bias"][h]
                for x, part in ((q, "query"), (v, "key"), (v, "value"))
            )
            y = y + softmax_of(a @ b.T / math.sqrt(a.shape[1])) @ c @ w["output_kernel"][h]
        made.append(y)
    return np.stack(made)
