"""Parts of randomly drawn Keras graphs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

MERGES = ["Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"]

Steps = tuple[int, int] | None  # (a, b): a times the free steps, plus b; None: no time axis


@dataclasses.dataclass(eq=False)
class Wire:
    """A tensor, with its steps and features."""

    tensor: Any
    steps: Steps
    features: int
    label: str
    read: bool = False

    @property
    def timed(self) -> bool:
        return self.steps is not None


@dataclasses.dataclass
class Reusable:
    """A layer or model that may be called again: what it takes, and what becomes of the sizes."""

    layer: Any
    label: str
    takes: list[tuple[bool | None, int]]  # whether timed (None: either), features
    makes: Callable[[list[Wire]], list[tuple[Steps, int]]]


@dataclasses.dataclass
class Drawn:
    """A drawn model, and how it is to be saved."""

    model: Any
    framework: str
    way: str
    text: str
