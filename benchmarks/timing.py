"""Measuring by turns, on the wall clock and in CPU time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

Times = dict[str, list[float]]


class Samples(NamedTuple):
    """Seconds per call, one number for each round; ``cpu`` counts all threads of the process."""

    wall: Times
    cpu: Times


def by_turns(calls: dict[str, Callable[[], Any]], rounds: int, seconds: float) -> Samples:
    """Take a sample of each in every round, over as many calls as fill the time."""
    counts = {}
    for name, call in calls.items():
        call()
        begin = time.perf_counter()
        call()
        counts[name] = max(1, round(seconds / max(time.perf_counter() - begin, 1e-7)))
    samples = Samples({name: [] for name in calls}, {name: [] for name in calls})
    order = list(calls)
    for k in range(rounds):
        turn = k % len(order)
        for name in order[turn:] + order[:turn]:
            call = calls[name]
            cpu, wall = time.process_time_ns(), time.perf_counter_ns()
            for _ in range(counts[name]):
                call()
            wall, cpu = time.perf_counter_ns() - wall, time.process_time_ns() - cpu
            samples.wall[name].append(wall * 1e-9 / counts[name])
            samples.cpu[name].append(cpu * 1e-9 / counts[name])
    return samples


def times(samples: Samples) -> dict[str, Any]:
    """Return the median times of a call, in microseconds."""
    return {
        f"{clock}microseconds": {name: float(np.median(s)) * 1e6 for name, s in times.items()}
        for clock, times in (("", samples.wall), ("cpu_", samples.cpu))
    }


def ratios(samples: Samples, peers: Sequence[str]) -> dict[str, Any]:
    """Return the ratio of the fastest peer's time to npylstm's, and its quartiles."""
    row: dict[str, Any] = {}
    for clock, times in (("", samples.wall), ("cpu_", samples.cpu)):
        fastest = min(peers, key=lambda name, times=times: float(np.median(times[name])))
        low, ratio, high = quartiles(times[fastest], times["npylstm"])
        row |= {f"{clock}fastest_peer": fastest, f"{clock}ratio": ratio,
                f"{clock}spread": [low, high]}  # fmt: skip
    return row


def quartiles(numerator: list[float], denominator: list[float]) -> tuple[float, float, float]:
    """Return the quartiles of a ratio that is taken within each round; the median is the middle."""
    within = np.array(numerator) / np.array(denominator)
    low, middle, high = np.quantile(within, [0.25, 0.5, 0.75])
    return float(low), float(middle), float(high)
