"""How the calls of a finished graph are connected: what shortens graphs asks for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from npylstm.graph.builder import GraphBuilder

__all__ = ["Links", "rename_inputs"]


class Links:
    """Who makes and who reads the tensors of a graph.

    Parameters
    ----------
    builder
        The finished graph.
    outputs
        Names of the model's outputs.

    Attributes
    ----------
    makers
        The call that makes a tensor, by the tensor's name; an input has none.
    """

    def __init__(self, builder: GraphBuilder, outputs: Sequence[str]) -> None:
        self.makers = {name: edge for edge in builder.edges for name in edge.outputs}
        self._reads = Counter(name for edge in builder.edges for name in edge.inputs)
        self._reads.update(outputs)
        self._calls = Counter(edge.layer for edge in builder.edges)

    def is_read_once(self, tensor: str) -> bool:
        """Whether one call reads a tensor, and no output is it."""
        return self._reads[tensor] == 1

    def is_called_once(self, layer: str) -> bool:
        """Whether a layer has one call."""
        return self._calls[layer] == 1


def rename_inputs(builder: GraphBuilder, names: Mapping[str, str]) -> None:
    """Let all calls read other tensors: new names by former names."""
    for k, edge in enumerate(builder.edges):
        builder.edges[k] = replace(edge, inputs=tuple(names.get(t, t) for t in edge.inputs))
