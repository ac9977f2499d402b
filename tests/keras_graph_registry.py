"""The table of Keras graphs that the modules beside this one fill."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Builder = Callable[[Any], Any]
Steps = int | tuple[int, ...]

GRAPHS: dict[str, Builder] = {}
STEPS: dict[str, tuple[Steps, Steps]] = {}


def graph(*, steps: tuple[Steps, Steps] = (7, 4)) -> Callable[[Builder], Builder]:
    """Register a model; ``steps`` fills the free axes of its inputs, in two runs."""

    def register(build: Builder) -> Builder:
        GRAPHS[build.__name__] = build
        STEPS[build.__name__] = steps
        return build

    return register
