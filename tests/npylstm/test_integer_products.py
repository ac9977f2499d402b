"""Products with weights in 8 bits: exact integers in every engine, compared with Python's."""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
from backends import COMPILED, compiled_library
from builders import make_chain

from npylstm import Model, ModelSpec
from npylstm.arrays import Array
from npylstm.errors import FormatError
from npylstm.integer_matrix import MOST_TERMS, IntegerMatrix, rounded_rows
from npylstm.kernels.library import KernelLibrary
from npylstm.kernels.packing import Columns, aligned, rounded_size
from npylstm.kernels.table import PRODUCTS
from npylstm.native.levels import LEVELS
from npylstm.native.shipped import ShippedLibrary, load_library
from npylstm.ops.base import Operation
from npylstm.ops.bidirectional import Bidirectional
from npylstm.ops.cells import GRU, LSTM, SimpleRNN
from npylstm.ops.dense import Dense, Embedding
from npylstm.storage import StoredWeight

TERMS = [1, 2, 3, 4, 5, 17, 63, 64, 65, 100, 512, 513, 1500]
UNITS = [1, 4, 5, 16, 17, 33, 75]


def libraries() -> Iterator[KernelLibrary]:
    """What computes here, and the shipped libraries of all levels of this processor."""
    yield compiled_library()
    for level in LEVELS:
        library = load_library(level.name)
        if isinstance(library, ShippedLibrary):
            yield library


LIBRARIES = {
    f"{library.name} {library.facts().get('level', '')}".strip(): library for library in libraries()
}


def python_product(x: Array, integers: Array, scale: Array) -> Array:
    """Compute a product with Python's integers, by the definition."""
    made = np.empty((len(x), integers.shape[1]), np.float32)
    for r, row in enumerate(x):
        largest = np.float32(max(abs(float(v)) for v in row))
        factor, own = np.float32(32512) / largest, largest / np.float32(32512)
        rounded = [int(np.rint(np.float32(v) * factor)) for v in row]
        for c in range(integers.shape[1]):
            total = sum(a * int(b) for a, b in zip(rounded, integers[:, c], strict=True))
            made[r, c] = np.float32(float(total)) * (scale[c] * own)
    return made


def native_product(library: KernelLibrary, x: Array, matrix: IntegerMatrix, start: float) -> Array:
    """Round rows and multiply them by the kernels of a library."""
    vector = library.vector_type("float32")._replace(weights="int8")
    columns = Columns(1, matrix.shape[1], vector)
    packed = columns.pack(matrix)
    w = aligned(packed.size, "float32")
    w[:] = packed
    rows, terms = x.shape
    size = rounded_size(terms)
    q = aligned(rows * size, "float32")
    z, begun = aligned(rows * columns.size, "float32"), aligned(columns.size, "float32")
    begun[:] = start
    integer, address = ctypes.c_int64, ctypes.c_void_p
    product = PRODUCTS["int8"]
    assert product.round_rows is not None
    round_rows = ctypes.CFUNCTYPE(None, address, integer, address, integer, integer, integer)(
        library.address(product.round_rows, "float32")
    )
    multiply = ctypes.CFUNCTYPE(
        None, address, integer, address, integer, integer, address, integer, integer, address,
        integer, integer,
    )(library.address(product.multiply, "float32"))  # fmt: skip
    round_rows(q.ctypes.data, size, x.ctypes.data, terms, rows, terms)
    multiply(
        z.ctypes.data, columns.size, begun.ctypes.data, 0, rows, q.ctypes.data, size, terms,
        w.ctypes.data, 0, columns.vectors,
    )  # fmt: skip
    places = columns.arrange(np.arange(1.0, matrix.shape[1] + 1)).astype(int)
    made = np.empty((rows, matrix.shape[1]), np.float32)
    for place, column in enumerate(places):
        if column:
            made[:, column - 1] = z.reshape(rows, -1)[:, place]
    return made


def draw(rows: int, terms: int, units: int) -> tuple[Array, IntegerMatrix]:
    rng = np.random.default_rng(rows + 10 * terms + 10_000 * units)
    x = np.ascontiguousarray(rng.normal(size=(rows, terms)).astype("float32"))
    integers = rng.integers(-127, 128, (terms, units)).astype("int8")
    return x, IntegerMatrix(integers, rng.uniform(0.5, 2, units).astype("float32"))


@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("terms", TERMS)
def test_numpy_computes_the_exact_integers(terms: int, units: int) -> None:
    x, matrix = draw(2, terms, units)
    np.testing.assert_array_equal(x @ matrix, python_product(x, matrix.integers, matrix.scale))


@pytest.mark.parametrize("name", LIBRARIES)
@pytest.mark.parametrize("rows", [1, 2, 3, 5])
@pytest.mark.parametrize("terms", TERMS)
def test_kernels_compute_the_same_bits(name: str, rows: int, terms: int) -> None:
    """The start is zero: so a product is rounded as NumPy does, after the sum."""
    for units in UNITS:
        x, matrix = draw(rows, terms, units)
        made = native_product(LIBRARIES[name], x, matrix, 0.0)
        np.testing.assert_array_equal(made, x @ matrix)


@pytest.mark.parametrize("name", LIBRARIES)
def test_rows_of_extreme_numbers(name: str) -> None:
    _, matrix = draw(1, 20, 17)
    rows = np.zeros((8, 20), np.float32)
    rows[0, 3], rows[1, 3], rows[2, 3] = np.nan, np.inf, -np.inf
    rows[4], rows[5], rows[6] = 1e-45, 2.0**-101, -np.float32(0)
    rows[7] = np.finfo(np.float32).max / 1e5
    made = native_product(LIBRARIES[name], rows, matrix, 2.5)
    assert np.isnan(made[:3]).all()
    assert (made[3:7] == 2.5).all()  # zeros, and numbers that count as zeros
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(rows @ matrix + np.float32(2.5), made)


@pytest.mark.parametrize("name", LIBRARIES)
@pytest.mark.parametrize("terms", [512, 514, MOST_TERMS])
@pytest.mark.parametrize(("x", "w"), [(1, 127), (-1, 127), (1, -127), (-1, -127)])
def test_the_largest_sums_do_not_overflow(name: str, terms: int, x: int, w: int) -> None:
    rows = np.full((2, terms), x, np.float32)
    matrix = IntegerMatrix(np.full((terms, 5), w, np.int8), np.ones(5, np.float32))
    exact = np.float32(32512 * terms * x * w) * (np.float32(1) / np.float32(32512))
    assert (native_product(LIBRARIES[name], rows, matrix, 0.0) == exact).all()
    assert (rows @ matrix == exact).all()


@pytest.mark.parametrize("name", LIBRARIES)
@pytest.mark.parametrize("w", [127, -127])
def test_the_largest_sums_of_low_bytes_do_not_overflow(name: str, w: int) -> None:
    """The low byte of 32511 is 255; the largest number of a row is 32512, whose low byte is 0."""
    rows = np.full((2, MOST_TERMS), 32511, np.float32)
    rows[:, 0] = 32512
    matrix = IntegerMatrix(np.full((MOST_TERMS, 5), w, np.int8), np.ones(5, np.float32))
    exact = np.float32((32511 * (MOST_TERMS - 1) + 32512) * w)
    assert (rows @ matrix == exact).all()
    assert (native_product(LIBRARIES[name], rows, matrix, 0.0) == exact).all()


def test_too_many_terms_are_refused() -> None:
    spec = make_chain(Dense(MOST_TERMS + 1, 1), shape=("batch", MOST_TERMS + 1))
    (layer,) = spec.layers
    wanted = (
        "layer_0: int8: expected up to 66000 terms of a sum, got 66001; keep this layer in float32"
    )
    with pytest.raises(FormatError, match=wanted):
        layer.in_storage("int8")


def test_integers_without_a_counterpart_are_refused() -> None:
    """-128 cannot come from rounding, but from a file."""
    with pytest.raises(FormatError, match="int8: expected integers from -127 to 127, got -128"):
        IntegerMatrix(np.int8([[1, -128]]), np.ones(2, np.float32))


def test_no_rows_and_more_axes() -> None:
    x, matrix = draw(6, 9, 4)
    assert (x[:0] @ matrix).shape == (0, 4)
    assert (x.reshape(2, 3, 9)[:, :0] @ matrix).shape == (2, 0, 4)
    np.testing.assert_array_equal(x.reshape(2, 3, 9) @ matrix, (x @ matrix).reshape(2, 3, 4))


def test_rounding_of_rows() -> None:
    x = np.float32([[0.5, -1.0, 0.25], [0, 0, 0], [3, np.inf, 0], [np.nan, 1, 1]])
    integers, scale = rounded_rows(x)
    assert integers.tolist() == [[16256, -32512, 8128], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert scale[:2, 0].tolist() == [np.float32(1) / np.float32(32512), 0]
    assert np.isnan(scale[2:]).all()


LAYERS: dict[str, tuple[Operation, ...]] = {
    "dense": (Dense(9, 70),),
    "narrow dense": (Dense(9, 3),),
    "lstm": (LSTM(9, 37, return_sequences=True),),
    "lstm of few terms": (LSTM(9, 2),),
    "projection": (LSTM(9, 20, projection=7, return_sequences=True),),
    "backwards": (LSTM(9, 16, go_backwards=True),),
    "gru": (GRU(9, 37),),
    "reset before": (GRU(9, 37, reset_after=False),),
    "simple_rnn": (SimpleRNN(9, 37),),
    "both directions": (Bidirectional(LSTM(9, 20), LSTM(9, 20, go_backwards=True), "concat"),),
    "sum of directions": (Bidirectional(GRU(9, 20), GRU(9, 20, go_backwards=True), "sum"),),
    "without a kernel": (LSTM(9, 20, peepholes=True),),
    "stack": (LSTM(9, 128, return_sequences=True), LSTM(128, 40), Dense(40, 5)),
}


def quantized(name: str, storage: str) -> ModelSpec:
    operations = LAYERS[name]
    spec = make_chain(*operations, shape=("batch", "steps", 9))
    return dataclasses.replace(spec, layers=tuple(n.in_storage(storage) for n in spec.layers))


def inputs(batch: int = 3, steps: int = 11) -> Array:
    return np.random.default_rng(1).normal(size=(batch, steps, 9)).astype("float32")


@pytest.mark.parametrize("name", LAYERS)
def test_layers_give_what_numpy_gives(name: str) -> None:
    """A rounding error of float32 may move an input by one step: 1 / 32512 of the largest.

    It is multiplied by a weight, whose column's sum of magnitudes is below ``terms / sqrt(terms)``;
    few inputs move in a step, and a state hands on less than it gets.
    """
    spec, x = quantized(name, "int8"), inputs()
    y, exact = Model(spec, COMPILED).predict(x), Model(spec, "numpy").predict(x)
    np.testing.assert_allclose(y, exact, rtol=0, atol=4 / 32512)
    assert np.abs(exact).max() > 0.01


@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_near_the_decoded_weights(name: str) -> None:
    """The input is rounded to a 65,000th of its largest number; see the test above."""
    spec, x = quantized(name, "int8"), inputs()
    plain = Model(spec.astype("float64"), "numpy").predict(x)
    for backend in (COMPILED, "numpy"):
        y = Model(spec, backend).predict(x)
        np.testing.assert_allclose(y, plain, rtol=0, atol=16 / 65024)
        assert not np.array_equal(y, plain.astype("float32"))


@pytest.mark.parametrize("name", [n for n in LAYERS if n != "without a kernel"])
@pytest.mark.parametrize("storage", ["int8", "bfloat16"])
def test_the_bits_of_a_row_depend_on_no_other(name: str, storage: str) -> None:
    model, x = Model(quantized(name, storage), COMPILED), inputs(5)
    together = model.predict(x)
    for threads in (1, 2):
        alone = np.concatenate([model.predict(x[k : k + 1], threads=threads) for k in range(5)])
        np.testing.assert_array_equal(alone, together)
    np.testing.assert_array_equal(model.predict(x, threads=2, batch_size=2), together)


@pytest.mark.parametrize("storage", ["int8", "bfloat16"])
@pytest.mark.parametrize("backend", [COMPILED, "numpy"])
def test_a_stream_gives_the_bits_of_the_sequence(storage: str, backend: str) -> None:
    model, x = Model(quantized("lstm", storage), backend), inputs(1)
    session = model.session()
    made = [session.push(x[:, :4]), session.step(x[:, 4])[:, None], session.push(x[:, 5:])]
    whole = model.predict(x)
    if backend == "numpy":  # BLAS orders sums by their number
        np.testing.assert_allclose(np.concatenate(made, axis=1), whole, rtol=0, atol=4 / 32512)
    else:
        np.testing.assert_array_equal(np.concatenate(made, axis=1), whole)


@pytest.mark.parametrize("name", LAYERS)
def test_products_with_bfloat16_have_the_bits_of_the_decoded_weights(name: str) -> None:
    spec, x = quantized(name, "bfloat16"), inputs()
    plain = dataclasses.replace(
        spec, layers=tuple(dataclasses.replace(n, stored={}) for n in spec.layers)
    )
    for rows in (x, x[:1]):
        y = Model(spec, COMPILED).predict(rows)
        np.testing.assert_array_equal(y, Model(plain, COMPILED).predict(rows))


@pytest.mark.parametrize("terms", [1, 2, 3, 4, 5, 64, 65, 129, 200])
@pytest.mark.parametrize("units", [33, 40, 65, 128, 150])
def test_bfloat16_of_any_size(terms: int, units: int) -> None:
    spec = make_chain(Dense(terms, units), shape=("batch", terms))
    spec = dataclasses.replace(spec, layers=tuple(n.in_storage("bfloat16") for n in spec.layers))
    plain = dataclasses.replace(
        spec, layers=tuple(dataclasses.replace(n, stored={}) for n in spec.layers)
    )
    x = np.random.default_rng(terms).normal(size=(7, terms)).astype("float32")
    for rows in (1, 2, 3, 7):
        y = Model(spec, COMPILED).predict(x[:rows])
        np.testing.assert_array_equal(y, Model(plain, COMPILED).predict(x[:rows]))


def test_embeddings_have_a_scale_for_each_row() -> None:
    table = np.float32([[1, 2], [100, -50], [0, 0]])
    stored = StoredWeight.encoded("int8", table, axis=0)
    assert stored.arrays[".scale"].shape == (3,)
    assert stored.arrays[""].tolist() == [[64, 127], [127, -64], [0, 0]]
    (layer,) = make_chain(Embedding(3, 2), shape=("batch", "steps")).layers
    assert layer.in_storage("int8").stored["embeddings"].axis == 0


@pytest.mark.parametrize("storage", ["int8", "bfloat16"])
def test_tables_of_embeddings_have_the_bits_of_the_product(storage: str) -> None:
    operations = (Embedding(30, 9), LSTM(9, 20))
    spec = make_chain(*operations, shape=("batch", "steps"))
    spec = dataclasses.replace(spec, layers=tuple(n.in_storage(storage) for n in spec.layers))
    ids = np.random.default_rng(0).integers(0, 30, (3, 8))
    embedded = spec["layer_0"].weights["embeddings"][ids]
    rest = spec.subgraph(["layer_0"], ["layer_1"])
    np.testing.assert_array_equal(
        Model(spec, COMPILED).predict(ids), Model(rest, COMPILED).predict(embedded)
    )
