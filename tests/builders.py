"""Small models for tests: weights that differ in every gate, biases that are never zero."""

from __future__ import annotations

from typing import Any

import numpy as np
from backends import COMPILED

from npylstm import ModelSpec
from npylstm.ops.base import Operation
from npylstm.ops.shapes import Shape
from npylstm.spec import LayerSpec, TensorSpec


def make_layer(
    name: str, layer: Operation, rng: np.random.Generator, dtype: str = "float32"
) -> LayerSpec:
    """Give a layer random weights, scaled so that gates move without saturating."""
    weights = {}
    for key, shape in layer.weight_shapes().items():
        spread = 1.0 / np.sqrt(shape[0]) if len(shape) == 2 else 0.5
        values = rng.uniform(-1, 1, shape) * spread
        weights[key] = (values + 0.05 * np.sign(values)).astype(dtype)
    return LayerSpec(name, layer, weights)


def make_chain(
    *layers: Operation,
    shape: Shape = ("batch", "steps", 3),
    seed: int = 0,
    dtype: str = "float32",
    **others: Any,
) -> ModelSpec:
    """Chain layers named ``layer_0``, ``layer_1``, ... behind an input ``x``."""
    rng = np.random.default_rng(seed)
    specs = [make_layer(f"layer_{k}", layer, rng, dtype) for k, layer in enumerate(layers)]
    return ModelSpec.chain(specs, TensorSpec("x", shape), dtype=dtype, **others)


def agree(actual: Any, expected: Any, terms: int, backend: str = "numpy") -> None:
    """Assert the same numbers of inputs of two shapes: the same bits with Numba.

    NumPy leaves sums to BLAS, which may run them in another order for another shape. Two orders of
    ``n`` terms below 1 in size differ by at most ``n eps``, and cells contract: weights are below
    ``1 / sqrt(n)``, slopes below 1.
    """
    atol = 0.0 if backend == COMPILED else terms * np.finfo(expected.dtype).eps
    np.testing.assert_allclose(actual, expected, rtol=0, atol=atol)
