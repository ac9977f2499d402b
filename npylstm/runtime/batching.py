"""Compute a batch in slices of rows, in threads, and join the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from npylstm import console
from npylstm.arrays import Array
from npylstm.graph.state import State, join_states, take_rows
from npylstm.ops.shapes import BATCH
from npylstm.runtime.engines import Engine
from npylstm.runtime.threads import run_together
from npylstm.spec import ModelSpec

__all__ = ["cut", "run_batch"]

Result = tuple[dict[str, Array], State]  # outputs by name, and the final state


def cut(rows: int, size: int) -> list[slice]:
    """Cut rows into slices of a size; the last may be shorter."""
    return [slice(r, min(r + size, rows)) for r in range(0, rows, size)] or [slice(0, 0)]


def run_batch(
    engine: Engine, spec: ModelSpec, inputs: Mapping[str, Array], state: State,
    mask: Array | None, slices: Sequence[slice], threads: int, progress: bool,
) -> Result:  # fmt: skip
    """Run slices of a batch, at most ``threads`` at a time, and join the results."""
    # Outputs in which the batch is merged with other axes cannot be concatenated.
    if len(slices) == 1 or not all(BATCH in t.shape for t in spec.output_specs):
        return _unshared(engine.run(inputs, state, mask), inputs)
    tensors = (*spec.inputs, *spec.output_specs)
    axes = {t.name: t.shape.index(BATCH) for t in tensors if BATCH in t.shape}
    results: list[Result] = [({}, {})] * len(slices)
    todo = iter(range(len(slices)))  # next() is atomic, so threads can share the iterator
    with console.progress("predict", len(slices), enabled=progress) as advance:

        def work() -> None:
            for k in todo:
                rows = slices[k]
                part = {
                    name: np.ascontiguousarray(x[(slice(None),) * axes[name] + (rows,)])
                    if name in axes
                    else x
                    for name, x in inputs.items()
                }
                own = None if mask is None else mask[rows]
                results[k] = engine.run(part, take_rows(state, rows), own)
                advance()

        run_together([work] * min(threads, len(slices)))
    outputs = {
        name: np.concatenate([y[name] for y, _ in results], axes[name]) for name in spec.outputs
    }
    return outputs, join_states([after for _, after in results])


def _unshared(result: Result, inputs: Mapping[str, Array]) -> Result:
    """Copy outputs that share memory with inputs, states or other outputs, such as of a reshape."""
    taken = [*inputs.values(), *(a for entries in result[1].values() for a in entries.values())]
    outputs = {}
    for name, y in result[0].items():
        outputs[name] = y.copy() if any(np.may_share_memory(y, x) for x in taken) else y
        taken.append(outputs[name])
    return outputs, result[1]
