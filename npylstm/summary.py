"""Describe a model: layers, shapes, parameter counts and origin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from npylstm import console
from npylstm.ops.shapes import format_shape
from npylstm.spec import ModelSpec

__all__ = ["layer_table", "origin_of", "summarise"]

_IN_SHAPES = ("features", "units", "n", "vocabulary")  # config that the shapes already show


def summarise(spec: ModelSpec, notes: str = "") -> str:
    """Return the description of a model; ``notes`` end its first line."""
    return console.Text(
        f"{spec.name}: {spec.parameters:,} parameters, {spec.dtype}{notes}\n"
        f"{console.plain_table(*layer_table(spec))}\n"
        f"from {origin_of(spec.provenance)}, {len(spec.cases)} recorded cases"
    )


def layer_table(spec: ModelSpec) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of a table of the inputs and layers."""
    made = {edge.layer: edge.outputs for edge in reversed(spec.edges)}
    is_quantized = any(layer.stored for layer in spec.layers)
    empty = [""] * (2 * is_quantized)
    rows = [[t.name, "input", format_shape(t.shape), "0", *empty, ""] for t in spec.inputs]
    for layer in spec.layers:
        options = {k: v for k, v in layer.config.items() if k not in _IN_SHAPES}
        shapes = ", ".join(format_shape(spec.shapes[t]) for t in made[layer.name])
        count = sum(w.size for w in layer.weights.values())
        row = [layer.name, layer.kind, shapes, f"{count:,}"]
        if is_quantized:
            row += [layer.storage or spec.dtype if count else "", f"{layer.stored_bytes:,}"]
        rows.append([*row, _options(options)])
    more = ["type", "bytes"] if is_quantized else []
    return ["layer", "kind", "output", "parameters", *more, "config"], rows


def origin_of(provenance: Mapping[str, Any]) -> str:
    """Return the framework and its version."""
    parts = [str(provenance[k]) for k in ("framework", "framework_version") if provenance.get(k)]
    return " ".join(parts) or "an unknown source"


def _options(config: Mapping[str, Any]) -> str:
    return ", ".join(_option(k, v) for k, v in config.items() if v not in (False, None, []))


def _option(name: str, value: Any) -> str:
    if value is True:
        return name
    if isinstance(value, dict) and "kind" in value:
        return f"{name}={value['kind']}({_options(value['config'])})"
    return str(value) if name == "activation" and isinstance(value, str) else f"{name}={value}"
