"""Read a step that keeps its state where a mask is zero as a step without the mask, and the rule.

Frameworks write such a loop with a choice for every state: the new value where the mask is set,
else the value before. A further state may hold the output of the step before.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

from npylstm_converters.toolkit.step_reader import StepBody, StepReader

__all__ = ["MaskedStep", "without_mask"]


class MaskedStep(NamedTuple):
    """The step as it is where the mask is set.

    Attributes
    ----------
    body
        The step without the mask and without the state that holds the output before.
    kept
        For every state of the body its number in the step with the mask.
    before
        The number of the state that is the output of the step before; None if there is none.
    zeros
        Whether the output is zero where the mask is, else that of the step before.
    """

    body: StepBody
    kept: tuple[int, ...]
    before: int | None
    zeros: bool


def without_mask(body: StepBody, mask: str, zeros: Collection[str] = ()) -> MaskedStep | None:
    """Return the step without its mask; None if the mask does anything else.

    Parameters
    ----------
    body
        The step.
    mask
        The input that is a step of the mask.
    zeros
        Inputs that are zeros in every step.
    """
    reader = _Reader(body, mask)
    computing = reader.computing()
    if reader.has_other_readers(computing):
        return None
    used = {tensor for edge in computing for tensor in edge.inputs}
    reads = [read for read, _ in body.states]
    before = [k for k, read in enumerate(reads) if read not in used]
    kept = tuple(k for k in range(len(reads)) if k not in before)
    made = {reader.source(tensor) for tensor in body.outputs}
    if len(before) > 1 or any(reader.source(body.states[k][1]) not in made for k in before):
        return None
    pairs = []
    for k in kept:
        read, new = body.states[k]
        choice = reader.choice(new)
        if choice is None or choice[1] != read:
            return None
        pairs.append((read, choice[0]))
    found = reader.outputs({reads[k] for k in before}, zeros)
    if found is None:
        return None
    outputs, is_zero = found
    inner = body._replace(edges=computing, states=pairs, outputs=outputs)
    return MaskedStep(inner, kept, before[0] if before else None, is_zero)


class _Reader(StepReader):
    """Tells what a step does with its mask."""

    def __init__(self, body: StepBody, mask: str) -> None:
        super().__init__(body)
        self._mask = mask
        self._chosen = {
            edge.outputs[0]: edge for edge in body.edges
            if body.layers[edge.layer].kind == "where" and self._is_mask(edge.inputs[0])
        }  # fmt: skip

    def _is_mask(self, tensor: str) -> bool:
        """Whether a tensor is the mask, also with other axes or repeated along the units."""
        while tensor in self.makers:
            made = self.makers[tensor]
            kind = self.body.layers[made.layer].kind
            if kind not in ("reshape", "identity", "expand") and not (
                kind == "concatenate" and len({*made.inputs}) == 1
            ):
                return False
            tensor = made.inputs[0]
        return tensor == self._mask

    def choice(self, tensor: str) -> tuple[str, str] | None:
        """Return the two tensors that the mask chooses between to make a tensor."""
        edge = self._chosen.get(self.source(tensor))
        if edge is None or len(edge.inputs) != 3:
            return None
        return self.source(edge.inputs[1]), self.source(edge.inputs[2])

    def computing(self) -> list[Any]:
        """Return the calls that do not read the mask, nor a choice that it made."""
        after: set[str] = {self._mask}
        found = []
        for edge in self.body.edges:
            if after.isdisjoint(edge.inputs):
                found.append(edge)
            else:
                after.update(edge.outputs)
        return found

    def has_other_readers(self, computing: list[Any]) -> bool:
        """Whether anything but choices of the mask reads the mask or such a choice."""
        allowed = ("reshape", "identity", "expand", "concatenate")
        independent = {id(edge) for edge in computing}
        return any(
            edge.outputs[0] not in self._chosen and self.body.layers[edge.layer].kind not in allowed
            for edge in self.body.edges
            if id(edge) not in independent
        )

    def outputs(self, before: set[str], zeros: Collection[str]) -> tuple[list[str], bool] | None:
        """Return the outputs where the mask is set, and whether they are zero where it is not.

        None if they are something else there. ``before`` is the state that holds the output before.
        """
        rules, found = set(), []
        for tensor in self.body.outputs:
            edge = self._chosen.get(self.source(tensor))
            if edge is None:
                return None
            found.append(self.source(edge.inputs[1]))
            if len(edge.inputs) == 2:  # the other one is a number
                operation: Any = self.body.layers[edge.layer].layer
                rules.add("zeros" if operation.y == 0 else "other")
                continue
            other = self.source(edge.inputs[2])
            is_zero = other in zeros or self._is_zero(other)
            rules.add("before" if other in before else "zeros" if is_zero else "other")
        if len(rules) > 1 or not rules <= {"zeros", "before"}:
            return None
        return found, rules == {"zeros"}

    def _is_zero(self, tensor: str) -> bool:
        """Whether a tensor that the step makes is zeros."""
        made = self.makers.get(tensor)
        layer = None if made is None else self.body.layers[made.layer]
        if layer is None or layer.kind not in ("constant", "full"):
            return False
        operation: Any = layer.layer
        return not layer.weights["value"].any() if layer.kind == "constant" else not operation.value
