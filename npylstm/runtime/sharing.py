"""How many threads are worth their while for a call: decided by its number of multiplications."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import NamedTuple

from npylstm.errors import NpylstmError
from npylstm.runtime.threads import most_threads
from npylstm.spec import ModelSpec

__all__ = ["LEAST_WORK", "Work", "useful_threads", "work_of"]


class Work(NamedTuple):
    """Multiplications of a call, and between two times at which threads wait for each other."""

    call: int
    step: int


# Work from which two threads take less time than one, by what they share. Threads that share units
# wait for each other at every step; those that share rows wait for Python's lock at every step of a
# layer that NumPy computes. ``python benchmarks/threads.py`` measures it.
LEAST_WORK = {"rows": Work(12_000_000, 12_000_000), "units": Work(12_000_000, 100_000)}
_PER_ELEMENT = 16  # an element of a tensor takes about as long as so many multiplications


def work_of(
    spec: ModelSpec, inputs: Mapping[str, tuple[int, ...]], in_numpy: Collection[str]
) -> Work:
    """Return the work of threads that share rows: multiplications, and elements of tensors.

    Parameters
    ----------
    spec
        The model.
    inputs
        Shapes of the inputs, by name.
    in_numpy
        Names of the layers that NumPy computes.
    """
    operations = {layer.name: layer.layer for layer in spec.layers}
    shapes, work, steps = dict(inputs), 0, 1
    try:
        for edge in spec.edges:
            operation, read = operations[edge.layer], [shapes[t] for t in edge.inputs]
            made = [tuple(map(int, shape)) for shape in operation.infer_shapes(read)]
            work += operation.multiplications(read) + _PER_ELEMENT * sum(map(math.prod, made))
            if edge.layer in in_numpy:
                steps = max(steps, operation.sequential_steps(read))
            shapes |= dict(zip(edge.outputs, made, strict=True))
    except NpylstmError:  # the call itself will report it
        return Work(0, 0)
    return Work(work, work // steps)


def useful_threads(shared: str, work: Work, threads: int) -> int:
    """Return how many of the threads to use: each has at least half of the least work."""
    parts = min(2 * own // least for own, least in zip(work, LEAST_WORK[shared], strict=True))
    return 1 if parts < 2 else min(threads, most_threads(), parts)
