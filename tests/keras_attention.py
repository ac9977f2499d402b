"""Masks, inputs, and the table of Keras models that the modules beside this one fill."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

# One row each; 1 where a step counts.
PATTERNS = (
    "1111111",
    "0001111",
    "1111000",
    "1100111",
    "0101010",
    "1010101",
    "0000000",
    "0110100",
)
MASK = np.array([[step == "1" for step in row] for row in PATTERNS])
STEPS, FEATURES, UNITS = MASK.shape[1], 3, 4

# Words of letters.
LETTERS = np.array(
    [
        [[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]],
        [[1, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]],
        [[0, 0, 1, 1], [1, 0, 1, 0], [1, 1, 1, 1]],
        [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]],
    ],
    dtype=bool,
)
WORDS, SIZE = LETTERS.shape[1:]

Make = Callable[[Any], Any]


def soft(k: Any, kind: str = "SimpleRNN", units: int = UNITS, **options: Any) -> Any:
    """A recurrent layer that tf_keras does not build for cuDNN, too, which takes a second each."""
    return getattr(k.layers, kind)(units, activation="softsign", **options)


def sequence(k: Any, name: str, masked: bool = True, steps: int | None = None) -> tuple[Any, Any]:
    """An input, and what a recurrent layer makes of it at each step."""
    x = k.Input((steps, FEATURES), name=name)
    y = k.layers.Masking(name=f"masking_{name}")(x) if masked else x
    return x, soft(k, return_sequences=True, name=f"rnn_{name}")(y)


def apart(k: Any, *tensors: Any) -> list[Any]:
    """The same again, in tensors that nobody else reads."""
    return [k.layers.Dense(UNITS)(t) for t in tensors]


def tensors(made: Any) -> list[Any]:
    return [t for m in made for t in tensors(m)] if isinstance(made, (list, tuple)) else [made]


def chained(k: Any, *layers: Any, shape: Sequence[int | None] = (None, FEATURES)) -> Any:
    return k.Sequential([k.Input(shape, name="x"), *layers])


ROWS: dict[str, Make] = {}


def row(make: Make) -> Make:
    ROWS[make.__name__] = make
    return make


def rows(**made: Make) -> None:
    ROWS.update(made)
