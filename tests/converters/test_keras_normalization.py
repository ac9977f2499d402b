"""Keras' layers that scale, against both Kerases."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras_graphs import FRAMEWORKS, assert_parity, convert, make_inputs, randomise, refused, run

STEPS, FEATURES = 6, 3
LAYERS: dict[str, Callable[[Any], Any]] = {
    "unit": lambda L: L.UnitNormalization(),
    "unit along steps": lambda L: L.UnitNormalization(axis=1),
    "unit along two": lambda L: L.UnitNormalization(axis=[1, 2]),
    "learned": lambda L: L.Normalization(),
    "learned, positive axis": lambda L: L.Normalization(axis=2),
    "learned, one number": lambda L: L.Normalization(axis=None),
    "given": lambda L: L.Normalization(mean=[1.0, -2.0, 300.0], variance=[4.0, 0.25, 9.0]),
    "given, one number": lambda L: L.Normalization(axis=None, mean=3.0, variance=2.0),
    "given, no spread": lambda L: L.Normalization(mean=[0.0, 0.0, 1.0], variance=[1.0, 0.0, 4.0]),
    "backwards": lambda L: L.Normalization(
        mean=[1.0, -2.0, 3.0], variance=[4.0, 0.25, 9.0], invert=True
    ),
    "rescaling": lambda L: L.Rescaling(1 / 255),
    "rescaling with an offset": lambda L: L.Rescaling(1 / 127.5, offset=-1.0),
    "rescaling by feature": lambda L: L.Rescaling([1 / 3, 2.0, 3.0], offset=[0.5, 0.0, -1.0]),
    "rescaling, one offset": lambda L: L.Rescaling([1 / 3, 2.0, 3.0], offset=0.1),
}


def build(framework: str, name: str) -> Any:
    """A model with the layer in front; statistics that were learned are adapted first."""
    k = FRAMEWORKS[framework]
    layer = LAYERS[name](k.layers)
    if name.startswith("learned"):
        layer.adapt(np.random.default_rng(5).normal(3, 2, (50, STEPS, FEATURES)).astype("float32"))
    own = layer.get_weights()
    model = k.Sequential([k.Input((STEPS, FEATURES)), layer, k.layers.LSTM(4)])
    randomise(model.layers[-1], 3)
    if own:
        layer.set_weights(own)
    return model


@pytest.mark.parametrize("way", ["live", "keras", "h5"])
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_parity(framework: str, name: str, way: str, tmp_path: Path) -> None:
    model = build(framework, name)
    xs = make_inputs(model, 4, STEPS, 1)
    xs[0][1, 2] = 0  # a vector without a length
    assert_parity(convert(model, way, tmp_path), [(xs, run(model, xs))])


TRAINED: dict[str, Callable[[Any], Any]] = {
    "one group": lambda L: L.GroupNormalization(1),
    "groups of two": lambda L: L.GroupNormalization(2, epsilon=1e-4),
    "each feature": lambda L: L.GroupNormalization(-1, scale=False),
    "no offset": lambda L: L.GroupNormalization(4, center=False),
    "mean square": lambda L: L.RMSNormalization(epsilon=1e-3),
    "mean square of two axes": lambda L: L.RMSNormalization(axis=[-2, -1]),
}


@pytest.mark.parametrize("way", ["live", "keras", "h5"])
@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_trained_numbers(framework: str, name: str, way: str, tmp_path: Path) -> None:
    k = FRAMEWORKS[framework]
    if "square" in name and not hasattr(k.layers, "RMSNormalization"):
        return
    layers = [TRAINED[name](k.layers), k.layers.LSTM(4)]
    model = k.Sequential([k.Input((STEPS, 4)), *layers])
    randomise(model, 3)
    xs = make_inputs(model, 4, STEPS, 1)
    assert_parity(convert(model, way, tmp_path), [(xs, run(model, xs))])


@pytest.mark.parametrize("name", ["given", "given, one number", "rescaling by feature"])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_double_precision(framework: str, name: str) -> None:
    k = FRAMEWORKS[framework]
    options = {
        "given": {"mean": [1.0, -2.0, 300.0], "variance": [4.0, 0.25, 9.0]},
        "given, one number": {"axis": None, "mean": 3.0, "variance": 2.0},
        "rescaling by feature": {"scale": [0.5, 2.0, 3.0], "offset": -1.0},
    }[name]
    kind = k.layers.Rescaling if "scale" in options else k.layers.Normalization
    layers = [kind(dtype="float64", **options), k.layers.LSTM(4, dtype="float64")]
    model = k.Sequential([k.Input((STEPS, FEATURES), dtype="float64"), *layers])
    randomise(model.layers[-1], 3)
    xs = [x.astype("float64") for x in make_inputs(model, 4, STEPS, 1)]
    assert_parity(convert(model, "live", Path()), [(xs, run(model, xs))])


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_statistics_of_several_axes_are_refused(framework: str) -> None:
    k = FRAMEWORKS[framework]
    model = k.Sequential([k.Input((STEPS, FEATURES)), k.layers.Normalization(axis=(1, 2))])
    (reason,) = refused(model)
    assert "axis: expected one axis or none, got [1, 2]" in reason
