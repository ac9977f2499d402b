"""The whole jit policy, in one decorator.

* ``nogil``: threads with their own data run side by side.
* No fast-math at all: nan and infinities pass through, sums keep the order in which they
  are written, and so one row gives the same bits as a thousand. Fused multiply-adds are
  asked for one by one with :func:`fma`.
* ``error_model="numpy"``: a division by zero gives inf or nan, as in NumPy.
* Compiled code is kept on disk: in Numba's cache folder where one can be written (beside
  the source, the user's cache folder, or ``NUMBA_CACHE_DIR``), otherwise in the system's
  temporary folder, otherwise nowhere. A cache that fails costs time, never an answer.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba import types
from numba.core import caching
from numba.core.ccallback import CFunc
from numba.extending import intrinsic

__all__ = ["Entry", "Kernel", "entry", "fma", "jit", "kernel", "product_kernel"]

_LOCK = threading.RLock()


def jit(function: Callable[..., Any]) -> Any:
    """Compile a kernel, lazily, by the policy above."""
    dispatcher: Any = numba.njit(nogil=True, error_model="numpy")(function)
    # Where no folder can be written, the kernel compiles in every process.
    with contextlib.suppress(RuntimeError, OSError):
        dispatcher._cache = _Cache(function)
    return dispatcher


def _source_digest() -> bytes:
    """Digest of all kernel sources: a kernel is stale when any helper that it inlines changed."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.digest()


def _locator(name: str) -> Any:
    """Find a cache locator of Numba's; in older versions their names began with an underscore."""
    return getattr(caching, name, None) or getattr(caching, f"_{name}")


_UserProvided: Any = _locator("UserProvidedCacheLocator")
_InTreeFolder: Any = _locator("InTreeCacheLocator")
_UserFolder: Any = _locator("UserWideCacheLocator")


class _Stamped:
    """Make a locator judge freshness by the content of all kernels."""

    def get_source_stamp(self) -> bytes:
        return _source_digest()


class _InUserDir(_Stamped, _UserProvided):
    pass


class _InTree(_Stamped, _InTreeFolder):
    pass


class _UserWide(_Stamped, _UserFolder):
    pass


class _Temporary(_Stamped, _UserFolder):
    """The last resort: a folder of this user's own in the system's temporary folder.

    Cached code is code: a folder that somebody else made there is not trusted.
    """

    def __init__(self, py_func: Any, py_file: str) -> None:
        super().__init__(py_func, py_file)
        user = os.getuid() if hasattr(os, "getuid") else "user"
        self._root = os.path.join(tempfile.gettempdir(), f"npylstm-cache-{user}")
        self._cache_path = os.path.join(self._root, self.get_suitable_cache_subpath(py_file))

    def ensure_cache_path(self) -> None:
        os.makedirs(self._root, mode=0o700, exist_ok=True)
        info = os.lstat(self._root)
        if hasattr(os, "getuid") and (info.st_uid != os.getuid() or info.st_mode & 0o022):
            raise OSError(f"{self._root} belongs to somebody else")
        super().ensure_cache_path()


class _CacheImpl(caching.CompileResultCacheImpl):
    _locator_classes = (_InUserDir, _InTree, _UserWide, _Temporary)


class _Cache(caching.FunctionCache):
    """Numba's cache, but damaged files and full disks are answered by compiling."""

    _impl_class = _CacheImpl

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # whatever unpickling damaged bytes may raise
            with contextlib.suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except Exception:  # a full disk, an index that somebody else damages meanwhile
            self.disable()


def cache_folder() -> str | None:
    """Where compiled kernels are kept; None if no folder can be written."""
    try:
        return str(_Cache(cache_folder).cache_path)
    except (RuntimeError, OSError):
        return None


class Kernel:
    """A kernel that is called by its address, compiled for a type when first asked for.

    What calls it, a program, is data; so a process compiles only what its models need.
    """

    def __init__(self, function: Callable[..., Any], signature: Callable[[Any], Any]) -> None:
        self._function, self._signature = function, signature
        self._compiled: dict[str, Any] = {}

    def load(self, dtype: str) -> bool:
        """Load the kernel for a type from the disk; False if it is to be compiled, or just is."""
        if not _LOCK.acquire(blocking=False):  # another thread compiles, which may take seconds
            return dtype in self._compiled
        try:
            if dtype not in self._compiled:
                compiled = self._prepare(dtype)
                if not compiled.load():
                    return False
                self._compiled[dtype] = compiled
            return True
        finally:
            _LOCK.release()

    def address(self, dtype: str) -> int:
        """The address of the kernel for ``"float32"`` or ``"float64"``."""
        with _LOCK:
            if dtype not in self._compiled:
                compiled = self._prepare(dtype)
                compiled.compile()
                self._compiled[dtype] = compiled
            return int(self._compiled[dtype].address)

    def _prepare(self, dtype: str) -> _Compiled:
        signature = self._signature(types.CPointer(getattr(types, dtype)))
        compiled = _Compiled(
            self._function, (signature.args, signature.return_type), locals={},
            options={"error_model": "numpy"},
        )  # fmt: skip
        with contextlib.suppress(RuntimeError, OSError):
            compiled._cache = _Cache(self._function)
        return compiled


_CFunc: Any = CFunc


class _Compiled(_CFunc):
    """A function with C's calling convention, which can also only be looked for on the disk."""

    def load(self) -> bool:
        result = self._cache.load_overload(self._sig, self._targetdescr.target_context)
        if result is None:
            return False
        self._cache_hits += 1
        self._library = result.library
        self._wrapper_name = result.fndesc.llvm_cfunc_wrapper_name
        self._wrapper_address = self._library.get_pointer_to_function(self._wrapper_name)
        return True


def kernel(function: Callable[..., Any]) -> Kernel:
    """Make a kernel of a function of a row of a program, parameters, states and tensors."""
    row = types.CPointer(types.int64)
    return Kernel(function, lambda number: types.void(row, number, number, number))


def product_kernel(function: Callable[..., Any]) -> Kernel:
    """Make a kernel of a function like :func:`npylstm.engine.products.multiply`."""
    n = types.int64
    return Kernel(
        function, lambda number: types.void(number, n, number, n, n, number, n, n, number, n, n)
    )


class Entry:
    """A kernel that Python calls with integers only, the lock of the interpreter released."""

    def __init__(self, function: Callable[..., Any], count: int) -> None:
        self._function, self._count = function, count

    @functools.cached_property
    def call(self) -> Callable[..., None]:
        """The compiled function itself: what chooses by types is left out."""
        signature = (types.int64,) * self._count
        with _LOCK:
            dispatcher = jit(self._function)
            dispatcher.compile(signature)
        entry_point: Callable[..., None] = dispatcher.overloads[signature].entry_point
        return entry_point

    def prepare(self) -> None:
        """Compile it now."""
        _ = self.call


def entry(count: int) -> Callable[[Callable[..., Any]], Entry]:
    """Make an entry of a function of so many integers: sizes, offsets and addresses."""
    return lambda function: Entry(function, count)


@intrinsic
def fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """``a * b + c``, rounded once."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fma(*args)

    return a(a, a, a), generate
