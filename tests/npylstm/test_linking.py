"""Object code in memory: linked here as LLVM links it, and never writable."""

from __future__ import annotations

import ctypes
import math
import platform
import sys
from pathlib import Path

import numpy as np
import pytest
from numba import types

from npylstm.engine import linking
from npylstm.engine.jit import Source, compile_object
from npylstm.kernels.loading import Kernel, advance, execute, generate
from npylstm.kernels.table import KERNELS

# Where object code is of the one kind that is linked here.
AT_HOME = sys.platform == "linux" and platform.machine() == "x86_64"


def erf_and_table(n, y):  # type: ignore[no-untyped-def]
    """What refers to all there is: constants, a table of jumps, itself, the C library."""
    for k in range(n):
        kind = k % 5
        if kind == 0:
            y[k] = math.erf(y[k])
        elif kind == 1:
            y[k] = 3.25 * y[k]
        elif kind == 2:
            y[k] = math.tanh(y[k])
        elif kind == 3:
            y[k] = math.log1p(y[k]) - 1.75
        else:
            y[k] = math.exp(y[k])


SOURCE = Source(erf_and_table, lambda number: types.void(types.int64, number))


def results(address: int) -> list[float]:
    y = np.linspace(0.1, 2, 40)
    ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_void_p)(address)(y.size, y.ctypes.data)
    return y.tolist()


def test_code_does_the_same_however_it_was_linked() -> None:
    code = compile_object(SOURCE, "float64")
    here, there = results(linking.link(code)), results(linking._link_with_llvm(code))
    assert here == there
    y = np.linspace(0.1, 2, 40)
    np.testing.assert_allclose(here[1::5], 3.25 * y[1::5], rtol=1e-15)
    np.testing.assert_allclose(here[4::5], np.exp(y[4::5]), rtol=1e-15)


def test_every_kernel_is_linked_here(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[bytes] = []
    monkeypatch.setattr(linking, "_link_with_llvm", lambda code: left.append(code) or 1)
    made = [(kernel, dtype) for kernel in KERNELS for dtype in ("float32", "float64")]
    made += [(program._kernel, "int64") for program in (execute, generate, advance)]
    for kernel, dtype in made:
        assert Kernel(kernel._module, kernel._name).address(dtype)
    assert len(made) > 23
    assert len(left) == (0 if AT_HOME else len(made))


def test_what_is_not_known_is_left_to_llvm(monkeypatch: pytest.MonkeyPatch) -> None:
    code = compile_object(SOURCE, "float64")
    expected = results(linking.link(code))
    left = []
    with_llvm = linking._link_with_llvm
    monkeypatch.setattr(linking, "_link_with_llvm", lambda c: left.append(c) or with_llvm(c))
    for name, value in (("_MACHINE", 183), ("_RELATIVE", 99), ("_CALLED", 99)):
        with monkeypatch.context() as patch:
            patch.setattr(linking, name, value)
            assert results(linking.link(code)) == expected
    refused = OSError(13, "mprotect")
    monkeypatch.setattr(linking, "_executable", lambda image: (_ for _ in ()).throw(refused))
    assert results(linking.link(code)) == expected
    assert len(left) == 4


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads Linux' list of mappings")
def test_memory_with_code_cannot_be_written() -> None:
    address = linking.link(compile_object(SOURCE, "float64"))
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, rights = line.split()[:2]
        start, end = (int(number, 16) for number in span.split("-"))
        if start <= address < end:
            assert rights.startswith("r-x")
            return
    raise AssertionError("not mapped")
