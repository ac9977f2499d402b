"""The processor that kernels are compiled for, known without loading the compiler.

Numba's settings ``NUMBA_CPU_NAME`` and ``NUMBA_CPU_FEATURES`` overrule what the processor is.
"""

from __future__ import annotations

import os
import platform

__all__ = ["CPU_FEATURES", "CPU_NAME", "IDENTITY", "REGISTERS", "VECTOR_BYTES", "narrow_of"]

# What Linux says of a processor that code depends on, on x86 and on ARM; nothing that wavers.
_LASTING = (
    "vendor_id", "cpu family", "model", "flags",
    "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "Features",
)  # fmt: skip


def _described() -> dict[str, str]:
    """What the system says of the first processor; empty where it does not say it in a file."""
    described: dict[str, str] = {}
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                key, colon, value = line.partition(":")
                if not colon:
                    break
                described[key.strip()] = value.strip()
    except OSError:
        pass
    return {key: described[key] for key in _LASTING if key in described}


def _asked() -> dict[str, str]:
    """The same from LLVM."""
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    there = " ".join(name for name, is_there in features.items() if is_there)
    return {"model": llvm.get_host_cpu_name(), "flags": there}


# What to compile for; None: what LLVM finds.
CPU_NAME = os.environ.get("NUMBA_CPU_NAME") or None
CPU_FEATURES = os.environ.get("NUMBA_CPU_FEATURES", "" if CPU_NAME else None)

_PROCESSOR = {"asked for": CPU_NAME} if CPU_NAME else _described() or _asked()
if CPU_FEATURES is None:
    _FEATURES = set(_PROCESSOR.get("flags", "").split())
else:
    _PROCESSOR["asked features"] = CPU_FEATURES
    _FEATURES = {f[1:] for f in CPU_FEATURES.split(",") if f.startswith("+")}

# Code compiled on one machine runs on another where this is the same.
IDENTITY = f"{platform.system()} {platform.machine()} {sorted(_PROCESSOR.items())}"

# Wider vectors than the processor has are legal, too: the compiler splits them.
VECTOR_BYTES = 64 if "avx512f" in _FEATURES else 32 if "avx" in _FEATURES else 16
_ARM = platform.machine().lower() in ("aarch64", "arm64")
REGISTERS = 32 if _ARM or VECTOR_BYTES == 64 else 16


def narrow_of(lanes: int) -> int:
    """How many units go together where they do not fill a vector of so many lanes."""
    return max(1, lanes // 4)
