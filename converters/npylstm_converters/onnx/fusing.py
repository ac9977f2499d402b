"""Add constant vectors to the layers whose products they follow: MatMul and Add are one layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from npylstm.graph.builder import GraphBuilder
from npylstm.spec import Edge
from npylstm_converters.onnx.links import Links, rename_inputs

__all__ = ["fuse_biases"]

Sources = Mapping[str, dict[str, tuple[str, ...]]]


def fuse_biases(builder: GraphBuilder, outputs: Sequence[str], sources: Sources) -> dict[str, str]:
    """Make additions of constant vectors biases of the dense layers before them.

    Parameters
    ----------
    builder
        The finished graph.
    outputs
        Names of the model's outputs.
    sources
        By layer, the initializers that its weights are from; they move with the bias.

    Returns
    -------
    dict
        New names of tensors by their former names.
    """
    links = Links(builder, outputs)
    renamed: dict[str, str] = {}
    for edge in [*builder.edges]:
        found = _product_and_bias(builder, links.makers, edge)
        if found is None:
            continue
        product, constant = found
        bias = builder.layers[constant.layer].weights["value"]
        layer = builder.layers[product.layer]
        units = builder.shapes[product.name][-1]
        once = links.is_read_once(product.name) and links.is_called_once(product.layer)
        if bias.shape != (units,) or not once:
            continue
        config: Any = layer.layer
        builder.replace_layer(
            product.layer, replace(config, use_bias=True), {**layer.weights, "bias": bias}
        )
        sources.get(product.layer, {}).update(sources.get(constant.layer, {}))
        builder.edges.remove(edge)
        renamed[edge.name] = product.name
    rename_inputs(builder, renamed)
    return renamed


def _product_and_bias(
    builder: GraphBuilder, makers: Mapping[str, Edge], edge: Edge
) -> tuple[Edge, Edge] | None:
    """Return the dense layer without bias and the constant that an addition adds."""
    operation: Any = builder.layers[edge.layer].layer
    if operation.kind != "arithmetic" or operation.operation != "add" or len(edge.inputs) != 2:
        return None
    made = [makers.get(name) for name in edge.inputs]
    for product, constant in (made, made[::-1]):
        if product is None or constant is None:
            continue
        dense: Any = builder.layers[product.layer].layer
        if builder.layers[constant.layer].kind == "constant" and dense.kind == "dense":
            return (product, constant) if not dense.use_bias else None
    return None
