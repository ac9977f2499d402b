"""The simple recurrent layer (Elman 1990)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from npylstm.layers.base import Array
from npylstm.layers.recurrent import Recurrent

__all__ = ["SimpleRNN", "States"]


class States(NamedTuple):
    """Everything a simple recurrent layer computed: ``h`` (batch, steps, units)."""

    h: Array


@dataclass(frozen=True)
class SimpleRNN(Recurrent):
    """A layer whose state is its last output: ``h = a(x W_h + h U_h + b_h)``.

    Parameters are those of :class:`~npylstm.layers.recurrent.Recurrent`.

    Weights
    -------
    ``W_h`` (features, units), ``U_h`` (units, units) and, with ``use_bias``, ``b_h`` (units,).

    References
    ----------
    Elman: Finding Structure in Time, Cognitive Science 14(2), 1990.
    """

    kind: ClassVar[str] = "simple_rnn"
    gates: ClassVar[tuple[str, ...]] = ("h",)
    record: ClassVar[type[tuple[Array, ...]]] = States

    def pack(self, weights: Mapping[str, Array]) -> dict[str, Array]:
        return {letter: self.side_by_side(weights, letter) for letter in "WUb"}

    def step(
        self, packed: Mapping[str, Array], z: Array, state: tuple[Array, ...]
    ) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        h = self.activation(z + state[0] @ packed["U"])
        return (h,), (h,)
