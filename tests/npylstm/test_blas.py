"""Products that are cut into parts, so that BLAS computes them in the calling thread."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from npylstm import blas
from npylstm.integer_matrix import IntegerMatrix

RNG = np.random.default_rng(6)


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Cut products of more than 4,000 multiplications, and see the size of every part."""
    seen: list[int] = []
    matmul = np.matmul

    def count(a: Any, b: Any, out: Any) -> Any:
        seen.append(a.shape[-2] * a.shape[-1] * b.shape[-1])
        return matmul(a, b, out=out)

    monkeypatch.setattr(blas, "MOST_IN_ONE_THREAD", 4000)
    monkeypatch.setattr(np, "matmul", count)
    return seen


SHAPES = {
    "stacks": ((3, 50, 20), (3, 20, 10)),
    "one matrix": ((50, 20), (20, 10)),
    "a stack and a matrix": ((3, 50, 20), (20, 10)),
    "broadcast": ((2, 1, 33, 20), (3, 20, 10)),
    "a matrix and a stack": ((50, 20), (3, 20, 10)),
}


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", SHAPES)
def test_parts(name: str, dtype: str, transposed: bool, sizes: list[int]) -> None:
    shape, other = SHAPES[name]
    a, b = RNG.normal(size=shape).astype(dtype), RNG.normal(size=other).astype(dtype)
    if transposed:
        b = np.ascontiguousarray(b.swapaxes(-1, -2)).swapaxes(-1, -2)
    y = blas.matmul(a, b)
    expected = np.einsum("...ij,...jk->...ik", a.astype(np.float64), b.astype(np.float64))
    assert (y.dtype, y.shape) == (dtype, expected.shape)
    assert len(sizes) > 1
    assert max(sizes) <= 4000
    # 20 terms of about 1: their sum is rounded at most 20 times.
    np.testing.assert_allclose(y, expected, rtol=0, atol=20 * 20 * np.finfo(dtype).eps)


@pytest.mark.parametrize(
    ("shape", "other"),
    [
        ((3, 10, 20), (3, 20, 10)),  # small
        ((3, 7, 20), (20, 100)),  # of few rows
        ((50, 20), (20, 100)),  # of parts with few rows
        ((50, 0), (0, 10)),
        ((0, 20), (20, 10)),
        ((50, 20), (20, 0)),
    ],
)
def test_not_cut(shape: tuple[int, ...], other: tuple[int, ...], sizes: list[int]) -> None:
    a, b = RNG.normal(size=shape), RNG.normal(size=other)
    np.testing.assert_array_equal(blas.matmul(a, b), a @ b)
    assert sizes == []


def test_integers_multiply_themselves() -> None:
    integers = RNG.integers(-127, 128, (20, 10)).astype(np.int8)
    matrix: Any = IntegerMatrix(integers, np.full(10, 0.5, np.float32))
    x = RNG.normal(size=(50, 20)).astype(np.float32)
    np.testing.assert_array_equal(blas.matmul(x, matrix), x @ matrix)
