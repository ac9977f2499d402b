"""The recurrent layers: LSTM, GRU, SimpleRNN."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from npylstm.activations import SIGMOID, Activation
from npylstm.arrays import Array
from npylstm.blas import product
from npylstm.errors import FormatError
from npylstm.ops.checks import check_feature_activation
from npylstm.ops.conventions import Convention
from npylstm.ops.recurrent import Recurrent

__all__ = ["GRU", "LSTM", "GRUGates", "Gates", "SimpleRNN", "States"]


# Order of the packed gates: the three with the recurrent activation first.
_PACKED = ("i", "f", "o", "c")


class Gates(NamedTuple):
    """All values of an LSTM: six arrays ``(batch, steps, units)``.

    Entry ``[:, t]`` belongs to the input's time step ``t``, also with ``go_backwards``.

    Attributes
    ----------
    i, f, c_tilde, o
        Input gate, forget gate, candidate and output gate.
    c, h
        Cell state and hidden state after the step.
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

    With peepholes, gates also read the cell state: ``p_i * c`` and ``p_f * c`` of the step before
    are added to the inputs of ``i`` and ``f``, and ``p_o * c`` of this step to that of ``o``.

    Parameters
    ----------
    recurrent_activation
        ``s`` above; ``activation`` is ``a``, and the others are those of
        :class:`~npylstm.ops.recurrent.Recurrent`.
    projection
        Size of the projected hidden state (``proj_size`` of PyTorch); 0 for none. Then ``h`` has
        this size, ``c`` keeps ``units``.
    peepholes
        Whether there are peepholes.
    coupled
        The forget gate is ``1 - i``.
    output_activation
        Of ``c`` in the last line; None is ``a``.

    Weights
    -------
    ``W_i W_f W_c W_o`` (features, units), ``U_i U_f U_c U_o`` (units, units) and, with
    ``use_bias``, ``b_i b_f b_c b_o`` (units,). With a projection ``U`` is (projection, units), and
    ``P`` (units, projection). Peepholes are ``p_i p_f p_o`` (units,).

    References
    ----------
    Hochreiter, Schmidhuber: Long Short-Term Memory, Neural Computation 9(8), 1997.
    Gers, Schmidhuber, Cummins: Learning to Forget, Neural Computation 12(10), 2000.
    Gers, Schmidhuber: Recurrent Nets that Time and Count, IJCNN 2000 (the peepholes).
    Sak, Senior, Beaufays: Long Short-Term Memory Recurrent Neural Network Architectures for Large
    Scale Acoustic Modeling, Interspeech 2014 (the projection).
    """

    kind: ClassVar[str] = "lstm"
    gates: ClassVar[tuple[str, ...]] = ("i", "f", "c", "o")
    states: ClassVar[tuple[str, ...]] = ("h", "c")
    record: ClassVar[type[tuple[Array, ...]]] = Gates

    recurrent_activation: Activation = SIGMOID
    projection: int = dataclasses.field(default=0, kw_only=True)
    peepholes: bool = dataclasses.field(default=False, kw_only=True)
    coupled: bool = dataclasses.field(default=False, kw_only=True)
    output_activation: Activation | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.output_activation is not None:
            check_feature_activation("output_activation", self.output_activation)
        check_feature_activation("recurrent_activation", self.recurrent_activation)
        if self.projection < 0:
            raise FormatError(f"projection: expected 0 or more, got {self.projection}")

    @property
    def output_size(self) -> int:
        return self.projection or self.units

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        shapes = super().weight_shapes()
        if self.projection:
            shapes["P"] = (self.units, self.projection)
        if self.peepholes:
            shapes |= {f"p_{gate}": (self.units,) for gate in "ifo"}
        return shapes

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"h": (self.output_size,), "c": (self.units,)}

    @property
    def uses_matrix_products(self) -> bool:  # type: ignore[override]
        return not self.peepholes

    def conventions(self, weights: Mapping[str, Array]) -> Iterator[Convention]:
        """Yield the forget gate's bias larger or smaller by one (``unit_forget_bias``)."""
        for offset in (1.0, -1.0) if self.use_bias else ():
            bias = weights["b_f"] + np.asarray(offset, weights["b_f"].dtype)
            yield Convention("forget_bias", {"offset": offset}, self, {**weights, "b_f": bias})

    def pack(self, weights: Mapping[str, Array]) -> dict[str, Array]:
        """Concatenate the gates: ``W`` (features, 4 units), ``U`` (units, 4 units), ``b``."""
        packed = {letter: self.concatenate_gates(weights, letter, _PACKED) for letter in "WUb"}
        return packed | {k: w for k, w in weights.items() if k in ("P", "p_i", "p_f", "p_o")}

    def step(
        self, packed: Mapping[str, Array], z: Array, state: tuple[Array, ...]
    ) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        s, a, n = self.recurrent_activation, self.activation, self.units
        h, c = state
        z = (z + product(h, packed["U"])).reshape(-1, 4, n)  # an axis for gates, for softmax
        if self.peepholes:
            z[:, 0] += packed["p_i"] * c
            z[:, 1] += packed["p_f"] * c
        clipped = self.clipped(z)
        gates = s(clipped[:, :3])
        i, f, o = gates[:, 0], gates[:, 1], gates[:, 2]
        if self.coupled:
            f = 1 - i
        c_tilde = a(clipped[:, 3])
        c = f * c + i * c_tilde
        if self.peepholes:
            o = s(self.clipped(z[:, 2] + packed["p_o"] * c))
        h = o * (self.output_activation or a)(c)
        if self.projection:
            h = product(h, packed["P"])
        return (i, f, c_tilde, o, c, h), (h, c)


_SYMMETRIC = ("sigmoid", "hard_sigmoid_fifth", "hard_sigmoid_sixth")  # 1 - s(a) = s(-a)


class GRUGates(NamedTuple):
    """All values of a GRU: four arrays ``(batch, steps, units)``, by the input's step."""

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
        :class:`~npylstm.ops.recurrent.Recurrent`.
    reset_after
        The candidate's formula. Only the first has recurrent biases: that of the candidate is
        inside the product with ``r`` and cannot be added to ``b_h``.

    Weights
    -------
    ``W_z W_r W_h`` (features, units), ``U_z U_r U_h`` (units, units) and, with ``use_bias``,
    ``b_z b_r b_h`` (units,), with ``reset_after`` also ``rb_z rb_r rb_h`` (units,).

    References
    ----------
    Cho et al.: Learning Phrase Representations using RNN Encoder-Decoder, EMNLP 2014 (arXiv
    1406.1078: version 1 is similar to ``reset_after``, version 3 resets before the product).
    """

    kind: ClassVar[str] = "gru"
    gates: ClassVar[tuple[str, ...]] = ("z", "r", "h")
    record: ClassVar[type[tuple[Array, ...]]] = GRUGates

    recurrent_activation: Activation = SIGMOID
    reset_after: bool = dataclasses.field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_feature_activation("recurrent_activation", self.recurrent_activation)

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        shapes = super().weight_shapes()
        if self.use_bias and self.reset_after:
            shapes |= {f"rb_{g}": (self.units,) for g in self.gates}
        return shapes

    def conventions(self, weights: Mapping[str, Array]) -> Iterator[Convention]:
        """Yield the reset gate on the other side of the product, and z and 1 - z exchanged."""
        for rule, reset_after, changed in self._resets(weights):
            other = dataclasses.replace(self, reset_after=reset_after)
            yield Convention("reset_after", {"rule": rule}, other, changed)
        if self.recurrent_activation.name in _SYMMETRIC:
            turned = {k: -a if k.endswith("_z") else a for k, a in weights.items()}
            yield Convention("update_gate_inverted", {}, self, turned)

    def _resets(
        self, weights: Mapping[str, Array]
    ) -> Iterator[tuple[str, bool, Mapping[str, Array]]]:
        """Yield other rules of the reset gate: their names, ``reset_after``, all weights."""
        biases = self.gates if self.use_bias else ()
        if not self.reset_after:
            added = {f"rb_{g}": np.zeros_like(weights[f"b_{g}"]) for g in biases}
            yield "after the product", True, {**weights, **added}
            return
        left = {k: a for k, a in weights.items() if not k.startswith("rb_")}
        summed = {f"b_{g}": weights[f"b_{g}"] + weights[f"rb_{g}"] for g in biases}
        yield "before the product", False, {**left, **summed}
        if biases:
            outside = {"b_h": summed["b_h"], "rb_h": np.zeros_like(weights["rb_h"])}
            yield "after the product, bias outside", True, {**weights, **outside}
            yield "before the product, without the recurrent bias", False, left

    def pack(self, weights: Mapping[str, Array]) -> dict[str, Array]:
        """Concatenate the gates: ``W`` (features, 3 units), ``U``, ``b``, ``rb``."""
        packed = {letter: self.concatenate_gates(weights, letter) for letter in "WUb"}
        recurrent_bias = np.zeros_like(packed["b"])
        if self.use_bias and self.reset_after:
            recurrent_bias = self.concatenate_gates(weights, "rb")
        if self.reset_after:
            return packed | {"rb": recurrent_bias}
        # The candidate's product needs the reset gate.
        del packed["U"]
        gates = self.concatenate_gates(weights, "U", self.gates[:2])
        rb_gates = recurrent_bias[: 2 * self.units]
        return packed | {"U_gates": gates, "rb_gates": rb_gates, "U_h": weights["U_h"]}

    def step(
        self, packed: Mapping[str, Array], z: Array, state: tuple[Array, ...]
    ) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        s, a, n = self.recurrent_activation, self.activation, self.units
        (h,) = state
        if self.reset_after:
            recurrent = product(h, packed["U"]) + packed["rb"]
            gates = z[:, : 2 * n] + recurrent[:, : 2 * n]
        else:
            gates = z[:, : 2 * n] + product(h, packed["U_gates"])
        gates = s(self.clipped(gates).reshape(-1, 2, n))
        update, reset = gates[:, 0], gates[:, 1]
        if self.reset_after:
            candidate = z[:, 2 * n :] + reset * recurrent[:, 2 * n :]
        else:
            candidate = z[:, 2 * n :] + product(reset * h, packed["U_h"])
        h_tilde = a(self.clipped(candidate))
        h = update * h + (1 - update) * h_tilde
        return (update, reset, h_tilde, h), (h,)


class States(NamedTuple):
    """All values of a simple recurrent layer: ``h`` (batch, steps, units)."""

    h: Array


@dataclass(frozen=True)
class SimpleRNN(Recurrent):
    """A layer whose state is its output: ``h = a(x W_h + h U_h + b_h)``.

    Parameters are those of :class:`~npylstm.ops.recurrent.Recurrent`.

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
        return {letter: self.concatenate_gates(weights, letter) for letter in "WUb"}

    def step(
        self, packed: Mapping[str, Array], z: Array, state: tuple[Array, ...]
    ) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        h = self.activation(self.clipped(z + product(state[0], packed["U"])))
        return (h,), (h,)
