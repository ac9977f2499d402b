"""Keras models with one head of attention, merges and softmax under masks, and stacks of cells."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

from keras_attention import FEATURES, STEPS, UNITS, chained, row, rows, sequence, soft, tensors
from keras_attention_heads import heads
from keras_graphs import IDS

LOOKS = ("Attention", "AdditiveAttention")


def looks(k: Any, kind: str, which: str) -> Any:
    (q, a), (v, b), (w, c) = (sequence(k, n, n in which, None if n == "q" else 5) for n in "qvk")
    made = []
    for scale, causal in itertools.product((False, True), (False, True)):
        call = {"use_causal_mask": True} if causal else {}
        look = functools.partial(getattr(k.layers, kind), use_scale=scale, dropout=0.1)
        made += [look()([a, b], **call), look()([a, b, c], **call)]
    return k.Model([q, v, w], [*made, *(soft(k, units=3)(y) for y in made[:2])])


for _kind, _name in itertools.product(LOOKS, ("", "q", "v", "qvk")):
    rows(**{f"{_kind}_masks_{_name or 'none'}": functools.partial(looks, kind=_kind, which=_name)})


def look_at_oneself(k: Any, kind: str) -> Any:
    x, y = sequence(k, "x")
    look = getattr(k.layers, kind)
    a = look()([y, y])
    b = look()([a, y, a])
    return k.Model(x, [a, b, soft(k)(b), soft(k, "GRU")(k.layers.Concatenate()([y, a]))])


for _kind in LOOKS:
    rows(**{f"{_kind}_to_itself": functools.partial(look_at_oneself, kind=_kind)})


@row
def looks_by_concatenation(k: Any) -> Any:
    (q, a), (v, b) = sequence(k, "q"), sequence(k, "v", steps=5)
    made = []
    for scale in (False, True):
        look = k.layers.Attention(use_scale=scale, score_mode="concat")
        made += look([a, b], return_attention_scores=True)
    return k.Model([q, v], [*made, soft(k)(made[0])])


@row
def a_translator(k: Any) -> Any:
    L = k.layers
    a, b = (k.Input((None,), dtype="int32", name=n) for n in "ab")
    y = soft(k, "LSTM", return_sequences=True)(L.Embedding(IDS, 5, mask_zero=True)(a))
    z = soft(k, "GRU", return_sequences=True)(L.Embedding(IDS, 3, mask_zero=True)(b))
    both = L.Concatenate()([z, L.AdditiveAttention()([z, y])])
    return k.Model([a, b], L.TimeDistributed(L.Dense(4, activation="softmax"))(both))


@row
def one_head_in_a_model_called_twice(k: Any) -> Any:
    a, b = k.Input((None, UNITS)), k.Input((None, UNITS))
    inner = k.Model([a, b], k.layers.Attention(use_scale=True)([a, b]), name="inner")
    (q, y), (v, z) = sequence(k, "q"), sequence(k, "v")
    return k.Model([q, v], [inner([y, z]), inner([z, y]), soft(k)(inner([z, z]))])


# Merges.

MERGES = ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate")


def merges(k: Any, kind: str, count: int) -> Any:
    """Masks on all subsets of the inputs."""
    names = "abc"[:count]
    masked = {n: sequence(k, n) for n in names}
    bare = {n: k.layers.Dense(UNITS, activation="tanh")(masked[n][0]) for n in names}
    made = []
    for size in range(count + 1):
        for some in itertools.combinations(names, size):
            chosen = [masked[n][1] if n in some else bare[n] for n in names]
            y = getattr(k.layers, kind)(name=f"on_{''.join(some) or 'none'}")(chosen)
            made += [y, soft(k, units=2, return_sequences=True)(y)]
    return k.Model([masked[n][0] for n in names], made)


for _kind in MERGES:
    _make = functools.partial(merges, kind=_kind, count=2 if _kind == "Subtract" else 3)
    rows(**{f"{_kind}_of_some": _make})


@row
def merges_one_after_the_other(k: Any) -> Any:
    L = k.layers
    (a, y), (b, z), (c, w) = (sequence(k, n, n != "c") for n in "abc")
    one = L.Maximum()([y, z])
    two = L.Multiply()([one, y])
    three = L.Minimum()([two, w, z])
    four = L.Average()([two, one])
    return k.Model([a, b, c], [one, two, three, four, soft(k)(two), soft(k)(three), soft(k)(four)])


@row
def concatenation_along_the_steps(k: Any) -> Any:
    (a, y), (b, z) = (sequence(k, n) for n in "ab")
    both = k.layers.Concatenate(axis=1)([y, z])
    return k.Model([a, b], [both, soft(k)(both)])


@row
def merge_of_one_with_itself(k: Any) -> Any:
    x, y = sequence(k, "x")
    made = [getattr(k.layers, kind)()([y, y]) for kind in MERGES]
    return k.Model(x, [*made, *map(soft(k, units=2, return_sequences=True), made[:6])])


@row
def merges_in_a_model_called_twice(k: Any) -> Any:
    p, q = k.Input((None, UNITS)), k.Input((None, UNITS))
    inner = k.Model([p, q], k.layers.Multiply()([p, k.layers.Maximum()([p, q])]), name="inner")
    (a, y), (b, z) = (sequence(k, n) for n in "ab")
    return k.Model([a, b], [inner([y, z]), inner([z, y]), soft(k)(inner([y, z]))])


# Softmax told what counts.


def softmax(k: Any, axis: Any, shape: tuple[int | None, int], name: str = "flags") -> Any:
    x = k.Input((STEPS, UNITS), name="x")
    flags = k.Input(shape, name=name)
    y = soft(k, return_sequences=True)(x)
    made = k.layers.Softmax(axis=axis, name="soft")(y, mask=flags)
    return k.Model([x, flags], [made, k.layers.Flatten()(made)])


for _axis, _shape in itertools.product((-1, 1), ((STEPS, UNITS), (STEPS, 1), (1, UNITS))):
    _make = functools.partial(softmax, axis=_axis, shape=_shape)
    rows(**{f"softmax_{_axis}_of_{_shape[0]}_{_shape[1]}": _make})
rows(softmax_of_shares=functools.partial(softmax, axis=-1, shape=(STEPS, UNITS), name="shares"))


@row
def softmax_of_scores(k: Any) -> Any:
    L = k.layers
    x, flags = k.Input((STEPS, FEATURES), name="x"), k.Input((STEPS, 1), name="flags")
    y = soft(k, "GRU", return_sequences=True)(x)
    scores = L.Softmax(axis=1)(L.Dense(1, activation="tanh")(y), mask=flags)
    return k.Model([x, flags], L.Dense(2)(L.Flatten()(L.Dot(axes=1)([scores, y]))))


# Stacks of cells.


def cells(k: Any, kind: str) -> list[Any]:
    L = k.layers
    lists: dict[str, Callable[[], list[Any]]] = {
        "lstm": lambda: [L.LSTMCell(4), L.LSTMCell(3)],
        "gru": lambda: [L.GRUCell(3, reset_after=True), L.GRUCell(5, reset_after=False)],
        "rnn": lambda: [L.SimpleRNNCell(5), L.SimpleRNNCell(2, activation="relu")],
        "mixed": lambda: [L.GRUCell(4), L.LSTMCell(3, recurrent_activation="hard_sigmoid"), L.SimpleRNNCell(5)],
        "bare": lambda: [L.LSTMCell(3, use_bias=False), L.SimpleRNNCell(3, use_bias=False), L.GRUCell(4, use_bias=False, reset_after=False)],
        "dropped": lambda: [L.LSTMCell(3, dropout=0.2, recurrent_dropout=0.1), L.GRUCell(3, dropout=0.2), L.LSTMCell(2, name="named")],
    }  # fmt: skip
    return lists[kind]()


CELLS = ("lstm", "gru", "rnn", "mixed", "bare", "dropped")
RUNS: dict[str, dict[str, Any]] = {
    "last": {},
    "all": {"return_sequences": True, "return_state": True},
    "backwards": {"go_backwards": True, "return_sequences": True, "return_state": True},
}
MORE_RUNS: dict[str, dict[str, Any]] = {
    "state": {"return_state": True, "unroll": True},
    "backwards_state": {"go_backwards": True, "return_state": True},
}


def stacks(k: Any, kind: str, masked: bool) -> Any:
    x = k.Input((STEPS, FEATURES), name="x")
    y = k.layers.Masking()(x) if masked else x
    made = []
    for name, options in (RUNS | MORE_RUNS if masked else RUNS).items():
        made += tensors(k.layers.RNN(cells(k, kind), name=name, **options)(y))
    return k.Model(x, [*made, soft(k, units=2)(made[1])])


for _kind in CELLS:
    rows(**{f"masked_stack_{_kind}": functools.partial(stacks, kind=_kind, masked=True)})
for _kind in ("lstm", "mixed", "bare"):
    rows(**{f"stack_{_kind}": functools.partial(stacks, kind=_kind, masked=False)})


@row
def stack_that_gives_zeros(k: Any) -> Any:
    x = k.Input((None, FEATURES), name="x")
    y = k.layers.Masking()(x)
    options = {"return_sequences": True, "return_state": True, "zero_output_for_mask": True}
    return k.Model(x, tensors(k.layers.RNN(cells(k, "mixed"), **options)(y)))


@row
def stacks_in_a_chain(k: Any) -> Any:
    L = k.layers
    one = L.RNN(L.StackedRNNCells(cells(k, "gru"), name="cells"), return_sequences=True)
    return chained(k, L.Masking(), one, L.Dense(3), L.RNN(L.StackedRNNCells(cells(k, "lstm"))))


@row
def stack_of_many(k: Any) -> Any:
    """More than ten: number 10 comes before number 2 by name."""
    many = [k.layers.SimpleRNNCell(3) for _ in range(12)]
    return chained(k, k.layers.RNN(many, return_sequences=True))


@row
def stack_in_a_model_called_twice(k: Any) -> Any:
    p = k.Input((None, FEATURES))
    inner = k.Model(p, tensors(k.layers.RNN(cells(k, "mixed"), return_state=True)(p)), name="inner")
    a, b = (k.Input((None, FEATURES), name=n) for n in "ab")
    ys = [*tensors(inner(a)), *tensors(inner(k.layers.Masking()(b)))]
    return k.Model([a, b], ys)


@row
def stack_called_twice(k: Any) -> Any:
    stack = k.layers.RNN(cells(k, "mixed"), return_sequences=True)
    a, b = (k.Input((None, FEATURES), name=n) for n in "ab")
    return k.Model([a, b], [stack(a), stack(b)])


@row
def stack_behind_letters(k: Any) -> Any:
    x = k.Input((None,), dtype="int32", name="x")
    y = k.layers.Embedding(IDS, 3, mask_zero=True)(x)
    y = k.layers.RNN(cells(k, "lstm"), return_sequences=True)(y)
    return k.Model(x, [y, heads(k)(y, y)])
