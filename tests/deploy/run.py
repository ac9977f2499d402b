"""Install a wheel into an environment with NumPy alone; run the bundled models and the tests of the kernels there.

    python tests/deploy/run.py x86_64 --levels v2 v3 v4 v4_vnni
    python tests/deploy/run.py aarch64 --every 20

Environments: x86_64 (this machine), aarch64, musl, and the CPUs x86-64-v2 and x86-64-v3 under qemu. Wheels come from
dist/ (`make wheel`). The exit status is 1 if the wheel does not do what it should. If the environment cannot be made
here, the last line starts with "not run" and the exit status is 3.
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

from environments import BUILD, ROOT, CommandFailed, Environment, NotAvailable, environment
from wheel_files import Failure, find_wheel

HERE = Path(__file__).resolve().parent
LEVELS = {"x86-64-v2": "v2", "x86-64-v3": "v3", "aarch64": "neon"}  # of CPUs that are imitated


def run_models(place: Environment, installed: Path, level: str, variables: dict[str, str]) -> None:
    """Run the bundled models, with the kernels of a level."""
    command = [str(HERE / "check.py"), str(ROOT / "models")]
    command += ["--emulated"] if place.emulated else []
    done = place.run(command, installed, output=subprocess.PIPE, **variables)
    if done.returncode:
        raise Failure(f"check.py failed: {done.stdout}")
    found = json.loads(done.stdout)
    print(json.dumps(found, indent=1))
    if not Path(found["from"]).is_relative_to(installed):
        raise Failure("another npylstm was imported")
    if (found["backend"], found["level"]) != ("native", level):
        raise Failure(
            f"back end {found['backend']}, level {found['level']}; expected native, {level}"
        )
    if place.run(["-m", "npylstm", "doctor"], installed, **variables).returncode:
        raise Failure("npylstm doctor found a fault")


def run_tests(place: Environment, installed: Path, every: int, variables: dict[str, str]) -> None:
    """Run the tests of the kernels."""
    start = time.perf_counter()
    python = installed.with_name(f"{installed.name}-python")
    place.write_script(python)
    command = [str(HERE / "kernel_tests.py"), str(python), str(every)]
    done = place.run(command, installed, **variables)
    if done.returncode:
        raise Failure("tests failed")
    print(f"{time.perf_counter() - start:.0f} s", flush=True)


def missing_features(level: str) -> str:
    """Return why this machine's CPU cannot run a level; nothing if it can."""
    flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    v4 = {"avx512f", "avx512vl", "avx512bw", "avx512dq"}
    needed = {"v3": {"avx2", "fma"}, "v4": v4, "v4_vnni": v4 | {"avx512_vnni"}}
    return " ".join(sorted(needed.get(level, set()) - flags))


def best_level() -> str:
    """Return the level that must be chosen on this machine's CPU."""
    return next(level for level in ("v4_vnni", "v4", "v3", "v2") if not missing_features(level))


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
    try:
        place.install(installed, "--no-deps", str(wheel))
    except CommandFailed as reason:
        raise Failure(f"{wheel.name} cannot be installed: {reason}") from None
    print(f"{wheel.name}, set up in {time.perf_counter() - start:.0f} s", flush=True)
    for level in chosen.levels:
        if level and chosen.environment == "x86_64" and missing_features(level):
            print(f"not run: level {level}: this CPU lacks {missing_features(level)}")
            continue
        variables = {"NPYLSTM_NATIVE": level} if level else {}
        expected = level or LEVELS.get(chosen.environment) or best_level()
        print(f"level: {expected}", flush=True)
        run_models(place, installed, expected, variables)
        run_tests(place, installed, chosen.every, variables)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except NotAvailable as reason:
        print(f"not run: {reason}", file=sys.stderr)
        sys.exit(3)
    except Failure as reason:
        sys.exit(f"failed: {reason}")
