"""Numbers that the tests of Keras print for its recurrent layers."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras_own_suite import (
    EXACT,
    KERAS_3,
    PAD,
    TF_KERAS,
    Known,
    around,
    cell,
    chained,
    counted,
    doubled,
    embedding,
    known,
    layer,
    marks,
    pair,
    rnn,
    summing,
    without,
)


def wide(values: Any, units: int) -> np.ndarray:
    """The same number in every unit."""
    return np.repeat(np.array(values, "float64")[..., None], units, axis=-1)


LONG, SHORT, FLAT = counted(3, 6, 4), counted(2, 3, 4), counted(2, 4, 3)
SQUARE = counted(2, 2)
ENDS, HOLES, FRONTS = marks("1110", "1100"), marks("1101", "1001"), marks("0111", "0011")
ONES = np.ones((1, 2, 3), "float32")

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
