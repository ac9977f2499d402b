"""What frameworks compute differently for layers of one kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from npylstm.arrays import Array

if TYPE_CHECKING:
    from npylstm.ops.base import Operation

__all__ = ["Convention"]


class Convention(NamedTuple):
    """A layer as another framework, or another version of it, computes it.

    Attributes
    ----------
    kind
        What the convention is about (``padding``, ``epsilon``, ...): the name of a function in
        :mod:`npylstm.parity.mistakes.conventions`, whose sentence contains entries of ``detail``.
    detail
        Plain values that describe it: ``{"from": 0.001, "to": 1e-05}``.
    operation
        The operation under the other convention.
    weights
        All weights under the other convention; None if they are the same.
    """

    kind: str
    detail: Mapping[str, Any]
    operation: Operation
    weights: Mapping[str, Array] | None = None
