"""Parts of models, and models for any number of steps."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from npylstm.errors import FormatError, UnsupportedError
from npylstm.graph.parts import Edge, TensorSpec
from npylstm.ops.shapes import STEPS, format_shape, resize_axis

if TYPE_CHECKING:
    from npylstm.spec import ModelSpec

__all__ = ["subgraph", "with_free_steps"]


def subgraph(spec: ModelSpec, inputs: Sequence[str], outputs: Sequence[str]) -> ModelSpec:
    """Return a part of a model; see :meth:`npylstm.spec.ModelSpec.subgraph`."""
    unknown = [t for t in (*inputs, *outputs) if t not in spec.shapes]
    if unknown:
        raise FormatError(f"no tensor {unknown[0]!r}, the model has: {', '.join(spec.shapes)}")
    makers = {t: edge for edge in spec.edges for t in edge.outputs}
    needed: set[Edge] = set()
    read: set[str] = set()
    todo = [(t, t) for t in outputs]
    while todo:
        tensor, target = todo.pop()
        read.add(tensor)
        if tensor in inputs:
            continue
        if tensor not in makers:
            raise FormatError(f"output {target!r} needs input {tensor!r}; give it, or cut later")
        if makers[tensor] not in needed:
            needed.add(makers[tensor])
            todo += [(t, target) for t in makers[tensor].inputs]
    idle = [t for t in inputs if t not in read]
    if idle:
        raise FormatError(f"input {idle[0]!r}: none of the outputs {list(outputs)} needs it")
    called = {edge.layer for edge in needed}
    integer = {t.name for t in spec.inputs if t.integer}
    cut = replace(
        spec,
        layers=tuple(layer for layer in spec.layers if layer.name in called),
        edges=tuple(edge for edge in spec.edges if edge in needed),
        inputs=tuple(TensorSpec(t, spec.shapes[t], t in integer) for t in inputs),
        outputs=tuple(outputs),
        cases=(),
        state_pairs=tuple(
            pair for pair in spec.state_pairs if pair[0] in inputs and pair[1] in outputs
        ),
    )
    if not spec.fixed_steps:
        with contextlib.suppress(UnsupportedError):
            return cut.with_free_steps()
    return cut


def with_free_steps(spec: ModelSpec) -> ModelSpec:
    """Free the steps of a model; see :meth:`npylstm.spec.ModelSpec.with_free_steps`."""
    if traced := spec.fixed_steps:
        raise UnsupportedError(
            [f"the steps of {name} cannot be free: {why}" for name, why in traced.items()]
        )
    taken: dict[Any, str] = {}

    def free(tensor: TensorSpec, alike: bool) -> TensorSpec:
        axis = tensor.time_axis
        if axis is None or not isinstance(tensor.shape[axis], int):
            return tensor
        key = tensor.shape[axis] if alike else tensor.name
        symbol = taken.setdefault(key, f"{STEPS}_{len(taken) + 1}" if taken else STEPS)
        return replace(tensor, shape=resize_axis(tensor.shape, axis, symbol))

    bare, reason = spec.with_cases(()), ""
    for alike in (False, True):  # second try: one symbol for all equal sizes
        taken.clear()
        inputs = tuple(free(t, alike) for t in spec.inputs)
        try:
            return replace(bare, inputs=inputs)
        except FormatError as error:
            reason = reason or str(error)
    fixed = [f"{t.name} {format_shape(t.shape)}" for t in spec.inputs if free(t, False) != t]
    raise UnsupportedError(f"the steps of {', '.join(fixed)} cannot be free: {reason}")
