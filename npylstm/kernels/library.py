"""Kernels by name, and the libraries that contain them compiled.

The kernels have one source and two libraries: :class:`npylstm.native.shipped.ShippedLibrary` was
compiled when the wheel was built; :class:`npylstm.native.compiled.NumbaLibrary` compiles here.
"""

from __future__ import annotations

import ctypes
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, NamedTuple

import numpy as np

from npylstm.kernels.packing import VectorType

__all__ = ["ADVANCE", "ENTRIES", "EXECUTE", "GENERATE", "Kernel", "KernelLibrary", "Unavailable"]


class Kernel(NamedTuple):
    """A kernel: the module of ``npylstm.kernels`` and the function in it.

    ``dtypes`` are those of models that it computes.
    """

    module: str
    name: str
    dtypes: tuple[str, ...] = ("float32", "float64")


EXECUTE, GENERATE, ADVANCE = ENTRIES = tuple(
    Kernel("layers", name) for name in ("execute", "generate", "advance")
)


class Unavailable(NamedTuple):
    """Why there is no library.

    Attributes
    ----------
    reason
        In words.
    is_fault
        Whether a library is there and cannot be used: users should be told.
    """

    reason: str
    is_fault: bool = False


class KernelLibrary(ABC):
    """Compiled kernels.

    Attributes
    ----------
    name
        Name of the back end that computes with this library.
    vector_bytes
        Size of the vectors that the kernels use, and that weights are packed for.
    """

    name: ClassVar[str]
    vector_bytes: int

    @property
    @abstractmethod
    def description(self) -> str:
        """Where the kernels come from, in words."""

    def facts(self) -> dict[str, Any]:
        """Return further entries for ``npylstm doctor``."""
        return {}

    @abstractmethod
    def address(self, kernel: Kernel, dtype: str) -> int:
        """Return the address of a kernel for ``"float32"`` or ``"float64"``; ``"int64"``: entries.

        Raises
        ------
        NpylstmError
            If the library cannot provide it.
        """

    def prepare(self, kernels: Iterable[Kernel], dtype: str) -> None:
        """Make these kernels ready for a dtype, and the entries."""
        for kernel in kernels:
            self.address(kernel, dtype)
        for kernel in ENTRIES:
            self.address(kernel, "int64")

    def vector_type(self, dtype: str) -> VectorType:
        """Return the vectors of a dtype that the kernels use."""
        return VectorType(dtype, self.vector_bytes // np.dtype(dtype).itemsize, dtype)

    def bind(self, entry: Kernel, *integers: int) -> Callable[[], None]:
        """Return a function that calls one of :data:`ENTRIES` with these arguments."""
        function = ctypes.CFUNCTYPE(None)(self.address(entry, "int64"))
        arguments = (ctypes.c_int64 * len(integers))(*integers)
        bound = functools.partial(function, ctypes.c_void_p(ctypes.addressof(arguments)))
        bound.arguments = arguments  # type: ignore[attr-defined]  # keeps them alive
        return bound
