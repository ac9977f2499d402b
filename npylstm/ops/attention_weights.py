"""Weights of attention: which keys a query may read, and the softmax over them, in NumPy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from npylstm.arrays import Array

__all__ = ["ATTENTION_MASK", "add_mask", "allowed_keys", "attention_weights"]

ATTENTION_MASK = 3  # index of the attention mask (query, step) in ``masked``
_LARGE = 1e9  # subtracted from the scores of masked keys


def allowed_keys(
    masks: Mapping[int, Array], which: Sequence[int], scores: Array, causal: bool, window: int = 0
) -> Array | None:
    """Return the allowed keys of each query, ``(batch, queries, steps)``; None for all."""
    allowed = None
    for k in which:
        if k in masks:
            along = (
                masks[k]
                if k == ATTENTION_MASK
                else masks[k][:, :, None]
                if k == 0
                else masks[k][:, None]
            )
            allowed = along if allowed is None else allowed & along
    if causal:
        past = np.tri(*scores.shape[-2:])[None] > 0
        allowed = past if allowed is None else allowed & past
    if window:
        queries, steps = (np.arange(size) for size in scores.shape[-2:])
        near = (np.abs(queries[:, None] - steps) < window)[None]
        allowed = near if allowed is None else allowed & near
    return allowed


def attention_weights(
    scores: Array, allowed: Array | None, fully_masked: str, in_float32: bool
) -> Array:
    """``softmax`` along the last axis over the allowed keys.

    Frameworks differ for a query without an allowed key: equal weights, zeros, or the softmax of
    the scores minus 1e9. In float32 (``in_float32``) such a score keeps few digits.
    """
    if allowed is None:
        return _softmax(scores)
    rest: Array | float = 0.0
    if fully_masked in ("lowered", "additive"):
        rest = add_mask(scores, np.zeros(1), in_float32)
    lowest = np.where(allowed.any(axis=-1, keepdims=True), -np.inf, rest)
    scores = np.where(allowed, scores, lowest)
    weights = _softmax(scores)
    return np.where(allowed, weights, 0.0) if fully_masked == "zero" else weights


def add_mask(scores: Array, mask: Array, in_float32: bool) -> Array:
    """``scores - 1e9 * (1 - mask)``, in float32 or float64."""
    kind = np.float32 if in_float32 else np.float64
    off = scores.astype(kind) - kind(_LARGE) * (1 - mask.astype(kind))
    return np.where(mask == 1, scores, off.astype(np.float64))


def _softmax(scores: Array) -> Array:
    weights: Array = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights
