"""Compare a model with its author's outputs, and test whether other chains give them, too.

Outputs that are all positive are equal with and without a relu. So the comparison is repeated with
every chain of layers that differs from the stated one in one answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from npylstm import FormatError, Model, ModelSpec, NpylstmError, ShapeError, console
from npylstm.parity import ParityReport
from npylstm.spec import Case
from npylstm_converters.recording import make_cases
from npylstm_converters.registry import find_importer

__all__ = ["AuthorCheck", "check_author"]

_MOST = 5  # chains that are listed
_PROBES = 8
# A chain with a larger difference, relative to the largest output, skips the exact comparison.
_FAR = 0.05


@dataclass(frozen=True)
class AuthorCheck:
    """The result of a comparison with the author's outputs.

    Attributes
    ----------
    report
        The comparison.
    agreeing
        Other chains that give these outputs, as command-line options, at most five. Chains that are
        equivalent to the stated one on inputs of all kinds are not listed.
    spec
        The model with the author's case. If it agrees, its provenance states that the chain is
        proven, or lists the other chains that agree.
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
    """Compare a converted model with the outputs of its author's program.

    Parameters
    ----------
    spec
        The model that :func:`~npylstm_converters.convert` returned for ``source`` and ``options``.
    source
        The file, or the object.
    inputs, outputs
        Arrays by the names of the model's inputs and outputs.
    **options
        As for :func:`~npylstm_converters.convert`: ``layers``, ``batch_first`` and so on.

    Returns
    -------
    AuthorCheck
        Its ``report.passed`` is the verdict, its ``spec`` the model to save.

    Raises
    ------
    ShapeError
        If the model has no such name, or an input has another shape.
    ParityError
        If an output has another shape.
    FormatError
        If ids are not integers, or no importer accepts the source.
    NpylstmError
        If no value of an output is finite, or if the chain was stated but is missing in
        ``options``: then it cannot be compared with others.
    OSError
        If the source cannot be read.
    """
    given = _arrays("inputs", inputs, [t.name for t in spec.inputs])
    for tensor in spec.inputs:
        x = given[tensor.name]
        if tensor.integer and not np.array_equal(x, np.round(x)):
            raise FormatError(f"inputs: {tensor.name}: expected integer ids")
        given[tensor.name] = x.astype(np.int64 if tensor.integer else spec.dtype)
    theirs = {k: y.astype(spec.dtype) for k, y in _arrays("outputs", outputs, spec.outputs).items()}
    case = Case(given, theirs, purpose="author")
    checked = spec.with_cases([case, *spec.cases])
    report = Model(checked).verify([case], "the author's program")
    origin = {k: v for k, v in spec.provenance.items() if k != "undecided"}
    if origin.get("proof") == "proven":
        return AuthorCheck(report, (), checked)
    others = list(find_importer(source).alternatives(source, **options))
    if not others and origin.get("dequantized"):
        return AuthorCheck(report, (), checked)  # nothing was stated but the conversion itself
    if not others:
        raise NpylstmError(
            f"{spec.name}: its chain was stated, and no other can be tried: give the options that "
            "it was converted with, such as layers"
        )
    agreeing = tuple(_agreeing(others, spec, case))
    if report.passed:
        found = {"undecided": [*agreeing]} if agreeing else {"proof": "proven"}
        checked = replace(checked, provenance={**origin, **found})
        report = Model(checked).verify([case], "the author's program")
    return AuthorCheck(report, agreeing, checked)


def _arrays(
    what: str, arrays: Mapping[str, npt.ArrayLike], names: Sequence[str]
) -> dict[str, npt.NDArray[Any]]:
    if set(arrays) != set(names):
        raise ShapeError(f"{what}: expected {', '.join(names)}, got {', '.join(map(str, arrays))}")
    return {name: np.asarray(arrays[name]) for name in names}


def _agreeing(others: Sequence[tuple[str, ModelSpec]], spec: ModelSpec, case: Case) -> list[str]:
    """Return the statements of models that agree on a case and differ on other inputs."""
    told_apart = [(spec, _probes(spec))]
    found: list[str] = []
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
    """Return cases with inputs of all kinds; a model that agrees on them is equivalent."""
    bare = spec.with_cases(())
    model = Model(bare, "numpy")
    # Without lengths the last step and the last state are equal.
    invented = [c for c in make_cases(bare, _PROBES) if c.lengths is None]
    probes = [Case(c.inputs, model.replay(Case(c.inputs, {}))) for c in invented]
    return [p for p in probes if all(np.isfinite(y).all() for y in p.outputs.values())]


def _agrees(spec: ModelSpec, stated: ModelSpec, cases: Sequence[Case]) -> bool:
    """Return whether a model gives the outputs of a case within rounding, matched by order."""
    if (len(spec.inputs), len(spec.outputs)) != (len(stated.inputs), len(stated.outputs)):
        return False
    inputs = {a.name: b.name for a, b in zip(stated.inputs, spec.inputs, strict=True)}
    outputs = dict(zip(stated.outputs, spec.outputs, strict=True))
    renamed = [
        Case(
            {inputs[k]: x for k, x in case.inputs.items()},
            {outputs[k]: y for k, y in case.outputs.items()},
        )
        for case in cases
    ]
    model = Model(spec, "numpy")
    try:
        return all(_near(model.replay(c), c.outputs) for c in renamed) and bool(
            model.verify(renamed).passed
        )
    except NpylstmError:  # sizes differ, or no value is finite
        return False


def _near(ours: Mapping[str, npt.NDArray[Any]], theirs: Mapping[str, npt.NDArray[Any]]) -> bool:
    """Return whether outputs are roughly equal."""
    for name, y in theirs.items():
        if ours[name].shape != y.shape:
            return False
        largest = float(np.abs(y[np.isfinite(y)]).max(initial=0.0))
        if not np.allclose(ours[name], y, rtol=_FAR, atol=_FAR * largest + 1e-3, equal_nan=True):
            return False
    return True
