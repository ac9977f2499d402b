"""Rows for operations of torch: the names of arguments that nearly all of them share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from npylstm_converters.toolkit.translation import Row

__all__ = ["only", "rows"]

# torch's names of most operations' arguments. Element types are checked at the outputs.
_NAMES = {"self": "x", "input": "x", "other": "y", "mat2": "y", "dim": "axis", "dims": "axes",
          "keepdim": "keepdims", "tensors": "xs"}  # fmt: skip
_NEUTRAL = ("dtype", "layout", "device", "pin_memory", "non_blocking", "copy", "memory_format",
            "half_to_float")  # fmt: skip


def rows(
    function: Callable[..., Any], *names: str, neutral: Sequence[str] = (), **rename: str
) -> Iterator[Row]:
    """Yield a row for each name; ``rename`` has the function's parameters by torch's names."""
    for name in names:
        yield Row(f"aten.{name}", function, {**_NAMES, **rename}, neutral=(*_NEUTRAL, *neutral))


def only(made: Iterator[Row], **values: tuple[Any, ...]) -> Iterator[Row]:
    """Return rows whose arguments are supported with some values only."""
    return (row._replace(only=values) for row in made)
