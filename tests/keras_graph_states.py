"""Keras graphs whose layers return and take several tensors, such as states, and merges."""

from __future__ import annotations

import functools
from typing import Any

from keras_graph_registry import GRAPHS, graph


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
