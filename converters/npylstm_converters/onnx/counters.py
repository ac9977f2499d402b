"""Numbers that count the iterations of a loop, and the conditions that end it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from npylstm_converters.errors import Refusal
from npylstm_converters.onnx.sizes import Size
from npylstm_converters.onnx.values import ConstantTensor, Sizes

__all__ = ["Condition", "Counter", "fold_counter"]


@dataclass(frozen=True)
class Counter:
    """``start + step * t`` in iteration ``t``; ``rank`` axes of size one."""

    start: Any  # an integer or a Size
    step: int
    rank: int = 0


@dataclass(frozen=True)
class Condition:
    """True in the first ``iterations``; a Size, or an integer."""

    iterations: tuple[Any, ...]

    @property
    def least(self) -> Any:
        """The smallest of the numbers.

        Raises
        ------
        Refusal
            If it depends on the call which one that is.
        """
        least = self.iterations[0]
        for other in self.iterations[1:]:
            least = other if other < least else least
        return least


def _scalar(value: Any) -> Any:
    """Return a known number, which may be a size."""
    if isinstance(value, (ConstantTensor, Sizes)) and value.array.size == 1:
        (entry,) = np.ravel(value.array).tolist()
        return int(entry) if isinstance(entry, float) and entry.is_integer() else entry
    raise Refusal("computes with the number of the iteration in a way that is not supported")


def fold_counter(operator: str, values: Sequence[Any]) -> Counter | Condition | None:
    """Evaluate an operator on a counter or a condition; None if it is no such operator.

    Raises
    ------
    Refusal
        If an operand is not known.
    """
    first = values[0]
    if operator in ("Identity", "Cast"):
        return first  # type: ignore[no-any-return]
    if operator == "And":
        return _both(values)
    if operator in ("Unsqueeze", "Reshape") and isinstance(first, Counter):
        return replace(first, rank=1)
    if operator == "Squeeze" and isinstance(first, Counter):
        return replace(first, rank=0)
    if operator in ("Add", "Sub") and len(values) == 2:
        return _moved(operator, values)
    if operator in ("Less", "Greater") and len(values) == 2:
        a, b = values if operator == "Less" else values[::-1]
        if isinstance(a, Counter) and a.step == 1:  # a.start + t < b
            return Condition((_scalar(b) - a.start,))
    return None


def _both(values: Sequence[Any]) -> Condition:
    ends: tuple[Any, ...] = ()
    for value in values:
        if isinstance(value, Condition):
            ends += value.iterations
        elif not (isinstance(value, ConstantTensor) and value.array.all()):
            raise Refusal("its end depends on the values of an input")
    return Condition(ends)


def _moved(operator: str, values: Sequence[Any]) -> Counter | None:
    a, b = values
    if isinstance(a, Counter) and not isinstance(b, Counter):
        other = _scalar(b)
        return replace(a, start=a.start - other if operator == "Sub" else a.start + other)
    if isinstance(b, Counter) and operator == "Add":
        return replace(b, start=b.start + _scalar(a))
    if isinstance(b, Counter) and not isinstance(a, Counter):
        start = _scalar(a) - b.start
        return Counter(start if isinstance(start, Size) else int(start), -b.step, b.rank)
    return None
