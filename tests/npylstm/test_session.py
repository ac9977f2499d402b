"""Sessions: however a sequence is cut, the numbers are those of the whole.

Numba sums in one order for every number of rows and steps: the same bits. BLAS may sum in another
order for another shape. Sums here have at most TERMS terms below 1 in size, so a gate moves by at
most TERMS eps; the cells contract (weights below 1 / sqrt(terms), slopes below 1), so it stays so.
"""

from __future__ import annotations

import gc
import re
import subprocess
import sys
import threading
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from backends import BACKENDS, COMPILED
from builders import make_chain, make_layer
from hypothesis import given, settings
from hypothesis import strategies as st

import npylstm
from npylstm import Model, ModelSpec, NpylstmError, ShapeError, StateError, UnsupportedError
from npylstm.activations import Activation
from npylstm.ops.arithmetic import Arithmetic, Constant, Reduce
from npylstm.ops.bidirectional import Bidirectional
from npylstm.ops.cells import GRU, LSTM, SimpleRNN
from npylstm.ops.convolution import Conv1D, Pool1D
from npylstm.ops.dense import Dense, Embedding
from npylstm.ops.indexing import Flip, Select, Slice
from npylstm.ops.normalization import BatchNormalization, LayerNormalization
from npylstm.ops.pointwise import ActivationLayer, Identity, PReLU
from npylstm.ops.products import MatMul
from npylstm.ops.shaping import Concatenate, Expand, Full, Reshape, Stack, Transpose
from npylstm.spec import Edge, LayerSpec, TensorSpec

TERMS = 41  # 20 inputs, 20 recurrent ones, a bias
STEPS = 67
SIZES = (1, 2, 7, 64)
DTYPES = ("float32", "float64")

CHAINS: dict[str, Any] = {
    "lstm": [LSTM(3, 5)],
    "lstm sequences": [LSTM(3, 5, return_sequences=True)],
    "projection": [LSTM(3, 5, projection=2, return_sequences=True)],
    "projection last": [LSTM(3, 5, projection=2), Dense(2, 2)],
    "gru": [GRU(3, 5, return_sequences=True)],
    "gru before": [GRU(3, 5, reset_after=False, return_sequences=True)],
    "rnn": [SimpleRNN(3, 5, return_sequences=True)],
    "stateful": [GRU(3, 5, stateful=True)],
    "stacked": [
        LSTM(3, 20, return_sequences=True), GRU(20, 9, return_sequences=True), SimpleRNN(9, 4),
        Dense(4, 2),
    ],
    "wide": [LSTM(3, 20, return_sequences=True), Dense(20, 70, Activation("tanh"))],
    "select": [GRU(3, 5, return_sequences=True), Select(1, -1), Dense(5, 2)],
    "select the first": [LSTM(3, 5, return_sequences=True), Select(1, -1), Reshape(((0, 0), 5, 1)),
                         Select(1, 0)],
    "others": [
        LayerNormalization((3,), 1e-3), LSTM(3, 5, return_sequences=True), Identity(),
        ActivationLayer(Activation("softmax")), Dense(5, 4), Reduce("mean", (2,), keepdims=True),
        Arithmetic("multiply", 2.0), LSTM(1, 3),
    ],
    "one feature": [LSTM(3, 5, return_sequences=True), Select(2, 1)],
    "no memory": [Dense(3, 4, Activation("tanh"))],
    "after the last step": [
        LSTM(3, 5), Stack(1, 4), Dense(5, 3), Flip((1,)), Reshape(((0, 0), -1)),
        ActivationLayer(Activation("softmax")),
    ],
    "convolved features": [LSTM(3, 5), Reshape(((0, 0), 5, 1)), Conv1D(1, 2, 3), Reshape(((0, 0), -1)), Dense(6, 2)],
}  # fmt: skip


def chain(kind: str, dtype: str = "float32", **others: Any) -> ModelSpec:
    return make_chain(*CHAINS[kind], dtype=dtype, **others)


def graph(
    inputs: dict[str, Any], outputs: tuple[str, ...], *calls: Any, dtype: str = "float32"
) -> ModelSpec:
    """Layers called in turn, each ``(name, layer, *tensors)``; a name again calls it again."""
    rng = np.random.default_rng(5)
    layers: dict[str, LayerSpec] = {}
    edges = []
    for name, layer, *tensors in calls:
        again = name in layers
        made = layers.setdefault(name, layers.get(name) or make_layer(name, layer, rng, dtype))
        edge = Edge.call(made, *tensors)
        renamed = tuple(t.replace(name, f"{name}#2", 1) for t in edge.outputs)
        edges.append(replace(edge, outputs=renamed) if again else edge)
    specs = tuple(TensorSpec(name, shape) for name, shape in inputs.items())
    return ModelSpec(tuple(layers.values()), tuple(edges), specs, outputs, dtype=dtype)


X, V, LONG = ("batch", "steps", 3), ("batch", 2), ("batch", 24, 3)

GRAPHS: dict[str, Any] = {
    "static": lambda d: graph(
        {"x": X, "v": V}, ("out",), ("rnn", LSTM(3, 4), "x"), ("b", Dense(2, 3), "v"),
        ("join", Concatenate(1), "rnn", "b"), ("out", Dense(7, 2), "join"), dtype=d,
    ),
    "static everywhere": lambda d: graph(
        {"v": V, "x": X}, ("out",), ("b", Dense(2, 3), "v"), ("row", Reshape(((0, 0), 1, 3)), "b"),
        ("sum", Arithmetic("add"), "x", "row"), ("out", GRU(3, 4, return_sequences=True), "sum"),
        dtype=d,
    ),
    "two sequences": lambda d: graph(
        {"x": X, "z": ("batch", "steps", 2)}, ("b", "a"), ("join", Concatenate(2), "x", "z"),
        ("a", LSTM(5, 4, return_sequences=True), "join"), ("b", GRU(4, 3), "a"), dtype=d,
    ),
    "a matrix for all steps": lambda d: graph(
        {"x": X, "m": ("batch", 3, 4)}, ("out",), ("turned", MatMul(), "x", "m"),
        ("out", GRU(4, 2, return_sequences=True), "turned"), dtype=d,
    ),
    "shared": lambda d: graph(
        {"x": X, "z": X}, ("out",), ("rnn", LSTM(3, 4), "x"), ("rnn", None, "z"),
        ("out", Arithmetic("subtract"), "rnn", "rnn#2"), dtype=d,
    ),
    "shared in a row": lambda d: graph(
        {"x": X}, ("rnn#2",), ("rnn", GRU(3, 3, return_sequences=True), "x"),
        ("rnn", None, "rnn"), dtype=d,
    ),
    "begins elsewhere": lambda d: graph(
        {"x": X}, ("rnn",), ("h", Full(((0, 0), 4), 0.5), "x"),
        ("rnn", GRU(3, 4, return_sequences=True), "x", "h"), dtype=d,
    ),
    "begins where it learned to": lambda d: graph(
        {"x": X}, ("rnn",), ("learned", Constant((1, 4))), ("h", Expand(((1, 0), 4)), "learned", "x"),
        ("c", Full(((0, 0), 4), 0.5), "x"), ("rnn", LSTM(3, 4), "x", "h", "c"), dtype=d,
    ),
    "states": lambda d: graph(
        {"x": X}, ("rnn/c", "rnn"), ("rnn", LSTM(3, 4, return_sequences=True, return_state=True),
        "x"), dtype=d,
    ),
}  # fmt: skip


def numbers(*shape: int, seed: int = 0, dtype: str = "float32") -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def agree(actual: Any, expected: Any, backend: str) -> None:
    if isinstance(expected, dict):
        assert list(actual) == list(expected)
        for name in expected:
            agree(actual[name], expected[name], backend)
        return
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    atol = 0 if backend == COMPILED else TERMS * np.finfo(expected.dtype).eps
    np.testing.assert_allclose(actual, expected, rtol=0, atol=atol)


def same(actual: Any, expected: Any) -> None:
    """The same bits, types and shapes, in arrays or mappings of them."""
    if isinstance(expected, dict):
        assert list(actual) == list(expected)
        for name in expected:
            same(actual[name], expected[name])
    else:
        np.testing.assert_array_equal(actual, expected, strict=True)


def stitch(parts: list[Any], spec: ModelSpec) -> Any:
    """Chunks of outputs: sequences set end to end; of the others the last counts."""
    if isinstance(parts[0], dict):
        shapes = {t.name: t.shape for t in spec.output_specs}
        return {
            name: np.concatenate([p[name] for p in parts], 1)
            if "steps" in shape else parts[-1][name]
            for name, shape in shapes.items()
        }  # fmt: skip
    shape = spec.output_specs[0].shape
    return np.concatenate(parts, shape.index("steps")) if "steps" in shape else parts[-1]


def push_in_chunks(session: Any, x: Any, sizes: Any) -> Any:
    """Push chunks of these sizes in turn, until the end."""
    parts, start, sizes = [], 0, list(sizes)
    while start < x.shape[1]:
        size = sizes[len(parts) % len(sizes)]
        parts.append(session.push(x[:, start : start + size]))
        start += size
    return stitch(parts, session.model.spec)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", CHAINS)
def test_chunks_of_any_size_give_the_numbers_of_the_whole(
    kind: str, dtype: str, backend: str
) -> None:
    model = Model(chain(kind, dtype), backend)
    x = numbers(5, STEPS, 3, dtype=dtype)
    whole, after = model.predict(x, return_state=True)
    session = model.session(5)
    agree(session.push(x), whole, backend)
    agree(session.state, after, backend)
    for size in SIZES:
        session.reset()
        agree(push_in_chunks(session, x, [size]), whole, backend)
        agree(session.state, after, backend)


@settings(max_examples=80)
@given(
    kind=st.sampled_from(sorted(CHAINS)),
    dtype=st.sampled_from(DTYPES),
    backend=st.sampled_from(BACKENDS),
    batch=st.integers(1, 6),
    chunks=st.lists(st.integers(1, 70), min_size=1, max_size=6),
    seed=st.integers(0, 2**20),
)
def test_random_chunks_give_the_numbers_of_the_whole(
    kind: str, dtype: str, backend: str, batch: int, chunks: list[int], seed: int
) -> None:
    model = Model(chain(kind, dtype, seed=seed), backend)
    x = numbers(batch, sum(chunks), 3, seed=seed, dtype=dtype)
    agree(push_in_chunks(model.session(batch), x, chunks), model.predict(x), backend)


@pytest.mark.parametrize("kind", CHAINS)
def test_every_chunk_ends_where_predict_of_the_beginning_does(kind: str, backend: str) -> None:
    model = Model(chain(kind), backend)
    x = numbers(2, 12, 3)
    session, end = model.session(2), 0
    for size in (1, 4, 2, 5):
        y, end = session.push(x[:, end : end + size]), end + size
        expected = model.predict(x[:, :end])
        timed = "steps" in model.outputs[0].shape
        agree(y, expected[:, -size:] if timed else expected, backend)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", CHAINS)
def test_a_step_is_a_push_of_one(kind: str, dtype: str, backend: str) -> None:
    model = Model(chain(kind, dtype), backend)
    x = numbers(3, 9, 3, dtype=dtype)
    stepping, pushing = model.session(3), model.session(3)
    for t in range(9):
        y = stepping.step(x[:, t])
        pushed = pushing.push(x[:, t : t + 1])
        same(y, pushed[:, 0] if "steps" in model.outputs[0].shape else pushed)
    same(stepping.state, pushing.state)
    expected = model.predict(x)
    agree(y, expected[:, -1] if "steps" in model.outputs[0].shape else expected, backend)


def test_steps_and_pushes_of_one_session_go_on_from_each_other(backend: str) -> None:
    model = Model(chain("stacked"), backend)
    x = numbers(2, 20, 3)
    session = model.session(2)
    session.push(x[:, :7])
    session.step(x[:, 7])
    session.push(x[:, 8:19])
    agree(session.step(x[:, 19]), model.predict(x), backend)


def test_time_may_come_first(backend: str) -> None:
    layers = [
        LSTM(3, 5, return_sequences=True, time_major=True), Transpose((1, 0, 2)),
        GRU(5, 4, return_sequences=True), Transpose((1, 0, 2)),
    ]  # fmt: skip
    model = Model(make_chain(*layers, shape=("steps", "batch", 3)), backend)
    x = numbers(11, 2, 3)
    whole = model.predict(x)
    session = model.session(2)
    parts = [session.push(x[:4]), session.push(x[4:9]), session.step(x[9])[None]]
    agree(np.concatenate([*parts, session.push(x[10:])]), whole, backend)


@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("steps", ["steps", 12])
def test_ids_are_steps_without_an_axis_of_features(
    sequences: bool, whole: bool, steps: Any, backend: str
) -> None:
    layers = [Embedding(9, 4), LSTM(4, 5, return_sequences=sequences)]
    free = make_chain(*layers, shape=("batch", "steps"))
    spec = replace(free, inputs=(TensorSpec("x", ("batch", steps), whole),))
    ids = np.random.default_rng(0).integers(0, 9, (3, 20))
    expected = Model(free, backend).predict(ids)
    session = Model(spec, backend).session(3)
    parts = [session.push(ids[:, start : start + 3]) for start in range(0, 20, 3)]
    agree(stitch(parts, free), expected, backend)
    session.reset()
    y = [session.step(ids[:, t]) for t in range(20)]
    agree(np.stack(y, 1) if sequences else y[-1], expected, backend)


@pytest.mark.parametrize(
    "layers",
    [
        [LSTM(1, 5, return_sequences=True), GRU(5, 3), Dense(3, 1)],
        [GRU(1, 5, return_sequences=True), Dense(5, 1), LayerNormalization((1,), 1.0)],
        [Identity(), SimpleRNN(1, 5, return_sequences=True), Select(1, -1), Dense(5, 1)],
    ],
)
def test_pinned_steps_are_free_here(layers: list[Any], backend: str) -> None:
    pinned = Model(make_chain(*layers, shape=("batch", 24, 1)), backend)
    free = Model(make_chain(*layers, shape=("batch", "steps", 1)), backend)
    x = numbers(2, 40, 1)
    whole = free.predict(x)
    for size in (1, 7, 24, 30, 40):
        session = pinned.session(2)
        parts = [session.push(x[:, start : start + size]) for start in range(0, 40, size)]
        agree(stitch(parts, free.spec), whole, backend)
    session = pinned.session(2)
    y = [session.step(x[:, t]) for t in range(40)]
    agree(np.stack(y, 1) if whole.ndim == 3 else y[-1], whole, backend)
    with pytest.raises(ShapeError):  # predict goes on to expect them
        pinned.predict(x)


def inputs_of(kind: str, steps: int, dtype: str = "float32", batch: int = 3) -> Any:
    """Inputs of a graph by name, and which of them have steps."""
    shapes = GRAPHS[kind](dtype).inputs
    sizes = {"batch": batch, "steps": steps}
    arrays = {
        t.name: numbers(*(sizes.get(d, d) for d in t.shape), seed=k, dtype=dtype)
        for k, t in enumerate(shapes)
    }
    return arrays, {t.name for t in shapes if "steps" in t.shape}


def cut(inputs: Any, timed: Any, where: Any) -> Any:
    return {name: x[:, where] if name in timed else x for name, x in inputs.items()}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", GRAPHS)
def test_graphs_stream(kind: str, dtype: str, backend: str) -> None:
    model = Model(GRAPHS[kind](dtype), backend)
    if kind == "a matrix for all steps":
        backend = "numpy"  # the product is BLAS's with either
    inputs, timed = inputs_of(kind, 23, dtype)
    whole, after = model.predict(inputs, return_state=True)
    for size in (1, 2, 7, 23):
        session = model.session(3)
        parts = [
            session.push(cut(inputs, timed, slice(start, start + size)))
            for start in range(0, 23, size)
        ]
        agree(stitch(parts, model.spec), whole, backend)
        if after:  # empty where the graph gives the state
            agree(session.state, after, backend)
    stepping = model.session(3)
    for t in range(23):
        by_name = cut(inputs, timed, t)
        y = stepping.step(by_name if t % 2 or len(inputs) == 1 else list(by_name.values()))
    if after:
        agree(stepping.state, after, backend)
    if isinstance(whole, dict):
        shapes = {t.name: t.shape for t in model.outputs}
        whole = {n: a[:, -1] if "steps" in shapes[n] else a for n, a in whole.items()}
    elif "steps" in model.outputs[0].shape:
        whole = whole[:, -1]
    agree(y, whole, backend)


def test_one_layer_may_begin_elsewhere_and_another_at_zero(backend: str) -> None:
    model = Model(
        graph(
            {"x": X}, ("out",), ("h", Full(((0, 0), 4), 0.5), "x"),
            ("rnn", GRU(3, 4, return_sequences=True), "x", "h"), ("out", LSTM(4, 2), "rnn"),
        ), backend,
    )  # fmt: skip
    x = numbers(3, 7, 3)
    whole = model.predict(x)
    session = model.session(3)
    begun = session.state
    assert (begun["rnn"]["h"] == 0.5).all()
    assert not begun["out"]["h"].any()
    session.push(x[:, :4])
    agree(session.push(x[:, 4:]), whole, backend)
    session.reset(np.array([True, True, True]))
    same(session.state, begun)
    pool = model.pool(3)
    pool.add(range(3))
    agree(pool.push(range(3), x), whole, backend)


def test_static_inputs_may_change_from_push_to_push(backend: str) -> None:
    model = Model(GRAPHS["static"]("float32"), backend)
    inputs, _ = inputs_of("static", 8)
    session = model.session(3)
    session.push(inputs)
    other = numbers(3, 2, seed=9)
    x = numbers(3, 2, 3, seed=4)
    expected = model.predict([np.concatenate([inputs["x"], x], 1), other])
    agree(session.push([x, other]), expected, backend)


def test_what_a_step_returns_is_the_callers(backend: str) -> None:
    x = numbers(2, 4, 3)
    for layers in ([LSTM(3, 5)], [LSTM(3, 5), Identity()], [GRU(3, 5), Dense(5, 2)]):
        model = Model(make_chain(*layers), backend)
        session = model.session(2)
        first = session.step(x[:, 0])
        kept = first.copy()
        second = session.step(x[:, 1])
        same(first, kept)
        assert not np.shares_memory(first, second)
        first[:] = second[:] = 7
        agree(session.push(x[:, 2:]), model.predict(x), backend)


def test_outputs_are_not_the_callers_inputs(backend: str) -> None:
    model = Model(make_chain(Identity(), shape=("batch", "steps", 3)), backend)
    session = model.session(2)
    x = numbers(2, 4, 3)
    kept = x.copy()
    session.push(x)[:] = 7
    session.step(x[:, 0])[:] = 7
    same(x, kept)


def test_inputs_are_never_written_to(backend: str) -> None:
    x = numbers(2, 4, 3)
    x.flags.writeable = False
    session = Model(chain("stacked"), backend).session(2)
    session.push(x)
    session.step(x[:, 0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_outputs_can_be_written_into_a_given_array(dtype: str, backend: str) -> None:
    model = Model(chain("stacked", dtype), backend)
    x = numbers(2, 6, 3, dtype=dtype)
    given_out, fresh = model.session(2), model.session(2)
    out = np.full((2, 2), 9.0, dtype)
    for t in range(6):
        assert given_out.step(x[:, t], out=out) is out
        same(out, fresh.step(x[:, t]))
    expected = fresh.push(x)
    taken = np.full_like(expected, 9.0)
    assert given_out.push(x, out=taken) is taken
    same(taken, expected)


def test_foreign_inputs_will_do_for_steps(backend: str) -> None:
    model = Model(chain("stacked"), backend)
    x = numbers(2, 3)
    expected = model.session(2).step(x)
    for given_x in (
        x.tolist(), np.asfortranarray(x), x.astype(">f4"), x.astype("float64"), {"x": x},
        np.repeat(x, 2, 0)[::2],
    ):  # fmt: skip
        same(model.session(2).step(given_x), expected)
    counted = model.session(2).step(np.ones((2, 3), "float32"))
    same(model.session(2).step(np.ones((2, 3), int)), counted)
    same(model.session(2).step(np.ones((2, 3), bool)), counted)


def bad_outs() -> dict[str, Any]:
    read_only = np.zeros((2, 2), "float32")
    read_only.flags.writeable = False
    return {
        "another shape": np.zeros((2, 3), "float32"),
        "another type": np.zeros((2, 2), "float64"),
        "another order": np.zeros((2, 2), "float32", order="F"),
        "gaps": np.zeros((2, 4), "float32")[:, ::2],
        "read only": read_only,
        "a list": [[0.0, 0.0], [0.0, 0.0]],
    }


@pytest.mark.parametrize("kind", bad_outs())
def test_an_array_that_cannot_take_the_output_is_refused(kind: str, backend: str) -> None:
    session = Model(chain("stacked"), backend).session(2)
    session.push(numbers(2, 3, 3))
    before, out = session.state, bad_outs()[kind]
    kept = np.array(out)
    for call, x in ((session.step, numbers(2, 3)), (session.push, numbers(2, 4, 3))):
        with pytest.raises(NpylstmError, match="out"):
            call(x, out=out)
        same(session.state, before)
    np.testing.assert_array_equal(out, kept)


def test_out_is_for_one_output(backend: str) -> None:
    session = Model(GRAPHS["states"]("float32"), backend).session(2)
    for call, x in ((session.step, numbers(2, 3)), (session.push, numbers(2, 4, 3))):
        with pytest.raises(NpylstmError, match="out"):
            call(x, out=np.zeros((2, 4), "float32"))
    assert not session.state["rnn"]["h"].any()


# State.


@pytest.mark.parametrize("kind", CHAINS)
def test_states_are_named_and_begin_with_zeros(kind: str, backend: str) -> None:
    model = Model(chain(kind), backend)
    state = model.session(4).state
    expected = model.predict(np.zeros((4, 1, 3)), return_state=True)[1]
    assert {k: set(v) for k, v in state.items()} == {k: set(v) for k, v in expected.items()}
    for name, entries in state.items():
        for entry, array in entries.items():
            assert array.shape == expected[name][entry].shape
            assert array.dtype == np.float32
            assert not array.any()


def test_each_call_of_a_shared_layer_has_its_state(backend: str) -> None:
    model = Model(GRAPHS["shared"]("float32"), backend)
    x = numbers(2, 9, 3)
    session = model.session(2)
    session.push([x, 2 * x])
    state = session.state
    assert set(state) == {"rnn", "rnn#2"}
    alone = Model(make_chain(LSTM(3, 4)), backend)
    alone = Model(
        replace(alone.spec, layers=(replace(model.spec["rnn"], name="layer_0"),)), backend
    )
    for name, given_x in (("rnn", x), ("rnn#2", 2 * x)):
        agree(state[name], alone.predict(given_x, return_state=True)[1]["layer_0"], backend)


def test_reset_begins_anew(backend: str) -> None:
    model = Model(chain("stacked"), backend)
    x = numbers(3, 9, 3)
    fresh, session = model.session(3), model.session(3)
    session.push(x)
    session.reset()
    same(session.state, fresh.state)
    same(session.push(x), fresh.push(x))


@pytest.mark.parametrize("kind", ["begins elsewhere", "begins where it learned to"])
def test_reset_goes_back_to_where_the_model_begins(kind: str, backend: str) -> None:
    model = Model(GRAPHS[kind]("float32"), backend)
    x = numbers(3, 9, 3)
    session, mask = model.session(3), np.array([False, True, False])
    first = session.push(x)
    session.reset()
    same(session.push(x), first)
    session.reset(where=mask)
    same(session.push(x)[mask], first[mask])


def test_outputs_do_not_share_memory(backend: str) -> None:
    spec = graph(
        {"x": X}, ("rnn", "same", "flat"), ("rnn", LSTM(3, 4), "x"), ("same", Identity(), "rnn"),
        ("flat", Reshape(((0, 0), 4)), "rnn"),
    )  # fmt: skip
    session = Model(spec, backend).session(2)
    for y in (session.push(numbers(2, 3, 3)), session.step(numbers(2, 3))):
        kept = y["rnn"].copy()
        y["same"][:] = 7
        y["flat"][:] = 8
        same(y["rnn"], kept)


@pytest.mark.parametrize("kind", ["stacked", "projection", "gru before"])
def test_reset_of_some_rows_leaves_the_others(kind: str, backend: str) -> None:
    model = Model(chain(kind), backend)
    x = numbers(5, 9, 3)
    mask = np.array([True, False, True, False, False])
    for where in (mask, mask.tolist()):
        session, going = model.session(5), model.session(5)
        session.push(x)
        going.push(x)
        session.reset(where=where)
        y, expected = session.push(x), going.push(x)
        same(y[~mask], expected[~mask])
        same(y[mask], model.session(5).push(x)[mask])


def test_a_mask_of_no_rows_resets_none(backend: str) -> None:
    session = Model(chain("lstm"), backend).session(2)
    session.push(numbers(2, 3, 3))
    before = session.state
    session.reset(where=np.zeros(2, bool))
    same(session.state, before)
    session.reset(where=np.ones(2, bool))
    assert not any(a.any() for a in session.state["layer_0"].values())


def test_states_come_and_go_as_copies(backend: str) -> None:
    model = Model(chain("stacked"), backend)
    x = numbers(2, 9, 3)
    session = model.session(2)
    session.push(x)
    kept = session.state
    taken = session.state
    for entries in taken.values():
        for array in entries.values():
            array[:] = 5
    same(session.state, kept)
    session.state = taken
    for entries in taken.values():
        for array in entries.values():
            array[:] = 6
    assert all((a == 5).all() for entries in session.state.values() for a in entries.values())


def test_a_state_rolls_back(backend: str) -> None:
    model = Model(chain("stacked"), backend)
    x = numbers(2, 9, 3)
    session = model.session(2)
    session.push(x[:, :4])
    state = session.state
    first = session.push(x[:, 4:])
    after = session.state
    session.state = state
    same(session.push(x[:, 4:]), first)
    same(session.state, after)


def test_states_of_sessions_and_of_predict_are_the_same_thing(backend: str) -> None:
    for kind in ("stacked", "projection"):
        model = Model(chain(kind), backend)
        x = numbers(2, 9, 3)
        _, state = model.predict(x[:, :4], return_state=True)
        session = model.session(2)
        session.state = state
        agree(session.push(x[:, 4:]), model.predict(x[:, 4:], state=state), backend)
        agree(session.state, model.predict(x, return_state=True)[1], backend)


def test_states_may_be_lists_and_of_other_types(backend: str) -> None:
    session = Model(chain("gru"), backend).session(2)
    values = numbers(2, 5)
    session.state = {"layer_0": {"h": values.astype("float64").tolist()}}
    same(session.state, {"layer_0": {"h": values}})


def test_predict_knows_nothing_of_sessions(backend: str) -> None:
    model = Model(chain("stateful"), backend)
    x = numbers(2, 9, 3)
    before = model.predict(x)
    session = model.session(2)
    session.push(x)
    same(model.predict(x), before)
    assert not np.array_equal(session.push(x), before)


def test_a_copy_goes_its_own_way(backend: str) -> None:
    model = Model(chain("stacked"), backend)
    x, other = numbers(2, 9, 3), numbers(2, 9, 3, seed=1)
    session = model.session(2)
    session.push(x[:, :4])
    copy = session.copy()
    assert copy.model is model
    assert copy.batch_size == 2
    agree(copy.push(other), model.predict(np.concatenate([x[:, :4], other], 1)), backend)
    agree(session.push(x[:, 4:]), model.predict(x), backend)


def test_a_copy_keeps_its_view_of_nan(backend: str) -> None:
    copy = Model(chain("lstm"), backend).session(1, nan="raise").copy()
    with pytest.raises(ShapeError):
        copy.step([[0.0, np.nan, 0.0]])


# Saving.

ELSEWHERE = """
import sys
from pathlib import Path
import numpy as np
import npylstm
folder = Path(sys.argv[1])
for path in sorted(folder.glob("*.model.npz")):
    name = str(path).removesuffix(".model.npz")
    session = npylstm.load(path, sys.argv[2]).session(3)
    session.restore(name + ".session.npz")
    x = np.load(name + ".x.npy")
    np.save(name + ".y.npy", session.push(x[:, :5]))
    np.save(name + ".step.npy", session.step(x[:, 5]))
    session.save(name + ".after.npz")
"""


def test_a_saved_session_goes_on_in_another_process(tmp_path: Path, backend: str) -> None:
    going = {}
    for kind in CHAINS:
        for dtype in DTYPES:
            name = f"{kind.replace(' ', '_')}_{dtype}"
            model = Model(chain(kind, dtype), backend)
            x = numbers(3, 13, 3, dtype=dtype)
            session = model.session(3)
            session.push(x[:, :7])
            model.save(tmp_path / f"{name}.model.npz")
            session.save(tmp_path / f"{name}.session.npz")
            np.save(tmp_path / f"{name}.x.npy", x[:, 7:])
            going[name] = (session, session.push(x[:, 7:12]), session.step(x[:, 12]))
    subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(tmp_path), backend], check=True, timeout=120
    )
    for name, (session, y, step) in going.items():
        same(np.load(tmp_path / f"{name}.y.npy"), y)
        same(np.load(tmp_path / f"{name}.step.npy"), step)
        restored = session.copy()
        restored.reset()
        restored.restore(tmp_path / f"{name}.after.npz")
        same(restored.state, session.state)


def test_a_session_file_is_plain_and_holds_every_bit(tmp_path: Path, backend: str) -> None:
    session = Model(chain("stacked"), backend).session(2)
    odd = session.state
    odd["layer_0"]["h"][0, :4] = [np.nan, -np.inf, -0.0, 1e-45]
    session.state = odd
    path = tmp_path / "s.npz"
    session.save(str(path))
    with np.load(path, allow_pickle=False) as file:
        assert all(file[key].dtype != object for key in file.files)
    other = session.copy()
    other.reset()
    other.restore(str(path))
    for layer, entries in odd.items():
        for name, array in entries.items():
            assert other.state[layer][name].tobytes() == array.tobytes()


def test_sessions_are_saved_over_older_ones(tmp_path: Path, backend: str) -> None:
    session = Model(chain("lstm"), backend).session(2)
    session.save(tmp_path / "s.npz")
    session.push(numbers(2, 5, 3))
    session.save(tmp_path / "s.npz")
    kept = session.state
    session.reset()
    session.restore(tmp_path / "s.npz")
    same(session.state, kept)
    assert [p.name for p in tmp_path.iterdir()] == ["s.npz"]


class Bomb:
    """Sets a flag where it is unpickled."""

    gone_off: list[int] = []  # noqa: RUF012

    def __reduce__(self) -> Any:
        return (Bomb.gone_off.append, (1,))


def damaged_files(folder: Path, model: Model) -> dict[str, Path]:
    """Files that are no session of this model, each for one reason."""
    session = model.session(2)
    session.push(numbers(2, 5, 3))
    good = folder / "good.npz"
    session.save(good)
    with np.load(good) as file:
        arrays = {key: file[key] for key in file.files}
    state_keys = [k for k, a in arrays.items() if a.shape[:1] == (2,)]
    files: dict[str, Path] = {}

    def write(name: str, change: dict[str, Any], drop: str | None = None) -> None:
        files[name] = folder / f"{len(files)}.npz"
        kept = {k: a for k, a in {**arrays, **change}.items() if k != drop}
        np.savez(files[name], **kept)

    def write_bytes(name: str, content: bytes) -> None:
        files[name] = folder / f"{len(files)}.npz"
        files[name].write_bytes(content)

    key = state_keys[-1]
    write("a missing state", {}, drop=key)
    write("another key", {"unheard/of": np.zeros((2, 2), "float32")})
    write("another shape", {key: arrays[key][:, :-1]})
    write("another batch in one state", {key: arrays[key][:1]})
    write("objects", {key: np.array([[Bomb()], [Bomb()]], dtype=object)})
    write("words", {key: np.full(arrays[key].shape, "a")})
    write("complex numbers", {key: arrays[key] * 1j})
    content = good.read_bytes()
    write_bytes("half a file", content[: len(content) // 2])
    write_bytes("nothing", b"")
    write_bytes("prose", b"no archive at all")
    data = arrays[key].tobytes()
    at = content.rindex(data)  # the archive does not compress, or this test must
    flipped = bytearray(content)
    flipped[at + 2] ^= 64
    write_bytes("a flipped bit", bytes(flipped))
    files["a model"] = folder / "model.npz"
    model.save(files["a model"])
    for name, other, batch in (
        ("another batch", model, 3),
        ("another model", Model(chain("gru"), "numpy"), 2),
        ("other units", Model(make_chain(LSTM(3, 20, return_sequences=True),
         GRU(20, 9, return_sequences=True), SimpleRNN(9, 3), Dense(3, 2)), "numpy"), 2),
    ):  # fmt: skip
        files[name] = folder / f"{len(files)}.npz"
        other.session(batch).save(files[name])
    return files


DAMAGES = (
    "a missing state", "another key", "another shape", "another batch in one state", "objects",
    "words", "complex numbers", "half a file", "nothing", "prose", "a flipped bit", "a model",
    "another batch", "another model", "other units",
)  # fmt: skip
# The file itself is wrong, not the state that it holds.
DAMAGED = {
    "another key", "objects", "words", "complex numbers", "half a file", "nothing", "prose",
    "a flipped bit", "a model",
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_no_session_of_the_model_is_refused(
    damage: str, tmp_path: Path, backend: str
) -> None:
    model = Model(chain("stacked"), backend)
    files = damaged_files(tmp_path, model)
    assert set(files) == set(DAMAGES)
    session = model.session(2)
    session.push(numbers(2, 4, 3, seed=1))
    before = session.state
    expected: Any = (StateError, npylstm.FormatError) if damage in DAMAGED else StateError
    with pytest.raises(expected):
        session.restore(files[damage])
    same(session.state, before)
    assert not Bomb.gone_off


def test_a_file_that_is_not_there_is_an_os_error(tmp_path: Path, backend: str) -> None:
    session = Model(chain("lstm"), backend).session(1)
    with pytest.raises(FileNotFoundError):
        session.restore(tmp_path / "nowhere.npz")


# Along the batch.


@pytest.mark.parametrize("sizes", [None, [1, 2, 2], [4, 1], [5]])
@pytest.mark.parametrize("kind", ["stacked", "projection", "rnn"])
def test_sessions_split_and_join(kind: str, sizes: Any, backend: str) -> None:
    model = Model(chain(kind), backend)
    x = numbers(5, 12, 3)
    whole = model.session(5)
    whole.push(x[:, :5])
    before = whole.state
    parts = whole.split() if sizes is None else whole.split(sizes)
    assert [p.batch_size for p in parts] == (sizes or [1] * 5)
    assert all(p.model is model for p in parts)
    rows = np.cumsum([0, *(sizes or [1] * 5)])
    y = [p.push(x[a:b, 5:9]) for p, a, b in zip(parts, rows, rows[1:], strict=False)]
    same(whole.state, before)  # the parts are copies
    agree(np.concatenate(y), whole.push(x[:, 5:9]), backend)
    joined = npylstm.Session.join(parts)
    assert joined.batch_size == 5
    assert joined.model is model
    agree(joined.state, whole.state, backend)
    agree(joined.push(x[:, 9:]), whole.push(x[:, 9:]), backend)
    assert not np.array_equal(parts[0].state["layer_0"]["h"], joined.state["layer_0"]["h"][:1])


def test_joining_keeps_the_order_given(backend: str) -> None:
    model = Model(chain("lstm"), backend)
    session = model.session(3)
    session.push(numbers(3, 4, 3))
    h = session.state["layer_0"]["h"]
    joined = npylstm.Session.join([session.split()[k] for k in (2, 0, 1, 2)])
    same(joined.state["layer_0"]["h"], h[[2, 0, 1, 2]])


@pytest.mark.parametrize("sizes", [[1, 1], [2, 2], [3, 0], [4, -1], []])
def test_sizes_that_are_not_the_batch_are_refused(sizes: list[int], backend: str) -> None:
    session = Model(chain("lstm"), backend).session(3)
    with pytest.raises(NpylstmError, match="3"):
        session.split(sizes)


def test_only_sessions_of_one_model_are_joined(backend: str) -> None:
    a, b = Model(chain("lstm"), backend), Model(chain("gru"), backend)
    for wrong in ([a.session(), b.session()], []):
        with pytest.raises(StateError):
            npylstm.Session.join(wrong)


# Errors, after which nothing has moved.

STATIC = GRAPHS["static"]
WRONG: dict[str, Any] = {
    "rows": np.zeros((3, 4, 3)),
    "features": np.zeros((2, 4, 5)),
    "no time axis": np.zeros((2, 3)),
    "no steps": np.zeros((2, 0, 3)),
    "complex": np.zeros((2, 4, 3), complex),
    "words": np.full((2, 4, 3), "a"),
    "ragged": [[[1, 2, 3]], [[1, 2]]],
    "none": None,
    "another name": {"y": np.zeros((2, 4, 3))},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_inputs_are_named_and_move_nothing(wrong: str, backend: str) -> None:
    session = Model(chain("stacked"), backend).session(2)
    session.push(numbers(2, 5, 3))
    before = session.state
    with pytest.raises(ShapeError, match="^inputs: " if wrong == "another name" else "^x: "):
        session.push(WRONG[wrong])
    same(session.state, before)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros((3, 3)), r"^x: .*\(3, 3\)"),
        (np.zeros((2, 5)), r"^x: .*\(2, 5\)"),
        (np.zeros((2, 1, 3)), r"^x: .*\(2, 1, 3\)"),
        (np.zeros(3), r"^x: .*\(3,\)"),
        (np.zeros((2, 3), complex), "^x: expected real numbers, got complex128"),
        (np.full((2, 3), "a"), "^x: expected real numbers"),
        ([[1, 2, 3], [1, 2]], "^x: .*ragged"),
        ({"y": np.zeros((2, 3))}, "inputs: expected"),
    ],
)
def test_wrong_steps_are_named_and_move_nothing(wrong: Any, message: str, backend: str) -> None:
    session = Model(chain("stacked"), backend).session(2)
    session.push(numbers(2, 5, 3))
    before = session.state
    with pytest.raises(ShapeError, match=message):
        session.step(wrong)
    out = np.full((2, 2), 9, "float32")
    with pytest.raises(ShapeError, match=message):
        session.step(wrong, out=out)
    assert (out == 9).all()
    same(session.state, before)


@pytest.mark.parametrize(
    "wrong",
    [
        [np.zeros((2, 4, 3)), np.zeros((3, 2))],
        [np.zeros((3, 4, 3)), np.zeros((2, 2))],
        [np.zeros((3, 4, 3)), np.zeros((3, 2))],
        [np.zeros((2, 4, 3)), np.zeros((2, 4, 2))],
        [np.zeros((2, 4, 3))],
        {"x": np.zeros((2, 4, 3))},
        np.zeros((2, 4, 3)),
    ],
)
def test_several_wrong_inputs_move_nothing(wrong: Any, backend: str) -> None:
    session = Model(STATIC("float32"), backend).session(2)
    session.push([numbers(2, 5, 3), numbers(2, 2)])
    before = session.state
    with pytest.raises(ShapeError):
        session.push(wrong)
    same(session.state, before)


def late_error(whole: bool) -> ModelSpec:
    """A graph in which ids are looked up after the recurrent layer has computed."""
    spec = graph(
        {"x": X, "ids": ("batch", "steps")}, ("out",),
        ("rnn", LSTM(3, 4, return_sequences=True), "x"), ("table", Embedding(7, 4), "ids"),
        ("sum", Arithmetic("add"), "rnn", "table"), ("out", GRU(4, 2), "sum"),
    )  # fmt: skip
    return replace(spec, inputs=(spec.inputs[0], replace(spec.inputs[1], integer=whole)))


@pytest.mark.parametrize("whole", [False, True])
def test_inputs_that_share_their_steps_are_all_sequences(whole: bool, backend: str) -> None:
    model = Model(late_error(whole), backend)
    x, ids = numbers(2, 5, 3), np.array([[0, 1, 2, 3, 6]] * 2)
    session = model.session(2)
    for t in range(5):
        y = session.step([x[:, t], ids[:, t]])
    agree(y, model.predict([x, ids]), backend)


def test_an_error_in_the_middle_of_the_model_moves_nothing(backend: str) -> None:
    session = Model(late_error(whole=True), backend).session(2)
    x, ids = numbers(2, 5, 3), np.array([[0, 1, 2, 3, 6]] * 2)
    session.push([x, ids])
    before = session.state
    with pytest.raises(ShapeError, match="table: id 7"):
        session.push([x, ids + 1])
    with pytest.raises(ShapeError, match="table: id 7"):
        session.step([x[:, 0], np.array([0, 7])])
    same(session.state, before)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.pop("layer_2"),
        lambda s: s.update(layer_9=s["layer_0"]),
        lambda s: s.update(layer_3={"h": np.zeros((2, 2))}),
        lambda s: s["layer_0"].pop("c"),
        lambda s: s["layer_1"].update(c=np.zeros((2, 9))),
        lambda s: s["layer_2"].update(h=np.zeros((3, 4))),
        lambda s: s["layer_2"].update(h=np.zeros(4)),
        lambda s: s["layer_2"].update(h=s["layer_1"]["h"]),
        lambda s: s["layer_2"].update(h=np.zeros((2, 4), complex)),
        lambda s: s["layer_2"].update(h="no"),
        lambda s: s.update(layer_2=3),
    ],
)
def test_wrong_states_are_refused_whole(change: Any, backend: str) -> None:
    session = Model(chain("stacked"), backend).session(2)
    session.push(numbers(2, 5, 3))
    before, wrong = session.state, session.state
    wrong["layer_0"]["h"] += 1  # right, but must not be taken over alone
    change(wrong)
    with pytest.raises(StateError, match="state"):
        session.state = wrong
    same(session.state, before)


@pytest.mark.parametrize(
    "where", [np.ones(3, bool), np.ones((2, 1), bool), [0, 1], [1.0, 0.0], 1, "no"]
)
def test_wrong_masks_are_refused(where: Any, backend: str) -> None:
    session = Model(chain("lstm"), backend).session(2)
    session.push(numbers(2, 5, 3))
    before = session.state
    with pytest.raises(NpylstmError, match="where"):
        session.reset(where=where)
    same(session.state, before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": -1}, "batch_size"),
        ({"batch_size": 1.5}, "batch_size"),
        ({"nan": "ignore"}, "nan.*'ignore'"),
    ],
)
def test_impossible_sessions_are_refused(options: Any, message: str, backend: str) -> None:
    with pytest.raises(NpylstmError, match=message):
        Model(chain("lstm"), backend).session(**options)


# NaN.


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["stacked", "projection", "gru", "gru before", "rnn", "select"])
def test_nan_passes_and_stays_in_its_row(kind: str, dtype: str, backend: str) -> None:
    model = Model(chain(kind, dtype), backend)
    x = numbers(6, 9, 3, dtype=dtype)
    clean, session = model.session(6), model.session(6)
    broken = x.copy()
    broken[2, 4, 1] = np.nan
    others = np.arange(6) != 2
    y, expected = session.push(broken), clean.push(x)
    agree(y[others], expected[others], backend)
    late = y[2, 4:] if y.ndim == 3 else y[2]
    assert np.isnan(late).all()
    if y.ndim == 3:
        agree(y[2, :4], expected[2, :4], backend)
    y, expected = session.step(x[:, 0]), clean.step(x[:, 0])  # it is in the state
    assert np.isnan(y[2]).all()
    agree(y[others], expected[others], backend)
    session.reset(where=~others)
    agree(session.step(x[:, 1])[2:3], model.session(1).step(x[2:3, 1]), backend)


def test_nan_may_be_refused(backend: str) -> None:
    model = Model(chain("stacked"), backend)
    session = model.session(2, nan="raise")
    x = numbers(2, 5, 3)
    session.push(x)
    before = session.state
    broken = x.copy()
    broken[1, 3, 2] = np.nan
    with pytest.raises(ShapeError, match=r"^x: .*nan"):
        session.push(broken)
    with pytest.raises(ShapeError, match=r"^x: .*nan"):
        session.step(broken[:, 3])
    same(session.state, before)
    going = model.session(2)
    going.push(x)
    same(session.push(x), going.push(x))
    broken[1, 3, 2] = np.inf  # a number to the framework
    same(session.push(broken), going.push(broken))


def test_nan_in_a_static_input_may_be_refused_too(backend: str) -> None:
    session = Model(STATIC("float32"), backend).session(2, nan="raise")
    v = numbers(2, 2)
    v[1, 0] = np.nan
    with pytest.raises(ShapeError, match=r"^v: .*nan"):
        session.push([numbers(2, 3, 3), v])
    assert not session.state["rnn"]["h"].any()


# What cannot stream.


def both_ways() -> Bidirectional:
    forward = LSTM(3, 5, return_sequences=True)
    return Bidirectional(forward, replace(forward, go_backwards=True))


SEQUENCE = LSTM(3, 5, return_sequences=True)
# Layers, shape of the input, and which layers may be named: any of them tells where to look.
CANNOT: dict[str, Any] = {
    "bidirectional": ([both_ways()], X, "layer_0"),
    "bidirectional in the middle": ([Identity(), both_ways(), LSTM(10, 2)], X, "layer_1"),
    "backwards": ([LSTM(3, 5, go_backwards=True)], X, "layer_0"),
    "backwards gru": ([SEQUENCE, GRU(5, 2, go_backwards=True)], X, "layer_1"),
    "flatten": ([SEQUENCE, Reshape(((0, 0), -1)), Dense(120, 2)], LONG, "layer_1"),
    "flatten of any steps": ([SEQUENCE, Reshape(((0, 0), -1))], X, "layer_1"),
    "flatten of the input": ([Reshape(((0, 0), -1)), Dense(72, 2)], LONG, "layer_0"),
    "repeat": ([LSTM(3, 5), Stack(1, 4), LSTM(5, 2)], X, "layer_[12]"),
    "last as a sequence": ([LSTM(3, 5), Reshape(((0, 0), 5, 1)), GRU(1, 2)], X, "layer_[12]"),
    "softmax": ([SEQUENCE, ActivationLayer(Activation.of("softmax", axis=1))], X, "layer_1"),
    "softmax from behind": (
        [SEQUENCE, ActivationLayer(Activation.of("softmax", axis=-2))], X, "layer_1"
    ),
    "log softmax": (
        [SEQUENCE, ActivationLayer(Activation.of("log_softmax", axis=1))], X, "layer_1"
    ),
    "mean": ([SEQUENCE, Reduce("mean", (1,))], X, "layer_1"),
    "largest": ([SEQUENCE, Reduce("max", (1,), keepdims=True)], X, "layer_1"),
    "sum of all": ([SEQUENCE, Reduce("sum", (1, 2))], X, "layer_1"),
    "norm": ([SEQUENCE, Reduce("norm", (1,))], X, "layer_1"),
    "convolution": ([Conv1D(3, 4, 3, padding=(2, 0)), LSTM(4, 2)], X, "layer_0"),
    "strided convolution": ([Conv1D(3, 4, 2, stride=2), LSTM(4, 2)], X, "layer_0"),
    "pooling": ([SEQUENCE, Pool1D("max", 2, 2)], X, "layer_1"),
    "normalisation over steps": ([LayerNormalization((24, 3), 1e-3), LSTM(3, 2)], LONG, "layer_0"),
    "a number per step": ([BatchNormalization(24, 1, 1.0), LSTM(3, 2)], LONG, "layer_0"),
    "a slope per step": ([SEQUENCE, PReLU((24, 5), 1)], LONG, "layer_1"),
    "a slope per step for all": ([SEQUENCE, PReLU((24,), 1)], LONG, "layer_1"),
    "first": ([SEQUENCE, Select(1, 0)], X, "layer_1"),
    "last but one": ([SEQUENCE, Select(1, -2)], X, "layer_1"),
    "first of pinned ones": ([SEQUENCE, Select(1, 0)], LONG, "layer_1"),
    "all but the first": ([SEQUENCE, Slice(1, 1), LSTM(5, 2)], X, "layer_1"),
    "every second": ([SEQUENCE, Slice(1, 0, None, 2)], X, "layer_1"),
    "last few": ([SEQUENCE, Slice(1, -3)], X, "layer_1"),
    "reversed": ([Flip((1,)), LSTM(3, 2)], X, "layer_0"),
    "steps as features": ([Transpose((0, 2, 1)), LSTM(24, 2)], LONG, "layer_[01]"),
    "steps taken together": ([Reshape(((0, 0), 12, 6)), LSTM(6, 2)], LONG, "layer_0"),
    "flatten one feature": (
        [SimpleRNN(3, 1, return_sequences=True), Reshape(((0, 0), -1)), Dense(24, 2)], LONG, "layer_[12]"
    ),
    "softmax over a value per step": (
        [SimpleRNN(3, 1, return_sequences=True), Reshape(((0, 0), -1)),
         ActivationLayer(Activation("softmax"))], X, "layer_[12]",
    ),
    "softmax over what were steps": (
        [SimpleRNN(3, 1, return_sequences=True), Reshape(((0, 0), -1)), ActivationLayer(Activation("softmax"))],
        LONG, "layer_[12]",
    ),
    "normalisation over what were steps": (
        [Transpose((0, 2, 1)), LayerNormalization((24,), 1e-3)], LONG, "layer_[01]"
    ),
    "sum over what were steps": ([Transpose((0, 2, 1)), Reduce("sum", (2,))], LONG, "layer_[01]"),
    "convolution over features": (
        [Conv1D(24, 4, 2), Reshape(((0, 0), -1))], ("batch", 3, 24), "layer_[01]"
    ),
    "dense over steps": ([SEQUENCE, Transpose((0, 2, 1)), Dense(24, 2)], LONG, "layer_[12]"),
}  # fmt: skip


@pytest.mark.parametrize("kind", CANNOT)
def test_what_cannot_stream_is_named(kind: str, backend: str) -> None:
    layers, shape, name = CANNOT[kind]
    model = Model(make_chain(*layers, shape=shape), backend)
    with pytest.raises(UnsupportedError, match=name) as caught:
        model.session()
    others = {f"layer_{k}" for k in range(len(layers))} - set(re.findall("layer_.", name))
    if "[" not in name:
        subjects = [reason.split(":")[0] for reason in caught.value.reasons]
        assert not others & set(subjects)


CANNOT_GRAPHS: dict[str, Any] = {
    "seq2seq": (
        graph(
            {"x": X, "d": ("batch", "steps_2", 2)}, ("dec",),
            ("enc", LSTM(3, 4, return_state=True), "x"),
            ("dec", LSTM(2, 4, return_sequences=True), "d", "enc/h", "enc/c"),
        ),
        "dec|enc",
    ),
    "attention": (
        graph(
            {"x": X}, ("out",), ("a", LSTM(3, 4, return_sequences=True), "x"),
            ("t", Transpose((0, 2, 1)), "a"), ("scores", MatMul(), "a", "t"),
            ("weights", ActivationLayer(Activation("softmax")), "scores"),
            ("out", MatMul(), "weights", "a"),
        ),
        "t|scores|weights|out",
    ),
    "steps set end to end": (
        graph(
            {"x": X, "z": X}, ("out",), ("join", Concatenate(1), "x", "z"),
            ("out", LSTM(3, 4), "join"),
        ),
        "join",
    ),
    "a number for each step": (
        graph(
            {"x": LONG}, ("out",), ("table", Constant((24, 3)), ),
            ("sum", Arithmetic("add"), "x", "table"), ("out", LSTM(3, 4), "sum"),
        ),
        "sum|table",
    ),
    "the last step at every step": (
        graph(
            {"x": X}, ("out",), ("a", LSTM(3, 4, return_sequences=True), "x"),
            ("last", Select(1, -1), "a"), ("row", Reshape(((0, 0), 1, 4)), "last"),
            ("out", Arithmetic("subtract"), "a", "row"),
        ),
        "out|row|last",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", CANNOT_GRAPHS)
def test_graphs_that_cannot_stream_are_named(kind: str, backend: str) -> None:
    spec, name = CANNOT_GRAPHS[kind]
    with pytest.raises(UnsupportedError, match=rf"\b({name})\b"):
        Model(spec, backend).session()


# A stream may refuse these; if it takes them, then with the numbers of the whole.
MAY: dict[str, Any] = {
    "a state that is given": graph(
        {"x": X, "h": ("batch", 4)}, ("rnn",), ("rnn", GRU(3, 4), "x", "h"),
    ),
    "a sequence made of a static input": graph(
        {"x": X, "v": V}, ("out",), ("rnn", LSTM(3, 4), "x"), ("rows", Stack(1, 5), "v"),
        ("other", LSTM(2, 4), "rows"), ("out", Arithmetic("add"), "rnn", "other"),
    ),
    "a static id": graph(
        {"x": X, "id": ("batch", 1)}, ("out",), ("rnn", LSTM(3, 4), "x"),
        ("table", Embedding(5, 4), "id"), ("flat", Reshape(((0, 0), -1)), "table"),
        ("out", Arithmetic("add"), "rnn", "flat"),
    ),
    "steps of two lengths": graph(
        {"x": X, "z": ("batch", "steps_2", 3)}, ("out",), ("a", LSTM(3, 4), "x"),
        ("b", GRU(3, 4), "z"), ("out", Arithmetic("add"), "a", "b"),
    ),
    "a state as an output of a layer with a given state": graph(
        {"x": X, "h": ("batch", 4)}, ("rnn/h",), ("rnn", GRU(3, 4, return_state=True), "x", "h"),
    ),
    "a convolution of one step": graph(
        {"x": X}, ("rnn",), ("conv", Conv1D(3, 4, 1), "x"), ("rnn", GRU(4, 2), "conv"),
    ),
    "the last step as one": graph(
        {"x": X}, ("out",), ("rnn", GRU(3, 2, return_sequences=True), "x"),
        ("last", Slice(1, -1), "rnn"), ("out", Dense(2, 2), "last"),
    ),
    "the last step as one, read again": graph(
        {"x": X}, ("out",), ("rnn", GRU(3, 2, return_sequences=True), "x"),
        ("last", Slice(1, -1), "rnn"), ("out", LSTM(2, 2), "last"),
    ),
    "steps as the last axis": graph(
        {"x": ("batch", 3, "steps")}, ("rnn",), ("turn", Transpose((0, 2, 1)), "x"),
        ("rnn", GRU(3, 2), "turn"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", MAY)
def test_what_streams_gives_the_numbers_of_the_whole(kind: str, backend: str) -> None:
    spec = MAY[kind]
    model = Model(spec, backend)
    sizes = {"batch": 2, "steps": 12, "steps_2": 12}
    inputs, axes = {}, {}
    for k, t in enumerate(spec.inputs):
        x = numbers(*(sizes.get(d, d) for d in t.shape), seed=k)
        inputs[t.name] = np.array([[0], [4]]) if t.name == "id" else x
        axes[t.name] = next((a for a, d in enumerate(t.shape) if str(d).startswith("steps")), None)
    try:
        session = model.session(2)
    except UnsupportedError:
        return
    for start in range(0, 12, 4):
        y = session.push({
            name: x if axes[name] is None else np.take(x, range(start, start + 4), axes[name])
            for name, x in inputs.items()
        })  # fmt: skip
    agree(y, model.predict(inputs), backend)


def test_all_that_cannot_stream_is_said_at_once(backend: str) -> None:
    layers = [
        both_ways(), ActivationLayer(Activation.of("softmax", axis=1)),
        GRU(10, 5, go_backwards=True, return_sequences=True), Reshape(((0, 0), -1)),
    ]  # fmt: skip
    model = Model(make_chain(*layers), backend)
    with pytest.raises(UnsupportedError) as caught:
        model.session(4)
    for k in range(4):
        assert sum(f"layer_{k}" in reason for reason in caught.value.reasons) == 1
    assert model.predict(numbers(2, 4, 3)).shape == (2, 20)  # the model is as good as before


# Many at once, and for long.


def test_eight_threads_with_their_own_sessions(backend: str) -> None:
    """Chunks of ninety sizes: more than a back end keeps prepared."""
    model = Model(chain("stacked"), backend)
    data = [numbers(1 + k % 3, 400, 3, seed=k) for k in range(8)]
    expected = [model.predict(x) for x in data]
    start, wrong = threading.Barrier(8), []

    def work(k: int) -> None:
        rng = np.random.default_rng(k)
        start.wait()
        try:
            for _ in range(5):
                session = model.session(len(data[k]))
                y = push_in_chunks(session, data[k], rng.integers(1, 90, 30))
                agree(y, expected[k], backend)
                for t in range(30):
                    session.step(data[k][:, t])
        except BaseException as error:
            wrong.append((k, error))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("given_out", [False, True])
def test_steps_leave_no_memory_behind(given_out: bool, backend: str) -> None:
    """Less than two bytes a step: not even one number may stay.

    Python keeps some freed tuples for later; a collection lets go of them.
    """
    model = Model(make_chain(LSTM(1, 20), Dense(20, 1), shape=("batch", "steps", 1)), backend)
    session, x = model.session(), np.ones((1, 1), "float32")
    out = np.zeros((1, 1), "float32") if given_out else None
    options = {"out": out} if given_out else {}
    tracemalloc.start()
    try:
        for _ in range(200):
            session.step(x, **options)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(2000):
            session.step(x, **options)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 4096


def test_attributes(backend: str) -> None:
    model = Model(chain("lstm"), backend)
    session = model.session(7)
    assert session.batch_size == 7
    assert session.model is model
    assert model.session().batch_size == 1
    assert isinstance(session, npylstm.Session)
