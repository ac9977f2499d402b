"""One-hot vectors of ids before a recurrent layer: a table of the kernel's rows, with the same bits."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from backends import COMPILED
from builders import make_chain

from npylstm import Model, ModelSpec, ShapeError
from npylstm.ops.cells import GRU, LSTM
from npylstm.ops.dense import Dense
from npylstm.ops.gathering import OneHot
from npylstm.ops.pointwise import Rescaling
from npylstm.runtime.native_layers import describe_kernels
from npylstm.spec import Edge, TensorSpec

DEPTH = 30


def tokens(cell: Any, **options: Any) -> ModelSpec:
    spec = make_chain(
        OneHot(DEPTH, **options), cell, Dense(cell.units, 5), shape=("batch", "steps")
    )
    return dataclasses.replace(spec, inputs=(dataclasses.replace(spec.inputs[0], integer=True),))


def draw() -> np.ndarray:
    """Ids, and numbers that are none."""
    return np.random.default_rng(0).integers(-3, DEPTH + 5, (4, 9))


@pytest.mark.parametrize("cell", [LSTM(DEPTH, 24, return_sequences=True), GRU(DEPTH, 20)])
@pytest.mark.parametrize("type", ["float32", "bfloat16", "int8"])
def test_the_bits_are_those_of_the_product(cell: Any, type: str) -> None:
    spec = tokens(cell)
    spec = spec if type == "float32" else spec.quantize(type)
    model, ids = Model(spec, COMPILED), draw()
    vectors = np.where(ids[..., None] == np.arange(DEPTH), 1, 0)
    product = Model(spec.subgraph(["layer_0"], ["layer_2"]), COMPILED)
    np.testing.assert_array_equal(model.predict(ids), product.predict(vectors))
    assert model._engine._parameters.tables  # type: ignore[attr-defined]
    atol = 4 / 32512 if type == "int8" else 1e-6
    np.testing.assert_allclose(
        model.predict(ids), Model(spec, "numpy").predict(ids), rtol=0, atol=atol
    )


@pytest.mark.parametrize("options", [{"on": 2.0}, {"off": -1.0}, {"negative": True}])
def test_other_vectors_are_multiplied(options: dict[str, Any]) -> None:
    spec = tokens(LSTM(DEPTH, 12), **options)
    model, ids = Model(spec, COMPILED), draw()
    assert not model._engine._parameters.tables  # type: ignore[attr-defined]
    np.testing.assert_allclose(
        model.predict(ids), Model(spec, "numpy").predict(ids), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("axis", [-1, 0, 1, -2])
def test_numbers_that_are_no_index(axis: int) -> None:
    spec = make_chain(OneHot(5, axis=axis, on=2.0, off=-1.0), shape=("batch", "steps"))
    x = np.random.default_rng(0).integers(-7, 7, (4, 9)).astype("float32")
    x[0, :4] = np.nan, 2.5, np.inf, -np.inf
    y = Model(spec, COMPILED).predict(x)
    np.testing.assert_array_equal(y, Model(spec, "numpy").predict(x))
    assert {*np.unique(y)} == {2.0, -1.0}


def test_integers_of_any_dtype_and_sessions() -> None:
    model = Model(tokens(LSTM(DEPTH, 24, return_sequences=True)), COMPILED)
    ids = draw()
    whole = model.predict(ids)
    for dtype in ("int64", "int32", "int16", "float32"):
        np.testing.assert_array_equal(model.predict(ids.astype(dtype)), whole)
    session = model.session(4)
    made = [session.step(ids[:, t]) for t in range(9)]
    np.testing.assert_array_equal(np.stack(made, axis=1), whole)
    with pytest.raises(
        ShapeError, match=r"x: expected integers up to 16777215, got 0.5 at \(0, 0\)"
    ):
        model.predict(np.full((1, 1), 0.5))


def test_another_reader_of_the_ids_sees_checked_ones() -> None:
    """An id that float32 does not hold would be another one."""
    spec = tokens(LSTM(DEPTH, 4))
    hot, cell, _ = spec.layers
    scale = make_chain(Rescaling(2.0, 1.0)).layers[0]
    scale = dataclasses.replace(scale, name="scale")
    edges = (Edge.call(hot, "x"), Edge.call(cell, hot.name), Edge.call(scale, "x"))
    x = TensorSpec("x", ("batch", "steps"), True)
    both = ModelSpec((hot, cell, scale), edges, (x,), (cell.name, "scale"))
    with pytest.raises(ShapeError, match="expected integers up to 16777215"):
        Model(both, COMPILED).predict(np.array([[1, 2**24 + 1]]))


def test_info_names_the_table() -> None:
    assert "tables of embeddings times kernels" in describe_kernels(tokens(LSTM(DEPTH, 4)))
