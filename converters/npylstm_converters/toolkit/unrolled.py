"""Find loops over the steps of a sequence that a trace has written out, step by step.

A trace of ``for t in range(x.size(1)): h = cell(x[:, t], h)`` contains the loop's operations once
for every step. They are found again by their order: as many equal groups of calls as steps, each of
which reads its own step of the sequences, and results of the group before.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from npylstm import ModelSpec
from npylstm.graph.parts import Edge
from npylstm.ops.base import Operation

__all__ = ["Loop", "Place", "Source", "Steps", "find_loop", "origins"]

_FEWEST_STEPS = 3  # two equal calls may be a coincidence


class Steps(NamedTuple):
    """A sequence that a loop reads: its tensor, its time axis, the first step that is read."""

    tensor: str
    axis: int
    first: int
    keeps_axis: bool  # x[:, t : t + 1] rather than x[:, t]
    backwards: bool = False  # from the last step to the first


class Place(NamedTuple):
    """An output of a call in the loop's body: number of the call, number of the output."""

    call: int
    output: int


class Source(NamedTuple):
    """What a call of the body reads: one of these."""

    steps: int | None = None  # a step of a sequence, by its number
    constant: str | None = None  # a tensor from outside of the loop
    place: Place | None = None  # a result of the same step
    before: bool = False  # of the step before instead


@dataclass(frozen=True)
class Loop:
    """A loop.

    Attributes
    ----------
    count
        Number of steps.
    sequences
        The sequences that it reads.
    body
        The calls of every step.
    sources
        What each call of the body reads.
    initial
        The tensors that the first step reads in place of results of the step before; ``""`` for
        zeros, which a call without initial states has.
    before, after
        The calls outside of the loop.
    """

    count: int
    sequences: tuple[Steps, ...]
    body: tuple[tuple[Edge, ...], ...]
    sources: tuple[tuple[Source, ...], ...]
    initial: Mapping[Place, str]
    before: tuple[Edge, ...]
    after: tuple[Edge, ...]

    def places(self) -> dict[str, tuple[int, Place]]:
        """Return the step and the place of every tensor that the loop computes."""
        return {
            tensor: (step, Place(number, output))
            for step, calls in enumerate(self.body)
            for number, edge in enumerate(calls)
            for output, tensor in enumerate(edge.outputs)
        }


def find_loop(spec: ModelSpec) -> Loop | None:
    """Return the first loop over all steps of an input's axis; None if there is none."""
    operations = {layer.name: layer.layer for layer in spec.layers}
    groups: dict[Steps, dict[int, str]] = {}
    for edge in spec.edges:
        entry = _entry(operations[edge.layer], spec.shapes[edge.inputs[0]]) if edge.inputs else None
        if entry is not None:
            axis, index, keeps = entry
            steps = Steps(edge.inputs[0], axis, 0, keeps)
            groups.setdefault(steps, {})[index] = edge.outputs[0]
    groups = {k: v for k, v in groups.items() if origins(spec, k.tensor, k.axis)}
    sizes = dict.fromkeys(size for steps in groups if (size := _size(spec, steps)))
    for size, (first, backwards) in itertools.product(sizes, ((0, False), (0, True), (1, False))):
        chosen = {}
        for steps, entries in groups.items():
            if (_size(spec, steps) or len(entries)) == size and {*entries} >= {*range(first, size)}:
                order = {size - 1 - k: t for k, t in entries.items()} if backwards else entries
                chosen[steps._replace(first=first, backwards=backwards)] = order
        count = size - first
        if count >= _FEWEST_STEPS and any(_size(spec, steps) for steps in chosen):
            found = _Search(spec, operations, chosen, count).loop()
            if found is not None:
                return found
    return None


def origins(spec: ModelSpec, tensor: str, axis: int) -> set[tuple[str, int]]:
    """Return the axes of inputs that an axis of a tensor is parallel to."""
    makers = {name: edge for edge in spec.edges for name in edge.outputs}
    found, todo = set(), [(tensor, axis)]
    for name, place in todo:  # grows while it is walked
        edge = makers.get(name)
        if edge is None:
            found.add((name, place))
            continue
        maps = spec[edge.layer].layer.axis_map([spec.shapes[t] for t in edge.inputs])
        sources = maps[edge.outputs.index(name)].sources[place]
        todo += [(edge.inputs[k], a) for k, a in sources if (edge.inputs[k], a) not in todo]
    return found


def _size(spec: ModelSpec, steps: Steps) -> int:
    """Return the number of steps; 0 if it is free."""
    size = spec.shapes[steps.tensor][steps.axis]
    return size if isinstance(size, int) else 0


def _entry(operation: Operation, shape: Sequence[int | str]) -> tuple[int, int, bool] | None:
    """Return axis and index of the entry that an operation takes, and whether it keeps the axis."""
    config = operation.to_json()
    if operation.kind == "select":
        size, index = shape[config["axis"]], config["index"]
        if isinstance(size, int):
            return config["axis"], index % size, False
        return (config["axis"], index, False) if index >= 0 else None
    if operation.kind == "slice" and config["step"] == 1 and isinstance(config["start"], int):
        size, start, stop = shape[config["axis"]], config["start"], config["stop"]
        if isinstance(size, int) and len(range(size)[start:stop]) == 1:
            return config["axis"], range(size)[start:stop][0], True
        if isinstance(size, str) and start >= 0 and stop == start + 1:
            return config["axis"], start, True
    return None


class _Search:
    """The calls of a spec, of which some are the steps of a loop."""

    def __init__(
        self, spec: ModelSpec, operations: Mapping[str, Operation],
        groups: Mapping[Steps, Mapping[int, str]], count: int,
    ) -> None:  # fmt: skip
        self._operations, self._count, self._groups = operations, count, tuple(groups)
        self._weighted = {layer.name for layer in spec.layers if layer.weights}
        self._taken = {
            tensor: (number, index - steps.first)
            for number, (steps, entries) in enumerate(groups.items())
            for index, tensor in entries.items() if index >= steps.first
        }  # fmt: skip
        self._same: dict[str, str] = {}  # equal tensors from outside of the loop
        self._before: list[Edge] = []
        self._inside: list[Edge] = []
        known: dict[object, tuple[str, ...]] = {}
        dependent = set(self._taken)
        for edge in spec.edges:
            if edge.outputs[0] in self._taken:
                continue
            if dependent.isdisjoint(edge.inputs):
                self._before.append(edge)
                key = self._key(edge.layer), tuple(map(self._canonical, edge.inputs))
                first = known.setdefault(key, edge.outputs)
                self._same |= dict(zip(edge.outputs, first, strict=False))
            else:
                self._inside.append(edge)
                dependent.update(edge.outputs)

    def _key(self, layer: str) -> object:
        return layer if layer in self._weighted else self._operations[layer]

    def _canonical(self, tensor: str) -> str:
        return self._same.get(tensor, tensor)

    def loop(self) -> Loop | None:
        """Return the loop with the largest body, if there is one."""
        steps = self._count - 1  # all but the first, some calls of which may be outside
        for size in range(len(self._inside) // steps, 0, -1):
            for start in range(max(0, len(self._inside) - steps * size) + 1):
                if start > size:
                    break
                calls = [
                    tuple(self._inside[start + k * size : start + (k + 1) * size])
                    for k in range(steps)
                ]
                found = self._match(calls, start)
                if found is not None:
                    return found
        return None

    def _match(self, calls: list[tuple[Edge, ...]], start: int) -> Loop | None:
        """Return the loop of these calls, which are those of all steps but the first."""
        keys = [self._key(edge.layer) for edge in calls[0]]
        if any([self._key(edge.layer) for edge in edges] != keys for edges in calls[1:]):
            return None
        places = {
            tensor: (step, Place(number, output))
            for step, edges in enumerate(calls, 1)
            for number, edge in enumerate(edges)
            for output, tensor in enumerate(edge.outputs)
        }

        def source(tensor: str, step: int) -> Source | None:
            if tensor in self._taken:
                number, index = self._taken[tensor]
                return Source(steps=number) if index == step else None
            if tensor not in places:
                return Source(constant=self._canonical(tensor))
            made, place = places[tensor]
            return Source(place=place, before=made < step) if step - made in (0, 1) else None

        rows = [[[source(t, k) for t in edge.inputs] for edge in edges]
                for k, edges in enumerate(calls, 1)]  # fmt: skip
        if any(row != rows[1] for row in rows[2:]) or any(None in line for line in rows[1]):
            return None
        pattern = tuple(tuple(s for s in line if s is not None) for line in rows[1])
        first = _FirstStep(self._key, self._canonical, self._taken, pattern)
        # What step 1 reads in place of a result of step 1 is a result of step 0.
        for edge, line, wanted in zip(calls[0], rows[0], pattern, strict=True):
            if len(line) != len(wanted):
                return None
            for tensor, found, expected in zip(edge.inputs, line, wanted, strict=True):
                if found == expected:
                    continue
                if not expected.before or expected.place is None or found is None:
                    return None
                first.results[expected.place] = tensor
        earlier = [*self._before, *self._inside[:start]]
        body = first.calls(calls[0], earlier)
        if body is None or {id(e) for e in self._inside[:start]} - {id(e) for e in body}:
            return None
        inside = {id(edge) for edge in body}
        return Loop(
            self._count, self._groups, (body, *calls), pattern, first.initial,
            tuple(edge for edge in self._before if id(edge) not in inside),
            tuple(self._inside[start + len(calls) * len(calls[0]) :]),
        )  # fmt: skip


class _FirstStep:
    """The calls of the first step: some read only initial values, and so come before the loop."""

    def __init__(
        self, key: Callable[[str], object], canonical: Callable[[str], str],
        taken: Mapping[str, tuple[int, int]], pattern: Sequence[Sequence[Source]],
    ) -> None:  # fmt: skip
        self._key, self._canonical, self._taken = key, canonical, taken
        self._pattern = pattern
        self.results: dict[Place, str] = {}  # of the first step
        self.initial: dict[Place, str] = {}

    def calls(self, wanted: Sequence[Edge], earlier: Sequence[Edge]) -> tuple[Edge, ...] | None:
        """Return the counterparts of another step's calls; None if there are not all."""
        makers = {tensor: edge for edge in earlier for tensor in edge.outputs}
        found: dict[int, Edge] = {}
        todo = [(place, tensor) for place, tensor in self.results.items()]
        for place, tensor in todo:  # grows while it is walked
            edge = makers.get(tensor)
            if edge is None or self._key(edge.layer) != self._key(wanted[place.call].layer):
                return None
            if edge.outputs[place.output] != tensor or found.setdefault(place.call, edge) != edge:
                return None
            for source, name in self._pairs(place.call, edge):
                if name and source.place is not None and not source.before:
                    if self.results.setdefault(source.place, name) != name:
                        return None
                    if source.place.call not in found:
                        todo.append((source.place, name))
        for number, edge in enumerate(wanted):
            if number not in found:
                same = [e for e in earlier if self._fits(number, edge, e, found)]
                if not same:
                    return None
                found[number] = same[-1]
            self.results |= {Place(number, k): t for k, t in enumerate(found[number].outputs)}
        for number, edge in found.items():
            for source, tensor in self._pairs(number, edge):
                if not self._reads(source, tensor, bind=True):
                    return None
        return tuple(found[k] for k in range(len(wanted)))

    def _fits(self, number: int, wanted: Edge, edge: Edge, found: Mapping[int, Edge]) -> bool:
        if self._key(edge.layer) != self._key(wanted.layer) or edge in found.values():
            return False
        return all(self._reads(*pair) for pair in self._pairs(number, edge))

    def _pairs(self, number: int, edge: Edge) -> list[tuple[Source, str]]:
        """Return what a call should read, and what it reads; an initial state may be missing."""
        missing = len(self._pattern[number]) - len(edge.inputs)
        return [*zip(self._pattern[number], (*edge.inputs, *[""] * missing), strict=False)]

    def _reads(self, source: Source, tensor: str, bind: bool = False) -> bool:
        if not tensor and not source.before:
            return False
        if source.steps is not None:
            return self._taken.get(tensor) == (source.steps, 0)
        if source.constant is not None:
            return self._canonical(tensor) == source.constant
        assert source.place is not None
        if not source.before:
            return self.results.get(source.place) == tensor
        if tensor in self._taken:
            return False
        known = self.initial.get(source.place)
        if bind and known is None:
            self.initial[source.place] = tensor
            return True
        return known is None or self._canonical(known) == self._canonical(tensor)
