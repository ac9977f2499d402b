"""What is said of the kernels of a model."""

from __future__ import annotations

import numpy as np
import pytest
from builders import make_chain, make_layer

from npylstm import ModelSpec
from npylstm.ops.cells import LSTM
from npylstm.ops.dense import Dense, Embedding
from npylstm.ops.sorting import Cumulative
from npylstm.runtime import native_layers
from npylstm.runtime.native_layers import describe_kernels, layers_without_kernel
from npylstm.spec import Edge, TensorSpec


def tagger(vocabulary: int) -> ModelSpec:
    rng = np.random.default_rng(0)
    layers = (
        make_layer("embedding", Embedding(vocabulary, 4), rng),
        make_layer("lstm", LSTM(4, 8), rng),
    )
    edges = Edge("embedding", ("ids",), ("e",)), Edge("lstm", ("e",), ("y",))
    ids = TensorSpec("ids", ("batch", "steps"), integer=True)
    return ModelSpec(layers, edges, (ids,), ("y",), dtype="float32")


def test_all_layers_have_kernels() -> None:
    spec = make_chain(LSTM(3, 4, return_sequences=True), Dense(4, 2))
    assert describe_kernels(spec) == "all 2 layers in one call"


def test_layers_without_a_kernel_are_named() -> None:
    spec = make_chain(LSTM(3, 4, return_sequences=True), Cumulative("sum", 1), Dense(4, 2))
    (name,) = layers_without_kernel(spec)
    assert describe_kernels(spec) == f"all layers but {name} (cumulative), which NumPy computes"


@pytest.mark.parametrize(("budget", "megabytes"), [(16 << 20, "4.0"), (3 << 20, "0.0")])
def test_tables_of_embeddings_have_a_size(
    budget: int, megabytes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native_layers, "TABLE_BYTES", budget)
    said = describe_kernels(tagger(2**15))  # ids, with 4 gates of 8 units of 4 bytes
    assert f"tables of embeddings times kernels: {megabytes} MB of at most {budget >> 20}" in said
