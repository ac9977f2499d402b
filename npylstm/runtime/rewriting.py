"""Make a graph shorter for the kernels, when a model is loaded. No bit of the outputs changes.

Channels come last: convolutions and pools of PyTorch have them first, between two transposes, which
cancel then. Activations behind products become part of them.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from npylstm.activations import LINEAR
from npylstm.graph.parts import Edge, LayerSpec
from npylstm.kernels.table import row_of
from npylstm.ops import OPERATIONS
from npylstm.ops.base import Operation
from npylstm.spec import ModelSpec

__all__ = ["Graph", "rewritten"]

_SWAPPED = (0, 2, 1)  # axes of a sequence, with the features before the steps
_WITH_CHANNELS = ("conv1d", "pool1d", "pool")
_WITH_ACTIVATION = ("conv1d", "dense")


class Graph(NamedTuple):
    """What a kernel engine computes: the layers, and their calls in order."""

    layers: tuple[LayerSpec, ...]
    edges: tuple[Edge, ...]


def rewritten(spec: ModelSpec) -> Graph:
    """Return the layers and calls of a spec, with the same outputs, in fewer calls."""
    graph = _with_channels_last(Graph(spec.layers, spec.edges), spec)
    return _with_activations(graph, spec)


class _Editor:
    """Calls that are being rewritten, with their layers."""

    def __init__(self, graph: Graph) -> None:
        self.layers = {layer.name: layer for layer in graph.layers}
        calls = Counter(edge.layer for edge in graph.edges)
        self.called_once = {name for name, count in calls.items() if count == 1}
        self.edges: list[Edge] = []

    def operation(self, edge: Edge) -> Operation:
        return self.layers[edge.layer].layer

    def change(self, edge: Edge, operation: Operation) -> None:
        """Replace the operation of a layer that is called once."""
        self.layers[edge.layer] = dataclasses.replace(self.layers[edge.layer], layer=operation)

    def swap(self, source: str, target: str) -> None:
        """Append a transpose of the last two axes."""
        name = f"{target} = swapped {source}"
        self.layers[name] = LayerSpec(name, OPERATIONS["transpose"](_SWAPPED))  # type: ignore[call-arg]
        self.edges.append(Edge(name, (source,), (target,)))

    def rename(self, source: str, target: str) -> None:
        """Give a tensor another name, by a layer of its own: others may be shared."""
        name = f"{target} = {source}"
        self.layers[name] = LayerSpec(name, OPERATIONS["identity"]())
        self.edges.append(Edge(name, (source,), (target,)))

    def graph(self, outputs: Iterable[str]) -> Graph:
        """Return the calls but for transposes that nobody reads."""
        read, kept = {*outputs}, []
        for edge in reversed(self.edges):
            only_moves = self.operation(edge).kind in ("transpose", "identity")
            if not only_moves or not read.isdisjoint(edge.outputs):
                kept.append(edge)
                read |= {*edge.inputs}
        used = {edge.layer for edge in kept}
        layers = (layer for layer in self.layers.values() if layer.name in used)
        return Graph(tuple(layers), tuple(kept[::-1]))


def _with_channels_last(graph: Graph, spec: ModelSpec) -> Graph:
    """Move transposes of features and steps behind what computes the same on both sides."""
    made = _Editor(graph)
    swapped: dict[str, str] = {}  # of some tensors: the one with the other order
    changed = False
    for edge in graph.edges:
        operation: Any = made.operation(edge)
        others = [swapped.get(tensor) for tensor in edge.inputs]
        if operation.kind == "transpose" and operation.axes == _SWAPPED:
            if others[0] is not None:
                made.rename(others[0], edge.outputs[0])
            else:
                swapped[edge.outputs[0]] = edge.inputs[0]
                made.edges.append(edge)
            continue
        after = _channels_last(operation, others, edge, spec)
        if after is None or edge.layer not in made.called_once:
            made.edges.append(edge)
            continue
        changed = True
        for tensor, other in zip(edge.inputs, others, strict=True):
            if other is None:
                swapped[tensor] = f"{tensor} swapped"
                made.swap(tensor, swapped[tensor])
        made.change(edge, after)
        (result,) = edge.outputs
        swapped[result] = f"{result} swapped"
        inputs = tuple(swapped[tensor] for tensor in edge.inputs)
        made.edges.append(Edge(edge.layer, inputs, (swapped[result],)))
        made.swap(swapped[result], result)
    return made.graph(spec.outputs) if changed else graph


def _channels_last(
    operation: Operation, others: Sequence[str | None], edge: Edge, spec: ModelSpec
) -> Operation | None:
    """Return the operation on tensors with swapped axes; None if it stays as it is."""
    config: Any = operation
    if operation.kind in _WITH_CHANNELS:
        one_axis = len(spec.shapes[edge.inputs[0]]) == 3
        first = one_axis and config.channels_first
        made: Operation = dataclasses.replace(config, channels_first=False)
        return made if first else None
    if None in others or len(edge.outputs) > 1:
        return None
    if operation.kind in ("activation", "rescaling", "identity"):
        mixed = operation.kind == "activation" and config.activation.axis is not None
        return None if mixed else operation
    if operation.kind == "batch_normalization" and config.axis_in((0, 0, 0)) > 0:
        moved: Operation = dataclasses.replace(config, axis=3 - config.axis_in((0, 0, 0)))
        return moved
    return operation if operation.kind == "arithmetic" and others else None


def _with_activations(graph: Graph, spec: ModelSpec) -> Graph:
    """Make activations part of the products before them."""
    made = _Editor(graph)
    readers = Counter(tensor for edge in graph.edges for tensor in edge.inputs)
    products: dict[str, int] = {}  # by the output: the place of the call
    for edge in graph.edges:
        operation: Any = made.operation(edge)
        at = products.get(edge.inputs[0]) if edge.inputs else None
        if operation.kind == "activation" and at is not None and readers[edge.inputs[0]] == 1:
            before = made.edges[at]
            activation = _of_rows(operation.activation, edge, spec)
            product: Any = made.operation(before)
            fits = activation.axis in (None, -1)
            both = dataclasses.replace(product, activation=activation) if fits else None
            if both is not None and row_of(both, spec.dtype) is not None:
                made.change(before, both)
                made.edges[at] = Edge(before.layer, before.inputs, edge.outputs)
                continue
        alone = edge.layer in made.called_once and edge.outputs[0] not in spec.outputs
        if operation.kind in _WITH_ACTIVATION and operation.activation == LINEAR and alone:
            products[edge.outputs[0]] = len(made.edges)
        made.edges.append(edge)
    return made.graph(spec.outputs)


def _of_rows(activation: Any, edge: Edge, spec: ModelSpec) -> Any:
    """Return the activation with its axis counted from the end, where that is the last."""
    shape = spec.shapes.get(edge.inputs[0])
    if activation.axis is None or shape is None or activation.axis % len(shape) != len(shape) - 1:
        return activation
    return dataclasses.replace(activation, params=(-1, *activation.params[1:]))
