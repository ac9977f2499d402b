"""A check of integers, which are computed as floats here."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from npylstm.arrays import Array
from npylstm.errors import FormatError, ShapeError
from npylstm.ops.pointwise import Identity

__all__ = ["Integers"]


@dataclass(frozen=True)
class Integers(Identity):
    """Return the input, or raise an error if it may differ from what a framework's integers give.

    Floats hold integers up to a limit, 2**24 in float32. Beyond it sums and products are rounded.
    Integers of few bits wrap around at the ends of their range.

    Parameters
    ----------
    bits
        Of the framework's integers: 8, 16, 32 or 64.
    signed
        Whether they may be negative.
    """

    kind: ClassVar[str] = "integers"
    returns_input: ClassVar[bool] = False  # a call checks it

    bits: int = 64
    signed: bool = True

    def __post_init__(self) -> None:
        if self.bits not in (8, 16, 32, 64):
            raise FormatError(f"bits: expected 8, 16, 32 or 64, got {self.bits}")

    def check_values(self, x: Array) -> None:
        # A larger sum may have been rounded to 2**24 itself, which is therefore outside.
        exact = 2 ** (np.finfo(x.dtype).nmant + 1) - 1
        high = min(2 ** (self.bits - self.signed) - 1, exact)
        low = max(-(2 ** (self.bits - 1)), -exact) if self.signed else 0
        # A parity check perturbs numbers a little. nan is outside, too.
        if x.size and not (x.min() > low - 0.5 and x.max() < high + 0.5):
            at = tuple(int(k) for k in np.argwhere(~((x > low - 0.5) & (x < high + 0.5)))[0])
            why = f"{x.dtype} rounds larger ones"
            if high < exact:
                why = f"integers of {self.bits} bits wrap around there"
            raise ShapeError(
                f"expected integers from {low} to {high}, as {why}; got {x[at]:.0f} at {at}"
            )

    def prepare(
        self, packed: Mapping[str, Array], inputs: Sequence[Array]
    ) -> tuple[list[Callable[[], object]], tuple[Array, ...]]:
        return [functools.partial(self.check_values, inputs[0])], (inputs[0],)

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        self.check_values(inputs[0])
        return super().forward(packed, inputs, state)
