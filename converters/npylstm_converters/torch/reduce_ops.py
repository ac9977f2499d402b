"""Reductions in traced programs that return several tensors, or have torch's own arguments.

See :mod:`npylstm_converters.torch.ops`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from npylstm.ops.arithmetic import Reduce
from npylstm_converters.errors import Refusal
from npylstm_converters.toolkit import array_ops
from npylstm_converters.torch.calls import Call

__all__ = ["arg_extreme", "extreme", "spread", "spread_and_mean"]


def extreme(word: str) -> Callable[..., Any]:
    """Return a function that finds the largest or smallest entry and its index."""

    def apply(call: Call, x: Any, axis: int, keepdims: bool = False) -> Any:
        source = call.tensor(x)
        made = [array_ops.reduce(word)(call, source, axis, keepdims)]
        return [*made, array_ops.arg_reduce(word)(call, source, axis, keepdims)]

    return apply


def arg_extreme(word: str) -> Callable[..., Any]:
    """Return a function that finds the index of the largest or smallest entry."""

    def apply(call: Call, x: Any, axis: Any = None, keepdims: bool = False) -> Any:
        if axis is None:
            raise Refusal("over all axes: samples would depend on one another; state dim")
        return array_ops.arg_reduce(word)(call, x, axis, keepdims)

    return apply


def spread(word: str) -> Callable[..., Any]:
    """Return a function that computes the variance or the standard deviation."""
    combine = array_ops.spread(word)

    def apply(
        call: Call, x: Any, axis: Any = None, unbiased: bool = True, keepdims: bool = False,
        correction: Any = None,
    ) -> Any:  # fmt: skip
        ddof = int(unbiased) if correction is None else int(correction)
        return combine(call, x, axis, ddof, keepdims)

    return apply


def spread_and_mean(word: str) -> Callable[..., Any]:
    """Return a function that computes the variance or deviation, and the mean."""
    combine = spread(word)

    def apply(
        call: Call, x: Any, axis: Any = None, unbiased: bool = True, keepdims: bool = False,
        correction: Any = None,
    ) -> Any:  # fmt: skip
        source = call.tensor(x)
        first = combine(call, source, axis, unbiased, keepdims, correction)
        axes = array_ops.axes_of(call, source, axis)
        return [first, call.add(Reduce("mean", axes, keepdims), source, part="mean")]

    return apply
