"""What the runners of frameworks share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from npylstm import NpylstmError
from npylstm.ops.shapes import format_shape
from npylstm.spec import TensorSpec

__all__ = ["fixed_sizes", "named_outputs", "one_line"]


def fixed_sizes(inputs: Sequence[TensorSpec], shapes: Iterable[Sequence[Any]]) -> dict[str, int]:
    """Return the free sizes of a spec's inputs that are integers in a framework's shapes.

    Raises
    ------
    NpylstmError
        If the framework's model has other inputs: it is another model.
    """
    found = [tuple(shape) for shape in shapes]
    if [len(shape) for shape in found] != [len(tensor.shape) for tensor in inputs]:
        other = ", ".join(format_shape(["?" if d is None else d for d in s]) for s in found)
        raise NpylstmError(
            f"the source is of another model: it has inputs of the shapes {other or 'none'}, "
            f"expected those of {', '.join(map(str, inputs))}"
        )
    return {
        symbol: size
        for tensor, shape in zip(inputs, found, strict=True)
        for symbol, size in zip(tensor.shape, shape, strict=True)
        if isinstance(symbol, str) and isinstance(size, int)
    }


def named_outputs(names: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    """Return a framework's outputs by the names of the spec's.

    Raises
    ------
    NpylstmError
        If there are more or fewer: it is another model.
    """
    if len(values) != len(names):
        raise NpylstmError(
            f"the source is of another model: it has {len(values)} outputs, expected {len(names)}: "
            f"{', '.join(names)}"
        )
    return dict(zip(names, values, strict=True))


def one_line(error: Exception, longest: int) -> str:
    """Return the text of a framework's error in one line, cut to a length."""
    return " ".join(str(error).split())[:longest]
