"""Levels of processors that kernels are shipped for, and those that this processor has."""

from __future__ import annotations

import functools
import importlib
import platform
import sys
from collections.abc import Collection
from typing import NamedTuple

__all__ = ["LEVELS", "Level", "cpu_features", "levels_of", "machine", "system"]


class Level(NamedTuple):
    """A set of instructions.

    Attributes
    ----------
    name
        As in the names of the library's symbols and in ``NPYLSTM_NATIVE``.
    machine
        As :func:`machine` returns it.
    features
        What the processor must have, by NumPy's names. Kernels of the level use nothing else.
    vector_bytes
        Size of the vectors of its kernels.
    extends
        The level whose other kernels are used with those of this one. A level for a few kernels
        with a further feature has the vectors of the level that it extends.
    modules
        Modules of :mod:`npylstm.kernels` that such a level has the kernels of.
    """

    name: str
    machine: str
    features: frozenset[str]
    vector_bytes: int
    extends: str | None = None
    modules: tuple[str, ...] = ()


_V2 = frozenset({"SSE3", "SSSE3", "SSE41", "SSE42", "POPCNT"})
_V3 = _V2 | {"AVX", "AVX2", "FMA3", "F16C"}
_V4 = _V3 | {"AVX512F", "AVX512CD", "AVX512BW", "AVX512DQ", "AVX512VL"}

# What NumPy lists since version 2.4, and which features it stands for.
_IMPLIED = {"X86_V2": _V2, "X86_V3": _V3, "X86_V4": _V4}

# The best first.
LEVELS = (
    Level("v4_vnni", "x86_64", _V4 | {"AVX512VNNI"}, 64, "v4",
          ("integer_products", "integer_rows")),
    Level("v4", "x86_64", _V4, 64),
    Level("v3", "x86_64", _V3, 32),
    Level("v2", "x86_64", _V2, 16),
    Level("neon", "aarch64", frozenset({"ASIMD"}), 16),
)  # fmt: skip

_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
_SYSTEMS = {"win32": "windows", "darwin": "macos"}


def machine() -> str:
    """Return the processor's architecture, ``"x86_64"`` or ``"aarch64"``, or another name."""
    name = platform.machine().lower()
    return _MACHINES.get(name, name)


def system() -> str:
    """Return the operating system: ``"linux"``, ``"macos"`` or ``"windows"``, or another name."""
    return _SYSTEMS.get(sys.platform, sys.platform)


@functools.cache
def cpu_features() -> frozenset[str]:
    """Return the features of the processor that NumPy detects, and the system allows."""
    for package in ("numpy._core", "numpy.core"):  # the second is the name before NumPy 2
        try:
            module = importlib.import_module(f"{package}._multiarray_umath")
        except ImportError:
            continue
        found = getattr(module, "__cpu_features__", {})
        return _with_implied({name for name, present in found.items() if present})
    return frozenset()


def _with_implied(features: Collection[str]) -> frozenset[str]:
    return frozenset(features).union(*(_IMPLIED.get(name, ()) for name in features))


def levels_of(features: Collection[str], levels: Collection[Level] = LEVELS) -> list[Level]:
    """Return the levels of this machine that a processor with these features has, best first."""
    here = machine()
    return [level for level in levels if level.machine == here and level.features <= {*features}]
