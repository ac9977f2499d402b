"""Build all wheels and the source distribution into ``dist/``: ``python -m wheels [PLATFORM ...]``.

Writes ``dist/SHA256SUMS``, checks the metadata with twine, and prints sizes and times.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from wheels.platforms import PLATFORMS

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
LARGEST = 1_500_000  # bytes of a wheel


def _build(*options: str, platform: str | None = None) -> None:
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1580601600"}
    for name in ("NPYLSTM_BUILD_NATIVE", "NPYLSTM_BUILD_PLATFORM"):
        environment.pop(name, None)
    if platform is not None:
        environment |= {"NPYLSTM_BUILD_NATIVE": "1", "NPYLSTM_BUILD_PLATFORM": platform}
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(DIST), *options]
    subprocess.run(command, check=True, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)


def main(names: list[str]) -> int:
    """Build; return the exit status."""
    unknown = [name for name in names if name not in PLATFORMS]
    if unknown:
        print(f"unknown: {', '.join(unknown)}; platforms: {', '.join(PLATFORMS)}", file=sys.stderr)
        return 2
    start = time.perf_counter()
    shutil.rmtree(DIST, ignore_errors=True)
    for name in names or PLATFORMS:
        before = time.perf_counter()
        _build("--wheel", platform=name)
        print(f"{name}: {time.perf_counter() - before:.0f} s", flush=True)
    _build("--wheel")
    _build("--sdist")
    files = sorted(path for path in DIST.iterdir())
    subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *map(str, files)], check=True
    )
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    (DIST / "SHA256SUMS").write_text("".join(sums))
    for path in files:
        print(f"{path.stat().st_size:>10,} bytes  {path.name}")
    print(f"{time.perf_counter() - start:.0f} s")
    too_large = [p.name for p in files if p.suffix == ".whl" and p.stat().st_size > LARGEST]
    if too_large:
        print(f"over {LARGEST:,} bytes: {', '.join(too_large)}", file=sys.stderr)
    return 1 if too_large else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
