"""Checks of configs and input shapes that several operations share; all raise FormatError."""

from __future__ import annotations

import math
from collections.abc import Sequence

from npylstm.activations import Activation
from npylstm.errors import FormatError, ShapeError, SizeMismatchError
from npylstm.ops.shapes import Shape, format_shape

__all__ = [
    "check_entries",
    "check_feature_activation",
    "check_features",
    "mismatch",
    "one_input",
    "one_of",
    "positive",
    "positive_number",
]


def positive(name: str, value: int) -> None:
    """Check that a size is at least one."""
    if value < 1:
        raise FormatError(f"{name}: expected a positive integer, got {value}")


def positive_number(name: str, value: float) -> None:
    """Check that a number is above zero and finite."""
    if not (value > 0 and math.isfinite(value)):
        raise FormatError(f"{name}: expected a positive number, got {value}")


def one_of(name: str, value: str, known: Sequence[str]) -> None:
    """Check that a word is one of those known."""
    if value not in known:
        raise FormatError(f"{name}: expected one of {', '.join(known)}, got {value!r:.40}")


def check_features(shape: Shape, features: int, rank: int | None = None) -> None:
    """Check the rank of an input and the size of its last axis."""
    if rank is not None and len(shape) != rank:
        raise FormatError(f"expected an input of {rank} axes, got {format_shape(shape)}")
    if len(shape) < 2 or shape[-1] != features:
        raise FormatError(f"expected {features} features, got an input {format_shape(shape)}")


def check_entries(operation: str, shape: Shape, axes: Sequence[int]) -> None:
    """Check in a call that the axes which are reduced have an entry."""
    for axis in axes:
        if not shape[axis]:
            raise ShapeError(
                f"{operation} along axis {axis} of {format_shape(shape)}: expected at least one "
                "entry; the input of the model has too few steps"
            )


def check_feature_activation(name: str, activation: Activation) -> None:
    """Check that an activation mixes no values, or only those along the last axis."""
    if activation.axis not in (None, -1):
        raise FormatError(f"{name}: expected {activation.name} along axis -1, got {activation}")


def mismatch(message: str, expected: Sequence[Shape], got: Sequence[Shape]) -> FormatError:
    """Return the error for other shapes than expected; it names sizes that should be equal."""
    for a, b in zip(expected, got, strict=False):
        if len(a) == len(b):
            for size, other in zip(a, b, strict=True):
                if size != other and (isinstance(size, str) or isinstance(other, str)):
                    return SizeMismatchError(message, (size, other))
    return FormatError(message)


def one_input(inputs: Sequence[Shape]) -> Shape:
    """Return the shape of the only input; raise FormatError if there are several."""
    if len(inputs) != 1:
        raise FormatError(f"expected 1 input, got {len(inputs)}")
    return inputs[0]
