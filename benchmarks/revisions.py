"""Compare this tree with another checkout of npylstm: time, bits, cold start, memory.

``python revisions.py OTHER_TREE`` runs one process per tree. The two take turns, cell by cell and
round by round, so that both see the same machine; it prints the ratio this / other of CPU time.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from cases import GRID, GRU, STREAMS, THREADS, make_weights

TREE = Path(__file__).resolve().parent.parent
SECONDS = 0.15  # of one measurement


def environment(tree: Path) -> dict[str, str]:
    single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    return {**os.environ, **single, "PYTHONPATH": f"{tree}{os.pathsep}{tree / 'converters'}"}


def write_models(folder: Path, tree: Path) -> None:
    """Save the cells as files, by the other, older tree, so that both can read them."""
    sys.path.insert(0, str(tree / "benchmarks"))
    from peers import make_spec

    import npylstm

    for case in {*GRID, *GRU, *STREAMS, *THREADS}:
        npylstm.save(make_spec(case, make_weights(case)), folder / f"{case}.npz")


def make_call(path: str, kind: str, backend: str) -> Callable[[], Any]:
    """Return a function that does one unit of work with a model."""
    import npylstm

    model = npylstm.load(path, backend=backend)
    sizes = {"batch": 4, "steps": 20}
    if kind != "file":
        case = next(c for c in (*GRID, *GRU, *STREAMS) if str(c) == Path(path).stem)
        sizes = {"batch": case.batch, "steps": case.steps}
    rng = np.random.default_rng(0)
    xs = []
    for tensor in model.inputs:
        shape = tuple(sizes.get(d, 20) if isinstance(d, str) else d for d in tensor.shape)
        x = rng.integers(0, 3, shape) if tensor.integer else rng.normal(size=shape)
        xs.append(x.astype("float32"))
    x = xs[0] if len(xs) == 1 else xs
    if kind == "step":
        session = model.session(len(x))
        return lambda: session.step(x[:, 0])
    if kind == "pool":
        pool, keys = model.pool(256), [*range(256)]
        pool.add(keys)
        rows = np.repeat(x[:1, 0], len(keys), axis=0)
        return lambda: pool.step(keys, rows)
    threads = 2 if kind == "threads" else 1
    return lambda: model.predict(x, threads=threads)


def serve() -> None:
    """Answer requests for one measurement each: CPU seconds per call, bits of the output."""
    calls: dict[tuple[str, str, str], Callable[[], Any]] = {}
    for line in sys.stdin:
        key = tuple(json.loads(line))
        if key not in calls:
            calls[key] = make_call(*key)
            calls[key]()
        call = calls[key]
        digest = hashlib.sha256()
        y = call()
        for array in y.values() if isinstance(y, dict) else [y]:
            digest.update(np.ascontiguousarray(array).tobytes())
        count, spent = 0, 0.0
        while spent < SECONDS:
            before = time.process_time()
            for _ in range(1 + count):
                call()
            spent += time.process_time() - before
            count += 1 + count
        print(json.dumps([spent / count, digest.hexdigest()[:16]]), flush=True)


def cold(tree: Path, model: Path, backend: str) -> tuple[float, int]:
    """Return CPU seconds and peak memory (KiB) of a process that loads a model and runs it once."""
    code = (
        "import resource, sys, numpy, npylstm; m = npylstm.load(sys.argv[1], backend=sys.argv[2]); "
        "m.predict(numpy.zeros((1, 50, 1), 'f')); u = resource.getrusage(resource.RUSAGE_SELF); "
        "peak = [line for line in open('/proc/self/status') if line.startswith('VmHWM')][0]; "
        "print(u.ru_utime + u.ru_stime, peak.split()[1])"
    )
    command = [sys.executable, "-c", code, str(model), backend]
    done = subprocess.run(
        command, env=environment(tree), capture_output=True, text=True, check=True
    )
    seconds, memory = done.stdout.split()
    return float(seconds), int(memory)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("other", type=Path, help="the other checkout")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--compiled", default="native", choices=("native", "numba"), help="the compiled back end"
    )
    options = parser.parse_args()
    trees = {"this": TREE, "other": options.other.resolve()}
    this_file = Path(__file__).resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run(
            [sys.executable, str(this_file), "--write", name, str(trees["other"])],
            env=environment(trees["other"]), check=True,
        )  # fmt: skip
        compiled = options.compiled
        cells = [(str(folder / f"{c}.npz"), "predict", compiled) for c in (*GRID, *GRU)]
        cells += [(str(folder / f"{c}.npz"), "predict", "numpy") for c in GRID[:4]]
        cells += [(str(folder / f"{c}.npz"), "threads", compiled) for c in THREADS]
        cells += [
            (str(folder / f"{c}.npz"), "step", b) for c in STREAMS for b in (compiled, "numpy")
        ]
        cells += [(str(folder / f"{c}.npz"), "pool", compiled) for c in STREAMS if c.batch == 1]
        bundled = [
            p for p in sorted(trees["other"].glob("models/*/*.npz")) if "npylstm/spec" in np.load(p)
        ]
        cells += [(str(p), "file", compiled) for p in bundled]
        workers = {
            tree: subprocess.Popen(
                [sys.executable, str(this_file), "--serve"], env=environment(path),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )
            for tree, path in trees.items()
        }  # fmt: skip
        print(f"{'cell':58} {'other us':>10} {'this us':>10} {'ratio':>6}  bits")
        ratios, others = [], 0
        for cell in cells:
            seconds: dict[str, list[float]] = {tree: [] for tree in workers}
            bits: dict[str, set[str]] = {tree: set() for tree in workers}
            for _ in range(options.rounds):
                for tree, worker in workers.items():
                    worker.stdin.write(json.dumps(cell) + "\n")
                    worker.stdin.flush()
                    spent, digest = json.loads(worker.stdout.readline())
                    seconds[tree].append(spent)
                    bits[tree].add(digest)
            pairs = zip(seconds["this"], seconds["other"], strict=True)
            ratio = statistics.median(a / b for a, b in pairs)
            ratios.append(ratio)
            same = cell[1] in ("step", "pool") or bits["this"] == bits["other"]
            others += not same
            label = f"{cell[1]} {cell[2]} {Path(cell[0]).stem}"
            this, other = (min(seconds[t]) * 1e6 for t in ("this", "other"))
            print(
                f"{label:58} {other:10.1f} {this:10.1f} {ratio:6.3f}  "
                f"{'equal' if same else 'OTHER'}"
            )
        for worker in workers.values():
            worker.stdin.close()
            worker.wait()
        print(f"geometric mean {statistics.geometric_mean(ratios):.3f}, worst {max(ratios):.3f}, "
              f"{others} of {len(cells)} with other bits")  # fmt: skip
        model = folder / f"{GRID[3]}.npz"
        for backend in ("numpy", compiled):
            runs = [{t: cold(path, model, backend) for t, path in trees.items()} for _ in range(9)]
            for k, what in enumerate(("CPU s of a cold start", "KiB of memory")):
                values = {t: statistics.median(r[t][k] for r in runs) for t in trees}
                print(f"{what} ({backend}): other {values['other']:g}, this {values['this']:g}")
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve()
    elif sys.argv[1:2] == ["--write"]:
        write_models(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        sys.exit(main())
