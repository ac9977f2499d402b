"""Cases of the tests of Keras without printed numbers, against the framework's own outputs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest
from keras_graphs import FRAMEWORKS, assert_parity, make_inputs, refused, run
from keras_own_suite import (
    ADDED,
    CONCAT,
    DOT,
    IDS,
    KERAS_3,
    MASKING,
    SEQUENCES,
    SOFTMAX,
    TF_KERAS,
    Make,
    begun,
    fixed,
    functional,
    heads_of,
    layer,
    masked_heads,
    pair,
    plain,
    rnn,
    sequential,
    tensors,
    timed,
    weighted,
)

# Keras says so where a layer lets a mask go, where there is one value to attend to, and of an
# option that has another successor.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask"),
    pytest.mark.filterwarnings("ignore:.*You are using a softmax over axis:UserWarning"),
    pytest.mark.filterwarnings("ignore:You passed .rms_scaling=True., which is deprecated"),
]


# Cases without printed numbers: the suites run them, or hold one layer against another. Here each
# has weights that differ everywhere, and the framework's outputs are the numbers to meet.


def listed(make: Make, masked: bool = False, **options: Any) -> Callable[..., Any]:
    """A layer on a list of its inputs."""

    def call(k: Any, *xs: Any) -> Any:
        return make(k)([k.layers.Masking()(x) if masked else x for x in xs], **options)

    return call


def handed_on(first: Make, second: Make) -> Callable[..., Any]:
    """A layer's states are where another begins; it reads its outputs, or an input of its own."""

    def call(k: Any, x: Any, other: Any = None) -> Any:
        y, *states = tensors(first(k)(x))
        states = states if len(states) > 1 else states[0]
        return second(k)(y if other is None else other, initial_state=states)

    return call


def first_state(make: Make) -> Callable[..., Any]:
    return lambda k, x: make(k)(k.layers.Masking()(x))[1]


def attended(make: Make, **options: Any) -> Callable[..., Any]:
    """Heads on their inputs; one input attends to itself."""
    return lambda k, x, *xs: make(k)(x, *(xs or (x,)), **options)


def attended_where(make: Make) -> Callable[..., Any]:
    return lambda k, q, v, mask: make(k)(q, v, attention_mask=mask)


def reversed_stack(*cells: Make, **options: Any) -> Make:
    def make(k: Any) -> Any:
        stack = k.layers.StackedRNNCells([c(k) for c in cells], reverse_state_order=True)
        return k.layers.RNN(stack, **options)

    return make


STATES = {"LSTM": 2, "GRU": 1, "SimpleRNN": 1}
STATE: dict[str, Any] = {"return_state": True}
RETURNS: dict[str, Any] = {**STATE, **SEQUENCES}
ZEROS: dict[str, Any] = {"zero_output_for_mask": True, **SEQUENCES}
BACK: dict[str, Any] = {"go_backwards": True, **SEQUENCES}
FIRST: dict[str, Any] = {"time_major": True, **SEQUENCES}
DROPOUT: dict[str, Any] = {"dropout": 0.1, "recurrent_dropout": 0.1}
MODES = ("ave", "concat", "mul", "sum", None)


def recurrent_rows(c: str) -> dict[str, Make]:
    """What the suites run each recurrent layer in."""

    def one(units: int, **options: Any) -> Make:
        return layer(c, units, **options)

    def a_cell(units: int, **options: Any) -> Make:
        return layer(f"{c}Cell", units, **options)

    three = [a_cell(units, **DROPOUT) for units in (3, 4, 5)]
    states = [(3,)] * STATES[c]
    words = {"shape": (5,), **IDS}
    rows = {
        "sequences": sequential(one(2, **SEQUENCES)),
        "any number of steps": sequential(one(2), shape=(None, 4)),
        "float64": sequential(one(2, dtype="float64", **SEQUENCES), dtype="float64"),
        "stacked": sequential(one(10, **SEQUENCES), one(5, **SEQUENCES)),
        "stacked, masked": sequential(MASKING, one(10, **SEQUENCES), one(5, **SEQUENCES)),
        "states are inputs": functional(begun(one(3)), (3, 4), *states),
        "states are inputs, masked": functional(begun(one(3), True), (3, 4), *states),
        "first state": fixed(first_state(one(3, stateful=True, **STATE)), (2, 3, 4)),
        "states, masked": functional(plain(one(5, **STATE), True), (3, 4)),
        "states handed on": functional(handed_on(one(3, **RETURNS), one(3)), (3, 4)),
        "states handed on, another input": functional(
            handed_on(one(3, dropout=0.2, **RETURNS), one(3)), (2, 4), (2, 4)
        ),
        "words": sequential(layer("Embedding", 20, 4, mask_zero=True), one(2), **words),
        "one step unrolled": sequential(rnn(a_cell(5), unroll=True, **SEQUENCES), shape=(1, 5)),
        "three cells, stateful": fixed(plain(rnn(*three, stateful=True)), (2, 3, 4)),
        "pair of cells": sequential(pair(rnn(a_cell(5)), merge_mode="sum"), shape=(3, 5)),
        "pair of two cells": functional(plain(pair(rnn(a_cell(5), a_cell(5), **RETURNS))), (3, 4)),
        "pairs stacked": sequential(
            pair(one(2, **SEQUENCES), merge_mode="sum"), pair(one(2), merge_mode="sum")
        ),
        "pair's states handed on": functional(
            handed_on(pair(one(3, **RETURNS)), pair(one(3))), (3, 5), (3, 5)
        ),
        "pair, stateful": fixed(plain(pair(one(2, stateful=True), merge_mode="sum")), (1, 2, 2)),
        "at each step": sequential(timed(one(4, **SEQUENCES)), shape=(2, 3, 1)),
        "at each step, masked": sequential(MASKING, timed(one(4, **SEQUENCES)), shape=(2, 3, 1)),
    }
    for unroll in (False, True):
        inner = one(5, unroll=unroll, **SEQUENCES)
        rows[f"masked, unroll {unroll}"] = sequential(MASKING, inner)
        rows[f"dropout, unroll {unroll}"] = sequential(one(3, unroll=unroll, **DROPOUT))
    kinds = {"last": {}, "sequences": SEQUENCES, "states": RETURNS, "zeros": ZEROS, "back": BACK}
    for (kind, options), masked in itertools.product(kinds.items(), (False, True)):
        called = plain(rnn(*three, **options), masked)
        rows[f"three cells, {kind}, masked {masked}"] = functional(called, (3, 4))
    kinds = {"last": {}, "sequences": SEQUENCES, "state": STATE}
    for mode, (kind, options), masked in itertools.product(MODES, kinds.items(), (False, True)):
        called = plain(pair(one(3, **options), merge_mode=mode), masked)
        rows[f"pair {mode}, {kind}, masked {masked}"] = functional(called, (3, 5))
    for mode in ("sum", "concat"):
        turned = pair(one(2), one(2, go_backwards=True), merge_mode=mode)
        rows[f"pair {mode}, backward layer"] = sequential(turned, shape=(2, 2))
        rows[f"pair {mode}, dropout"] = sequential(pair(one(2, **DROPOUT), merge_mode=mode))
    return rows


def recurrent_rows_of_tf_keras(c: str) -> dict[str, Make]:
    words = timed(layer("Embedding", 9, 6, mask_zero=True))
    two, three = ([layer(f"{c}Cell", n) for n in sizes] for sizes in ((5, 5), (3, 4, 5)))
    return {
        "states and inputs in a list": functional(listed(layer(c, 3)), (3, 4), *[(3,)] * STATES[c]),
        "states in reverse": functional(plain(reversed_stack(*two, **RETURNS)), (2, 4)),
        "at each step, words": sequential(
            words, timed(layer(c, 7, **SEQUENCES)), timed(layer(c, 8)), layer(c, 1), **IDS
        ),
        "time first": fixed(plain(layer(c, 3, **FIRST)), (5, 2, 4)),
        "time first, backwards": fixed(plain(layer(c, 3, go_backwards=True, **FIRST)), (5, 2, 4)),
        "time first, masked": fixed(plain(layer(c, 3, **FIRST), True), (5, 2, 4)),
        "time first, three cells": fixed(plain(rnn(*three, **FIRST)), (5, 2, 4)),
    }


def other_rows() -> dict[str, Make]:
    inside = sequential(layer("Dense", 3), shape=(2,))
    relu = layer("Activation", "relu")
    rows = {
        "words through two pairs": sequential(
            layer("Embedding", 50, 16), pair(layer("LSTM", 16, **SEQUENCES)),
            pair(layer("LSTM", 8)), layer("Dense", 16, activation="relu"),
            layer("Dense", 1, activation="sigmoid"), shape=(20,), **IDS,
        ),
        "each step: dense": sequential(timed(layer("Dense", 2))),
        "each step: dense twice": sequential(timed(layer("Dense", 2)), timed(SOFTMAX), relu),
        "each step: embedding": sequential(timed(layer("Embedding", 9, 6)), **IDS),
        "each step: a model": sequential(timed(inside), shape=(3, 2)),
        "each step: normalized": sequential(timed(layer("BatchNormalization")), shape=(10, 2)),
        "each step: dense, masked": sequential(MASKING, timed(layer("Dense", 5))),
        "each step: masking": sequential(timed(MASKING), timed(SOFTMAX), shape=(None, 3, 4)),
        "each step: dense, words": sequential(
            layer("Embedding", 10, 5, mask_zero=True), timed(SOFTMAX), shape=(20,), **IDS
        ),
        "mean of steps, masked": sequential(MASKING, layer("GlobalAveragePooling1D")),
    }  # fmt: skip
    for c, n in itertools.product(("LSTM", "GRU"), (1, 2)):
        rows[f"{c}: implementation {n}"] = sequential(layer(c, 2, implementation=n))
    for bias, after in itertools.product((False, True), (False, True)):
        inner = layer("GRU", 2, reset_after=after, use_bias=bias)
        rows[f"GRU: reset_after {after}, use_bias {bias}"] = sequential(inner)
        rows[f"LSTM: use_bias {bias}"] = sequential(layer("LSTM", 2, use_bias=bias))
    for axis in (-1, 1, (1, 2)):
        rows[f"unit norm along {axis}"] = sequential(layer("UnitNormalization", axis=axis))
    for order, kept in itertools.product(("channels_last", "channels_first"), (False, True)):
        mean = layer("GlobalAveragePooling1D", data_format=order, keepdims=kept)
        rows[f"mean of steps, {order}, keepdims {kept}"] = sequential(mean, shape=(5, 4))
    return rows


def attention_rows() -> dict[str, Make]:
    kinds = {
        "dot": DOT,
        "dot, scaled": layer("Attention", use_scale=True, dropout=0.5),
        "concat": CONCAT,
        "concat, scaled": layer("Attention", use_scale=True, score_mode="concat", dropout=0.5),
        "additive": ADDED,
        "additive, unscaled": layer("AdditiveAttention", use_scale=False, dropout=0.5),
    }
    rows = {}
    for kind, make in kinds.items():
        rows[f"{kind}: two"] = functional(listed(make), (3, 4), (5, 4))
        rows[f"{kind}: three"] = functional(listed(make), (3, 4), (5, 4), (5, 4))
        rows[f"{kind}: masked"] = functional(listed(make, True), (3, 4), (5, 4))
        causal, scored = {"use_causal_mask": True}, {"return_attention_scores": True}
        rows[f"{kind}: causal"] = functional(listed(make, **causal), (3, 4), (5, 4))
        rows[f"{kind}: scores"] = functional(listed(make, **scored), (8, 16), (4, 16))
    return rows


def head_rows() -> dict[str, Make]:
    query, value, words = (4, 8), (2, 8), ((5,), (3,))
    causal = {"use_causal_mask": True}
    bare = heads_of(2, 2, value_dim=4, use_bias=False, dropout=0.5)
    given = attended_where(heads_of(2, 2))
    rows = {
        "two": functional(attended(heads_of(2, 2)), query, value),
        "no bias": functional(attended(bare), query, value),
        "size of outputs": functional(attended(heads_of(2, 16, output_shape=8)), query, value),
        "shape of outputs": functional(
            attended(heads_of(2, 16, output_shape=(8, 8))), query, value
        ),
        "of themselves": functional(attended(heads_of(12, 64)), (40, 80)),
        "keys": functional(attended(heads_of(2, 2, value_dim=2)), query, value, (2, 3)),
        "scores": functional(attended(heads_of(2, 2), return_attention_scores=True), query, value),
        "causal": functional(attended(heads_of(2, 4), **causal), (5, 8)),
        "mask given": functional(given, query, value, (4, 2)),
        "masked": functional(masked_heads(), *words, **IDS),
        "masked, causal": functional(masked_heads(**causal), *words, **IDS),
    }
    for axes, q, v in (
        ((2,), (3, 4, 8), (3, 2, 8)),
        ((1, 2), (3, 4, 8), (3, 2, 8)),
        ((2, 3), (5, 3, 4, 8), (5, 3, 2, 8)),
    ):
        inner = heads_of(2, 2, attention_axes=axes)
        rows[f"along {axes} of {len(q) + 1}"] = functional(attended(inner), q, v)
    return rows


def head_rows_of_keras_3() -> dict[str, Make]:
    gated, window = heads_of(2, 2, use_gate=True), heads_of(2, 4, sliding_window=3)
    bare = heads_of(2, 2, value_dim=4, use_bias=False, use_gate=True)
    return {
        "gate": functional(attended(gated), (8, 16), (4, 16)),
        "gate, no bias": functional(attended(bare), (8, 16), (4, 16)),
        "window": functional(attended(window), (6, 8)),
        "window, causal": functional(attended(window, use_causal_mask=True), (6, 8)),
    }


ALIKE: dict[str, tuple[Make, Sequence[str]]] = {
    "dot: four axes": (functional(listed(DOT), (8, 6, 4), (8, 6, 4)), KERAS_3),
    "dot at each step": (functional(listed(timed(DOT)), (8, 1, 10), (8, 4, 10)), TF_KERAS),
    **{name: (make, tuple(FRAMEWORKS)) for name, make in other_rows().items()},
    **{name: (make, tuple(FRAMEWORKS)) for name, make in attention_rows().items()},
    **{f"heads: {name}": (make, tuple(FRAMEWORKS)) for name, make in head_rows().items()},
    **{f"heads: {name}": (make, KERAS_3) for name, make in head_rows_of_keras_3().items()},
    **{
        f"{c}: {name}": (make, only)
        for c in STATES
        for rows, only in (
            (recurrent_rows(c), tuple(FRAMEWORKS)),
            (recurrent_rows_of_tf_keras(c), TF_KERAS),
        )
        for name, make in rows.items()
    },
}


def invented(model: Any, seed: int = 2) -> list[np.ndarray]:
    """Inputs, some steps of them zero: the last of the first row, one within the second."""
    batch = model.inputs[0].shape[0] or 2
    xs = make_inputs(model, batch, 3, seed)
    for x in xs:
        if x.ndim > 2 or x.dtype.kind == "i":
            x[0, -1] = 0
            x[1:, 1:2] = 0
    return xs


# What npylstm does not do, and how it says so.
REFUSED = {
    "dot: four axes": "expected two or three inputs of 3 axes",
    "heads: shape of outputs": "output_shape: expected one size",
    "heads: along (2,) of 4": "attention_axes: expected 1, the steps",
    "heads: along (1, 2) of 4": "attention_axes: expected 1, the steps",
    "heads: along (2, 3) of 5": "attention_axes: expected 1, the steps",
    "heads: gate": "use_gate is not supported",
    "heads: gate, no bias": "use_gate is not supported",
    "LSTM: pair of two cells": "RNN of 2 cells is not supported",
    "GRU: pair of two cells": "RNN of 2 cells is not supported",
    "SimpleRNN: pair of two cells": "RNN of 2 cells is not supported",
}


@pytest.mark.parametrize(
    ("framework", "name"),
    [(f, name) for f in FRAMEWORKS for name, (_, only) in ALIKE.items() if f in only],
)
@pytest.mark.one_in(3)
def test_cases_without_printed_numbers(framework: str, name: str) -> None:
    make, _ = ALIKE[name]
    model = weighted(make(FRAMEWORKS[framework]))
    if name in REFUSED:
        (reason,) = refused(model)
        assert REFUSED[name] in reason
        return
    xs = invented(model)
    ys = run(model, xs)
    assert max(np.abs(y).max() for y in ys) > 1e-2  # numbers that say something
    assert_parity(nc.from_keras(model), [(xs, ys)])
