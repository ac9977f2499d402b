"""Small edits of a model's graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from npylstm.errors import NpylstmError
from npylstm.ops.base import Operation
from npylstm.parity.corrections import Correction, Detail, Found
from npylstm.spec import Edge, LayerSpec, ModelSpec

__all__ = ["insert_before", "insert_behind", "of_graph", "rewire", "with_layer"]

# Layers to add, each with its inputs: 0 is the tensor, k the output of the k-th added layer.
Chain = Sequence[tuple[Operation, tuple[int, ...]]]


def of_graph(layer: str | None, detail: Detail, fix: str, spec: ModelSpec | None) -> Found:
    """Yield the correction to another graph, if that is valid."""
    if spec is not None:
        yield Correction(layer, detail, fix, spec=spec)


def rewire(
    spec: ModelSpec,
    edges: Sequence[Edge],
    layers: Sequence[LayerSpec] | None = None,
    outputs: Sequence[str] | None = None,
) -> ModelSpec | None:
    """Return the model with other edges and without uncalled layers; None if it is not valid."""
    called = {edge.layer for edge in edges}
    kept = tuple(n for n in (spec.layers if layers is None else layers) if n.name in called)
    try:
        return replace(
            spec, edges=tuple(edges), layers=kept,
            outputs=tuple(outputs) if outputs is not None else spec.outputs, cases=(),
        )  # fmt: skip
    except NpylstmError:
        return None


def with_layer(spec: ModelSpec, named: LayerSpec) -> ModelSpec | None:
    """Return the model with the layer of that name replaced; None if it is not valid."""
    layers = tuple(named if n.name == named.name else n for n in spec.layers)
    return rewire(spec, spec.edges, layers)


def insert_behind(spec: ModelSpec, name: str, chain: Chain, output: int = 0) -> ModelSpec | None:
    """Return the model with a chain after an output of every call of a layer."""
    edges: list[Edge] = []
    layers = list(spec.layers)
    for edge in spec.edges:
        if edge.layer != name:
            edges.append(edge)
            continue
        outputs = list(edge.outputs)
        kept = outputs[output]
        outputs[output] = f"{kept}.own"
        edges.append(replace(edge, outputs=tuple(outputs)))
        _append(edges, layers, outputs[output], kept, chain)
    return rewire(spec, edges, layers)


def insert_before(spec: ModelSpec, name: str, chains: Mapping[int, Chain]) -> ModelSpec | None:
    """Return the model with chains before inputs, by number, of every call of a layer."""
    edges: list[Edge] = []
    layers = list(spec.layers)
    for edge in spec.edges:
        inputs = list(edge.inputs)
        if edge.layer == name:
            for number, chain in chains.items():
                made = f"{edge.name}.input{number}"
                _append(edges, layers, inputs[number], made, chain)
                inputs[number] = made
        edges.append(replace(edge, inputs=tuple(inputs)))
    return rewire(spec, edges, layers)


def _append(
    edges: list[Edge], layers: list[LayerSpec], source: str, target: str, chain: Chain
) -> None:
    tensors = [source]
    for number, (layer, reads) in enumerate(chain):
        name = f"{target.replace('/', '.')}.edit{number}"
        layers.append(LayerSpec(name, layer))
        made = target if number == len(chain) - 1 else name
        edges.append(Edge(name, tuple(tensors[k] for k in reads), (made,)))
        tensors.append(made)
