"""``npylstm.diagnose``: find out why another program's outputs differ from a model's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from npylstm.arrays import Array
from npylstm.errors import ShapeError
from npylstm.parity.comparison import summarise
from npylstm.parity.diagnosis import Cause, Diagnosis
from npylstm.parity.examples import Example, bind_case, bind_example
from npylstm.parity.facts import describe
from npylstm.parity.layerwise import first_bad_layer, inside_layer
from npylstm.parity.proving import check_evidence
from npylstm.parity.report import ParityReport
from npylstm.parity.search import search
from npylstm.parity.trial import compared_outputs
from npylstm.parity.variants import CachedRun
from npylstm.quantization import judged, measured_errors
from npylstm.runtime.model import Model
from npylstm.spec import Case, ModelSpec

if TYPE_CHECKING:
    import numpy.typing as npt

    from npylstm.runtime.binding import Inputs, StateArrays

__all__ = ["diagnose", "diagnose_cases"]


def diagnose(
    model: Model | ModelSpec,
    inputs: Inputs,
    outputs: Any,
    *,
    state: StateArrays | None = None,
    lengths: npt.ArrayLike | None = None,
    mask: npt.ArrayLike | None = None,
    activations: Mapping[str, npt.ArrayLike] | None = None,
) -> Diagnosis:
    """Find the mistake that explains why another program's outputs differ from a model's.

    npylstm applies known mistakes to the model, one at a time: gates in another order, a missing
    bias, a wrong activation, an ignored mask and so on. A mistake is proven if the changed model
    gives the outputs within rounding.

    Parameters
    ----------
    model
        The model, or its spec.
    inputs
        As for :meth:`npylstm.Model.predict`.
    outputs
        The other program's outputs for these inputs: one array, several in the order of
        ``model.outputs``, or by name.
    state, lengths, mask
        As for :meth:`npylstm.Model.predict`.
    activations
        Intermediate tensors of the other program by name: ``{"lstm": (batch, steps, units)}``. With
        them npylstm finds the first layer that differs and searches the mistake there.

    Returns
    -------
    Diagnosis
        Without causes if the outputs agree, or if no known mistake explains them.

    Raises
    ------
    ShapeError
        If an array has another shape than the model's.
    UnprovenError
        If the outputs agree but prove nothing: nan, a dead relu, a chaotic model.

    Examples
    --------
    >>> import npylstm, numpy as np
    >>> model = npylstm.load("models/sine_keras/sine.npz", backend="numpy")
    >>> x = np.random.default_rng(0).normal(size=(4, 5, 1)).astype("float32")
    >>> d = npylstm.diagnose(model, x, 2 * model.predict(x) + 1)
    >>> d.causes[0].kind, d.causes[0].detail["factor"]
    ('scaling', 2.0)
    """
    spec = (model if isinstance(model, ModelSpec) else model.spec).with_cases(())
    example = bind_example(spec, inputs, outputs, state, lengths, mask)
    known = {k: np.asarray(v) for k, v in (activations or {}).items()}
    return _diagnose(spec, [example], known)


def diagnose_cases(
    spec: ModelSpec, cases: Sequence[Case], activations: Mapping[str, npt.ArrayLike] | None = None
) -> Diagnosis:
    """Diagnose recorded cases; ``activations`` are the other program's tensors in case 0."""
    bare = spec.with_cases(())
    known = {k: np.asarray(v) for k, v in (activations or {}).items()}
    return _diagnose(bare, [bind_case(bare, case) for case in cases], known)


def _diagnose(
    spec: ModelSpec, examples: Sequence[Example], activations: Mapping[str, Array]
) -> Diagnosis:
    bare = replace(spec, provenance={})  # the search copies it hundreds of times
    tapes = [CachedRun(bare, example) for example in examples]
    for tape in tapes:
        _check_shapes(tape)
    first = first_bad_layer(tapes[0], activations) if activations else None
    layers = tuple(e.layer for e in spec.edges if not activations.keys().isdisjoint(e.outputs))
    comparisons = compared_outputs(bare, tapes)
    quantization, errors = measured_errors(
        spec, [tape.example for tape in tapes], [tape.outputs for tape in tapes]
    )
    report = ParityReport(
        summarise(comparisons, judged(quantization, errors)), len(examples), "the other program",
        "numpy", errors=errors, comparisons=comparisons, spec=spec,
    )  # fmt: skip
    check_evidence(spec, comparisons)
    if report.passed:
        return Diagnosis((), (), first, layers, report)
    if quantization is not None:  # the search computes with decoded weights
        bare = bare.decoded()
        tapes = [CachedRun(bare, example) for example in examples]
    found: tuple[Cause, ...] = ()
    if first is not None:
        found = inside_layer(bare, tapes, first, activations)
    if not any(cause.passed for cause in found):
        found = search(bare, examples) or found
    causes = tuple(
        cause
        if cause.spec is None
        else replace(cause, spec=replace(cause.spec, provenance=spec.provenance))
        for cause in found
    )
    return Diagnosis(causes, describe(bare, comparisons), first, layers, report)


def _check_shapes(tape: CachedRun) -> None:
    for name, array in tape.outputs.items():
        other = tape.example.outputs[name]
        if other.shape != array.shape:
            raise ShapeError(
                f"output {name!r}: expected shape {array.shape} as the model gives, "
                f"got {other.shape}"
            )
