"""Recognise a recurrent layer in the graph of one of its steps.

Exporters write out cells as products, sums and activations. Where a graph computes what an LSTM, a
GRU or a simple recurrent layer computes, the layer with the same weights takes its place, which
runs natively. The structure suggests which product belongs to which gate. Whether the suggestion is
right is decided by numbers: both are computed in float64 for random inputs. This is enough because
the graph may only add and multiply gates, of which it has as many as the layer.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from npylstm import NpylstmError
from npylstm.activations import LINEAR
from npylstm.arrays import Array
from npylstm.ops.base import Operation
from npylstm.ops.cells import GRU, LSTM, SimpleRNN
from npylstm_converters.toolkit.step_reader import Affine, Gate, StepBody, StepReader

__all__ = ["Cell", "recognise"]

_SAMPLES = 64  # of usual size, and as many that are larger by the factors below
# Limits that a graph sets to its states or sums show only in large numbers.
_FACTORS = (1.0, 1e2, 1e4, 1e6)
# Of the largest number that enters an entry. Numbers such as 0.2 are rounded to float32 in the
# graph (6e-8); other formulas differ by far more.
_TOLERANCE = 1e-6
_SYMMETRIC = ("sigmoid", "hard_sigmoid_fifth", "hard_sigmoid_sixth", "hard_sigmoid")


class Cell(NamedTuple):
    """A recurrent layer that computes the steps.

    Attributes
    ----------
    operation, weights
        The layer: time-major, with all steps and the final states as outputs.
    order
        For every state of the layer the index of the state of the graph.
    """

    operation: Operation
    weights: dict[str, Array]
    order: tuple[int, ...]


def recognise(body: StepBody) -> Cell | None:
    """Return the recurrent layer that the graph of a step is; None if it is another graph."""
    reader = _Candidates(body)
    if not reader.is_polynomial():
        return None
    for cell in (*reader.simple(), *reader.gru(), *reader.lstm()):
        h = reader.source(body.states[cell.order[0]][1])
        if all(reader.source(y) == h for y in body.outputs) and reader.agrees(cell):
            return cell
    return None


class _Candidates(StepReader):
    """Suggests layers for a step, and compares them with it."""

    def __init__(self, body: StepBody) -> None:
        super().__init__(body)
        self._gates = [*self.gates()]
        self._expected: tuple[list[Array], list[Array]] | None = None

    def _of(self, *leaves: str) -> list[Gate]:
        """Return the gates whose argument is a sum of products with exactly these leaves."""
        return [
            gate for gate in self._gates
            if set(gate.argument.terms) == {*leaves}
            and all(m is not None for m in gate.argument.terms.values())
        ]  # fmt: skip

    def simple(self) -> Iterator[Cell]:
        """Yield simple recurrent layers."""
        if len(self.body.states) != 1:
            return
        ((h, new),) = self.body.states
        if len(self._gates) > 1:
            return
        for gate in self._of(self.body.sequence, h):
            if gate.tensor == self.source(new):
                yield self._cell(SimpleRNN, {"h": gate}, (0,), activation=gate.activation)

    def lstm(self) -> Iterator[Cell]:
        """Yield LSTMs, with every order of gates and states."""
        if len(self.body.states) != 2:
            return
        for order in ((0, 1), (1, 0)):
            h = self.body.states[order[0]][0]
            gates = self._of(self.body.sequence, h)
            outer = [g.activation for g in self._gates if g not in gates]
            if len(gates) != 4 or len(outer) != 1:
                continue
            for chosen in itertools.permutations(gates):
                named = dict(zip("ifoc", chosen, strict=True))
                recurrent = {named[g].activation for g in "ifo"}
                if len(recurrent) == 1:
                    activation = named["c"].activation
                    yield self._cell(
                        LSTM, named, order, activation=activation,
                        recurrent_activation=recurrent.pop(),
                        output_activation=None if outer[0] == activation else outer[0],
                    )  # fmt: skip

    def gru(self) -> Iterator[Cell]:
        """Yield GRUs, with the reset gate before and after the product."""
        if len(self.body.states) != 1:
            return
        x, h = self.body.sequence, self.body.states[0][0]
        gates = self._of(x, h)
        sums = (edge.outputs[0] for edge in self.body.edges)
        linear = [Gate(t, LINEAR, self.affine(t)) for t in sums if t in self._sums()]
        for candidate in (*self._gates, *linear):
            others = [g for g in gates if g is not candidate]
            if {id(g) for g in self._gates} - {id(candidate)} != {id(g) for g in others}:
                continue  # a further gate
            inner = [leaf for leaf in candidate.argument.terms if leaf not in (x, h)]
            if len(others) != 2 or len(inner) != 1 or x not in candidate.argument.terms:
                continue
            for z, r in itertools.permutations(others):
                if z.activation == r.activation:
                    yield from self._gru_of(z, r, candidate, inner[0])

    def _sums(self) -> set[str]:
        """Return the tensors that are sums of two."""
        sums = (t for t in self.makers if self.operation(t).kind == "arithmetic")
        return {t for t in sums if self.operation(t).operation == "add"}

    def _gru_of(self, z: Gate, r: Gate, candidate: Gate, inner: str) -> Iterator[Cell]:
        h, kernel = self.body.states[0][0], candidate.argument.terms[inner]
        terms = {self.body.sequence: candidate.argument.terms[self.body.sequence]}
        after = kernel is None
        recurrent_bias = None
        if after:  # r * (h U + b)
            factors = [self.affine(t) for t in self.makers[inner].inputs]
            products = [f for f in factors if set(f.terms) == {h} and f.terms[h] is not None]
            if len(products) != 1:
                return
            terms[h], recurrent_bias = products[0].terms[h], products[0].bias
        else:
            terms[h] = kernel
        made = Gate(candidate.tensor, candidate.activation, Affine(terms, candidate.argument.bias))
        for update in (z, _inverted(z)):
            if update is None:
                continue
            cell = self._cell(
                GRU, {"z": update, "r": r, "h": made}, (0,), activation=candidate.activation,
                recurrent_activation=z.activation, reset_after=after,
            )  # fmt: skip
            if after:
                size = cell.weights["b_h"].size
                zeros = np.zeros(size, cell.weights["b_h"].dtype)
                own = zeros if recurrent_bias is None else recurrent_bias
                cell.weights.update(rb_z=zeros, rb_r=zeros, rb_h=own)
            yield cell

    def _cell(
        self, kind: Any, gates: Mapping[str, Gate], order: tuple[int, ...], **options: Any
    ) -> Cell:
        x, h = self.body.sequence, self.body.states[order[0]][0]
        weights: dict[str, Array] = {}
        for name, gate in gates.items():
            W, U = gate.argument.terms[x], gate.argument.terms[h]
            assert W is not None
            assert U is not None
            bias = gate.argument.bias
            weights |= {f"W_{name}": W, f"U_{name}": U}
            weights[f"b_{name}"] = np.zeros(W.shape[1], W.dtype) if bias is None else bias
        features, units = weights[f"W_{next(iter(gates))}"].shape
        operation = kind(
            features, units, time_major=True, return_sequences=True, return_state=True, **options
        )
        ordered = {}
        for name in operation.weight_shapes():
            ordered[name] = weights.get(name, np.zeros(units, np.float32))
        return Cell(operation, ordered, order)

    def agrees(self, cell: Cell) -> bool:
        """Whether a layer computes the new states that the graph computes."""
        shapes = cell.operation.weight_shapes()
        if any(cell.weights[name].shape != shape for name, shape in shapes.items()):
            return False
        if self._expected is None:
            self._expected = self._computed()
        inputs, expected = self._expected
        x, *states = inputs
        try:
            packed = cell.operation.pack(
                {name: w.astype(np.float64) for name, w in cell.weights.items()}
            )
            initial = [states[k] for k in cell.order]
            with np.errstate(over="ignore"):  # of exp: infinity gives the exact limit
                (_, *made), _ = cell.operation.forward(packed, [x[None], *initial], {})
        except (NpylstmError, ValueError):
            return False
        pairs = zip(made, initial, (expected[k] for k in cell.order), strict=True)
        return all(
            (
                np.abs(a - b) <= _TOLERANCE * np.maximum(1.0, np.maximum(np.abs(b), np.abs(old)))
            ).all()
            for a, old, b in pairs
        )

    def _computed(self) -> tuple[list[Array], list[Array]]:
        """Compute the graph in float64 for random inputs; return them, and the new states."""
        body, rng = self.body, np.random.default_rng(0)
        names = [body.sequence, *(read for read, _ in body.states)]
        batch = body.shapes[body.sequence][0]
        rows = batch if isinstance(batch, int) else _SAMPLES
        shapes = [(2 * _SAMPLES, int(body.shapes[n][-1])) for n in names]
        inputs = [2 * rng.standard_normal(shape) for shape in shapes]
        for x in inputs:  # each by factors of its own: a large state where the gates are open
            x[_SAMPLES:] *= rng.choice(_FACTORS, (_SAMPLES, 1))
        with np.errstate(over="ignore"):
            made = [
                self._step({n: x[k : k + rows] for n, x in zip(names, inputs, strict=True)})
                for k in range(0, 2 * _SAMPLES - rows + 1, rows)
            ]
        used = len(made) * rows
        return [x[:used] for x in inputs], [
            np.concatenate(part) for part in zip(*made, strict=True)
        ]

    def _step(self, inputs: Mapping[str, Array]) -> list[Array]:
        body, tensors = self.body, dict(inputs)
        for edge in body.edges:
            layer = body.layers[edge.layer]
            packed = layer.layer.pack({k: w.astype(np.float64) for k, w in layer.weights.items()})
            read = [tensors[t] for t in edge.inputs]
            made, _ = layer.layer.forward(packed, read, {})
            tensors |= dict(zip(edge.outputs, made, strict=True))
        return [tensors[new] for _, new in body.states]


def _inverted(gate: Gate) -> Gate | None:
    """Return the gate ``1 - gate``; None if its activation is not symmetric."""
    if gate.activation.name not in _SYMMETRIC:
        return None
    terms = {leaf: None if m is None else -m for leaf, m in gate.argument.terms.items()}
    bias = None if gate.argument.bias is None else -gate.argument.bias
    return gate._replace(argument=Affine(terms, bias))
