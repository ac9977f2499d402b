"""Keras models with several heads of attention."""

from __future__ import annotations

import functools
import itertools
from typing import Any

from keras_attention import UNITS, apart, chained, row, rows, sequence, soft
from keras_graphs import IDS

HEADS: dict[str, dict[str, Any]] = {
    "plain": {"num_heads": 2, "key_dim": 3},
    "one": {"num_heads": 1, "key_dim": 5, "value_dim": 2},
    "sized": {"num_heads": 3, "key_dim": 2, "value_dim": 4, "output_shape": 5},
    "listed": {"num_heads": 2, "key_dim": 2, "output_shape": (3,)},
    "bare": {"num_heads": 2, "key_dim": 3, "use_bias": False, "dropout": 0.2},
    "bare_sized": {"num_heads": 2, "key_dim": 1, "value_dim": 3, "output_shape": 2, "use_bias": False},
}  # fmt: skip


def heads(k: Any, **options: Any) -> Any:
    return k.layers.MultiHeadAttention(**{**HEADS["plain"], **options})


def heads_of_all_sizes(k: Any, masked: bool) -> Any:
    x, y = sequence(k, "x", masked)
    v, z = sequence(k, "v", masked, 5)
    made = []
    for name, options in HEADS.items():
        (a, b) = apart(k, y, z)
        made.append(k.layers.MultiHeadAttention(**options, name=f"{name}_cross")(a, b))
        (a,) = apart(k, y)
        made.append(k.layers.MultiHeadAttention(**options, name=f"{name}_self")(a, a))
    return k.Model([x, v], [*made, soft(k, name="after")(made[0]), soft(k, name="last")(made[1])])


def heads_masked(k: Any, which: str) -> Any:
    """Queries, values and keys of three sequences, masks on some, all ways to compute."""
    (q, a), (v, b), (w, c) = (sequence(k, n, n in which, None if n == "q" else 5) for n in "qvk")
    made = []
    for dropout, causal in itertools.product((0.0, 0.3), (False, True)):
        call = {"use_causal_mask": True} if causal else {}
        query, value, key = apart(k, a, b, c)
        made.append(heads(k, dropout=dropout)(query, value, key=key, **call))
        query, value = apart(k, a, b)
        made.append(heads(k, dropout=dropout)(query, value, **call))
    return k.Model([q, v, w], [*made, *(soft(k, units=3)(y) for y in made[:2])])


rows(heads_of_all_sizes=functools.partial(heads_of_all_sizes, masked=False))
rows(masked_heads_of_all_sizes=functools.partial(heads_of_all_sizes, masked=True))
for _n in range(4):
    for _some in itertools.combinations("qvk", _n):
        _name = "".join(_some)
        rows(**{f"heads_with_masks_on_{_name or 'none'}": functools.partial(heads_masked, which=_name)})  # fmt: skip


@row
def more_heads_than_ten(k: Any) -> Any:
    """In a .keras file group 10 comes before group 2."""
    x, y = sequence(k, "x")
    made = []
    for number in range(12):
        (a,) = apart(k, y)
        made.append(heads(k, name=f"look_{11 - number}")(a, a))
    return k.Model(x, made[::-1])


@row
def heads_on_an_embedding(k: Any) -> Any:
    a, b = (k.Input((None,), dtype="int32", name=n) for n in "ab")
    embedding = k.layers.Embedding(IDS, UNITS, mask_zero=True)
    y, z = embedding(a), embedding(b)
    made = heads(k)(y, z)
    return k.Model([a, b], [made, soft(k, "LSTM")(made)])


@row
def heads_given_by_name(k: Any) -> Any:
    (q, a), (v, b) = sequence(k, "q"), sequence(k, "v")
    (c, d, e) = apart(k, a, b, b)
    return k.Model([q, v], heads(k)(c, key=d, value=e))


@row
def heads_with_the_key_in_place(k: Any) -> Any:
    (q, a), (v, b) = sequence(k, "q"), sequence(k, "v")
    return k.Model([q, v], heads(k)(*apart(k, a, b, b)))


@row
def heads_keyed_by_the_values(k: Any) -> Any:
    x, y = sequence(k, "x")
    (a, b) = apart(k, y, y)
    return k.Model(x, heads(k)(a, b, key=b))


@row
def heads_behind_heads(k: Any) -> Any:
    x, y = sequence(k, "x")
    a = heads(k)(y, y)
    b = heads(k, output_shape=3)(a, a)
    return k.Model(x, [b, soft(k)(b)])


@row
def heads_twice_on_the_same(k: Any) -> Any:
    # Keras 3 takes the masks off what it reads, so that the second layer finds none.
    x, y = sequence(k, "x")
    return k.Model(x, [heads(k, name="one")(y, y), heads(k, name="two")(y, y)])


@row
def heads_twice_on_the_same_values(k: Any) -> Any:
    (q, a), (v, b) = sequence(k, "q"), sequence(k, "v")
    (c, d) = apart(k, a, a)
    return k.Model([q, v], [heads(k, name="one")(c, b), heads(k, name="two")(d, b)])


@row
def shared_heads(k: Any) -> Any:
    (q, a), (v, b) = sequence(k, "q"), sequence(k, "v")
    look = heads(k)
    (c, d, e) = apart(k, a, b, b)
    return k.Model([q, v], [look(c, d), look(e, e)])


def block(k: Any, y: Any, **call: Any) -> Any:
    """A small transformer's."""
    L = k.layers
    y = L.LayerNormalization()(L.Add()([y, heads(k, dropout=0.1)(y, y, **call)]))
    z = L.Dense(UNITS)(L.Dense(6, activation="relu")(y))
    return L.LayerNormalization(epsilon=1e-4)(L.Add()([y, L.Dropout(0.2)(z)]))


def blocks(k: Any, count: int, masked: bool = True, **call: Any) -> Any:
    x, y = sequence(k, "x", masked)
    for _ in range(count):
        y = block(k, y, **call)
    return k.Model(x, [y, soft(k, "LSTM")(y)])


rows(
    block=functools.partial(blocks, count=1),
    block_without_masks=functools.partial(blocks, count=1, masked=False),
    two_blocks=functools.partial(blocks, count=2),
    two_blocks_without_masks=functools.partial(blocks, count=2, masked=False),
    two_causal_blocks=functools.partial(blocks, count=2, use_causal_mask=True),
)  # fmt: skip


@row
def block_that_normalises_first(k: Any) -> Any:
    L = k.layers
    x, y = sequence(k, "x")
    z = L.LayerNormalization()(y)
    y = L.Add()([y, heads(k)(z, z)])
    z = L.LayerNormalization()(y)
    y = L.Add()([y, heads(k)(z, z)])
    return k.Model(x, [y, soft(k)(y)])


@row
def block_between_recurrent_layers(k: Any) -> Any:
    x, y = sequence(k, "x")
    y = soft(k, "GRU", return_sequences=True)(block(k, y))
    return k.Model(x, [y, soft(k, "LSTM")(y)])


def encoder(k: Any, name: str = "encoder") -> Any:
    x = k.Input((None, UNITS), name=f"{name}_in")
    return k.Model(x, block(k, x), name=name)


@row
def block_in_a_model(k: Any) -> Any:
    x, y = sequence(k, "x")
    y = encoder(k)(y)
    return k.Model(x, [y, soft(k)(y)])


@row
def block_in_a_model_in_a_model(k: Any) -> Any:
    a = k.Input((None, UNITS))
    middle = k.Model(a, k.layers.Dense(3)(encoder(k)(k.layers.Dense(UNITS)(a))), name="middle")
    x, y = sequence(k, "x")
    y = middle(y)
    return k.Model(x, [y, soft(k)(y)])


@row
def block_in_a_model_called_twice(k: Any) -> Any:
    (q, a), (v, b) = sequence(k, "q"), sequence(k, "v", masked=False)
    made = encoder(k)
    return k.Model([q, v], [made(a), made(b)])


@row
def block_in_a_chain(k: Any) -> Any:
    return chained(k, soft(k, return_sequences=True), encoder(k), soft(k, "LSTM"))


@row
def cross_heads_in_a_model(k: Any) -> Any:
    a, b = k.Input((None, UNITS)), k.Input((None, UNITS))
    inner = k.Model([a, b], heads(k)(a, b, use_causal_mask=True), name="inner")
    (q, y), (v, z) = sequence(k, "q"), sequence(k, "v", steps=5)
    y = inner([y, z])
    return k.Model([q, v], [y, soft(k)(y)])


def after_heads(k: Any, kind: str, heads_first: bool, **options: Any) -> Any:
    """What else reads a masked tensor that heads have read."""
    x, y = sequence(k, "x")
    a = heads(k)(y, y)
    made = getattr(k.layers, kind)(**options)([a, y] if heads_first else [y, a])
    return k.Model(x, [made, soft(k)(made)])


for _kind in ("Add", "Multiply", "Maximum", "Concatenate", "Attention"):
    for _first in (False, True):
        _make = functools.partial(after_heads, kind=_kind, heads_first=_first)
        rows(**{f"{_kind}_of_{'heads_and_what_they_read' if _first else 'what_heads_read_and_them'}": _make})  # fmt: skip


@row
def mean_of_what_heads_read(k: Any) -> Any:
    x, y = sequence(k, "x")
    a = heads(k)(y, y)
    ys = (y, a, k.layers.Add()([y, a]))
    return k.Model(x, [soft(k)(t) for t in ys])


def heads_told(k: Any, masked: bool, dropout: float = 0.0) -> Any:
    """An explicit mask of queries and values, and scores."""
    (q, a), (v, b) = sequence(k, "q", masked, 4), sequence(k, "v", masked, 4)
    flags = k.Input((4, 4), name="flags")
    (c, d, e, f) = apart(k, a, b, a, b)
    one = heads(k, dropout=dropout)(c, d, attention_mask=flags)
    two = heads(k, dropout=dropout)(e, f, return_attention_scores=True, use_causal_mask=True)
    return k.Model([q, v, flags], [one, *two, soft(k)(two[0])])


for _masked, _dropout in itertools.product((False, True), (0.0, 0.3)):
    _make = functools.partial(heads_told, masked=_masked, dropout=_dropout)
    rows(**{f"heads_told_{_masked}_{_dropout}": _make})


@row
def recurrent_layers_after_heads(k: Any) -> Any:
    x, y = sequence(k, "x")
    a = heads(k)(y, y)
    both = k.layers.Concatenate()([y, a])
    made = [soft(k, "LSTM")(y), soft(k, "GRU")(both), soft(k, return_sequences=True)(k.layers.Dense(2)(y))]  # fmt: skip
    return k.Model(x, made)
