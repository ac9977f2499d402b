"""Attention gives the numbers that the tests of Keras print."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest
import tf_keras
from keras_graphs import BACKENDS, FRAMEWORKS, assert_parity, flat, refused, run
from keras_own_suite import (
    ADDED,
    CONCAT,
    DOT,
    PRINTED,
    Make,
    assert_case,
    counted,
    frameworks,
    known,
    layer,
    tensors,
)

from npylstm import Model

# Keras says so where a layer lets a mask go, where there is one value to attend to, and of an
# option that has another successor.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask"),
    pytest.mark.filterwarnings("ignore:.*You are using a softmax over axis:UserWarning"),
    pytest.mark.filterwarnings("ignore:You passed .rms_scaling=True., which is deprecated"),
]

# Attention: printed numbers.

HAND = PRINTED  # computed by hand to eleven digits; what is left is float32's rounding
THOUSANDTHS = 1e-3  # three decimals, some cut off instead of rounded


@dataclass(frozen=True)
class Attend:
    """A call of an attention layer on queries, values and keys (the values again, if None).

    Masks come from an Embedding, which leaves the vectors as they are: its first is the one that
    does not count.
    """

    make: Make
    q: Any
    v: Any
    k: Any = None
    q_mask: str = ""
    v_mask: str = ""
    y: Any = None
    scores: Any = None
    weights: Sequence[Any] = ()
    call: dict[str, Any] = field(default_factory=dict)
    atol: float = HAND
    only: Sequence[str] = tuple(FRAMEWORKS)


def softmax(scores: Any) -> np.ndarray:
    e = np.exp(np.array(scores, "float64"))
    return np.array(e / e.sum(axis=-1, keepdims=True))


AXES: dict[str, Any] = {
    "q": [[1.0, 0.0], [0.0, 1.0]],
    "k": [[0.0, 1.0], [1.0, 0.0]],
    "v": [[1.0, 2.0], [3.0, 4.0]],
}
CONCATENATED: dict[str, Any] = {
    "y": [[1.727, 2.727], [2.272, 3.272]], "scores": [[0.636, 0.363], [0.363, 0.636]],
    "atol": THOUSANDTHS,
}  # fmt: skip
TWO: dict[str, Any] = {"q": [[1.0, 1.1, 1.2, 1.3], [2.0, 2.1, 2.2, 2.3]],
       "v": [[1.5, 1.6, 1.7, 1.8], [2.5, 2.6, 2.7, 2.8], [3.5, 3.6, 3.7, 3.8]]}  # fmt: skip
THREE = [[1.6], [0.7], [-0.8]]
OTHER = [[0.5], [0.8], [-0.3]]
HALF = [np.array([0.5], "float32")]

ATTEND: dict[str, Attend] = {
    "dot": Attend(
        DOT, **AXES, y=[[2.462, 3.462], [1.538, 2.538]], scores=[[0.269, 0.731], [0.731, 0.269]],
        atol=THOUSANDTHS,
    ),
    "concat": Attend(CONCAT, **AXES, **CONCATENATED),
    "additive": Attend(layer("AdditiveAttention", use_scale=False), **AXES, **CONCATENATED),
    **{
        f"{kind}, both masked": Attend(
            make, [[1.0, 0.0], [0.0, 1.0]], [[1.0, 1.0], [1.0, 1.0]], q_mask="10", v_mask="10",
            y=[[1.0, 1.0], [0.0, 0.0]], scores=[[1.0, 0.0], [1.0, 0.0]],
        )
        for kind, make in (("dot", DOT), ("additive", layer("AdditiveAttention", use_scale=False)))
    },
    # The suite has the scores; what comes of them can be seen from outside.
    "dot of several": Attend(
        DOT, **TWO, scores=softmax([[7.64, 12.24, 16.84], [14.24, 22.84, 31.44]])
    ),
    "concat of several": Attend(
        CONCAT, **TWO,
        scores=softmax([[3.96753427840, 3.99558784825, 3.99940254147],
                        [3.99558784825, 3.99940254147, 3.99991913657]]),
    ),
    "additive of several": Attend(
        ADDED, **TWO, weights=[np.array([0.5, 0.6, 0.7, 0.8], "float32")],
        scores=softmax([[2.58044532581, 2.59734317449, 2.59964024652],
                        [2.59734317449, 2.59964024652, 2.59995130916]]),
    ),
    "dot, one value": Attend(DOT, [[1.1]], [[1.6]], y=[[1.6]], scores=[[1.0]]),
    "dot, values masked": Attend(DOT, [[1.1]], THREE, v_mask="110", y=[[1.3561791301]]),
    "dot, keys, values masked": Attend(
        DOT, [[1.1]], OTHER, THREE, v_mask="110", y=[[0.58127362329]]
    ),
    "dot, queries and values masked": Attend(
        DOT, [[1.1], [-0.5]], THREE, q_mask="10", v_mask="110", y=[[1.3561791301], [0.0]],
        scores=[[0.72908792234, 0.27091207765, 0.0], [0.38936076605, 0.61063923394, 0.0]],
    ),
    "dot, causal": Attend(
        DOT, OTHER, OTHER, call={"use_causal_mask": True},
        y=[[0.5], [0.66791409477], [0.26678872577]],
        scores=[[1.0, 0.0, 0.0], [0.44028635073, 0.55971364926, 0.0],
                [0.31395396638, 0.28693232061, 0.399113713]],
    ),
    "dot, nothing counts": Attend(
        DOT, [[1.1]], [[1.1]], q_mask="0", v_mask="0", y=[[0.0]]
    ),
    "additive, values masked": Attend(
        ADDED, [[1.1]], THREE, v_mask="110", weights=HALF, y=[[1.15497245968]]
    ),
    "additive, keys, values masked": Attend(
        ADDED, [[1.1]], OTHER, THREE, v_mask="110", weights=HALF, y=[[0.64834251342]]
    ),
    "additive, queries and values masked": Attend(
        ADDED, [[1.1], [-0.5]], THREE, q_mask="10", v_mask="110", weights=HALF,
        y=[[1.15497245968], [0.0]],
    ),
    # base_dense_attention_test.py gives the scores; a query of one feature, and keys that are them
    "given scores": Attend(
        DOT, [[1.0]], THREE, [[1.0], [0.0], [1.0]], y=[[0.44660872104]],
        scores=[[0.42231879825, 0.15536240349, 0.42231879825]],
    ),
    "given scores, values masked": Attend(
        DOT, [[1.0]], THREE, [[1.0], [0.0], [1.0]], v_mask="110", y=[[1.35795272077]],
        scores=[[0.73105857863, 0.26894142137, 0.0]],
    ),
}  # fmt: skip


def vectors(k: Any, values: Any, mask: str) -> tuple[Any, Any, np.ndarray]:
    """An input, the vectors that come of it, masked or not, and what goes in."""
    array = np.array([values], "float32")
    if not mask:
        inputs = k.Input(array.shape[1:])
        return inputs, inputs, array
    hidden = mask.find("0")
    assert mask.count("0") == 1
    ids = np.arange(1, len(mask) + 1, dtype="int32")
    ids[hidden] = 0
    rows = np.concatenate([array[0, hidden : hidden + 1], array[0]])
    inputs = k.Input((len(mask),), dtype="int32")
    embedding = k.layers.Embedding(len(rows), rows.shape[1], mask_zero=True)
    y = embedding(inputs)
    embedding.set_weights([rows])
    return inputs, y, ids[None]


def attend(framework: str, row: Attend, scored: bool) -> None:
    k = FRAMEWORKS[framework]
    given = [vectors(k, row.q, row.q_mask), vectors(k, row.v, row.v_mask)]
    if row.k is not None:
        given.append(vectors(k, row.k, ""))
    inputs, called, xs = ([*part] for part in zip(*given, strict=True))
    attention = row.make(k)
    options = {"return_attention_scores": True} if scored else {}
    ys = tensors(attention(called, **options, **row.call))
    if row.weights:
        attention.set_weights(row.weights)
    model = k.Model(inputs, ys if len(ys) > 1 else ys[0])
    # Where only scores are printed, they weigh the values.
    y = row.y if row.y is not None else np.array(row.scores) @ np.array(row.v)
    scores = [[row.scores]] if scored else []
    assert_case(model, xs, known(row.make, xs[0], [y], *scores, atol=row.atol))


@pytest.mark.parametrize(
    ("framework", "name"),
    [(f, name) for f in FRAMEWORKS for name in ATTEND if f in ATTEND[name].only],
)
def test_attention(framework: str, name: str) -> None:
    attend(framework, ATTEND[name], scored=False)


def test_what_a_config_does_not_tell_is_refused() -> None:
    q = tf_keras.Input((3, 1))
    attention = tf_keras.layers.Attention(causal=True, name="look")
    (reason,) = refused(tf_keras.Model(q, attention([q, q])))
    assert reason.startswith("look: was made with causal=True, which Keras keeps out of the config")


@pytest.mark.parametrize("name", [name for name, row in ATTEND.items() if row.scores is not None])
@frameworks
def test_attention_scores(framework: str, name: str) -> None:
    attend(framework, ATTEND[name], scored=True)


@frameworks
def test_attention_obeys_masks_that_come_with_its_inputs(framework: str) -> None:
    k = FRAMEWORKS[framework]
    q, v = k.Input((2, 1)), k.Input((2, 1))
    model = k.Model([q, v], DOT(k)([k.layers.Masking(1.1)(q), k.layers.Masking(1.2)(v)]))
    xs = [np.array([[[1.1], [1.0]]], "float32"), np.array([[[1.2], [1.0]]], "float32")]
    row = known(DOT, xs[0], [[[0.0], [1.0]]])
    assert_case(model, xs, row)


def heads(framework: str, **options: Any) -> tuple[Any, list[np.ndarray]]:
    """Eight heads that hand on what they get, and their inputs."""
    k = FRAMEWORKS[framework]
    size = 8
    eye = np.eye(size, dtype="float32")
    kernel, bias = np.repeat(eye[:, None], size, axis=1), np.zeros((size, size))
    attention = k.layers.MultiHeadAttention(size, size)
    query, value, key = inputs = [k.Input((size, size)) for _ in range(3)]
    model = k.Model(inputs, attention(query, value, key, **options))
    attention.set_weights([kernel, bias] * 3 + [kernel, np.zeros(size)])
    return model, [eye[None], counted(1, size, size) / np.float32(100), eye[None]]


COLUMN = np.array([2.406, 2.440, 2.473, 2.504, 2.535, 2.568, 2.602, 2.633])[:, None]
HEADS = np.broadcast_to(COLUMN, (1, 8, 8))
HEAD_SCORES = np.broadcast_to(np.where(np.eye(8), 0.1691, 0.1187), (1, 8, 8, 8))


@pytest.mark.parametrize("scored", [False, True])
@frameworks
def test_multi_head_attention(framework: str, scored: bool) -> None:
    # The suite computes in float16, whose units there are 1 / 512 and 1 / 8192.
    model, xs = heads(framework, **({"return_attention_scores": True} if scored else {}))
    theirs = run(model, xs)
    spec = nc.from_keras(model)
    assert_parity(spec, [(xs, theirs)])
    for arrays in (theirs, *(flat(Model(spec, backend).predict(xs)) for backend in BACKENDS)):
        y, *scores = arrays
        assert len(scores) == scored
        np.testing.assert_allclose(y, HEADS, atol=1 / 512, rtol=0)
        for array in scores:
            np.testing.assert_allclose(array, HEAD_SCORES, atol=1 / 8192, rtol=0)
