"""Keep axes that are merged only to multiply rows by a matrix.

Exporters write a dense layer on (batch, steps, features) as a reshape to (batch*steps, features), a
product, and a reshape back. Without the two reshapes the rows are the same, and the steps stay an
axis, along which a stream can run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from npylstm.graph.builder import GraphBuilder
from npylstm.spec import Edge
from npylstm_converters.onnx.links import Links, rename_inputs

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
    links = Links(builder, outputs)
    found = (_chain(builder, links, edge) for edge in builder.edges)
    chains = [chain for chain in found if chain is not None]
    names: dict[str, str] = {}
    for first, inside, last in chains:
        axes = builder.shapes[first.inputs[0]][:-1]
        for inner in inside:
            builder.shapes[inner.name] = (*axes, builder.shapes[inner.name][-1])
        names[last.name] = last.inputs[0]
        # The chain before may end where this one begins.
        names[first.name] = names.get(first.inputs[0], first.inputs[0])
    removed = {edge.name for chain in chains for edge in (chain.first, chain.last)}
    builder.edges[:] = [edge for edge in builder.edges if edge.name not in removed]
    rename_inputs(builder, names)
    return {chain.last.name: chain.last.inputs[0] for chain in chains}


def _chain(builder: GraphBuilder, links: Links, last: Edge) -> _Chain | None:
    """Return the chain that a reshape ends; None if it ends none."""
    if builder.layers[last.layer].kind != "reshape":
        return None
    inside: list[Edge] = []
    tensor = last.inputs[0]
    while tensor in links.makers and links.is_read_once(tensor):
        edge = links.makers[tensor]
        if builder.layers[edge.layer].kind == "reshape":
            fits = inside and _merges_and_restores(builder, edge, last)
            return _Chain(edge, inside, last) if fits else None
        row = _row_of(builder, links.makers, edge)
        if row is None or not links.is_called_once(edge.layer):
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
    if operation.kind != "arithmetic" or operation.after_batch:
        return None
    others = [name for name in edge.inputs if not _is_vector(builder, makers, name)]
    return others[0] if len(others) == 1 else None


def _is_vector(builder: GraphBuilder, makers: Mapping[str, Edge], name: str) -> bool:
    """Whether a tensor is a constant that is the same for all rows."""
    constant = name in makers and builder.layers[makers[name].layer].kind == "constant"
    return constant and len(builder.shapes[name]) < 2
