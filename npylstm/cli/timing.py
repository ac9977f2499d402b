"""``npylstm bench`` and ``npylstm warmup``."""

from __future__ import annotations

import argparse
import contextlib
import math
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from npylstm import console
from npylstm.cli.printing import print_json
from npylstm.cli.sources import custom_functions
from npylstm.errors import NpylstmError
from npylstm.ops.shapes import BATCH, format_shape
from npylstm.runtime.engines import LIBRARIES
from npylstm.runtime.model import Model, load

__all__ = ["bench", "warmup"]


def bench(options: argparse.Namespace) -> int:
    """Time whole calls with all back ends that can be used here, and print medians."""
    _check_bench(options)
    spec = load(options.model, "numpy", custom_functions(options)).spec
    if options.stream:
        return _bench_stream(Model(spec), options)
    models = [Model(spec, "numpy")]
    for backend in ("numba", "native"):
        with contextlib.suppress(NpylstmError):
            models.append(Model(spec, backend))
    rng = np.random.default_rng(0)
    seconds = _SECONDS if options.seconds is None else options.seconds
    results: list[dict[str, Any]] = []
    with console.progress("bench", len(options.batch) * len(models)) as advance:
        for batch in options.batch:
            sizes = {BATCH: batch}
            x = {}
            for t in spec.inputs:
                shape = [
                    sizes.get(d, options.steps or _STEPS) if isinstance(d, str) else d
                    for d in t.shape
                ]
                if math.prod(shape) * np.dtype(spec.dtype).itemsize > sys.maxsize:
                    raise NpylstmError(
                        f"{t.name}: {format_shape(shape)} is larger than any array; give a smaller "
                        "--batch or --steps"
                    )
                drawn = np.zeros(shape) if t.integer else rng.standard_normal(shape)
                x[t.name] = drawn.astype(spec.dtype)
            for model in models:
                times = _time(lambda: model.predict(x), seconds)  # noqa: B023
                results.append(
                    {"backend": model.backend, "calls": len(times),
                     "input": list(next(iter(x.values())).shape),
                     "median_us": 1e6 * statistics.median(times), "min_us": 1e6 * min(times)}
                )  # fmt: skip
                advance()
    if options.json:
        print_json(results)
        return 0
    rows = [
        [r["backend"], format_shape(r["input"]), str(r["calls"]), f"{r['median_us']:.1f}",
         f"{r['min_us']:.1f}"]
        for r in results
    ]  # fmt: skip
    header = ["back end", "input", "calls", "median us", "min us"]
    console.print_table(header, rows, title=f"{spec.name}, 1 thread of npylstm's own")
    return 0


def _check_bench(options: argparse.Namespace) -> None:
    """Refuse options of the other way to measure."""
    if options.stream:
        for name in ("steps", "seconds"):
            if getattr(options, name) is not None:
                raise NpylstmError(f"--{name}: goes with whole calls, not with --stream")
    elif options.calls is not None:
        raise NpylstmError("--calls: goes with --stream")


_STEPS, _SECONDS, _CALLS = 50, 0.5, 1_000_000  # the defaults
_BLOCK = 10_000  # calls between two signs of progress
_WARM_UP = 1_000
_QUANTILES = {"median_us": 0.5, "p99_us": 0.99, "p99_9_us": 0.999, "worst_us": 1.0}


def _bench_stream(model: Model, options: argparse.Namespace) -> int:
    """Time single steps of a session, as an audio callback or a control loop calls them."""
    rng = np.random.default_rng(0)
    calls = options.calls or _CALLS
    results = []
    for batch in options.batch:
        session = model.session(batch)
        x = _step_input(model, batch, rng)
        first = session.step(x)
        out = np.empty_like(first) if isinstance(first, np.ndarray) else None
        for _ in range(_WARM_UP):
            session.step(x, out)
        times = np.zeros(calls, np.int64)
        blocks = range(0, calls, _BLOCK)
        clock = time.perf_counter_ns
        with console.progress("bench", len(blocks)) as advance:
            for begin in blocks:
                for k in range(begin, min(begin + _BLOCK, calls)):
                    start = clock()
                    session.step(x, out)
                    times[k] = clock() - start
                advance()
        found = {name: float(np.quantile(times, q)) / 1e3 for name, q in _QUANTILES.items()}
        results.append({"backend": model.backend, "batch": batch, "calls": calls, **found})
    if options.json:
        print_json(results)
        return 0
    rows = [
        [r["backend"], str(r["batch"]), f"{r['calls']:,}", *(f"{r[q]:.1f}" for q in _QUANTILES)]
        for r in results
    ]
    header = ["back end", "sequences", "steps", "median us", "99 %", "99.9 %", "worst"]
    console.print_table(header, rows, title=f"{model.spec.name}, steps of a session")
    return 0


def _step_input(model: Model, batch: int, rng: np.random.Generator) -> Any:
    """Return random inputs of a step, by name if there are several."""
    drawn = {}
    plan, _ = model.streaming
    for tensor in map(plan.drop_time_axis, model.inputs):
        shape = [batch if d == BATCH else d for d in tensor.shape]
        sizes = [d if isinstance(d, int) else 1 for d in shape]
        values = np.zeros(sizes) if tensor.integer else rng.standard_normal(sizes)
        drawn[tensor.name] = values.astype(model.spec.dtype)
    return drawn if len(drawn) > 1 else next(iter(drawn.values()))


def warmup(options: argparse.Namespace) -> int:
    """Compile all kernels into Numba's cache, for example when a container image is built."""
    from npylstm.kernels.library import KernelLibrary
    from npylstm.native.compiled import cache_folder

    shipped = isinstance(LIBRARIES["native"](), KernelLibrary)
    results = []
    with console.progress("warmup", len(options.model)) as advance:
        for path in options.model:
            start = time.perf_counter()
            model = load(path, "auto" if shipped else "numba", custom_functions(options))
            seconds = time.perf_counter() - start
            results.append({"model": path, "backend": model.backend, "seconds": seconds})
            advance()
    compiled = any(r["backend"] == "numba" for r in results)
    folder = cache_folder() if compiled else None
    if options.json:
        print_json({"cache": folder, "models": results})
        return 0
    rows = [[str(r["model"]), str(r["backend"]), f"{r['seconds']:.2f}"] for r in results]
    title = f"kernels in {folder or 'no cache'}" if compiled else "nothing to compile"
    console.print_table(["model", "back end", "seconds"], rows, title=title)
    return 0


def _time(call: Callable[[], Any], seconds: float) -> list[float]:
    """Return the times of repeated calls, after a first call that compiles."""
    call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times
