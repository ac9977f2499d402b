"""A lock for what must not be interrupted by a fork: imports, loading of libraries, compilation.

A process that is forked while another thread imports a module would wait for this module for ever:
the thread that holds the module's lock does not exist in it. The same goes for the locks of the
system's loader and of Numba. So a fork waits until no thread holds :data:`LOADING`.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
import warnings
from _thread import RLock
from typing import Any

__all__ = ["LOADING", "fork_after_loading", "module", "warn_caller"]

LOADING = RLock()

_MODULES: dict[str, Any] = {}


@functools.cache
def fork_after_loading(*imported: str) -> None:
    """Make forks wait for :data:`LOADING` before any lock of some modules.

    A fork takes locks in the reverse order of their registration. A module whose lock for forks was
    registered later than :data:`LOADING` must be named here before :data:`LOADING` is held while
    it is used: otherwise the fork would hold its lock and wait for :data:`LOADING`, and the thread
    that holds :data:`LOADING` would wait for its lock.
    """
    for name in imported:
        importlib.import_module(name)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=LOADING.acquire, after_in_parent=LOADING.release, after_in_child=LOADING.release
        )


fork_after_loading()


def module(name: str) -> Any:
    """Import a module of npylstm at its first use."""
    try:
        return _MODULES[name]
    except KeyError:
        with LOADING:
            _MODULES[name] = importlib.import_module(f"npylstm.{name}")
        return _MODULES[name]


def warn_caller(message: str) -> None:
    """Warn at the line of the user's that called npylstm."""
    level, frame = 1, sys._getframe(0)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("npylstm."):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, RuntimeWarning, stacklevel=level)
