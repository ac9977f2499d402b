"""Cases of attention, and of layers with layers inside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from operations.case import FLAT, MASK, OTHER, SEQUENCE, Case, case
from operations.oracles import Array, Weights, attended_by_heads, softmax, softmax_of
from operations.weighted_cases import dense_of

from npylstm.ops.attention import Attention, MultiHeadAttention
from npylstm.ops.cells import GRU, LSTM
from npylstm.ops.convolution import Conv1D
from npylstm.ops.dense import Dense, Embedding
from npylstm.ops.external import External
from npylstm.ops.indexing import Flip
from npylstm.ops.normalization import BatchNormalization
from npylstm.ops.shapes import Shape
from npylstm.ops.shaping import Reshape, Transpose
from npylstm.ops.time_distributed import TimeDistributed


def attended(weights: Weights, query: Array, value: Array) -> tuple[Array, Array]:
    scores = softmax_of(np.einsum("bqn,bsn->bqs", query, value))
    return np.einsum("bqs,bsn->bqn", scores, value), scores


def attention() -> Iterator[Case]:
    value: Shape = ("batch", "steps", 5)
    pairs: Shape = ("batch", "other", "steps")
    yield case(Attention(), OTHER, SEQUENCE, oracle=attended)
    yield case(Attention(), SEQUENCE, SEQUENCE, oracle=attended, note="self")
    yield case(Attention(return_scores=True), OTHER, SEQUENCE, oracle=attended)
    yield case(Attention(), OTHER, value, SEQUENCE, note="keys")
    yield case(Attention(scaled=True), OTHER, SEQUENCE)
    yield case(Attention("additive", 3, scaled=True), OTHER, SEQUENCE)
    yield case(Attention("additive"), OTHER, SEQUENCE)
    yield case(Attention("concat"), OTHER, SEQUENCE)
    yield case(Attention("concat", scaled=True), OTHER, SEQUENCE)
    yield case(Attention(causal=True), SEQUENCE, SEQUENCE)
    for masked, shapes in (
        ((0,), [("batch", "other")]),
        ((1,), [MASK]),
        ((0, 1), [("batch", "other"), MASK]),
    ):
        yield case(Attention(masked=masked), OTHER, SEQUENCE, *shapes)
    yield case(Attention(masked=(1,), mask_in_float32=False), OTHER, SEQUENCE, MASK)
    yield case(Attention(masked=(1,), causal=True), SEQUENCE, SEQUENCE, MASK)

    def heads(**options: Any) -> MultiHeadAttention:
        return MultiHeadAttention(3, 3, 3, 2, 4, 5, 6, **options)

    silent: dict[str, Any] = {
        "without_effect": ("key_bias",)
    }  # the same for every key: softmax does not see it
    yield case(heads(), OTHER, SEQUENCE, note="plain", oracle=attended_by_heads, **silent)
    yield case(heads(use_bias=False), OTHER, SEQUENCE, note="use_bias=False")
    apart = MultiHeadAttention(3, 5, 2, 2, 4, 5, 6)
    keys: Shape = ("batch", "steps", 2)
    yield case(apart, OTHER, value, keys, note="keys", **silent)
    yield case(heads(return_scores=True), OTHER, SEQUENCE, note="return_scores", **silent)
    yield case(heads(causal=True), SEQUENCE, SEQUENCE, note="causal", **silent)
    yield case(heads(window=2), SEQUENCE, SEQUENCE, note="window", **silent)
    yield case(heads(window=2, causal=True), SEQUENCE, SEQUENCE, note="window-causal", **silent)
    for rule in ("lowered", "additive", "uniform", "zero"):
        layer = heads(masked=(3,), fully_masked=rule)
        yield case(layer, OTHER, SEQUENCE, pairs, note=f"pairs-{rule}", **silent)
        layer = heads(masked=(0, 1), fully_masked=rule, mask_in_float32=False)
        masks = (("batch", "other"), MASK)
        yield case(layer, OTHER, SEQUENCE, *masks, note=f"masked-{rule}", **silent)
    layer = MultiHeadAttention(3, 5, 2, 2, 4, 5, 6, masked=(2,))
    yield case(layer, OTHER, value, keys, MASK, note="masked-keys", **silent)


def doubled(x: Array, weights: Sequence[Array] = ()) -> Array:
    return sum((2 * x * w for w in weights), 2 * x)


def nested() -> Iterator[Case]:
    inner: Shape = ("batch", "steps", "other", 3)
    yield case(TimeDistributed(Dense(3, 4)), SEQUENCE, oracle=dense_of)
    yield case(TimeDistributed(Reshape(((0, 0), -1))), ("batch", "steps", 2, 3))
    yield case(TimeDistributed(Embedding(6, 4)), ("batch", "steps", 2), integer=(0,))
    yield case(TimeDistributed(Conv1D(3, 4, 2)), ("batch", "steps", 4, 3))
    yield case(TimeDistributed(BatchNormalization(3, 1, 1e-3)), SEQUENCE)
    yield case(TimeDistributed(LSTM(3, 4)), ("batch", "steps", 4, 3))
    yield case(
        TimeDistributed(LSTM(3, 4)), inner, note="lstm-free",
    )  # fmt: skip
    yield case(
        TimeDistributed(LSTM(3, 4, go_backwards=True, return_sequences=True)), inner,
    )  # fmt: skip
    yield case(
        TimeDistributed(softmax(1)), inner, note="softmax-free",
    )  # fmt: skip
    yield case(
        TimeDistributed(Flip((1,))), inner, note="flip-free",
    )  # fmt: skip
    yield case(
        TimeDistributed(Transpose((0, 2, 1))), inner, note="permute-free",
    )  # fmt: skip
    yield case(TimeDistributed(Dense(3, 4)), inner, note="dense-nested")
    masked = TimeDistributed(GRU(3, 4, masked=True, return_state=True))
    yield case(masked, ("batch", "steps", 4, 3), ("batch", "steps", 4))
    yield case(External("f", ((0, 0), (0, 1), 3)).with_function(doubled), SEQUENCE)
    yield case(External("f", ((0, 0), (0, 1), 3), ((3,),)).with_function(doubled), SEQUENCE)
    yield case(
        External("g", ((1, 0), (0, 1), 3)).with_function(lambda a, b: a + b[:, None]),
        SEQUENCE,
        FLAT,
    )
