"""How kernels are compiled, in one place.

* No fast-math: nan and infinities pass through, sums keep the order in which they are written, and
  so one row gives the same bits as a thousand. Fused multiply-adds are requested one by one with
  :func:`fma`.
* ``error_model="numpy"``: a division by zero gives inf or nan, as in NumPy.
* Kernels have C's calling convention and use no Python object. ctypes releases the GIL for a call,
  so threads with their own data run side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numba
from numba import types
from numba.extending import intrinsic

from npylstm.kernels.target import TARGET

__all__ = [
    "OPTIONS", "Source", "c_function", "cache_folder", "entry", "fma", "jit", "kernel",
    "product_kernel", "rounding_kernel", "row_kernel",
]  # fmt: skip

OPTIONS = {"nopython": True, "error_model": "numpy"}


class Source(NamedTuple):
    """A function to compile, and its signature as a function of the type of pointers to numbers."""

    function: Callable[..., Any]
    signature: Callable[[Any], Any]

    def signature_for(self, dtype: str) -> Any:
        """Return the signature for numbers of a dtype."""
        return self.signature(types.CPointer(getattr(types, dtype)))


def jit(function: Callable[..., Any]) -> Any:
    """Make a function that kernels may call."""
    return numba.jit(**OPTIONS, no_cpython_wrapper=True, no_cfunc_wrapper=True)(function)


def c_function(source: Source, dtype: str, cache: bool) -> Any:
    """Compile a kernel for a dtype; the attribute ``address`` of the result is its address."""
    return numba.cfunc(source.signature_for(dtype), cache=cache, **OPTIONS)(source.function)


def cache_folder(source: Source) -> str | None:
    """Return the folder of Numba's cache for a function; None if no folder can be written."""
    try:
        folder: str = numba.jit(cache=True, **OPTIONS)(source.function).stats.cache_path
    except RuntimeError:
        return None
    return folder


def kernel(function: Callable[..., Any]) -> Source:
    """Make a kernel of a function of a row of a program, parameters, states and tensors."""
    row = types.CPointer(types.int64)
    return Source(function, lambda number: types.void(row, number, number, number))


def product_kernel(function: Callable[..., Any]) -> Source:
    """Make a kernel of a function like :func:`npylstm.kernels.products.multiply`."""
    n = types.int64
    return Source(
        function, lambda number: types.void(number, n, number, n, n, number, n, n, number, n, n)
    )


def rounding_kernel(function: Callable[..., Any]) -> Source:
    """Make a kernel of :func:`npylstm.kernels.integer_products.round_rows`."""
    n = types.int64
    return Source(function, lambda number: types.void(number, n, number, n, n, n))


def row_kernel(function: Callable[..., Any]) -> Source:
    """Make a kernel of a function like :func:`npylstm.kernels.lstm_rows.lstm_row_bfloat16`."""
    n = types.int64
    return Source(
        function, lambda number: types.void(number, number, number, number, number, n, n, n)
    )


def entry(function: Callable[..., Any]) -> Source:
    """Make a kernel of a function of integers in an array."""
    return Source(function, lambda integers: types.void(integers))


@intrinsic
def fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """``a * b + c``, rounded once where the processor has an instruction for it."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if TARGET.has_fma:
            return builder.fma(*args)
        return builder.fadd(builder.fmul(*args[:2]), args[2])

    return a(a, a, a), generate
