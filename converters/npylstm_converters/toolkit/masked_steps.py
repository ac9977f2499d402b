"""Read a step that keeps its state where a mask is zero as a step without the mask, and the rule.

Frameworks write such a loop with a choice for every state: the new value where the mask is set,
else the value before. A further state may hold the output of the step before.
"""

from __future__ import annotations

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
        The number of the state that holds the output before; None if there is none.
    zeros
        Whether the output is zero where the mask is, else that of the step before.
    """

    body: StepBody
    kept: tuple[int, ...]
    before: int | None
    zeros: bool


class _Choice(NamedTuple):
    """A tensor that is one of two, as the mask says."""

    where_set: str
    otherwise: str


def without_mask(body: StepBody, mask: str) -> MaskedStep | None:
    """Return the step without its mask; None if the mask does anything else.

    Parameters
    ----------
    body
        The step.
    mask
        The input that is a step of the mask.
    """
    reader = _Reader(body, mask)
    choices = [reader.choice(new) for _, new in body.states]
    if any(choice is None for choice in choices) or reader.has_other_readers():
        return None
    news = [choice for choice in choices if choice is not None]
    reads = [read for read, _ in body.states]
    if any(new.otherwise != read for new, read in zip(news, reads, strict=True)):
        return None
    used = {t for edge in reader.computing() for t in edge.inputs}
    before = [k for k, read in enumerate(reads) if read not in used]
    if len(before) > 1:
        return None
    kept = tuple(k for k in range(len(reads)) if k not in before)
    pairs = [(reads[k], news[k].where_set) for k in kept]
    outputs, zeros = reader.outputs([reads[k] for k in before])
    if outputs is None or any(news[k].where_set not in outputs for k in before):
        return None
    inner = body._replace(edges=reader.computing(), states=pairs, outputs=outputs)
    return MaskedStep(inner, kept, before[0] if before else None, zeros)


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

    def choice(self, tensor: str) -> _Choice | None:
        """Return what the mask chooses between to make a tensor."""
        edge = self._chosen.get(self.source(tensor))
        if edge is None or len(edge.inputs) != 3:
            return None
        return _Choice(self.source(edge.inputs[1]), self.source(edge.inputs[2]))

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

    def has_other_readers(self) -> bool:
        """Whether anything but choices of the mask reads the mask or such a choice."""
        allowed = ("reshape", "identity", "expand", "concatenate")
        independent = {id(edge) for edge in self.computing()}
        return any(
            edge.outputs[0] not in self._chosen and self.body.layers[edge.layer].kind not in allowed
            for edge in self.body.edges
            if id(edge) not in independent
        )

    def outputs(self, before: list[str]) -> tuple[list[str] | None, bool]:
        """Return the outputs where the mask is set, and whether they are zero where it is not.

        None if they are something else there. ``before`` is the state that holds the output before.
        """
        rules = set()
        found = []
        for tensor in self.body.outputs:
            edge = self._chosen.get(self.source(tensor))
            if edge is None:
                return None, False
            new = self.source(edge.inputs[1])
            if len(edge.inputs) == 2:  # the other one is a number
                operation: Any = self.body.layers[edge.layer].layer
                rules.add("zeros" if operation.y == 0 else "other")
            else:
                other = self.source(edge.inputs[2])
                rules.add("before" if other in before else self._constant_rule(other))
            found.append(new)
        if len(rules) > 1 or not rules <= {"zeros", "before"}:
            return None, False
        return found, rules == {"zeros"}

    def _constant_rule(self, tensor: str) -> str:
        made = self.makers.get(tensor)
        layer = None if made is None else self.body.layers[made.layer]
        if layer is not None and layer.kind == "constant" and not layer.weights["value"].any():
            return "zeros"
        if layer is not None and layer.kind == "full":
            operation: Any = layer.layer
            return "zeros" if operation.value == 0 else "other"
        return "other"
