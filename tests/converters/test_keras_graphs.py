"""General Keras graphs: several inputs and outputs, shared layers, nested models, merges, states.

Each model is built with Keras 3 and with tf_keras, saved in every way, converted, and compared with
the framework's own outputs. The graphs that people saved with Keras 1 and 2 are written by hand.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import npylstm_converters as nc
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from keras_graphs import (
    BACKENDS,
    FRAMEWORKS,
    IDS,
    WAYS,
    assert_parity,
    convert,
    flat,
    make_inputs,
    randomise,
    refused,
    run,
)

import npylstm
from npylstm import FormatError, Model, UnsupportedError
from npylstm.cli import main

Builder = Callable[[Any], Any]
Steps = int | tuple[int, ...]

GRAPHS: dict[str, Builder] = {}
STEPS: dict[str, tuple[Steps, Steps]] = {}


def graph(*, steps: tuple[Steps, Steps] = (7, 4)) -> Callable[[Builder], Builder]:
    """Register a model; ``steps`` fills the free axes of its inputs, in two runs."""

    def register(build: Builder) -> Builder:
        GRAPHS[build.__name__] = build
        STEPS[build.__name__] = steps
        return build

    return register


# Several inputs and outputs.


@graph()
def two_inputs_two_outputs(k: Any) -> Any:
    L, a, b = k.layers, k.Input((None, 3), name="a"), k.Input((4,), name="b")
    both = L.Concatenate(name="both")([L.LSTM(5, name="lstm")(a), L.Dense(2, name="dense")(b)])
    heads = [L.Dense(n, activation="tanh", name=f"head_{n}")(both) for n in (1, 3)]
    return k.Model([a, b], heads)


@graph()
def outputs_in_another_order(k: Any) -> Any:
    L, a = k.layers, k.Input((None, 3), name="a")
    first = L.LSTM(4, return_sequences=True, name="first")(a)
    second = L.LSTM(4, return_sequences=True, name="second")(first)
    third = L.LSTM(4, return_sequences=True, name="third")(second)
    return k.Model(a, [third, first, second])


@graph()
def inputs_in_another_order(k: Any) -> Any:
    L = k.layers
    a, b, c = (k.Input((3,), name=name) for name in "abc")
    y = L.Subtract(name="minus")([L.Dense(3, name="dense")(a), L.Multiply(name="times")([b, c])])
    return k.Model([c, a, b], y)


@graph()
def an_input_is_an_output(k: Any) -> Any:
    L, a, b = k.layers, k.Input((None, 3), name="a"), k.Input((2,), name="b")
    y = L.Concatenate(name="both")([L.LSTM(4, name="lstm")(a), b])
    return k.Model([a, b], [b, y, a])


@graph()
def an_input_is_not_used(k: Any) -> Any:
    L, a, b = k.layers, k.Input((None, 3), name="a"), k.Input((2,), name="b")
    return k.Model([b, a], L.LSTM(4, name="lstm")(a))


@graph()
def one_tensor_is_two_outputs(k: Any) -> Any:
    L, a = k.layers, k.Input((None, 3), name="a")
    y = L.LSTM(4, name="lstm")(a)
    return k.Model(a, [y, y])


@graph()
def one_tensor_is_the_first_and_last_output(k: Any) -> Any:
    L, a = k.layers, k.Input((None, 3), name="a")
    y = L.LSTM(4, name="lstm")(a)
    return k.Model(a, [y, L.Dense(4, name="dense")(y), y])


@graph()
def one_input_and_output_in_lists(k: Any) -> Any:
    a = k.Input((None, 3), name="a")
    return k.Model([a], [k.layers.LSTM(4, name="lstm")(a)])


@graph(steps=((7, 4), (2, 5)))
def inputs_of_different_lengths(k: Any) -> Any:
    L, a, b = k.layers, k.Input((None, 3), name="a"), k.Input((None, 3), name="b")
    y = L.Concatenate(name="both")([L.LSTM(4, name="of_a")(a), L.LSTM(4, name="of_b")(b)])
    return k.Model([a, b], [L.Dense(2, name="dense")(y), L.Dense(3, name="steps")(b)])


@graph()
def inputs_of_equal_free_lengths_meet(k: Any) -> Any:
    L, a, b = k.layers, k.Input((None, 3), name="a"), k.Input((None, 3), name="b")
    return k.Model([a, b], L.LSTM(4, name="lstm")(L.Add(name="sum")([a, b])))


@graph()
def one_input_of_pinned_and_one_of_free_length(k: Any) -> Any:
    L, a, b = k.layers, k.Input((5, 3), name="a"), k.Input((None, 3), name="b")
    y = L.Concatenate(name="both")([L.LSTM(4, name="of_a")(a), L.LSTM(4, name="of_b")(b)])
    return k.Model([b, a], y)


@graph(steps=(5, 5))
def free_and_pinned_lengths_meet(k: Any) -> Any:
    # What Keras takes for equal may be known to one side only.
    L, a, b = k.layers, k.Input((None, 3), name="a"), k.Input((5, 3), name="b")
    row = L.LSTM(3, name="lstm")(b)
    repeated = L.RepeatVector(5, name="repeated")(row)
    beside = L.Concatenate(name="beside")([repeated, a, b])
    over = L.Maximum(name="over")([a, L.Dense(3, name="dense")(b)])
    return k.Model([a, b], [L.GRU(2, name="gru")(beside), over, L.Subtract(name="minus")([repeated, a])])  # fmt: skip


@graph(steps=((7, 4), (2, 5)))
def sums_of_free_lengths_meet(k: Any) -> Any:
    L, a, b = k.layers, k.Input((None, 3), name="a"), k.Input((None, 3), name="b")
    one, other = (L.Concatenate(axis=1, name=n)(ins) for n, ins in (("ab", [a, b]), ("ba", [b, a])))
    return k.Model([a, b], L.Subtract(name="minus")([one, other]))


@graph()
def ids_and_numbers(k: Any) -> Any:
    L, ids, x = k.layers, k.Input((None,), dtype="int32", name="ids"), k.Input((2,), name="x")
    y = L.LSTM(4, name="lstm")(L.Embedding(IDS, 3, name="embedding")(ids))
    return k.Model([ids, x], L.Dense(2, name="dense")(L.Concatenate(name="both")([y, x])))


@graph()
def formulas_that_depend_on_the_writer(k: Any) -> Any:
    # An architecture of Keras 3 names no version, and an Embedding has keys that Keras 1 had.
    L, ids = k.layers, k.Input((None,), dtype="int32", name="ids")
    y = L.Embedding(IDS, 3, name="embedding")(ids)
    y = L.LSTM(4, recurrent_activation="hard_sigmoid", return_sequences=True, name="lstm")(y)
    return k.Model(ids, L.GRU(3, recurrent_activation="hard_sigmoid", name="gru")(y))


@graph()
def branches_meet_again(k: Any) -> Any:
    L, a = k.layers, k.Input((6, 3), name="a")
    lstm = L.LSTM(4, return_sequences=True, name="lstm")(a)
    left = L.Flatten(name="flat")(L.Permute((2, 1), name="turned")(lstm))
    right = L.Reshape((24,), name="row")(lstm)
    middle = L.GRU(24, name="gru")(L.RepeatVector(3, name="thrice")(left))
    return k.Model(a, L.Average(name="mean")([left, right, middle]))


# Shared layers.


@graph(steps=((7, 4), (2, 5)))
def siamese(k: Any) -> Any:
    L, a, b = k.layers, k.Input((None, 3), name="a"), k.Input((None, 3), name="b")
    lstm = L.LSTM(5, name="lstm")
    difference = L.Subtract(name="difference")([lstm(a), lstm(b)])
    return k.Model([a, b], L.Dense(2, activation="sigmoid", name="dense")(difference))


@graph()
def calls_of_a_shared_layer_are_outputs(k: Any) -> Any:
    L, a, b = k.layers, k.Input((None, 3), name="a"), k.Input((None, 3), name="b")
    lstm = L.LSTM(5, name="lstm")
    y, z = lstm(a), lstm(b)
    return k.Model([a, b], [z, y])


@graph()
def a_layer_on_its_own_output(k: Any) -> Any:
    a = k.Input((None, 4), name="a")
    lstm = k.layers.LSTM(4, return_sequences=True, name="lstm")
    return k.Model(a, lstm(lstm(lstm(a))))


@graph()
def a_layer_called_a_dozen_times(k: Any) -> Any:
    L, a = k.layers, k.Input((4,), name="a")
    dense, outputs = L.Dense(4, activation="tanh", name="dense"), [a]
    for _ in range(12):
        outputs.append(dense(L.Subtract()([outputs[-1], a])))
    return k.Model(a, [outputs[n] for n in (12, 9, 2, 10, 11, 1)])


@graph()
def shared_dense_on_two_ranks(k: Any) -> Any:
    L, a, b = k.layers, k.Input((None, 3), name="a"), k.Input((3,), name="b")
    dense = L.Dense(4, activation="softsign", name="dense")
    return k.Model([a, b], [dense(a), dense(b)])


@graph(steps=((7, 4), (2, 5)))
def shared_embedding(k: Any) -> Any:
    L = k.layers
    a, b = (k.Input((None,), dtype="int32", name=name) for name in "ab")
    embedding = L.Embedding(IDS + 2, 3, name="embedding")
    rows = [L.LSTM(4, name="of_a")(embedding(a)), L.GRU(4, name="of_b")(embedding(b))]
    return k.Model([a, b], L.Concatenate(name="both")(rows))


@graph()
def shared_layers_without_weights(k: Any) -> Any:
    L, a, b = k.layers, k.Input((6, 4), name="a"), k.Input((6, 4), name="b")
    add, turn, flat_ = L.Add(name="add"), L.Permute((2, 1), name="turn"), L.Flatten(name="flat")
    softmax, drop = L.Softmax(name="softmax"), L.Dropout(0.5, name="drop")
    rows = [flat_(turn(drop(softmax(add([a, b]))))), flat_(turn(drop(softmax(add([b, b])))))]
    return k.Model([a, b], L.Subtract(name="minus")(rows))


@graph()
def shared_time_distributed_and_bidirectional(k: Any) -> Any:
    L, a, b = k.layers, k.Input((None, 3), name="a"), k.Input((None, 3), name="b")
    per_step = L.TimeDistributed(L.Dense(4, activation="tanh", name="inner"), name="per_step")
    both_ways = L.Bidirectional(L.LSTM(2, return_sequences=True, name="one_way"), name="both_ways")
    return k.Model([a, b], [both_ways(per_step(a)), both_ways(both_ways(per_step(b)))])


@graph()
def shared_layer_that_returns_its_state(k: Any) -> Any:
    L, a, b = k.layers, k.Input((None, 3), name="a"), k.Input((None, 3), name="b")
    lstm = L.LSTM(4, return_state=True, name="lstm")
    ya, ha, ca = lstm(a)
    yb, hb, cb = lstm(b)
    return k.Model([a, b], [cb, L.Add(name="sum")([ya, hb]), ha, ca, yb])


@graph()
def second_call_begins_where_the_first_ended(k: Any) -> Any:
    a, b = k.Input((None, 3), name="a"), k.Input((None, 3), name="b")
    lstm = k.layers.LSTM(4, return_sequences=True, return_state=True, name="lstm")
    ya, *state = lstm(a)
    return k.Model([a, b], [*lstm(b, initial_state=state), ya])


@graph()
def only_later_calls_belong_to_the_model(k: Any) -> Any:
    L, a = k.layers, k.Input((None, 3), name="a")
    lstm, dense = L.LSTM(3, return_sequences=True, name="lstm"), L.Dense(3, name="dense")
    dense(lstm(a))  # another model's
    y = dense(lstm(dense(a)))
    dense(y)
    return k.Model(a, [y, lstm(y)])


@graph()
def tensors_given_by_keyword(k: Any) -> Any:
    L, a, h = k.layers, k.Input((None, 3), name="a"), k.Input((4,), name="h")
    first = "sequences" if k is keras else "inputs"
    y = L.GRU(4, name="gru")(**{first: a}, initial_state=h, training=False)
    z = L.Dropout(0.5, name="drop")(inputs=L.Dense(4, name="dense")(inputs=h), training=False)
    return k.Model([a, h], L.Subtract(name="minus")(inputs=[y, z]))


# Nested models.


def make_encoder(k: Any, name: str = "encoder", features: int = 3) -> Any:
    L = k.layers
    layers = [L.LSTM(4, return_sequences=True, name="lstm"), L.LSTM(3, name="lstm_1"), L.Dense(2, name="dense")]  # fmt: skip
    return k.Sequential([k.Input((None, features)), *layers], name=name)


def make_two_by_two(k: Any, name: str = "inner") -> Any:
    """Two inputs and two outputs, both in another order than they are used."""
    L, p, q = k.layers, k.Input((None, 3), name=f"{name}_p"), k.Input((3,), name=f"{name}_q")
    lstm = L.LSTM(3, name="lstm")(p)
    product = L.Multiply(name="product")([L.Dense(3, name="dense")(q), lstm])
    return k.Model([q, p], [product, lstm], name=name)


@graph()
def sequential_in_functional(k: Any) -> Any:
    a = k.Input((None, 3), name="a")
    return k.Model(a, k.layers.Dense(4, name="dense")(make_encoder(k)(a)))


@graph()
def functional_in_sequential(k: Any) -> Any:
    L, a = k.layers, k.Input((None, 3), name="a")
    y = L.LSTM(4, name="lstm")(L.Dense(3, name="dense")(a))
    inner = k.Model(a, L.Concatenate(name="both")([y, L.Dense(2, name="dense_1")(y)]), name="inner")
    return k.Sequential([k.Input((None, 3)), inner, L.Dense(2, name="dense")])


@graph()
def a_model_is_the_first_layer(k: Any) -> Any:
    model = k.Sequential([make_encoder(k), k.layers.Dense(4, name="dense")])
    model.build((None, None, 3))
    return model


@graph()
def several_tensors_through_a_nested_model(k: Any) -> Any:
    L, a, b = k.layers, k.Input((None, 3), name="a"), k.Input((3,), name="b")
    product, lstm = make_two_by_two(k)([b, a])
    return k.Model([a, b], [L.Dense(2, name="dense")(lstm), product])


@graph()
def outputs_of_a_nested_model_are_outputs(k: Any) -> Any:
    a, b = k.Input((None, 3), name="a"), k.Input((3,), name="b")
    product, lstm = make_two_by_two(k)([b, a])
    return k.Model([a, b], [lstm, product])


@graph()
def one_output_of_a_nested_model_is_not_used(k: Any) -> Any:
    a, b = k.Input((None, 3), name="a"), k.Input((3,), name="b")
    return k.Model([a, b], make_two_by_two(k)([b, a])[1])


@graph()
def nested_twice_deep(k: Any) -> Any:
    L = k.layers
    x = k.Input((None, 3), name="x")
    core = k.Sequential([k.Input((None, 3)), L.LSTM(4, return_sequences=True, name="lstm")], name="core")  # fmt: skip
    inner = k.Model(x, L.Dense(3, name="dense")(core(L.Dense(3, name="dense_1")(x))), name="inner")
    z = k.Input((None, 3), name="z")
    middle = k.Model(z, L.GRU(3, return_sequences=True, name="gru")(inner(z)), name="middle")
    a = k.Input((None, 3), name="a")
    return k.Model(a, L.LSTM(4, name="lstm")(middle(a)))


@graph()
def sequential_in_sequential_in_sequential(k: Any) -> Any:
    L = k.layers
    inner = k.Sequential([k.Input((None, 3)), L.LSTM(4, return_sequences=True, name="lstm")], name="inner")  # fmt: skip
    middle = k.Sequential([k.Input((None, 3)), inner, L.Dense(3, name="dense")], name="middle")
    return k.Sequential([k.Input((None, 3)), middle, L.GRU(2, name="gru")])


@graph(steps=((7, 4), (2, 5)))
def a_nested_model_called_twice(k: Any) -> Any:
    L, a, b = k.layers, k.Input((None, 3), name="a"), k.Input((None, 3), name="b")
    encoder = make_encoder(k)
    return k.Model([a, b], L.Subtract(name="minus")([encoder(b), encoder(a)]))


@graph()
def a_nested_model_of_several_tensors_called_twice(k: Any) -> Any:
    a, b = k.Input((None, 3), name="a"), k.Input((3,), name="b")
    inner = make_two_by_two(k)
    product, lstm = inner([b, a])
    again, lstm_again = inner([product, a])
    return k.Model([a, b], [again, lstm, k.layers.Add(name="sum")([lstm_again, product])])


@graph()
def a_shared_layer_in_a_nested_model_called_twice(k: Any) -> Any:
    L, x = k.layers, k.Input((None, 4), name="x")
    lstm = L.LSTM(4, return_sequences=True, name="lstm")
    inner = k.Model(x, L.Add(name="sum")([lstm(lstm(x)), x]), name="inner")
    a = k.Input((None, 4), name="a")
    return k.Model(a, inner(inner(a)))


@graph()
def two_nested_models_with_layers_of_the_same_names(k: Any) -> Any:
    L, a = k.layers, k.Input((None, 3), name="a")
    left, right = make_encoder(k, "left"), make_encoder(k, "right")
    y = L.Concatenate(name="both")([right(a), left(a), L.LSTM(2, name="lstm")(a)])
    return k.Model(a, L.Dense(2, name="dense")(y))


@graph()
def nested_models_of_one_name_at_two_depths(k: Any) -> Any:
    L, x, a = k.layers, k.Input((None, 3), name="x"), k.Input((None, 3), name="a")
    outer = k.Model(x, L.Dense(3, name="dense")(make_encoder(k, "encoder")(x)), name="outer")
    y = [make_encoder(k, "encoder")(a), L.Dense(2, name="dense")(outer(a))]
    return k.Model(a, L.Subtract(name="minus")(y))


@graph()
def a_nested_model_hands_an_input_on(k: Any) -> Any:
    L, p, q = k.layers, k.Input((None, 3), name="p"), k.Input((3,), name="q")
    inner = k.Model([p, q], [q, L.LSTM(3, name="lstm")(p), q], name="inner")
    a, b = k.Input((None, 3), name="a"), k.Input((3,), name="b")
    x, y, z = inner([a, L.Dense(3, name="dense")(b)])
    return k.Model([a, b], [L.Subtract(name="minus")([x, y]), L.Multiply(name="times")([z, y])])


@graph()
def a_frozen_layer_in_a_nested_model(k: Any) -> Any:
    # Keras lists the weights that are trained before the others.
    a, encoder = k.Input((None, 3), name="a"), make_encoder(k)
    encoder.layers[0].trainable = False
    return k.Model(a, k.layers.Dense(2, name="dense")(encoder(a)))


@graph()
def frozen_layers_of_one_shape_in_a_nested_model(k: Any) -> Any:
    L, a = k.layers, k.Input((None, 4), name="a")
    lstms = [L.LSTM(4, return_sequences=True, name=f"lstm_{n}") for n in range(3)]
    lstms[1].trainable = False
    inner = k.Sequential([k.Input((None, 4)), *lstms], name="inner")
    return k.Model(a, inner(a))


@graph()
def a_frozen_nested_model(k: Any) -> Any:
    a, encoder = k.Input((None, 3), name="a"), make_encoder(k)
    encoder.trainable = False
    return k.Model(a, k.layers.Dense(2, name="dense")(encoder(a)))


@graph()
def a_layer_has_the_name_that_a_nested_one_gets(k: Any) -> Any:
    L, a = k.layers, k.Input((None, 3), name="a")
    y = [L.Dense(2, name="encoder.dense")(a), make_encoder(k)(a)]
    return k.Model(a, L.Add(name="sum")(y))


@graph()
def a_layer_has_the_name_that_a_second_call_gets(k: Any) -> Any:
    L, a = k.layers, k.Input((None, 3), name="a")
    dense, other = L.Dense(3, name="dense"), L.Dense(3, name="dense#2")
    return k.Model(a, [dense(other(dense(a))), other(a)])


@graph()
def encoder_and_decoder_as_nested_models(k: Any) -> Any:
    L, x = k.layers, k.Input((None, 3), name="x")
    encoder = k.Model(x, L.LSTM(5, return_state=True, name="lstm")(x)[1:], name="encoder")
    t, h, c = k.Input((None, 2), name="t"), k.Input((5,), name="h"), k.Input((5,), name="c")
    y, *state = L.LSTM(5, return_sequences=True, return_state=True, name="lstm")(t, initial_state=[h, c])  # fmt: skip
    decoder = k.Model([t, h, c], [L.Dense(2, name="dense")(y), *state], name="decoder")
    a, b = k.Input((None, 3), name="a"), k.Input((None, 2), name="b")
    y, h, c = decoder([b, *encoder(a)])
    return k.Model([a, b], [y, *decoder([y, h, c])])


@graph()
def ids_into_a_nested_model(k: Any) -> Any:
    L, words = k.layers, k.Input((None,), dtype="int32", name="words")
    lstm = L.LSTM(4, name="lstm")(L.Embedding(IDS, 3, name="embedding")(words))
    inner = k.Model(words, lstm, name="inner")
    a, b = (k.Input((None,), dtype="int32", name=name) for name in "ab")
    return k.Model([a, b], L.Subtract(name="minus")([inner(a), inner(b)]))


@graph()
def inputs_of_one_name_inside_and_outside(k: Any) -> Any:
    L, x, y = k.layers, k.Input((None, 3), name="a"), k.Input((3,), name="b")
    inner = k.Model([y, x], L.Add(name="sum")([L.LSTM(3, name="lstm")(x), y]), name="inner")
    a, b = k.Input((None, 3), name="a"), k.Input((3,), name="b")
    return k.Model([a, b], inner([L.Dense(3, name="dense")(b), a]))


@graph()
def a_nested_sequential_that_was_not_told_its_input(k: Any) -> Any:
    L, a = k.layers, k.Input((None, 3), name="a")
    inner = k.Sequential([L.GRU(4, name="gru"), L.Dense(2, name="dense")], name="inner")
    return k.Model(a, [inner(a), L.LSTM(2, name="lstm")(a)])


@graph()
def a_sequential_ends_with_one_state_of_a_nested_model(k: Any) -> Any:
    a = k.Input((None, 3), name="a")
    _, _, c = k.layers.LSTM(4, return_state=True, name="lstm")(a)
    return k.Sequential([k.Input((None, 3)), k.Model(a, c, name="inner")])


@graph()
def a_nested_sequential_returns_states(k: Any) -> Any:
    L, a = k.layers, k.Input((None, 3), name="a")
    inner = k.Sequential([k.Input((None, 3)), L.Dense(3, name="dense"), L.LSTM(4, return_state=True, name="lstm")], name="inner")  # fmt: skip
    y, h, c = inner(a)
    return k.Model(a, [c, L.Subtract(name="minus")([y, c]), h])


@graph()
def a_nested_model_of_two_outputs_ends_a_sequential(k: Any) -> Any:
    L, a = k.layers, k.Input((None, 3), name="a")
    lstm = L.LSTM(4, name="lstm")(a)
    inner = k.Model(a, [L.Dense(2, name="dense")(lstm), lstm], name="inner")
    return k.Sequential([k.Input((None, 3)), inner])


@graph()
def names_with_slashes(k: Any) -> Any:
    L, a = k.layers, k.Input((None, 3), name="a")
    y = L.LSTM(4, return_sequences=True, name="block/lstm")(a)
    return k.Model(a, L.Add(name="block/sum")([y, L.Dense(4, name="block_lstm")(a)]))


# Several tensors from a layer, states into layers.


@graph()
def state_from_inputs(k: Any) -> Any:
    a, h, c = k.Input((None, 3), name="a"), k.Input((4,), name="h"), k.Input((4,), name="c")
    return k.Model([a, h, c], k.layers.LSTM(4, name="lstm")(a, initial_state=[h, c]))


@graph()
def state_and_inputs_in_another_order(k: Any) -> Any:
    a, h, c = k.Input((None, 3), name="a"), k.Input((4,), name="h"), k.Input((4,), name="c")
    y, h_after, c_after = k.layers.LSTM(4, return_state=True, name="lstm")(a, initial_state=[h, c])
    return k.Model([c, a, h], [c_after, y, h_after])


@graph(steps=((7, 4), (2, 5)))
def state_from_another_lstm(k: Any) -> Any:
    L, a, b = k.layers, k.Input((None, 3), name="a"), k.Input((None, 2), name="b")
    _, h, c = L.LSTM(4, return_state=True, name="encoder")(a)
    y = L.LSTM(4, return_sequences=True, name="decoder")(b, initial_state=[h, c])
    return k.Model([a, b], L.Dense(2, name="dense")(y))


@graph()
def h_and_c_swapped(k: Any) -> Any:
    L, a, b = k.layers, k.Input((None, 3), name="a"), k.Input((None, 2), name="b")
    _, h, c = L.LSTM(4, return_state=True, name="encoder")(a)
    return k.Model([a, b], L.LSTM(4, name="decoder")(b, initial_state=[c, h]))


@graph()
def one_tensor_is_h_and_c(k: Any) -> Any:
    L, a, b = k.layers, k.Input((None, 3), name="a"), k.Input((2,), name="b")
    start = L.Dense(4, activation="tanh", name="start")(b)
    return k.Model([a, b], L.LSTM(4, name="lstm")(a, initial_state=[start, start]))


@graph()
def state_is_read_by_other_layers(k: Any) -> Any:
    L, a = k.layers, k.Input((None, 3), name="a")
    _, _, c = L.LSTM(4, return_sequences=True, return_state=True, name="lstm")(a)
    return k.Model(a, L.Dense(2, name="dense")(c))


@graph()
def state_through_three_layers(k: Any) -> Any:
    L, a = k.layers, k.Input((None, 3), name="a")
    y, *state = L.LSTM(4, return_sequences=True, return_state=True, name="first")(a)
    y, *state = L.LSTM(4, return_sequences=True, return_state=True, go_backwards=True, name="second")(y, initial_state=state)  # fmt: skip
    y, *state = L.LSTM(4, return_state=True, use_bias=False, name="third")(y, initial_state=state)
    return k.Model(a, [*state, y])


@graph()
def gru_states(k: Any) -> Any:
    L, a, h = k.layers, k.Input((None, 3), name="a"), k.Input((4,), name="h")
    y, state = L.GRU(4, return_sequences=True, return_state=True, name="first")(a, initial_state=[h])  # fmt: skip
    y, after = L.GRU(4, return_state=True, reset_after=False, name="second")(y, initial_state=state)
    return k.Model([a, h], [after, y, state])


@graph()
def simple_rnn_states(k: Any) -> Any:
    L, a, h = k.layers, k.Input((None, 3), name="a"), k.Input((4,), name="h")
    y, state = L.SimpleRNN(4, return_sequences=True, return_state=True, name="first")(a, initial_state=h)  # fmt: skip
    y, after = L.SimpleRNN(4, return_state=True, activation="relu", name="second")(y, initial_state=[state])  # fmt: skip
    return k.Model([a, h], [after, y, state])


@graph()
def lstm_begins_with_the_states_of_others(k: Any) -> Any:
    L, a = k.layers, k.Input((None, 3), name="a")
    _, h = L.GRU(4, return_state=True, name="gru")(a)
    _, c = L.SimpleRNN(4, return_state=True, name="rnn")(a)
    return k.Model(a, L.LSTM(4, name="lstm")(a, initial_state=[h, c]))


@graph()
def gru_variants(k: Any) -> Any:
    L, a = k.layers, k.Input((None, 3), name="a")
    y = L.GRU(5, return_sequences=True, reset_after=False, go_backwards=True, name="first")(a)
    y = L.GRU(4, return_sequences=True, use_bias=False, name="second")(y)
    y = L.GRU(3, return_sequences=True, reset_after=False, use_bias=False, activation="softsign", name="third")(y)  # fmt: skip
    return k.Model(a, L.GRU(2, recurrent_activation="hard_sigmoid", activation="relu", name="last")(y))  # fmt: skip


@graph()
def simple_rnn_variants(k: Any) -> Any:
    L, a = k.layers, k.Input((None, 3), name="a")
    y = L.SimpleRNN(5, return_sequences=True, go_backwards=True, name="first")(a)
    y = L.SimpleRNN(4, return_sequences=True, use_bias=False, activation="softsign", name="second")(y)  # fmt: skip
    return k.Model(a, L.SimpleRNN(3, activation="linear", name="last")(y))


@graph()
def bidirectional_variants(k: Any) -> Any:
    L, a = k.layers, k.Input((None, 3), name="a")
    y = L.Bidirectional(L.LSTM(3, return_sequences=True), name="first")(a)
    y = L.Bidirectional(L.GRU(2, return_sequences=True, reset_after=False), name="second")(y)
    ends = [L.Bidirectional(L.SimpleRNN(2), name="third")(y), L.Bidirectional(L.LSTM(2), name="last")(y)]  # fmt: skip
    return k.Model(a, ends)


# Merges.

ELEMENTWISE = ["Add", "Multiply", "Average", "Maximum", "Minimum"]


def register_merges() -> None:
    def elementwise(name: str, k: Any) -> Any:
        L = k.layers
        inputs = [k.Input((None, 3), name=n) for n in "abc"]
        three = getattr(L, name)(name="three")([inputs[1], inputs[2], inputs[0]])
        two = getattr(L, name)(name="two")(inputs[:2])
        same = getattr(L, name)(name="same")([inputs[0], inputs[0]])
        return k.Model(inputs, [three, two, same])

    def fewer_axes(name: str, k: Any) -> Any:
        """Inputs with fewer axes get new ones after the batch, unlike in NumPy."""
        merge = functools.partial(getattr(k.layers, name))
        row, steps = k.Input((3,), name="row"), k.Input((5, 3), name="steps")
        one, grid = k.Input((1, 3), name="one"), k.Input((2, 5, 3), name="grid")
        outputs = [
            merge(name="before")([row, steps]),
            merge(name="after")([steps, row]),
            merge(name="grid_row")([grid, row]),
            merge(name="grid_steps")([steps, grid]),
            merge(name="one_steps")([one, steps]),
        ]
        if name != "Subtract":
            outputs.append(merge(name="many")([row, steps, grid, one]))
        return k.Model([row, steps, one, grid], outputs)

    def concatenate(axis: int, ndim: int, k: Any) -> Any:
        shapes = {2: [(3,), (2,), (4,)], 3: [(5, 3)] * 3, 4: [(2, 5, 3)] * 3}[ndim]
        if ndim == 3 and axis in (-1, 2):
            shapes = [(None, 3), (None, 1), (None, 2)]
        elif ndim == 3:
            shapes = [(5, 3), (2, 3), (None, 3)]
        inputs = [k.Input(shape, name=n) for n, shape in zip("abc", shapes, strict=True)]
        y = k.layers.Concatenate(axis=axis, name="both")([inputs[2], inputs[0], inputs[1]])
        return k.Model(inputs, y)

    def dot(axes: Any, shapes: tuple[Any, Any], normalize: bool, k: Any) -> Any:
        a, b = (k.Input(shape, name=n) for n, shape in zip("ab", shapes, strict=True))
        return k.Model([a, b], k.layers.Dot(axes=axes, normalize=normalize, name="dot")([a, b]))

    for name in ELEMENTWISE:
        GRAPHS[f"{name}_of_two_and_three"] = functools.partial(elementwise, name)
    for name in [*ELEMENTWISE, "Subtract"]:
        GRAPHS[f"{name}_with_fewer_axes"] = functools.partial(fewer_axes, name)
    for axis, ndim in [(-1, 2), (1, 2), (-1, 3), (2, 3), (1, 3), (-2, 3), (1, 4), (-3, 4), (2, 4)]:
        GRAPHS[f"Concatenate_axis_{axis}_of_{ndim}"] = functools.partial(concatenate, axis, ndim)
    dots = [
        (1, ((4,), (4,))), (-1, ((4,), (4,))), ((1, -1), ((4,), (4,))),
        (1, ((5, 3), (5, 2))), (2, ((5, 3), (4, 3))), (-1, ((5, 3), (4, 3))), (-2, ((5, 3), (5, 2))),
        ((1, 2), ((3, 5), (2, 3))), ((2, 1), ((5, 3), (3, 2))), ((-1, -2), ((5, 3), (3, 2))),
        ((1, 2), ((3,), (5, 3))), ((1, 1), ((5,), (5, 3))), ((2, 1), ((5, 3), (3,))), ((-1, -1), ((5, 3), (3,))), (-1, ((3,), (5, 3))),
        ((2, 2), ((None, 3), (None, 3))), ((1, 1), ((None, 3), (None, 2))), (2, ((3, 3), (3, 3))), (1, ((3, 3), (3, 3))),
    ]  # fmt: skip
    for axes, shapes in dots:
        for normalize in (False, True):
            name = f"Dot{'_normalised' if normalize else ''}_{axes}_{shapes}".replace(" ", "")
            GRAPHS[name] = functools.partial(dot, axes, shapes, normalize)


register_merges()


@graph()
def merges_of_one_tensor(k: Any) -> Any:
    L, a = k.layers, k.Input((None, 4), name="a")
    names = ["Add", "Multiply", "Average", "Maximum", "Minimum", "Concatenate"]
    rows = [getattr(L, name)(name=name)([L.LSTM(3)(a)]) for name in names]
    return k.Model(a, rows)


@graph()
def merges_of_recurrent_branches(k: Any) -> Any:
    L, a = k.layers, k.Input((None, 4), name="a")
    lstm, gru = L.LSTM(4, return_sequences=True, name="lstm")(a), L.GRU(4, name="gru")(a)
    y = L.Add(name="plus")([lstm, gru])  # of all steps and of the last
    y = L.Multiply(name="times")([gru, y, a])
    y = L.Maximum(name="largest")([y, L.Dense(1, name="one")(a)])
    y = L.Minimum(name="smallest")([y, L.Average(name="mean")([lstm, a])])
    return k.Model(a, L.Subtract(name="minus")([y, gru]))


@graph(steps=((7, 4), (2, 5)))
def attention(k: Any) -> Any:
    L, a, b = k.layers, k.Input((None, 3), name="a"), k.Input((None, 2), name="b")
    seen, *state = L.LSTM(4, return_sequences=True, return_state=True, name="encoder")(a)
    told = L.LSTM(4, return_sequences=True, name="decoder")(b, initial_state=state)
    scores = L.Activation("softmax", name="weights")(L.Dot(axes=[2, 2], name="scores")([told, seen]))  # fmt: skip
    context = L.Dot(axes=[2, 1], name="context")([scores, seen])
    both = L.Concatenate(name="both")([context, told])
    return k.Model([a, b], [L.TimeDistributed(L.Dense(2, name="d"), name="out")(both), scores])


# The whole crowd, against the framework.


@functools.cache
def built(framework: str, name: str) -> tuple[Any, list[Any]]:
    """A model with random weights and two recorded runs."""
    model = GRAPHS[name](FRAMEWORKS[framework])
    seed = sum(map(ord, name))
    randomise(model, seed)
    runs = []
    for number, steps in enumerate(STEPS.get(name, (7, 4))):
        xs = make_inputs(model, (3, 1)[number], steps, seed + number)
        runs.append((xs, run(model, xs)))
    return model, runs


def every_way() -> list[tuple[str, str, str]]:
    """Models in models and shared layers in all ways, the others in some: they lie alike in files."""
    # Names that one framework refuses, weights of one name that it cannot write.
    impossible = {
        *(("a_layer_has_the_name_that_a_second_call_gets", "tf_keras", way) for way in WAYS),
        ("nested_models_of_one_name_at_two_depths", "tf_keras", "h5"),
        ("nested_models_of_one_name_at_two_depths", "tf_keras", "json"),
    }
    own = {  # what one framework alone can build
        "keras3": ["a_nested_sequential_returns_states", "a_nested_model_of_two_outputs_ends_a_sequential", "merges_of_one_tensor"],
        "tf_keras": ["names_with_slashes"],
    }  # fmt: skip
    for framework, names in own.items():
        others = FRAMEWORKS.keys() - {framework}
        impossible |= {(name, f, way) for name in names for f in others for way in WAYS}
    both = [(framework, way) for framework in FRAMEWORKS for way in WAYS]
    some = [("keras3", "keras"), ("keras3", "json"), ("tf_keras", "h5"), ("tf_keras", "live")]
    few = [("keras3", "keras"), ("tf_keras", "h5")]  # merges, which hold no weights

    def ways(name: str) -> list[tuple[str, str]]:
        words = {"shared", "nested", "model", "models", "layer", "call", "siamese", "deep"}
        return few if name[0].isupper() else both if words & {*name.split("_")} else some

    todo = [(name, *way) for name in GRAPHS for way in ways(name)]
    return [entry for entry in todo if entry not in impossible]


@pytest.mark.parametrize(("name", "framework", "way"), every_way())
@pytest.mark.one_in(3)
def test_graph(name: str, framework: str, way: str, tmp_path: Path) -> None:
    model, runs = built(framework, name)
    spec = convert(model, way, tmp_path)
    assert_parity(spec, runs)
    npylstm.save(spec, tmp_path / "model.npz")
    again, before = npylstm.load(tmp_path / "model.npz", "numpy"), Model(spec, "numpy")
    xs = {t.name: x for t, x in zip(spec.inputs, runs[0][0], strict=True)}
    for one, other in zip(flat(again.predict(xs)), flat(before.predict(xs)), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_ids_that_are_floats(framework: str, tmp_path: Path) -> None:
    """An Input is one of floats unless told otherwise, also before an Embedding."""
    k = FRAMEWORKS[framework]
    L, a, b = k.layers, k.Input((None,), name="a"), k.Input((None,), name="b")
    embedding = L.Embedding(IDS, 3, name="embedding")
    model = k.Model([a, b], L.LSTM(4, name="lstm")(L.Add(name="sum")([embedding(a), embedding(b)])))
    randomise(model, 9)
    xs = [np.random.default_rng(n).integers(0, IDS, (3, 6)).astype("float32") for n in range(2)]
    spec = convert(model, "keras", tmp_path)
    y = run(model, xs)
    for backend in BACKENDS:
        for kind in ("float32", "int64"):
            ours = Model(spec, backend).predict([x.astype(kind) for x in xs])
            np.testing.assert_allclose(ours, y[0], atol=1e-6, rtol=0)
    assert_parity(spec, [(xs, y)])


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("siamese", "difference"),
        ("state_from_another_lstm", "decoder"),
        ("Concatenate_axis_1_of_4", "both"),
        ("a_nested_model_called_twice", "minus"),
    ],
)
def test_crossed_wires_would_be_noticed(name: str, layer: str) -> None:
    model, runs = built("keras3", name)
    spec = nc.from_keras(model)
    edges = tuple(
        dataclasses.replace(e, inputs=(*e.inputs[:-2], e.inputs[-1], e.inputs[-2])) if e.layer == layer else e
        for e in spec.edges
    )  # fmt: skip
    assert edges != spec.edges
    with pytest.raises(npylstm.ParityError, match="parity FAILED"):
        assert_parity(dataclasses.replace(spec, edges=edges), runs)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_double_precision(framework: str, tmp_path: Path) -> None:
    k = FRAMEWORKS[framework]
    k.backend.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        model = GRAPHS["attention"](k)
        randomise(model, 8)
        xs = [x.astype("float64") for x in make_inputs(model, 3, 6, 8)]
        runs = [(xs, run(model, xs))]
    finally:
        k.backend.set_floatx("float32")
        keras.config.set_dtype_policy("float32")
    spec = convert(model, "h5", tmp_path)
    assert spec.dtype == "float64"
    assert runs[0][1][0].dtype == np.float64
    assert_parity(spec, runs)


# Names and order.


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(
    ("name", "inputs", "outputs"),
    [
        ("two_inputs_two_outputs", ("a", "b"), ("head_1", "head_3")),
        ("outputs_in_another_order", ("a",), ("third", "first", "second")),
        ("inputs_in_another_order", ("c", "a", "b"), ("minus",)),
        ("an_input_is_an_output", ("a", "b"), ("b", "both", "a")),
        ("calls_of_a_shared_layer_are_outputs", ("a", "b"), ("lstm#2", "lstm")),
        ("a_layer_on_its_own_output", ("a",), ("lstm#3",)),
        ("shared_layer_that_returns_its_state", ("a", "b"), ("lstm#2/c", "sum", "lstm/h", "lstm/c", "lstm#2")),
        ("second_call_begins_where_the_first_ended", ("a", "b"), ("lstm#2", "lstm#2/h", "lstm#2/c", "lstm")),
        ("outputs_of_a_nested_model_are_outputs", ("a", "b"), ("inner.lstm", "inner.product")),
        ("encoder_and_decoder_as_nested_models", ("a", "b"), ("decoder.dense", "decoder.dense#2", "decoder.lstm#2/h", "decoder.lstm#2/c")),
        ("a_shared_layer_in_a_nested_model_called_twice", ("a",), ("inner.sum#2",)),
        ("state_and_inputs_in_another_order", ("c", "a", "h"), ("lstm/c", "lstm", "lstm/h")),
    ],
)  # fmt: skip
def test_names(name: str, framework: str, inputs: Any, outputs: Any, tmp_path: Path) -> None:
    model, _ = built(framework, name)
    for way in ("keras", "h5"):
        spec = convert(model, way, tmp_path)
        assert tuple(t.name for t in spec.inputs) == inputs
        assert spec.outputs == outputs


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_shared_layer_is_stored_once(framework: str, tmp_path: Path) -> None:
    model, _ = built(framework, "a_nested_model_called_twice")
    spec = convert(model, "keras", tmp_path)
    names = [layer.name for layer in spec.layers]
    assert sorted(names) == ["encoder.dense", "encoder.lstm", "encoder.lstm_1", "minus"]
    assert spec.parameters == model.count_params()
    kernel = model.get_layer("encoder").get_layer("lstm_1").get_weights()[0]
    np.testing.assert_array_equal(spec["encoder.lstm_1"].weights["W_f"], kernel[:, 3:6])
    calls = {t for edge in spec.edges for t in edge.outputs}
    assert {"encoder.lstm", "encoder.lstm#2", "encoder.dense", "encoder.dense#2"} <= calls


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_layers_of_models_in_models_are_named_by_their_path(framework: str, tmp_path: Path) -> None:
    model, _ = built(framework, "nested_twice_deep")
    names = {layer.name for layer in convert(model, "keras", tmp_path).layers}
    assert names == {"middle.inner.dense_1", "middle.inner.core.lstm", "middle.inner.dense", "middle.gru", "lstm"}  # fmt: skip


def test_every_call_carries_its_own_state(backend: str) -> None:
    keras_model, (run_, _) = built("keras3", "calls_of_a_shared_layer_are_outputs")
    model = Model(nc.from_keras(keras_model), backend)
    assert set(model.spec.state_shapes()) == {"lstm", "lstm#2"}
    (a, b), (z, y) = run_
    _, state = model.predict([a[:, :3], b[:, :3]], return_state=True)
    after = model.predict({"b": b[:, 3:], "a": a[:, 3:]}, state=state)
    np.testing.assert_allclose(after["lstm#2"], z, atol=1e-6, rtol=0)
    np.testing.assert_allclose(after["lstm"], y, atol=1e-6, rtol=0)
    with pytest.raises(npylstm.StateError, match="lstm#2"):
        model.predict([a, b], state={"lstm": state["lstm"]})


def test_a_state_that_the_graph_gives_is_not_carried() -> None:
    for name, calls in [
        ("second_call_begins_where_the_first_ended", {"lstm"}),
        ("state_from_another_lstm", {"encoder"}),
        ("state_from_inputs", set()),
        ("encoder_and_decoder_as_nested_models", {"encoder.lstm"}),
    ]:
        assert set(nc.from_keras(built("keras3", name)[0]).state_shapes()) == calls


def test_inputs_are_checked_by_number_and_name(backend: str) -> None:
    keras_model, (run_, _) = built("tf_keras", "inputs_in_another_order")
    model = Model(nc.from_keras(keras_model), backend)
    c, a, b = run_[0]
    np.testing.assert_array_equal(model.predict({"a": a, "b": b, "c": c}), model.predict([c, a, b]))
    with pytest.raises(npylstm.ShapeError, match=r"expected 3 arrays for \['c', 'a', 'b'\]"):
        model.predict([c, a])
    with pytest.raises(npylstm.ShapeError, match=r"\['c', 'a', 'b'\]"):
        model.predict({"a": a, "b": b, "x": c})


def test_lengths_that_do_not_meet(backend: str) -> None:
    """Free in the config, equal for this model: said by name, not broadcast or crashed."""
    keras_model, _ = built("keras3", "inputs_of_equal_free_lengths_meet")
    model = Model(nc.from_keras(keras_model), backend)
    with pytest.raises(npylstm.ShapeError, match=r"b: expected .*\(steps is 7 in a\)"):
        model.predict([np.zeros((2, 7, 3)), np.zeros((2, 4, 3))])
    keras_model, _ = built("keras3", "inputs_of_different_lengths")
    y = Model(nc.from_keras(keras_model), backend).predict([np.zeros((2, 7, 3)), np.zeros((2, 4, 3))])  # fmt: skip
    assert {v.shape for v in y.values()} == {(2, 2), (2, 4, 3)}


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("size", [1e-8, 0.0])
def test_normalising_what_has_no_length(framework: str, size: float, backend: str) -> None:
    """Below some length the frameworks no longer divide by it: 1e-7 in Keras 3, 1e-6 in Keras 2."""
    name = "Dot_normalised_(2,1)_((5,3),(3,2))"
    keras_model, (run_, _) = built(framework, name)
    a, b = (x.copy() for x in run_[0])
    a[0] *= size
    b[:2] *= size
    expected = run(keras_model, [a, b])[0]
    y = Model(nc.from_keras(keras_model), backend).predict([a, b])
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-9)


# Weights that lie in two places.


def make_layer_inside_and_outside(k: Any) -> Any:
    L, x, a = k.layers, k.Input((None, 3), name="x"), k.Input((None, 3), name="a")
    lstm = L.LSTM(3, return_sequences=True, name="lstm")
    inner = k.Model(x, L.Dense(3, name="dense")(lstm(x)), name="inner")
    return k.Model(a, lstm(inner(a)))


def make_model_at_two_depths(k: Any) -> Any:
    L, x, a = k.layers, k.Input((None, 3), name="x"), k.Input((None, 3), name="a")
    inner = k.Sequential([k.Input((None, 3)), L.LSTM(3, return_sequences=True, name="lstm")], name="inner")  # fmt: skip
    middle = k.Model(x, L.Dense(3, name="dense")(inner(x)), name="middle")
    return k.Model(a, L.Add(name="sum")([inner(a), middle(a)]))


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("build", [make_layer_inside_and_outside, make_model_at_two_depths])
def test_a_layer_in_two_models_at_once(build: Builder, framework: str, tmp_path: Path) -> None:
    """In memory it is one layer; files of it may lack the weights in one place (Keras' own loss)."""
    model = build(FRAMEWORKS[framework])
    randomise(model, 1)
    xs = make_inputs(model, 3, 5, 1)
    runs = [(xs, run(model, xs))]
    assert_parity(nc.from_keras(model), runs)
    for form in ("keras", "h5"):
        try:
            model.save(tmp_path / f"model.{form}")
        except ValueError:  # Keras cannot write it, either
            continue
        try:
            spec = nc.convert(tmp_path / f"model.{form}")
        except npylstm.NpylstmError as error:
            text = str(error)
        else:
            assert_parity(spec, runs)
            continue
        assert any(name in text for name in ("lstm", "inner", "dense")), text


# Sequence to sequence, as in the article.

SEQ2SEQ = {"steps": 24, "units": 75}


@functools.cache
def make_seq2seq(framework: str) -> tuple[Any, Any, Any]:
    """The trained model, and the encoder and one-step decoder that the article cuts by hand."""
    k = FRAMEWORKS[framework]
    L, (steps, units) = k.layers, SEQ2SEQ.values()
    e_input = k.Input((steps, 1), name="input_1")
    _, *e_state = L.LSTM(units, return_state=True, name="lstm")(e_input)
    d_input = k.Input((steps, 1), name="input_2")
    d_lstm = L.LSTM(units, return_sequences=True, return_state=True, name="lstm_1")
    d_output, _, _ = d_lstm(d_input, initial_state=e_state)
    d_dense = L.Dense(1, activation="linear", name="dense")
    model = k.Model([e_input, d_input], d_dense(d_output))
    randomise(model, 24)
    step, h, c = k.Input((1, 1), name="step"), k.Input((units,), name="h"), k.Input((units,), name="c")  # fmt: skip
    y, *state = d_lstm(step, initial_state=[h, c])
    return model, k.Model(e_input, e_state), k.Model([step, h, c], [d_dense(y), *state])


def cut(spec: Any) -> tuple[Any, Any]:
    encoder = spec.subgraph(inputs=["input_1"], outputs=["lstm/h", "lstm/c"])
    decoder = spec.subgraph(inputs=["input_2", "lstm/h", "lstm/c"], outputs=["dense", "lstm_1/h", "lstm_1/c"])  # fmt: skip
    return encoder, decoder


def keras_loop(encoder: Any, decoder: Any, x: np.ndarray, steps: int) -> np.ndarray:
    token, states, ys = np.zeros((len(x), 1, 1), "float32"), run(encoder, [x]), []
    for _ in range(steps):
        token, *states = run(decoder, [token, *states])
        ys.append(token)
    return np.concatenate(ys, axis=1)


def assert_rounding(ours: np.ndarray, theirs: np.ndarray, exact: np.ndarray) -> None:
    """The rule of ``npylstm/parity.py``: a difference of the size of the rounding errors."""
    assert ours.shape == theirs.shape == exact.shape
    noise = np.sqrt(np.mean((ours - exact) ** 2))
    limit = 64 * max(noise, np.finfo(ours.dtype).eps * np.abs(exact).max())
    assert limit < 1e-3
    assert np.abs(ours - theirs).max() <= limit


def sines(count: int) -> np.ndarray:
    phases = np.linspace(-6, 6, count)[:, None] + 0.127 * np.arange(SEQ2SEQ["steps"])
    return np.sin(phases)[..., None].astype("float32")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_articles_seq2seq(framework: str, way: str, tmp_path: Path) -> None:
    model, keras_encoder, keras_decoder = make_seq2seq(framework)
    x = sines(4)
    teacher = np.cos(x)
    spec = convert(model, way, tmp_path)
    assert_parity(spec, [([x, teacher], run(model, [x, teacher]))])
    encoder, decoder = cut(spec)
    states = run(keras_encoder, [x])
    assert_parity(encoder, [([x], states)])
    step = [teacher[:, :1], *states]
    assert_parity(decoder, [(step, run(keras_decoder, step))])
    theirs = keras_loop(keras_encoder, keras_decoder, x, 24)
    assert np.ptp(theirs, axis=1).min() > 0.005  # not a fixed point
    parts = [Model(part.astype("float64"), "numpy") for part in (encoder, decoder)]
    exact = npylstm.decode(*parts, x, start=0.0, steps=24)
    for backend in BACKENDS:
        ours = npylstm.decode(
            Model(encoder, backend), Model(decoder, backend), x, start=[0.0], steps=24
        )
        assert ours.dtype == np.float32
        assert_rounding(ours, theirs, exact)


def test_what_is_cut_out() -> None:
    spec = nc.from_keras(make_seq2seq("keras3")[0])
    encoder, decoder = cut(spec)
    assert [t.name for t in encoder.inputs] == ["input_1"]
    assert encoder.inputs[0].shape == ("batch", "steps", 1)  # pinned to 24 where it was trained
    assert encoder.outputs == ("lstm/h", "lstm/c")
    assert [layer.name for layer in encoder.layers] == ["lstm"]
    assert [t.name for t in decoder.inputs] == ["input_2", "lstm/h", "lstm/c"]
    assert [t.shape for t in decoder.inputs] == [
        ("batch", "steps", 1),
        ("batch", 75),
        ("batch", 75),
    ]
    assert decoder.outputs == ("dense", "lstm_1/h", "lstm_1/c")
    assert {layer.name for layer in decoder.layers} == {"lstm_1", "dense"}
    assert decoder.cases == ()
    np.testing.assert_array_equal(decoder["dense"].weights["kernel"], spec["dense"].weights["kernel"])  # fmt: skip
    with pytest.raises(FormatError, match=r"lstm/h|lstm|input_1"):
        spec.subgraph(inputs=["input_2"], outputs=["dense"])
    with pytest.raises(npylstm.NpylstmError, match="lstm_7"):
        spec.subgraph(inputs=["input_1"], outputs=["lstm_7/h"])
    with pytest.raises(npylstm.NpylstmError, match="input_7"):
        spec.subgraph(inputs=["input_7"], outputs=["lstm/h"])


def test_what_is_cut_out_is_a_file_of_its_own(tmp_path: Path, backend: str) -> None:
    model, keras_encoder, keras_decoder = make_seq2seq("tf_keras")
    x, parts = sines(3), []
    for name, part in zip("ed", cut(nc.from_keras(model)), strict=True):
        npylstm.save(part, tmp_path / f"{name}.npz")
        parts.append(npylstm.load(tmp_path / f"{name}.npz", backend))
    ours = npylstm.decode(*parts, x, start=np.zeros((3, 1)), steps=24)
    theirs = keras_loop(keras_encoder, keras_decoder, x, 24)
    np.testing.assert_allclose(ours, theirs, atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "inputs", "outputs"),
    [
        ("siamese", ["a"], ["lstm"]),
        ("siamese", ["lstm", "lstm#2"], ["dense"]),
        ("siamese", ["lstm", "b"], ["difference", "lstm#2"]),
        ("attention", ["a", "b"], ["context"]),
        ("attention", ["encoder", "decoder"], ["out", "scores"]),
        ("a_nested_model_called_twice", ["encoder.lstm#2", "b"], ["minus"]),
    ],
)
def test_parts_of_other_graphs(
    name: str, inputs: list[str], outputs: list[str], backend: str
) -> None:
    """A part, fed with what the whole computes there, gives what the whole computes."""
    model, (run_, _) = built("keras3", name)
    spec = nc.from_keras(model)
    names = [t.name for t in spec.inputs]
    fed = dict(zip(names, run_[0], strict=True))
    inner = sorted({*inputs, *outputs, *spec.outputs} - set(names))
    whole = Model(spec.subgraph(inputs=names, outputs=inner), backend).predict(fed)
    known = {**fed, **(whole if isinstance(whole, dict) else {inner[0]: whole})}
    part = Model(spec.subgraph(inputs=inputs, outputs=outputs), backend)
    y = part.predict({n: known[n] for n in inputs} if len(inputs) > 1 else known[inputs[0]])
    for tensor in outputs:
        value = y[tensor] if isinstance(y, dict) else y
        np.testing.assert_allclose(value, known[tensor], atol=1e-6, rtol=0)
    assert {t.name for t in part.inputs} == set(inputs)


# An encoder and a decoder in files of their own, decoding characters.

VOCABULARY = 11


@functools.cache
def make_translator(framework: str, kind: str, ids: bool) -> tuple[Any, Any]:
    """Two models for the usual loop: states out of one, token and states into the other."""
    k = FRAMEWORKS[framework]
    L, units = k.layers, 16
    cell = functools.partial(getattr(L, kind), units, return_state=True)
    x = k.Input((None, VOCABULARY), name="characters")
    seen, *state = cell(name="encoder_cell")(x)
    encoder = k.Model(x, state if kind == "LSTM" else [seen, *state])
    t = k.Input((None,), dtype="int32", name="token") if ids else k.Input((None, VOCABULARY), name="token")  # fmt: skip
    token = L.Embedding(VOCABULARY, 6, name="embedding")(t) if ids else t
    given = [k.Input((units,), name=f"state_{n}") for n in range(len(state))]
    y, *after = cell(return_sequences=True, name="decoder_cell")(token, initial_state=given)
    y = L.Dense(VOCABULARY, activation="softmax", name="dense")(y)
    decoder = k.Model([t, *given], [y, *after])
    scale = {"LSTM": 4, "GRU": 8 if ids else 4, "SimpleRNN": 1.5}[kind]  # decided, never at rest
    for seed, model in enumerate((encoder, decoder)):
        randomise(model, seed)
        model.set_weights([scale * w if w.ndim == 2 else w / 2 for w in model.get_weights()])
    return encoder, decoder


def greedy(encoder: Any, decoder: Any, x: np.ndarray, steps: int, ids: bool) -> np.ndarray:
    states = run(encoder, [x])[-(len(decoder.inputs) - 1) :]
    one_hot, tokens = np.eye(VOCABULARY, dtype="float32"), np.zeros(len(x), int)
    given = []
    for _ in range(steps):
        token = tokens[:, None].astype("int32") if ids else one_hot[tokens][:, None]
        y, *states = run(decoder, [token, *states])
        tokens = y[:, -1].argmax(-1)
        given.append(y[:, -1])
    return np.stack(given, axis=1)


@pytest.mark.parametrize("form", ["h5", "keras"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "SimpleRNN"])
@pytest.mark.parametrize("ids", [False, True], ids=["one-hot", "ids"])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_encoder_and_decoder_in_two_files(
    framework: str, ids: bool, kind: str, form: str, tmp_path: Path, backend: str
) -> None:
    pair = make_translator(framework, kind, ids)
    x = np.eye(VOCABULARY, dtype="float32")[np.random.default_rng(5).integers(0, VOCABULARY, (4, 9))]  # fmt: skip
    theirs = greedy(*pair, x, 30, ids)
    tokens = theirs.argmax(-1)
    assert min(len(set(row)) for row in tokens) >= 2
    assert len({tuple(row) for row in tokens}) == 4
    models = []
    for name, model in zip(("encoder", "decoder"), pair, strict=True):
        model.save(tmp_path / f"{name}.{form}")
        models.append(Model(nc.convert(tmp_path / f"{name}.{form}"), backend))
    start = 0 if ids else np.eye(VOCABULARY)[0]
    ours = npylstm.decode(*models, x, start, 30, feed="argmax")
    np.testing.assert_array_equal(ours.argmax(-1), tokens)
    np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=0)


def test_decoding_by_a_function_and_with_a_stop(backend: str) -> None:
    encoder, decoder = (Model(nc.from_keras(m), backend) for m in make_translator("keras3", "LSTM", False))  # fmt: skip
    x = np.eye(VOCABULARY, dtype="float32")[np.random.default_rng(10).integers(0, VOCABULARY, (3, 9))]  # fmt: skip
    start, one_hot = np.eye(VOCABULARY)[0], np.eye(VOCABULARY, dtype="float32")
    by_word = npylstm.decode(encoder, decoder, x, start, 20, feed="argmax")
    by_hand = npylstm.decode(encoder, decoder, x, start, 20, feed=lambda y: one_hot[y.argmax(-1)])
    np.testing.assert_array_equal(by_hand, by_word)
    tokens = by_word.argmax(-1)
    ends = {t: [int(np.argmax(row == t)) for row in tokens if t in row] for t in range(VOCABULARY)}
    stop, needed = next((t, max(at) + 1) for t, at in ends.items() if len(at) == 3 and max(at) < 19)
    ended = npylstm.decode(encoder, decoder, x, start, 20, feed="argmax", stop=stop)
    assert ended.shape[1] == needed
    np.testing.assert_array_equal(ended, by_word[:, :needed])
    never = next(t for t, at in ends.items() if not at)
    whole = npylstm.decode(encoder, decoder, x, start, 20, feed="argmax", stop=never)
    np.testing.assert_array_equal(whole, by_word)


# Stateful models: many calls of the framework against one session.


def make_stateful(k: Any, name: str) -> Any:
    L = k.layers
    seq = {"stateful": True, "return_sequences": True}
    a = k.Input(batch_shape=(3, None, 2), name="a")
    b = k.Input(batch_shape=(3, None, 2), name="b")
    if name == "stack":
        return k.Sequential([a, L.LSTM(4, name="first", **seq), L.LSTM(3, stateful=True, name="last"), L.Dense(2)])  # fmt: skip
    if name == "pinned steps":
        pinned = k.Input(batch_shape=(3, 4, 2), name="a")
        return k.Sequential([pinned, L.LSTM(4, name="first", **seq), L.TimeDistributed(L.Dense(2))])
    if name == "other cells":
        y = L.SimpleRNN(4, name="rnn", **seq)(L.GRU(4, name="gru", **seq)(a))
        return k.Model(a, L.GRU(3, reset_after=False, stateful=True, name="old")(y))
    if name == "two branches":
        y = L.Concatenate(name="both")([L.LSTM(4, name="of_a", **seq)(a), L.GRU(3, name="of_b", **seq)(b)])  # fmt: skip
        return k.Model([a, b], [L.LSTM(2, stateful=True, name="last")(y), y])
    if name == "returned state":
        return k.Model(a, L.LSTM(4, return_state=True, name="lstm", **seq)(a))
    x = k.Input(batch_shape=(3, None, 2), name="x")
    inner = k.Sequential([x, L.LSTM(4, name="lstm", **seq), L.Dense(2, name="dense")], name="inner")
    return k.Model(a, L.LSTM(3, stateful=True, name="lstm")(inner(a)))


def forget(model: Any) -> None:
    """Reset the states of all layers of a framework's model."""
    for layer in model._flatten_layers(include_self=False):
        if getattr(layer, "stateful", False) and hasattr(layer, "cell"):
            (getattr(layer, "reset_state", None) or layer.reset_states)()


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(
    "name", ["stack", "pinned steps", "other cells", "two branches", "returned state", "nested"]
)
def test_stateful_models_over_many_calls(
    name: str, framework: str, tmp_path: Path, backend: str
) -> None:
    keras_model = make_stateful(FRAMEWORKS[framework], name)
    randomise(keras_model, 31)
    forget(keras_model)
    spec = convert(keras_model, "keras" if framework == "keras3" else "h5", tmp_path)
    assert {t.shape[0] for t in spec.inputs} == {"batch"}
    recurrent = [layer for layer in spec.layers if "stateful" in layer.config]
    assert recurrent
    assert all(layer.config["stateful"] is True for layer in recurrent)
    model = Model(spec, backend)
    session = model.session(batch_size=3)
    carried = False
    for number, steps in enumerate((4, 2, 7, None, 4, 1, None, 3)):
        if steps is None:
            session.reset()
            forget(keras_model)
            continue
        xs = make_inputs(keras_model, 3, steps, number)
        theirs = run(keras_model, xs)
        ours = flat(session.push(xs[0] if len(xs) == 1 else xs))
        fresh = flat(model.predict(xs[0] if len(xs) == 1 else xs))
        for y, z, w in zip(ours, theirs, fresh, strict=True):
            np.testing.assert_allclose(y, z, atol=2e-6, rtol=0)
            carried |= bool(np.abs(w - z).max() > 1e-3)  # the state matters; predict has none
    assert carried
    again = make_inputs(keras_model, 3, 4, 99)
    forget(keras_model)
    fresh = flat(model.predict(again[0] if len(again) == 1 else again))
    for y, z in zip(fresh, run(keras_model, again), strict=True):
        np.testing.assert_allclose(y, z, atol=2e-6, rtol=0)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_session_holds_what_the_framework_holds(framework: str, backend: str) -> None:
    keras_model = make_stateful(FRAMEWORKS[framework], "nested")
    randomise(keras_model, 32)
    forget(keras_model)
    session = Model(nc.from_keras(keras_model), backend).session(batch_size=3)
    for seed in range(2):
        (x,) = make_inputs(keras_model, 3, 5, seed)
        session.push(x)
        run(keras_model, [x])
    layers = {"lstm": keras_model.get_layer("lstm"), "inner.lstm": keras_model.get_layer("inner").get_layer("lstm")}  # fmt: skip
    assert set(session.state) == set(layers)
    for call, layer in layers.items():
        for entry, theirs in zip("hc", layer.states, strict=True):
            np.testing.assert_allclose(session.state[call][entry], theirs.numpy(), atol=2e-6)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_pinned_batch_is_free(framework: str, tmp_path: Path, backend: str) -> None:
    keras_model = make_stateful(FRAMEWORKS[framework], "two branches")
    randomise(keras_model, 33)
    model = Model(convert(keras_model, "h5", tmp_path), backend)
    rng = np.random.default_rng(0)
    xs = [rng.normal(size=(7, 5, 2)).astype("float32") for _ in range(2)]
    session = model.session(batch_size=7)
    session.push([x[:, :2] for x in xs])
    pushed = session.push([x[:, 2:] for x in xs])["last"]
    whole = model.predict(xs)["last"]
    np.testing.assert_allclose(pushed, whole, atol=2e-6, rtol=0)
    forget(keras_model)
    np.testing.assert_allclose(whole[4:], run(keras_model, [x[4:] for x in xs])[0], atol=2e-6)


def parity_or_refusal(model: Any, runs: list[Any], layer: str) -> None:
    """What is not refused by name must give the framework's numbers: nothing passes unseen."""
    try:
        spec = nc.from_keras(model)
    except UnsupportedError as error:
        reasons = error.reasons
    else:
        assert_parity(spec, runs)
        return
    assert any(layer in reason for reason in reasons), reasons


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_two_calls_of_a_stateful_layer_share_its_state(framework: str) -> None:
    """The framework's second call goes on where the first ended, in one and the same predict."""
    k = FRAMEWORKS[framework]
    a, b = k.Input(batch_shape=(3, 4, 2), name="a"), k.Input(batch_shape=(3, 4, 2), name="b")
    lstm = k.layers.LSTM(4, stateful=True, name="memory")
    model = k.Model([a, b], k.layers.Concatenate(name="both")([lstm(a), lstm(b)]))
    randomise(model, 34)
    forget(model)
    xs = make_inputs(model, 3, 4, 0)
    parity_or_refusal(model, [(xs, run(model, xs))], "memory")


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_stateful_layer_with_a_given_state(framework: str, backend: str) -> None:
    """Keras 3 takes the given state at every call, Keras 2 only while its own is all zeros."""
    k = FRAMEWORKS[framework]
    a = k.Input(batch_shape=(3, None, 2), name="a")
    h, c = k.Input(batch_shape=(3, 4), name="h"), k.Input(batch_shape=(3, 4), name="c")
    y = k.layers.LSTM(4, stateful=True, name="memory")(a, initial_state=[h, c])
    keras_model = k.Model([a, h, c], y)
    randomise(keras_model, 35)
    forget(keras_model)
    try:
        session = Model(nc.from_keras(keras_model), backend).session(batch_size=3)
    except UnsupportedError as error:
        reasons = error.reasons
    else:
        for seed in range(3):
            xs = make_inputs(keras_model, 3, 5, seed)
            theirs = run(keras_model, xs)[0]
            np.testing.assert_allclose(session.push(xs), theirs, atol=2e-6, rtol=0)
        return
    assert any("memory" in reason for reason in reasons), reasons


# Graphs as older Keras wrote them.

INITIALIZER = {"class_name": "VarianceScaling", "config": {"scale": 1.0, "mode": "fan_avg", "distribution": "uniform", "seed": None}}  # fmt: skip


def keras1_layer(class_name: str, name: str, nodes: list[Any], **config: Any) -> dict[str, Any]:
    common: dict[str, Any] = {"name": name, "trainable": True}
    common |= {
        "InputLayer": {"input_dtype": "float32", "sparse": False},
        "LSTM": {
            "inner_activation": "hard_sigmoid", "activation": "tanh", "go_backwards": False, "return_sequences": False,
            "unroll": False, "stateful": False, "consume_less": "gpu", "init": "glorot_uniform", "inner_init": "orthogonal",
            "forget_bias_init": "one", "input_length": None, "dropout_U": 0.0, "dropout_W": 0.0, "U_regularizer": None,
            "W_regularizer": None, "b_regularizer": None,
        },
        "Dense": {
            "init": "glorot_uniform", "activation": "linear", "W_regularizer": None, "b_regularizer": None,
            "activity_regularizer": None, "W_constraint": None, "b_constraint": None, "bias": True,
        },
        "Merge": {
            "mode_type": "raw", "concat_axis": -1, "dot_axes": -1, "output_shape": None, "output_shape_type": "raw",
            "output_mask": None, "output_mask_type": "raw", "arguments": {},
        },
    }[class_name]  # fmt: skip
    return {"class_name": class_name, "name": name, "inbound_nodes": nodes, "config": common | config}  # fmt: skip


def keras2_layer(class_name: str, name: str, nodes: list[Any], **config: Any) -> dict[str, Any]:
    common: dict[str, Any] = {"name": name, "trainable": True}
    weights = ("kernel", "bias")
    if class_name in ("LSTM", "GRU"):
        weights = ("kernel", "recurrent", "bias")
        common |= {
            "return_sequences": False, "return_state": False, "go_backwards": False, "stateful": False, "unroll": False,
            "activation": "tanh", "recurrent_activation": "hard_sigmoid", "use_bias": True, "dropout": 0.0,
            "recurrent_dropout": 0.0, "implementation": 1,
        }  # fmt: skip
    if class_name == "LSTM":
        common |= {"unit_forget_bias": True}
    if class_name == "GRU":
        common |= {"reset_after": False}
    if class_name == "Dense":
        common |= {"activation": "linear", "use_bias": True}
    if class_name in ("LSTM", "GRU", "Dense"):
        common |= {f"{w}_initializer": INITIALIZER for w in weights}
        common |= {f"{w}_{s}": None for w in weights for s in ("regularizer", "constraint")}
        common |= {"activity_regularizer": None}
    if class_name == "InputLayer":
        common = {"name": name, "dtype": "float32", "sparse": False}
    return {"class_name": class_name, "name": name, "inbound_nodes": nodes, "config": common | config}  # fmt: skip


def keras_model(
    version: str, layers: list[Any], inputs: list[str], outputs: list[Any], name: str = "model_1"
) -> dict[str, Any]:
    config = {"name": name, "layers": layers, "input_layers": [[n, 0, 0] for n in inputs], "output_layers": outputs}  # fmt: skip
    return {"class_name": "Model", "keras_version": version, "backend": "tensorflow", "config": config}  # fmt: skip


def read(twin: Any, document: dict[str, Any], folder: Path) -> Any:
    """Convert a config written by hand with the weights of a model of today."""
    twin.save_weights(folder / "twin_weights.h5")
    (folder / "model.json").write_text(json.dumps(document))
    return nc.from_keras(folder / "twin_weights.h5", architecture=folder / "model.json")


def twin_runs(twin: Any, seed: int) -> list[Any]:
    randomise(twin, seed)
    runs = []
    for batch, steps in ((3, 6), (1, 6)):
        xs = make_inputs(twin, batch, steps, seed + batch)
        runs.append((xs, run(twin, xs)))
    return runs


K1_MERGES: dict[str, tuple[dict[str, Any], bool, Callable[[Any], Any]]] = {
    "sum": ({}, False, lambda L: L.Add()),
    "mul": ({}, False, lambda L: L.Multiply()),
    "ave": ({}, False, lambda L: L.Average()),
    "max": ({}, False, lambda L: L.Maximum()),
    "concat": ({}, False, lambda L: L.Concatenate()),
    "concat, features": ({"concat_axis": 2}, True, lambda L: L.Concatenate(axis=2)),
    "concat, steps": ({"concat_axis": 1}, True, lambda L: L.Concatenate(axis=1)),
    "sum, steps": ({}, True, lambda L: L.Add()),
    "dot": ({"dot_axes": [1, 1]}, False, lambda L: L.Dot(axes=1)),
    "dot, one axis": ({"dot_axes": 1}, False, lambda L: L.Dot(axes=1)),
    "dot, steps": ({"dot_axes": [2, 2]}, True, lambda L: L.Dot(axes=2)),
}


@pytest.mark.parametrize("mode", K1_MERGES)
def test_keras_1_merge_of_a_shared_lstm(mode: str, tmp_path: Path) -> None:
    options, sequences, merge = K1_MERGES[mode]
    layers = [
        keras1_layer("InputLayer", "a", [], batch_input_shape=[None, 6, 3]),
        keras1_layer("InputLayer", "b", [], batch_input_shape=[None, 6, 3]),
        keras1_layer("LSTM", "lstm_1", [[["a", 0, 0]], [["b", 0, 0]]], output_dim=4, input_dim=3, return_sequences=sequences),
        keras1_layer("Merge", "merge_1", [[["lstm_1", 0, 0], ["lstm_1", 1, 0]]], mode=mode.split(",")[0], **options),
    ]  # fmt: skip
    document = keras_model("1.2.2", layers, ["b", "a"], [["merge_1", 0, 0], ["lstm_1", 1, 0]])
    k, L = tf_keras, tf_keras.layers
    a, b = k.Input((6, 3), name="a"), k.Input((6, 3), name="b")
    lstm = L.LSTM(4, recurrent_activation="hard_sigmoid", return_sequences=sequences, name="lstm_1")
    of_a, of_b = lstm(a), lstm(b)
    twin = k.Model([b, a], [merge(L)([of_a, of_b]), of_b])
    runs = twin_runs(twin, 41)
    spec = read(twin, document, tmp_path)
    assert spec.outputs == ("merge_1", "lstm_1#2")
    assert [t.name for t in spec.inputs] == ["b", "a"]
    assert_parity(spec, runs)


def test_keras_1_merge_by_the_cosine_or_by_code(tmp_path: Path) -> None:
    """Refused by name, or right: (batch, 1, 1) of the cosine between two rows."""

    def document(mode: str, mode_type: str) -> dict[str, Any]:
        layers = [
            keras1_layer("InputLayer", "a", [], batch_input_shape=[None, 3]),
            keras1_layer("Dense", "d", [[["a", 0, 0]]], output_dim=3, input_dim=3),
            keras1_layer("Merge", "m", [[["a", 0, 0], ["d", 0, 0]]], mode=mode, mode_type=mode_type, dot_axes=[1, 1]),
        ]  # fmt: skip
        return keras_model("1.2.2", layers, ["a"], [["m", 0, 0]])

    a = tf_keras.Input((3,), name="a")
    d = tf_keras.layers.Dense(3, name="d")(a)
    twin = tf_keras.Model(a, d)
    randomise(twin, 42)
    (x,) = make_inputs(twin, 4, 1, 0)
    z = run(twin, [x])[0]
    cosine = (x * z).sum(1) / np.sqrt((x * x).sum(1) * (z * z).sum(1))
    try:
        spec = read(twin, document("cos", "raw"), tmp_path)
    except UnsupportedError as error:
        assert "m: " in str(error)  # noqa: PT017
    else:
        assert_parity(spec, [([x], [cosine[:, None, None]])])
    with pytest.raises(UnsupportedError, match="m: "):
        read(twin, document("4wAAAAAA", "lambda"), tmp_path)
    for function in ("average_of_mine", "sum"):
        with pytest.raises(UnsupportedError, match="m: "):
            read(twin, document(function, "function"), tmp_path)


def test_keras_1_merge_as_the_first_layer_of_a_sequential(tmp_path: Path) -> None:
    """Two branches joined without the functional API: refused as such, or right."""

    def branch(name: str) -> dict[str, Any]:
        lstm = keras1_layer("LSTM", name, [], output_dim=4, input_dim=3, batch_input_shape=[None, 6, 3])  # fmt: skip
        return {"class_name": "Sequential", "config": [{k: lstm[k] for k in ("class_name", "config")}]}  # fmt: skip

    merge = keras1_layer("Merge", "merge_1", [], mode="concat", layers=[branch("l"), branch("r")])
    dense = keras1_layer("Dense", "dense_1", [], output_dim=2, input_dim=8)
    entries = [{k: e[k] for k in ("class_name", "config")} for e in (merge, dense)]
    document = {"class_name": "Sequential", "keras_version": "1.2.2", "config": entries}
    k, L = tf_keras, tf_keras.layers
    a, b = k.Input((6, 3)), k.Input((6, 3))
    lstms = [L.LSTM(4, recurrent_activation="hard_sigmoid", name=n)(x) for n, x in (("l", a), ("r", b))]  # fmt: skip
    twin = k.Model([a, b], L.Dense(2, name="dense_1")(L.Concatenate()(lstms)))
    runs = twin_runs(twin, 43)
    try:
        spec = read(twin, document, tmp_path)
    except UnsupportedError as error:
        assert "merge_1" in str(error)  # noqa: PT017
    else:
        assert_parity(spec, runs)


@pytest.mark.parametrize("packed", [False, True], ids=["nine arrays", "three arrays"])
def test_keras_1_gru_and_simple_rnn(packed: bool, tmp_path: Path) -> None:
    a = tf_keras.Input((6, 3), name="a")
    gru = tf_keras.layers.GRU(4, recurrent_activation="hard_sigmoid", reset_after=False, return_sequences=True)  # fmt: skip
    rnn = tf_keras.layers.SimpleRNN(2)
    twin = tf_keras.Model(a, rnn(gru(a)))
    runs = twin_runs(twin, 47)
    arrays = {"W": gru.get_weights()[0], "U": gru.get_weights()[1], "b": gru.get_weights()[2]}
    weights = {f"gru_1_{n}": w for n, w in arrays.items()}
    if not packed:
        weights = {f"gru_1_{n}_{g}": np.split(arrays[n], 3, -1)[j] for j, g in enumerate("zrh") for n in "WUb"}  # fmt: skip
    groups = {"gru_1": weights, "simplernn_1": dict(zip(("simplernn_1_W", "simplernn_1_U", "simplernn_1_b"), rnn.get_weights(), strict=True))}  # fmt: skip
    common: dict[str, Any] = {
        "activation": "tanh", "go_backwards": False, "unroll": False, "stateful": False, "input_length": None,
        "consume_less": "gpu" if packed else "cpu", "init": "glorot_uniform", "inner_init": "orthogonal",
        "dropout_U": 0.0, "dropout_W": 0.0, "U_regularizer": None, "W_regularizer": None, "b_regularizer": None,
        "trainable": True,
    }  # fmt: skip
    entries = [
        {"class_name": "GRU", "config": {**common, "name": "gru_1", "output_dim": 4, "input_dim": 3, "inner_activation": "hard_sigmoid", "return_sequences": True, "batch_input_shape": [None, 6, 3]}},
        {"class_name": "SimpleRNN", "config": {**common, "name": "simplernn_1", "output_dim": 2, "input_dim": 4, "return_sequences": False}},
    ]  # fmt: skip
    with h5py.File(tmp_path / "model.h5", "w") as file:
        file.attrs["keras_version"] = b"1.2.2"
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": entries}).encode()  # fmt: skip
        root = file.create_group("model_weights")
        root.attrs["layer_names"] = [name.encode() for name in groups]
        for name, group in groups.items():
            root.create_group(name).attrs["weight_names"] = [w.encode() for w in group]
            for key, value in group.items():
                root[name][key] = value
    assert_parity(nc.convert(tmp_path / "model.h5"), runs)


def test_a_gru_of_before_reset_after(tmp_path: Path) -> None:
    gru = keras2_layer("GRU", "gru", [[["a", 0, 0, {}]]], units=4)
    del gru["config"]["reset_after"]
    layers = [keras2_layer("InputLayer", "a", [], batch_input_shape=[None, 6, 3]), gru]
    a = tf_keras.Input((6, 3), name="a")
    options = {"recurrent_activation": "hard_sigmoid", "reset_after": False}
    twin = tf_keras.Model(a, tf_keras.layers.GRU(4, name="gru", **options)(a))
    runs = twin_runs(twin, 48)
    assert_parity(read(twin, keras_model("2.1.0", layers, ["a"], [["gru", 0, 0]]), tmp_path), runs)


STATE_FORMS: dict[str, Callable[[str, int], list[Any]]] = {
    "by node": lambda s, n: [[["b", 0, 0, {}], *([s, 0, 1 + j, {}] for j in range(n))]],
    "by node, three entries": lambda s, n: [[["b", 0, 0], *([s, 0, 1 + j] for j in range(n))]],
    "by keyword": lambda s, n: [
        [["b", 0, 0, {"initial_state": [[s, 0, 1 + j] for j in range(n)]}]]
    ],
    "by keyword, one tensor": lambda s, n: [["b", 0, 0, {"initial_state": [[s, 0, 1 + j] for j in range(n)]}]],
    "by keyword, not wrapped": lambda s, n: [[["b", 0, 0, {"initial_state": [s, 0, 1] if n == 1 else [[s, 0, 1], [s, 0, 2]], "training": None, "mask": None}]]],
}  # fmt: skip


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize("form", STATE_FORMS)
def test_keras_2_states(form: str, kind: str, tmp_path: Path) -> None:
    count = 2 if kind == "LSTM" else 1
    layers = [
        keras2_layer("InputLayer", "a", [], batch_input_shape=[None, None, 3]),
        keras2_layer(kind, "encoder", [[["a", 0, 0, {}]]], units=4, return_state=True),
        keras2_layer("InputLayer", "b", [], batch_input_shape=[None, None, 2]),
        keras2_layer(kind, "decoder", STATE_FORMS[form]("encoder", count), units=4, return_state=True, return_sequences=True),
        keras2_layer("Dense", "dense", [[["decoder", 0, 0, {}]]], units=2, activation="softmax"),
    ]  # fmt: skip
    outputs = [["dense", 0, 0], *(["decoder", 0, 1 + j] for j in range(count))]
    document = keras_model("2.2.4", layers, ["a", "b"], outputs)
    k, L = tf_keras, tf_keras.layers
    options = {"recurrent_activation": "hard_sigmoid", "return_state": True}
    if kind == "GRU":
        options["reset_after"] = False
    a, b = k.Input((None, 3), name="a"), k.Input((None, 2), name="b")
    _, *state = getattr(L, kind)(4, name="encoder", **options)(a)
    y, *after = getattr(L, kind)(4, name="decoder", return_sequences=True, **options)(b, initial_state=state)  # fmt: skip
    twin = k.Model([a, b], [L.Dense(2, activation="softmax", name="dense")(y), *after])
    runs = twin_runs(twin, 44)
    spec = read(twin, document, tmp_path)
    assert spec.outputs == ("dense", *(f"decoder/{n}" for n in "hc"[:count]))
    assert_parity(spec, runs)


def nested_entry(sequential: str, nodes: list[Any]) -> dict[str, Any]:
    dense = keras2_layer("Dense", "dense", [[["lstm", 0, 0, {}]]], units=2)
    lstm = keras2_layer("LSTM", "lstm", [[["x", 0, 0, {}]]], units=4)
    if sequential == "functional":
        x = keras2_layer("InputLayer", "x", [], batch_input_shape=[None, 6, 3])
        inner = keras_model("2.2.4", [x, lstm, dense], ["x"], [["dense", 0, 0]], "inner")["config"]
        return {"class_name": "Model", "name": "inner", "config": inner, "inbound_nodes": nodes}
    lstm["config"]["batch_input_shape"] = [None, 6, 3]
    entries: Any = [{k: e[k] for k in ("class_name", "config")} for e in (lstm, dense)]
    if sequential == "sequential":  # up to Keras 2.2.2 it was the bare list
        entries = {"name": "inner", "layers": entries}
    return {"class_name": "Sequential", "name": "inner", "config": entries, "inbound_nodes": nodes}


@pytest.mark.parametrize("first", [0, 1], ids=["from 0", "from 1"])
@pytest.mark.parametrize("kind", ["functional", "sequential", "bare list"])
def test_keras_2_nested_models(kind: str, first: int, tmp_path: Path) -> None:
    """Keras 2 counts the calls of a nested model from 1: it is node 0 of itself."""
    layers = [
        keras2_layer("InputLayer", "a", [], batch_input_shape=[None, 6, 3]),
        keras2_layer("InputLayer", "b", [], batch_input_shape=[None, 6, 3]),
        nested_entry(kind, [[["a", 0, 0, {}]], [["b", 0, 0, {}]]]),
        keras2_layer("Subtract", "minus", [[["inner", first + 1, 0, {}], ["inner", first, 0, {}]]]),
    ]
    document = keras_model("2.2.4", layers, ["a", "b"], [["minus", 0, 0], ["inner", first, 0]])
    k, L = tf_keras, tf_keras.layers
    lstm = L.LSTM(4, recurrent_activation="hard_sigmoid", name="lstm")
    inner = k.Sequential([k.Input((6, 3)), lstm, L.Dense(2, name="dense")], name="inner")
    a, b = k.Input((6, 3), name="a"), k.Input((6, 3), name="b")
    of_a, of_b = inner(a), inner(b)
    twin = k.Model([a, b], [L.Subtract(name="minus")([of_b, of_a]), of_a])
    runs = twin_runs(twin, 45)
    spec = read(twin, document, tmp_path)
    assert spec.outputs == ("minus", "inner.dense")
    assert_parity(spec, runs)


def history(layer: str, output: int = 0, shape: Any = (None, 4)) -> dict[str, Any]:
    config = {"shape": list(shape), "dtype": "float32", "keras_history": [layer, 0, output]}
    return {"class_name": "__keras_tensor__", "config": config}


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        (["b"], {"initial_state": ["h", "c"], "mask": None, "training": False}),
        (["b"], {"initial_state": ["h", "c"], "training": None}),
        (["b", ["h", "c"]], {}),
        (["b", ["h", "c"], None, False], {}),
        ([], {"sequences": "b", "initial_state": ["h", "c"]}),
        ([], {"initial_state": ["h", "c"], "sequences": "b"}),
    ],
)
def test_keras_3_states(args: Any, kwargs: Any, tmp_path: Path) -> None:
    k, L = keras, keras.layers
    a, b = k.Input((None, 3), name="a"), k.Input((None, 2), name="b")
    _, h, c = L.LSTM(4, return_state=True, name="encoder")(a)
    y = L.LSTM(4, name="decoder")(b, initial_state=[h, c])
    model = k.Model([a, b], y)
    randomise(model, 46)
    xs = make_inputs(model, 3, 6, 46)
    tensors = {"b": history("b", 0, (None, None, 2)), "h": history("encoder", 1), "c": history("encoder", 2)}  # fmt: skip

    def put(value: Any) -> Any:
        if isinstance(value, list):
            return [put(v) for v in value]
        return tensors.get(value, value) if isinstance(value, str) else value

    document = json.loads(model.to_json())
    (entry,) = (e for e in document["config"]["layers"] if e["name"] == "decoder")
    assert entry["inbound_nodes"][0]["args"] == [tensors["b"]]  # written as Keras writes
    entry["inbound_nodes"] = [{"args": put(args), "kwargs": {n: put(v) for n, v in kwargs.items()}}]
    model.save_weights(tmp_path / "model.weights.h5")
    (tmp_path / "model.json").write_text(json.dumps(document))
    spec = nc.from_keras(tmp_path / "model.weights.h5", architecture=tmp_path / "model.json")
    assert_parity(spec, [(xs, run(model, xs))])


def with_nodes(change: Callable[[dict[str, Any]], Any], folder: Path) -> Any:
    """Convert a small Keras 2 graph whose config somebody damaged."""
    layers = [
        keras2_layer("InputLayer", "a", [], batch_input_shape=[None, 6, 3]),
        keras2_layer("LSTM", "lstm", [[["a", 0, 0, {}]]], units=4),
        keras2_layer("Dense", "left", [[["lstm", 0, 0, {}]]], units=4),
        keras2_layer("Add", "sum", [[["lstm", 0, 0, {}], ["left", 0, 0, {}]]]),
    ]
    document = keras_model("2.2.4", layers, ["a"], [["sum", 0, 0]])
    change({e["name"]: e for e in layers} | {"config": document["config"]})
    k, a = tf_keras, tf_keras.Input((6, 3), name="a")
    lstm = k.layers.LSTM(4, name="lstm", recurrent_activation="hard_sigmoid")(a)
    twin = k.Model(a, k.layers.Dense(4, name="left")(lstm))
    return read(twin, document, folder)


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (lambda e: e["sum"].update(inbound_nodes=[[["lstm", 0, 1, {}], ["left", 0, 0, {}]]]), "lstm"),
        (lambda e: e["sum"].update(inbound_nodes=[[["lstm", 1, 0, {}], ["left", 0, 0, {}]]]), "sum"),
        (lambda e: e["sum"].update(inbound_nodes=[[["nobody", 0, 0, {}], ["left", 0, 0, {}]]]), "sum"),
        (lambda e: e["sum"].update(inbound_nodes=[[["lstm", 0, -1, {}], ["left", 0, 0, {}]]]), "lstm|sum"),
        (lambda e: e["sum"].update(inbound_nodes=[[["lstm", "0", 0, {}]]]), "sum"),
        (lambda e: e["sum"].update(inbound_nodes=[]), "sum"),
        (lambda e: e["sum"].update(inbound_nodes=[[]]), "sum"),
        (lambda e: e["lstm"].update(inbound_nodes=[[["left", 0, 0, {}]]]), "lstm|left"),
        (lambda e: e["config"].update(output_layers=[["sum", 1, 0]]), "sum"),
        (lambda e: e["config"].update(output_layers=[["sum", 0, 3]]), "sum"),
        (lambda e: e["config"].update(output_layers=[["nobody", 0, 0]]), "nobody"),
        (lambda e: e["config"].update(output_layers=[]), "output_layers"),
        (lambda e: e["config"].update(input_layers=[["nobody", 0, 0]]), "nobody"),
        (lambda e: e["config"].update(input_layers=[["lstm", 0, 0]]), "lstm"),
    ],
)  # fmt: skip
def test_damaged_graphs(change: Any, names: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=names):
        with_nodes(change, tmp_path)


def test_the_graph_before_the_damage(tmp_path: Path) -> None:
    assert with_nodes(lambda e: None, tmp_path).outputs == ("sum",)


# What cannot be converted.


def naming(reasons: tuple[str, ...], *names: str) -> bool:
    """Whether every one of these layers has a reason of its own."""
    return all(any(reason.split(":")[0].endswith(name) for reason in reasons) for name in names)


def both_ways_refused(model: Any, folder: Path, *names: str) -> tuple[str, ...]:
    """Refuse the object and its file alike, naming the layers."""
    reasons = refused(model)
    assert naming(reasons, *names), reasons
    model.save(folder / "model.keras")
    from_file = refused(folder / "model.keras")
    assert naming(from_file, *names), from_file
    return reasons


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "SimpleRNN"])
def test_masks_as_call_arguments(kind: str, framework: str, tmp_path: Path) -> None:
    k = FRAMEWORKS[framework]
    a, mask = k.Input((6, 3), name="a"), k.Input((6,), dtype="bool", name="flags")
    y = getattr(k.layers, kind)(4, name="masked")(a, mask=mask)
    both_ways_refused(k.Model([a, mask], y), tmp_path, "masked")


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_masks_from_layers(framework: str, tmp_path: Path) -> None:
    k = FRAMEWORKS[framework]
    L, ids, a = k.layers, k.Input((6,), dtype="int32", name="ids"), k.Input((6, 3), name="a")
    words = L.Embedding(IDS, 3, mask_zero=True, name="words")(ids)
    y = L.LSTM(4, name="lstm")(L.Add(name="sum")([words, L.Masking(name="cut")(a)]))
    model = k.Model([ids, a], y)
    randomise(model, 8)
    xs = make_inputs(model, 5, 6, 3)
    xs[1][:, 2:4] = 0
    assert_parity(convert(model, "keras", tmp_path), [(xs, run(model, xs))])


def operators(k: Any, name: str) -> Any:
    L, a = k.layers, k.Input((6, 4), name="a")
    z = L.LSTM(4, return_sequences=True, name="lstm")(a)
    return k.Model(a, {
        "index": lambda: z[:, -1],
        "slice": lambda: z[:, ::2, 1:3],
        "sum": lambda: z + a,
        "sum of ranks": lambda: z + L.Dense(4, name="row")(L.Flatten(name="flat")(a))[:, None],
        "number": lambda: 2.0 * z,
        "from a number": lambda: 1.0 - z,
        "power": lambda: z ** 2,
        "product": lambda: z @ L.Permute((2, 1), name="turned")(z),
    }[name]())  # fmt: skip


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("name", ["index", "slice", "sum", "sum of ranks", "number", "from a number", "power", "product"])  # fmt: skip
def test_operators_on_tensors(name: str, framework: str, tmp_path: Path) -> None:
    """They are nodes of the graph, some with the class names of layers."""
    model = operators(FRAMEWORKS[framework], name)
    entries = json.loads(model.to_json())["config"]["layers"]
    nodes = [e["name"] for e in entries if "ops" in e.get("module", "") or "Lambda" in e["class_name"]]  # fmt: skip
    assert nodes
    randomise(model, 49)
    xs = make_inputs(model, 3, 6, 49)
    runs = [(xs, run(model, xs))]
    for way in ("live", "keras", "h5"):
        assert_parity(convert(model, way, tmp_path), runs)


@keras.saving.register_keras_serializable("graphs")
class Doubled(keras.layers.Layer):
    def call(self, x: Any) -> Any:
        return 2 * x


@keras.saving.register_keras_serializable("graphs")
class Dense(keras.layers.Dense):
    """Not Keras' own, but of its name."""

    def call(self, x: Any, training: Any = None) -> Any:
        return 2 * super().call(x)


@keras.saving.register_keras_serializable("graphs")
class Add(keras.layers.Add):
    """Not Keras' own, but of its name."""

    def _merge_function(self, inputs: Any) -> Any:
        return inputs[0]


def test_everything_at_once(tmp_path: Path) -> None:
    L, a, b = keras.layers, keras.Input((6, 3), name="a"), keras.Input((6, 3), name="b")
    x = keras.Input((6, 3), name="x")
    y = Dense(3, name="own_dense")(L.SpectralNormalization(L.Dense(3), name="norm")(x))
    inner = keras.Model(x, y, name="inner")
    y = L.LSTM(3, activation="sparsemax", return_sequences=True, name="odd")(inner(a))
    y = Add(name="own_add")([y, Doubled(name="own")(b)])
    y = L.Conv1DTranspose(2, 3, name="conv")(L.Lambda(lambda t: t, name="code")(y))
    model = keras.Model(
        [a, b], [y, L.MultiHeadAttention(1, 2, use_gate=True, name="attention")(b, b)]
    )
    names = ("own_dense", "norm", "odd", "own_add", "own", "conv", "code", "attention")
    reasons = both_ways_refused(model, tmp_path, *names)
    assert len(reasons) == len(names), reasons
    assert {"inner.own_dense", "inner.norm"} <= {reason.split(":")[0] for reason in reasons}


def test_everything_at_once_in_tf_keras(tmp_path: Path) -> None:
    k = tf_keras
    L, a, b = k.layers, k.Input((6, 3), name="a"), k.Input((6, 3), name="b")
    inner = k.Sequential(
        [k.Input((6, 3)), L.EinsumDense("abc,cd->abd", (6, 3), name="norm")], name="inner"
    )
    y = L.Lambda(lambda t: t, name="code")(inner(a)) + L.Conv1DTranspose(3, 3, padding="same", name="conv")(b)  # fmt: skip
    y = L.Bidirectional(L.RNN([L.LSTMCell(3), L.LSTMCell(2)]), name="cell")(y)
    model = k.Model([a, b], y)
    both_ways_refused(model, tmp_path, "norm", "code", "conv", "cell")


def test_impostors_deep_inside_a_model_object() -> None:
    """An unregistered class of a Keras name, which only the object in memory gives away."""

    class LSTM(keras.layers.LSTM):
        def call(
            self,
            sequences: Any,
            initial_state: Any = None,
            mask: Any = None,
            training: bool = False,
        ) -> Any:
            return -super().call(sequences, initial_state, mask, training)

    core = keras.Sequential([keras.Input((6, 3)), LSTM(3, name="false")], name="core")
    inner = keras.Sequential([keras.Input((6, 3)), core], name="inner")
    a = keras.Input((6, 3), name="a")
    model = keras.Model(a, keras.layers.Add(name="sum")([inner(a), inner(a)]))
    assert naming(refused(model), "false")


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("last", [False, True], ids=["inside", "at the end"])
def test_a_model_with_code_of_its_own_in_a_graph(last: bool, framework: str) -> None:
    k = FRAMEWORKS[framework]

    class Halved(k.Model):  # type: ignore[name-defined, misc]
        def call(self, x: Any, training: Any = None, mask: Any = None) -> Any:
            return super().call(x) / 2

    x, a = k.Input((6, 3), name="x"), k.Input((6, 3), name="a")
    own = Halved(x, k.layers.LSTM(3, name="lstm")(x), name="halved")
    y = own(a)
    assert naming(refused(k.Model(a, y if last else k.layers.Dense(2)(y))), "halved")
    with pytest.raises(UnsupportedError):
        nc.from_keras(own)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_wrapped_models(framework: str, tmp_path: Path) -> None:
    k = FRAMEWORKS[framework]
    inner = k.Sequential([k.Input((5, 3)), k.layers.LSTM(4, name="lstm")], name="inner")
    a = k.Input((6, 5, 3), name="a")
    model = k.Model(a, k.layers.TimeDistributed(inner, name="each")(a))
    randomise(model, 50)
    xs = make_inputs(model, 3, 6, 50)
    for way in WAYS:
        assert_parity(convert(model, way, tmp_path), [(xs, run(model, xs))])


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_bidirectional_layer_with_a_given_state(framework: str) -> None:
    k = FRAMEWORKS[framework]
    a, states = k.Input((6, 3), name="a"), [k.Input((4,), name=f"s{n}") for n in range(4)]
    y = k.layers.Bidirectional(k.layers.LSTM(4), name="both_ways")(a, initial_state=states)
    model = k.Model([a, *states], y)
    randomise(model, 51)
    xs = make_inputs(model, 3, 6, 51)
    parity_or_refusal(model, [(xs, run(model, xs))], "both_ways")


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_dropout_that_never_rests(framework: str, tmp_path: Path) -> None:
    """``training=True`` at the call: noise at inference, too, unless the framework overrules it."""
    k = FRAMEWORKS[framework]
    a = k.Input((6, 3), name="a")
    model = k.Model(a, k.layers.Dropout(0.5, name="noisy")(a, training=True))
    (x,) = make_inputs(model, 3, 6, 52)
    if np.array_equal(model.predict(x, verbose=0), x):
        parity_or_refusal(model, [([x], [x])], "noisy")
    else:
        both_ways_refused(model, tmp_path, "noisy")


def with_numbers(k: Any, name: str) -> Any:
    """Arrays that are no tensors of the graph, among the arguments of a layer called ``fed``."""
    L, a = k.layers, k.Input(batch_shape=(2, 5, 4), name="a")
    row, steps, h = np.eye(2, 4, dtype="float32"), np.ones((2, 5, 4), "float32"), L.Dense(4)(L.Flatten()(a))  # fmt: skip
    number = keras.ops.convert_to_tensor if k is keras else tf.constant
    y = {
        "of one": lambda: L.Add(name="fed")([a, number(steps)]),
        "of two": lambda: L.Multiply(name="fed")([a, L.Dense(4)(a), number(steps)]),
        "side by side": lambda: L.Concatenate(name="fed")([a, number(steps)]),
        "state": lambda: L.GRU(4, name="fed")(a, initial_state=number(row)),
        "states": lambda: L.LSTM(4, name="fed")(a, initial_state=[number(row), number(row)]),
        "half a state": lambda: L.LSTM(4, name="fed")(a, initial_state=[h, number(row)]),
    }[name]()
    return k.Model(a, y)


@pytest.mark.parametrize(
    ("framework", "name"),
    [(f, n) for f in FRAMEWORKS for n in ("of one", "of two", "side by side", "state", "states")]
    + [("keras3", "half a state")],  # tf_keras itself does not mix them
)
def test_numbers_among_the_arguments(name: str, framework: str, tmp_path: Path) -> None:
    both_ways_refused(with_numbers(FRAMEWORKS[framework], name), tmp_path, "fed")


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("axis", [0, -3])
def test_side_by_side_along_the_batch(axis: int, framework: str) -> None:
    """Legal in Keras, so no damage."""
    k = FRAMEWORKS[framework]
    a, b = k.Input((6, 3), name="a"), k.Input((6, 3), name="b")
    model = k.Model([a, b], k.layers.Concatenate(axis=axis, name="piled")([a, b]))
    assert any("piled" in reason for reason in refused(model))


def test_models_inside_models_that_multiply(tmp_path: Path) -> None:
    """Each calls the next one twice: a small config of a billion layers is refused at once."""
    dense = keras2_layer("Dense", "dense", [[["x", 0, 0, {}]]], units=3)
    x = keras2_layer("InputLayer", "x", [], batch_input_shape=[None, 3])
    document = keras_model("2.2.4", [x, dense], ["x"], [["dense", 0, 0]], "m0")
    for depth in range(1, 31):
        inner, name = document["config"], f"m{depth - 1}"
        nodes = [[["x", 0, 0, {}]], [[name, 1, 0, {}]]]
        entry = {"class_name": "Model", "name": name, "config": inner, "inbound_nodes": nodes}
        document = keras_model("2.2.4", [x, entry], ["x"], [[name, 2, 0]], f"m{depth}")
    a = tf_keras.Input((3,))
    twin = tf_keras.Model(a, tf_keras.layers.Dense(3, name="dense")(a))
    started = time.perf_counter()
    with pytest.raises(npylstm.NpylstmError):
        read(twin, document, tmp_path)
    assert time.perf_counter() - started < 20


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("what", ["names", "other names", "outputs", "lists in lists"])
def test_inputs_and_outputs_that_are_no_list(what: str, framework: str) -> None:
    """Honoured by name, or refused; never mistaken."""
    k = FRAMEWORKS[framework]
    a, b = k.Input((6, 3), name="a"), k.Input((6, 3), name="b")
    minus = k.layers.Subtract(name="minus")([a, b])
    given: Any = {"names": {"b": b, "a": a}, "other names": {"z": a, "y": b}, "lists in lists": [[b], a]}  # fmt: skip
    made = {"z": minus, "y": k.layers.Dense(2, name="dense")(a)} if what == "outputs" else minus
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras 3 wants keys to be names
        model = k.Model(given.get(what, [a, b]), made)
    try:
        spec = nc.from_keras(model)
    except UnsupportedError as error:
        assert "put" in str(error)  # "input" or "output"  # noqa: PT017
        return
    x, z = (np.random.default_rng(n).normal(size=(2, 6, 3)).astype("float32") for n in range(2))
    assert {t.name for t in spec.inputs} in ({"a", "b"}, {"y", "z"})
    named = {"a": x, "b": z} if spec.inputs[0].name in "ab" else {"z": x, "y": z}
    y = Model(spec, "numpy").predict(named)
    if what == "outputs":
        assert set(y) in ({"minus", "dense"}, {"y", "z"})
        y = y.get("minus", y.get("z"))
    np.testing.assert_array_equal(y, x - z)


# The command line, with the framework's own runs recorded and repeated.


@pytest.mark.parametrize(
    ("framework", "name", "form"),
    [
        ("keras3", "siamese", "keras"),
        ("keras3", "ids_and_numbers", "h5"),
        ("keras3", "a_nested_model_called_twice", "keras"),
        ("keras3", "one_tensor_is_two_outputs", "keras"),
        ("keras3", "second_call_begins_where_the_first_ended", "h5"),
        ("tf_keras", "siamese", "h5"),
        ("tf_keras", "nested_twice_deep", "keras"),
        ("tf_keras", "encoder_and_decoder_as_nested_models", "h5"),
        ("tf_keras", "attention", "keras"),
        ("tf_keras", "inputs_of_equal_free_lengths_meet", "h5"),
    ],
)
@pytest.mark.one_in(3)
def test_recorded_and_verified(
    framework: str, name: str, form: str, tmp_path: Path, capsys: Any
) -> None:
    model, _ = built(framework, name)
    source, out = tmp_path / f"model.{form}", tmp_path / "model.npz"
    model.save(source)
    assert main(["convert", str(source), str(out), "--record", "8"]) == 0, capsys.readouterr().err
    spec = npylstm.load(out).spec
    assert len(spec.cases) >= 6
    if spec.state_shapes():
        assert any(case.state for case in spec.cases)
    assert main(["verify", str(out)]) == 0
    assert main(["verify", str(out), "--against", str(source)]) == 0
    assert "parity held" in capsys.readouterr().out
    assert main(["info", str(out)]) == 0
