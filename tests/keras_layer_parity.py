"""Keras models side by side, converted and compared with the framework by the rule of ``npylstm/parity.py``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import tf_keras
from backends import BACKENDS
from keras_graphs import FRAMEWORKS, assert_same, run

from npylstm import Model, ModelSpec
from npylstm.spec import Case

FIXED = 6  # steps where a layer must know them; as many as features: axes that are mixed up fit

frameworks = pytest.mark.parametrize("framework", FRAMEWORKS)


def randomise(model: Any, seed: int = 1) -> Any:
    """Set all weights: nothing saturates, no bias is zero, variances are positive."""
    rng = np.random.default_rng(seed)
    weights = []
    for variable, array in zip(model.weights, model.get_weights(), strict=True):
        fan = np.prod(array.shape[:-1]) if array.ndim > 1 else 2
        values = np.asarray(rng.uniform(-1, 1, array.shape) / np.sqrt(fan))
        values = values + 0.05 * np.sign(values)
        weights.append((np.abs(values) if "variance" in variable.name else values).astype("f4"))
    model.set_weights(weights)
    return model


def make_inputs(model: Any, batch: int, steps: int, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    arrays = []
    for tensor in model.inputs:
        shape = (batch, *(steps if d is None else int(d) for d in tensor.shape[1:]))
        if "int" in str(getattr(tensor.dtype, "name", tensor.dtype)):
            arrays.append(rng.integers(0, 9, shape).astype("int32"))
        else:
            arrays.append(rng.normal(size=shape).astype("float32"))
    return arrays


def flat(value: Any) -> list[Any]:
    """All tensors in nested lists, as they are."""
    if isinstance(value, (list, tuple)):
        return [tensor for entry in value for tensor in flat(entry)]
    return [value]


def assert_parity(model: Any, specs: Sequence[ModelSpec], seed: int = 7) -> None:
    """Compare the first spec with the framework, the others with the first."""
    runs = []
    for batch, steps in ((3, 9), (2, 14)):
        xs = make_inputs(model, batch, steps, seed + batch)
        runs.append((xs, run(model, xs)))
    assert all(np.isfinite(y).all() and np.ptp(y) > 0 for _, ys in runs for y in ys)
    spec = specs[0]
    names = [t.name for t in spec.inputs]
    assert all(len(ys) == len(spec.outputs) for _, ys in runs)
    cases = [
        Case(dict(zip(names, xs, strict=True)), dict(zip(spec.outputs, ys, strict=True)))
        for xs, ys in runs
    ]
    for backend in BACKENDS:
        Model(spec.with_cases(cases), backend).verify().check()
    for other in specs[1:]:
        assert_same(spec, other)


def side_by_side(k: Any, layers: Sequence[Any], steps: int | None = None, features: int = 4) -> Any:
    """A GRU, all layers on its sequence, and a recurrent layer on what the first one gives."""
    x = k.Input((steps, features), name="x")
    options = {"activation": "softsign"} if k is tf_keras else {}  # tf_keras builds that faster
    y = k.layers.GRU(6, return_sequences=True, name="before", **options)(x)
    made = [layer(y) for layer in layers]
    first = made[0]
    outputs = flat(made)
    if len(flat(first)) == 1 and len(first.shape) == 3:
        outputs.append(k.layers.SimpleRNN(3, return_sequences=True, name="after")(first))
    return randomise(k.Model(x, outputs))
