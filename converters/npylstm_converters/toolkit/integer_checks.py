"""Integers of a framework, which are floats here: what an operation on them needs behind it."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt

from npylstm.ops.base import Operation
from npylstm.ops.integers import Integers
from npylstm_converters.errors import Refusal

__all__ = ["check_behind", "check_numbers", "is_integer_type"]

_TYPE = re.compile(r"(u?)int(8|16|32|64)")


def is_integer_type(dtype: str) -> bool:
    """Whether a type holds integers; truth values are none."""
    return _TYPE.fullmatch(dtype) is not None


def check_behind(operation: Operation, dtype: str, floats: Any) -> Integers | None:
    """Return the check that floats hold the result of an operation.

    Parameters
    ----------
    operation
        The operation.
    dtype
        The framework's type of the result: ``int32``.
    floats
        The model's type.

    Returns
    -------
    Integers or None
        None if the result are no integers, or none that the operation computes.

    Raises
    ------
    Refusal
        If the floats do not hold the number that the operation computes with.
    """
    found = _TYPE.fullmatch(dtype)
    if found is None or not operation.computes_integers:
        return None
    if operation.operand is not None:
        check_numbers(np.asarray(int(operation.operand)), floats)
    return Integers(int(found[2]), not found[1])


def check_numbers(array: npt.NDArray[Any], floats: Any) -> None:
    """Check that floats hold the integers of a constant.

    Raises
    ------
    Refusal
        With the first that they do not hold.
    """
    if array.dtype.kind not in "iu":
        return
    large = array[np.abs(array.astype(np.float64)) >= 2 ** (np.finfo(floats).nmant + 1)]
    for number in large.tolist():
        if int(np.dtype(floats).type(number)) != number:
            raise Refusal(
                f"computes integers with {number}, which {floats}, in which the model computes, "
                "does not hold exactly"
            )
