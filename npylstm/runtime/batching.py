"""Batches in parts: rows cut into slices, run side by side in threads, and joined again."""

from __future__ import annotations

import _thread
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from npylstm import console
from npylstm.arrays import Array

__all__ = ["Fill", "Result", "cut", "join", "run_slices", "side_by_side"]

# Computes rows of an output, the second array, of rows of an input.
Fill = Callable[[Array, Array], None]
# Outputs by name, and the state after them by layer and name.
Result = tuple[dict[str, Array], dict[str, dict[str, Array]]]


def cut(rows: int, size: int) -> list[slice]:
    """Cut rows into slices of a size; the last has what is left."""
    return [slice(r, min(r + size, rows)) for r in range(0, rows, size)] or [slice(0, 0)]


def run_slices(
    run: Callable[[slice], Result], slices: Sequence[slice], threads: int, progress: bool
) -> list[Result]:
    """Run every slice, so many at a time; progress is shown on stderr."""
    with console.progress("predict", len(slices), enabled=progress) as advance:
        if threads == 1:
            return list(_advancing(map(run, slices), advance))
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(threads) as pool:
            return list(_advancing(pool.map(run, slices), advance))


def _advancing(results: Iterator[Result], advance: Callable[[], None]) -> Iterator[Result]:
    for result in results:
        yield result
        advance()


def side_by_side(slices: Sequence[slice], fillers: Sequence[Fill]) -> Fill:
    """Make a call that fills each slice of the rows in a thread, the first in the caller's.

    It may take less than a millisecond, of which a pool of threads would take a good part.
    """
    if len(fillers) == 1:
        return fillers[0]

    def fill(x: Array, y: Array) -> None:
        failures: list[BaseException] = []

        def work(k: int, done: _thread.LockType) -> None:
            try:
                fillers[k](x[slices[k]], y[slices[k]])
            except BaseException as failure:
                failures.append(failure)
            finally:
                done.release()

        waits = [_thread.allocate_lock() for _ in fillers]
        for done in waits:
            done.acquire()
        for k in range(1, len(fillers)):
            _thread.start_new_thread(work, (k, waits[k]))
        work(0, waits[0])
        for done in waits:
            done.acquire()
        if failures:
            raise failures[0]

    return fill


def join(results: Sequence[Result], axes: Mapping[str, int]) -> Result:
    """Join what slices gave, outputs along these axes, states along their first."""
    if len(results) == 1:
        return results[0]
    outputs = {name: np.concatenate([y[name] for y, _ in results], axes[name]) for name in axes}
    states = {
        layer: {name: np.concatenate([s[layer][name] for _, s in results]) for name in entries}
        for layer, entries in results[0][1].items()
    }
    return outputs, states
