"""Masked inputs for Keras models, and how outputs under masks are compared.

Every model is run by its framework on sequences masked at the start, in the middle, at the end, at
every other step, everywhere and nowhere. Parity is what ``npylstm/parity.py`` says; other
comparisons allow what the parity rule allows, too: 64 units in the last place of the largest value,
which is a thousandth of what a step too many makes.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest
import tf_keras
from backends import BACKENDS
from keras_graphs import FRAMEWORKS, assert_same, run

from npylstm import Model, ModelSpec
from npylstm.spec import Case

# Keras 3 itself cannot read a functional model with masks from HDF5.
WAYS = {"keras3": ("live", "keras"), "tf_keras": ("live", "keras", "h5")}

# One row each; 1 where a step counts.
PATTERNS = {
    "nowhere": "1111111",
    "start": "0001111",
    "end": "1111000",
    "middle": "1100111",
    "odd": "0101010",
    "even": "1010101",
    "everywhere": "0000000",
    "holes": "0110100",
}
MASK = np.array([[step == "1" for step in row] for row in PATTERNS.values()])
BATCH, STEPS = MASK.shape
FEATURES = 3

CELLS: dict[str, tuple[str, dict[str, Any]]] = {
    "lstm": ("LSTM", {}),
    "gru_after": ("GRU", {"reset_after": True}),
    "gru_before": ("GRU", {"reset_after": False}),
    "rnn": ("SimpleRNN", {}),
}

frameworks = pytest.mark.parametrize("framework", FRAMEWORKS)
cells = pytest.mark.parametrize("cell", CELLS)


class Quick:
    """The framework's layers, with an activation for which tf_keras does not build cuDNN's way, too.

    That takes it a second a layer; the models with the usual activation are few here.
    """

    def __init__(self, k: Any) -> None:
        self._layers = k.layers
        self._others = {"activation": "softsign"} if k is tf_keras else {}

    def __getattr__(self, name: str) -> Any:
        layer = getattr(self._layers, name)
        return functools.partial(layer, **self._others) if name in ("LSTM", "GRU") else layer


def make_cell(k: Any, cell: str, units: int = 4, **options: Any) -> Any:
    class_name, own = CELLS[cell]
    return getattr(Quick(k), class_name)(units, **{**own, **options})


def randomise(model: Any, seed: int = 1) -> Any:
    """Set all weights: gates move without saturating, no bias is zero, variances are positive."""
    rng = np.random.default_rng(seed)
    weights = []
    for variable, array in zip(model.weights, model.get_weights(), strict=True):
        spread = 0.8 / np.sqrt(array.shape[0]) if array.ndim == 2 else 0.5
        values = rng.uniform(-1, 1, array.shape) * spread
        values += 0.05 * np.sign(values)
        weights.append((np.abs(values) if "variance" in variable.name else values).astype("f4"))
    model.set_weights(weights)
    return model


def padded(value: float = 0.0, mask: np.ndarray = MASK, seed: int = 2) -> np.ndarray:
    """Sequences that hold ``value`` where they are masked."""
    x = np.random.default_rng(seed).normal(size=(*mask.shape, FEATURES))
    return np.where(mask[..., None], x, value).astype("float32")


def ids(mask: np.ndarray = MASK, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 9, mask.shape) * mask


def convert(model: Any, way: str, folder: Path | None = None) -> ModelSpec:
    if way == "live" or folder is None:
        return nc.from_keras(model)
    model.save(folder / f"model.{way}")
    return nc.convert(folder / f"model.{way}")


def assert_parity(spec: ModelSpec, model: Any, *xs: np.ndarray) -> list[np.ndarray]:
    """Compare with the framework in both back ends; return what the framework gave."""
    ys = run(model, xs)
    assert len(ys) == len(spec.outputs)
    names = [t.name for t in spec.inputs]
    xs = tuple(x.astype("int64") if t.whole else x for t, x in zip(spec.inputs, xs, strict=True))
    case = Case(dict(zip(names, xs, strict=True)), dict(zip(spec.outputs, ys, strict=True)))
    for backend in BACKENDS:
        Model(spec.with_cases([case]), backend).verify().check()
    return ys


def assert_parity_in_all_ways(
    framework: str, folder: Path, model: Any, *xs: np.ndarray
) -> list[np.ndarray]:
    first, *others = (convert(model, way, folder) for way in WAYS[framework])
    ys = assert_parity(first, model, *xs)
    for other in others:
        assert_same(first, other)
    return ys


def assert_close(ours: Any, theirs: Any) -> None:
    theirs = np.asarray(theirs)
    finite = np.abs(theirs[np.isfinite(theirs)])
    atol = 64 * np.finfo("float32").eps * max(1.0, finite.max(initial=0.0))
    np.testing.assert_allclose(ours, theirs, atol=atol, rtol=0)


def masked_input(k: Any, steps: int | None = None, name: str = "x") -> tuple[Any, Any]:
    """An input and the same with its mask."""
    inputs = k.Input((steps, FEATURES), name=name)
    return inputs, k.layers.Masking(name=f"masking_{name}")(inputs)


@functools.cache
def bare(framework: str, cell: str, kind: str) -> tuple[Any, ModelSpec]:
    """A model of a recurrent layer or a pair, alone."""
    k = FRAMEWORKS[framework]
    layer = make_cell(k, cell, return_sequences=kind != "last", go_backwards=kind == "backwards")
    if kind == "pair":
        layer = k.layers.Bidirectional(layer, merge_mode="sum")
    model = randomise(k.Sequential([k.Input((None, FEATURES)), layer]))
    return model, nc.from_keras(model)
