"""Replay recorded cases and judge the outputs."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from npylstm.loading import module
from npylstm.parity.comparison import compare, summarise
from npylstm.parity.examples import bind_case
from npylstm.parity.proving import check_evidence
from npylstm.parity.report import PROOFS, ParityReport
from npylstm.parity.trial import float64_runs
from npylstm.quantization import judged, measured_errors
from npylstm.runtime.model import Model
from npylstm.spec import Case, ModelSpec
from npylstm.summary import origin_of

if TYPE_CHECKING:
    from npylstm.parity.diagnosis import Diagnosis

__all__ = ["verify"]


def verify(model: Model, cases: Sequence[Case], framework: str | None = None) -> ParityReport:
    """Replay cases and compare; see :meth:`npylstm.Model.verify`."""
    origin = model.spec.provenance
    if framework is None:
        framework = str(origin.get("recorded_by") or origin_of(origin))
    model.warm_up()  # judge the engine that later calls use
    ours = [model.replay(case) for case in cases]
    examples = [bind_case(model.spec, case) for case in cases]
    comparisons = compare(model.spec, cases, ours, *float64_runs(model.spec, examples))
    quantization, errors = measured_errors(model.spec, cases, ours)
    outputs = summarise(comparisons, judged(quantization, errors))
    unproven = check_evidence(model.spec, comparisons)
    return ParityReport(
        outputs,
        len(cases),
        framework,
        model.backend,
        proof=_proof_of(model.spec),
        stated=_sentences(origin, "stated"),
        undecided=_sentences(origin, "undecided"),
        unproven=unproven,
        errors=errors,
        comparisons=comparisons,
        spec=model.spec,
        replayed=tuple(cases),
        diagnose=functools.partial(_diagnose, model, tuple(cases)),
    )


def _sentences(provenance: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """Return a list of sentences; other values in a file are ignored."""
    found = provenance.get(key)
    return tuple(map(str, found)) if isinstance(found, list) else ()


def _proof_of(spec: ModelSpec) -> str:
    """Return the evidence for a model: that of its structure, at most "stated" if it is rounded."""
    proof = _structure_proof(spec.provenance)
    return "stated" if proof == "proven" and spec.quantization is not None else proof


def _structure_proof(provenance: Mapping[str, Any]) -> str:
    """Return the evidence for a model's structure; older files keep it in ``decisions``."""
    if provenance.get("proof") in PROOFS:
        return str(provenance["proof"])
    decisions = provenance.get("decisions")
    told = any("as told" in str(d) for d in decisions) if isinstance(decisions, list) else False
    return "stated" if told else "proven"


def _diagnose(model: Model, cases: tuple[Case, ...]) -> Diagnosis:
    diagnosis: Diagnosis = module("parity.diagnosing").diagnose_cases(model.spec, cases)
    return diagnosis
