"""Graphs that are made shorter for the kernels: the same bits, in fewer calls."""

from __future__ import annotations

import numpy as np
import pytest
from backends import COMPILED
from builders import make_chain, make_layer

from npylstm import Model, ModelSpec
from npylstm.activations import Activation
from npylstm.ops.arithmetic import Arithmetic
from npylstm.ops.base import Operation
from npylstm.ops.cells import LSTM
from npylstm.ops.convolution import Conv1D, Pool1D
from npylstm.ops.dense import Dense
from npylstm.ops.normalization import BatchNormalization
from npylstm.ops.pointwise import ActivationLayer
from npylstm.ops.pooling import Pool
from npylstm.ops.shaping import Transpose
from npylstm.runtime import kernel_engine
from npylstm.runtime.rewriting import Graph, rewritten
from npylstm.spec import Edge, TensorSpec

SWAP = Transpose((0, 2, 1))
RELU, SOFTMAX = ActivationLayer(Activation("relu")), ActivationLayer(Activation("softmax", (2,)))


def first(units: int, features: int, **options: object) -> Conv1D:
    return Conv1D(features, units, 3, channels_first=True, **options)  # type: ignore[arg-type]


CHAINS: dict[str, tuple[list[Operation], list[str]]] = {
    "sensor": (
        [SWAP, first(8, 5), RELU, Pool1D("max", 2, 2, channels_first=True), SWAP, LSTM(8, 7)],
        ["conv1d", "pool1d", "lstm"],
    ),
    "normalized": (
        [SWAP, first(8, 5), BatchNormalization(8, 1, 1e-3), RELU, first(4, 8, padding=(1, 1)), SWAP, LSTM(4, 7)],
        ["conv1d", "batch_normalization", "activation", "conv1d", "lstm"],
    ),
    "one side": ([first(8, 5), RELU, SWAP, LSTM(8, 7)], ["transpose", "conv1d", "lstm"]),
    "pool of another kind": (
        [SWAP, Pool("mean", (3,), (2,), padding=(1, 1), channels_first=True), SWAP, LSTM(5, 7)],
        ["pool", "lstm"],
    ),
    "no other side": ([SWAP, first(8, 5)], ["conv1d", "transpose"]),
    "dense": ([LSTM(5, 6, return_sequences=True), Dense(6, 4), SOFTMAX], ["lstm", "dense"]),
    "wide dense": ([Dense(5, 70), RELU], ["dense"]),
    "activation of another axis": (
        [Dense(5, 4), ActivationLayer(Activation("softmax", (1,)))], ["dense", "activation"]),
    "two activations": ([Dense(5, 4), RELU, ActivationLayer(Activation("tanh"))],
                        ["dense", "activation"]),
}  # fmt: skip


def shape_of(kind: str) -> tuple[str | int, ...]:
    return ("batch", 5, "steps") if kind == "one side" else ("batch", "steps", 5)


def plainly(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> Model:
    """A model that computes the graph as it is."""
    with monkeypatch.context() as patch:
        patch.setattr(kernel_engine, "rewritten", lambda spec: Graph(spec.layers, spec.edges))
        return Model(spec, COMPILED)


def data(spec: ModelSpec) -> np.ndarray:
    sizes = {"batch": 3, "steps": 20}
    shape = [sizes.get(d, d) for d in spec.inputs[0].shape]
    return np.random.default_rng(0).normal(size=shape).astype(spec.dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", CHAINS)
def test_the_bits_are_those_of_the_graph(
    kind: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    operations, expected = CHAINS[kind]
    spec = make_chain(*operations, dtype=dtype, shape=shape_of(kind))
    graph = rewritten(spec)
    kinds = {layer.name: layer.layer.kind for layer in graph.layers}
    made = [kinds[edge.layer] for edge in graph.edges]
    assert [kind for kind in made if kind != "identity"] == expected  # which is no call
    x = data(spec)
    y = Model(spec, COMPILED).predict(x)
    np.testing.assert_array_equal(y, plainly(spec, monkeypatch).predict(x))


def test_residuals_with_channels_first(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    layers = {
        "swap": SWAP, "conv": first(5, 5, padding=(1, 1)), "sum": Arithmetic("add"), "back": SWAP,
        "lstm": LSTM(5, 4),
    }  # fmt: skip
    edges = (
        Edge("swap", ("x",), ("a",)), Edge("conv", ("a",), ("b",)), Edge("sum", ("b", "a"), ("c",)),
        Edge("back", ("c",), ("d",)), Edge("lstm", ("d",), ("y",)),
    )  # fmt: skip
    spec = ModelSpec(
        tuple(make_layer(name, op, rng) for name, op in layers.items()), edges,
        (TensorSpec("x", ("batch", "steps", 5)),), ("y",), dtype="float32",
    )  # fmt: skip
    assert {edge.layer for edge in rewritten(spec).edges} >= {"conv", "sum", "lstm"}
    kinds = {layer.name: layer.layer.kind for layer in rewritten(spec).layers}
    assert "transpose" not in kinds.values()
    x = data(spec)
    expected = plainly(spec, monkeypatch).predict(x)
    np.testing.assert_array_equal(Model(spec, COMPILED).predict(x), expected)


def test_a_transpose_that_is_called_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    layers = {"swap": SWAP, "conv": first(8, 5), "lstm": LSTM(8, 4)}
    edges = (
        Edge("swap", ("x",), ("a",)), Edge("conv", ("a",), ("b",)), Edge("swap", ("b",), ("c",)),
        Edge("lstm", ("c",), ("y",)),
    )  # fmt: skip
    spec = ModelSpec(
        tuple(make_layer(name, op, rng) for name, op in layers.items()), edges,
        (TensorSpec("x", ("batch", "steps", 5)),), ("y", "a"), dtype="float32",
    )  # fmt: skip
    made, plain = Model(spec, COMPILED).predict(data(spec)), plainly(spec, monkeypatch)
    for name, y in plain.predict(data(spec)).items():
        np.testing.assert_array_equal(made[name], y)


def test_tensors_that_are_outputs_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = make_chain(Dense(5, 4), RELU, shape=("batch", "steps", 5))
    names = tuple(edge.outputs[0] for edge in spec.edges)
    both = ModelSpec(spec.layers, spec.edges, spec.inputs, names, dtype=spec.dtype)
    made, plain = Model(both, COMPILED).predict(data(spec)), plainly(both, monkeypatch)
    expected = plain.predict(data(spec))
    assert list(made) == list(expected)
    for name, y in expected.items():
        np.testing.assert_array_equal(made[name], y)


def test_a_product_that_others_read_keeps_its_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    layers = {"dense": Dense(5, 5), "relu": RELU, "sum": Arithmetic("add")}
    edges = (
        Edge("dense", ("x",), ("a",)), Edge("relu", ("a",), ("b",)), Edge("sum", ("a", "b"), ("y",)),
    )  # fmt: skip
    spec = ModelSpec(
        tuple(make_layer(name, op, rng) for name, op in layers.items()), edges,
        (TensorSpec("x", ("batch", "steps", 5)),), ("y",), dtype="float32",
    )  # fmt: skip
    assert rewritten(spec).edges == edges
    expected = plainly(spec, monkeypatch).predict(data(spec))
    np.testing.assert_array_equal(Model(spec, COMPILED).predict(data(spec)), expected)


def test_a_layer_that_is_called_twice_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    shared, relu = make_layer("dense", Dense(5, 5), rng), make_layer("relu", RELU, rng)
    edges = (
        Edge("dense", ("x",), ("a",)), Edge("relu", ("a",), ("b",)), Edge("dense", ("b",), ("y",)),
    )  # fmt: skip
    spec = ModelSpec((shared, relu), edges, (TensorSpec("x", ("batch", "steps", 5)),), ("y",))
    assert rewritten(spec).edges == edges
    expected = plainly(spec, monkeypatch).predict(data(spec))
    np.testing.assert_array_equal(Model(spec, COMPILED).predict(data(spec)), expected)
