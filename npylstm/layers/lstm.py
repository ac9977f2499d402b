"""Long short-term memory (Hochreiter and Schmidhuber 1997, with the forget gate of Gers 2000)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from npylstm.activations import SIGMOID, TANH, Activation
from npylstm.layers.base import (
    Array,
    Layer,
    Shape,
    expect_features,
    one_input,
    positive,
)

__all__ = ["GATES", "LSTM", "Gates"]

GATES = ("i", "f", "c", "o")


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
class LSTM(Layer):
    """A long short-term memory layer.

    At each time step, with ``s`` the recurrent activation and ``a`` the activation::

        i = s(x W_i + h U_i + b_i)          input gate
        f = s(x W_f + h U_f + b_f)          forget gate
        c~ = a(x W_c + h U_c + b_c)         candidate
        o = s(x W_o + h U_o + b_o)          output gate
        c = f * c + i * c~                  cell state
        h = o * a(c)                        hidden state

    Parameters
    ----------
    features, units
        Sizes of the input and of the hidden state.
    activation, recurrent_activation
        ``a`` and ``s`` above.
    return_sequences
        Give ``h`` of every step ``(batch, steps, units)`` rather than the last ``(batch, units)``.
    return_state
        Give the last ``h`` and ``c`` as two more outputs.
    go_backwards
        Read the steps from the last to the first; a sequence comes out in that order, too.
    stateful
        The framework carried state from call to call; here a session does. Kept as a fact.
    time_major
        Axes are ``(steps, batch, features)``, at the input and in the returned sequence.

    Weights
    -------
    ``W_i W_f W_c W_o`` (features, units), ``U_i U_f U_c U_o`` (units, units) and, with
    ``use_bias``, ``b_i b_f b_c b_o`` (units,).

    References
    ----------
    Hochreiter, Schmidhuber: Long Short-Term Memory, Neural Computation 9(8), 1997.
    Gers, Schmidhuber, Cummins: Learning to Forget, Neural Computation 12(10), 2000.
    """

    kind: ClassVar[str] = "lstm"

    features: int
    units: int
    activation: Activation = TANH
    recurrent_activation: Activation = SIGMOID
    use_bias: bool = True
    return_sequences: bool = False
    return_state: bool = False
    go_backwards: bool = False
    stateful: bool = False
    time_major: bool = False

    def __post_init__(self) -> None:
        positive("features", self.features)
        positive("units", self.units)

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {f"W_{g}": (self.features, self.units) for g in GATES}
        shapes |= {f"U_{g}": (self.units, self.units) for g in GATES}
        if self.use_bias:
            shapes |= {f"b_{g}": (self.units,) for g in GATES}
        return shapes

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"h": (self.units,), "c": (self.units,)}

    def output_names(self) -> tuple[str, ...]:
        return ("", "h", "c") if self.return_state else ("",)

    def output_shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        shape = one_input(inputs)
        expect_features(shape, self.features, rank=3)
        batch = shape[1] if self.time_major else shape[0]
        main = (*shape[:2], self.units) if self.return_sequences else (batch, self.units)
        state = (batch, self.units)
        return (main, state, state) if self.return_state else (main,)

    def pack(self, weights: Mapping[str, Array]) -> dict[str, Array]:
        """Set the four gates side by side: ``W`` (features, 4 units), ``U``, ``b``."""

        def side_by_side(letter: str) -> Array:
            return np.concatenate([weights[f"{letter}_{g}"] for g in GATES], axis=-1)

        W = side_by_side("W")
        b = side_by_side("b") if self.use_bias else np.zeros(4 * self.units, W.dtype)
        return {"W": W, "U": side_by_side("U"), "b": b}

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        gates = self.gates(packed, inputs[0], state)
        last = 0 if self.go_backwards else -1
        h, c = gates.h[:, last], gates.c[:, last]
        if self.return_sequences:
            main = gates.h[:, ::-1] if self.go_backwards else gates.h
            main = main.swapaxes(0, 1) if self.time_major else main
        else:
            main = h
        return (main, h, c) if self.return_state else (main,), {"h": h, "c": c}

    def gates(self, packed: Mapping[str, Array], x: Array, state: Mapping[str, Array]) -> Gates:
        """Run the recurrence and keep everything it computed, one array per gate."""
        W, U, b = packed["W"], packed["U"], packed["b"]
        s, a = self.recurrent_activation, self.activation
        if self.time_major:
            x = x.swapaxes(0, 1)
        h, c = state["h"], state["c"]
        z_x = x @ W + b  # the input's part of all gates, all steps at once
        batch, steps, _ = x.shape
        kept = Gates(*(np.empty((batch, steps, self.units), x.dtype) for _ in Gates._fields))
        for t in reversed(range(steps)) if self.go_backwards else range(steps):
            z_i, z_f, z_c, z_o = np.split(z_x[:, t] + h @ U, 4, axis=-1)
            i, f, c_tilde, o = s(z_i), s(z_f), a(z_c), s(z_o)
            c = f * c + i * c_tilde
            h = o * a(c)
            for array, value in zip(kept, (i, f, c_tilde, o, c, h), strict=True):
                array[:, t] = value
        return kept
