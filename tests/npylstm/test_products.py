"""Products with packed weights against float64, and the bits of one row against those of many."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from backends import compiled_library

from npylstm.kernels.packing import PANEL, Columns, VectorType, aligned
from npylstm.kernels.table import PRODUCTS

SEGMENT = 64  # terms of a partial sum, as in npylstm.kernels.products

TERMS = [1, 2, 3, 4, 5, 20, SEGMENT, SEGMENT + 1, 2 * SEGMENT + 3, 200]
UNITS = [1, 2, 3, 4, 5, 7, 8, 9, 13, 15, 16, 17, 20, 31, 33, 40, 75]


def product(
    x: np.ndarray, kernel: np.ndarray, start: np.ndarray, gates: int, rows: int | None = None
) -> np.ndarray:
    """Compute ``start + x @ kernel`` natively, so many rows in a call; columns as they are packed."""
    dtype = str(x.dtype)
    library = compiled_library()
    columns = Columns(gates, kernel.shape[1] // gates, library.vector_type(dtype))
    packed = columns.pack(kernel)
    w = aligned(packed.size, dtype)
    w[:] = packed
    size = len(x)
    z = aligned(size * columns.size, dtype).reshape(size, columns.size)
    begun = np.ascontiguousarray(columns.arrange(start))
    x = np.ascontiguousarray(x)
    integer, address = ctypes.c_int64, ctypes.c_void_p
    native = ctypes.CFUNCTYPE(
        None, address, integer, address, integer, integer, address, integer, integer, address,
        integer, integer,
    )(library.address(PRODUCTS[dtype].multiply, dtype))  # fmt: skip
    step = rows or size
    for r in range(0, size, step):
        native(
            z[r:].ctypes.data, columns.size, begun.ctypes.data, 0, min(step, size - r),
            x[r:].ctypes.data, x.shape[1], x.shape[1], w.ctypes.data, 0, columns.vectors,
        )  # fmt: skip
    # Back from the packed order.
    unpacked = np.empty((size, kernel.shape[1]), x.dtype)
    places = columns.arrange(np.arange(1.0, kernel.shape[1] + 1))
    for place, column in enumerate(places.astype(int)):
        if column:
            unpacked[:, column - 1] = z[:, place]
    return unpacked


def draw(rows: int, terms: int, columns: int, dtype: str) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(rows * 1000 + terms * 10 + columns)
    shapes = [(rows, terms), (terms, columns), (columns,)]
    return tuple(rng.normal(size=shape).astype(dtype) for shape in shapes)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("gates", [1, 2, 3, 4])
@pytest.mark.parametrize("units", UNITS)
def test_against_float64(units: int, gates: int, dtype: str) -> None:
    for terms in TERMS:
        x, kernel, start = draw(5, terms, gates * units, dtype)
        y = product(x, kernel, start, gates)
        exact = x.astype(np.longdouble) @ kernel.astype(np.longdouble) + start
        # A sum of n roundings of numbers no larger than the sum of magnitudes.
        magnitude = np.abs(x) @ np.abs(kernel) + np.abs(start)
        assert (np.abs(y - exact) <= (terms + 2) * np.finfo(dtype).eps * magnitude).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("units", UNITS)
def test_bits_do_not_depend_on_the_number_of_rows(units: int, dtype: str) -> None:
    for terms in TERMS:
        x, kernel, start = draw(11, terms, 4 * units, dtype)
        whole = product(x, kernel, start, 4)
        for rows in range(1, 8):
            np.testing.assert_array_equal(product(x, kernel, start, 4, rows), whole)


@pytest.mark.parametrize("gates", [1, 2, 3, 4])
@pytest.mark.parametrize("units", UNITS)
def test_every_column_has_a_place(units: int, gates: int) -> None:
    columns = Columns(gates, units, VectorType("float32", 8, "float32"))
    places = columns.arrange(np.arange(1, gates * units + 1))
    assert sorted(places[places > 0]) == list(range(1, gates * units + 1))


def test_a_panel_is_as_many_vectors_as_an_lstm_has_gates() -> None:
    assert PANEL == 4  # the cell of a whole block reads one panel


def test_nan_and_infinity_stay_in_their_row() -> None:
    x, kernel, start = draw(4, 9, 20, "float32")
    x[1, 3], x[2, 0] = np.nan, np.inf
    y = product(x, kernel, start, 4)
    assert np.isfinite(y[[0, 3]]).all()
    assert np.isnan(y[1]).all()
    assert np.isinf(y[2]).all()
