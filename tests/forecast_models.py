"""Models for the tests of forecasts and decoders, and how their outputs are compared.

Expected numbers come from plain loops over ``predict`` and ``session.step``. Numba: the same bits.
NumPy: sums of at most TERMS terms below 1 in size may run in another order, and every generated
step adds as much again; the maps here contract.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from backends import COMPILED
from builders import make_layer

from npylstm import Model, ModelSpec
from npylstm.activations import Activation
from npylstm.ops.cells import GRU, LSTM, SimpleRNN
from npylstm.ops.dense import Dense
from npylstm.spec import Edge, TensorSpec

TERMS = 41  # 20 inputs, 20 recurrent ones, a bias
SOFTMAX = Activation("softmax")


def numbers(*shape: int, seed: int = 0, dtype: str = "float32") -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def agree(actual: Any, expected: Any, backend: str) -> None:
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    steps = max(1, actual.shape[1])
    atol = 0 if backend == COMPILED else steps * TERMS * np.finfo(expected.dtype).eps
    np.testing.assert_allclose(actual, expected, rtol=0, atol=atol)


def last(y: Any) -> Any:
    return y[:, -1] if y.ndim == 3 else y


def graph(
    inputs: dict[str, Any], outputs: tuple[str, ...], *calls: Any, dtype: str = "float32"
) -> ModelSpec:
    """Layers called in turn, each ``(name, layer, *tensors)``."""
    rng = np.random.default_rng(5)
    layers = [make_layer(name, layer, rng, dtype) for name, layer, *_ in calls]
    edges = [Edge.call(made, *call[2:]) for made, call in zip(layers, calls, strict=True)]
    specs = tuple(TensorSpec(name, shape) for name, shape in inputs.items())
    return ModelSpec(tuple(layers), tuple(edges), specs, outputs, dtype=dtype)


RNNS: dict[str, Any] = {
    "lstm": (LSTM, ("h", "c"), {}),
    "projection": (LSTM, ("h", "c"), {"projection": 5}),
    "gru": (GRU, ("h",), {}),
    "gru before": (GRU, ("h",), {"reset_after": False}),
    "rnn": (SimpleRNN, ("h",), {}),
}


def seq2seq(
    kind: str = "lstm", dtype: str = "float32", steps: tuple[Any, Any] = ("steps", "steps_2")
) -> ModelSpec:
    """The whole model, as it was trained: 3 features in, 4 out, which the decoder reads again."""
    cell, states, options = RNNS[kind]
    options = {**options, "return_state": True}
    return graph(
        {"x": ("batch", steps[0], 3), "d": ("batch", steps[1], 4)}, ("dense",),
        ("enc", cell(3, 8, **options), "x"),
        ("dec", cell(4, 8, return_sequences=True, **options), "d", *(f"enc/{s}" for s in states)),
        ("dense", Dense(options.get("projection", 8), 4, SOFTMAX), "dec"), dtype=dtype,
    )  # fmt: skip


def halves(kind: str = "lstm", backend: str = "numpy", **options: Any) -> tuple[Any, Any, Any]:
    """The whole model, and its encoder and decoder."""
    spec = seq2seq(kind, **options)
    states = RNNS[kind][1]
    encoder = spec.subgraph(inputs=["x"], outputs=[f"enc/{s}" for s in states])
    decoder = spec.subgraph(
        inputs=["d", *(f"enc/{s}" for s in states)],
        outputs=["dense", *(f"dec/{s}" for s in states)],
    )
    return Model(spec, backend), Model(encoder, backend), Model(decoder, backend)


def arrays(outputs: Any) -> list[Any]:
    return list(outputs.values()) if isinstance(outputs, dict) else [outputs]
