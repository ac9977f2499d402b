"""Gated recurrent unit (Cho et al. 2014), with the reset gate before or after the product."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from npylstm.activations import SIGMOID, Activation
from npylstm.layers.base import Array, along_features
from npylstm.layers.recurrent import Recurrent

__all__ = ["GRU", "GRUGates"]


class GRUGates(NamedTuple):
    """Everything a GRU computed: four arrays ``(batch, steps, units)``, by the input's step."""

    z: Array
    r: Array
    h_tilde: Array
    h: Array


@dataclass(frozen=True)
class GRU(Recurrent):
    """A layer of gated recurrent units.

    At each time step, with ``s`` the recurrent activation and ``a`` the activation::

        z = s(x W_z + b_z + h U_z + rb_z)            update gate
        r = s(x W_r + b_r + h U_r + rb_r)            reset gate
        h~ = a(x W_h + b_h + r * (h U_h + rb_h))     candidate, reset after the product
        h~ = a(x W_h + b_h + (r * h) U_h)            candidate, reset before the product
        h = z * h + (1 - z) * h~                     hidden state

    Parameters
    ----------
    recurrent_activation
        ``s`` above; ``activation`` is ``a``, and the others are those of
        :class:`~npylstm.layers.recurrent.Recurrent`.
    reset_after
        Which candidate. Only the first has recurrent biases: the one of the candidate stands
        inside the reset product and cannot be added to the other.

    Weights
    -------
    ``W_z W_r W_h`` (features, units), ``U_z U_r U_h`` (units, units) and, with ``use_bias``,
    ``b_z b_r b_h`` (units,), with ``reset_after`` also ``rb_z rb_r rb_h`` (units,).

    References
    ----------
    Cho et al.: Learning Phrase Representations using RNN Encoder-Decoder, EMNLP 2014 (the first
    version is ``reset_after``'s relative 1406.1078v1, the third resets before the product).
    """

    kind: ClassVar[str] = "gru"
    gates: ClassVar[tuple[str, ...]] = ("z", "r", "h")
    record: ClassVar[type[tuple[Array, ...]]] = GRUGates

    recurrent_activation: Activation = SIGMOID
    reset_after: bool = dataclasses.field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        along_features("recurrent_activation", self.recurrent_activation)

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        shapes = super().weight_shapes()
        if self.use_bias and self.reset_after:
            shapes |= {f"rb_{g}": (self.units,) for g in self.gates}
        return shapes

    def pack(self, weights: Mapping[str, Array]) -> dict[str, Array]:
        """Set the gates side by side: ``W`` (features, 3 units), ``U``, ``b``, ``rb``."""
        packed = {letter: self.side_by_side(weights, letter) for letter in "WUb"}
        recurrent_bias = np.zeros_like(packed["b"])
        if self.use_bias and self.reset_after:
            recurrent_bias = self.side_by_side(weights, "rb")
        if self.reset_after:
            return packed | {"rb": recurrent_bias}
        # The candidate's product waits for the reset gate.
        gates = np.ascontiguousarray(packed.pop("U")[:, : 2 * self.units])
        rb_gates = recurrent_bias[: 2 * self.units]
        return packed | {"U_gates": gates, "rb_gates": rb_gates, "U_h": weights["U_h"]}

    def step(
        self, packed: Mapping[str, Array], z: Array, state: tuple[Array, ...]
    ) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        s, a, n = self.recurrent_activation, self.activation, self.units
        (h,) = state
        if self.reset_after:
            recurrent = h @ packed["U"] + packed["rb"]
            gates = z[:, : 2 * n] + recurrent[:, : 2 * n]
        else:
            gates = z[:, : 2 * n] + h @ packed["U_gates"]
        gates = s(gates.reshape(-1, 2, n))
        update, reset = gates[:, 0], gates[:, 1]
        if self.reset_after:
            h_tilde = a(z[:, 2 * n :] + reset * recurrent[:, 2 * n :])
        else:
            h_tilde = a(z[:, 2 * n :] + (reset * h) @ packed["U_h"])
        h = update * h + (1 - update) * h_tilde
        return (update, reset, h_tilde, h), (h,)
