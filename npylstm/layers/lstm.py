"""Long short-term memory (Hochreiter and Schmidhuber 1997, with the forget gate of Gers 2000)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from npylstm.activations import SIGMOID, TANH, Activation
from npylstm.layers.base import (
    Array,
    Layer,
    Shape,
    along_features,
    expect_batch,
    expect_features,
    one_input,
    positive,
)

__all__ = ["GATES", "LSTM", "Gates"]

GATES = ("i", "f", "c", "o")

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
        along_features("activation", self.activation)
        along_features("recurrent_activation", self.recurrent_activation)

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
        expect_batch(shape, axis=int(self.time_major))
        batch = shape[1] if self.time_major else shape[0]
        main = (*shape[:2], self.units) if self.return_sequences else (batch, self.units)
        state = (batch, self.units)
        return (main, state, state) if self.return_state else (main,)

    def pack(self, weights: Mapping[str, Array]) -> dict[str, Array]:
        """Set the gates side by side: ``W`` (features, 4 units), ``U`` (units, 4 units), ``b``."""

        def side_by_side(letter: str) -> Array:
            return np.concatenate([weights[f"{letter}_{g}"] for g in _PACKED], axis=-1)

        W = side_by_side("W")
        b = side_by_side("b") if self.use_bias else np.zeros(4 * self.units, W.dtype)
        return {"W": W, "U": side_by_side("U"), "b": b}

    def forward(
        self, packed: Mapping[str, Array], inputs: Sequence[Array], state: Mapping[str, Array]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        x = self._batch_major(inputs[0])
        h, c = state["h"], state["c"]
        sequence = np.empty((*x.shape[:2], self.units), x.dtype) if self.return_sequences else None
        for k, (_, *_, c_t, h_t) in enumerate(self._steps(packed, x, h, c)):
            h, c = h_t, c_t
            if sequence is not None:
                sequence[:, k] = h
        main = h if sequence is None else self._batch_major(sequence)
        return (main, h, c) if self.return_state else (main,), {"h": h, "c": c}

    def gates(self, packed: Mapping[str, Array], x: Array, state: Mapping[str, Array]) -> Gates:
        """Run the recurrence and keep everything it computes, by the input's time step."""
        x = self._batch_major(x)
        kept = Gates(*(np.empty((*x.shape[:2], self.units), x.dtype) for _ in Gates._fields))
        for t, *values in self._steps(packed, x, state["h"], state["c"]):
            for array, value in zip(kept, values, strict=True):
                array[:, t] = value
        return kept

    def _batch_major(self, x: Array) -> Array:
        """Swap the first two axes of a time-major array, in either direction."""
        return x.swapaxes(0, 1) if self.time_major else x

    def _steps(
        self, packed: Mapping[str, Array], x: Array, h: Array, c: Array
    ) -> Iterator[tuple[int, Array, Array, Array, Array, Array, Array]]:
        """Advance step by step: t, i, f, c~, o, c, h."""
        W, U, b = packed["W"], packed["U"], packed["b"]
        s, a, n = self.recurrent_activation, self.activation, self.units
        z_x = x @ W + b  # the input's part of all gates, all steps at once
        times = range(x.shape[1])
        for t in reversed(times) if self.go_backwards else times:
            z = z_x[:, t] + h @ U
            gates = s(z[:, : 3 * n].reshape(-1, 3, n))  # apart, for softmax
            i, f, o = gates[:, 0], gates[:, 1], gates[:, 2]
            c_tilde = a(z[:, 3 * n :])
            c = f * c + i * c_tilde
            h = o * a(c)
            yield t, i, f, c_tilde, o, c, h
