"""Run a corrected model in its own dtype, in float64, and perturbed by up to one ulp."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from npylstm.errors import NpylstmError
from npylstm.graph.state import map_state
from npylstm.parity.comparison import Comparison, compare
from npylstm.parity.corrections import Correction, Outputs, Run
from npylstm.parity.examples import Example
from npylstm.parity.rounding import PERTURBATIONS, MaskRecorder, Widening, makes_masks
from npylstm.parity.variants import CachedRun, RunResult, Wrap, run_graph
from npylstm.runtime.numpy_engine import Node
from npylstm.spec import Case, LayerSpec, ModelSpec

__all__ = ["FAILURES", "UNCHANGED", "compared_outputs", "corrected_outputs", "float64_runs"]

# Exceptions of a layer or a correction whose arguments do not fit.
FAILURES = (NpylstmError, ValueError, IndexError, ArithmeticError, np.linalg.LinAlgError)

UNCHANGED = Correction(None, {}, "")


def compared_outputs(
    spec: ModelSpec, tapes: Sequence[CachedRun], correction: Correction = UNCHANGED
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
    cases = [Case({}, tape.example.outputs) for tape in tapes]
    exact, moved = float64_runs(spec, [tape.example for tape in tapes], correction)
    return compare(correction.spec or spec, cases, ours, exact, moved)


def corrected_outputs(tape: CachedRun, correction: Correction) -> Outputs | None:
    """Return the outputs of a corrected model; None if it cannot run."""
    try:
        if correction.around is None:
            if correction.spec is not None:
                return tape.run(correction.spec)
            return tape.run_changed(correction.changes)
        spec = correction.spec or tape.spec
        layers = {**{n.name: n for n in spec.layers}, **correction.changes}

        def run(example: Example, wrap: Wrap | None = None) -> RunResult:
            unchanged = not correction.changes and correction.spec is None and wrap is None
            if example is tape.example and unchanged:
                return RunResult(tape.outputs, tape.state)
            return run_graph(spec.edges, layers, spec.outputs, example, wrap)

        return correction.around(run, tape.example)
    except FAILURES:
        return None


def float64_runs(
    spec: ModelSpec,
    examples: Sequence[Example],
    correction: Correction = UNCHANGED,
    every_tensor: bool = False,
) -> tuple[list[Outputs], list[list[Outputs]]]:
    """Run a corrected model in float64: once exactly, and with weights and inputs perturbed.

    Parameters
    ----------
    spec
        The model, in its own dtype.
    examples
        The runs.
    correction
        The change of the model.
    every_tensor
        Return all tensors of the perturbed models, too, not only the outputs.

    Returns
    -------
    exact
        For each example all tensors by name; the outputs alone if ``correction.around`` is set.
    moved
        For each of ``PERTURBATIONS`` perturbed models and each example, the outputs.
    """
    graph = correction.spec or spec
    layers = {**{n.name: n for n in graph.layers}, **correction.changes}
    made = [t for e in graph.edges for t in e.outputs]
    every = [*dict.fromkeys((*made, *graph.outputs))]  # an input may be an output
    names = every if every_tensor else graph.outputs
    held = [_held_masks(graph, layers, names, correction, example) for example in examples]
    exact, *moved = (
        [
            _wide_outputs(
                graph, layers, every if seed is None else names, correction, example, masks, seed
            )
            for example, masks in zip(examples, held, strict=True)
        ]
        for seed in (None, *range(PERTURBATIONS))
    )
    return exact, moved


Layers = Mapping[str, LayerSpec]


def _held_masks(
    graph: ModelSpec, layers: Layers, names: Sequence[str], correction: Correction, example: Example
) -> MaskRecorder:
    """Run a model in its own dtype and return the masks that it computes."""
    held = MaskRecorder()

    def run(example: Example, wrap: Wrap | None = None) -> RunResult:
        def both(node: Node) -> Node:
            return held.keep(wrap(node) if wrap else node)

        return run_graph(graph.edges, layers, names, example, both)

    if makes_masks(n.layer for n in layers.values()):
        _called(run, correction, example)
    return held


def _wide_outputs(
    graph: ModelSpec, layers: Layers, names: Sequence[str], correction: Correction,
    example: Example, masks: MaskRecorder, seed: int | None,
) -> Outputs:  # fmt: skip
    wide = Widening(graph, seed)
    widened = {name: wide.layer(n) for name, n in layers.items()}
    inputs = {k: wide.input(k, x) for k, x in example.inputs.items()}
    state = map_state(wide.array, example.state)
    repeat = masks.repeating()

    def run(example: Example, wrap: Wrap | None = None) -> RunResult:
        return run_graph(graph.edges, widened, names, example, repeat(wrap))

    return _called(run, correction, replace(example, inputs=inputs, state=state))


def _called(run: Run, correction: Correction, example: Example) -> Outputs:
    return correction.around(run, example) if correction.around else run(example).tensors
