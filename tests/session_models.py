"""Models for the tests of sessions, and how their outputs are compared.

Numba sums in one order for every number of rows and steps: the same bits. BLAS may sum in another
order for another shape. Sums here have at most TERMS terms below 1 in size, so a gate moves by at
most TERMS eps; the cells contract (weights below 1 / sqrt(terms), slopes below 1), so it stays so.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from backends import COMPILED
from builders import make_chain, make_layer

from npylstm import ModelSpec
from npylstm.activations import Activation
from npylstm.ops.arithmetic import Arithmetic, Constant, Reduce
from npylstm.ops.cells import GRU, LSTM, SimpleRNN
from npylstm.ops.convolution import Conv1D
from npylstm.ops.dense import Dense
from npylstm.ops.indexing import Flip, Select
from npylstm.ops.normalization import LayerNormalization
from npylstm.ops.pointwise import ActivationLayer, Identity
from npylstm.ops.products import MatMul
from npylstm.ops.shaping import Concatenate, Expand, Full, Reshape, Stack
from npylstm.spec import Edge, LayerSpec, TensorSpec

TERMS = 41  # 20 inputs, 20 recurrent ones, a bias
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
