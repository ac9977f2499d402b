"""Where compiled kernels are kept: object code in files, one for a kernel and a type of numbers.

In ``NUMBA_CACHE_DIR`` where that is set; otherwise looked for beside the source, in the user's
cache folder and in the system's temporary folder, and written to the first that can be written.
So what was compiled when an image was built, by whoever that was, is found in a container where
nothing can be written. A cache that fails costs time, never an answer.

A folder is named for all that its contents depend on: the sources of all kernels, the processor,
Numba and LLVM. Code that is kept is code that is run: a folder of somebody else's, or open to
everybody, is passed over. A file begins with a digest of the rest, and is renamed when it is
complete.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from npylstm.engine.host import IDENTITY

__all__ = ["cache_folder", "read", "write"]

_HERE = Path(__file__).parent


def read(name: str) -> bytes | None:
    """Read the object code kept under a name; None if there is none, or it is damaged."""
    for folder in filter(_is_trusted, _folders()):
        try:
            kept = (folder / f"{name}.o").read_bytes()
        except OSError:
            continue
        code = kept[_DIGEST_SIZE:]
        if kept[:_DIGEST_SIZE] == _digest(code):
            return code
    return None


def write(name: str, code: bytes) -> None:
    """Keep object code under a name, where any folder can be written."""
    import tempfile

    folder = cache_folder()
    if folder is None:
        return
    part = None
    try:
        with tempfile.NamedTemporaryFile(dir=folder, suffix=".part", delete=False) as file:
            part = file.name
            file.write(_digest(code) + code)
        os.chmod(part, 0o644)
        os.replace(part, Path(folder) / f"{name}.o")
    except OSError:  # a full disk, or somebody else who clears it
        if part is not None:
            with contextlib.suppress(OSError):
                os.unlink(part)


def cache_folder() -> str | None:
    """Where compiled kernels go; None if no folder can be written."""
    import tempfile

    for folder in _folders():
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir(mode=0o755, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                if _is_trusted(folder):
                    return str(folder)
        except OSError:
            continue
    return None


# The hash by which Python tells whether its own compiled files are fresh: at hand, unlike hashlib.
_digest = importlib.util.source_hash
_DIGEST_SIZE = len(_digest(b""))


@functools.cache
def _key() -> str | None:
    """Digest of all that object code depends on; None where the sources are not there as files."""
    files = sorted([*_HERE.glob("*.py"), *_HERE.with_name("kernels").glob("*.py")])
    if not files:
        return None
    files.append(_HERE.with_name("activations.py"))  # constants of theirs are compiled in
    for package in ("numba", "llvmlite"):
        found = importlib.util.find_spec(package)
        if found is not None and found.origin is not None:
            files.append(Path(found.origin).with_name("_version.py"))
    try:
        depends = [IDENTITY.encode(), *(path.read_bytes() for path in files)]
    except OSError:
        return None
    return _digest(b"\0".join(depends)).hex()


def _is_trusted(folder: Path) -> bool:
    """Whether what is there may be run: made by this user, root or who installed, closed to others.

    True of a folder that is not there, and beside the source: who writes there writes code, anyway.
    Windows keeps users apart by itself.
    """
    if not hasattr(os, "getuid") or folder.parent.parent == _HERE:
        return True
    try:
        info = folder.lstat()
        owners = {os.getuid(), 0, _HERE.stat().st_uid}
    except OSError:
        return True
    return info.st_uid in owners and not info.st_mode & 0o002


def _folders() -> Iterator[Path]:
    """Folders that may hold object code, the first choice first."""
    key = _key()
    if key is None:
        return
    name = f"npylstm-{key}"
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    if chosen:
        yield Path(chosen) / name
        return
    yield _HERE / "__pycache__" / name
    with contextlib.suppress(RuntimeError):  # a user without a home
        yield _user_folder() / "npylstm" / name
    temporary = _temporary_folder()
    if temporary is not None:
        yield temporary / name


def _user_folder() -> Path:
    """Where programs of this user keep what they can make again."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _temporary_folder() -> Path | None:
    """A folder of this user's own in the system's temporary folder."""
    import tempfile

    user = os.getuid() if hasattr(os, "getuid") else "user"
    folder = Path(tempfile.gettempdir()) / f"npylstm-cache-{user}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        info = folder.lstat()
    except OSError:
        return None
    mine = not hasattr(os, "getuid") or (info.st_uid == os.getuid() and not info.st_mode & 0o022)
    return folder if mine else None
