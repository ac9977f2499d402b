"""Long short-term memory (Hochreiter and Schmidhuber 1997, with the forget gate of Gers 2000)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from npylstm.activations import SIGMOID, Activation
from npylstm.errors import FormatError
from npylstm.layers.base import Array, along_features
from npylstm.layers.recurrent import Recurrent

__all__ = ["LSTM", "Gates"]

# Side by side for computing: the three that share an activation first.
_PACKED = ("i", "f", "o", "c")


class Gates(NamedTuple):
    """Everything an LSTM computed: six arrays ``(batch, steps, units)``.

    Entry ``[:, t]`` belongs to the input's time step ``t``, also in a layer that goes
    backwards.
    """

    i: Array
    f: Array
    c_tilde: Array
    o: Array
    c: Array
    h: Array


@dataclass(frozen=True)
class LSTM(Recurrent):
    """A long short-term memory layer.

    At each time step, with ``s`` the recurrent activation and ``a`` the activation::

        i = s(x W_i + h U_i + b_i)          input gate
        f = s(x W_f + h U_f + b_f)          forget gate
        c~ = a(x W_c + h U_c + b_c)         candidate
        o = s(x W_o + h U_o + b_o)          output gate
        c = f * c + i * c~                  cell state
        h = o * a(c)                        hidden state
        h = (o * a(c)) P                    with a projection

    Parameters
    ----------
    recurrent_activation
        ``s`` above; ``activation`` is ``a``, and the others are those of
        :class:`~npylstm.layers.recurrent.Recurrent`.
    projection
        Size of the projected hidden state (``proj_size`` of PyTorch); 0 for none. Then ``h`` has
        this size, ``c`` keeps ``units``.

    Weights
    -------
    ``W_i W_f W_c W_o`` (features, units), ``U_i U_f U_c U_o`` (units, units) and, with
    ``use_bias``, ``b_i b_f b_c b_o`` (units,). With a projection ``U`` is (projection, units), and
    ``P`` (units, projection).

    References
    ----------
    Hochreiter, Schmidhuber: Long Short-Term Memory, Neural Computation 9(8), 1997.
    Gers, Schmidhuber, Cummins: Learning to Forget, Neural Computation 12(10), 2000.
    Sak, Senior, Beaufays: Long Short-Term Memory Recurrent Neural Network Architectures for Large
    Scale Acoustic Modeling, Interspeech 2014 (the projection).
    """

    kind: ClassVar[str] = "lstm"
    gates: ClassVar[tuple[str, ...]] = ("i", "f", "c", "o")
    record: ClassVar[type[tuple[Array, ...]]] = Gates

    recurrent_activation: Activation = SIGMOID
    projection: int = dataclasses.field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        along_features("recurrent_activation", self.recurrent_activation)
        if self.projection < 0:
            raise FormatError(f"projection: expected 0 or more, got {self.projection}")

    @property
    def outputs_size(self) -> int:
        return self.projection or self.units

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        shapes = super().weight_shapes()
        return shapes | {"P": (self.units, self.projection)} if self.projection else shapes

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"h": (self.outputs_size,), "c": (self.units,)}

    def pack(self, weights: Mapping[str, Array]) -> dict[str, Array]:
        """Set the gates side by side: ``W`` (features, 4 units), ``U`` (units, 4 units), ``b``."""
        packed = {letter: self.side_by_side(weights, letter, _PACKED) for letter in "WUb"}
        return packed | {"P": weights["P"]} if self.projection else packed

    def step(
        self, packed: Mapping[str, Array], z: Array, state: tuple[Array, ...]
    ) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        s, a, n = self.recurrent_activation, self.activation, self.units
        h, c = state
        z = z + h @ packed["U"]
        gates = s(z[:, : 3 * n].reshape(-1, 3, n))  # apart, for softmax
        i, f, o = gates[:, 0], gates[:, 1], gates[:, 2]
        c_tilde = a(z[:, 3 * n :])
        c = f * c + i * c_tilde
        h = o * a(c)
        if self.projection:
            h = h @ packed["P"]
        return (i, f, c_tilde, o, c, h), (h, c)
