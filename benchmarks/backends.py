"""The back ends of npylstm against each other: NumPy, Numba, and the shipped levels.

``python benchmarks/backends.py [--rounds N]``: all in one process and by turns, CPU time, one
thread. A time is the least of all rounds, which is nearest to a quiet machine; a ratio is taken
between such times.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from cases import GRID, GRU, make_weights
from peers import make_spec

from npylstm.environment import environment
from npylstm.kernels.library import KernelLibrary
from npylstm.native.compiled import numba_library
from npylstm.native.levels import cpu_features, levels_of
from npylstm.native.shipped import ShippedLibrary, load_library
from npylstm.runtime.kernel_engine import KernelEngine
from npylstm.runtime.numpy_engine import NumpyEngine
from npylstm.runtime.predictor import Predictor
from npylstm.runtime.session import Session
from npylstm.spec import ModelSpec

STEP_UNITS = (20, 32, 64, 128, 256)


def libraries() -> dict[str, KernelLibrary]:
    """Return the libraries that can be used here, by name."""
    found: dict[str, KernelLibrary] = {}
    numba = numba_library()
    if isinstance(numba, KernelLibrary):
        found["numba"] = numba
    for level in levels_of(cpu_features()):
        library = load_library(level.name)
        if isinstance(library, ShippedLibrary):
            found[level.name] = library
    return found


def models(spec: ModelSpec, of: dict[str, KernelLibrary]) -> dict[str, Predictor]:
    """Return the model on every back end."""
    made = {"numpy": Predictor(spec, NumpyEngine(spec))}
    return made | {k: Predictor(spec, KernelEngine(spec, library)) for k, library in of.items()}


def measure(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the least CPU time of each call, in microseconds; each round takes all by turns."""
    counts = {}
    for name, call in calls.items():
        call()
        start = time.perf_counter()
        call()
        counts[name] = max(1, int(0.01 / max(time.perf_counter() - start, 1e-7)))
    least = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.process_time()
            for _ in range(counts[name]):
                call()
            least[name] = min(least[name], (time.process_time() - start) / counts[name])
    return {name: 1e6 * seconds for name, seconds in least.items()}


def main(rounds: int) -> None:
    """Print the tables."""
    for name, value in environment().items():
        print(f"{name}: {value}")
    of = libraries()
    best = next((name for name in of if name != "numba"), None)
    ratios = []
    names = ["numpy", *of]
    print(f"\n| predict, us | {' | '.join(names)} | {best} / numba | same bits |")
    print("|---|" + "---|" * (len(names) + 2))
    for case in (*GRID, *GRU):
        spec = make_spec(case, make_weights(case))
        x = np.random.default_rng(0).normal(size=(case.batch, case.steps, case.features))
        x = x.astype(np.float32)
        all_models = models(spec, of)
        results = {name: model.predict(x) for name, model in all_models.items()}
        same = best and "numba" in of and np.array_equal(results[best], results["numba"])
        times = measure({k: lambda m=m, x=x: m.predict(x) for k, m in all_models.items()}, rounds)
        ratio = times[best] / times["numba"] if best and "numba" in of else float("nan")
        ratios.append(ratio)
        cells = " | ".join(f"{times[name]:,.1f}" for name in names)
        print(f"| {case} | {cells} | {ratio:.3f} | {'yes' if same else 'no'} |", flush=True)
    mean = np.exp(np.mean(np.log(ratios)))
    print(f"\ngeometric mean {mean:.3f}, largest {max(ratios):.3f}")
    print(f"\n| session.step, us | {' | '.join(names)} |\n|---|" + "---|" * len(names))
    for units in STEP_UNITS:
        case = GRID[0]._replace(units=units)
        spec = make_spec(case, make_weights(case))
        x = np.ones((1, 1), np.float32)
        sessions = {name: Session(model, 1) for name, model in models(spec, of).items()}
        times = measure({k: lambda s=s, x=x: s.step(x) for k, s in sessions.items()}, rounds)
        print(f"| {units} units | {' | '.join(f'{times[n]:.2f}' for n in names)} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    main(parser.parse_args().rounds)
