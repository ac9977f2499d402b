"""Build all wheels and the source distribution into ``dist/``: ``python -m wheels [PLATFORM ...]``.

Writes ``dist/SHA256SUMS``, checks the metadata with twine, and prints sizes and times.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
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


def main(names: Sequence[str], page: Path | None) -> int:
    """Build; return the exit status. ``page`` is a file to write the table of platforms to."""
    start = time.perf_counter()
    shutil.rmtree(DIST, ignore_errors=True)
    for name in names:
        before = time.perf_counter()
        _build("--wheel", platform=name)
        print(f"{name}: {time.perf_counter() - before:.0f} s", flush=True)
    _build("--wheel")
    _build("--sdist")
    files = sorted(path for path in DIST.iterdir())
    subprocess.run(
        [sys.executable, "-m", "twine", "--no-color", "check", "--strict", *map(str, files)],
        check=True,
    )
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    (DIST / "SHA256SUMS").write_text("".join(sums))
    table = _table(names, time.perf_counter() - start)
    print(table)
    if page is not None:
        page.write_text(table + "\n", encoding="utf-8")
    too_large = [p.name for p in files if p.suffix == ".whl" and p.stat().st_size > LARGEST]
    if too_large:
        print(f"over {LARGEST:,} bytes: {', '.join(too_large)}", file=sys.stderr)
    return 1 if too_large else 0


def _table(names: Sequence[str], seconds: float) -> str:
    """Return the table of platforms in Markdown."""
    rows = []
    for platform in map(PLATFORMS.__getitem__, names):
        (wheel,) = DIST.glob(f"*-{platform.tag}.whl")
        with zipfile.ZipFile(wheel) as file:
            library = file.getinfo(f"npylstm/native/{platform.file}").file_size
        rows.append([platform.tag.split(".")[0], ", ".join(platform.levels),
                     f"{library / 1e3:,.0f} KB", wheel.stat().st_size, platform.run])  # fmt: skip
    (pure,) = DIST.glob("*-any.whl")
    rows.append(["any (pure Python)", "-", "-", pure.stat().st_size, "natively"])
    lines = ["| Wheel | Levels | Library | Wheel's size | Run |", "|---|---|---|---|---|"]
    for name, levels, library, size, run in rows:
        lines.append(f"| {name} | {levels} | {library} | {int(size) / 1e3:,.0f} KB | {run} |")
    cores = os.cpu_count()
    lines += ["", f"Built on one Linux machine with {cores} cores in {seconds / 60:.1f} minutes."]
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m wheels", description=__doc__)
    parser.add_argument(
        "platforms", nargs="*", metavar="PLATFORM", help=f"{', '.join(PLATFORMS)}; default: all"
    )
    parser.add_argument("--write", type=Path, metavar="PAGE.md", help="write the table here, too")
    options = parser.parse_args()
    unknown = [name for name in options.platforms if name not in PLATFORMS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; platforms: {', '.join(PLATFORMS)}")
    sys.exit(main(options.platforms or [*PLATFORMS], options.write))
