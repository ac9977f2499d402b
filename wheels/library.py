"""Make the library of compiled kernels for a platform.

``python -m wheels.library [PLATFORM FOLDER]``: by default for this machine, with the levels that
its processor has, into the checkout (``make native``). Object code is kept in ``build/native/`` and
used again if the kernels' sources, Numba and LLVM are the same.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

from npylstm.native.digests import sources_digest, table_digest
from npylstm.native.levels import cpu_features, levels_of
from npylstm.native.shipped import FOLDER, MANIFEST
from wheels.platforms import PLATFORMS, Platform, compiler_options, platform_here

__all__ = ["make_library"]

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "native"
TOOLS = ("numba", "llvmlite", "ziglang")


def make_library(platform: Platform, folder: Path, levels: Sequence[str]) -> Path:
    """Compile the kernels of some levels, link them, and write the manifest.

    Returns
    -------
    Path
        The library; the manifest is beside it.
    """
    start = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(lambda level: _objects(platform, level), levels))
    # Every level contains the digest; one is enough.
    files = [*objects[0], *(f for more in objects[1:] for f in more if f.name != "digest.o")]
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / platform.file
    _link(platform, files, library)
    content = library.read_bytes()
    manifest = {
        "file": library.name, "system": platform.system, "machine": platform.machine,
        "platform": platform.name, "levels": levels, "size": len(content),
        "crc32": zlib.crc32(content), "sources": sources_digest(),
        "tools": {name: importlib.metadata.version(name) for name in TOOLS},
    }  # fmt: skip
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    seconds = time.perf_counter() - start
    print(f"{platform.name}: {library.name}, {len(content):,} bytes, {seconds:.0f} s", flush=True)
    return library


def _objects(platform: Platform, level: str) -> list[Path]:
    """Return the objects of a level, compiled in a process of its own if they are not kept."""
    versions = [importlib.metadata.version(name) for name in TOOLS]
    here = Path(__file__).parent
    builder = [(here / name).read_bytes() for name in ("codegen.py", "compile.py")]
    digests = sources_digest(), table_digest()
    depends = repr((digests, platform.llvm, compiler_options(level), versions, builder))
    folder = BUILD / f"{platform.llvm}-{level}-{hashlib.sha256(depends.encode()).hexdigest()[:16]}"
    if not folder.exists():
        part = folder.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        # The order of Python's sets is part of the result.
        environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "wheels.compile", platform.llvm, level, str(part)]
        subprocess.run(command, check=True, cwd=ROOT, env=environment)
        part.rename(folder)
    return sorted(folder.glob("*.o"))


def _link(platform: Platform, objects: list[Path], library: Path) -> None:
    """Link objects with zig, which has the C libraries of all platforms."""
    options = ["-shared", "-s", "-o", str(library)]
    if platform.system == "linux":
        options += ["-lm", "-Wl,-z,noexecstack"]
    elif platform.system == "macos":  # by default the name contains the folder
        options += [f"-Wl,-install_name,@rpath/{library.name}"]
    environment = {
        **os.environ, "ZIG_GLOBAL_CACHE_DIR": str(BUILD / "zig"),
        "ZIG_LOCAL_CACHE_DIR": str(BUILD / "zig"),
    }  # fmt: skip
    # Relative names: the result does not depend on where the checkout is.
    names = [os.path.relpath(path, BUILD) for path in objects]
    library.unlink(missing_ok=True)
    subprocess.run(
        [sys.executable, "-m", "ziglang", "cc", "-target", platform.zig, *names, *options],
        check=True, cwd=BUILD, env=environment,
    )  # fmt: skip


def main(arguments: Sequence[str]) -> None:
    """Make the library of a platform, or this machine's."""
    if arguments:
        chosen = PLATFORMS[arguments[0]]
        make_library(chosen, Path(arguments[1]), chosen.levels)
        return
    here, levels = platform_here(), [row.name for row in levels_of(cpu_features())]
    if here is None or not levels:
        print("no kernels are compiled for this machine: Numba or NumPy computes here")
    else:
        make_library(here, FOLDER, levels)


if __name__ == "__main__":
    main(sys.argv[1:])
