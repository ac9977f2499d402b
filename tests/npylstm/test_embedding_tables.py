"""Products of embeddings and input kernels, kept as tables: the same bits as without."""

from __future__ import annotations

import numpy as np
import pytest
from backends import COMPILED
from builders import make_layer

from npylstm import Model, ModelSpec, ShapeError
from npylstm.ops.arithmetic import Arithmetic
from npylstm.ops.base import Operation
from npylstm.ops.bidirectional import Bidirectional
from npylstm.ops.cells import GRU, LSTM, SimpleRNN
from npylstm.ops.dense import Embedding
from npylstm.ops.pointwise import Identity
from npylstm.runtime import parameters
from npylstm.spec import Edge, TensorSpec

VOCABULARY, UNITS = 23, 9
CELLS = {
    "lstm": LSTM(UNITS, 21, return_sequences=True),
    "gru": GRU(UNITS, 21, return_sequences=True),
    "gru_before": GRU(UNITS, 5, return_sequences=True, reset_after=False),
    "rnn": SimpleRNN(UNITS, 70, return_sequences=True),
    "pair": Bidirectional(LSTM(UNITS, 6, return_sequences=True), LSTM(UNITS, 6, return_sequences=True, go_backwards=True)),
    "last": LSTM(UNITS, 33),
}  # fmt: skip


def make(cell: Operation, masked: bool = False, outputs: tuple[str, ...] = ("y",)) -> ModelSpec:
    """An embedding in front of a cell; the embedded ids may be an output, too."""
    rng = np.random.default_rng(1)
    layers = [
        make_layer("embedding", Embedding(VOCABULARY, UNITS, mask_zero=masked), rng),
        make_layer("cell", cell, rng),
    ]
    made = ("embedded", "mask") if masked else ("embedded",)
    read = made if masked else ("embedded",)
    return ModelSpec(
        tuple(layers), (Edge("embedding", ("ids",), made), Edge("cell", read, ("y",))),
        (TensorSpec("ids", ("batch", "steps"), integer=True),), outputs, dtype="float32",
    )  # fmt: skip


def tables(model: Model) -> int:
    return len(model._engine._parameters.tables)


@pytest.mark.parametrize("steps", [1, 7, 70])
@pytest.mark.parametrize("kind", CELLS)
def test_the_bits_are_those_of_the_products(
    kind: str, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = np.random.default_rng(steps).integers(0, VOCABULARY, (5, steps))
    spec = make(CELLS[kind])
    fast = Model(spec, COMPILED)
    y = fast.predict(ids)
    assert tables(fast) == (2 if kind == "pair" else 1)
    monkeypatch.setattr(parameters, "TABLE_BYTES", 0)
    plain = Model(spec, COMPILED)
    np.testing.assert_array_equal(plain.predict(ids), y)
    assert tables(plain) == 0


def test_streams_read_the_table() -> None:
    model = Model(make(CELLS["lstm"]), COMPILED)
    ids = np.random.default_rng(0).integers(0, VOCABULARY, (3, 12))
    session = model.session(3)
    made = np.stack([session.step(ids[:, t]) for t in range(12)], axis=1)
    np.testing.assert_array_equal(made, model.predict(ids))


@pytest.mark.parametrize("threads", [1, 2])
def test_masks_of_the_embedding(threads: int) -> None:
    cell = LSTM(UNITS, 21, return_sequences=True, masked=True)
    ids = np.random.default_rng(0).integers(0, 3, (70, 12))
    spec = make(cell, masked=True)
    model = Model(spec, COMPILED)
    y = model.predict(ids, threads=threads)
    assert tables(model) == 1
    exact = Model(spec.astype("float64"), "numpy").predict(ids)
    # Sums of 30 terms below one round by a few units in the last place; states below one keep them.
    np.testing.assert_allclose(y, exact, rtol=0, atol=12 * np.finfo("float32").eps)


def test_embedded_ids_that_others_read_are_computed() -> None:
    spec = make(CELLS["lstm"], outputs=("y", "embedded"))
    model = Model(spec, COMPILED)
    ids = np.random.default_rng(0).integers(0, VOCABULARY, (2, 4))
    made = model.predict(ids)
    assert tables(model) == 0
    np.testing.assert_array_equal(made["embedded"], spec.layers[0].weights["embeddings"][ids])


@pytest.mark.parametrize("wrong", [-1, VOCABULARY, 2**24 + 1])
def test_wrong_ids_are_errors_that_change_no_state(wrong: int) -> None:
    model = Model(make(CELLS["lstm"]), COMPILED)
    session = model.session(2)
    first = session.step(np.array([1, 2]))
    with pytest.raises(ShapeError, match=f"{wrong}|16777"):
        session.step(np.array([1, wrong]))
    session.reset()
    np.testing.assert_array_equal(session.step(np.array([1, 2])), first)
    with pytest.raises(ShapeError):
        model.predict(np.array([[0, wrong, 1]]))


def test_computed_ids_stay_until_they_are_read() -> None:
    """Their memory is not used again between the embedding and the layer that reads the table."""
    rng = np.random.default_rng(1)
    # Its output has their size, and is written from the other end.
    spec = make(LSTM(UNITS, 1, return_sequences=True, go_backwards=True))
    edges = (Edge("next", ("ids",), ("after",)), Edge("embedding", ("after",), ("embedded",)),
             spec.edges[1])  # fmt: skip
    layers = (make_layer("next", Arithmetic("add", number=1.0), rng), *spec.layers)
    other = ModelSpec(layers, edges, spec.inputs, ("y",), dtype="float32")
    ids = rng.integers(0, VOCABULARY - 1, (40, 200))
    expected = Model(spec, COMPILED).predict(ids + 1)
    np.testing.assert_array_equal(Model(other, COMPILED).predict(ids), expected)


def test_an_identity_between_is_no_reader() -> None:
    """Importers remove it; a spec with one is computed without a table."""
    rng = np.random.default_rng(1)
    spec = make(CELLS["lstm"])
    between = Edge("same", ("embedded",), ("passed",))
    edges = (spec.edges[0], between, Edge("cell", ("passed",), ("y",)))
    layers = (*spec.layers, make_layer("same", Identity(), rng))
    other = ModelSpec(layers, edges, spec.inputs, ("y",), dtype="float32")
    ids = rng.integers(0, VOCABULARY, (2, 4))
    np.testing.assert_array_equal(
        Model(other, COMPILED).predict(ids), Model(spec, COMPILED).predict(ids)
    )
