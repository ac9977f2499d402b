"""Whole Keras models at each step of another."""

from __future__ import annotations

import functools
from typing import Any

from keras_attention import (
    FEATURES,
    SIZE,
    STEPS,
    UNITS,
    WORDS,
    apart,
    chained,
    row,
    rows,
    sequence,
    soft,
)
from keras_attention_heads import heads
from keras_attention_stacks import cells
from keras_graphs import IDS


def letters_to_words(k: Any, masked: bool = True, **options: Any) -> list[Any]:
    return [k.layers.Embedding(IDS, 5, mask_zero=masked), soft(k, "LSTM", **options)]


def ids_in(k: Any) -> Any:
    return k.Input((WORDS, SIZE), dtype="int32", name="x")


def reader(k: Any, name: str = "reader", functional: bool = False, **options: Any) -> Any:
    """A model that reads a word."""
    layers = letters_to_words(k, **options)
    if not functional:
        return k.Sequential([k.Input((SIZE,), dtype="int32"), *layers], name=name)
    x = k.Input((SIZE,), dtype="int32", name=f"{name}_in")
    y = layers[1](layers[0](x))
    return k.Model(x, k.layers.Dense(3, name="dense")(y), name=name)


def hierarchy(k: Any, functional: bool = False, **options: Any) -> Any:
    x = ids_in(k)
    y = k.layers.TimeDistributed(reader(k, functional=functional, **options))(x)
    if options.get("return_sequences"):
        return k.Model(x, [y, k.layers.TimeDistributed(soft(k))(y)])
    return k.Model(x, [y, soft(k, "LSTM")(y)])


rows(
    hierarchy=hierarchy,
    hierarchy_of_a_graph=functools.partial(hierarchy, functional=True),
    hierarchy_without_masks=functools.partial(hierarchy, masked=False),
    hierarchy_of_sequences=functools.partial(hierarchy, return_sequences=True),
)  # fmt: skip


@row
def hierarchy_in_a_chain(k: Any) -> Any:
    L = k.layers
    return k.Sequential([ids_in(k), L.TimeDistributed(reader(k)), soft(k, "GRU"), L.Dense(2)])


@row
def convolutions_at_each_step(k: Any) -> Any:
    L = k.layers
    inner = [L.Conv1D(4, 3, activation="tanh", padding="same"), L.MaxPooling1D(2), L.Flatten(), L.Dense(3)]  # fmt: skip
    model = k.Sequential([k.Input((SIZE, FEATURES)), *inner], name="conv")
    return chained(k, L.TimeDistributed(model), soft(k, "LSTM"), shape=(WORDS, SIZE, FEATURES))


@row
def layers_of_a_block_at_each_step(k: Any) -> Any:
    L = k.layers
    conv = L.Conv1D(4, 2, activation="tanh", padding="same")
    each = [L.TimeDistributed(m) for m in (conv, L.AveragePooling1D(2), L.Flatten(), L.Dense(3))]
    return chained(k, *each, soft(k), shape=(WORDS, SIZE, FEATURES))


@row
def many_kinds_at_each_step(k: Any) -> Any:
    L = k.layers
    a = k.Input((SIZE, FEATURES))
    y = L.LayerNormalization()(L.Dense(UNITS, activation="relu")(a))
    both = L.Concatenate()([L.Multiply()([y, L.Activation("tanh")(y)]), soft(k, return_sequences=True)(y)])  # fmt: skip
    both = L.Bidirectional(soft(k, "GRU", 2, return_sequences=True))(both)
    made = L.Concatenate()([L.GlobalMaxPooling1D()(both), L.GlobalAveragePooling1D()(both), L.Flatten()(both)])  # fmt: skip
    inner = k.Model(a, L.Reshape((4, -1))(L.Dense(8)(made)), name="inner")
    each = L.TimeDistributed(inner)
    return chained(k, each, L.TimeDistributed(soft(k)), shape=(WORDS, SIZE, FEATURES))


@row
def attention_at_each_step(k: Any) -> Any:
    L = k.layers
    a = k.Input((SIZE, FEATURES))
    y = soft(k, return_sequences=True)(a)
    inner = k.Model(a, soft(k)(L.Add()([L.Attention(use_scale=True)([y, y]), heads(k)(y, y)])))
    return chained(k, L.TimeDistributed(inner), soft(k), shape=(WORDS, SIZE, FEATURES))


@row
def masked_attention_at_each_step(k: Any) -> Any:
    L = k.layers
    a = k.Input((SIZE,), dtype="int32")
    y = L.Embedding(IDS, UNITS, mask_zero=True)(a)
    z = heads(k)(*apart(k, y, y))
    inner = k.Model(a, soft(k)(L.Add()([z, L.Attention()([y, y])])), name="inner")
    x = ids_in(k)
    return k.Model(x, soft(k)(L.TimeDistributed(inner)(x)))


@row
def masking_at_each_step(k: Any) -> Any:
    inner = k.Sequential([k.Input((SIZE, FEATURES)), k.layers.Masking(), soft(k, "GRU")])
    each = k.layers.TimeDistributed(inner)
    return chained(k, each, soft(k), shape=(WORDS, SIZE, FEATURES))


@row
def masks_of_the_steps_themselves(k: Any) -> Any:
    """The mask outside is that of words, the model inside has nothing to do with it."""
    L = k.layers
    x, y = sequence(k, "x", steps=STEPS)
    inner = k.Sequential([k.Input((UNITS,)), L.Dense(5, activation="tanh"), L.Dense(3)])
    y = L.TimeDistributed(inner)(y)
    return k.Model(x, [y, soft(k)(y)])


@row
def layers_at_each_step_that_know_nothing_of_masks(k: Any) -> Any:
    L = k.layers
    x, y = sequence(k, "x", steps=STEPS)
    y = L.TimeDistributed(L.Dense(6, activation="tanh"))(y)
    z = L.TimeDistributed(L.Reshape((2, 3)))(y)
    z = L.TimeDistributed(L.Flatten())(z)
    return k.Model(x, [y, z, soft(k)(y), soft(k)(z)])


@row
def batches_of_known_size(k: Any) -> Any:
    L = k.layers
    x = k.Input(batch_shape=(9, STEPS, FEATURES), name="x")
    y = soft(k, return_sequences=True)(L.Masking()(x))
    y = L.TimeDistributed(L.Dense(3, activation="tanh"))(y)
    z = soft(k, return_sequences=True)(y)
    return k.Model(x, [y, z])


@row
def models_in_batches_of_known_size(k: Any) -> Any:
    L = k.layers
    x = k.Input(batch_shape=(9, STEPS, FEATURES), name="x")
    y = soft(k, return_sequences=True)(L.Masking()(x))
    inner = k.Sequential([k.Input((UNITS,)), L.Dense(5, activation="tanh"), L.Dense(3)])
    y = L.TimeDistributed(inner)(y)
    return k.Model(x, [y, soft(k, return_sequences=True)(y)])


def masks_of_three_axes(k: Any, kind: str, **options: Any) -> Any:
    x = ids_in(k)
    y = k.layers.Embedding(IDS, 5, mask_zero=True, name="embedding")(x)
    layer = soft(k, kind, **options)
    return k.Model(x, k.layers.TimeDistributed(layer, name="each")(y))


for _kind in ("LSTM", "GRU"):
    for _sequences in (False, True):
        _make = functools.partial(masks_of_three_axes, kind=_kind, return_sequences=_sequences)
        rows(**{f"three_axes_{_kind}_{_sequences}": _make})


@row
def three_axes_both_ways(k: Any) -> Any:
    x = ids_in(k)
    y = k.layers.Embedding(IDS, 5, mask_zero=True)(x)
    pairs = [k.layers.Bidirectional(soft(k, "GRU", 2, return_sequences=s)) for s in (False, True)]
    return k.Model(x, [k.layers.TimeDistributed(pair)(y) for pair in pairs])


@row
def names_inside_like_those_outside(k: Any) -> Any:
    L = k.layers
    inner = k.Sequential(
        [k.Input((SIZE, FEATURES), name="x"), soft(k, name="rnn"), L.Dense(3, name="dense")],
        name="inner",
    )
    outer = [L.TimeDistributed(inner, name="each"), soft(k, name="rnn"), L.Dense(2, name="dense")]
    return chained(k, *outer, shape=(WORDS, SIZE, FEATURES))


@row
def two_models_at_each_step(k: Any) -> Any:
    L = k.layers
    x, z = ids_in(k), k.Input((WORDS, SIZE, FEATURES), name="z")
    conv = [L.Conv1D(4, 2, activation="tanh", name="dense"), L.GlobalMaxPooling1D(), L.Dense(3)]
    one, two = reader(k, "one"), reader(k, "two", functional=True)
    three = k.Sequential([k.Input((SIZE, FEATURES)), *conv], name="three")
    ys = [L.TimeDistributed(m)(t) for m, t in ((one, x), (two, x), (three, z))]
    return k.Model([x, z], soft(k, "GRU")(L.Concatenate()(ys)))


@row
def one_model_at_each_step_of_two(k: Any) -> Any:
    L = k.layers
    a, b = (k.Input((WORDS, SIZE), dtype="int32", name=n) for n in "ab")
    each = L.TimeDistributed(reader(k))
    return k.Model([a, b], [soft(k)(each(a)), soft(k)(each(b))])


@row
def models_in_models_at_each_step(k: Any) -> Any:
    L = k.layers
    deep = k.Sequential([k.Input((UNITS,)), L.Dense(3, activation="tanh"), L.Dense(2)], name="deep")
    a = k.Input((SIZE,), dtype="int32")
    inner = k.Model(a, deep(reader(k)(a)), name="inner")
    x = ids_in(k)
    return k.Model(x, soft(k)(L.TimeDistributed(inner)(x)))


@row
def steps_inside_a_model(k: Any) -> Any:
    L = k.layers
    a = k.Input((WORDS, SIZE), dtype="int32")
    inner = k.Model(
        a, soft(k, return_sequences=True)(L.TimeDistributed(reader(k))(a)), name="inner"
    )
    x = ids_in(k)
    return k.Model(x, [inner(x), soft(k)(inner(x))])


@row
def steps_of_steps(k: Any) -> Any:
    L = k.layers
    words = k.Sequential([k.Input((SIZE, FEATURES)), soft(k, "GRU"), L.Dense(3)], name="words")
    texts = k.Sequential([k.Input((WORDS, SIZE, FEATURES)), L.TimeDistributed(words), soft(k, "LSTM")], name="texts")  # fmt: skip
    x = k.Input((2, WORDS, SIZE, FEATURES), name="x")
    return k.Model(x, soft(k)(L.TimeDistributed(texts)(x)))


@row
def a_model_at_each_step_and_alone(k: Any) -> Any:
    a, b = ids_in(k), k.Input((SIZE,), dtype="int32", name="b")
    shared = reader(k, masked=False)
    return k.Model([a, b], [soft(k)(k.layers.TimeDistributed(shared)(a)), shared(b)])


@row
def a_stack_in_a_model_at_each_step(k: Any) -> Any:
    stack = k.layers.RNN(cells(k, "mixed"))
    inner = k.Sequential([k.Input((SIZE,), dtype="int32"), k.layers.Embedding(IDS, 3, mask_zero=True), stack])  # fmt: skip
    x = ids_in(k)
    return k.Model(x, soft(k)(k.layers.TimeDistributed(inner)(x)))


@row
def means_in_a_model_at_each_step(k: Any) -> Any:
    L = k.layers
    layers = [L.Embedding(IDS, 3), L.GlobalAveragePooling1D(), L.Dense(3)]
    inner = k.Sequential([k.Input((SIZE,), dtype="int32"), *layers])
    x = ids_in(k)
    return k.Model(x, soft(k)(L.TimeDistributed(inner)(x)))


@row
def sequences_of_words_to_texts(k: Any) -> Any:
    L = k.layers
    x = ids_in(k)
    y = L.TimeDistributed(reader(k, return_sequences=True))(x)
    z = L.TimeDistributed(soft(k))(y)
    return k.Model(x, soft(k, "GRU")(z))


@row
def three_axes_reach_a_model(k: Any) -> Any:
    L = k.layers
    x = ids_in(k)
    y = L.Embedding(IDS, 5, mask_zero=True)(x)
    layers = [L.Dense(3, activation="tanh"), soft(k, "LSTM"), L.Dense(4)]
    y = L.TimeDistributed(k.Sequential([k.Input((SIZE, 5)), *layers], name="inner"))(y)
    return k.Model(x, y)


@row
def embedding_at_each_step(k: Any) -> Any:
    # What is outside sees its mask in tf_keras alone.
    L = k.layers
    x = ids_in(k)
    y = L.TimeDistributed(L.Embedding(IDS, 5, mask_zero=True))(x)
    z = L.TimeDistributed(soft(k, "LSTM"))(y)
    return k.Model(x, [z, soft(k)(z)])


@row
def masking_layer_at_each_step(k: Any) -> Any:
    L = k.layers
    x = k.Input((WORDS, SIZE, FEATURES), name="x")
    z = L.TimeDistributed(soft(k))(L.TimeDistributed(L.Masking())(x))
    return k.Model(x, [z, soft(k)(z)])
