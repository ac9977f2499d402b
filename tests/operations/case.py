"""Cases for the check of operations, the shapes that they share, and their names."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from npylstm.activations import Activation
from npylstm.ops.base import Operation
from npylstm.ops.shapes import Shape

__all__ = [
    "FIRST", "FLAT", "MAJOR", "MASK", "NESTED", "OTHER", "SEQUENCE", "STATE", "Case", "Refused",
    "case", "of",
]  # fmt: skip

FLAT: Shape = ("batch", 3)
SEQUENCE: Shape = ("batch", "steps", 3)
MAJOR: Shape = ("steps", "batch", 3)
FIRST: Shape = ("batch", 3, "steps")  # channels first
MASK: Shape = ("batch", "steps")
OTHER: Shape = ("batch", "other", 3)
NESTED: Shape = ("batch", "steps", "other", 3)
STATE: Shape = ("batch", 4)


@dataclasses.dataclass(frozen=True)
class Case:
    """A layer and shapes of its inputs; the rest goes to ``check_operation``."""

    layer: Operation
    shapes: tuple[Shape, ...]
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    note: str = ""

    def __str__(self) -> str:
        return f"{self.layer.kind}-{self.note or told(self.layer)}".rstrip("-")


@dataclasses.dataclass(frozen=True)
class Refused:
    """A layer that must not take such inputs, as it would mix samples."""

    layer: Operation
    shapes: tuple[Shape, ...]
    # Whether moving one sample shows it: not where samples are counted, where the axes are taken for
    # others in the state as well, or where they would stay apart after all.
    mixes: bool = True
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.layer.kind}-{told(self.layer)}".rstrip("-")


def told(layer: Operation) -> str:
    """Name what of a config is not the default."""
    parts = []
    for field in dataclasses.fields(layer):
        value = getattr(layer, field.name)
        if value == field.default or field.name in ("features", "units"):
            continue
        if isinstance(value, Operation):
            parts.append(f"{value.kind}({told(value)})")
        elif value is True:
            parts.append(field.name)
        else:
            text = str(value).replace(" ", "").strip("()").rstrip(",")
            parts.append(text if isinstance(value, str | Activation) else f"{field.name}={text}")
    return "-".join(parts)


def case(layer: Operation, *shapes: Shape, note: str = "", **options: Any) -> Case:
    """Write a case as ``check_operation`` is called."""
    return Case(layer, shapes, options, note)


def of(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make an oracle of a function of the inputs alone."""
    return lambda weights, *inputs: function(*inputs)
