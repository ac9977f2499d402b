"""Keras models within models."""

from __future__ import annotations

from typing import Any

from keras_graph_registry import graph
from keras_graphs import IDS


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
