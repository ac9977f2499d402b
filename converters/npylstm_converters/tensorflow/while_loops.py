"""Loops of TensorFlow that run once for each step of a sequence, as the operator Loop."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from npylstm_converters.errors import Refusal
from npylstm_converters.tensorflow.graph_def import Function, Node
from npylstm_converters.tensorflow.lists import Reserved, Slot, Stacked, Written
from npylstm_converters.tensorflow.lowering import needed

__all__ = ["while_"]

_OWN_NAME = re.compile(r"(?<=.)/while(_[0-9]+)?$")  # of a loop in the scope of a layer


def while_(call: Any, inputs: Sequence[Any], *, cond: str, body: str) -> list[Any]:
    """Write a loop whose end is a number of steps.

    A value of the loop is the same in every iteration, a list that the loop writes one entry of in
    each, or a state.
    """
    lowering = call.lowering
    step, condition = lowering.function(body), lowering.function(cond)
    if not len(inputs) == len(step.arguments) == len(step.results) == len(condition.arguments):
        raise Refusal("its condition and its body have other numbers of arguments")
    loop = _Loop(call, step, inputs)
    bounds = _bounds(call, condition, loop)
    return loop.written(bounds)


class _Loop:
    """The values of a loop by their numbers."""

    def __init__(self, call: Any, step: Function, inputs: Sequence[Any]) -> None:
        self.call, self._step, self.inputs = call, step, inputs
        found = [_source(step.nodes, reference) for reference in step.results]
        numbers = range(len(inputs))
        self.same = {k for k in numbers if found[k] == step.arguments[k]}
        self.lists = {k for k in numbers if k not in self.same and isinstance(inputs[k], Reserved)}
        self.carried = [k for k in numbers if k not in self.same and k not in self.lists]
        for k in self.carried:
            if not isinstance(inputs[k], str):
                raise Refusal(f"changes {step.arguments[k]}, which is no tensor")

    def counts(self, k: int) -> bool:
        """Whether a value is the number of the iteration: 0, 1, 2 and so on."""
        start = self.call.lowering.constants.get(self.inputs[k])
        name = _source(self._step.nodes, self._step.results[k])
        node = self._step.nodes.get(name.partition(":")[0])
        if start is None or np.size(start) != 1 or int(np.ravel(start)[0]) or node is None:
            return False
        if node.operation not in ("Add", "AddV2"):
            return False
        a, b = (_source(self._step.nodes, reference) for reference in node.inputs)
        own = self._step.arguments[k]
        other = b if a == own else a if b == own else ""
        added = self._step.nodes.get(other.partition(":")[0])
        value = added.attributes.get("value") if added and added.operation == "Const" else None
        return isinstance(value, np.ndarray) and value.size == 1 and int(value.ravel()[0]) == 1

    def written(self, bounds: Sequence[str]) -> list[Any]:
        """Write the loop; return its values after the last iteration."""
        from onnx import helper

        lowering, name = self.call.lowering, _OWN_NAME.sub("", self.call.node.name)
        count = bounds[0] if len(bounds) == 1 else self.call.emit("Min", *bounds, part="count")
        outer, lowering.nodes = lowering.nodes, []
        arguments = [*self.inputs]
        for k in self.lists:
            arguments[k] = Slot(k)
        for k in self.carried:
            arguments[k] = lowering.unused(f"{name}/state{k}")
        results = lowering.call(self._step, arguments)
        if any(value is None for value in results):
            lowering.nodes = outer
            return [None] * len(results)
        entries = {k: results[k] for k in sorted(self.lists)}
        for k, entry in entries.items():
            if not isinstance(entry, Written) or entry.slot != arguments[k]:
                raise Refusal(f"does not write one entry of {self._step.arguments[k]} in each step")
        going = self.call.constant(np.array(True))
        made = [going, *(results[k] for k in self.carried), *(e.value for e in entries.values())]
        outputs = [lowering.write("Identity", [tensor], f"{name}/result")[0] for tensor in made]
        head = [lowering.unused(f"{name}/{part}") for part in ("iteration", "going")]
        names = [*head, *(arguments[k] for k in self.carried)]
        graph = helper.make_graph(
            needed(lowering.nodes, outputs), name,
            [helper.make_empty_tensor_value_info(n) for n in names],
            [helper.make_empty_tensor_value_info(n) for n in outputs],
        )  # fmt: skip
        lowering.nodes = outer
        initial = [self.inputs[k] for k in self.carried]
        final = lowering.write(
            "Loop", [count, going, *initial], name, len(initial) + len(entries), body=graph
        )
        values = [*self.inputs]
        for k, tensor in zip([*self.carried, *entries], final, strict=True):
            values[k] = tensor
        for k, entry in entries.items():
            values[k] = self._filled(values[k], entry, arguments, self.inputs[k].count, bounds)
        return values

    def _filled(
        self, stacked: str, entry: Written, arguments: Sequence[Any], count: str,
        bounds: Sequence[str],
    ) -> Stacked:  # fmt: skip
        """Return the list after the loop: of every entry, or of one that each step replaces."""
        counters = [arguments[k] for k in self.carried if self.counts(k)]
        if entry.index in counters:
            if not all(_is_same(self.call, count, bound) for bound in bounds):
                raise Refusal("fills a list whose length may not be the number of its steps")
            return Stacked(stacked)
        constants = self.call.lowering.constants
        index, length = constants.get(entry.index), constants.get(count)
        if index is None or length is None or int(index) != 0 or int(length) != 1:
            raise Refusal("writes entries of a list in another order than one after another")
        last = self.call.emit("Gather", stacked, self.call.integers([-1]), part="last", axis=0)
        self.call.lowering.last_of[last] = stacked
        return Stacked(last)


def _source(nodes: Mapping[str, Node], reference: str) -> str:
    """Return the tensor that a tensor is the same as: what Identity passes on."""
    node = nodes.get(reference.partition(":")[0])
    while node is not None and node.operation == "Identity":
        reference = node.inputs[0]
        node = nodes.get(reference.partition(":")[0])
    return reference


def _bounds(call: Any, condition: Function, loop: _Loop) -> list[str]:
    """Return the tensors that the number of the iteration has to be less than.

    Raises
    ------
    Refusal
        If the condition is anything else.
    """
    found: list[str] = []
    todo = [condition.results[0]]
    while todo:
        node = condition.nodes.get(_source(condition.nodes, todo.pop()).partition(":")[0])
        if node is not None and node.operation == "LogicalAnd":
            todo += node.inputs
            continue
        if node is None or node.operation != "Less":
            raise Refusal("when it ends is no comparison of its steps with a number of them")
        counter, bound = (_source(condition.nodes, reference) for reference in node.inputs)
        places = {name: k for k, name in enumerate(condition.arguments)}
        if counter not in places or not loop.counts(places[counter]):
            raise Refusal("when it ends depends on values that it computes")
        found.append(_outer(call, condition, bound, places, loop))
    return [bound for k, bound in enumerate(found)
            if not any(_is_same(call, bound, other) for other in found[:k])]  # fmt: skip


def _outer(
    call: Any, condition: Function, bound: str, places: Mapping[str, int], loop: _Loop
) -> str:
    """Return the tensor outside the loop that a bound is."""
    if bound in places and places[bound] in loop.same:
        made: str = loop.inputs[places[bound]]
        return made
    node = condition.nodes.get(bound.partition(":")[0])
    value = node.attributes.get("value") if node and node.operation == "Const" else None
    if not isinstance(value, np.ndarray):
        raise Refusal("when it ends depends on values that it computes")
    made = call.constant(value)
    return made


def _is_same(call: Any, a: str, b: str) -> bool:
    """Whether two numbers are the same tensor, or equal constants."""
    constants = call.lowering.constants
    if a in constants and b in constants:
        return bool(np.array_equal(constants[a], constants[b]))
    return a == b
