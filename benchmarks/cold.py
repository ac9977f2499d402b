"""Processes from the beginning: import, load a 20-unit model, predict once; time and memory.

``python cold.py NAME FOLDER`` is one such process. :func:`measure` starts them, by turns.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from cases import Case, make_weights

CASE = Case("lstm", 1, 50, 1, 20, 1)
NAMES = (
    "import numpy", "npylstm (NumPy)", "npylstm", "onnxruntime", "openvino", "torch",
    "tf.function",
)  # fmt: skip


def prepare(folder: Path) -> None:
    """Write the model in the forms that the systems load."""
    from peers import make_onnx, make_spec

    import npylstm

    weights = make_weights(CASE)
    npylstm.save(make_spec(CASE, weights), folder / "model.npz")
    (folder / "model.onnx").write_bytes(make_onnx(CASE, weights))


def run(name: str, folder: Path) -> None:
    """What one process does."""
    x = np.zeros((CASE.batch, CASE.steps, CASE.features), np.float32)
    states = {name: np.zeros((1, CASE.batch, CASE.units), np.float32) for name in ("h0", "c0")}
    if name.startswith("npylstm"):
        import npylstm

        backend = "numpy" if "NumPy" in name else "auto"
        npylstm.load(folder / "model.npz", backend=backend).predict(x)
    elif name == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            folder / "model.onnx", options, providers=["CPUExecutionProvider"]
        )
        session.run(None, {"X": x.swapaxes(0, 1), **states})
    elif name == "openvino":
        import openvino

        model = openvino.Core().compile_model(folder / "model.onnx", "CPU")
        model({"X": x.swapaxes(0, 1), **states})
    elif name in ("torch", "tf.function"):
        from peers import TensorFlow, Torch

        kind = Torch if name == "torch" else TensorFlow
        kind(CASE, make_weights(CASE), 1).run(x)


def _peak_memory() -> float:
    """Megabytes that were resident at most."""
    import resource

    status = Path("/proc/self/status")
    if status.exists():  # getrusage also counts the process that this one was forked from
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) / 1024
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def measure(folder: Path, rounds: int) -> list[dict[str, object]]:
    """Start processes by turns; the first round fills caches and does not count."""
    prepare(folder)
    seconds: dict[str, list[float]] = {name: [] for name in NAMES}
    memory: dict[str, float] = {}
    # As where packages are installed: with their bytecode compiled.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    for k in range(rounds + 1):
        for name in NAMES:
            begin = time.perf_counter()
            done = subprocess.run(
                [sys.executable, __file__, name, str(folder)],
                capture_output=True, text=True, check=True, env=environment,
            )  # fmt: skip
            if k:
                seconds[name].append(time.perf_counter() - begin)
                memory[name] = json.loads(done.stdout.splitlines()[-1])
    return [{"name": n, "seconds": sorted(seconds[n]), "peak_megabytes": memory[n]} for n in NAMES]


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2]))
    print(json.dumps(_peak_memory()))
