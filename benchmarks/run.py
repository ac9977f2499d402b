"""Run the benchmark: ``python benchmarks/run.py --help``.

All systems are measured in one process run, by turns: every round takes a sample of each, so
that what the machine does meanwhile meets all of them. A ratio is taken within a round, of the
fastest peer's time to npylstm's; reported are its median and quartiles, for the time on the clock
and for CPU time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

TOLERANCE = 1e-5  # of a whole model's largest output
HERE = Path(__file__).parent
SECTIONS = ("models", "ops", "quantized", "grid", "gru", "streams", "steps", "threads", "cold")


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare npylstm with its peers.")
    parser.add_argument("--sections", nargs="*", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--only", metavar="TEXT", default="", help="cases with TEXT in their name")
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
    import quantized
    import report
    import single_ops
    import whole_models

    measured = floors.measure()
    document: dict[str, Any] = {
        "machine": _machine(), "versions": _versions(),
        "floors": {"gflops": measured.flops, "gbytes": measured.bandwidths},
    }  # fmt: skip
    layers = partial(compare, method="run", floors=measured)
    measures: dict[str, tuple[list[Any], Callable[..., dict[str, Any]]]] = {
        "models": (whole_models.MODELS, compare_model),
        "ops": (single_ops.CASES, measure_op),
        "quantized": (quantized.CASES, measure_quantized),
        "grid": (cases.GRID, layers),
        "gru": (cases.GRU, layers),
        "streams": (cases.STREAMS, partial(compare, method="step", floors=measured)),
        "steps": (cases.STEPS, layers),
        "threads": (cases.THREADS, scaling),
    }
    for name, (chosen, measure) in measures.items():
        if name in options.sections:
            document[name] = []
            for case in chosen:
                if options.only in str(case):
                    row = measure(case, options)
                    report.show(name, row)
                    document[name].append(row)
    if document.get("models"):
        print(report.summary(document["models"]))
    if "cold" in options.sections:
        with tempfile.TemporaryDirectory() as folder:
            document["cold"] = cold.measure(Path(folder), min(options.rounds, 9))
        report.show_cold(document["cold"])
    options.output.mkdir(exist_ok=True)
    (options.output / "results.json").write_text(json.dumps(document, indent=1) + "\n")
    (options.output / "table.md").write_text(report.table(document))
    if document.get("grid"):
        report.draw(document, options.output / "grid.png")


def compare(case: Any, options: argparse.Namespace, method: str, floors: Any) -> dict[str, Any]:
    """Measure all systems on a case, by turns."""
    import cases
    import numpy as np
    import peers
    import timing

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
    samples = timing.by_turns(calls, options.rounds, options.seconds)
    ours = float(np.median(samples.wall["npylstm"]))
    return {
        "case": case._asdict(), "label": str(case),
        **timing.times(samples), **timing.ratios(samples, [kind.name for kind in peers.PEERS]),
        "rms_error": errors, "of_floor": floors.seconds(case) / ours,
    }  # fmt: skip


def compare_model(case: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Measure all systems on a whole model; peers whose numbers are wrong are not compared."""
    import model_peers
    import numpy as np
    import timing
    import whole_models

    module = whole_models.make_module(case)
    arrays, inputs = whole_models.make_calls(case)
    right = whole_models.reference(module, arrays)
    calls, errors, wrong = {}, {}, []
    for kind in (model_peers.Npylstm, *model_peers.PEERS):
        system = kind(case, module, arrays)
        made = [np.array(system.bind(x)()).reshape(case.batch, -1) for x in inputs]
        error = np.concatenate(made, axis=1) - right.reshape(case.batch, -1)
        errors[kind.name] = float(np.sqrt(np.mean(error**2)))
        if np.abs(error).max() > TOLERANCE * np.abs(right).max():
            wrong.append(kind.name)
        calls[kind.name] = system.bind(inputs[0])
    if "npylstm" in wrong:
        raise ArithmeticError(f"{case}: expected torch's numbers, got others from npylstm")
    samples = timing.by_turns(calls, options.rounds, options.seconds)
    able = [kind.name for kind in model_peers.PEERS if kind.name not in wrong]
    return {"label": str(case), **timing.times(samples), **timing.ratios(samples, able),
            "rms_error": errors, "wrong": wrong}  # fmt: skip


def measure_op(case: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Measure npylstm on a single operation, and ONNX Runtime where it has the same."""
    import single_ops
    import timing

    samples = timing.by_turns(single_ops.make_calls(case), options.rounds, options.seconds)
    return {"label": str(case), "op": case.op.name, "batch": case.batch, **timing.times(samples)}


def measure_quantized(case: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Measure float32 and quantized forms of npylstm and its peers."""
    import numpy as np
    import quantized
    import timing

    calls, right = quantized.make_systems(case)
    errors = {n: float(np.sqrt(np.mean((call() - right) ** 2))) for n, call in calls.items()}
    samples = timing.by_turns(calls, options.rounds, options.seconds)
    cpu = samples.cpu
    row = {"label": str(case), **timing.times(samples), "rms_error": errors}
    for name in ("int8", "bfloat16"):
        row[f"gain_{name}"] = timing.quartiles(cpu["npylstm float32"], cpu[f"npylstm {name}"])
    fastest = min(quantized.PEERS[:2], key=lambda peer: float(np.median(cpu[peer])))
    return row | {
        "peer": fastest, "against_peer": timing.quartiles(cpu[fastest], cpu["npylstm int8"]),
        "size": float(np.sqrt(np.mean(right**2))),
    }  # fmt: skip


def _bound(function: Callable[[Any], Any], x: Any) -> Callable[[], Any]:
    return lambda: function(x)


def scaling(case: Any, options: argparse.Namespace) -> dict[str, Any]:
    """npylstm with one thread and with two."""
    import cases
    import peers
    import timing

    weights, x = cases.make_weights(case), cases.make_input(case)
    systems = {threads: peers.Npylstm(case, weights, threads) for threads in (1, 2)}
    calls = {str(threads): _bound(system.run, x) for threads, system in systems.items()}
    same = bool((systems[1].run(x) == systems[2].run(x)).all())
    wall = timing.by_turns(calls, options.rounds, options.seconds).wall
    low, ratio, high = timing.quartiles(wall["1"], wall["2"])
    return {"case": case._asdict(), "label": str(case), "ratio": ratio, "spread": [low, high],
            "same_bits": same}  # fmt: skip


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
