"""A layer with weights, and inputs to move."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from builders import make_layer
from operations.sizes import Array, Sizes, concrete

from npylstm.arrays import zeros
from npylstm.ops.base import Operation
from npylstm.ops.shapes import BATCH, Shape
from npylstm.spec import LayerSpec


class Probe:
    """A layer with weights, and inputs to move.

    Parameters are those of :func:`check_operation`.
    """

    def __init__(
        self,
        layer: Operation,
        shapes: Sequence[Shape],
        *,
        dtype: str = "float64",
        integer: Sequence[int] | Mapping[int, tuple[int, int]] = (),
        masks: Sequence[int] = (),
        positive: bool = False,
    ) -> None:
        self.layer = layer
        self.shapes = tuple(shapes)
        self.dtype = dtype
        usual = dict.fromkeys(integer, (0, vocabulary(layer)))
        self.ids = integer if isinstance(integer, Mapping) else usual
        self.masks = {*masks, *mask_inputs(layer, len(self.shapes))}
        self.positive = positive
        self.spec = with_variances(make_layer("op", layer, np.random.default_rng(7), dtype))

    @functools.cached_property
    def claimed(self) -> tuple[Shape, ...]:
        """Shapes of the outputs, with symbols."""
        return self.layer.output_shapes(self.shapes)

    def draw(self, sizes: Sizes, seed: int = 0) -> list[Array]:
        """Draw the inputs."""
        rng = np.random.default_rng(seed)
        return [
            self._values(k, concrete(shape, sizes), rng).astype(self.dtype)
            for k, shape in enumerate(self.shapes)
        ]

    def _values(self, k: int, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        if k in self.ids:
            return rng.integers(*self.ids[k], shape)
        if k in self.masks:
            mask: Array = rng.integers(0, 2, shape)
            if mask.ndim > 1:  # something counts in every row
                mask[..., rng.integers(0, shape[-1])] = 1
            return mask
        if self.positive:
            return rng.uniform(0.5, 1.5, shape)
        return rng.uniform(-1.5, 1.5, shape)

    def moved(self, k: int, x: Array, where: Array) -> Iterator[Array]:
        """Change an input at some entries, in a few ways: a maximum must not hide a change."""
        if k in self.ids:
            low, end = self.ids[k]
            for shift in (1, 2):
                yield np.where(where, (x - low + shift) % (end - low) + low, x)
        elif k in self.masks:
            yield np.where(where, 1 - x, x)
            yield np.where(where, 1.0, x)
            yield np.where(where, 0.0, x)
        else:
            bumps = np.random.default_rng(11).uniform(0.2, 0.4, x.shape)
            yield np.where(where, x + bumps, x)
            yield np.where(where, x + 10 * bumps, x)
            if not self.positive:
                yield np.where(where, x - 10 * bumps, x)

    def state(self, batch: int, seed: int = 5) -> dict[str, Array]:
        """Draw an initial state."""
        rng = np.random.default_rng(seed)
        return {
            name: rng.uniform(-0.5, 0.5, (batch, *shape)).astype(self.dtype)
            for name, shape in self.layer.state_shapes().items()
        }

    def run(
        self,
        inputs: Sequence[Array],
        state: Mapping[str, Array] | None = None,
        weights: Mapping[str, Array] | None = None,
        **options: Any,
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        """Compute outputs and the state after them, with the engine's view of inf and nan."""
        if state is None:
            dtype = inputs[0].dtype if inputs else self.dtype
            state = zeros(self.layer.state_shapes(), self.batch_of(inputs), dtype)
        packed = self.layer.pack(self.spec.weights if weights is None else weights)
        with np.errstate(all="ignore"):
            return self.layer.forward(packed, inputs, state, **options)

    def batch_of(self, inputs: Sequence[Array]) -> int:
        """Count the samples."""
        for shape, x in zip(self.shapes, inputs, strict=False):
            if BATCH in shape:
                return int(x.shape[shape.index(BATCH)])
        return 1

    def rounding(self, inputs: Sequence[Array], outputs: Sequence[Array], dtype: Any) -> float:
        """How far two orders of the same sums may be apart.

        Two sums of ``n`` terms differ by at most ``n eps`` of the largest; a recurrent layer hands
        its rounding on, at most once per step. ``n`` counts the terms of all sums of one output.
        """
        fans = sum(math.prod(w.shape[:-1]) for w in self.spec.weights.values())
        longest = max((max(x.shape, default=1) for x in inputs), default=1)
        entries = max((x.size // max(self.batch_of(inputs), 1) for x in inputs), default=1)
        finite = [np.abs(y[np.isfinite(y)]).max(initial=0.0) for y in outputs]
        scale = max([1.0, *map(float, finite)])
        return float((longest * (fans + 4) + entries) * np.finfo(dtype).eps * scale)

    def symbols(self) -> list[str]:
        """Symbols, other than the batch, that are axes of inputs."""
        found = [d for s in self.shapes for d in s if isinstance(d, str) and d.isidentifier()]
        return [d for d in dict.fromkeys(found) if d != BATCH]


def mask_inputs(layer: Operation, count: int) -> list[int]:
    """Which inputs are masks, by the layer's own ``masked_inputs``."""
    return list(range(count - len(layer.masked_inputs), count))


def vocabulary(layer: Operation) -> int:
    """How many ids there are, also of a layer inside."""
    inner = getattr(layer, "layer", layer)
    return int(getattr(inner, "vocabulary", 2))


def with_variances(spec: LayerSpec) -> LayerSpec:
    """Make variances positive, as statistics are, and numbers arrays."""
    weights = {
        key: np.abs(array) if key.endswith("moving_variance") else array
        for key, array in spec.weights.items()
    }
    return dataclasses.replace(spec, weights=weights)


def expect_close(actual: Array, expected: Array, atol: float, what: str) -> None:
    """Expect the same numbers but for rounding, and the same shape."""
    assert actual.shape == expected.shape, f"{what}: {actual.shape}, expected {expected.shape}"
    np.testing.assert_allclose(actual, expected, rtol=0, atol=atol, err_msg=what)
