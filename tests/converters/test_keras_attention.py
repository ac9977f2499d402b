"""Keras' attention, merges under masks, stacked cells, and whole models called step by step.

Every model is run by its framework on sequences that are masked in all kinds of ways, and converted
from every file form. Beside the parity rule of ``npylstm/parity.py`` outputs must be within 128
units in the last place of the largest value: where a softmax sees nothing at all, what rounding
explains has no bound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import keras_attention_heads  # noqa: F401  fills ROWS
import keras_attention_stacks  # noqa: F401  fills ROWS
import keras_attention_steps  # noqa: F401  fills ROWS
import npylstm_converters as nc
import numpy as np
import pytest
import tf_keras
from keras_attention import (
    FEATURES,
    LETTERS,
    MASK,
    ROWS,
    SIZE,
    STEPS,
    UNITS,
    WORDS,
    Make,
    apart,
    chained,
    sequence,
    soft,
    tensors,
)
from keras_attention_heads import heads
from keras_attention_stacks import cells
from keras_attention_steps import ids_in
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

pytestmark = [
    pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask"),
    pytest.mark.filterwarnings("ignore:.*does not support masking"),
]
frameworks = pytest.mark.parametrize("framework", FRAMEWORKS)


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
