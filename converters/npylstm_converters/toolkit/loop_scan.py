"""The body of a loop as one operation, :class:`~npylstm.ops.scan.Scan`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from npylstm import ModelSpec
from npylstm.graph.builder import GraphBuilder
from npylstm.ops.base import Operation
from npylstm.ops.body import Body, Call
from npylstm.ops.indexing import Flip, Select, Slice
from npylstm.ops.scan import Scan
from npylstm.ops.shapes import BATCH
from npylstm.ops.shaping import Reshape, Transpose
from npylstm_converters.toolkit.loop_layers import Misfit, is_zero
from npylstm_converters.toolkit.unrolled import Loop, Place, Source

__all__ = ["InScan"]


class InScan:
    """The loop as one layer named ``loop``; its sequences are ``(steps, batch, ...)``."""

    def __init__(
        self, spec: ModelSpec, loop: Loop, builder: GraphBuilder, names: Mapping[str, str]
    ) -> None:
        self._spec, self._loop, self._builder = spec, loop, builder
        states = [*loop.initial]
        wanted = [place for place in self._read_outside() if place not in states]
        wanted += [p for p in self._joined() if p in states]  # every step of a state
        self._states, self._outputs = states, [*dict.fromkeys(wanted)]
        constants = [*dict.fromkeys(
            s.constant for row in loop.sources for s in row if s.constant is not None
        )]  # fmt: skip
        sequences = [self._sequence(number, names) for number in range(len(loop.sequences))]
        initial = [loop.initial[place] for place in states]
        shapes = [spec.shapes[loop.body[1][p.call].outputs[p.output]] for p in states]
        sizes = [shape[1:] for shape in shapes]
        zero = all(is_zero(spec, t) for t in initial) and all(s[:1] == (BATCH,) for s in shapes)
        zero = zero and all(isinstance(d, int) for size in sizes for d in size)
        body = self._body(constants)
        operation = Scan(
            body,
            len(sequences),
            len(states),
            tuple(sizes) if zero else (),  # type: ignore[arg-type]
        )
        if not zero and "" in initial:
            raise Misfit("has initial states of two kinds")
        given = [] if zero else [names[t] for t in initial]
        inputs = [*sequences[:1], *given, *sequences[1:], *(names[t] for t in constants)]
        self.layer = builder.unused("loop")
        made = builder.add(self.layer, operation, inputs, self._weights)
        self._made = dict(zip(self._outputs, made, strict=False))
        self._finals = dict(zip(states, made[len(self._outputs) :], strict=True))

    def _read_outside(self) -> list[Place]:
        """Return the places whose results are read after the loop."""
        places = self._loop.places()
        read = [t for edge in self._loop.after for t in edge.inputs]
        return [places[t][1] for t in (*read, *self._spec.outputs) if t in places]

    def _joined(self) -> list[Place]:
        """Return the places of which more than the last step is read after the loop."""
        places, last = self._loop.places(), self._loop.count - 1
        read = [t for edge in self._loop.after for t in edge.inputs]
        return [places[t][1] for t in read if t in places and places[t][0] != last]

    def _sequence(self, number: int, names: Mapping[str, str]) -> str:
        steps = self._loop.sequences[number]
        tensor = names[steps.tensor]
        if steps.axis:
            order = [k for k in range(len(self._builder.shapes[tensor])) if k != steps.axis]
            order.insert(0, steps.axis)
            (tensor,) = self._builder.add(f"{tensor}_steps", Transpose(tuple(order)), [tensor])
        if steps.first:
            (tensor,) = self._builder.add(f"{tensor}_rest", Slice(0, steps.first), [tensor])
        if steps.backwards:
            (tensor,) = self._builder.add(f"{tensor}_turned", Flip((0,)), [tensor])
        return tensor

    def _body(self, constants: list[str]) -> Body:
        """Return the graph of one step; collect its weights."""
        loop, spec = self._loop, self._spec
        layers: dict[str, Operation] = {}
        self._weights: dict[str, Any] = {}
        calls: list[Call] = []
        entries = []
        for number, steps in enumerate(loop.sequences):
            entries.append(f"x{number}")
            if steps.keeps_axis:
                rank = len(spec.shapes[steps.tensor]) - 1
                sizes: list[Any] = [(0, k) for k in range(rank)]
                layers[f"step{number}"] = Reshape((*sizes[: steps.axis], 1, *sizes[steps.axis :]))
                calls.append(Call(f"step{number}", (f"x{number}",), (f"step{number}",)))
                entries[-1] = f"step{number}"

        def name_of(source: Source) -> str:
            if source.steps is not None:
                return entries[source.steps]
            if source.constant is not None:
                return f"c{constants.index(source.constant)}"
            assert source.place is not None
            if source.before:
                return f"h{self._states.index(source.place)}"
            return _result(source.place)

        for number, edge in enumerate(loop.body[1]):
            layer = spec[edge.layer]
            layers[layer.name] = layer.layer
            self._weights |= {f"{layer.name}/{k}": w for k, w in layer.weights.items()}
            made = tuple(_result(Place(number, k)) for k in range(len(edge.outputs)))
            calls.append(Call(layer.name, tuple(map(name_of, loop.sources[number])), made))
        inputs = [f"x{k}" for k in range(len(loop.sequences))]
        inputs += [f"h{k}" for k in range(len(self._states))]
        inputs += [f"c{k}" for k in range(len(constants))]
        outputs = tuple(map(_result, (*self._states, *self._outputs)))
        return Body(tuple(inputs), tuple(layers.items()), tuple(calls), outputs)

    def sequence(self, place: Place, axis: int) -> str:
        """Return the results of all steps, with the steps on an axis."""
        tensor = self._made[place]
        if not axis:
            return tensor
        order = [*range(1, len(self._builder.shapes[tensor]))]
        order.insert(axis, 0)
        return self._builder.add(f"{self.layer}_moved", Transpose(tuple(order)), [tensor])[0]

    def last(self, place: Place) -> str:
        """Return the result of the last step."""
        if place in self._finals:
            return self._finals[place]
        return self._builder.add(f"{self.layer}_last", Select(0, -1), [self._made[place]])[0]

    def provenance(self, before: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the provenance, with the weights that the loop has now."""
        inside = {edge.layer for edge in self._loop.body[1]}
        outside = {edge.layer for edge in (*self._loop.before, *self._loop.after)}
        entries = [
            entry if entry["layer"] not in inside - outside else {
                **entry, "layer": self.layer,
                "weights": [f"{entry['layer']}/{w}" for w in entry["weights"]],
            }
            for entry in before.get("tensors", ())
        ]  # fmt: skip
        return {**before, "tensors": entries}


def _result(place: Place) -> str:
    return f"r{place.call}.{place.output}"
