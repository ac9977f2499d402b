"""Install a wheel into an environment with NumPy alone; run the bundled models and the tests of the kernels there.

    python tests/deploy/run.py x86_64 --levels v2 v3 v4
    python tests/deploy/run.py aarch64 --every 20

Environments: x86_64 (this machine), aarch64, musl, and the CPUs x86-64-v2 and x86-64-v3 under qemu. Wheels come from
dist/ (`make wheel`). Where something is missing, the last line starts with "not run" and the exit status is 3.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from environments import BUILD, ROOT, Environment, NotAvailable, environment
from wheel_files import Wheel, find_wheel

HERE = Path(__file__).resolve().parent
LEVELS = {"x86-64-v2": "v2", "x86-64-v3": "v3", "aarch64": "neon"}  # what must be chosen there


class Failure(Exception):
    """The wheel does not do what it should."""


def run_models(
    place: Environment, installed: Path, wheel: Wheel, level: str | None, variables: dict[str, str]
) -> None:
    """Run the bundled models; where a level is known, it must be the one that was chosen."""
    command = [str(HERE / "check.py"), str(ROOT / "models")]
    done = place.run(command, installed, output=subprocess.PIPE, **variables)
    if done.returncode:
        raise Failure(f"check.py failed: {done.stdout}")
    found = json.loads(done.stdout)
    print(json.dumps(found, indent=1))
    if not Path(found["from"]).is_relative_to(installed):
        raise Failure("another npylstm was imported")
    if found["backend"] != wheel.backend:
        raise Failure(f"the back end is {found['backend']}, expected: {wheel.backend}")
    if wheel.native and level and found["level"] != level:
        raise Failure(f"the level is {found['level']}, expected: {level}")
    if place.run(["-m", "npylstm", "doctor"], installed, **variables).returncode:
        raise Failure("npylstm doctor found a fault")


def run_tests(place: Environment, installed: Path, every: int, variables: dict[str, str]) -> None:
    """Run the tests of the kernels."""
    start = time.perf_counter()
    done = place.run([str(HERE / "kernel_tests.py"), str(every)], installed, **variables)
    if done.returncode:
        raise Failure("tests failed")
    print(f"{time.perf_counter() - start:.0f} s", flush=True)


def missing_features(level: str) -> str:
    """Return why this machine's CPU cannot run a level; nothing if it can."""
    flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    needed = {"v3": {"avx2", "fma"}, "v4": {"avx512f", "avx512vl", "avx512bw", "avx512dq"}}
    return " ".join(sorted(needed.get(level, set()) - flags))


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("environment")
    parser.add_argument("--levels", nargs="+", default=[None])
    parser.add_argument("--every", type=int, default=1)
    chosen = parser.parse_args(arguments)
    start = time.perf_counter()
    place = environment(chosen.environment)
    wheel = find_wheel(place.wheels)
    installed = BUILD / f"installed-{chosen.environment}"
    shutil.rmtree(installed, ignore_errors=True)
    place.install(installed, "--no-deps", str(wheel.path))
    print(f"{wheel.path.name}, set up in {time.perf_counter() - start:.0f} s", flush=True)
    for level in chosen.levels:
        if level and chosen.environment == "x86_64" and missing_features(level):
            print(f"not run: level {level}: this CPU lacks {missing_features(level)}")
            continue
        variables = {"NPYLSTM_NATIVE": level} if level else {}
        expected = level or LEVELS.get(chosen.environment)
        print(f"level: {expected or 'the best that this CPU has'}", flush=True)
        run_models(place, installed, wheel, expected, variables)
        if wheel.native:
            run_tests(place, installed, chosen.every, variables)
    if not wheel.native:
        raise NotAvailable("the tests of the kernels: dist/ has no wheel with compiled kernels")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except NotAvailable as reason:
        print(f"not run: {reason}", file=sys.stderr)
        sys.exit(3)
    except Failure as reason:
        sys.exit(f"failed: {reason}")
