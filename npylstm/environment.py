"""Versions, processor and instruction set, for bug reports."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform

import numpy as np

from npylstm.native.levels import cpu_features, levels_of, machine
from npylstm.printable import printable

__all__ = ["cpu_level", "environment"]

_ARM_LEVELS = (("SVE", ("SVE",)), ("ASIMD", ("ASIMD", "NEON")))


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
    name, features = platform.machine().lower(), cpu_features()
    if machine() == "x86_64":
        names = (level.name for level in levels_of(features) if level.extends is None)
        return "-".join(["x86-64", *[*names][:1]])
    if machine() == "aarch64":
        vectors = next((level for level, names in _ARM_LEVELS if features & {*names}), "")
        return f"{name} {vectors}".strip()
    return name or "unknown"


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
