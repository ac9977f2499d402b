"""What the runners of frameworks share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from npylstm.spec import TensorSpec

__all__ = ["fixed_sizes", "one_line"]


def fixed_sizes(inputs: Sequence[TensorSpec], shapes: Iterable[Sequence[Any]]) -> dict[str, int]:
    """Return the free sizes of a spec's inputs that are integers in a framework's shapes."""
    return {
        symbol: size
        for tensor, shape in zip(inputs, shapes, strict=True)
        for symbol, size in zip(tensor.shape, shape, strict=True)
        if isinstance(symbol, str) and isinstance(size, int)
    }


def one_line(error: Exception, longest: int) -> str:
    """Return the text of a framework's error in one line, cut to a length."""
    return " ".join(str(error).split())[:longest]
