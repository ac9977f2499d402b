"""Running a corrected model: in its own type, in float64, and moved by a unit in the last place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from npylstm.errors import NpylstmError
from npylstm.parity.comparison import Comparison, compare
from npylstm.parity.corrections import Correction, Outputs
from npylstm.parity.examples import Example
from npylstm.parity.rounding import PERTURBATIONS, Widening
from npylstm.parity.variants import Ran, Tape, Wrap, run_graph
from npylstm.spec import Case, ModelSpec

__all__ = ["FAILURES", "UNCHANGED", "compared_outputs", "corrected_outputs", "float64_outputs"]

# What a layer or a correction raises when it cannot take what it is given.
FAILURES = (NpylstmError, ValueError, IndexError, ArithmeticError, np.linalg.LinAlgError)

UNCHANGED = Correction(None, {}, "")


def compared_outputs(
    spec: ModelSpec, tapes: Sequence[Tape], correction: Correction = UNCHANGED
) -> tuple[Comparison, ...]:
    """Compare a corrected model with the examples, by the rounding rule of ``verify``.

    Raises
    ------
    NpylstmError, ValueError
        If the corrected model cannot run.
    """
    ours = []
    for tape in tapes:
        outputs = corrected_outputs(tape, correction)
        if outputs is None:
            raise NpylstmError("the corrected model cannot run")
        ours.append(outputs)
    exact, *others = (
        [float64_outputs(spec, correction, tape.example, seed) for tape in tapes]
        for seed in (None, *range(PERTURBATIONS))
    )
    cases = [Case({}, tape.example.outputs) for tape in tapes]
    return compare(cases, ours, exact, others)


def corrected_outputs(tape: Tape, correction: Correction) -> Outputs | None:
    """Outputs of a corrected model; None where it cannot run."""
    try:
        if correction.around is None:
            if correction.spec is not None:
                return tape.run(correction.spec)
            return tape.run_changed(correction.changes)
        spec = correction.spec or tape.spec
        layers = {**{n.name: n for n in spec.layers}, **correction.changes}

        def run(example: Example, wrap: Wrap | None = None) -> Ran:
            unchanged = not correction.changes and correction.spec is None and wrap is None
            if example is tape.example and unchanged:
                return Ran(tape.outputs, tape.state)
            return run_graph(spec.edges, layers, spec.outputs, example, wrap)

        return correction.around(run, tape.example)
    except FAILURES:
        return None


def float64_outputs(
    spec: ModelSpec,
    correction: Correction,
    example: Example,
    seed: int | None,
    every_tensor: bool = False,
) -> Outputs:
    """Run a corrected model in float64; with a seed, its numbers moved by a unit each."""
    graph = correction.spec or spec
    wide = Widening(graph, seed)
    chosen = {**{n.name: n for n in graph.layers}, **correction.changes}
    layers = {name: wide.layer(n) for name, n in chosen.items()}
    inputs = {k: wide.input(k, x) for k, x in example.inputs.items()}
    state = {k: {n: wide.array(a) for n, a in own.items()} for k, own in example.state.items()}
    other = replace(example, inputs=inputs, state=state)

    def run(example: Example, wrap: Wrap | None = None) -> Ran:
        names = [t for e in graph.edges for t in e.outputs] if every_tensor else graph.outputs
        return run_graph(graph.edges, layers, names, example, wrap)

    return correction.around(run, other) if correction.around else run(other).tensors
