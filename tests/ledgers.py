"""Sources for the tests of ledgers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from keras_graphs import FRAMEWORKS

from npylstm import ModelSpec

DATA = Path(__file__).parent / "data"
RARE = ("bidirectional_backwards", "cells")  # need not be supported
TFJS = sorted(p.parent for p in (DATA / "tfjs").rglob("model.json") if p.parent.name not in RARE)
BOTH = pytest.mark.parametrize("framework", FRAMEWORKS)


def names(attribute: Any) -> list[str]:
    return [n.decode() if isinstance(n, bytes) else str(n) for n in attribute]


def entries_of(spec: ModelSpec) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = spec.provenance["tensors"]
    return entries


def source_of(model: Any, way: str, folder: Path) -> Any:
    if way == "live":
        return model
    model.save(folder / f"m.{way}")
    return folder / f"m.{way}"
