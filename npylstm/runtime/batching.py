"""Compute a batch in slices of rows, in threads, and join the results."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from npylstm import console
from npylstm.arrays import Array
from npylstm.runtime.threads import run_together

__all__ = ["Fill", "Result", "cut", "fill_in_threads", "join", "run_slices"]

# Computes rows of the output (second array) from rows of the input.
Fill = Callable[[Array, Array], None]
# Outputs by name, and the final state by layer and name.
Result = tuple[dict[str, Array], dict[str, dict[str, Array]]]


def cut(rows: int, size: int) -> list[slice]:
    """Cut rows into slices of a size; the last may be shorter."""
    return [slice(r, min(r + size, rows)) for r in range(0, rows, size)] or [slice(0, 0)]


def run_slices(
    run: Callable[[slice], Result], slices: Sequence[slice], threads: int, progress: bool
) -> list[Result]:
    """Run every slice, at most ``threads`` at a time; progress is shown on stderr."""
    results: list[Result | None] = [None] * len(slices)
    todo = iter(range(len(slices)))  # next() is atomic, so threads can share the iterator
    with console.progress("predict", len(slices), enabled=progress) as advance:

        def work() -> None:
            for k in todo:
                results[k] = run(slices[k])
                advance()

        run_together([work] * min(threads, len(slices)))
    return [result for result in results if result is not None]


def fill_in_threads(slices: Sequence[slice], fillers: Sequence[Fill]) -> Fill:
    """Return a function that fills each slice of the rows in a thread."""
    if len(fillers) == 1:
        return fillers[0]

    def fill(x: Array, y: Array) -> None:
        run_together(
            [
                functools.partial(filler, x[rows], y[rows])
                for filler, rows in zip(fillers, slices, strict=True)
            ]
        )

    return fill


def join(results: Sequence[Result], axes: Mapping[str, int]) -> Result:
    """Join the results of slices: outputs along these axes, states along axis 0."""
    if len(results) == 1:
        return results[0]
    outputs = {name: np.concatenate([y[name] for y, _ in results], axes[name]) for name in axes}
    states = {
        layer: {name: np.concatenate([s[layer][name] for _, s in results]) for name in entries}
        for layer, entries in results[0][1].items()
    }
    return outputs, states
