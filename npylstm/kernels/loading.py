"""All kernels by name: loaded from the disk, or compiled, at their first use.

Numba is imported only if a kernel must be compiled.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import os
import threading
from collections.abc import Callable

from npylstm.engine import code_cache
from npylstm.engine.linking import link
from npylstm.errors import NpylstmError

__all__ = ["Entry", "Kernel", "advance", "execute", "generate"]

_LOCK = threading.RLock()  # held during compilation, which may take seconds


def _unlock() -> None:
    global _LOCK  # the thread that held it does not exist in a forked process
    _LOCK = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock)


class Kernel:
    """A kernel that is called by its address, compiled for a dtype at its first use.

    Programs contain addresses, so a process compiles only the kernels of its models.
    """

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = module, name
        self._addresses: dict[str, int] = {}

    def load(self, dtype: str) -> bool:
        """Load the kernel for a dtype from the disk; return False if it must be compiled.

        Does not wait for threads that compile; two threads may load the same kernel.
        """
        return self._find(dtype)

    def address(self, dtype: str) -> int:
        """Return the address of the kernel for ``"float32"`` or ``"float64"``."""
        if dtype not in self._addresses:
            with _LOCK:
                if not self._find(dtype):
                    self._compile(dtype)
        return self._addresses[dtype]

    def _find(self, dtype: str) -> bool:
        if dtype not in self._addresses:
            code = code_cache.read(f"{self._name}-{dtype}")
            if code is None:
                return False
            self._addresses[dtype] = link(code)
        return True

    def _compile(self, dtype: str) -> None:
        try:
            from npylstm.engine.jit import compile_object

            module = importlib.import_module(f"npylstm.kernels.{self._module}")
        except (ImportError, AttributeError) as error:  # incompatible versions
            raise NpylstmError(f"Numba cannot be used here: {error}") from error
        code = compile_object(getattr(module, self._name), dtype)
        self._addresses[dtype] = link(code)
        code_cache.write(f"{self._name}-{dtype}", code)


class Entry:
    """A kernel that Python calls without the GIL; its arguments are integers."""

    def __init__(self, module: str, name: str) -> None:
        self._kernel = Kernel(module, name)

    def bind(self, *integers: int) -> Callable[[], None]:
        """Return a function that calls the kernel with these arguments."""
        function = ctypes.CFUNCTYPE(None)(self._kernel.address("int64"))
        arguments = (ctypes.c_int64 * len(integers))(*integers)
        bound = functools.partial(function, ctypes.c_void_p(ctypes.addressof(arguments)))
        bound.arguments = arguments  # type: ignore[attr-defined]  # keeps them alive
        return bound

    def load(self) -> bool:
        """Load the kernel from the disk, as :meth:`Kernel.load`."""
        return self._kernel.load("int64")

    def prepare(self) -> None:
        """Compile the kernel."""
        self._kernel.address("int64")


execute, generate, advance = (Entry("layers", name) for name in ("execute", "generate", "advance"))
