"""Versions, processor and instruction set, for bug reports."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform

import numpy as np

from npylstm.native.levels import cpu_features
from npylstm.printable import printable

__all__ = ["cpu_level", "environment"]

# The x86-64 levels, highest first. A level is reached if NumPy lists any one of its features;
# NumPy lists the levels themselves since version 2.4.
_X86_LEVELS = (
    ("x86-64-v4", ("X86_V4", "AVX512_SKX")),
    ("x86-64-v3", ("X86_V3", "AVX2")),
    ("x86-64-v2", ("X86_V2", "SSE42")),
)
_ARM_LEVELS = (("SVE", ("SVE",)), ("ASIMD", ("ASIMD", "NEON")))
_X86, _ARM = ("x86_64", "amd64"), ("aarch64", "arm64")


def environment() -> dict[str, str]:
    """Return versions, platform and processor by name, in the order of printing."""
    return {
        "npylstm": importlib.import_module("npylstm").__version__,
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "NumPy": np.__version__,
        "BLAS": _blas(),
        "Numba": _version("numba"),
        "platform": platform.platform(),
        "processor": f"{_processor()}, {os.cpu_count() or 1} logical cores",
        "CPU level": cpu_level(),
        "CPU features": " ".join(sorted(cpu_features())) or "unknown",
    }


def cpu_level() -> str:
    """Return the level of the processor's instruction set, such as ``"x86-64-v3"``."""
    machine, features = platform.machine().lower(), cpu_features()
    if machine in _X86:
        return next((level for level, names in _X86_LEVELS if features & {*names}), "x86-64")
    if machine in _ARM:
        vectors = next((level for level, names in _ARM_LEVELS if features & {*names}), "")
        return f"{machine} {vectors}".strip()
    return machine or "unknown"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _blas() -> str:
    try:
        blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
        return f"{blas['name']} {blas['version']}"
    except (TypeError, KeyError):  # before NumPy 1.26 it only prints
        return "unknown"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                key, _, value = line.partition(":")
                if key.strip() == "model name":
                    return printable(value.strip())
    except OSError:
        pass
    return platform.processor() or platform.machine() or "unknown"
