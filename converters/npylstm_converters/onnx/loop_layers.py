"""Put a recurrent layer in the place of a loop whose body is one of its steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from npylstm.ops.indexing import Select
from npylstm.ops.shaping import Full, Reshape, Transpose
from npylstm_converters.onnx.sizes import size_of
from npylstm_converters.onnx.steps import State, StepGraph
from npylstm_converters.onnx.values import Ref
from npylstm_converters.toolkit.cells import Cell, recognise
from npylstm_converters.toolkit.masked_steps import MaskedStep, without_mask
from npylstm_converters.toolkit.step_reader import StepBody

__all__ = ["LoopLayer", "credit_sources", "shaped_initial"]


def shaped_initial(call: Any, state: State) -> Ref:
    """Return the initial value of a state, with the shape that the step gives it."""
    if call.shape(state.initial) == state.shape:
        return state.initial
    sizes = [d if isinstance(d, int) else size_of(d) for d in state.shape]
    target, sources = call.target(sizes, None)
    made: Ref = call.add(Full(target, 0.0), *sources, part="initial")
    return made


def credit_sources(call: Any, graph: StepGraph, inside: bool = False) -> None:
    """Note where the weights of the layer that was added last are from.

    ``inside`` tells that the layers of the step are parts of it.
    """
    own = call.sources.setdefault(call.builder.edges[-1].layer, {})
    for layer, sources in graph.sources.items():
        for source in sources:
            own[source] = (*own.get(source, ()), layer) if inside else ()


class LoopLayer:
    """A loop that may be a recurrent layer.

    Parameters
    ----------
    call
        The graph that the loop is in.
    graph
        Of one step.
    states
        What an iteration passes to the next.
    results
        The tensors of the step that are the new states, then the stacked outputs.
    """

    def __init__(
        self, call: Any, graph: StepGraph, states: Sequence[State], results: Sequence[str]
    ) -> None:
        self._call, self._graph, self._states, self._results = call, graph, states, results
        self._zeros: Sequence[str] = ()

    def add(
        self, names: Sequence[str], tensors: Sequence[Ref], constants: Sequence[str]
    ) -> tuple[list[Ref], list[Ref]] | None:
        """Add the layer; return the final states and the stacked outputs. None if it is none.

        Parameters
        ----------
        names, tensors
            The inputs of the step that are entries of a sequence, and the sequences: one, or one
            and a mask.
        constants
            The inputs of the step that are the same in every iteration.
        """
        if any(len(state.shape) != 2 for state in self._states):
            return None
        if any(self._graph.uniform.get(name) != 0 for name in constants):
            return None
        self._zeros = constants
        if len(names) == 1 and not constants:
            return self._plain(names[0], tensors[0])
        for k in range(2) if len(names) == 2 else ():
            made = self._masked(names[k], tensors[k], names[1 - k], tensors[1 - k])
            if made is not None:
                return made
        return None

    def _body(self, sequence: str) -> StepBody:
        builder, count = self._graph.builder, len(self._states)
        reads = [state.step_input for state in self._states]
        pairs = [*zip(reads, self._results, strict=False)]
        return StepBody(
            builder.layers, builder.edges, builder.shapes, sequence, pairs, self._results[count:]
        )

    def _plain(self, name: str, tensor: Ref) -> tuple[list[Ref], list[Ref]] | None:
        body = self._body(name)
        fits = len(self._call.shape(tensor)) == 3 and self._has_samples(tensor)
        cell = recognise(body) if fits else None
        if cell is None:
            return None
        main, *finals = self._layer(cell, range(len(self._states)), [tensor])
        count = len(self._states)
        ordered = [finals[cell.order.index(k)] for k in range(count)]
        return ordered, [main] * len(body.outputs)

    def _masked(
        self, name: str, tensor: Ref, mask_name: str, mask: Ref
    ) -> tuple[list[Ref], list[Ref]] | None:
        shape = self._call.shape(mask)
        fits = len(shape) == 2 or (len(shape) == 3 and shape[2] == 1)
        fits = fits and mask.kind == "b" and len(self._call.shape(tensor)) == 3
        if not fits or not (self._has_samples(mask) and self._has_samples(tensor)):
            return None
        body = self._body(name)
        step = without_mask(body, mask_name, self._zeros)
        cell = None if step is None else recognise(step.body)
        if step is None or cell is None or not self._starts_with_zero(step):
            return None
        operation: Any = cell.operation
        masked = replace(operation, masked=True, zero_output_for_mask=step.zeros)
        cell, by_sample = cell._replace(operation=masked), self._by_sample(mask)
        main, *finals = self._layer(cell, step.kept, [tensor], [by_sample])
        found: dict[int | None, Ref] = {
            step.kept[k]: final for k, final in zip(cell.order, finals, strict=True)
        }
        if step.before is not None:
            found[step.before] = self._call.add(Select(0, -1), main, part="last")
        return [found[k] for k in range(len(self._states))], [main] * len(body.outputs)

    def _has_samples(self, sequence: Ref) -> bool:
        """Whether each step of a sequence has as many samples as the states.

        A step of one sample, or of one mask, is for all samples; a layer has no such sequences.
        """
        return all(self._call.shape(sequence)[1] == state.shape[0] for state in self._states)

    def _starts_with_zero(self, step: MaskedStep) -> bool:
        """Whether the output before the first step is zero, as it is in a layer."""
        return (
            step.zeros
            or step.before is None
            or self._call.is_zero(self._states[step.before].initial)
        )

    def _by_sample(self, mask: Ref) -> Ref:
        """Return the mask as (batch, steps)."""
        call = self._call
        if len(call.shape(mask)) == 3:
            mask = call.add(Reshape(((0, 0), (0, 1))), mask, part="mask")
        turned: Ref = call.add(Transpose((1, 0)), mask, part="mask_by_sample")
        return turned

    def _layer(
        self, cell: Cell, kept: Sequence[int], sequence: list[Ref], mask: Sequence[Ref] = ()
    ) -> list[Ref]:
        """Add the layer, with initial states where they are not zeros."""
        states = [self._states[kept[k]] for k in cell.order]
        zero = all(self._call.is_zero(state.initial) for state in states)
        initial = [] if zero else [shaped_initial(self._call, state) for state in states]
        made: list[Ref] = self._call.layer(cell.operation, cell.weights, *sequence, *initial, *mask)
        credit_sources(self._call, self._graph)
        return made
