"""The cases that Keras tests its own recurrent layers with, told anew for npylstm.

Facts (which layer, which input, which numbers come out) are from the public test suites

- of Keras 3, ``keras/src/layers/``: ``rnn/{lstm,gru,simple_rnn,rnn,stacked_rnn_cells,
  bidirectional,time_distributed}_test.py``, ``attention/{attention,additive_attention,
  multi_head_attention}_test.py``, ``core/{masking,embedding}_test.py``,
  ``pooling/global_average_pooling_test.py``,
  ``normalization/{layer,unit}_normalization_test.py``;
- of tf_keras, ``tf_keras/layers/``: ``rnn/{lstm,gru,simple_rnn,base_rnn,bidirectional,
  time_distributed,gru_lstm,lstm_v1,gru_v1}_test.py``, ``attention/{attention,additive_attention,
  multi_head_attention}_test.py``, ``core/embedding_test.py``,
  ``pooling/global_average_pooling_test.py``;
- of Keras 2, ``tests/keras/layers/{recurrent,wrappers}_test.py``.

Each case is held against the printed numbers and against the framework that is installed. Where
the suites have cells of their own, the case is told with a built-in cell that computes the same:
their cell of one state is a linear SimpleRNNCell of ones without a bias; their cell of two states
puts out twice that.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import npylstm_converters as nc
import numpy as np
import pytest
import tf_keras
from keras_graphs import (
    BACKENDS,
    FRAMEWORKS,
    assert_parity,
    convert,
    flat,
    make_inputs,
    randomise,
    refused,
    run,
)

from npylstm import Model, ShapeError, UnsupportedError

# Printed as the shortest digits that give the float32 back, so a number is as good as the run that
# made it: off by some units in the last place of 1, the size of what the cells put out.
PRINTED = 4 * float(np.finfo("float32").eps)
EXACT = 0.0  # whole numbers, which float32 adds and multiplies without rounding
PAD = -1.0  # no input of a masked case holds it

# Keras says so where a layer lets a mask go, where there is one value to attend to, and of an
# option that has another successor.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask"),
    pytest.mark.filterwarnings("ignore:.*You are using a softmax over axis:UserWarning"),
    pytest.mark.filterwarnings("ignore:You passed .rms_scaling=True., which is deprecated"),
]

Make = Callable[[Any], Any]  # from a framework to a layer, or what is called like one


# Words for layers.


def layer(class_name: str, *args: Any, **options: Any) -> Make:
    return lambda k: getattr(k.layers, class_name)(*args, **options)


def cell(
    class_name: str,
    units: int,
    constants: tuple[float, float, float] = (0.01, 0.02, 0.03),
    /,
    **options: Any,
) -> Make:
    """A recurrent layer, or a cell, with a constant each for kernel, recurrent kernel and bias."""

    def make(k: Any) -> Any:
        names = ("kernel_initializer", "recurrent_initializer", "bias_initializer")
        fill = {n: k.initializers.Constant(c) for n, c in zip(names, constants, strict=True)}
        return getattr(k.layers, class_name)(units, **fill, **options)

    return make


def summing(units: int, kernel: float = 1.0) -> Make:
    """The suites' cell of one state."""
    return cell("SimpleRNNCell", units, (kernel, 1.0, 0.0), activation="linear", use_bias=False)


def rnn(*cells: Make, **options: Any) -> Make:
    """RNN around a cell, or a list of several."""

    def make(k: Any) -> Any:
        made = [c(k) for c in cells]
        return k.layers.RNN(made[0] if len(made) == 1 else made, **options)

    return make


def pair(forward: Make, backward: Make | None = None, **options: Any) -> Make:
    def make(k: Any) -> Any:
        turned = {} if backward is None else {"backward_layer": backward(k)}
        return k.layers.Bidirectional(forward(k), **turned, **options)

    return make


def doubled(inner: Make) -> Make:
    """Twice the first output of a layer, and its states as they are."""

    def make(k: Any) -> Any:
        made, twice = inner(k), k.layers.Rescaling(2.0)

        def call(x: Any, **options: Any) -> Any:
            first, *states = tensors(made(x, **options))
            return [twice(first), *states]

        return call

    return make


def around(wrapper: str, inner: Make, **options: Any) -> Make:
    return lambda k: getattr(k.layers, wrapper)(inner(k), **options)


def chained(*makes: Make) -> Make:
    """Layers one after the other, called as one."""

    def make(k: Any) -> Any:
        layers = [each(k) for each in makes]
        return lambda x: functools.reduce(lambda y, each: each(y), layers, x)

    return make


def embedding(vectors: Sequence[Sequence[float]]) -> Make:
    def make(k: Any) -> Any:
        fill = k.initializers.Constant(np.array(vectors, "float32"))
        return k.layers.Embedding(len(vectors), len(vectors[0]), embeddings_initializer=fill)

    return make


def without(name: str, inner: Make, **old: Any) -> Make:
    """A layer from its config, with entries that older versions wrote."""

    def make(k: Any) -> Any:
        return getattr(k.layers, name).from_config({**inner(k).get_config(), **old})

    return make


def tensors(value: Any) -> list[Any]:
    """All tensors in nested lists, in order."""
    if isinstance(value, (list, tuple)):
        return [t for entry in value for t in tensors(entry)]
    return [value]


def counted(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape), dtype="float32").reshape(shape)


def wide(values: Any, units: int) -> np.ndarray:
    """The same number in every unit."""
    return np.repeat(np.array(values, "float64")[..., None], units, axis=-1)


def marks(*rows: str) -> np.ndarray:
    """A mask: 1 where a step counts."""
    return np.array([[step == "1" for step in row] for row in rows])


# Rows.


@dataclass(frozen=True)
class Known:
    """What a layer makes of ``x``: ``ys`` at the last of so many calls."""

    make: Make
    x: np.ndarray
    ys: Sequence[Any]
    atol: float = PRINTED
    mask: np.ndarray | None = None
    state: Sequence[np.ndarray] = ()
    calls: int = 1
    streams: bool = True
    resets: Sequence[str] = tuple(FRAMEWORKS)
    only: Sequence[str] = tuple(FRAMEWORKS)


def known(make: Make, x: np.ndarray, *ys: Any, **others: Any) -> Known:
    return Known(make, x, [np.array(y, "float64") for y in ys], **others)


LONG, SHORT, FLAT = counted(3, 6, 4), counted(2, 3, 4), counted(2, 4, 3)
SQUARE = counted(2, 2)
ENDS, HOLES, FRONTS = marks("1110", "1100"), marks("1101", "1001"), marks("0111", "0011")
ONES = np.ones((1, 2, 3), "float32")
KERAS_3 = ("keras3",)
TF_KERAS = ("tf_keras",)

LSTM_LAST = wide([0.6288687, 0.86899155, 0.9460773], 3)
GRU_LAST = wide([0.5217289, 0.6371659, 0.39384964], 3)
RNN_LAST = wide([0.405432, 0.73605347], 4)
RNN_BACK = wide([0.11144729, 0.5528889], 4)
LSTM_MASKED = wide(
    [[0.01588910, 0.05552048, 0.11755939, 0.11755939],
     [0.14185596, 0.28556206, 0.28556206, 0.28556206]], 2,
)  # fmt: skip
GRU_MASKED = wide(
    [[0.03606692, 0.09497581, 0.09497581, 0.19393763],
     [0.16051409, 0.16051409, 0.16051409, 0.30818558]], 2,
)  # fmt: skip
RNN_MASKED = wide(
    [[0.0599281, 0.15122814, 0.15122814, 0.32394567],
     [0.3969304, 0.3969304, 0.3969304, 0.608085]], 2,
)  # fmt: skip
SUMS_MASKED = wide([[3, 18, 57, 57], [39, 126, 126, 126]], 2)
GRU_STATES = [[0.23774096, 0.33508456], [0.83659905, 1.0227708]]
GRU_STATES_BACK = [[0.13486053, 0.23261218], [0.78257304, 0.9691353]]

KNOWN: dict[str, Known] = {
    # lstm_test.py
    **{
        f"lstm {kind}, implementation {n}": known(
            cell("LSTM", 3, implementation=n, **options), LONG, y
        )
        for n in (1, 2)
        for kind, options, y in (
            ("last", {}, LSTM_LAST),
            ("backwards", {"go_backwards": True},
             wide([0.35622165, 0.74789524, 0.8872726], 3)),
            ("unrolled", {"unroll": True}, LSTM_LAST),
            ("forget bias as given", {"unit_forget_bias": False},
             wide([0.57019705, 0.8661914, 0.9459622], 3)),
            ("no bias", {"use_bias": False}, wide([0.54986924, 0.86226785, 0.9443936], 3)),
        )
    },
    # gru_test.py
    "gru last": known(cell("GRU", 3), LONG, GRU_LAST),
    "gru backwards": known(
        cell("GRU", 3, go_backwards=True), LONG, wide([0.24406259, 0.611516, 0.3928808], 3)
    ),
    "gru unrolled": known(cell("GRU", 3, unroll=True), LONG, GRU_LAST),
    "gru reset before": known(
        cell("GRU", 3, reset_after=False), LONG, wide([0.51447755, 0.6426879, 0.40208298], 3)
    ),
    "gru no bias": known(
        cell("GRU", 3, use_bias=False), LONG, wide([0.49988455, 0.64701194, 0.4103359], 3)
    ),
    "gru with implementation 0 in its config": known(
        without("GRU", cell("GRU", 3), implementation=0), LONG, GRU_LAST
    ),
    # simple_rnn_test.py
    **{
        f"rnn {kind}, unroll {unroll}": known(
            cell("SimpleRNN", 4, unroll=unroll, **options), SHORT, y
        )
        for unroll in (False, True)
        for kind, options, y in (
            ("last", {}, RNN_LAST), ("backwards", {"go_backwards": True}, RNN_BACK)
        )
    },
    # rnn_test.py
    "sum last": known(rnn(summing(2)), ONES, [[9, 9]], atol=EXACT),
    "sum sequences": known(
        rnn(summing(2), return_sequences=True), ONES, [[[3, 3], [9, 9]]], atol=EXACT
    ),
    "sum state": known(
        rnn(summing(2), return_state=True), ONES, [[9, 9]], [[9, 9]], atol=EXACT
    ),
    "sum sequences and state": known(
        rnn(summing(2), return_sequences=True, return_state=True), ONES,
        [[[3, 3], [9, 9]]], [[9, 9]], atol=EXACT,
    ),
    "sum backwards": known(
        rnn(summing(2), go_backwards=True), SHORT, wide([202, 538], 2), atol=EXACT
    ),
    "two states last": known(doubled(rnn(summing(2))), ONES, [[18, 18]], atol=EXACT),
    "two states sequences": known(
        doubled(rnn(summing(2), return_sequences=True)), ONES, [[[6, 6], [18, 18]]], atol=EXACT
    ),
    "two states state": known(
        doubled(rnn(summing(2), return_state=True)), ONES, [[18, 18]], [[9, 9]], atol=EXACT
    ),
    "two states sequences and state": known(
        doubled(rnn(summing(2), return_sequences=True, return_state=True)), ONES,
        [[[6, 6], [18, 18]]], [[9, 9]], atol=EXACT,
    ),
    # stacked_rnn_cells_test.py; a second cell of two states gets twice the first one's output
    **{
        f"stack of {kind}, {', '.join(options) or 'last'}": known(
            wrap(rnn(summing(3), summing(2, kernel), **options)), SHORT,
            steps if "return_sequences" in options else np.array(steps)[:, -1],
            *(states if "return_state" in options else ()), atol=EXACT,
        )
        for kind, wrap, kernel, steps, states in (
            ("one state", lambda make: make, 1.0,
             wide([[18, 156, 786], [162, 1020, 4386]], 2),
             (wide([158, 782], 3), wide([786, 4386], 2))),
            ("two states", doubled, 2.0,
             wide([[72, 624, 3144], [648, 4080, 17544]], 2),
             (wide([158, 782], 3), wide([1572, 8772], 2))),
        )
        for options in (
            {}, {"return_sequences": True}, {"return_state": True},
            {"return_sequences": True, "return_state": True},
        )
    },
    "stack of lstm cells on zeros": known(
        rnn(layer("LSTMCell", 10), layer("LSTMCell", 10), return_state=True),
        np.zeros((2, 3, 5), "float32"), *[np.zeros((2, 10))] * 5, atol=EXACT,
    ),
    # bidirectional_test.py
    "pair": known(
        pair(cell("SimpleRNN", 2)), SHORT,
        [[0.39687276, 0.39687276, 0.10004295, 0.10004295],
         [0.7237238, 0.7237238, 0.53391594, 0.53391594]],
    ),
    "pair ave": known(
        pair(cell("SimpleRNN", 2), merge_mode="ave"), SHORT, wide([0.24845785, 0.6288199], 2)
    ),
    "pair unmerged": known(
        pair(cell("SimpleRNN", 2), merge_mode=None), SHORT,
        wide([0.39687276, 0.7237238], 2), wide([0.10004295, 0.53391594], 2),
    ),
    "pair mul, backward layer": known(
        pair(cell("SimpleRNN", 2),
             cell("SimpleRNN", 2, (0.03, 0.02, 0.01), go_backwards=True), merge_mode="mul"),
        SHORT, wide([0.08374989, 0.6740834], 2),
    ),
    "pair sum of sequences": known(
        pair(cell("GRU", 2, return_sequences=True), merge_mode="sum"), SHORT,
        wide([[0.20937867, 0.34462988, 0.40290534], [0.59829646, 0.6734641, 0.6479671]], 2),
    ),
    "pair with states": known(
        pair(cell("LSTM", 2, return_state=True)), FLAT,
        [[0.1990008, 0.1990008, 0.12659755, 0.12659755],
         [0.52335435, 0.52335435, 0.44717982, 0.44717982]],
        wide([0.1990008, 0.52335435], 2), wide([0.35567185, 1.0492687], 2),
        wide([0.12659755, 0.44717982], 2), wide([0.2501858, 0.941473], 2),
    ),
    # time_distributed_test.py
    "dense at each step": known(
        around("TimeDistributed", lambda k: k.layers.Dense(
            1, kernel_initializer=k.initializers.Constant(0.01), use_bias=False)),
        counted(3, 2, 4), [[[0.06], [0.22]], [[0.38], [0.53999996]], [[0.7], [0.86]]],
    ),
    # embedding_test.py of either
    "embedding": known(
        embedding([[0, 0], [2, 2], [3, 3]]),
        np.array([[2, 1, 0]], "int32"), [[[3, 3], [2, 2], [0, 0]]], atol=EXACT,
    ),
    "embedding of two": known(
        embedding([[1, 1], [2, 2]]),
        np.array([[0, 1, 0]], "int32"), [[[1, 1], [2, 2], [1, 1]]], atol=EXACT,
    ),
    # masking_test.py: the mask itself, counted by a cell that adds one at each step that counts
    "masking": known(
        chained(layer("Masking"), cell(
            "SimpleRNN", 1, (0.0, 1.0, 1.0), activation="linear", return_sequences=True)),
        np.array([[[0, 0], [1, 2], [0, 0]], [[2, 2], [0, 0], [2, 1]]], "float32"),
        [[[0], [1], [1]], [[1], [1], [2]]], atol=EXACT,
    ),
    # layer_normalization_test.py: five decimals
    "layer normalization": known(
        layer("LayerNormalization", beta_initializer="ones", gamma_initializer="ones"),
        np.arange(5, dtype="float32")[None], [[-0.41386, 0.29307, 1.0, 1.70693, 2.41386]],
        atol=5e-6,
    ),
    "layer normalization by the root of the mean square": known(
        layer("LayerNormalization", rms_scaling=True, gamma_initializer="ones"),
        np.arange(5, dtype="float32")[None], [[0.0, 0.70693, 1.41386, 2.12079, 2.82772]],
        atol=5e-6, only=KERAS_3,
    ),
    # global_average_pooling_test.py
    "mean of steps": known(
        layer("GlobalAveragePooling1D"), counted(2, 3, 4),
        [[4, 5, 6, 7], [16, 17, 18, 19]], atol=EXACT,
    ),
    "mean of steps, kept": known(
        layer("GlobalAveragePooling1D", keepdims=True), counted(2, 3, 4),
        [[[4, 5, 6, 7]], [[16, 17, 18, 19]]], atol=EXACT,
    ),
    "mean of steps that count": known(
        chained(layer("Masking", PAD), layer("GlobalAveragePooling1D")),
        np.where(marks("110", "010")[..., None], counted(2, 3, 4), np.float32(PAD)),
        [[2, 3, 4, 5], [16, 17, 18, 19]], atol=EXACT,
    ),
    "mean of steps that count, kept": known(
        chained(layer("Masking", PAD), layer("GlobalAveragePooling1D", keepdims=True)),
        np.where(marks("110", "010")[..., None], counted(2, 3, 4), np.float32(PAD)),
        [[[2, 3, 4, 5]], [[16, 17, 18, 19]]], atol=EXACT,
    ),
    "mean of steps, ragged": known(
        chained(layer("Masking"), layer("GlobalAveragePooling1D")),
        np.array([[[1, 1], [2, 2], [3, 3]], [[1, 1], [2, 2], [0, 0]]], "float32"),
        [[2, 2], [1.5, 1.5]], atol=EXACT,
    ),
}  # fmt: skip

GIVEN_STATES: dict[str, Known] = {
    "lstm": known(
        cell("LSTM", 2), FLAT, [[0.20574439, 0.3558822], [0.64930826, 0.66276]],
        state=[SQUARE, SQUARE],
    ),
    "lstm backwards": known(
        cell("LSTM", 2, go_backwards=True), FLAT, [[0.13281618, 0.2790356], [0.5839337, 0.5992567]],
        state=[SQUARE, SQUARE],
    ),
    "gru": known(cell("GRU", 2), FLAT, GRU_STATES, state=[SQUARE]),
    "gru backwards": known(
        cell("GRU", 2, go_backwards=True), FLAT, GRU_STATES_BACK, state=[SQUARE]
    ),
    "gru, returned": known(
        cell("GRU", 2, return_state=True), FLAT, GRU_STATES, GRU_STATES, state=[SQUARE]
    ),
    "gru backwards, returned": known(
        cell("GRU", 2, return_state=True, go_backwards=True), FLAT,
        GRU_STATES_BACK, GRU_STATES_BACK, state=[SQUARE],
    ),
    "rnn": known(
        cell("SimpleRNN", 4), FLAT, wide([0.33621645, 0.6262637], 4), state=[counted(2, 4)]
    ),
    "rnn backwards": known(
        cell("SimpleRNN", 4, go_backwards=True), FLAT, wide([0.07344437, 0.43043602], 4),
        state=[counted(2, 4)],
    ),
    "sum": known(
        rnn(summing(2)), np.ones((2, 3, 2), "float32"), wide([22, 22], 2), atol=EXACT,
        state=[np.ones((2, 2), "float32")],
    ),
    "sum, returned": known(
        rnn(summing(2), return_state=True), np.ones((2, 3, 2), "float32"),
        wide([22, 22], 2), wide([22, 22], 2), atol=EXACT, state=[np.ones((2, 2), "float32")],
    ),
    "two states": known(
        doubled(rnn(summing(2))), np.ones((2, 3, 2), "float32"), wide([44, 44], 2), atol=EXACT,
        state=[np.ones((2, 2), "float32")],
    ),
    "two states, returned": known(
        doubled(rnn(summing(2), return_state=True)), np.ones((2, 3, 2), "float32"),
        wide([44, 44], 2), wide([22, 22], 2), atol=EXACT, state=[np.ones((2, 2), "float32")],
    ),
    "pair": known(
        pair(cell("LSTM", 2)), FLAT,
        [[0.20794602, 0.4577124, 0.14046375, 0.48191673],
         [0.6682636, 0.6711909, 0.60943645, 0.60950446]],
        state=[SQUARE, 2 * SQUARE, 3 * SQUARE, 4 * SQUARE],
    ),
}  # fmt: skip

MASKED: dict[str, Known] = {
    "lstm unrolled": known(
        cell("LSTM", 2, unroll=True), FLAT, LSTM_MASKED[:, -1], mask=ENDS
    ),
    "lstm sequences": known(
        cell("LSTM", 2, return_sequences=True), FLAT, LSTM_MASKED, mask=ENDS
    ),
    "lstm zeros": known(
        cell("LSTM", 2, return_sequences=True, zero_output_for_mask=True), FLAT,
        LSTM_MASKED * ENDS[..., None], mask=ENDS,
    ),
    "lstm backwards": known(
        cell("LSTM", 2, go_backwards=True), FLAT, wide([0.15341201, 0.3844719], 2), mask=FRONTS
    ),
    "gru unrolled": known(cell("GRU", 2, unroll=True), FLAT, GRU_MASKED[:, -1], mask=HOLES),
    "gru sequences": known(
        cell("GRU", 2, return_sequences=True), FLAT, GRU_MASKED, mask=HOLES
    ),
    "gru zeros": known(
        cell("GRU", 2, return_sequences=True, zero_output_for_mask=True), FLAT,
        GRU_MASKED * HOLES[..., None], mask=HOLES,
    ),
    "gru backwards": known(
        cell("GRU", 2, go_backwards=True), FLAT, wide([0.11669192, 0.28380975], 2), mask=HOLES
    ),
    "rnn unrolled": known(
        cell("SimpleRNN", 4, unroll=True), FLAT, wide([0.32951632, 0.61799484], 4), mask=HOLES
    ),
    "rnn sequences": known(
        cell("SimpleRNN", 2, return_sequences=True), FLAT, RNN_MASKED, mask=HOLES
    ),
    "rnn zeros": known(
        cell("SimpleRNN", 2, return_sequences=True, zero_output_for_mask=True), FLAT,
        RNN_MASKED * HOLES[..., None], mask=HOLES,
    ),
    "rnn backwards": known(
        cell("SimpleRNN", 4, go_backwards=True), FLAT, wide([0.07376196, 0.43645123], 4),
        mask=HOLES,
    ),
    **{
        f"sum {kind}, unroll {unroll}": known(
            rnn(summing(2), unroll=unroll, **options), FLAT, y, atol=EXACT, mask=ENDS
        )
        for unroll in (False, True)
        for kind, options, y in (
            ("last", {}, SUMS_MASKED[:, -1]), ("sequences", {"return_sequences": True}, SUMS_MASKED)
        )
    },
    "pair": known(
        pair(cell("GRU", 2)), FLAT,
        [[0.19393763, 0.19393763, 0.11669192, 0.11669192],
         [0.30818558, 0.30818558, 0.28380975, 0.28380975]], mask=HOLES,
    ),
    # four decimals
    "stack of lstm cells": known(
        rnn(*[layer("LSTMCell", 1, kernel_initializer="ones", recurrent_initializer="ones")] * 2),
        np.ones((2, 3, 4), "float32"), [[0.7793], [0.5998]], atol=5e-5, mask=marks("111", "110"),
    ),
}  # fmt: skip

TWICE: dict[str, Known] = {
    "lstm": known(
        cell("LSTM", 4, stateful=True), SHORT, wide([0.3124785, 0.6863672], 4), calls=2
    ),
    "gru": known(
        cell("GRU", 4, stateful=True), SHORT, wide([0.29542392, 0.5885018], 4), calls=2
    ),
    "rnn": known(
        cell("SimpleRNN", 4, stateful=True), SHORT, wide([0.40559256, 0.7361247], 4), calls=2
    ),
    "sum": known(rnn(summing(2), stateful=True), ONES, [[45, 45]], atol=EXACT, calls=2),
    "sum and state": known(
        rnn(summing(2), stateful=True, return_state=True), ONES, [[45, 45]], [[45, 45]],
        atol=EXACT, calls=2,
    ),
    "sum and state, two rows": known(
        rnn(summing(2), stateful=True, return_state=True), SHORT,
        wide([954, 3978], 2), wide([954, 3978], 2), atol=EXACT, calls=2,
    ),
    "two states": known(
        doubled(rnn(summing(2), stateful=True)), ONES, [[90, 90]], atol=EXACT, calls=2
    ),
    "two states and state": known(
        doubled(rnn(summing(2), stateful=True, return_state=True)), ONES, [[90, 90]], [[45, 45]],
        atol=EXACT, calls=2,
    ),
    "stack of one state": known(
        rnn(summing(3), summing(2), stateful=True), SHORT, wide([34092, 173196], 2),
        atol=EXACT, calls=2, resets=TF_KERAS,  # Keras 3 fails to reset a stack

    ),
    "stack of two states": known(
        doubled(rnn(summing(3), summing(2, 2.0), stateful=True)), SHORT,
        wide([136368, 692784], 2), atol=EXACT, calls=2, resets=TF_KERAS,
    ),
    "pair": known(
        pair(cell("LSTM", 2, stateful=True)), FLAT,
        [[0.26234663, 0.26234663, 0.16959146, 0.16959146],
         [0.6137073, 0.6137073, 0.5381646, 0.5381646]], calls=2, streams=False,
    ),
}  # fmt: skip


# Models of a row.


def build(
    framework: str, row: Known, *, masked: bool = False, given: bool = False
) -> tuple[Any, list[np.ndarray]]:
    """A model of the layer, and what goes in; ``given``: its states are inputs."""
    k = FRAMEWORKS[framework]
    shape = {"batch_shape": row.x.shape} if row.calls > 1 else {"shape": row.x.shape[1:]}
    inputs, xs = [k.Input(**shape, dtype=row.x.dtype.name)], [row.x]
    x = inputs[0]
    if masked:
        assert row.mask is not None
        xs = [np.where(row.mask[..., None], row.x, np.float32(PAD))]
        x = k.layers.Masking(PAD)(x)
    options = {}
    if given:
        inputs += [k.Input(a.shape[1:]) for a in row.state]
        xs += row.state
        options["initial_state"] = inputs[1:] if len(row.state) > 1 else inputs[1]
    ys = tensors(row.make(k)(x, **options))
    return k.Model(inputs if given else inputs[0], ys if len(ys) > 1 else ys[0]), xs


def reset(model: Any) -> None:
    """Keras 3 and tf_keras: zeros for all states that a model keeps."""
    for each in model.layers:
        if getattr(each, "stateful", False):
            (each.reset_state if hasattr(each, "reset_state") else each.reset_states)()


def assert_known(arrays: Sequence[np.ndarray], row: Known) -> None:
    assert len(arrays) == len(row.ys)
    for array, y in zip(arrays, row.ys, strict=True):
        assert array.shape == y.shape
        np.testing.assert_allclose(array, y, atol=row.atol, rtol=0)


def assert_near(ours: Any, theirs: Any) -> None:
    """Off by rounding alone: 16 units in the last place of the largest value."""
    ours, theirs = flat(ours), flat(theirs)
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        atol = 16 * float(np.finfo("float32").eps) * max(1.0, float(np.abs(b).max(initial=0)))
        np.testing.assert_allclose(a, b, atol=atol, rtol=0)


def assert_case(model: Any, xs: list[np.ndarray], row: Known) -> list[np.ndarray]:
    """The framework's numbers are the printed ones, and npylstm's are both."""
    theirs = run(model, xs)
    assert_known(theirs, row)
    spec = nc.from_keras(model)
    assert_parity(spec, [(xs, theirs)])
    for backend in BACKENDS:
        y = Model(spec, backend).predict(xs if len(xs) > 1 else xs[0])
        assert_known(flat(y), row)
    return theirs


def over(rows: dict[str, Known]) -> pytest.MarkDecorator:
    """Every row in every framework that has it."""
    cases = [(f, name) for f in FRAMEWORKS for name, row in rows.items() if f in row.only]
    return pytest.mark.parametrize(("framework", "name"), cases)


frameworks = pytest.mark.parametrize("framework", FRAMEWORKS)
cells = pytest.mark.parametrize("class_name", ["LSTM", "GRU", "SimpleRNN"])


# Printed numbers.


@over(KNOWN)
def test_known_numbers(framework: str, name: str) -> None:
    row = KNOWN[name]
    assert_case(*build(framework, row), row)


@over(GIVEN_STATES)
def test_known_numbers_from_a_given_state(framework: str, name: str) -> None:
    row = GIVEN_STATES[name]
    model, xs = build(framework, row, given=True)
    theirs = assert_case(model, xs, row)
    bare, _ = build(framework, row)
    spec = nc.from_keras(bare)
    ((entry, shapes),) = spec.state_shapes().items()
    state = {entry: dict(zip(shapes, row.state, strict=True))}
    for backend in BACKENDS:
        y = flat(Model(spec, backend).predict(row.x, state=state))
        assert_known(y, row)
        assert_near(y, theirs)


@over(MASKED)
def test_known_numbers_of_masked_steps(framework: str, name: str) -> None:
    row = MASKED[name]
    model, xs = build(framework, row, masked=True)
    theirs = assert_case(model, xs, row)
    bare, _ = build(framework, row)
    spec = nc.from_keras(bare)
    for backend in BACKENDS:
        y = flat(Model(spec, backend).predict(row.x, mask=row.mask))
        assert_known(y, row)
        assert_near(y, theirs)


@over(TWICE)
def test_known_numbers_of_a_second_call(framework: str, name: str) -> None:
    row = TWICE[name]
    model, xs = build(framework, row)
    first, second = run(model, xs), run(model, xs)
    assert_known(second, row)
    if framework in row.resets:
        reset(model)
        assert_near(run(model, xs), first)
    spec = nc.from_keras(model)
    assert_parity(spec, [(xs, first)])
    for backend in BACKENDS:
        ours = Model(spec, backend)
        y, state = ours.predict(row.x, return_state=True)
        assert_near(y, first)
        y = flat(ours.predict(row.x, state=state))
        assert_known(y, row)
        assert_near(y, second)
        if not row.streams:  # the backward half begins at the end
            with pytest.raises(UnsupportedError):
                ours.session(len(row.x))
            continue
        session = ours.session(len(row.x))
        for _ in range(2):
            assert_near(session.push(row.x), first)
            assert_known(flat(session.push(row.x)), row)
            session.reset()


FILED: list[tuple[dict[str, Known], str]] = [
    (KNOWN, "lstm last, implementation 2"),
    (KNOWN, "lstm no bias, implementation 1"),
    (KNOWN, "gru last"),
    (KNOWN, "gru reset before"),
    (KNOWN, "rnn backwards, unroll True"),
    (KNOWN, "sum sequences and state"),
    (KNOWN, "two states sequences and state"),
    (KNOWN, "stack of two states, return_sequences, return_state"),
    (KNOWN, "pair with states"),
    (KNOWN, "pair mul, backward layer"),
    (KNOWN, "dense at each step"),
    (GIVEN_STATES, "pair"),
    (GIVEN_STATES, "lstm backwards"),
    (MASKED, "lstm zeros"),
    (MASKED, "pair"),
    (TWICE, "gru"),
]


# Keras 3 itself cannot read a functional model with masks from HDF5.
FILES = [
    pytest.param(framework, way, rows, name, id=f"{framework}-{way}-{name}")
    for framework, way in itertools.product(FRAMEWORKS, ("keras", "h5", "json"))
    for rows, name in FILED
    if (framework, way) != ("keras3", "h5") or rows is not MASKED
]


@pytest.mark.parametrize(("framework", "way", "rows", "name"), FILES)
def test_known_numbers_from_files(
    framework: str, way: str, rows: dict[str, Known], name: str, tmp_path: Path
) -> None:
    row = rows[name]
    model, xs = build(framework, row, masked=rows is MASKED, given=rows is GIVEN_STATES)
    spec = convert(model, way, tmp_path)
    for backend in BACKENDS:
        ours = Model(spec, backend)
        x: Any = xs if len(xs) > 1 else xs[0]
        if rows is TWICE:
            _, state = ours.predict(x, return_state=True)
            assert_known(flat(ours.predict(x, state=state)), row)
        else:
            assert_known(flat(ours.predict(x)), row)


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


DOT, CONCAT = layer("Attention"), layer("Attention", score_mode="concat")
ADDED = layer("AdditiveAttention")
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


# Cases without printed numbers: the suites run them, or hold one layer against another. Here each
# has weights that differ everywhere, and the framework's outputs are the numbers to meet.


def sequential(*makes: Make, shape: tuple[int | None, ...] = (3, 4), **options: Any) -> Make:
    """A model of layers one after the other."""
    return lambda k: k.Sequential([k.Input(shape, **options), *(make(k) for make in makes)])


def model_of(call: Callable[..., Any], inputs: list[Any]) -> Make:
    """A model of what ``call(k, *inputs)`` makes; ``inputs`` are the options of each."""

    def make(k: Any) -> Any:
        xs = [k.Input(**options) for options in inputs]
        ys = tensors(call(k, *xs))
        return k.Model(xs if len(xs) > 1 else xs[0], ys if len(ys) > 1 else ys[0])

    return make


def functional(
    call: Callable[..., Any], *shapes: tuple[int | None, ...], dtype: str = "float32"
) -> Make:
    return model_of(call, [{"shape": shape, "dtype": dtype} for shape in shapes])


def fixed(call: Callable[..., Any], *shapes: tuple[int, ...]) -> Make:
    """The same with the batch in the shapes."""
    return model_of(call, [{"batch_shape": shape} for shape in shapes])


def plain(make: Make, masked: bool = False) -> Callable[..., Any]:
    """A layer on its inputs, one by one; ``masked``: where they are zero they do not count."""

    def call(k: Any, *xs: Any) -> Any:
        return make(k)(*((k.layers.Masking()(x) for x in xs) if masked else xs))

    return call


def listed(make: Make, masked: bool = False, **options: Any) -> Callable[..., Any]:
    """A layer on a list of its inputs."""

    def call(k: Any, *xs: Any) -> Any:
        return make(k)([k.layers.Masking()(x) if masked else x for x in xs], **options)

    return call


def begun(make: Make, masked: bool = False) -> Callable[..., Any]:
    """A layer whose states are inputs."""

    def call(k: Any, x: Any, *states: Any) -> Any:
        x = k.layers.Masking()(x) if masked else x
        return make(k)(x, initial_state=list(states) if len(states) > 1 else states[0])

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


def heads_of(*args: int, **options: Any) -> Make:
    return layer("MultiHeadAttention", *args, **options)


def masked_heads(**options: Any) -> Callable[..., Any]:
    """Queries and values from embeddings that mask."""

    def call(k: Any, query: Any, value: Any) -> Any:
        query = k.layers.Embedding(9, 8, mask_zero=True)(query)
        value = k.layers.Embedding(9, 8, mask_zero=True)(value)
        return heads_of(2, 2)(k)(query, value, **options)

    return call


def timed(inner: Make) -> Make:
    return around("TimeDistributed", inner)


def reversed_stack(*cells: Make, **options: Any) -> Make:
    def make(k: Any) -> Any:
        stack = k.layers.StackedRNNCells([c(k) for c in cells], reverse_state_order=True)
        return k.layers.RNN(stack, **options)

    return make


STATES = {"LSTM": 2, "GRU": 1, "SimpleRNN": 1}
SEQUENCES: dict[str, Any] = {"return_sequences": True}
STATE: dict[str, Any] = {"return_state": True}
RETURNS: dict[str, Any] = {**STATE, **SEQUENCES}
ZEROS: dict[str, Any] = {"zero_output_for_mask": True, **SEQUENCES}
BACK: dict[str, Any] = {"go_backwards": True, **SEQUENCES}
FIRST: dict[str, Any] = {"time_major": True, **SEQUENCES}
DROPOUT: dict[str, Any] = {"dropout": 0.1, "recurrent_dropout": 0.1}
IDS: dict[str, Any] = {"dtype": "int32"}
MASKING, SOFTMAX = layer("Masking"), layer("Dense", 5, activation="softmax")
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


def weighted(model: Any, seed: int = 1) -> Any:
    """All weights set; variances are positive."""
    randomise(model, seed)
    weights = zip(model.weights, model.get_weights(), strict=True)
    model.set_weights([np.abs(a) if "variance" in v.name else a for v, a in weights])
    return model


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


# What the suites hold one model against another for.


def ours(model: Any, *xs: np.ndarray, **options: Any) -> Iterable[list[np.ndarray]]:
    """What npylstm makes of a model, in either back end, after parity with the framework."""
    spec = nc.from_keras(model)
    assert_parity(spec, [(xs, run(model, list(xs)))])
    for backend in BACKENDS:
        yield flat(Model(spec, backend).predict(list(xs) if len(xs) > 1 else xs[0], **options))


def noise(*shape: int, seed: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).random(shape).astype("float32")


MERGES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "sum": lambda a, b: a + b,
    "mul": lambda a, b: a * b,
    "ave": lambda a, b: (a + b) / 2,
    "concat": lambda a, b: np.concatenate([a, b], axis=-1),
}


@pytest.mark.parametrize("options", [{"return_sequences": True}, {"return_state": True}], ids=str)
@pytest.mark.parametrize("mode", MERGES)
@frameworks
def test_a_pair_merges_what_its_halves_give(
    framework: str, mode: str, options: dict[str, bool]
) -> None:
    k, x = FRAMEWORKS[framework], noise(2, 3, 5)
    apart, merged = (
        functional(plain(pair(layer("LSTM", 3, **options), merge_mode=m)), (3, 5))(k)
        for m in (None, mode)
    )
    merged.set_weights(weighted(apart).get_weights())
    for (a, b, *states), (y, *same) in zip(ours(apart, x), ours(merged, x), strict=True):
        assert_near(y, MERGES[mode](a, b))
        assert len(same) == len(states) == (4 if "return_state" in options else 0)
        assert_near(same, states)


@frameworks
def test_the_last_output_of_a_masked_pair_is_its_states(framework: str) -> None:
    x = noise(2, 3, 5)
    x[0, 2] = 0
    call = plain(pair(layer("LSTM", 3, return_state=True)), masked=True)
    model = weighted(functional(call, (3, 5))(FRAMEWORKS[framework]))
    for y, forward, _, backward, _ in ours(model, x):
        np.testing.assert_array_equal(y, np.concatenate([forward, backward], axis=1))


@pytest.mark.parametrize("class_name", ["LSTM", "GRU"])
@frameworks
def test_what_a_pair_puts_out_at_masked_steps(framework: str, class_name: str) -> None:
    x = noise(2, 3, 5)
    x[0, 2] = 0
    model = sequential(MASKING, pair(layer(class_name, 3, **SEQUENCES)), shape=(3, 5))
    for (y,) in ours(weighted(model(FRAMEWORKS[framework])), x):
        assert y[0, :2].all()
        assert y[1].all()
        np.testing.assert_array_equal(y[0, 2], 0)


@cells
@frameworks
def test_padding_in_front_behind_and_between_is_the_same(framework: str, class_name: str) -> None:
    k = FRAMEWORKS[framework]
    model = k.Sequential([
        k.Input(batch_shape=(2, 3)), k.layers.Embedding(4, 4, mask_zero=True),
        getattr(k.layers, class_name)(2, stateful=True),
    ])  # fmt: skip
    weighted(model)
    left, right = [[0, 1, 1], [0, 0, 1]], [[1, 1, 0], [1, 0, 0]]
    between, full = [[1, 0, 1], [0, 1, 0]], [[1, 1, 1], [1, 1, 1]]
    theirs = []
    for ids in (left, right, between, full):
        reset(model)
        theirs.append(run(model, [np.array(ids, "float32")])[0])
    again = run(model, [np.array(full, "float32")])[0]
    spec = nc.from_keras(model)
    for backend in BACKENDS:
        loaded = Model(spec, backend)
        ys = [loaded.predict(np.array(ids, "float32")) for ids in (left, right, between)]
        assert all(np.array_equal(ys[0], y) for y in ys)
        for y, other in zip(ys, theirs, strict=False):
            assert_near(y, other)
        y, state = loaded.predict(np.array(full), return_state=True)
        assert_near(y, theirs[3])
        second = loaded.predict(np.array(full), state=state)
        assert_near(second, again)
        assert np.abs(second - y).max() > 1e-3  # the state went on


@cells
@frameworks
def test_a_masked_end_is_as_if_it_were_cut_off(framework: str, class_name: str) -> None:
    # Backwards, what is masked comes first.
    x = np.random.default_rng(5).normal(size=(8, 7, 4)).astype("float32")
    mask = np.arange(7) < np.full((8, 1), 5)
    options = {"go_backwards": True, **SEQUENCES}
    model = weighted(
        sequential(layer(class_name, 4, **options), shape=(None, 4))(FRAMEWORKS[framework])
    )
    spec = nc.from_keras(model)
    assert_parity(spec, [([x[:, :5]], run(model, [x[:, :5]]))])
    theirs = np.array(model.layers[-1](x, mask=keras.ops.convert_to_tensor(mask)))
    for backend in BACKENDS:
        loaded = Model(spec, backend)
        y = loaded.predict(x, mask=mask)
        assert_near(y, theirs)
        np.testing.assert_array_equal(y, loaded.predict(x, lengths=np.full(8, 5)))
        assert_near(y[:, -5:], loaded.predict(x[:, :5]))


@pytest.mark.parametrize("class_name", ["LSTM", "GRU"])
@frameworks
def test_lengths_are_as_if_each_row_ran_alone(framework: str, class_name: str) -> None:
    steps = 20
    ids = np.random.default_rng(0).integers(0, 100, (steps, steps)).astype("int32")
    k = FRAMEWORKS[framework]
    inner = layer(class_name, 32, **SEQUENCES)
    built = weighted(sequential(layer("Embedding", 100, 32), inner, shape=(None,), **IDS)(k))
    spec = nc.from_keras(built)
    assert_parity(spec, [([ids], run(built, [ids]))])
    lengths = np.arange(1, steps + 1)
    for backend in BACKENDS:
        loaded = Model(spec, backend)
        y = loaded.predict(ids, lengths=lengths)
        for row, length in zip(range(steps), lengths, strict=True):
            assert_near(y[row, :length], loaded.predict(ids[row : row + 1, :length])[0])


@cells
@frameworks
def test_a_row_in_which_nothing_counts(framework: str, class_name: str) -> None:
    ids = np.random.default_rng(6).integers(0, 20, (8, 5)).astype("int32")
    ids[0] = 0
    words = layer("Embedding", 20, 4, mask_zero=True)
    model = sequential(words, layer(class_name, 2), shape=(5,), **IDS)
    for (y,) in ours(weighted(model(FRAMEWORKS[framework])), ids):
        assert not y[0].any()
        assert y[1:].all()


@pytest.mark.parametrize("unroll", [True, False])
@frameworks
def test_zeros_at_masked_steps_and_nothing_else_changed(framework: str, unroll: bool) -> None:
    inner = rnn(layer("SimpleRNNCell", 5), zero_output_for_mask=True, unroll=unroll, **SEQUENCES)
    model = weighted(sequential(MASKING, inner, shape=(5, 5))(FRAMEWORKS[framework]))
    full = np.ones((6, 5, 5), "float32")
    cut = full.copy()
    cut[5, 3:] = 0
    for (whole,), (y,) in zip(ours(model, full), ours(model, cut), strict=True):
        assert whole[5, 3:].all()
        np.testing.assert_array_equal(y[5, 3:], 0)
        np.testing.assert_array_equal(y[5, :3], whole[5, :3])
        np.testing.assert_array_equal(y[:5], whole[:5])


@cells
@pytest.mark.parametrize("go_backwards", [False, True])
def test_time_first_is_the_same_turned(class_name: str, go_backwards: bool) -> None:
    x = noise(6, 4, 10)
    options = {"go_backwards": go_backwards, **SEQUENCES}
    batch_first, time_first = (
        fixed(plain(layer(class_name, 8, time_major=major, **options)), shape)(tf_keras)
        for major, shape in ((False, (6, 4, 10)), (True, (4, 6, 10)))
    )
    time_first.set_weights(weighted(batch_first).get_weights())
    turned = np.ascontiguousarray(np.swapaxes(x, 0, 1))
    for (a,), (b,) in zip(ours(batch_first, x), ours(time_first, turned), strict=True):
        assert_near(np.swapaxes(b, 0, 1), a)


def test_a_pair_with_time_first_and_masks() -> None:
    # A cell that adds one: lengths 1 and 2 of 3.
    one = {"activation": "linear", **SEQUENCES}
    for time_major in (False, True):
        made = pair(
            cell("SimpleRNN", 1, (1.0, 0.0, 1.0), time_major=time_major, **one),
            cell("SimpleRNN", 1, (1.0, 0.0, 1.0), time_major=time_major, go_backwards=True, **one),
        )
        x = np.where(marks("100", "110")[..., None], np.float32(0), np.float32(PAD))
        x = np.swapaxes(x, 0, 1) if time_major else x
        y = np.array([[[1, 1], [0, 0], [0, 0]], [[1, 1], [1, 1], [0, 0]]], "float64")
        y = np.swapaxes(y, 0, 1) if time_major else y
        model = fixed(plain(chained(layer("Masking", PAD), made)), x.shape)(tf_keras)
        assert_case(model, [x], known(made, x, y, atol=EXACT))


@cells
def test_states_set_by_hand(class_name: str) -> None:
    # reset_states(values) of tf_keras.
    model = weighted(fixed(plain(layer(class_name, 3, stateful=True)), (2, 3, 4))(tf_keras))
    x, ones = noise(2, 3, 4), np.ones((2, 3), "float32")
    made = model.layers[-1]
    made.reset_states([ones] * len(made.states) if len(made.states) > 1 else ones)
    (theirs,) = run(model, [x])
    for backend in BACKENDS:
        session = Model(nc.from_keras(model), backend).session(2)
        assert all(not a.any() for arrays in session.state.values() for a in arrays.values())
        session.state = {e: dict.fromkeys(arrays, ones) for e, arrays in session.state.items()}
        assert_near(session.push(x), theirs)
        session.reset()
        assert np.abs(session.push(x) - theirs).max() > 1e-3


@pytest.mark.parametrize("stateful", [False, True])
@frameworks
def test_a_state_of_constants_is_refused(framework: str, stateful: bool) -> None:
    k = FRAMEWORKS[framework]
    inputs = k.Input(batch_shape=(12, None, 8))
    gru = k.layers.GRU(16, return_sequences=True, stateful=stateful)
    model = k.Model(inputs, gru(inputs, initial_state=keras.ops.ones((12, 16))))
    assert any("is called with" in reason for reason in refused(model))


@pytest.mark.parametrize("wrapped", [False, True])
@frameworks
def test_stateful_layers_that_get_a_state(framework: str, wrapped: bool) -> None:
    # tf_keras goes on from the last call, whatever it is given; Keras 3 takes what it is given. A
    # call of npylstm's knows nothing of the last one, and what goes on is refused.
    make = layer("SimpleRNN", 1, stateful=True)
    shapes = [(1, 1)] * (2 if wrapped else 1)
    model = fixed(begun(pair(make) if wrapped else make), (1, 1, 1), *shapes)(FRAMEWORKS[framework])
    weighted(model)
    xs = [np.ones((1, 1, 1), "float32"), *[np.ones((1, 1), "float32")] * len(shapes)]
    first, second = run(model, xs), run(model, xs)
    reset(model)
    assert_near(run(model, xs), first)
    assert (np.abs(first[0] - second[0]).max() > 1e-3) == (framework == "tf_keras")
    spec = nc.from_keras(model)
    assert_parity(spec, [(xs, first)])
    for backend in BACKENDS:
        with pytest.raises(UnsupportedError, match="cannot run on a stream"):
            Model(spec, backend).session(1)


@frameworks
def test_a_stateful_model_does_not_change_its_batch(framework: str) -> None:
    model = fixed(plain(rnn(summing(2), stateful=True)), (4, 5, 3))(FRAMEWORKS[framework])
    for backend in BACKENDS:
        session = Model(nc.from_keras(model), backend).session(4)
        session.push(noise(4, 5, 3))
        with pytest.raises(ShapeError):
            session.push(noise(1, 5, 3))


@frameworks
def test_masks_at_each_step_change_what_comes_out(framework: str) -> None:
    k = FRAMEWORKS[framework]
    x = np.array([[[1, 1], [0, 1]], [[1, 0], [1, 1]], [[1, 0], [1, 1]]], "float32")[..., None]
    inner = timed(layer("LSTM", 4, **SEQUENCES))
    plain, masked = (
        sequential(*makes, shape=(2, 2, 1))(k) for makes in ((inner,), (MASKING, inner))
    )
    masked.set_weights(weighted(plain).get_weights())
    for (a,), (b,) in zip(ours(plain, x), ours(masked, x), strict=True):
        assert np.abs(a - b).max() > 1e-3


@pytest.mark.parametrize("use_causal_mask", [False, True])
@frameworks
def test_heads_take_masks_as_if_they_were_given(framework: str, use_causal_mask: bool) -> None:
    query = np.array([[1, 2, 3, 0, 0], [3, 3, 1, 1, 2], [1, 0, 0, 0, 0]], "int32")
    value = np.array([[5, 4, 0], [3, 0, 0], [2, 1, 1]], "int32")
    mask = (query > 0)[:, :, None] & (value > 0)[:, None, :]
    if use_causal_mask:
        mask &= np.tril(np.ones((5, 3), bool))

    def explicit(k: Any) -> Any:
        q, v = k.Input((5,), dtype="int32"), k.Input((3,), dtype="int32")
        m = k.Input((5, 3))
        ys = [k.layers.Embedding(9, 8)(t) for t in (q, v)]
        return k.Model([q, v, m], heads_of(2, 2)(k)(*ys, attention_mask=m))

    k = FRAMEWORKS[framework]
    options = {"use_causal_mask": True} if use_causal_mask else {}
    implied, given = functional(masked_heads(**options), (5,), (3,), dtype="int32")(k), explicit(k)
    given.set_weights(weighted(implied).get_weights())
    pairs = zip(
        ours(implied, query, value), ours(given, query, value, mask.astype("float32")), strict=True
    )
    for (a,), (b,) in pairs:
        counts = mask.any(axis=-1)  # a query that sees nothing gets the mean of what is masked
        assert_near(a[counts], b[counts])


@pytest.mark.parametrize(
    ("axis", "shape"), [(-1, (3,)), ((1, 2), (3, 3)), (1, (3, 2))], ids=["last", "both", "first"]
)
@frameworks
def test_unit_normalization(framework: str, axis: Any, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(7).normal(size=(2, *shape)).astype("float32")
    model = sequential(layer("UnitNormalization", axis=axis), shape=shape)(FRAMEWORKS[framework])
    for (y,) in ours(model, x):
        squares = (y**2).sum(axis=axis)
        np.testing.assert_allclose(squares, np.ones_like(squares), atol=1e-6, rtol=0)


# Cells and wrappers of the suites' own: code, which npylstm has not got.


@keras.saving.register_keras_serializable("own_suite")
class OneState(keras.layers.Layer):  # type: ignore[misc]
    def __init__(self, units: int, **options: Any) -> None:
        super().__init__(**options)
        self.units = self.state_size = units

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight((shape[-1], self.units), "ones")

    def call(self, x: Any, states: Sequence[Any]) -> Any:
        y = keras.ops.matmul(x, self.kernel) + states[0]
        return y, [y]


@keras.saving.register_keras_serializable("own_suite")
class MaskedDense(keras.layers.Dense):  # type: ignore[misc]
    def call(self, x: Any, training: bool = False, mask: Any = None) -> Any:
        y = super().call(x)
        return y if mask is None else y * keras.ops.cast(mask, y.dtype)[..., None]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (rnn(lambda k: OneState(2)), "OneState"),
        (rnn(lambda k: OneState(2), return_state=True, return_sequences=True), "OneState"),
        (pair(rnn(lambda k: OneState(2))), "OneState"),
        (timed(lambda k: MaskedDense(1)), "MaskedDense"),
    ],
)  # fmt: skip
def test_cells_of_ones_own_are_refused_by_name(make: Make, reason: str) -> None:
    assert any(reason in line for line in refused(functional(plain(make), (3, 4))(keras)))
