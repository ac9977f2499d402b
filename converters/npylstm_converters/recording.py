"""Recorded cases: inputs that reach the traps, and what the framework itself gives for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from npylstm import Model, ModelSpec, NpylstmError, ShapeError, console
from npylstm.spec import Case
from npylstm_converters.scenarios import DEFAULT_CASES, make_cases

__all__ = ["BUDGET", "DEFAULT_CASES", "make_cases", "record"]

BUDGET = 10.0  # seconds for invented cases

Array = npt.NDArray[Any]


def record(
    spec: ModelSpec,
    framework_fn: Callable[..., Any],
    cases: int | Iterable[Any] = DEFAULT_CASES,
    *,
    seed: int = 0,
    progress: bool = False,
    budget: float = BUDGET,
) -> ModelSpec:
    """Attach the framework's own outputs to a spec.

    Parameters
    ----------
    spec
        The converted model.
    framework_fn
        The framework's forward pass: called with one array per input, in order, it returns an
        array, a list in the order of the outputs, or a mapping by name. A runner of an importer
        (it has ``sets_state``) is called with two mappings, inputs and state.
    cases
        How many cases to invent, or a list of inputs: arrays, mappings by name, or
        :class:`~npylstm.spec.Case` objects whose outputs are ignored.
    seed
        For invented cases.
    progress
        Show a progress bar on stderr.
    budget
        Seconds after which no further case is invented; the most telling come first.

    Returns
    -------
    ModelSpec
        The same model with these cases.

    Raises
    ------
    ShapeError
        If the framework returns another number of outputs than the model has.

    Examples
    --------
    >>> import npylstm_converters as nc
    >>> spec = nc.convert("models/sine_keras/sine.keras")
    >>> spec = nc.record(spec, lambda x: x[:, -1] * 0, cases=2)  # a framework that is wrong
    >>> from npylstm import Model
    >>> Model(spec).verify().passed
    False
    """
    is_runner = hasattr(framework_fn, "sets_state")
    if isinstance(cases, int):
        todo = make_cases(spec, cases, seed, getattr(framework_fn, "sizes", None))
        if not (is_runner and getattr(framework_fn, "sets_state", False)):
            todo = [replace(case, state={}) for case in todo]
    else:
        todo = [_as_case(spec, case) for case in cases]
    recorded: list[Case] = []
    invented = isinstance(cases, int)
    model = Model(spec, "numpy")
    integer = {t.name for t in spec.inputs if t.integer}
    end = time.monotonic() + budget
    with console.progress("recording", len(todo), enabled=progress) as advance:
        for case in todo:
            if invented and recorded and time.monotonic() > end:
                break
            inputs = {
                k: np.asarray(v, np.int64 if k in integer else spec.dtype)
                for k, v in case.inputs.items()
            }
            made = _run(
                spec, framework_fn, is_runner, replace(case, inputs=inputs), invented, model
            )
            recorded += [made] if made is not None else []
            advance()
    if todo and not recorded:
        raise NpylstmError(f"{spec.name}: none of the invented inputs fits the model")
    by = getattr(framework_fn, "description", None)
    provenance = {**spec.provenance, **({"recorded_by": by} if by else {})}
    return replace(spec, cases=tuple(recorded), provenance=provenance)


def _run(
    spec: ModelSpec, framework_fn: Callable[..., Any], is_runner: bool, case: Case, invented: bool,
    model: Model,
) -> Case | None:  # fmt: skip
    """Run one case in the framework; None where an invented one fits neither side."""
    try:
        if is_runner:
            y = framework_fn(case.inputs, case.state)
        else:
            y = framework_fn(*(case.inputs[t.name] for t in spec.inputs))
    except NpylstmError:
        if not invented:
            raise
        if case.state:  # the framework may not let the state of this model be set
            bare = replace(case, state={}, purpose="batch")
            return _run(spec, framework_fn, is_runner, bare, invented, model)
        if _possible(model, case):
            raise
        return None
    return replace(case, outputs=_by_name(spec, y))


def _possible(model: Model, case: Case) -> bool:
    """Whether the model has an answer: a Reshape may not fit the steps that were invented."""
    try:
        model.replay(case)
    except ShapeError:
        return False
    return True


def _as_case(spec: ModelSpec, case: Any) -> Case:
    if isinstance(case, Case):
        return case
    if isinstance(case, Mapping):
        return Case({k: np.asarray(v) for k, v in case.items()}, {})
    arrays = case if isinstance(case, (list, tuple)) and len(spec.inputs) > 1 else [case]
    names = [t.name for t in spec.inputs]
    return Case({n: np.asarray(a) for n, a in zip(names, arrays, strict=True)}, {})


def _by_name(spec: ModelSpec, y: Any) -> dict[str, Array]:
    if isinstance(y, Mapping):
        found = {str(k): np.asarray(v) for k, v in y.items()}
    else:
        values: Sequence[Any] = y if isinstance(y, (list, tuple)) else [y]
        if len(values) != len(spec.outputs):
            raise ShapeError(
                f"the framework gave {len(values)} outputs, expected {list(spec.outputs)}"
            )
        found = {name: np.asarray(v) for name, v in zip(spec.outputs, values, strict=True)}
    if set(found) != set(spec.outputs):
        raise ShapeError(f"the framework gave {sorted(found)}, expected {list(spec.outputs)}")
    return found
