"""The wheel that a test installs: the newest one of dist/ for the platform, with compiled kernels."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Platform tags, as patterns of file names.
HERE = {"linux": "manylinux*", "darwin": "macosx*", "win32": "win*"}[sys.platform]
if sys.platform == "linux":
    HERE += f"_{platform.machine()}"


class Failure(Exception):
    """A wheel is missing, or does not do what it should."""


def find_wheel(tag: str = HERE) -> Path:
    """Return the newest wheel of dist/ for a platform."""
    found = (ROOT / "dist").glob(f"npylstm-*-{tag}*.whl")
    newest = max(found, key=lambda path: path.stat().st_mtime, default=None)
    if newest is None:
        raise Failure(f"dist/ has no wheel for {tag}: make wheel")
    return newest
