"""Recorded cases: runs of the framework."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from npylstm.arrays import Array
from npylstm.printable import clipped

__all__ = ["LONGEST_REPR", "Case", "equal_bits"]

LONGEST_REPR = 200  # characters


@dataclass(frozen=True, eq=False, repr=False)
class Case:
    """A recorded run of the framework. Two are equal if their arrays are equal bit by bit.

    Parameters
    ----------
    inputs, outputs
        Arrays by the names of the model's inputs and outputs.
    state
        The initial state, call to state to array ``(batch, units)``; empty means zeros.
    lengths
        Integers (batch,); None if all sequences are as long as the array.
    purpose
        A word for what the case tests: ``padding``, ``saturation``.
    """

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]
    state: Mapping[str, Mapping[str, Array]] = field(default_factory=dict)
    lengths: Array | None = None
    purpose: str = ""

    def __repr__(self) -> str:
        inputs, outputs = (
            ", ".join(f"{name} {np.shape(array)}" for name, array in arrays.items())
            for arrays in (self.inputs, self.outputs)
        )
        purpose = f" {self.purpose!r}" if self.purpose else ""
        text = f"{purpose}: {inputs} -> {outputs}"
        return f"<npylstm.Case{clipped(text, LONGEST_REPR - 14)}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Case):
            return NotImplemented
        return all(equal_bits(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))


def equal_bits(a: Any, b: Any) -> bool:
    """Compare arrays, or mappings of them, by shape, dtype and bytes: nan equals nan."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(equal_bits(a[key], b[key]) for key in a)
    if not isinstance(a, np.ndarray):
        return not isinstance(b, np.ndarray) and bool(a == b)
    same = isinstance(b, np.ndarray) and (a.shape, a.dtype) == (b.shape, b.dtype)
    return a is b or (same and a.tobytes() == b.tobytes())
