"""Batches in parts: rows cut into slices, run side by side in threads, and joined again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from npylstm import console
from npylstm.layers.base import Array

__all__ = ["Result", "cut", "join", "run_slices", "side_by_side"]

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


def side_by_side(
    slices: Sequence[slice], calls: Sequence[Callable[[Array], Array]]
) -> Callable[[Array], Array]:
    """Make a call that runs each slice of the rows in a thread, the first in the caller's."""
    if len(calls) == 1:
        return calls[0]
    from concurrent.futures import ThreadPoolExecutor

    def run(x: Array) -> Array:
        with ThreadPoolExecutor(len(calls) - 1) as pool:
            others = [pool.submit(c, x[s]) for c, s in zip(calls[1:], slices[1:], strict=True)]
            first = calls[0](x[slices[0]])
            return np.concatenate([first, *(other.result() for other in others)])

    return run


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
