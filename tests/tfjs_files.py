"""Files of TensorFlow.js that were recorded, and models converted from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import npylstm_converters as nc
from tfjs_layout import Layout, read

import npylstm
from npylstm import ModelSpec

ROOT = Path(__file__).parent.parent
DATA = ROOT / "tests/data/tfjs"
NEWEST = "4.22.0"
MODELS = sorted(p.parent.name for p in (DATA / NEWEST).glob("*/model.json"))

# What TensorFlow.js has and npylstm need not: refused by the layer's name, or right.
RARE = {
    "bidirectional_ave": "bidirectional", "bidirectional_backwards": "bidirectional",
    "bidirectional_mul": "bidirectional", "bidirectional_pair": "bidirectional",
    "bidirectional_state": "bidirectional", "bidirectional_sum": "bidirectional",
    "cells": "rnn", "gelu_new": "gelu_new", "layer_normalised": "layer_normalization",
    "convolutional": "conv1d", "masked": "embedding", "masking": "masking", "prelu": "p_re_lu",
}  # fmt: skip


def recorded(name: str) -> Layout:
    return read(DATA / NEWEST / name)


def content(spec: ModelSpec) -> Any:
    """All that a model computes with."""
    layers = [
        (
            n.name,
            n.kind,
            n.config,
            {k: (w.shape, w.tobytes()) for k, w in sorted(n.weights.items())},
        )
        for n in spec.layers
    ]
    return layers, spec.edges, spec.inputs, spec.outputs, spec.dtype


def converted(layout: Layout, folder: Path, **changes: Any) -> ModelSpec:
    spec = nc.from_tfjs(layout.write(folder, **changes))
    assert isinstance(spec, ModelSpec)
    return spec


def attempted(path: Path) -> tuple[ModelSpec | None, str]:
    """A model, or why there is none."""
    try:
        return nc.from_tfjs(path), ""
    except npylstm.NpylstmError as error:
        return None, str(error)


def assert_same_model(layout: Layout, name: str, folder: Path, **changes: Any) -> None:
    spec = converted(layout, folder, **changes)
    assert content(spec) == content(nc.from_tfjs(DATA / NEWEST / name / "model.json"))


MANY = ("lstm_stack", "gru", "nested", "normalised", "time_distributed", "bidirectional")
