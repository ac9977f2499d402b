"""Keras graphs with several inputs and outputs, and with shared layers."""

from __future__ import annotations

from typing import Any

import keras
from keras_graph_registry import graph
from keras_graphs import IDS


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
