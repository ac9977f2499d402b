"""Whether the author's own outputs decide for the chain that was stated, or for others as well.

Outputs that never leave the positive side cannot tell a relu from nothing. So a check against
them is repeated with every chain that differs in one answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from npylstm import Model, ModelSpec, NpylstmError, console
from npylstm.spec import Case
from npylstm_converters.recording import make_cases
from npylstm_converters.registry import Importer

__all__ = ["rivals_that_agree"]

MOST = 5


def rivals_that_agree(
    importer: Importer, source: Any, spec: ModelSpec, case: Case, options: Mapping[str, Any]
) -> list[str]:
    """Find other chains that give the author's outputs, too, though they are other models.

    Parameters
    ----------
    importer, source, options
        As the model was converted.
    spec
        The model of the chain that was stated.
    case
        What the author's program was given, and gave.

    Returns
    -------
    list of str
        How each chain is stated, the first five at most. A chain that computes the same as the
        stated one for all inputs is no rival.
    """
    bare = spec.with_cases(())
    model = Model(bare, "numpy")
    probes = [
        Case(c.inputs, model.replay(Case(c.inputs, {})))
        for c in make_cases(bare, 8)
        if c.lengths is None  # the last step and the last state are one without lengths
    ]
    found: list[str] = []
    others = list(importer.rivals(source, **options))
    with console.progress("trying other chains", len(others)) as advance:
        for statement, other in others:
            if _agrees(other, spec, [case]) and not _agrees(other, spec, probes):
                found.append(statement)
            advance()
    return found[:MOST]


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
