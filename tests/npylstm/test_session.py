"""Sessions: however a sequence is cut, the numbers are those of the whole."""

from __future__ import annotations

import gc
import threading
import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from backends import BACKENDS
from builders import make_chain
from hypothesis import given, settings
from hypothesis import strategies as st
from session_models import CHAINS, DTYPES, GRAPHS, X, agree, chain, graph, numbers, same

import npylstm
from npylstm import Model, ModelSpec, ShapeError
from npylstm.ops.cells import GRU, LSTM, SimpleRNN
from npylstm.ops.dense import Dense, Embedding
from npylstm.ops.indexing import Select
from npylstm.ops.normalization import LayerNormalization
from npylstm.ops.pointwise import Identity
from npylstm.ops.shaping import Full, Transpose
from npylstm.spec import TensorSpec

STEPS = 67
SIZES = (1, 2, 7, 64)


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
