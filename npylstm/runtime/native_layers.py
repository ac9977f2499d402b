"""What the kernels compute of a model, in words; for people who want to know."""

from __future__ import annotations

from typing import Any

from npylstm.runtime.parameters import TABLE_BYTES
from npylstm.runtime.program import embedded_ids, is_native
from npylstm.spec import ModelSpec

__all__ = ["describe_kernels", "layers_without_kernel"]


def layers_without_kernel(spec: ModelSpec) -> list[str]:
    """Return the names of the layers that run in NumPy between kernels."""
    return [layer.name for layer in spec.layers if not is_native(layer, spec.dtype)]


def describe_kernels(spec: ModelSpec) -> str:
    """Return which layers have kernels, and the size of tables of embedded ids."""
    others = layers_without_kernel(spec)
    text = f"all {len(spec.layers)} layers in one call"
    if others:
        kinds = {layer.name: layer.kind for layer in spec.layers}
        listed = ", ".join(f"{name} ({kinds[name]})" for name in others)
        text = f"all layers but {listed}, which NumPy computes"
    sizes = _table_sizes(spec)
    kept = 0
    for size in sizes:
        kept += size if kept + size <= TABLE_BYTES else 0
    if sizes:
        text += (
            f"; tables of embeddings times kernels: {kept / 2**20:.1f} MB of at most "
            f"{TABLE_BYTES >> 20}"
        )
    return text


def _table_sizes(spec: ModelSpec) -> list[int]:
    layers: dict[str, Any] = {layer.name: layer.layer for layer in spec.layers}
    found = embedded_ids(spec.edges, layers, spec.outputs)
    number = 8 if spec.dtype == "float64" else 4
    sizes = []
    for edge in spec.edges:
        embedding = found.get(edge.inputs[0]) if edge.inputs else None
        if embedding is None:
            continue
        operation = layers[embedding.layer]
        ids = operation.vocabulary_size or operation.depth + 1
        for part in layers[edge.layer].recurrent_parts().values():
            sizes.append(ids * len(part.gates) * part.units * number)
    return sizes
