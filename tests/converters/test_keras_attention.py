"""Keras' attention, merges under masks, stacked cells, and whole models called step by step.

Every model is run by its framework on sequences that are masked in all kinds of ways, and converted
from every file form. Beside the parity rule of ``npylstm/parity.py`` outputs must be within 128
units in the last place of the largest value: where a softmax sees nothing at all, what rounding
explains has no bound.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
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
    IDS,
    WAYS,
    assert_parity,
    convert,
    flat,
    randomise,
    refused,
    run,
)

from npylstm import Model, ModelSpec, UnsupportedError

# One row each; 1 where a step counts.
PATTERNS = (
    "1111111",
    "0001111",
    "1111000",
    "1100111",
    "0101010",
    "1010101",
    "0000000",
    "0110100",
)
MASK = np.array([[step == "1" for step in row] for row in PATTERNS])
STEPS, FEATURES, UNITS = MASK.shape[1], 3, 4
# Words of letters.
LETTERS = np.array(
    [
        [[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]],
        [[1, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]],
        [[0, 0, 1, 1], [1, 0, 1, 0], [1, 1, 1, 1]],
        [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]],
    ],
    dtype=bool,
)
WORDS, SIZE = LETTERS.shape[1:]

pytestmark = [
    pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask"),
    pytest.mark.filterwarnings("ignore:.*does not support masking"),
]
frameworks = pytest.mark.parametrize("framework", FRAMEWORKS)

Make = Callable[[Any], Any]


def mask_of(shape: Sequence[int | None], number: int) -> np.ndarray:
    """Which steps count in an input; of two inputs each has its own, the last row has none."""
    if len(shape) > 2:
        rows = np.roll(LETTERS, number, axis=0)
        return rows if len(shape) == 3 else np.stack([rows, rows[::-1]], axis=1)
    steps = shape[1] or STEPS
    counts = np.roll(MASK, 3 * number, axis=0)[:, :steps]
    return np.concatenate([counts, np.zeros((1, steps), bool)])


def feed(model: Any) -> list[np.ndarray]:
    """One array per input: ids, flags, or numbers that are zero where they do not count."""
    rng = np.random.default_rng(2)
    arrays = []
    for number, tensor in enumerate(model.inputs):
        shape = tuple(None if d is None else int(d) for d in tensor.shape)
        name = str(tensor.name).split(":")[0]
        if "int" in str(getattr(tensor.dtype, "name", tensor.dtype)):
            counts = mask_of(shape, number)
            arrays.append((rng.integers(1, IDS, counts.shape) * counts).astype("int32"))
            continue
        counts = mask_of(shape[:-1], number)
        x: np.ndarray = rng.normal(size=(*counts.shape, shape[-1] or FEATURES)) * counts[..., None]
        kinds = {"flags": x > 0, "shares": rng.uniform(size=x.shape)}
        arrays.append(np.asarray(kinds.get(name, x)).astype("float32"))
    rows = min(map(len, arrays))
    return [array[:rows] for array in arrays]


def assert_close(ours: Any, theirs: Any) -> None:
    theirs = np.asarray(theirs)
    largest = np.abs(theirs[np.isfinite(theirs)]).max(initial=1.0)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=128 * np.finfo("f4").eps * largest)


def predicted(spec: ModelSpec, backend: str, xs: Sequence[np.ndarray]) -> list[np.ndarray]:
    return flat(Model(spec, backend).predict(list(xs) if len(xs) > 1 else xs[0]))


def assert_exact(specs: Sequence[ModelSpec], xs: Sequence[Any], ys: Sequence[np.ndarray]) -> None:
    """Parity, and no allowance for a softmax that sees nothing."""
    for spec in specs:
        assert len(spec.outputs) == len(ys)
        for ours, theirs in zip(predicted(spec, "numpy", xs), ys, strict=True):
            assert_close(ours, theirs)
    assert_parity(specs[0], [(xs, ys)])


def soft(k: Any, kind: str = "SimpleRNN", units: int = UNITS, **options: Any) -> Any:
    """A recurrent layer that tf_keras does not build for cuDNN, too, which takes a second each."""
    return getattr(k.layers, kind)(units, activation="softsign", **options)


def sequence(k: Any, name: str, masked: bool = True, steps: int | None = None) -> tuple[Any, Any]:
    """An input, and what a recurrent layer makes of it at each step."""
    x = k.Input((steps, FEATURES), name=name)
    y = k.layers.Masking(name=f"masking_{name}")(x) if masked else x
    return x, soft(k, return_sequences=True, name=f"rnn_{name}")(y)


def apart(k: Any, *tensors: Any) -> list[Any]:
    """The same again, in tensors that nobody else reads."""
    return [k.layers.Dense(UNITS)(t) for t in tensors]


def tensors(made: Any) -> list[Any]:
    return [t for m in made for t in tensors(m)] if isinstance(made, (list, tuple)) else [made]


def chained(k: Any, *layers: Any, shape: Sequence[int | None] = (None, FEATURES)) -> Any:
    return k.Sequential([k.Input(shape, name="x"), *layers])


ROWS: dict[str, Make] = {}


def row(make: Make) -> Make:
    ROWS[make.__name__] = make
    return make


def rows(**made: Make) -> None:
    ROWS.update(made)


# Several heads.

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


# One head.

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


# Whole models at each step.


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


# Keras cannot run these itself.
CANNOT = {
    ("tf_keras", "layers_at_each_step_that_know_nothing_of_masks"),  # Reshape refuses a mask there
}
# Where files differ most: shared and repeated names, groups, models inside.
IN_ALL_WAYS = {
    "masked_heads_of_all_sizes", "more_heads_than_ten", "block_in_a_model_in_a_model",
    "Attention_masks_qvk", "softmax_1_of_7_1", "stack_mixed", "stack_of_many",
    "stack_in_a_model_called_twice", "hierarchy", "hierarchy_of_a_graph",
    "two_models_at_each_step", "models_in_models_at_each_step", "Concatenate_of_some",
    "names_inside_like_those_outside", "a_model_at_each_step_and_alone",
    "a_stack_in_a_model_at_each_step",
}  # fmt: skip
assert set(ROWS) >= IN_ALL_WAYS
# Keras itself cannot read it from the other files: it writes the shared weights once.
ONLY_IN = {
    ("keras3", "a_model_at_each_step_and_alone"): ("live", "h5"),
    ("tf_keras", "a_model_at_each_step_and_alone"): ("live", "h5", "json"),
}
FILES = tuple(way for way in WAYS if way != "live")


def assert_exact_or_refused(model: Any) -> None:
    """For what need not be supported: a layer called odd is why."""
    randomise(model, 1)
    xs = feed(model)
    ys = run(model, xs)
    reasons: tuple[str, ...] = ()
    try:
        spec = nc.from_keras(model)
    except UnsupportedError as error:
        reasons = error.reasons
    if reasons:
        assert any(reason.startswith("odd: ") for reason in reasons), reasons
    else:
        assert_exact([spec], xs, ys)


# Keras 3 takes the mask off what heads read; which of two reads first, nothing in the graph tells.
RACES = ("heads_twice_on_the_same", "heads_twice_on_the_same_values")


@pytest.mark.parametrize("name", RACES)
def test_heads_that_race_for_a_mask_are_refused(name: str) -> None:
    reasons = refused(ROWS[name](keras))
    assert all("reads a mask that" in reason for reason in reasons)


@pytest.mark.parametrize(
    ("framework", "name"),
    [
        (f, n)
        for n in ROWS
        for f in FRAMEWORKS
        if (f, n) not in CANNOT and (f == "tf_keras" or n not in RACES)
    ],
)
@pytest.mark.one_in(4)
def test_models(framework: str, name: str, tmp_path: Path) -> None:
    k = FRAMEWORKS[framework]
    model = ROWS[name](k)
    randomise(model, 1)
    xs = feed(model)
    some = ("live", FILES[[*ROWS].index(name) % len(FILES)])
    ways = ONLY_IN.get((framework, name), WAYS if name in IN_ALL_WAYS else some)
    specs = [convert(model, way, tmp_path) for way in ways]
    assert_exact(specs, xs, run(model, xs))


@frameworks
def test_softmax_before_a_recurrent_layer(framework: str) -> None:
    # tf_keras hands the mask on, of whatever shape it is. Refusing is right, too.
    k = FRAMEWORKS[framework]
    x, flags = k.Input((STEPS, UNITS), name="x"), k.Input((STEPS, 1), name="flags")
    y = k.layers.Softmax(axis=1)(x, mask=flags)
    assert_exact_or_refused(k.Model([x, flags], soft(k, name="odd")(y)))


# Merges of unequal sizes: Keras spreads them, and their masks, too.


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", ["Multiply", "Maximum", "Add"])
@frameworks
def test_gates(framework: str, kind: str, masked: bool) -> None:
    k = FRAMEWORKS[framework]
    x, y = sequence(k, "x")
    gate = k.layers.Dense(1, activation="tanh")(y if masked else x)
    both = getattr(k.layers, kind)(name="odd")([y, gate])
    assert_exact_or_refused(k.Model(x, [both, soft(k)(both)]))


# Means over the steps that count.


def mean_of(k: Any, kind: str) -> Any:
    L = k.layers
    pool = L.GlobalAveragePooling1D(name="pool")
    if kind == "words":
        x = ids_in(k)
        y = L.Embedding(IDS, UNITS, mask_zero=True)(x)
        return k.Model(x, L.TimeDistributed(pool, name="each")(y))
    if kind == "model":
        a = k.Input((None, UNITS))
        inner = k.Model(a, pool(L.Dense(3, activation="tanh")(a)), name="inner")
        x, y = sequence(k, "x")
        return k.Model(x, [inner(y), L.Dense(2)(inner(y))])
    if kind == "merged":
        (p, a), (q, b) = sequence(k, "x"), sequence(k, "z")
        return k.Model([p, q], pool(L.Maximum()([a, b])))
    x = k.Input((None, FEATURES), name="x")
    y = L.Masking()(x)
    if kind == "heads":
        (y,) = apart(k, y)
        y = heads(k, dropout=0.1)(y, y)
    if kind == "stack":
        y = L.RNN(cells(k, "mixed"), return_sequences=True)(y)
    return k.Model(x, [pool(y), L.Dense(2)(pool(y))])


MEANS = ("direct", "heads", "stack", "merged", "model", "words")


@pytest.mark.parametrize("kind", MEANS)
@frameworks
def test_means_over_what_counts(framework: str, kind: str, tmp_path: Path) -> None:
    model = mean_of(FRAMEWORKS[framework], kind)
    randomise(model, 1)
    xs = feed(model)
    rows = [n for n in range(len(xs[0])) if all(np.any(x[n]) for x in xs)]
    if kind == "words":  # a word of nothing has no mean
        xs = [np.where(x == 0, np.eye(SIZE, dtype="int32")[0], x) for x in xs]
        rows = [*range(len(xs[0]))]
    some = [x[rows] for x in xs]
    specs = [convert(model, way, tmp_path) for way in ("live", "keras", "json")]
    assert_exact(specs, some, run(model, some))
    if kind in ("direct", "heads", "stack"):
        theirs = run(model, xs)
        assert np.isnan(theirs[0][-1]).all()
        for backend in BACKENDS:
            for ours, y in zip(predicted(specs[0], backend, xs), theirs, strict=True):
                np.testing.assert_array_equal(np.isnan(ours), np.isnan(y))
                assert_close(np.nan_to_num(ours), np.nan_to_num(y))


# Softmax that tf_keras computes in two ways.


def test_robust_masking() -> None:
    x, flags = (tf_keras.Input((STEPS, UNITS), name=name) for name in ("x", "flags"))
    layer = tf_keras.layers.Softmax(robust_masking=True, name="odd")
    assert_exact_or_refused(tf_keras.Model([x, flags], layer(x, mask=flags)))


# Stacks that go on where they stopped.

CHUNKS = ((0, 2), (2, 3), (3, 7))


@pytest.mark.parametrize("kind", ["gru", "mixed", "bare"])
@frameworks
def test_stacks_in_sessions(framework: str, kind: str) -> None:
    k = FRAMEWORKS[framework]
    model = chained(k, k.layers.RNN(cells(k, kind), return_sequences=True), k.layers.Dense(2))
    randomise(model, 1)
    x = np.random.default_rng(3).normal(size=(2, STEPS, FEATURES)).astype("float32")
    (whole,) = run(model, [x])
    for backend in BACKENDS:
        session = Model(nc.from_keras(model), backend).session(2)
        parts = [session.push(x[:, a:b]) for a, b in CHUNKS]
        assert_close(np.concatenate(parts, axis=1), whole)
        session = Model(nc.from_keras(model), backend).session(2)
        steps = [session.step(np.ascontiguousarray(x[:, t])) for t in range(STEPS)]
        assert_close(np.stack(steps, axis=1), whole)


@pytest.mark.parametrize("kind", ["lstm", "mixed"])
@frameworks
def test_stateful_stacks(framework: str, kind: str, tmp_path: Path) -> None:
    k = FRAMEWORKS[framework]
    x = k.Input(batch_shape=(2, None, FEATURES), name="x")
    stack = k.layers.RNN(cells(k, kind), stateful=True, return_sequences=True)
    model = k.Model(x, k.layers.Dense(2)(stack(x)))
    randomise(model, 1)
    specs = [convert(model, way, tmp_path) for way in WAYS]
    data = np.random.default_rng(3).normal(size=(2, STEPS, FEATURES)).astype("float32")
    theirs = [run(model, [data[:, a:b]])[0] for a, b in CHUNKS]
    assert np.abs(theirs[1] - Model(specs[0]).predict(data[:, 2:3])).max() > 1e-3
    for spec in specs:
        session = Model(spec).session(2)
        for (a, b), y in zip(CHUNKS, theirs, strict=True):
            assert_close(session.push(data[:, a:b]), y)


@frameworks
def test_masked_stacks_in_sessions(framework: str) -> None:
    k = FRAMEWORKS[framework]
    options = {"return_sequences": True, "zero_output_for_mask": True}
    model = chained(k, k.layers.Masking(), k.layers.RNN(cells(k, "mixed"), **options))
    randomise(model, 1)
    (x,) = feed(model)
    (whole,) = run(model, [x])
    session = Model(nc.from_keras(model)).session(len(x))
    parts = [session.push(x[:, a:b]) for a, b in CHUNKS]
    assert_close(np.concatenate(parts, axis=1), whole)


# What is refused, and why.


def odd(make: Callable[[Any, Any], Any], *shape: int | None) -> Make:
    """A model of one layer, called odd; ``make`` calls it on the input."""

    def made(k: Any) -> Any:
        x = k.Input(shape or (None, UNITS), name="x")
        return k.Model(x, tensors(make(k, x)))

    return made


def reader_of_vectors(k: Any) -> Any:
    return k.Sequential([k.Input((SIZE, UNITS)), soft(k), k.layers.Dense(2)])


O = {"name": "odd"}
# Models, and part of the reason.
REFUSED: dict[str, tuple[Make, str]] = {
    "axes": (odd(lambda k, x: heads(k, attention_axes=2, **O)(x, x), 2, 3, UNITS), "attention_axes"),
    "two axes": (odd(lambda k, x: heads(k, attention_axes=(1, 2), **O)(x, x), 2, 3, UNITS), "attention_axes"),
    "four axes": (odd(lambda k, x: heads(k, **O)(x, x), 2, 3, UNITS), ""),
    "shape of outputs": (odd(lambda k, x: heads(k, output_shape=(2, 3), **O)(x, x)), "output_shape"),
    "stack at each step": (odd(lambda k, x: k.layers.TimeDistributed(k.layers.RNN(cells(k, "rnn")), **O)(x), 2, 3, UNITS), "cells"),
    "softmax of a masked sequence": (odd(lambda k, x: k.layers.Softmax(**O)(k.layers.Masking()(x))), "Softmax"),
    "model at steps of steps": (odd(lambda k, x: k.layers.TimeDistributed(k.layers.TimeDistributed(reader_of_vectors(k)), **O)(x), 2, WORDS, SIZE, UNITS), ""),
}  # fmt: skip
REFUSED_IN_KERAS_3: dict[str, tuple[Make, str]] = {
    "gate": (odd(lambda k, x: heads(k, use_gate=True, **O)(x, x)), "use_gate"),
    "grouped": (odd(lambda k, x: k.layers.GroupQueryAttention(2, 4, 2, **O)(x, x)), "GroupQueryAttention"),
    "stack in a stack": (odd(lambda k, x: k.layers.RNN([k.layers.StackedRNNCells(cells(k, "rnn")), k.layers.GRUCell(3)], **O)(x)), "RNN of 2 cells"),
}  # fmt: skip
REFUSALS = {"keras3": REFUSED | REFUSED_IN_KERAS_3, "tf_keras": REFUSED}


@pytest.mark.parametrize(
    ("framework", "case"), [(f, case) for f in FRAMEWORKS for case in REFUSALS[f]]
)
def test_refusals(framework: str, case: str) -> None:
    make, words = REFUSALS[framework][case]
    reasons = refused(make(FRAMEWORKS[framework]))
    assert any(r.startswith("odd") and words in r for r in reasons), reasons


def test_states_in_reverse_order() -> None:
    # Cells of unequal sizes tf_keras cannot run so.
    L = tf_keras.layers
    x = tf_keras.Input((None, FEATURES), name="x")
    stack = L.StackedRNNCells([L.LSTMCell(3), L.LSTMCell(3)], reverse_state_order=True)
    made = L.RNN(stack, return_state=True, return_sequences=True, name="odd")(x)
    assert_exact_or_refused(tf_keras.Model(x, tensors(made)))


@frameworks
def test_pairs_of_stacks(framework: str) -> None:
    # Refusing is right, too.
    k = FRAMEWORKS[framework]
    pair = k.layers.Bidirectional(k.layers.RNN(cells(k, "gru"), return_sequences=True), name="odd")
    assert_exact_or_refused(chained(k, pair))


@frameworks
def test_a_stack_given_a_state(framework: str) -> None:
    k = FRAMEWORKS[framework]
    x = k.Input((None, FEATURES), name="x")
    a, b = k.Input((3,), name="a"), k.Input((5,), name="b")
    stack = k.layers.RNN([k.layers.GRUCell(3), k.layers.SimpleRNNCell(5)], name="stack")
    model = k.Model([x, a, b], stack(x, initial_state=[a, b]))
    assert any(reason.startswith("stack") for reason in refused(model))
