"""The vectors of the processor that kernels are compiled for."""

from __future__ import annotations

import platform

import llvmlite.binding as llvm
from numba.core import config

__all__ = ["REGISTERS", "VECTOR_BYTES", "narrow_of"]


def _features() -> set[str]:
    """What the compiler may use: as Numba decides it, by its settings or by asking the host."""
    if config.CPU_FEATURES is not None:
        return {f[1:] for f in config.CPU_FEATURES.split(",") if f.startswith("+")}
    if config.CPU_NAME not in (None, "host"):
        return set()
    return {name for name, there in llvm.get_host_cpu_features().items() if there}


_FEATURES = _features()
_ARM = platform.machine().lower() in ("aarch64", "arm64")

# Wider vectors than the processor has are legal, too: the compiler splits them.
VECTOR_BYTES = 64 if "avx512f" in _FEATURES else 32 if "avx" in _FEATURES else 16
REGISTERS = 32 if _ARM or VECTOR_BYTES == 64 else 16


def narrow_of(lanes: int) -> int:
    """How many units go together where they do not fill a vector of so many lanes."""
    return max(1, lanes // 4)
