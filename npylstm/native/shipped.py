"""The library of compiled kernels that a wheel contains.

It is a shared library beside this file, with a manifest: ``kernels.json`` says for which system and
machine it was made, from which sources, and its size and checksum. The system's loader loads it, so
nothing is written and no memory is both writable and executable.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from npylstm.errors import NpylstmError
from npylstm.kernels.library import Kernel, KernelLibrary, Unavailable
from npylstm.native.digests import sources_digest, table_digest
from npylstm.native.levels import LEVELS, Level, cpu_features, levels_of, machine, system

__all__ = [
    "DIGEST_SYMBOL", "ENVIRONMENT_VARIABLE", "FOLDER", "MANIFEST", "ShippedLibrary",
    "load_library", "shipped_library", "symbol",
]  # fmt: skip

ENVIRONMENT_VARIABLE = "NPYLSTM_NATIVE"
FOLDER = Path(__file__).parent
MANIFEST = "kernels.json"
# The exported array with the digest of the argument table.
DIGEST_SYMBOL = "npylstm_digest"


def symbol(level: str, kernel: str, dtype: str) -> str:
    """Return the name of a kernel in the library."""
    return f"npylstm_{level}_{kernel}_{dtype}"


class ShippedLibrary(KernelLibrary):
    """The shipped kernels of the processor's level.

    Parameters
    ----------
    library
        The loaded library.
    levels
        Levels to look for a kernel, the best first; all have the same vectors.
    manifest, path
        What the manifest says, and the library's file.
    """

    name: ClassVar[str] = "native"

    def __init__(
        self, library: ctypes.CDLL, levels: Sequence[Level], manifest: Mapping[str, Any], path: Path
    ) -> None:
        self._library = library
        self.levels, self.manifest, self.path = tuple(levels), manifest, path
        self.vector_bytes = levels[0].vector_bytes
        self._addresses: dict[tuple[str, str], int] = {}

    @property
    def description(self) -> str:
        return f"{self.path}, level {self.level}"

    def facts(self) -> dict[str, Any]:
        return {"level": self.level, "file": str(self.path), "manifest": dict(self.manifest)}

    @property
    def level(self) -> str:
        """Name of the best level that kernels are taken from."""
        return self.levels[0].name

    def address(self, kernel: Kernel, dtype: str) -> int:
        key = (kernel.name, dtype)
        if key not in self._addresses:
            self._addresses[key] = self._find(*key)
        return self._addresses[key]

    def _find(self, name: str, dtype: str) -> int:
        for level in self.levels:
            try:
                function = self._library[symbol(level.name, name, dtype)]
            except AttributeError:
                continue
            return ctypes.cast(function, ctypes.c_void_p).value or 0
        raise NpylstmError(
            f"{self.path}: the kernel {name} ({dtype}) is missing; reinstall npylstm"
        )


@functools.cache
def shipped_library() -> ShippedLibrary | Unavailable:
    """Load the shipped library once.

    Returns
    -------
    ShippedLibrary or Unavailable
        Never an error: what is missing or damaged is a reason to compute in another way.

    Raises
    ------
    NpylstmError
        If ``NPYLSTM_NATIVE`` has another value than a level or 0.
    """
    asked = os.environ.get(ENVIRONMENT_VARIABLE, "")
    if asked not in ("", "0", *(level.name for level in LEVELS)):
        names = ", ".join(level.name for level in LEVELS)
        raise NpylstmError(f"{ENVIRONMENT_VARIABLE}={asked}: expected 0 or one of {names}")
    if asked == "0":
        return Unavailable(f"{ENVIRONMENT_VARIABLE}=0")
    return load_library(asked)


def load_library(level: str = "") -> ShippedLibrary | Unavailable:
    """Load the shipped library.

    Parameters
    ----------
    level
        Name of a level of :data:`npylstm.native.levels.LEVELS`; empty: the best of this processor.
    """
    if not FOLDER.is_dir():
        return Unavailable(
            "npylstm is imported from a zip file, which libraries cannot be loaded from"
        )
    try:
        manifest = json.loads((FOLDER / MANIFEST).read_bytes())
    except FileNotFoundError:
        return Unavailable("this installation has no compiled kernels (the pure Python wheel)")
    except (OSError, ValueError) as error:
        return Unavailable(f"{MANIFEST} cannot be read: {error}", is_fault=True)
    try:
        return _load(manifest, level)
    except (LookupError, TypeError, AttributeError) as error:
        return Unavailable(f"{MANIFEST} is damaged: {error!r}", is_fault=True)


def _load(manifest: Mapping[str, Any], asked: str) -> ShippedLibrary | Unavailable:
    """Load the library of a manifest; ``asked`` is the level, or empty for the best."""
    made_for, here = f"{manifest['system']} {manifest['machine']}", f"{system()} {machine()}"
    if made_for != here:
        return Unavailable(
            f"the compiled kernels are for {made_for}, this is {here}", is_fault=True
        )
    sources = sources_digest()
    if sources not in (manifest["sources"], None):
        reason = "the compiled kernels were made from other sources; reinstall npylstm"
        return Unavailable(f"{reason} (in a checkout: make native)", is_fault=True)
    shipped = [level for level in LEVELS if level.name in manifest["levels"]]
    levels = levels_of(cpu_features(), shipped)
    if asked:
        names = {asked, *(level.extends for level in levels if level.name == asked)}
        levels = [level for level in levels if level.name in names]
    base = next((level for level in levels if level.extends is None), None)
    if base is None:
        wanted = next(level for level in LEVELS if level.name == (asked or shipped[-1].name))
        missing = " ".join(sorted(wanted.features - cpu_features())) or "these kernels"
        return Unavailable(f"level {wanted.name}: not here: {missing}", is_fault=False)
    path = FOLDER / manifest["file"]
    try:
        content = path.read_bytes()
        if (len(content), zlib.crc32(content)) != (manifest["size"], manifest["crc32"]):
            return Unavailable(f"{path} is damaged; reinstall npylstm", is_fault=True)
        library = ctypes.CDLL(str(path))
        digest = (ctypes.c_char * len(table_digest())).in_dll(library, DIGEST_SYMBOL)
    except (OSError, ValueError) as error:
        return Unavailable(f"{path} cannot be loaded: {error}", is_fault=True)
    if digest.raw.decode("ascii", "replace") != table_digest():
        reason = f"{path} has another argument table; reinstall npylstm"
        return Unavailable(f"{reason} (in a checkout: make native)", is_fault=True)
    usable = [level for level in levels if base.name in (level.name, level.extends)]
    return ShippedLibrary(library, usable, manifest, path)
