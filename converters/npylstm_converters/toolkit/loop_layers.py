"""The body of a loop as layers over sequences ``(batch, steps, ...)``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from npylstm import ModelSpec
from npylstm.graph.builder import GraphBuilder
from npylstm.graph.parts import Edge, LayerSpec
from npylstm.ops.indexing import Flip, Select, Slice
from npylstm.ops.shapes import BATCH
from npylstm.ops.shaping import Concatenate, Reshape, Transpose
from npylstm_converters.toolkit.unrolled import Loop, Place, Source

__all__ = ["InLayers", "Misfit", "is_zero"]

# Operations that compute each step alone, on the last axis or element by element.
_STEP_BY_STEP = ("dense", "activation", "arithmetic", "identity", "rescaling", "embedding")


class Misfit(Exception):
    """A loop cannot be written in this form."""


class InLayers:
    """The loop's calls, each of which becomes one call over all steps.

    Raises
    ------
    Misfit
        If a call depends on the step before otherwise than a recurrent layer does.
    """

    def __init__(
        self, spec: ModelSpec, loop: Loop, builder: GraphBuilder, names: Mapping[str, str]
    ) -> None:
        self._spec, self._loop, self._builder, self._names = spec, loop, builder, names
        self._whole: dict[Place, str] = {}  # of results (batch, ...): (batch, steps, ...)
        self._flat: set[Place] = set()  # of these the results (batch, 1, ...)
        self._finals: dict[Place, str] = {}
        self._inputs = [self._sequence(number) for number in range(len(loop.sequences))]
        for number, edge in enumerate(loop.body[1]):
            self._add(number, edge)

    def _sequence(self, number: int) -> str:
        steps = self._loop.sequences[number]
        tensor = self._names[steps.tensor]
        rank = len(self._builder.shapes[tensor])
        if steps.axis != 1:
            order = [k for k in range(rank) if k != steps.axis]
            order.insert(1, steps.axis)
            (tensor,) = self._builder.add(f"{tensor}_steps", Transpose(tuple(order)), [tensor])
        if self._builder.shapes[tensor][0] != BATCH:
            raise Misfit("its first axis is not the batch")
        if steps.first:
            (tensor,) = self._builder.add(f"{tensor}_rest", Slice(1, steps.first), [tensor])
        if steps.backwards:
            (tensor,) = self._builder.add(f"{tensor}_turned", Flip((1,)), [tensor])
        return tensor

    def _read(self, source: Source) -> tuple[str, bool] | None:
        """Return a sequence, and whether its steps have an axis of one; None for a constant."""
        if source.steps is not None:
            return self._inputs[source.steps], self._loop.sequences[source.steps].keeps_axis
        if source.constant is not None:
            return None
        if source.before or source.place not in self._whole:
            raise Misfit("reads a result of the step before")
        assert source.place is not None
        return self._whole[source.place], source.place in self._flat

    def _add(self, number: int, edge: Edge) -> None:
        layer = self._spec[edge.layer]
        sources = self._loop.sources[number]
        if layer.layer.is_recurrent:
            self._add_cell(number, layer, sources)
            return
        read = [self._read(source) for source in sources]
        shapes = [self._spec.shapes[t] for t in edge.inputs]
        made = self._spec.shapes[edge.outputs[0]]
        there = [pair for pair in read if pair is not None]
        flat = {keeps for _, keeps in there}
        place = Place(number, 0)
        if len(flat) != 1 or len(edge.outputs) != 1:
            raise Misfit("reads steps of two forms")
        kind = layer.layer.kind
        if len(read) == 1 and kind in ("reshape", "select") and shapes[0][:1] == made[:1]:
            without = tuple(d for k, d in enumerate(shapes[0]) if (k, d) != (1, 1))
            if flat == {True} and made == without:
                self._whole[place] = there[0][0]  # (batch, 1, ...) to (batch, ...)
                return
            if flat == {False} and made == (shapes[0][0], 1, *shapes[0][1:]):
                self._whole[place] = there[0][0]
                self._flat.add(place)
                return
        operation: Any = layer.layer
        if kind == "concatenate":
            rank = len(made)
            if operation.to_json()["axis"] % rank != rank - 1 or len(there) < len(read):
                raise Misfit("concatenates other axes than the last")
            layer = LayerSpec(self._builder.unused(layer.name), Concatenate(-1), {})
        elif kind not in _STEP_BY_STEP:
            raise Misfit(f"computes {kind}")
        tensors = []
        for source, pair, shape in zip(sources, read, shapes, strict=True):
            if pair is None and len(shape) > 1:
                raise Misfit("reads a tensor with samples")
            tensors.append(self._names[source.constant or ""] if pair is None else pair[0])
        (self._whole[place],) = self._builder.call(layer, tensors)
        if flat == {True}:
            self._flat.add(place)

    def _add_cell(self, number: int, layer: LayerSpec, sources: tuple[Source, ...]) -> None:
        operation = layer.layer
        config = operation.to_json()
        read = self._read(sources[0])
        own = [Place(number, 1 + k) for k in range(len(sources) - 1)]
        if (
            read is None or not read[1] or config.get("time_major") or config.get("go_backwards")
            or not config.get("return_sequences") or not config.get("return_state")
            or [s.place for s in sources[1:]] != own or not all(s.before for s in sources[1:])
            or len(own) != len(operation.state_shapes())
        ):  # fmt: skip
            raise Misfit("is no cell with a state of its own")
        initial = [self._loop.initial[place] for place in own]
        zero = all(is_zero(self._spec, tensor) for tensor in initial)
        given = [] if zero else [self._names[t] for t in initial]
        main, *states = self._builder.call(layer, [read[0], *given])
        self._whole |= {Place(number, 0): main, own[0]: main}
        self._flat.add(Place(number, 0))
        self._finals |= dict(zip(own, states, strict=True))

    def sequence(self, place: Place, axis: int) -> str:
        """Return the results of all steps, with the steps on an axis."""
        if place not in self._whole:
            raise Misfit("needs every step of a cell's other state")
        tensor = self._whole[place]
        shape = self._builder.shapes[tensor]
        if place in self._flat:  # (batch, 1, ...) at every step
            sizes: list[Any] = [(0, k) for k in range(len(shape))]
            kept = (*sizes[:2], 1, *sizes[2:])
            (tensor,) = self._builder.add(f"{tensor}_each", Reshape(kept), [tensor])
        if axis == 1:
            return tensor
        order = [k for k in range(len(self._builder.shapes[tensor])) if k != 1]
        order.insert(axis, 1)
        return self._builder.add(f"{tensor}_moved", Transpose(tuple(order)), [tensor])[0]

    def last(self, place: Place) -> str:
        """Return the result of the last step."""
        if place in self._finals:
            return self._finals[place]
        if place not in self._whole:
            raise Misfit("reads another state")
        tensor = self._whole[place]
        operation = Slice(1, -1) if place in self._flat else Select(1, -1)
        return self._builder.add(f"{tensor}_last", operation, [tensor])[0]

    def provenance(self, before: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the provenance: every layer has its own name."""
        return before


def is_zero(spec: ModelSpec, tensor: str) -> bool:
    """Whether an initial tensor is zeros."""
    if not tensor:
        return True
    edges = [edge for edge in spec.edges if tensor in edge.outputs]
    return bool(edges) and all(
        spec[e.layer].layer.kind == "full" and spec[e.layer].layer.to_json()["value"] == 0
        for e in edges
    )
