"""Compare two programs layer by layer: the first layer that differs, and its mistake."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from npylstm.arrays import Array
from npylstm.errors import NpylstmError, ShapeError
from npylstm.parity.comparison import Comparison
from npylstm.parity.corrections import Correction
from npylstm.parity.diagnosis import Cause
from npylstm.parity.proving import proves
from npylstm.parity.search import search
from npylstm.parity.trial import FAILURES, float64_runs
from npylstm.parity.variants import CachedRun
from npylstm.spec import Edge, ModelSpec, TensorSpec

__all__ = ["first_bad_layer", "inside_layer", "layer_comparisons"]


def layer_comparisons(tape: CachedRun, activations: Mapping[str, Array]) -> tuple[Comparison, ...]:
    """Compare every tensor of the other program, in the order of computation.

    Raises
    ------
    ShapeError
        If a tensor is unknown or has another shape than the model's.
    """
    spec = tape.spec
    unknown = [name for name in activations if name not in tape.tensors]
    if unknown:
        known = ", ".join(t for edge in spec.edges for t in edge.outputs)
        raise ShapeError(f"activations: no tensor {unknown[0]!r}, the model has: {known}")
    (exact,), others = float64_runs(spec, [tape.example], every_tensor=True)
    compared = []
    for edge in spec.edges:
        for name in edge.outputs:
            if name not in activations:
                continue
            mine, other = tape.tensors[name], np.asarray(activations[name])
            if mine.shape != other.shape:
                raise ShapeError(
                    f"activations: {name}: expected shape {mine.shape}, got {other.shape}"
                )
            moved = tuple(run[name] for (run,) in others)
            compared.append(Comparison(name, 0, other, mine, exact[name], moved))
    return tuple(compared)


def first_bad_layer(tape: CachedRun, activations: Mapping[str, Array]) -> str | None:
    """Return the first layer, in the order of computation, whose outputs differ."""
    makers = {t: edge.layer for edge in tape.spec.edges for t in edge.outputs}
    for comparison in layer_comparisons(tape, activations):
        if not comparison.passed:
            return makers[comparison.output]
    return None


def inside_layer(
    spec: ModelSpec, tapes: Sequence[CachedRun], layer: str, activations: Mapping[str, Array]
) -> tuple[Cause, ...]:
    """Search the mistake in one layer, with the other program's inputs and outputs of that layer.

    A cause is proven only if it also explains the outputs of the whole model.
    """
    (tape, *_) = tapes
    edges = [e for e in spec.edges if e.layer == layer and set(e.outputs) & set(activations)]
    if not edges:
        return ()
    (edge, *_) = edges
    alone = _layer_alone(spec, edge)
    if alone is None:
        return ()
    outputs = {t: np.asarray(activations[t]) for t in alone.outputs if t in activations}
    inputs = {
        t: np.asarray(activations.get(t, tape.tensors[t])) for t in dict.fromkeys(edge.inputs)
    }
    inputs = {t: np.ascontiguousarray(x, spec.dtype) for t, x in inputs.items()}
    alone = replace(alone, outputs=tuple(outputs))
    example = replace(tape.example, inputs=inputs, outputs=outputs)
    try:
        found = search(alone, [example], progress=False)
    except FAILURES:
        return ()
    return tuple(_in_the_whole(spec, tapes, cause) for cause in found)


def _layer_alone(spec: ModelSpec, edge: Edge) -> ModelSpec | None:
    whole = {t.name: t for t in spec.inputs}
    tensors = dict.fromkeys(edge.inputs)
    inputs = tuple(whole.get(t) or TensorSpec(t, spec.shapes[t]) for t in tensors)
    try:
        return replace(
            spec, layers=(spec[edge.layer],), edges=(edge,), inputs=inputs, outputs=edge.outputs,
            cases=(),
        )  # fmt: skip
    except NpylstmError:
        return None


def _in_the_whole(spec: ModelSpec, tapes: Sequence[CachedRun], cause: Cause) -> Cause:
    """Apply a cause found in one layer to the whole model, and judge it there."""
    if cause.spec is None or len(cause.spec.layers) != 1:
        return replace(cause, passed=False, spec=None)
    (changed,) = cause.spec.layers
    correction = Correction(cause.layer, cause.detail, cause.fix, {changed.name: changed})
    try:
        whole = correction.corrected(spec)
    except FAILURES:
        return replace(cause, passed=False, spec=None)
    return replace(cause, passed=cause.passed and proves(spec, tapes, correction), spec=whole)
