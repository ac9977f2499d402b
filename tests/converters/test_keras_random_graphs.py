"""Keras graphs drawn at random, against the framework that ran them.

A seed draws inputs, then layers one after the other: each reads tensors that are there and leaves
new ones. ``NPYLSTM_RANDOM_GRAPHS=1000 NPYLSTM_RANDOM_SEED=60`` draws a thousand others. A failure
shows its seed and the smallest beginning of the drawn model that fails, one line a layer.
"""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path

import npylstm_converters as nc
import numpy as np
import pytest
from backends import BACKENDS, COMPILED
from keras_graphs import FRAMEWORKS, assert_parity, convert, flat, make_inputs, run
from keras_random_graphs import Maker
from keras_random_wires import MERGES, Drawn

from npylstm import Model, NpylstmError, UnsupportedError

COUNT = int(os.environ.get("NPYLSTM_RANDOM_GRAPHS", "60"))
FIRST = int(os.environ.get("NPYLSTM_RANDOM_SEED", "0"))

# Batch, free steps. Keras 3 on TensorFlow takes a row of one number per sample for a bias where
# the batch is as long as another axis (`keras.ops.add`), so the batch is as long as none.
RUNS = ((13, 5), (1, 8))


def draw_for_streams(seed: int) -> Drawn:
    """A model of one sequence, and perhaps a row, whose steps go forwards."""
    rng = np.random.default_rng(seed)
    maker = Maker(list(FRAMEWORKS.values())[seed % 2], rng, forward=True)
    if maker.chance(0.3):
        maker.input(None, 3)
    maker.input((1, 0), int(rng.integers(1, 5)), ids=maker.chance(0.2))
    maker.draw(int(rng.integers(3, 9)))
    return maker.finish(seed, "live")


@functools.cache
def draw(seed: int, most: int = 99) -> Drawn:
    """Draw a model; of no more than ``most`` layers, the first of them."""
    rng = np.random.default_rng(seed)
    k, way = list(FRAMEWORKS.values())[seed % 2], ["keras", "h5", "keras", "h5", "live", "json"][seed // 2 % 6]  # fmt: skip
    maker = Maker(k, rng)
    for _ in range(int(rng.integers(1, 4))):
        features = int(rng.integers(1, 6))
        kind = maker.one(["free", "free", "pinned", "row", "ids"])
        steps = {"row": None, "pinned": (0, int(rng.integers(2, 6)))}.get(kind, (1, 0))
        maker.input(steps, features, pinned=kind == "pinned", ids=kind == "ids")
    if not any(w.timed for w in maker.wires):
        maker.input((1, 0), 3)
    maker.draw(min(int(rng.integers(3, 11)), most))
    return maker.finish(seed, way)


@pytest.mark.parametrize("seed", range(FIRST, FIRST + COUNT))
def test_random_graph(seed: int, tmp_path: Path) -> None:
    print(draw(seed).text)
    try:
        check(draw(seed), seed, tmp_path)
    except (AssertionError, NpylstmError) as error:
        for most in range(1, 11):  # the smallest beginning that fails, too
            drawn = draw(seed, most)
            try:
                check(drawn, seed, tmp_path)
            except (AssertionError, NpylstmError) as least:
                raise AssertionError(f"{drawn.text}\n{least}") from error
        raise


def check(drawn: Drawn, seed: int, tmp_path: Path) -> None:
    """Run, convert and compare."""
    runs = []
    for number, (batch, steps) in enumerate(RUNS):
        xs = make_inputs(drawn.model, batch, steps, seed + number)
        runs.append((xs, run(drawn.model, xs)))
    try:
        spec = convert(drawn.model, drawn.way, tmp_path)
    except ValueError as error:
        if "name already exists" not in str(error):
            raise
        spec = convert(drawn.model, "live", tmp_path)  # tf_keras cannot write some to HDF5
    assert_parity(spec, runs)


CHUNKS = (3, 1, 3)


def stream(drawn: Drawn, backend: str) -> bool:
    """Push a sequence in chunks, where the model can."""
    timed = [len(t.shape) == 3 or "int" in str(t.dtype) for t in drawn.model.inputs]
    model = Model(nc.from_keras(drawn.model), backend)
    try:
        session = model.session(batch_size=2)
    except UnsupportedError:
        return False
    xs = make_inputs(drawn.model, 2, sum(CHUNKS), 5)
    whole = flat(model.predict(xs if len(xs) > 1 else xs[0]))
    parts, start = [], 0
    for length in CHUNKS:
        chunk = [x[:, start : start + length] if t else x for x, t in zip(xs, timed, strict=True)]
        parts.append(flat(session.push(chunk if len(xs) > 1 else chunk[0])))
        start += length
    for y, *pushed in zip(whole, *parts, strict=True):
        steps = tuple(p.shape[1] for p in pushed)
        joined = np.concatenate(pushed, axis=1) if steps == CHUNKS else pushed[-1]
        if backend == COMPILED:
            np.testing.assert_array_equal(joined, y)
        else:
            np.testing.assert_allclose(joined, y, rtol=1e-4, atol=1e-5 * max(1, np.abs(y).max()))
    return True


def test_random_graphs_on_a_stream() -> None:
    """A model that takes a session at all gives there what it gives at once."""
    streamed = dict.fromkeys(BACKENDS, 0)
    for seed in range(FIRST, FIRST + COUNT // 2):
        drawn = draw_for_streams(seed)
        try:
            for backend in BACKENDS:
                streamed[backend] += stream(drawn, backend)
        except Exception:
            print(drawn.text)
            raise
    assert min(streamed.values()) >= COUNT // 6


@pytest.mark.parametrize("seed", range(FIRST, FIRST + COUNT, 4))
def test_random_graph_by_slices_of_the_batch(seed: int) -> None:
    drawn = draw(seed)
    print(drawn.text)
    model = Model(nc.from_keras(drawn.model), COMPILED)
    xs = {
        t.name: x for t, x in zip(model.inputs, make_inputs(drawn.model, 7, 5, seed), strict=True)
    }
    whole = flat(model.predict(xs))
    for options in ({"batch_size": 3}, {"threads": 3}, {"batch_size": 1, "threads": 2}):
        for part, y in zip(flat(model.predict(xs, **options)), whole, strict=True):
            np.testing.assert_array_equal(part, y)


@pytest.mark.skipif(FIRST != 0 or COUNT < 60, reason="of the models of a normal run")
@pytest.mark.exhaustive
def test_the_draw_reaches_everything() -> None:
    texts = [draw(seed).text for seed in range(60)]
    words = {
        *("LSTM(", "GRU(", "SimpleRNN(", "Bidirectional(", "Dense(", "TimeDistributed(", "Softmax", "Dropout"),
        *(f"= {name}(" for name in MERGES), "Concatenate(1)", "Concatenate(-1)", "Dot(", "normalize=True",
        "RepeatVector", "Flatten", "Permute", "Reshape", "Sequential(", "initial_state=", "return_state=True",
        "go_backwards=True", "reset_after=False", "use_bias=False", "of ids", " again",
    }  # fmt: skip
    rare = {word for word in words if sum(word in text for text in texts) < 2}
    assert not rare
    patterns = {
        "nested": r"\n    nested_", "nested in nested": r"\n        nested_", "nested called twice": r"nested_\d+x* again",
        "several inputs": r"(.*= Input.*\n){2}", "several outputs": r"return .*, .*$",
    }  # fmt: skip
    seen = {name: sum(bool(re.search(p, text)) for text in texts) for name, p in patterns.items()}
    assert min(seen.values()) >= 3, seen
    assert {(draw(seed).framework, draw(seed).way) for seed in range(60)} >= {
        (framework, way) for framework in FRAMEWORKS for way in ("keras", "h5", "live", "json")
    }
