"""Digests by which compiled kernels are known to fit the Python code beside them."""

from __future__ import annotations

import functools
import zlib
from pathlib import Path

from npylstm.kernels import arguments
from npylstm.kernels.library import ENTRIES
from npylstm.kernels.packing import ALIGNMENT, GROUP, PANEL, ROUNDED_HEAD, ROUNDED_STEP
from npylstm.kernels.table import KERNELS

__all__ = ["sources_digest", "table_digest"]

_PACKAGE = Path(__file__).parent.parent
# What Python does with kernels; no kernel depends on it but through the argument table.
_NOT_COMPILED = ("__init__.py", "calls.py", "library.py", "table.py")  # and bind_*.py


def table_digest() -> str:
    """Return the digest of what programs and kernels must agree on: kernels and their columns."""
    columns = {
        name: dict(zip(value._fields, value, strict=True)) | value.holds
        for name, value in sorted(vars(arguments).items())
        if hasattr(value, "holds")
    }
    kernels = [(kernel.name, kernel.dtypes) for kernel in (*KERNELS, *ENTRIES)]
    sizes = (ALIGNMENT, GROUP, PANEL, ROUNDED_HEAD, ROUNDED_STEP)
    agreed = (arguments.WIDTH, arguments.KERNEL, *sizes, kernels, columns)
    return _digest(repr(agreed).encode())


@functools.cache
def sources_digest() -> str | None:
    """Return the digest of the files that kernels are compiled from; None if they are not there."""
    files = [
        path for path in sorted((_PACKAGE / "kernels").glob("*.py"))
        if path.name not in _NOT_COMPILED and not path.name.startswith("bind_")
    ]  # fmt: skip
    try:
        # Constants of these two are compiled in.
        others = (_PACKAGE / f"{name}.py" for name in ("activations", "integer_matrix"))
        sources = [path.read_bytes() for path in (*files, *others)]
    except OSError:
        return None
    return _digest(b"\0".join(sources)) if files else None


def _digest(content: bytes) -> str:
    """Return 16 hexadecimal digits, the same in every Python; hashlib is slow to import."""
    return f"{zlib.crc32(content):08x}{zlib.adler32(content):08x}"
