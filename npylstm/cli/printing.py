"""Print results on stdout and warnings on stderr."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from typing import Any

from npylstm import console
from npylstm.ops.shapes import format_shape
from npylstm.spec import ModelSpec

__all__ = ["print_json", "print_ledger", "warn"]


def print_json(value: Any) -> None:
    """Print a result as JSON, which has no nan and no infinity: they are null."""
    print(json.dumps(_finite(value), indent=1, ensure_ascii=False, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def warn(message: str) -> None:
    """Print one line on stderr."""
    print(f"npylstm: warning: {' '.join(message.split())}", file=sys.stderr)


def print_ledger(spec: ModelSpec) -> None:
    """Print every tensor of the source, with its layer and weights."""
    rows = []
    entries = spec.provenance.get("tensors")
    for entry in filter(_is_entry, entries if isinstance(entries, list) else []):
        layer, became = entry["layer"], ", ".join(entry["weights"])
        weights = (became or "not needed in inference") if layer else "left over"
        rows.append([entry["source"], format_shape(entry["shape"]), layer or "-", weights])
    if rows:
        console.print_table(["tensor of the source", "shape", "layer", "weights"], rows)


def _is_entry(entry: Any) -> bool:
    """Whether an entry of the file is a valid line of the ledger."""
    if not isinstance(entry, dict):
        return False
    shape, weights = entry.get("shape"), entry.get("weights")
    named = all(isinstance(entry.get(key), str) for key in ("source", "layer"))
    sized = isinstance(shape, list) and all(type(d) is int for d in shape)
    return named and sized and isinstance(weights, list) and all(type(w) is str for w in weights)
