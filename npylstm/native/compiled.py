"""Kernels compiled by Numba on this machine, when a model is loaded."""

from __future__ import annotations

import functools
import importlib
import sys
import threading
from collections.abc import Iterable
from typing import Any, ClassVar

from npylstm.errors import NpylstmError
from npylstm.kernels.library import Kernel, KernelLibrary, Unavailable
from npylstm.loading import LOADING
from npylstm.native.digests import sources_digest

__all__ = ["NOTICE", "NumbaLibrary", "cache_folder", "numba_library"]

# Address space of Numba and LLVM while they compile all kernels: 320 MB measured with 0.68.
_NEEDED = 350 << 20
# Compilation that takes longer prints a notice.
_SILENT_SECONDS = 1.0
NOTICE = "npylstm: compiling kernels for this machine (once; `npylstm warmup` does it ahead)"


class NumbaLibrary(KernelLibrary):
    """Kernels that Numba compiles at their first use, or finds in its cache.

    Numba names a file of its cache for the function and checks the time stamp of the function's
    own module only. Here functions are named for the sources of all kernels, so that code compiled
    from other sources is never found.
    """

    name: ClassVar[str] = "numba"

    def __init__(self, vector_bytes: int) -> None:
        self.vector_bytes = vector_bytes
        self._compiled: dict[tuple[Kernel, str], Any] = {}

    @property
    def description(self) -> str:
        return f"compiled here by Numba {importlib.import_module('numba').__version__}"

    def facts(self) -> dict[str, Any]:
        return {"cache": cache_folder()}

    def address(self, kernel: Kernel, dtype: str) -> int:
        key = (kernel, dtype)
        if key not in self._compiled:
            with LOADING:
                if key not in self._compiled:
                    self._compiled[key] = _compile(kernel, dtype)
        address: int = self._compiled[key].address
        return address

    def prepare(self, kernels: Iterable[Kernel], dtype: str) -> None:
        notice = threading.Timer(_SILENT_SECONDS, print, [NOTICE], {"file": sys.stderr})
        notice.daemon = True
        notice.start()
        try:
            super().prepare(kernels, dtype)
        finally:
            notice.cancel()


@functools.cache
def numba_library() -> NumbaLibrary | Unavailable:
    """Return the library of this process."""
    left = None if "numba" in sys.modules else _address_space_left()
    if left is not None and left < _NEEDED:
        # Numba would fail half loaded, and leave no memory to compute with NumPy.
        return Unavailable(
            f"too little memory: Numba needs {_NEEDED >> 20} MB of address space, the limit of "
            f"this process (ulimit -v) leaves {max(left, 0) >> 20} MB", is_fault=True,
        )  # fmt: skip
    try:
        from npylstm.kernels.target import TARGET
    except Exception as error:  # whatever versions that do not fit together raise
        reason = "too little memory" if isinstance(error, MemoryError) else error
        return Unavailable(f"Numba cannot be used here: {reason}", is_fault=True)
    return NumbaLibrary(TARGET.vector_bytes)


def _address_space_left() -> int | None:
    """Return how many bytes the process may still map; None if there is no limit."""
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit == resource.RLIM_INFINITY:
            return None
        with open("/proc/self/statm", encoding="ascii") as file:
            return limit - int(file.read().split()[0]) * resource.getpagesize()
    except (ImportError, OSError, ValueError):  # not on this system
        return None


def cache_folder() -> str | None:
    """Return the folder of Numba's cache for the kernels; None if no folder can be written."""
    from npylstm.kernels import jit

    return jit.cache_folder(_source(Kernel("layers", "execute")))


def _compile(kernel: Kernel, dtype: str) -> Any:
    """Return a kernel as a C function, from Numba's cache if it is there."""
    try:
        from npylstm.kernels import jit

        source = _source(kernel)
        if sources_digest() is not None:
            try:
                return jit.c_function(source, dtype, cache=True)
            except Exception:  # no folder, a full disk, a damaged file; other errors come again
                pass
        return jit.c_function(source, dtype, cache=False)
    except (ImportError, AttributeError) as error:  # incompatible versions
        raise NpylstmError(f"Numba cannot be used here: {error}") from error


def _source(kernel: Kernel) -> Any:
    """Return the source of a kernel; its function is named for the sources of all kernels."""
    source = getattr(importlib.import_module(f"npylstm.kernels.{kernel.module}"), kernel.name)
    source.function.__qualname__ = f"{kernel.name}-{sources_digest()}"
    return source
