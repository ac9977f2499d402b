"""Loops of TensorFlow that run once for each step of a sequence, as the operator Loop."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from npylstm_converters.errors import Refusal
from npylstm_converters.tensorflow.graph_def import Function, Node, node_of
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
        """Whether a value is the number of the iteration: 0, 1, 2 and so on, in integers."""
        node = self._step.nodes.get(node_of(_source(self._step.nodes, self._step.results[k])))
        if node is None or node.operation not in ("Add", "AddV2"):
            return False
        a, b = (_source(self._step.nodes, reference) for reference in node.inputs)
        own = self._step.arguments[k]
        if own not in (a, b):
            return False
        start = self.call.lowering.constants.get(self.inputs[k])
        return _is_integer(start, 0) and _is_integer(self._constant(b if a == own else a), 1)

    def _constant(self, reference: str) -> Any:
        """Return the values of a constant, or of an argument that is one in every iteration."""
        if reference in self._step.arguments:
            k = self._step.arguments.index(reference)
            return self.call.lowering.constants.get(self.inputs[k]) if k in self.same else None
        node = self._step.nodes.get(node_of(reference))
        return node.attributes.get("value") if node and node.operation == "Const" else None

    def written(self, bounds: Sequence[str]) -> list[Any]:
        """Write the loop; return its values after the last iteration."""
        from onnx import helper

        lowering, name = self.call.lowering, _OWN_NAME.sub("", self.call.node.name)
        count = bounds[0] if len(bounds) == 1 else self.call.emit("Min", *bounds, part="count")
        arguments = [*self.inputs]
        for k in self.lists:
            arguments[k] = Slot(k)
        for k in self.carried:
            arguments[k] = lowering.unused(f"{name}/state{k}")
        with lowering.body() as nodes:
            results = lowering.call(self._step, arguments)
            if any(value is None for value in results):
                return [None] * len(results)
            entries = {k: results[k] for k in sorted(self.lists)}
            for k, entry in entries.items():
                if not isinstance(entry, Written) or entry.slot != arguments[k]:
                    argument = self._step.arguments[k]
                    raise Refusal(f"does not write one entry of {argument} in each step")
            going = self.call.constant(np.array(True))
            states = [results[k] for k in self.carried]
            made = [going, *states, *(entry.value for entry in entries.values())]
            outputs = [lowering.write("Identity", [tensor], f"{name}/result")[0] for tensor in made]
        head = [lowering.unused(f"{name}/{part}") for part in ("iteration", "going")]
        names = [*head, *(arguments[k] for k in self.carried)]
        graph = helper.make_graph(
            needed(nodes, outputs), name,
            [helper.make_empty_tensor_value_info(n) for n in names],
            [helper.make_empty_tensor_value_info(n) for n in outputs],
        )  # fmt: skip
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
            first = self.call.lowering.equality.first
            if any(first(bound) != first(count) for bound in bounds):
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
    for _ in nodes:  # a damaged graph may have cycles
        node = nodes.get(node_of(reference))
        if node is None or node.operation != "Identity":
            break
        reference = node.inputs[0]
    return reference


def _is_integer(array: Any, number: int) -> bool:
    """Whether an array is one number of an integer type, with this value."""
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "iu":
        return False
    return bool(array.ravel().tolist() == [number])


def _bounds(call: Any, condition: Function, loop: _Loop) -> list[str]:
    """Return the tensors that the number of the iteration has to be less than.

    Raises
    ------
    Refusal
        If the condition is anything else.
    """
    found: dict[str, str] = {}  # by the first tensor that is equal
    todo, joined = [condition.results[0]], set()
    while todo:
        node = condition.nodes.get(node_of(_source(condition.nodes, todo.pop())))
        if node is not None and node.operation == "LogicalAnd":
            todo += node.inputs if node.name not in joined else ()
            joined.add(node.name)
            continue
        if node is None or node.operation != "Less":
            raise Refusal("when it ends is no comparison of its steps with a number of them")
        counter, bound = (_source(condition.nodes, reference) for reference in node.inputs)
        places = {name: k for k, name in enumerate(condition.arguments)}
        if counter not in places or not loop.counts(places[counter]):
            raise Refusal(
                "when it ends depends on values that it computes, "
                "expected an integer that counts 0, 1, 2 and so on"
            )
        outer = _outer(call, condition, bound, places, loop)
        found.setdefault(call.lowering.equality.first(outer), outer)
    return [*found.values()]


def _outer(
    call: Any, condition: Function, bound: str, places: Mapping[str, int], loop: _Loop
) -> str:
    """Return the tensor outside the loop that a bound is."""
    if bound in places and places[bound] in loop.same:
        made: str = loop.inputs[places[bound]]
        return made
    node = condition.nodes.get(node_of(bound))
    value = node.attributes.get("value") if node and node.operation == "Const" else None
    if not isinstance(value, np.ndarray):
        raise Refusal("when it ends depends on values that it computes")
    made = call.constant(value)
    return made
