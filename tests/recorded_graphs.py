"""Twenty functional graphs that both generations of Keras build, to record cases of.

Operations on tensors, masks, shared layers and models inside models: what a runner that pairs layers
by their places gets wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import keras
import tensorflow as tf
import tf_keras

TF_OPS = SimpleNamespace(
    mean=lambda x, axis: tf.reduce_mean(x, axis), sum=lambda x, axis: tf.reduce_sum(x, axis),
    concatenate=lambda xs, axis: tf.concat(xs, axis), tanh=tf.tanh, abs=tf.abs,
    sigmoid=tf.sigmoid, softmax=lambda x, axis: tf.nn.softmax(x, axis), relu=tf.nn.relu,
    square=tf.square, maximum=tf.maximum,
)  # fmt: skip
FRAMEWORKS = {"keras3": (keras, keras.ops), "tf_keras": (tf_keras, TF_OPS)}
GRAPHS: dict[str, Callable[[Any, Any, Any], Any]] = {}


def graph(build: Callable[[Any, Any, Any], Any]) -> Callable[[Any, Any, Any], Any]:
    """Add a function of (framework, its layers, its operations) that builds a model."""
    GRAPHS[build.__name__] = build
    return build


@graph
def last_step_and_mean(k: Any, L: Any, ops: Any) -> Any:
    x = k.Input((None, 3))
    y = L.LSTM(3, return_sequences=True)(x)
    return k.Model(x, L.Dense(2)(y[:, -1] + ops.mean(y, axis=1)) * 0.5)


@graph
def residuals_of_equal_sizes(k: Any, L: Any, ops: Any) -> Any:
    x = k.Input((5, 3))
    y = L.LSTM(3, return_sequences=True)(x) + x
    return k.Model(x, L.LSTM(3)(L.LSTM(3, return_sequences=True)(y) - x))


@graph
def joined_features(k: Any, L: Any, ops: Any) -> Any:
    x = k.Input((5, 2))
    y = ops.concatenate([ops.tanh(L.GRU(3, return_sequences=True)(x)), x], axis=-1)
    return k.Model(x, L.SimpleRNN(3)(y))


@graph
def masked_mean(k: Any, L: Any, ops: Any) -> Any:
    x = k.Input((6, 2))
    y = L.LSTM(3, return_sequences=True)(L.Masking(-1.0)(x))
    return k.Model(x, L.GlobalAveragePooling1D()(y))


@graph
def masked_attention(k: Any, L: Any, ops: Any) -> Any:
    ids = k.Input((6,), dtype="int32")
    y = L.GRU(3, return_sequences=True)(L.Embedding(9, 3, mask_zero=True)(ids))
    return k.Model(ids, L.GlobalAveragePooling1D()(L.Attention()([y, y])))


@graph
def masked_gate(k: Any, L: Any, ops: Any) -> Any:
    ids = k.Input((6,), dtype="int32")
    y = L.LSTM(3, return_sequences=True)(L.Embedding(9, 3, mask_zero=True)(ids))
    return k.Model(ids, L.GRU(2)(L.Multiply()([y, L.Dense(3, activation="sigmoid")(y)])))


@graph
def twins_at_one_depth(k: Any, L: Any, ops: Any) -> Any:
    a, b, shared = k.Input((5, 2)), k.Input((5, 2)), L.LSTM(3)
    second, first = shared(b), shared(a)
    return k.Model([a, b], L.Dense(1)(ops.abs(first - second) + first))


@graph
def shared_at_two_depths(k: Any, L: Any, ops: Any) -> Any:
    x, shared = k.Input((5, 2)), L.GRU(2, return_sequences=True)
    late = L.Dense(2, activation="tanh")(L.Dense(2)(x))
    y = shared(late)  # called first, run last
    return k.Model(x, shared(x) * y)


@graph
def model_called_twice(k: Any, L: Any, ops: Any) -> Any:
    inner_x = k.Input((5, 2))
    y = L.LSTM(2, return_sequences=True)(inner_x)
    inner = k.Model(inner_x, L.LSTM(2, return_sequences=True)(y) + inner_x)
    x = k.Input((5, 2))
    return k.Model(x, inner(inner(x))[:, -1])


@graph
def sequential_inside(k: Any, L: Any, ops: Any) -> Any:
    inner = k.Sequential([k.Input((5, 2)), L.GRU(3, return_sequences=True), L.LSTM(2)])
    x = k.Input((5, 2))
    return k.Model(x, ops.square(inner(x)) + inner(x * 0.5))


@graph
def masked_both_ways(k: Any, L: Any, ops: Any) -> Any:
    x = k.Input((6, 2))
    y = L.Bidirectional(L.LSTM(2, return_sequences=True), merge_mode="ave")(L.Masking(2.0)(x))
    return k.Model(x, L.Bidirectional(L.GRU(2))(y))


@graph
def encoder_and_decoder(k: Any, L: Any, ops: Any) -> Any:
    past, future = k.Input((None, 2)), k.Input((None, 1))
    _, *state = L.LSTM(3, return_state=True)(past)
    y = L.LSTM(3, return_sequences=True)(future, initial_state=state)
    return k.Model([past, future], L.Dense(1)(y))


@graph
def stack_of_cells(k: Any, L: Any, ops: Any) -> Any:
    x = k.Input((5, 2))
    y = L.RNN([L.LSTMCell(3), L.GRUCell(2)], return_sequences=True)(x)
    return k.Model(x, ops.sum(y, axis=1))


@graph
def steps_of_sequences(k: Any, L: Any, ops: Any) -> Any:
    x = k.Input((3, 4, 2))
    y = L.TimeDistributed(L.GRU(3))(x)
    return k.Model(x, L.LSTM(2)(L.TimeDistributed(L.Dense(2, activation="relu"))(y)))


@graph
def steps_from_features(k: Any, L: Any, ops: Any) -> Any:
    x = k.Input((4,))
    return k.Model(x, L.LSTM(3)(L.Reshape((4, 1))(x)))


@graph
def ids_behind_an_activation(k: Any, L: Any, ops: Any) -> Any:
    x = k.Input((5,))
    return k.Model(x, L.LSTM(3)(L.Embedding(7, 3)(L.ReLU()(x))))


@graph
def zeros_at_masked_steps(k: Any, L: Any, ops: Any) -> Any:
    x = k.Input((6, 2))
    y = L.GRU(3, return_sequences=True, zero_output_for_mask=True)(L.Masking()(x))
    return k.Model(x, L.LSTM(2, return_sequences=True)(y))


@graph
def padding_of_two_inputs(k: Any, L: Any, ops: Any) -> Any:
    a, b = k.Input((6, 1)), k.Input((6, 2))
    return k.Model([a, b], L.LSTM(3)(L.Masking(-2.0)(L.Concatenate()([a, b]))))


@graph
def attention_by_hand(k: Any, L: Any, ops: Any) -> Any:
    x = k.Input((None, 2))
    y = L.Bidirectional(L.GRU(2, return_sequences=True))(x)
    weights = ops.softmax(L.Dense(1)(y), axis=1)
    return k.Model(x, L.Dense(2)(ops.sum(y * weights, axis=1)))


@graph
def both_directions_by_hand(k: Any, L: Any, ops: Any) -> Any:
    x = k.Input((5, 2))
    back = L.LSTM(3, return_sequences=True, go_backwards=True)(x)
    y = ops.concatenate([L.LSTM(3, return_sequences=True)(x), back], axis=-1)
    return k.Model(x, [y[:, -1], L.GRU(2)(y)])


@graph
def convolution_and_norms(k: Any, L: Any, ops: Any) -> Any:
    x = k.Input((None, 2))
    y = L.Conv1D(3, 3, padding="causal")(x)
    y = L.LayerNormalization()(ops.relu(L.GRU(3, return_sequences=True)(y)) + y)
    return k.Model(x, L.ReLU(max_value=0.6, negative_slope=0.1)(y))


@graph
def two_free_lengths(k: Any, L: Any, ops: Any) -> Any:
    a, b = k.Input((None, 2)), k.Input((None, 3))
    y = ops.sigmoid(L.LSTM(3)(a)) * ops.maximum(L.GRU(3)(b), 0.1)
    return k.Model([a, b], L.Dense(1)(y))
