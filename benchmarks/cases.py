"""What is measured: the cells of the grid, their weights, and what is right for them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

Array = np.ndarray
GATES = {"lstm": 4, "gru": 3}


class Case(NamedTuple):
    """A stack of recurrent layers that returns its sequence."""

    kind: str
    batch: int
    steps: int
    features: int
    units: int
    layers: int

    def __str__(self) -> str:
        return (
            f"{self.kind} {self.batch} x {self.steps} x {self.features}, "
            f"{self.layers} x {self.units}"
        )

    @property
    def operations(self) -> int:
        """Multiplications and additions of all products."""
        per_step = sum(
            2 * GATES[self.kind] * self.units * (size + self.units) for size in self.sizes
        )
        return per_step * self.batch * self.steps

    @property
    def sizes(self) -> list[int]:
        """Features of each layer's input."""
        return [self.features] + [self.units] * (self.layers - 1)

    @property
    def recurrent_bytes(self) -> int:
        """Bytes of a recurrent kernel in float32: what every step reads at least."""
        return 4 * GATES[self.kind] * self.units * self.units


# batch, steps, features, units, layers
GRID = [
    Case("lstm", *sizes)
    for sizes in (
        (1, 1, 1, 20, 1), (1, 1, 64, 128, 1), (1, 1, 256, 256, 1), (1, 50, 1, 20, 2),
        (1, 50, 1, 32, 1), (1, 24, 1, 75, 1), (1, 100, 1, 100, 1), (1, 100, 128, 128, 1),
        (1, 100, 256, 256, 2), (1, 100, 512, 512, 1), (10, 50, 1, 20, 2), (32, 100, 64, 128, 1),
        (32, 100, 256, 256, 1), (32, 100, 512, 512, 1), (256, 50, 1, 20, 2), (390, 5, 1, 100, 1),
        (256, 100, 128, 128, 1), (256, 50, 512, 512, 1),
    )
]  # fmt: skip

GRU = [
    Case("gru", *sizes)
    for sizes in (
        (1, 50, 1, 32, 1), (1, 100, 128, 128, 1), (1, 100, 512, 512, 1), (32, 100, 64, 128, 1),
        (32, 100, 512, 512, 1), (256, 50, 1, 20, 2),
    )
]  # fmt: skip

# What two threads can share: rows, or the units of one long sequence.
THREADS = [case for case in GRID if case.batch >= 32 or (case.steps > 1 and case.units >= 256)]

# One step per call.
STREAMS = [Case("lstm", batch, 1, 1, units, 1) for batch in (1, 8) for units in (20, 32, 128, 512)]

# Long sequences of one feature, for the time of a step inside one call.
STEPS = [Case("lstm", 1, 1000, 1, units, 1) for units in (8, 16, 20, 32, 40, 64, 75)]


def make_weights(case: Case) -> list[dict[str, Array]]:
    """Draw the weights of each layer, as the frameworks begin: ``W`` (features, gates units), ...

    Gates stand side by side: i, f, c, o for an LSTM; z, r, h for a GRU, whose recurrent bias
    ``rb`` stands inside the reset product.
    """
    rng = np.random.default_rng(20)
    width = GATES[case.kind] * case.units
    bound = 1 / np.sqrt(case.units)

    def draw(*shape: int) -> Array:
        return rng.uniform(-bound, bound, shape).astype(np.float32)

    layers = []
    for features in case.sizes:
        weights = {"W": draw(features, width), "U": draw(case.units, width), "b": draw(width)}
        if case.kind == "gru":
            weights["rb"] = draw(width)
        layers.append(weights)
    return layers


def make_input(case: Case) -> Array:
    """Draw an input ``(batch, steps, features)``."""
    rng = np.random.default_rng(10)
    return rng.normal(size=(case.batch, case.steps, case.features)).astype(np.float32)


def reference(case: Case, weights: list[dict[str, Array]], x: Array) -> Array:
    """Compute the output in float64, by the formulas."""
    y = x.astype(np.float64)
    for layer in weights:
        W, U, b = (layer[key].astype(np.float64) for key in ("W", "U", "b"))
        h = np.zeros((case.batch, case.units))
        c = np.zeros_like(h)
        out = np.empty((case.batch, case.steps, case.units))
        for t in range(case.steps):
            z = y[:, t] @ W + b
            if case.kind == "lstm":
                i, f, g, o = np.split(z + h @ U, 4, axis=1)
                c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
                h = _sigmoid(o) * np.tanh(c)
            else:
                u = h @ U + layer["rb"].astype(np.float64)
                n = case.units
                update, reset = (
                    _sigmoid(z[:, :n] + u[:, :n]),
                    _sigmoid(z[:, n : 2 * n] + u[:, n : 2 * n]),
                )
                h = update * h + (1 - update) * np.tanh(z[:, 2 * n :] + reset * u[:, 2 * n :])
            out[:, t] = h
        y = out
    return y


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))
