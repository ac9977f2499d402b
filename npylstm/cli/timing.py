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
    spec = load(options.model, "numpy", custom_functions(options)).spec
    models = [Model(spec, "numpy")]
    for backend in ("numba", "native"):
        with contextlib.suppress(NpylstmError):
            models.append(Model(spec, backend))
    rng = np.random.default_rng(0)
    results: list[dict[str, Any]] = []
    with console.progress("bench", len(options.batch) * len(models)) as advance:
        for batch in options.batch:
            sizes = {BATCH: batch}
            x = {}
            for t in spec.inputs:
                shape = [sizes.get(d, options.steps) if isinstance(d, str) else d for d in t.shape]
                if math.prod(shape) * np.dtype(spec.dtype).itemsize > sys.maxsize:
                    raise NpylstmError(
                        f"{t.name}: {format_shape(shape)} is larger than any array; give a smaller "
                        "--batch or --steps"
                    )
                drawn = np.zeros(shape) if t.integer else rng.standard_normal(shape)
                x[t.name] = drawn.astype(spec.dtype)
            for model in models:
                times = _time(lambda: model.predict(x), options.seconds)  # noqa: B023
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
