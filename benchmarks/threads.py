"""From which work two threads take less time than one: what ``LEAST_WORK`` is set by.

Each model is called with more and more work, by one thread and by two in turn. The lines have the
work of a call and of one time step, the median times on the clock and of the processors in
microseconds, and the ratio of the times on the clock; the last line of a model has the work from
which two threads always took less. With ``--as-set`` the table decides whether there are two
threads, and the ratio shows whether it decides well. Where other programs use the processors, two
threads take longer: measure on a quiet machine.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import timing

import npylstm
from npylstm.activations import Activation
from npylstm.graph.parts import Edge, LayerSpec, TensorSpec
from npylstm.ops.base import Operation
from npylstm.ops.cells import GRU, LSTM
from npylstm.ops.dense import Dense
from npylstm.ops.pointwise import ActivationLayer
from npylstm.runtime import backoff, sharing


class Line(NamedTuple):
    """An operation, and the sizes (batch, steps, features) of its calls."""

    shared: str
    name: str
    operation: Operation
    sizes: tuple[tuple[int, int, int], ...]


def _batches(steps: int, features: int, *batches: int) -> tuple[tuple[int, int, int], ...]:
    return tuple((batch, steps, features) for batch in batches)


def _lengths(features: int, *lengths: int) -> tuple[tuple[int, int, int], ...]:
    return tuple((1, steps, features) for steps in lengths)


_RECURRENT = [
    ("LSTM(20)", LSTM(20, 20), _batches(50, 20, 2, 4, 8, 16, 32, 64, 128)),
    ("LSTM(128)", LSTM(64, 128), _batches(20, 64, 2, 4, 8, 16, 32, 64)),
    ("LSTM(512)", LSTM(64, 512), _batches(1, 64, 2, 4, 8, 16, 32)),
    ("Dense(64)", Dense(64, 64), _batches(20, 64, 2, 8, 16, 32, 64, 128)),
]
_SOFTMAX = ActivationLayer(Activation("softmax"))
LINES = [
    *(Line("rows", *rest) for rest in _RECURRENT),
    Line("rows", "softmax", _SOFTMAX, _batches(20, 64, 2, 8, 32, 64, 128, 256)),
    *(Line("rows in NumPy", *rest) for rest in _RECURRENT),
    Line("rows in NumPy", "LSTM(512), long", LSTM(512, 512), _batches(50, 512, 2, 8, 32)),
    Line("rows in NumPy", "softmax", _SOFTMAX, _batches(20, 64, 2, 8, 32, 128, 512, 2048)),
    Line("units", "LSTM(64)", LSTM(64, 64), _lengths(64, 20, 100, 500, 1000, 2000)),
    Line("units", "LSTM(128)", LSTM(128, 128), _lengths(128, 10, 20, 50, 100, 200, 400)),
    Line("units", "LSTM(512)", LSTM(512, 512), _lengths(512, 1, 2, 5, 10, 20)),
    Line("units", "GRU(256)", GRU(256, 256), _lengths(256, 2, 5, 10, 20, 50)),
]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure from which work two threads take less.")
    parser.add_argument("--only", metavar="TEXT", default="", help="lines with TEXT in their name")
    parser.add_argument("--rounds", type=int, default=11, help="samples of each")
    parser.add_argument("--seconds", type=float, default=0.01, help="length of a sample")
    parser.add_argument("--as-set", action="store_true", help="let LEAST_WORK decide")
    options = parser.parse_args()
    if not options.as_set:
        backoff._MULTIPLICATIONS_PER_SECOND = 1  # no call takes so long
        sharing.LEAST_WORK = dict.fromkeys(sharing.LEAST_WORK, sharing.Work(1, 1))
    for line in LINES:
        if options.only in f"{line.shared}, {line.name}":
            print(f"{line.shared}, {line.name}")
            wins = None
            for work, ratio in measure(line, options):
                wins = (wins or work) if ratio < 1 else None
            print(f"  two threads take less from: {_text(wins)}" if wins else "  never")


def measure(line: Line, options: argparse.Namespace) -> Iterator[tuple[sharing.Work, float]]:
    """Yield the work of each size, and the ratio of the times of two threads and one."""
    rng = np.random.default_rng(40)
    shapes = line.operation.weight_shapes()
    weights = {k: rng.uniform(-0.1, 0.1, s).astype(np.float32) for k, s in shapes.items()}
    layer = LayerSpec("layer", line.operation, weights)
    edge = Edge.call(layer, "x")
    x_spec = TensorSpec("x", ("batch", "steps", line.sizes[0][-1]))
    spec = npylstm.ModelSpec((layer,), (edge,), (x_spec,), edge.outputs[:1])
    model = npylstm.Model(spec, "numpy" if line.shared == "rows in NumPy" else "auto")
    for size in line.sizes:
        x = rng.normal(size=size).astype(np.float32)
        work = sharing.work_of(spec, {"x": size}, {"layer"})
        calls = {str(n): partial(model.predict, x, threads=n) for n in (1, 2)}
        samples = timing.by_turns(calls, options.rounds, options.seconds)
        _, ratio, _ = timing.quartiles(samples.wall["2"], samples.wall["1"])
        wall, cpu = (
            [float(np.median(times[name])) * 1e6 for name in calls]
            for times in (samples.wall, samples.cpu)
        )
        print(
            f"  {_text(work)}  clock {wall[0]:8.0f} {wall[1]:8.0f}  "
            f"processors {cpu[0]:8.0f} {cpu[1]:8.0f}  ratio {ratio:.2f}"
        )
        yield work, ratio


def _text(work: sharing.Work) -> str:
    return f"{work.call / 1e6:8.2f} M, {work.step / 1e6:7.3f} M a step"


if __name__ == "__main__":
    main()
