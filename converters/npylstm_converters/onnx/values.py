"""The values of an ONNX graph while it is converted: constants, sizes, tensors of the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from npylstm.arrays import Array
from npylstm_converters.errors import Refusal

__all__ = ["ConstantTensor", "Ref", "Sizes", "Value", "flag", "integers", "kind_of", "objects"]


@dataclass(frozen=True, eq=False)
class ConstantTensor:
    """A tensor that depends on no input; ``sources`` names the initializers that it is from."""

    array: Array
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Sizes:
    """Integers of which some depend on the sizes of inputs: an array of objects.

    Attributes
    ----------
    array
        The integers.
    kind
        Their type in the graph, as :attr:`Ref.kind`: sizes may be cast to floats.
    """

    array: Array
    kind: str = "i"


@dataclass(frozen=True)
class Ref:
    """A tensor of the model under construction.

    Attributes
    ----------
    name
        Its name there.
    kind
        ``"f"`` for floats, ``"i"`` for integers, ``"b"`` for booleans: the type in the graph, on
        which the meaning of a division or a cast depends.
    """

    name: str
    kind: str = "f"


Value = ConstantTensor | Sizes | Ref


def kind_of(value: Value) -> str:
    """Return the type of a value, as :attr:`Ref.kind`."""
    if isinstance(value, (Ref, Sizes)):
        return value.kind
    kind = value.array.dtype.kind
    return kind if kind in "fb" else "i"


def objects(value: Any) -> Array:
    """Return integers that are known or depend on sizes only, as an array of objects.

    Raises
    ------
    Refusal
        If they are computed from the values of an input.
    """
    if isinstance(value, (ConstantTensor, Sizes)):
        return value.array.astype(object)
    raise Refusal("expected sizes or a constant, got a tensor that is computed from an input")


def integers(value: Any) -> list[Any]:
    """Return a list of integers, of which some may be sizes; see :func:`objects`."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return list(value)
    array = objects(value)
    return [d if type(d).__name__ == "Size" else int(d) for d in np.ravel(array).tolist()]


def flag(value: Any) -> bool:
    """Return a condition that is known; see :func:`objects`."""
    (entry,) = np.ravel(objects(value)).tolist()
    return bool(entry)
