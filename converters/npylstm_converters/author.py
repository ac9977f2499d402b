"""The author's own outputs: whether a model gives them, and whether they decide for its chain.

Outputs that never leave the positive side cannot tell a relu from nothing. So a check against
them is repeated with every chain of layers that differs from the stated one in one answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from npylstm import Model, ModelSpec, NpylstmError, console
from npylstm.parity import ParityReport
from npylstm.spec import Case
from npylstm_converters.recording import make_cases
from npylstm_converters.registry import Importer, find_importer

__all__ = ["AuthorCheck", "check_author"]

_MOST = 5  # chains that are named
_PROBES = 8


@dataclass(frozen=True)
class AuthorCheck:
    """What came of a comparison with the author's own outputs.

    Attributes
    ----------
    report
        The comparison.
    agreeing
        Other chains that give these outputs, as they are stated on the command line, the first five
        at most. A chain that computes the same as the stated one for all inputs is none of them.
    spec
        The model with the author's case. If it agrees, its provenance says that the chain is
        proven, or which other chains the outputs leave open.
    """

    report: ParityReport
    agreeing: tuple[str, ...]
    spec: ModelSpec


def check_author(
    spec: ModelSpec,
    source: Any,
    inputs: Mapping[str, npt.ArrayLike],
    outputs: Mapping[str, npt.ArrayLike],
    **options: Any,
) -> AuthorCheck:
    """Compare a converted model with what its author's program gave.

    Parameters
    ----------
    spec
        The model, as :func:`~npylstm_converters.convert` made it of ``source`` with ``options``.
    source
        The file, or the object.
    inputs, outputs
        Arrays by the names of the model's inputs and outputs.
    **options
        As for :func:`~npylstm_converters.convert`: ``layers``, ``batch_first`` and so on.

    Raises
    ------
    ShapeError
        If an input has another shape than the model's.
    ParityError
        If an output has.
    """
    case = Case(
        {t.name: _as(inputs[t.name], "int64" if t.integer else spec.dtype) for t in spec.inputs},
        {name: _as(outputs[name], spec.dtype) for name in spec.outputs},
        purpose="author",
    )
    checked = spec.with_cases([case])
    report = Model(checked).verify(framework="the author's program")
    origin = spec.provenance
    if origin.get("proof") == "proven":
        return AuthorCheck(report, (), checked)
    agreeing = tuple(_agreeing(find_importer(source), source, spec, case, options))
    if report.passed:
        found = {"undecided": [*agreeing]} if agreeing else {"proof": "proven"}
        checked = replace(checked, provenance={**origin, **found})
        report = Model(checked).verify(framework="the author's program")
    return AuthorCheck(report, agreeing, checked)


def _agreeing(
    importer: Importer, source: Any, spec: ModelSpec, case: Case, options: Mapping[str, Any]
) -> Sequence[str]:
    told_apart = [(spec, _probes(spec))]
    found: list[str] = []
    others = list(importer.rivals(source, **options))
    with console.progress("trying other chains", len(others)) as advance:
        for statement, other in others:
            if _agrees(other, spec, [case]) and not any(_agrees(other, *m) for m in told_apart):
                found.append(statement)
                told_apart.append((other, _probes(other)))
            advance()
            if len(found) == _MOST:
                break
    return found


def _probes(spec: ModelSpec) -> list[Case]:
    """Inputs of all kinds, and what a model gives for them: another that agrees is the same."""
    bare = spec.with_cases(())
    model = Model(bare, "numpy")
    # Without lengths the last step and the last state are one.
    invented = [c for c in make_cases(bare, _PROBES) if c.lengths is None]
    return [Case(c.inputs, model.replay(Case(c.inputs, {}))) for c in invented]


def _agrees(spec: ModelSpec, stated: ModelSpec, cases: Sequence[Case]) -> bool:
    """Whether a model gives the outputs of another's cases, within rounding; by their order."""
    inputs = {a.name: b.name for a, b in zip(stated.inputs, spec.inputs, strict=True)}
    outputs = dict(zip(stated.outputs, spec.outputs, strict=True))
    renamed = [
        Case(
            {inputs[k]: x for k, x in case.inputs.items()},
            {outputs[k]: y for k, y in case.outputs.items()},
        )
        for case in cases
    ]
    try:
        return Model(spec, "numpy").verify(renamed).passed
    except NpylstmError:  # other sizes, or nothing that is finite
        return False


def _as(array: npt.ArrayLike, dtype: str) -> npt.NDArray[Any]:
    return np.asarray(array, dtype)
