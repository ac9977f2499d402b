"""Write an unrolled loop as layers over the whole sequence, for any number of steps.

Calls of a step that depend on the step before only through their own state are one layer each: a
recurrent layer, a dense layer, an activation. Other loops are one
:class:`~npylstm.ops.scan.Scan`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from npylstm import ModelSpec, NpylstmError
from npylstm.graph.builder import GraphBuilder
from npylstm.graph.parts import Edge
from npylstm.ops.indexing import Flip
from npylstm.ops.shapes import BATCH, STEPS, resize_axis
from npylstm.ops.shaping import Concatenate, Reshape, Stack
from npylstm_converters.toolkit.loop_layers import InLayers, Misfit
from npylstm_converters.toolkit.loop_scan import InScan
from npylstm_converters.toolkit.unrolled import Loop, find_loop, origins

__all__ = ["rolled"]

_MOST_LOOPS = 8


def rolled(spec: ModelSpec) -> ModelSpec | None:
    """Return the model with its loops over steps as layers, and their numbers of steps free.

    None if no loop is found, or if something else fixes its number of steps.
    """
    found = None
    for _ in range(_MOST_LOOPS):
        loop = find_loop(found or spec)
        made = None if loop is None else _without_loop(found or spec, loop)
        if made is None:
            break
        found = made
    return found


def _without_loop(spec: ModelSpec, loop: Loop) -> ModelSpec | None:
    for writer in (InLayers, InScan):
        try:
            return _Rewriting(spec, loop, writer).spec()
        except (NpylstmError, Misfit):
            continue
    return None


class _Rewriting:
    """A graph under construction in which a loop is written otherwise."""

    def __init__(self, spec: ModelSpec, loop: Loop, writer: Any) -> None:
        self._spec, self._loop = spec, loop
        free: set[tuple[str, int]] = set()
        for steps in loop.sequences:
            free |= origins(spec, steps.tensor, steps.axis)
        shapes = {tensor.name: tensor.shape for tensor in spec.inputs}
        used = {d for shape in shapes.values() for d in shape}
        names = (STEPS, *(f"{STEPS}_{k}" for k in range(2, 99)))
        known = sorted({d for n, a in free if isinstance(d := shapes[n][a], str)} - {BATCH})
        symbol = known[0] if known else next(s for s in names if s not in used)
        inputs = []
        for tensor in spec.inputs:
            for name, axis in free:
                if name == tensor.name and tensor.shape[axis] != BATCH:
                    tensor = replace(tensor, shape=resize_axis(tensor.shape, axis, symbol))
            inputs.append(tensor)
        self.builder = GraphBuilder(inputs, spec.dtype)
        self.names = {tensor.name: tensor.name for tensor in inputs}
        for edge in loop.before:
            self._copy(edge)
        self._written = writer(spec, loop, self.builder, self.names)

    def _copy(self, edge: Edge) -> None:
        if any(t not in self.names for t in edge.inputs):
            raise Misfit("reads a step between")
        made = self.builder.call(self._spec[edge.layer], [self.names[t] for t in edge.inputs])
        self.names |= dict(zip(edge.outputs, made, strict=True))

    def spec(self) -> ModelSpec:
        """Return the finished model."""
        loop, spec, builder = self._loop, self._spec, self.builder
        places = loop.places()
        for edge in loop.after:
            if not any(t in places for t in edge.inputs):
                self._copy(edge)
            elif not self._join(edge):
                for tensor in edge.inputs:
                    self._last(tensor)
                self._copy(edge)
        for tensor in spec.outputs:
            self._last(tensor)
        names = builder.simplify(builder.finish([self.names[t] for t in spec.outputs]))
        layers = tuple(builder.layers.values())
        return replace(
            spec, layers=layers, edges=tuple(builder.edges), inputs=builder.inputs, outputs=names,
            provenance=self._written.provenance(spec.provenance), cases=(),
        )  # fmt: skip

    def _last(self, tensor: str) -> None:
        """Make a result of the last step available under its name."""
        found = self._loop.places().get(tensor)
        if found is None or tensor in self.names:
            return
        step, place = found
        if step != self._loop.count - 1:
            raise Misfit("reads a step between")
        self.names[tensor] = self._written.last(place)

    def _join(self, edge: Edge) -> bool:
        """Write a stack of the results of all steps; return whether the call is one."""
        places, loop = self._loop.places(), self._loop
        layer = self._spec[edge.layer].layer
        config = layer.to_json()
        if layer.kind not in ("stack", "concatenate") or config.get("times", 1) != 1:
            return False
        more = len(edge.inputs) - loop.count
        if more < 0:
            return False
        prefix, rest = edge.inputs[:more], [places.get(t) for t in edge.inputs[more:]]
        if any(t in places for t in prefix) or None in rest:
            return False
        found = [pair for pair in rest if pair is not None]
        order = [step for step, _ in found]
        forwards = order == [*range(loop.count)]
        if not (forwards or order == [*range(loop.count)][::-1]) or len({p for _, p in found}) > 1:
            return False
        shape = self._spec.shapes[edge.inputs[-1]]
        axis = config["axis"] % (len(shape) + (layer.kind == "stack"))
        made = self._written.sequence(found[0][1], axis)
        if not forwards:
            (made,) = self.builder.add(f"{edge.layer}_turned", Flip((axis,)), [made])
        if layer.kind == "concatenate":
            sizes: list[Any] = [(0, k) for k in range(len(shape) + 1)]
            merged = (*sizes[:axis], *(sizes[axis : axis + 1] if shape[axis] == 1 else (-1,)))
            (made,) = self.builder.add(
                f"{edge.layer}_merged", Reshape((*merged, *sizes[axis + 2 :])), [made]
            )
        if prefix:
            first = self._prefix(edge.layer, layer.kind, [self.names[t] for t in prefix], axis)
            (made,) = self.builder.add(edge.layer, Concatenate(axis), [first, made])
        self.names[edge.outputs[0]] = made
        return True

    def _prefix(self, name: str, kind: str, tensors: Sequence[str], axis: int) -> str:
        operation = Stack(axis) if kind == "stack" else Concatenate(axis)
        return self.builder.add(f"{name}_first", operation, tensors)[0]
