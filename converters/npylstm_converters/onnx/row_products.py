"""Keep axes that are merged only to multiply rows by a matrix.

Exporters write a dense layer on (batch, steps, features) as a reshape to (batch*steps, features), a
product, and a reshape back. Without the two reshapes the rows are the same, and the steps stay an
axis, along which a stream can run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from npylstm.graph.builder import GraphBuilder
from npylstm.spec import Edge

__all__ = ["keep_axes"]


class _Chain(NamedTuple):
    """Operations on rows between a reshape that merges axes and one that restores them."""

    first: Edge
    inside: list[Edge]
    last: Edge


def keep_axes(builder: GraphBuilder, outputs: Sequence[str]) -> dict[str, str]:
    """Remove pairs of reshapes around operations on rows.

    Parameters
    ----------
    builder
        The finished graph.
    outputs
        Names of the model's outputs.

    Returns
    -------
    dict
        New names of tensors by their former names.
    """
    renamed: dict[str, str] = {}
    for edge in [*builder.edges]:
        chain = _chain(builder, outputs, edge)
        if chain is None:
            continue
        source, made = chain.first.inputs[0], chain.last.inputs[0]
        axes = builder.shapes[source][:-1]
        for inner in chain.inside:
            builder.shapes[inner.name] = (*axes, builder.shapes[inner.name][-1])
        builder.edges.remove(chain.first)
        builder.edges.remove(chain.last)
        names = {chain.first.name: source, chain.last.name: made}
        for k, other in enumerate(builder.edges):
            builder.edges[k] = replace(other, inputs=tuple(names.get(t, t) for t in other.inputs))
        renamed[chain.last.name] = made
    return renamed


def _chain(builder: GraphBuilder, outputs: Sequence[str], last: Edge) -> _Chain | None:
    """Return the chain that a reshape ends; None if it ends none."""
    if builder.layers[last.layer].kind != "reshape":
        return None
    makers = {name: edge for edge in builder.edges for name in edge.outputs}
    reads = Counter(name for edge in builder.edges for name in edge.inputs)
    reads.update(outputs)
    calls = Counter(edge.layer for edge in builder.edges)
    inside: list[Edge] = []
    tensor = last.inputs[0]
    while tensor in makers and reads[tensor] == 1:
        edge = makers[tensor]
        if builder.layers[edge.layer].kind == "reshape":
            fits = inside and _merges_and_restores(builder, edge, last)
            return _Chain(edge, inside, last) if fits else None
        row = _row_of(builder, makers, edge)
        if row is None or calls[edge.layer] != 1:
            return None
        inside.append(edge)
        tensor = row
    return None


def _merges_and_restores(builder: GraphBuilder, first: Edge, last: Edge) -> bool:
    before, merged = builder.shapes[first.inputs[0]], builder.shapes[first.name]
    result, after = builder.shapes[last.inputs[0]], builder.shapes[last.name]
    rows = len(merged) == len(result) == 2 and len(before) > 2
    return (
        rows and (before[-1], after[-1]) == (merged[-1], result[-1]) and before[:-1] == after[:-1]
    )


def _row_of(builder: GraphBuilder, makers: Mapping[str, Edge], edge: Edge) -> str | None:
    """Return the tensor each row of which gives a row of the result; None for other operations."""
    operation: Any = builder.layers[edge.layer].layer
    if operation.kind == "dense":
        return edge.inputs[0]
    if operation.kind == "activation":
        return edge.inputs[0] if operation.activation.axis in (None, -1) else None
    if operation.kind != "arithmetic":
        return None
    others = [name for name in edge.inputs if not _is_vector(builder, makers, name)]
    return others[0] if len(others) == 1 else None


def _is_vector(builder: GraphBuilder, makers: Mapping[str, Edge], name: str) -> bool:
    """Whether a tensor is a constant that is the same for all rows."""
    constant = name in makers and builder.layers[makers[name].layer].kind == "constant"
    return constant and len(builder.shapes[name]) < 2
