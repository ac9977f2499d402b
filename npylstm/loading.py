"""A lock for what must not be interrupted by a fork: imports, loading of libraries, compilation.

A process that is forked while another thread imports a module would wait for this module for ever:
the thread that holds the module's lock does not exist in it. The same goes for the locks of the
system's loader and of Numba. So a fork waits until no thread holds :data:`LOADING`.
"""

from __future__ import annotations

import os
from _thread import RLock

__all__ = ["LOADING"]

LOADING = RLock()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=LOADING.acquire, after_in_parent=LOADING.release, after_in_child=LOADING.release
    )
