"""Compare a converted model with its framework: outputs first, then layers if they differ."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

import npylstm
from npylstm import Case, Diagnosis, Model, ModelSpec, NpylstmError, ParityReport
from npylstm.parity.diagnosing import diagnose_cases
from npylstm.parity.examples import bind_case
from npylstm.parity.variants import CachedRun
from npylstm_converters.recording import record
from npylstm_converters.registry import Runner, find_importer, on_disk

__all__ = ["assert_parity", "compare", "compare_with_runner"]

Arrays = Mapping[str, npt.NDArray[Any]]


def compare(
    model: Model | ModelSpec | str | os.PathLike[str],
    source: Any,
    inputs: Any = None,
    *,
    cases: int | None = None,
    seed: int = 0,
    **options: Any,
) -> ParityReport:
    """Run a framework's model and npylstm's on the same inputs, and compare.

    Parameters
    ----------
    model
        A converted model, its spec, or the path of its ``.npz``.
    source
        The source of the conversion: a Keras model, a ``torch.nn.Module``, or a file of theirs.
    inputs
        One set of inputs, as for :meth:`npylstm.Model.predict`; None for random inputs.
    cases, seed
        The number of random cases, which inputs exclude, and their seed.
    **options
        Options of the source's importer, such as ``layers`` for a state_dict.

    Returns
    -------
    ParityReport
        If parity does not hold, its ``diagnosis`` has the mistake, and the first layer that differs
        if the framework returns the outputs of its layers.

    Raises
    ------
    NpylstmError
        If the framework is not installed or cannot run the source, or an argument is wrong.
    ShapeError
        If the inputs do not fit the model.

    Examples
    --------
    ::

        report = nc.compare("model.npz", keras_model)
        assert report.passed, report.diagnosis
    """
    if cases is not None and (inputs is not None or not cases):
        raise NpylstmError(
            f"cases: expected a number of random cases from 1 on, without inputs, got {cases!r:.60}"
        )
    if isinstance(model, (str, os.PathLike)):
        model = npylstm.load(model)
    model = Model(model) if isinstance(model, ModelSpec) else model
    with on_disk(source) as path:
        runner = find_importer(path).runner(path, model.spec, **options)
    wanted: int | list[Any] | None = cases if inputs is None else [inputs]
    recorded = record(model.spec, runner, wanted, seed=seed).cases
    return compare_with_runner(model, runner, recorded)


def compare_with_runner(
    model: Model, runner: Runner, cases: Iterable[Case], framework: str | None = None
) -> ParityReport:
    """Compare with cases that a runner recorded; the runner also returns layer outputs."""
    cases = tuple(cases)
    report = model.verify(cases, framework or runner.description)
    if report.passed or not hasattr(runner, "activations"):
        return report
    return replace(report, diagnose=functools.partial(_diagnose, model, cases, report, runner))


def _diagnose(
    model: Model, cases: tuple[Case, ...], report: ParityReport, runner: Any
) -> Diagnosis:
    """Diagnose all cases; find the first bad layer in the case with the largest mismatch."""
    worst = max(report.comparisons, key=lambda c: c.max_ratio)
    first = cases[worst.case]
    try:
        takes = first.lengths is not None and getattr(runner, "sets_lengths", False)
        lengths = {"lengths": first.lengths} if takes else {}
        made: Arrays = runner.activations(first.inputs, first.state, **lengths)
    except NpylstmError:
        made = {}
    others = [case for case in cases if case is not first]
    inside = _of_one_shape(model, first, made)
    return diagnose_cases(model.spec, [first, *others], inside)


def _of_one_shape(model: Model, case: Case, activations: Arrays) -> dict[str, npt.NDArray[Any]]:
    """Return the tensors with the shape that the model has; the others have another layout."""
    spec = model.spec.with_cases(())
    own = CachedRun(spec, bind_case(spec, case)).tensors
    return {
        name: np.asarray(array)
        for name, array in activations.items()
        if name in own and own[name].shape == np.shape(array)
    }


def assert_parity(
    model: Model | ModelSpec | str | os.PathLike[str],
    source: Any,
    inputs: Any = None,
    **options: Any,
) -> ParityReport:
    """Compare as :func:`compare` does, and raise if parity does not hold: for tests.

    Parameters
    ----------
    model, source, inputs, **options
        As for :func:`compare`.

    Returns
    -------
    ParityReport
        A report that passed.

    Raises
    ------
    ParityError
        If parity does not hold; the message has the verdict and the diagnosis.
    """
    report = compare(model, source, inputs, **options)
    if not report.passed:
        raise npylstm.ParityError(f"{report.verdict}\n{report.diagnosis}")
    return report
