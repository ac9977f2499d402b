"""The back ends that tests use."""

from __future__ import annotations

import os

from npylstm.kernels.library import KernelLibrary
from npylstm.runtime.engines import LIBRARIES

__all__ = ["BACKENDS", "COMPILED", "HAS_NATIVE", "compiled_library"]

_native = LIBRARIES["native"]()
HAS_NATIVE = isinstance(_native, KernelLibrary)
# A library that is there and cannot be used is an error here: tests would be skipped, or use Numba.
assert HAS_NATIVE or not _native.is_fault, f"{_native.reason}; run make native"

# The back end with kernels: shipped ones where they are there (`make native`), otherwise Numba's.
COMPILED = os.environ.get("NPYLSTM_TEST_BACKEND") or ("native" if HAS_NATIVE else "numba")
BACKENDS = ("numpy", COMPILED)


def compiled_library() -> KernelLibrary:
    """The kernels of the back end COMPILED."""
    library = LIBRARIES[COMPILED]()
    assert isinstance(library, KernelLibrary), library
    return library
