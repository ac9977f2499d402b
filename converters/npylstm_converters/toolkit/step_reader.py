"""Read the graph of one step of a loop as gates: activations of sums of products."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from npylstm.activations import Activation
from npylstm.arrays import Array
from npylstm.ops.shapes import Shape
from npylstm.spec import Edge, LayerSpec

__all__ = ["Affine", "Gate", "StepBody", "StepReader"]


# Operations that move elements, at places that do not depend on the elements; and constants.
_MOVING = ("concatenate", "constant", "expand", "full", "identity", "reshape", "select", "slice",
           "stack", "transpose")  # fmt: skip


class StepBody(NamedTuple):
    """The graph of one step.

    Attributes
    ----------
    layers, edges, shapes
        As of a graph builder.
    sequence
        The input that is a step of the sequence.
    states
        For every state the input, and the tensor that is its new value.
    outputs
        The outputs of the step, which must be the hidden state.
    """

    layers: Mapping[str, LayerSpec]
    edges: Sequence[Edge]
    shapes: Mapping[str, Shape]
    sequence: str
    states: Sequence[tuple[str, str]]
    outputs: Sequence[str] = ()


class Affine(NamedTuple):
    """A sum of products ``leaf @ matrix`` (None: the leaf itself), and a bias."""

    terms: dict[str, Array | None]
    bias: Array | None


class Gate(NamedTuple):
    """A tensor that is an activation of a sum of products."""

    tensor: str
    activation: Activation
    argument: Affine


class StepReader:
    """Reads the tensors of a step as sums of products and as gates."""

    def __init__(self, body: StepBody) -> None:
        self.body = body
        self.makers = {t: edge for edge in body.edges for t in edge.outputs}

    def operation(self, tensor: str) -> Any:
        """Return the operation that makes a tensor."""
        return self.body.layers[self.makers[tensor].layer].layer

    def source(self, tensor: str) -> str:
        """Return the tensor that has the same elements in the same shape, made first."""
        shape, found = self.body.shapes[tensor], tensor
        while tensor in self.makers and self.operation(tensor).kind in ("reshape", "identity"):
            tensor = self.makers[tensor].inputs[0]
            if self.body.shapes[tensor] == shape:
                found = tensor
        return found

    def _number(self, tensor: str, operation: str) -> tuple[str, float] | None:
        """Return the tensor and the number that an arithmetic operation combines."""
        if tensor not in self.makers or self.operation(tensor).kind != "arithmetic":
            return None
        made = self.operation(tensor)
        if made.operation != operation or made.number is None:
            return None
        return self.source(self.makers[tensor].inputs[0]), made.number

    def affine(self, tensor: str) -> Affine:
        """Return a tensor as a sum of products, a leaf where it is no sum."""
        tensor = self.source(tensor)
        leaf = Affine({tensor: None}, None)
        if tensor not in self.makers:
            return leaf
        operation, inputs = self.operation(tensor), self.makers[tensor].inputs
        weights = self.body.layers[self.makers[tensor].layer].weights
        if operation.kind == "dense" and operation.activation.name == "linear":
            return Affine(self._products(inputs[0], weights["kernel"]), weights.get("bias"))
        if operation.kind == "constant":
            flat = weights["value"].reshape(-1)
            return Affine({}, flat) if flat.size == self.body.shapes[tensor][-1] else leaf
        if operation.kind == "arithmetic" and operation.operation == "add" and len(inputs) == 2:
            return _sum(self.affine(inputs[0]), self.affine(inputs[1])) or leaf
        if operation.kind == "reshape" and self._drops_ones(inputs[0], tensor):
            return self.affine(inputs[0])
        last = len(self.body.shapes[tensor]) - 1
        if operation.kind == "slice" and (operation.axis, operation.step) == (last, 1):
            columns = slice(operation.start, operation.stop)
            whole = self.affine(inputs[0])
            if all(matrix is not None for matrix in whole.terms.values()):
                return _columns(whole, columns)
        return leaf

    def _products(self, tensor: str, kernel: Array) -> dict[str, Array | None]:
        """Return ``tensor @ kernel`` as a sum of products, one for each part of the tensor."""
        tensor = self.source(tensor)
        made = self.makers.get(tensor)
        last = len(self.body.shapes[tensor]) - 1
        if made is None or self.operation(tensor).kind != "concatenate":
            return {tensor: kernel}
        parts = [self.source(t) for t in made.inputs]
        if self.operation(tensor).axis not in (last, -1) or len({*parts}) < len(parts):
            return {tensor: kernel}
        ends = np.cumsum([self.body.shapes[part][-1] for part in parts])
        return dict(zip(parts, np.split(kernel, ends[:-1]), strict=True))

    def _drops_ones(self, before: str, after: str) -> bool:
        """Whether a reshape removes axes of size one in front, which broadcasting adds again."""
        old, new = self.body.shapes[before], self.body.shapes[after]
        missing = len(old) - len(new)
        return missing > 0 and old[missing:] == new and all(d == 1 for d in old[:missing])

    def _activated(self, tensor: str) -> tuple[Activation, str] | None:
        """Return the activation that makes a tensor, and its argument."""
        if tensor not in self.makers:
            return None
        operation = self.operation(tensor)
        if operation.kind == "activation" and operation.activation.name != "clip":
            return operation.activation, self.makers[tensor].inputs[0]
        return self._hard_sigmoid(tensor)

    def _hard_sigmoid(self, tensor: str) -> tuple[Activation, str] | None:
        """Recognise ``min(max(alpha x + beta, 0), 1)``."""
        upper, lower = self._number(tensor, "minimum"), self._number(tensor, "maximum")
        if upper is not None and upper[1] == 1:
            inside = self._number(upper[0], "maximum")
            limits = inside is not None and inside[1] == 0
        elif lower is not None and lower[1] == 0:
            inside = self._number(lower[0], "minimum")
            limits = inside is not None and inside[1] == 1
        else:
            operation = self.operation(tensor)
            if operation.kind != "activation" or operation.activation.params != (0.0, 1.0):
                return None
            inside, limits = (self.source(self.makers[tensor].inputs[0]), 0.0), True
        if inside is None or not limits:
            return None
        shifted = self._number(inside[0], "add")
        scaled = self._number(shifted[0], "multiply") if shifted is not None else None
        if shifted is None or scaled is None:
            return None
        alpha, beta = scaled[1], shifted[1]
        fifth = np.float32(alpha) == np.float32(0.2) and beta == 0.5
        named = Activation.of("hard_sigmoid", alpha=alpha, beta=beta)
        return (Activation("hard_sigmoid_fifth") if fifth else named), scaled[0]

    def gates(self) -> Iterator[Gate]:
        """Yield the gates that the new states or the outputs are computed from."""
        needed = self._behind([*(new for _, new in self.body.states), *self.body.outputs])
        for edge in self.body.edges:
            made = self._activated(edge.outputs[0]) if edge.outputs[0] in needed else None
            if made is not None:
                yield Gate(edge.outputs[0], made[0], self.affine(made[1]))

    def _behind(self, tensors: Sequence[str], ends: Mapping[str, str] = {}) -> set[str]:
        """Return all tensors that some are computed from, and these themselves.

        A tensor of ``ends`` is computed from the one that it has there, whatever is between them.
        """
        found: set[str] = set()
        waiting = [*tensors]
        while waiting:
            tensor = waiting.pop()
            if tensor not in found:
                found.add(tensor)
                made = self.makers.get(tensor)
                read = [] if made is None else [*made.inputs]
                waiting += [ends[tensor]] if tensor in ends else read
        return found

    def is_polynomial(self) -> bool:
        """Whether the new states are sums of products of inputs, constants and gates.

        Two such polynomials that agree for random numbers are equal. Anything else, such as a
        comparison, may differ for a few numbers only: zeros, or a value that marks padding.
        """
        arguments: dict[str, str] = {}
        for edge in self.body.edges:
            made = self._activated(edge.outputs[0])
            if made is not None:
                arguments[edge.outputs[0]] = made[1]
        needed = self._behind([new for _, new in self.body.states], arguments)
        return all(t in arguments or t not in self.makers or self._adds_or_moves(t) for t in needed)

    def _adds_or_moves(self, tensor: str) -> bool:
        """Whether an operation moves elements, or adds and multiplies them."""
        operation = self.operation(tensor)
        if operation.kind == "arithmetic":
            by_number = operation.number is not None and not operation.number_first
            polynomial = operation.operation in ("add", "subtract", "multiply")
            return polynomial or (operation.operation == "divide" and by_number)
        if operation.kind in ("activation", "dense"):
            return operation.activation.name in ("linear", "negative")
        return operation.kind in _MOVING


def _sum(a: Affine, b: Affine) -> Affine | None:
    terms = dict(a.terms)
    for leaf, matrix in b.terms.items():
        mine = terms.get(leaf)
        if leaf in terms and (mine is None or matrix is None):
            return None
        terms[leaf] = matrix if mine is None or matrix is None else mine + matrix
    biases = [bias for bias in (a.bias, b.bias) if bias is not None]
    return Affine(terms, sum(biases[1:], start=biases[0]) if biases else None)


def _columns(whole: Affine, columns: slice) -> Affine:
    terms = {leaf: m[:, columns] for leaf, m in whole.terms.items() if m is not None}
    return Affine(dict(terms), None if whole.bias is None else whole.bias[columns])
