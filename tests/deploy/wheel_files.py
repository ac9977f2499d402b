"""The wheel that a test installs: from dist/, with compiled kernels if there is one for the platform."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Platform tags, as patterns of file names.
HERE = {"linux": "manylinux*_x86_64", "darwin": "macosx*", "win32": "win*"}[sys.platform]


@dataclass(frozen=True)
class Wheel:
    """A wheel, and whether it has compiled kernels."""

    path: Path
    native: bool

    @property
    def backend(self) -> str:
        """The back end that models get with this wheel where there is no Numba."""
        return "native" if self.native else "numpy"


def find_wheel(platform: str = HERE) -> Wheel:
    """Return the newest wheel of dist/ for a platform; else the pure one, built if need be."""
    for pattern in (f"npylstm-*-{platform}*.whl", "npylstm-*-any.whl"):
        found = sorted((ROOT / "dist").glob(pattern), key=lambda path: path.stat().st_mtime)
        if found:
            return describe(found[-1])
    folder = ROOT / "build" / "wheels"
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", str(ROOT)]
    subprocess.run([*command, "--wheel-dir", str(folder)], check=True)
    return describe(next(folder.glob("npylstm-*-any.whl")))


def describe(path: Path) -> Wheel:
    """Look into a wheel for compiled kernels."""
    names = zipfile.ZipFile(path).namelist()
    native = any(k.startswith("npylstm/native/") and not k.endswith(".py") for k in names)
    return Wheel(path, native)
