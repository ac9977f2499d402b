"""Models for the tests of pools, and how their outputs are compared.

Numba gives the same bits whatever rows stand beside a row. BLAS may sum in another order for
another number of rows: at most TERMS terms below 1 in size, and cells that contract.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from backends import COMPILED
from builders import make_chain, make_layer

from npylstm import Model, ModelSpec
from npylstm.ops.arithmetic import Arithmetic
from npylstm.ops.cells import GRU, LSTM, SimpleRNN
from npylstm.ops.dense import Dense, Embedding
from npylstm.ops.indexing import Select
from npylstm.ops.normalization import LayerNormalization
from npylstm.ops.shaping import Concatenate
from npylstm.spec import Edge, TensorSpec

TERMS = 41  # 20 inputs, 20 recurrent ones, a bias

CHAINS: dict[str, Any] = {
    "lstm": [LSTM(3, 5)],
    "sequences": [LSTM(3, 5, return_sequences=True), Dense(5, 2)],
    "projection": [LSTM(3, 5, projection=2)],
    "gru": [GRU(3, 5)],
    "gru before": [GRU(3, 5, reset_after=False)],
    "rnn": [SimpleRNN(3, 5)],
    "stacked": [
        LSTM(3, 20, return_sequences=True), GRU(20, 9, return_sequences=True), SimpleRNN(9, 4),
        Dense(4, 2),
    ],
    "select": [GRU(3, 5, return_sequences=True), Select(1, -1), Dense(5, 2)],
    "one feature": [GRU(3, 5, return_sequences=True), Select(2, 1)],
    "no memory": [Dense(3, 4)],
    "others": [LayerNormalization((3,), 1e-3), LSTM(3, 5), Arithmetic("multiply", 2.0)],
}  # fmt: skip


def make(kind: str, backend: str, dtype: str = "float32", **others: Any) -> Model:
    return Model(make_chain(*CHAINS[kind], dtype=dtype, **others), backend)


def branches() -> ModelSpec:
    """Two inputs, two outputs; ids are looked up after the recurrent layer has computed."""
    rng = np.random.default_rng(5)
    rnn = make_layer("rnn", LSTM(3, 4), rng)
    table = make_layer("table", Embedding(7, 4), rng)
    out = make_layer("out", GRU(4, 2), rng)
    v = make_layer("v", Dense(2, 2), rng)
    join = make_layer("join", Concatenate(1), rng)
    return ModelSpec(
        layers=(rnn, table, out, v, join),
        edges=(
            Edge.call(rnn, "x"), Edge.call(table, "ids"), Edge.call(out, "table"),
            Edge.call(v, "static"), Edge.call(join, "out", "v"),
        ),
        inputs=(
            TensorSpec("x", ("batch", "steps", 3)), TensorSpec("ids", ("batch", "steps")),
            TensorSpec("static", ("batch", 2)),
        ),
        outputs=("join", "rnn"),
    )  # fmt: skip


def numbers(*shape: int, seed: int = 0, dtype: str = "float32") -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def agree(actual: Any, expected: Any, backend: str) -> None:
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    atol = 0 if backend == COMPILED else TERMS * np.finfo(expected.dtype).eps
    np.testing.assert_allclose(actual, expected, rtol=0, atol=atol)


def same(actual: Any, expected: Any) -> None:
    """The same bits, types and shapes, in arrays or mappings of them."""
    if isinstance(expected, dict):
        assert set(actual) == set(expected)
        for name in expected:
            same(actual[name], expected[name])
    else:
        np.testing.assert_array_equal(actual, expected, strict=True)


def moved(state: Any) -> bool:
    """Whether any number of a key's state is not zero."""
    return any(a.any() for entries in state.values() for a in entries.values())


def full_pool(backend: str, model: Model | None = None) -> Any:
    pool = (model or make("stacked", backend)).pool(4)
    pool.add(["a", "b", "c"])
    pool.step(["a", "b", "c"], numbers(3, 3))
    return pool
