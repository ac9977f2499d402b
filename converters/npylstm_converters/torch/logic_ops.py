"""Operations of traced programs on truth values, choices and types of elements.

See :mod:`npylstm_converters.torch.ops`. Truth values are the numbers 0 and 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from npylstm.activations import Activation
from npylstm.ops.arithmetic import Arithmetic
from npylstm.ops.pointwise import ActivationLayer
from npylstm_converters.errors import Refusal
from npylstm_converters.toolkit import array_ops
from npylstm_converters.torch.builder import FilledTensor, Ref
from npylstm_converters.torch.calls import Call

__all__ = ["bitwise", "bitwise_not", "cast", "divide", "masked_fill", "where"]

_SMALL = ("uint8", "int8", "int16", "uint16")


def cast(call: Call, x: Any) -> Any:
    """Return the input in another type: whether it is not zero, or without its fraction."""
    if isinstance(x, FilledTensor) or call.dtype == call.source:
        return x
    if call.dtype in _SMALL and call.source != "bool":
        raise Refusal(f"casts to {call.dtype}, where numbers outside of its range wrap around")
    if call.dtype == "bool":
        return call.add(Arithmetic("not_equal", 0.0), call.tensor(x))
    if call.truncates:
        return call.add(ActivationLayer(Activation("trunc")), call.tensor(x))
    return x


def bitwise(operation: str) -> Callable[..., Ref]:
    """Return a function that combines truth values by a logical operation."""
    combine = array_ops.arithmetic(operation)

    def apply(call: Call, x: Any, y: Any) -> Ref:
        _check_truth(call)
        made: Ref = combine(call, x, y)
        return made

    return apply


def bitwise_not(call: Call, x: Any) -> Any:
    """Negate a truth value."""
    _check_truth(call)
    return array_ops.pointwise("logical_not")(call, x)


def _check_truth(call: Call) -> None:
    if call.source != "bool":
        raise Refusal("combines the bits of integers")


def where(call: Call, condition: Any, x: Any, y: Any) -> Any:
    """Return ``x`` where the condition holds, else ``y``."""
    return array_ops.where(call, condition, _number_or_tensor(x), _number_or_tensor(y))


def masked_fill(call: Call, x: Any, mask: Any, value: Any) -> Any:
    """Return ``value`` where the mask holds, else ``x``."""
    return array_ops.where(call, mask, _number_or_tensor(value), call.tensor(x))


def _number_or_tensor(value: Any) -> Any:
    """Return a number for one that fills a tensor; the other operands have the shape."""
    if isinstance(value, FilledTensor) and value.value is not None and value.traced == ():
        return value.value
    return value


def divide(call: Call, x: Any, y: Any, rounding_mode: Any = None) -> Any:
    """Divide; round down or towards zero."""
    if rounding_mode == "floor":
        return array_ops.arithmetic("floor_divide")(call, x, y)
    made = array_ops.arithmetic("divide")(call, x, y)
    if rounding_mode == "trunc":
        return call.add(ActivationLayer(Activation("trunc")), made, part="trunc")
    return made
