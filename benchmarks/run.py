"""Run the benchmark: ``python benchmarks/run.py --help``.

All systems are measured in one process run, by turns: every round takes a sample of each, so
that what the machine does meanwhile meets all of them. A ratio is taken within a round, of the
fastest peer's time to npylstm's; reported are its median and quartiles.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SECTIONS = ("grid", "gru", "streams", "steps", "threads", "cold")


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare npylstm with its peers.")
    parser.add_argument("--sections", nargs="*", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--rounds", type=int, default=15, help="samples of each system")
    parser.add_argument("--seconds", type=float, default=0.02, help="length of a sample")
    parser.add_argument("--output", type=Path, default=HERE / "results")
    options = parser.parse_args()
    # Before any of the systems is imported.
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "",
                   "TF_CPP_MIN_LOG_LEVEL": "3", "TF_NUM_INTRAOP_THREADS": "1",
                   "TF_NUM_INTEROP_THREADS": "1"}  # fmt: skip
    import cases
    import cold
    import floors
    import report

    measured = floors.measure()
    document: dict[str, Any] = {
        "machine": _machine(), "versions": _versions(),
        "floors": {"gflops": measured.flops, "gbytes": measured.bandwidths},
    }  # fmt: skip
    sections = {
        "grid": (cases.GRID, "run"), "gru": (cases.GRU, "run"), "streams": (cases.STREAMS, "step"),
        "steps": (cases.STEPS, "run"),
    }  # fmt: skip
    for name, (chosen, method) in sections.items():
        if name in options.sections:
            document[name] = []
            for case in chosen:
                row = compare(case, method, options, measured)
                report.show(name, row)
                document[name].append(row)
    if "threads" in options.sections:
        document["threads"] = [scaling(case, options) for case in cases.THREADS]
        for row in document["threads"]:
            report.show("threads", row)
    if "cold" in options.sections:
        with tempfile.TemporaryDirectory() as folder:
            document["cold"] = cold.measure(Path(folder), min(options.rounds, 9))
        report.show_cold(document["cold"])
    options.output.mkdir(exist_ok=True)
    (options.output / "results.json").write_text(json.dumps(document, indent=1) + "\n")
    (options.output / "table.md").write_text(report.table(document))
    if "grid" in document:
        report.draw(document, options.output / "grid.png")


def compare(case: Any, method: str, options: argparse.Namespace, floors: Any) -> dict[str, Any]:
    """Measure all systems on a case, by turns."""
    import cases
    import numpy as np
    import peers

    weights, x = cases.make_weights(case), cases.make_input(case)
    right = cases.reference(case, weights, x)
    kinds = [*peers.OURS, *peers.PEERS]
    systems = {kind.name: kind(case, weights, 1) for kind in kinds}
    errors = {
        name: float(np.sqrt(np.mean((system.run(x) - right) ** 2)))
        for name, system in systems.items()
    }
    given = x if method == "run" else np.ascontiguousarray(x[:, 0])
    calls = {name: _bound(getattr(system, method), given) for name, system in systems.items()}
    samples = by_turns(calls, options.rounds, options.seconds)
    ours = np.array(samples["npylstm"])
    fastest = min((kind.name for kind in peers.PEERS), key=lambda n: float(np.median(samples[n])))
    ratios = np.quantile(np.array(samples[fastest]) / ours, [0.25, 0.5, 0.75])
    return {
        "case": case._asdict(), "label": str(case), "fastest_peer": fastest,
        "ratio": float(ratios[1]), "spread": [float(ratios[0]), float(ratios[2])],
        "microseconds": {n: float(np.median(s)) * 1e6 for n, s in samples.items()},
        "rms_error": errors, "of_floor": floors.seconds(case) / float(np.median(ours)),
    }  # fmt: skip


def _bound(function: Callable[[Any], Any], x: Any) -> Callable[[], Any]:
    return lambda: function(x)


def by_turns(
    calls: dict[str, Callable[[], Any]], rounds: int, seconds: float
) -> dict[str, list[float]]:
    """Take a sample of each in every round: seconds per call, over as many calls as fill it."""
    counts = {}
    for name, call in calls.items():
        call()
        begin = time.perf_counter()
        call()
        counts[name] = max(1, round(seconds / max(time.perf_counter() - begin, 1e-7)))
    samples: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls)
    for k in range(rounds):
        turn = k % len(order)
        for name in order[turn:] + order[:turn]:
            call = calls[name]
            begin = time.perf_counter()
            for _ in range(counts[name]):
                call()
            samples[name].append((time.perf_counter() - begin) / counts[name])
    return samples


def scaling(case: Any, options: argparse.Namespace) -> dict[str, Any]:
    """npylstm with one thread and with two."""
    import cases
    import numpy as np
    import peers

    weights, x = cases.make_weights(case), cases.make_input(case)
    systems = {threads: peers.Npylstm(case, weights, threads) for threads in (1, 2)}
    calls = {str(threads): _bound(system.run, x) for threads, system in systems.items()}
    same = bool((systems[1].run(x) == systems[2].run(x)).all())
    samples = by_turns(calls, options.rounds, options.seconds)
    ratios = np.quantile(np.array(samples["1"]) / np.array(samples["2"]), [0.25, 0.5, 0.75])
    return {
        "case": case._asdict(), "label": str(case), "ratio": float(ratios[1]),
        "spread": [float(ratios[0]), float(ratios[2])], "same_bits": same,
    }  # fmt: skip


def _machine() -> dict[str, Any]:
    name = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().splitlines()
        name = next((s.split(":")[1].strip() for s in lines if s.startswith("model name")), name)
    return {"processor": name, "cores": os.cpu_count(), "system": platform.platform(terse=True),
            "python": sys.version.split()[0]}  # fmt: skip


def _versions() -> dict[str, str]:
    names = ("npylstm", "numpy", "numba", "torch", "onnxruntime", "openvino", "tensorflow", "keras")
    return {name: version(name) for name in names}


if __name__ == "__main__":
    main()
