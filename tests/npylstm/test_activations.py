"""Activations in their three forms (NumPy, float32 kernel, float64 kernel) against plain Python."""

from __future__ import annotations

import math
import warnings

import numpy as np
import oracle
import pytest
from backends import compiled_library

from npylstm.activations import TABLE, Activation
from npylstm.errors import FormatError
from npylstm.kernels import table
from npylstm.kernels.library import EXECUTE
from npylstm.kernels.packing import ALIGNMENT, aligned

NATIVE = [name for name, row in TABLE.items() if row.code is not None]
ELEMENTWISE = [name for name, row in TABLE.items() if row.elementwise]

# Dense near zero, where digits are lost, and out to where everything saturates.
GRID = np.unique(np.concatenate([np.linspace(-20, 20, 2001), np.geomspace(1e-8, 1, 200), -np.geomspace(1e-8, 1, 200)]))  # fmt: skip

# Units in the last place of a result, or of the largest intermediate value where a formula
# cancels (softplus(x) - x, 1 + x, ...): the arguments' own rounding alone makes one or two.
ULPS = 8


def activate(code: int, params: np.ndarray, y: np.ndarray) -> None:
    """Run the kernel form on an array, in place: a program of one row."""
    dtype, library = str(y.dtype), compiled_library()
    (row,) = (row for row in table._ROWS if row.kernel.name == "activation")
    start = -(-y.size // ALIGNMENT) * ALIGNMENT
    work, parameters = aligned(2 * start, dtype), aligned(params.size + ALIGNMENT, dtype)
    work[: y.size], parameters[: params.size] = y, params
    values = {"X": 0, "Y": start, "ROWS": 1, "IN": y.size, "CODE": code, "CODE_PARAM": 0}
    program = row.row(library, dtype, values)
    addresses = (a.ctypes.data for a in (program, parameters, work, work))
    library.bind(EXECUTE, 1, *addresses)()
    y[:] = work[start : start + y.size]


def native(name: str, x: np.ndarray) -> np.ndarray:
    """Run the kernel form."""
    activation = Activation.of(name)
    y = np.ascontiguousarray(x).copy()
    params = np.array(activation.params or (0.0,), x.dtype)
    activate(activation.row.code, params, y)
    return y


def reference(name: str, x: np.ndarray) -> np.ndarray:
    return np.array(oracle.activate(name, [float(v) for v in x]))


def tolerance(x: np.ndarray, y: np.ndarray, dtype: type) -> np.ndarray:
    eps = np.finfo(dtype).eps
    return ULPS * eps * np.maximum(np.abs(y), np.minimum(1.0, np.abs(x)))


UNCHANGED = ("linear", "elu", "celu")  # positive numbers; others see negative ones in the grid
# Of other numbers they are nan, or infinite.
POSITIVE = ("log", "log10", "log1p", "log2", "reciprocal", "rsqrt", "sqrt")
BOUNDS = {"acos": (-1, 1), "acosh": (1, 20), "asin": (-1, 1), "atanh": (-0.99, 0.99)}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_numpy_form(name: str, dtype: type) -> None:
    x = GRID.astype(dtype)
    x = x[x > 0] if name in POSITIVE else x
    low, high = BOUNDS.get(name, (-20, 20))
    x = x[(x >= low) & (x <= high)]
    y = Activation.of(name)(x)
    assert y.dtype == dtype
    exact = reference(name, x)
    # gelu_tanh and mish multiply x by a rounded factor near 0 or 1; x bounds that error.
    bound = tolerance(x, exact, dtype) + 2 * np.finfo(dtype).eps * np.abs(x)
    assert (np.abs(y - exact) <= bound).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", [n for n in NATIVE if n in ELEMENTWISE])
def test_kernel_form(name: str, dtype: type) -> None:
    x = GRID.astype(dtype)
    x = x[x > 0] if name in POSITIVE else x
    exact = reference(name, x)
    bound = tolerance(x, exact, dtype) + 2 * np.finfo(dtype).eps * np.abs(x)
    assert (np.abs(native(name, x) - exact) <= bound).all()


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "exponential"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_three_that_matter_are_within_three_units_in_the_last_place(
    name: str, dtype: type
) -> None:
    x = GRID.astype(dtype)
    exact = reference(name, x)
    ulps = np.abs(native(name, x) - exact) / np.spacing(np.abs(exact).astype(dtype))
    assert ulps.max() <= 3


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_forms(name: str) -> None:
    x = np.random.default_rng(0).normal(size=17) * 5
    np.testing.assert_allclose(Activation.of(name)(x), reference(name, x), rtol=1e-13, atol=1e-13)
    if name in NATIVE:
        np.testing.assert_allclose(native(name, x), reference(name, x), rtol=1e-13, atol=1e-16)


def test_a_wide_softmax_keeps_its_digits() -> None:
    x = np.random.default_rng(0).normal(size=5000).astype(np.float32)
    exact = reference("softmax", x.astype(np.float64))
    ulps = np.abs(native("softmax", x) - exact) / np.spacing(exact.astype(np.float32))
    # Up to 4 from rounding the argument (half a unit of a number below 8 is 2**-22 relative in the
    # result), 2 from exp, 1 from the division. Summed in float32 it was 40.
    assert ulps.max() <= 7


@pytest.mark.parametrize("form", ["numpy", "kernel"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_saturation_is_exact_and_silent(form: str, dtype: type) -> None:
    x = np.array([-np.inf, -1e4, -800.0, 800.0, 1e4, np.inf], dtype)
    run = native if form == "kernel" else lambda name, x: Activation.of(name)(x)
    # NumPy's error state is the engine's to set, once for a layer.
    with warnings.catch_warnings(), np.errstate(over="ignore", invalid="ignore"):
        warnings.simplefilter("error")
        np.testing.assert_array_equal(run("sigmoid", x), [0, 0, 0, 1, 1, 1])
        np.testing.assert_array_equal(run("tanh", x), [-1, -1, -1, 1, 1, 1])
        np.testing.assert_array_equal(run("hard_sigmoid_fifth", x), [0, 0, 0, 1, 1, 1])
        np.testing.assert_array_equal(run("hard_sigmoid_sixth", x), [0, 0, 0, 1, 1, 1])
        np.testing.assert_array_equal(run("relu", x), np.maximum(x, 0))
        assert not run("elu", x)[3:].any() or (run("elu", x)[3:] == x[3:]).all()
        np.testing.assert_array_equal(run("elu", x)[:3], [-1, -1, -1])


@pytest.mark.parametrize("form", ["numpy", "kernel"])
@pytest.mark.parametrize("name", NATIVE)
def test_nan_comes_through(name: str, form: str) -> None:
    x = np.array([0.5, np.nan, 0.25], np.float32)
    y = native(name, x) if form == "kernel" else Activation.of(name)(x)
    assert np.isnan(y[1])
    assert name in ("softmax", "log_softmax") or not np.isnan(y[[0, 2]]).any()


def test_thresholded_relu_keeps_nan() -> None:
    y = Activation.of("thresholded_relu", theta=1.0)(np.array([np.nan, 1.0, 1.5]))
    np.testing.assert_array_equal(y, [np.nan, 0, 1.5])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("is_nan", [0, 0, 1, 0, 0]),
        ("is_inf", [1, 1, 0, 0, 0]),
        ("logical_not", [0, 0, 0, 1, 0]),
        ("round", [-np.inf, np.inf, np.nan, 0, 2]),  # half to even
    ],
)
def test_special_numbers(name: str, expected: list[float]) -> None:
    y = Activation.of(name)(np.array([-np.inf, np.inf, np.nan, 0, 2.5], np.float32))
    np.testing.assert_array_equal(y, np.array(expected, np.float32))


def test_clip_has_bounds_on_both_sides_or_on_one() -> None:
    x = np.array([-3.0, 0.5, np.inf, -np.inf, np.nan])
    np.testing.assert_array_equal(Activation.of("clip")(x), x)
    np.testing.assert_array_equal(
        Activation.of("clip", low=-1, high=6)(x), [-1, 0.5, 6, -1, np.nan]
    )
    np.testing.assert_array_equal(
        Activation.of("clip", low=0, high=math.inf)(x), [0, 0.5, np.inf, 0, np.nan]
    )


def test_the_two_hard_sigmoids_differ() -> None:
    x = np.array([1.0])
    assert Activation.of("hard_sigmoid_fifth")(x) == pytest.approx(0.7)
    assert Activation.of("hard_sigmoid_sixth")(x) == pytest.approx(4 / 6)


@pytest.mark.parametrize("form", ["numpy", "kernel"])
def test_relu_parameters(form: str) -> None:
    x = np.array([-3.0, 0.5, 1.0, 1.5, 9.0])
    activation = Activation.of("relu", negative_slope=0.1, max_value=6.0, threshold=1.0)
    expected = [0.1 * (-3 - 1), 0.1 * (0.5 - 1), 0.0, 1.5, 6.0]
    if form == "numpy":
        y = activation(x)
    else:
        y = x.copy()
        activate(activation.row.code, np.array(activation.params), y)
    np.testing.assert_allclose(y, expected, rtol=1e-15)


def test_codes_are_unique_and_dense() -> None:
    codes = sorted(row.code for row in TABLE.values() if row.code is not None)
    assert codes == list(range(len(codes)))


@pytest.mark.parametrize("name", NATIVE)
def test_every_code_has_a_loop(name: str) -> None:
    x = np.array([0.2, 0.3, 4.0])
    changed = {
        "clip": {"high": 1.0},
        "affine": {"beta": 1.0},
        "abs": {},
        "relu": {"threshold": 1.0},
    }
    x = -x if name == "abs" else x
    activation = Activation.of(name, **changed.get(name, {}))
    y = x.copy()
    activate(activation.row.code or 0, np.array(activation.params or (0.0,)), y)
    assert name in UNCHANGED or (y != x).any()


@pytest.mark.parametrize(
    "activation",
    [Activation.of("tanh"), Activation.of("elu", alpha=0.5), Activation.of("relu", max_value=6.0),
     Activation.of("relu", negative_slope=0.2, max_value=math.inf), Activation.of("clip"),
     Activation.of("clip", low=-math.inf, high=3.0), Activation.of("clip", low=-1.0)],
)  # fmt: skip
def test_json_round_trip(activation: Activation) -> None:
    assert Activation.from_json(activation.to_json()) == activation


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("tahn", "unknown name 'tahn'.*tanh"),
        ({"name": "elu", "beta": 1}, "unknown parameter 'beta'.*alpha"),
        ({"name": "elu", "alpha": "x"}, "alpha must be a finite number"),
        ({"name": "elu", "alpha": float("nan")}, "alpha must be a finite number"),
        ({"name": "elu", "alpha": 10**400}, "alpha must be a finite number"),
        ({"name": "clip", "low": float("inf")}, "low must be a finite number"),
        ({"name": "elu", "cls": 1}, "unknown parameter 'cls'"),
        ({"name": "softmax", "axis": 0.5}, "axis: an integer"),
        (3, "expected a name"),
    ],
)
def test_bad_json_is_named(value: object, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        Activation.from_json(value)
