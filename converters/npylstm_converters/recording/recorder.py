"""Run the framework on the cases, within a time budget."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from npylstm import FormatError, Model, ModelSpec, NpylstmError, ParityError, ShapeError, console
from npylstm.runtime.binding import bind
from npylstm.spec import Case
from npylstm_converters.recording.inputs import Inventor
from npylstm_converters.recording.scenarios import FEW, Scenario

__all__ = ["BUDGET", "record"]

BUDGET = 10.0  # seconds for random cases

Array = npt.NDArray[Any]

# Inputs that overflow in the framework prove nothing: they are scaled down.
_SMALLER, _TRIES = 0.1, 4
_LONG = 500  # steps from which replaying a case takes time, too
_REPLAYS = 4  # npylstm runs that judge one case
_NOT_FINITE = "the framework's outputs are not finite"


def record(
    spec: ModelSpec,
    framework_fn: Callable[..., Any],
    cases: int | Iterable[Any] | None = None,
    *,
    seed: int = 0,
    progress: bool = False,
    budget: float = BUDGET,
) -> ModelSpec:
    """Return a spec with the framework's outputs as recorded cases.

    Parameters
    ----------
    spec
        The converted model.
    framework_fn
        The framework's forward pass: called with one array per input, in order, it returns an
        array, a list in the order of the outputs, or a mapping by name. A runner of an importer
        (it has ``sets_state``) is called with two mappings, inputs and state.
    cases
        The number of random cases (None: one for every scenario of the model, at least eight), or
        a list of inputs: arrays, mappings by name, or :class:`~npylstm.spec.Case` objects whose
        outputs are ignored.
    seed
        Seed of the random cases.
    progress
        Show a progress bar on stderr.
    budget
        Seconds for the random cases. If the framework is slow, long sequences are shortened first,
        then cases are omitted. The first case always runs.

    Returns
    -------
    ModelSpec
        The same model with these cases. ``provenance["recorded_by"]`` names the framework,
        ``provenance["not_recorded"]`` lists the omitted cases with the reasons.

    Raises
    ------
    ShapeError
        If inputs do not fit the model, or the framework returns another number of outputs than it
        has.
    ParityError
        If it returns an output of another shape than the model's.
    NpylstmError
        If it can run no random case, or not all of the specified ones.

    Examples
    --------
    >>> import npylstm_converters as nc
    >>> spec = nc.convert("models/sine_keras/sine.keras")
    >>> spec = nc.record(spec, lambda x: x[:, -1] * 0, cases=2)  # a framework that is wrong
    >>> from npylstm import Model
    >>> Model(spec).verify().passed
    False
    """
    recording = _Recording(spec, framework_fn)
    if cases is None or _is_count(cases):
        recording.invent(cases, seed, progress, budget)
    elif not isinstance(cases, Iterable) or isinstance(cases, (str, Mapping)):
        raise NpylstmError(f"cases: expected a number or a list of inputs, got {cases!r:.60}")
    else:
        for case in cases:
            recording.add(_as_case(spec, case))
    provenance = dict(spec.provenance)
    by = getattr(framework_fn, "description", None)
    if by:
        provenance["recorded_by"] = by
    if recording.left_out:
        provenance["not_recorded"] = [*dict.fromkeys(recording.left_out)]
    return replace(spec, cases=tuple(recording.cases), provenance=provenance)


def _is_count(cases: Any) -> TypeGuard[int]:
    """Whether ``cases`` is a number of cases."""
    is_integer = isinstance(cases, (int, np.integer)) and not isinstance(cases, bool)
    return is_integer and int(cases) >= 0


class _Recording:
    """The recorded cases of one model, in progress."""

    def __init__(self, spec: ModelSpec, framework_fn: Callable[..., Any]) -> None:
        self.cases: list[Case] = []
        self.left_out: list[str] = []
        self._spec, self._framework = spec, framework_fn
        self._is_runner = hasattr(framework_fn, "sets_state")
        self._integer = {t.name for t in spec.inputs if t.integer}

    def add(self, case: Case) -> None:
        """Run a case and keep it."""
        self.cases.append(self._run(case))

    def invent(self, count: int | None, seed: int, progress: bool, budget: float) -> None:
        """Record random cases until all are done or the time is over."""
        inventor = self._inventor(count, seed, self._sizes(seed))
        clock = _Clock(inventor.model, budget)
        todo = inventor.scenarios
        failures: list[str] = []
        overflowed: list[Case] = []
        with console.progress("recording", len(todo), enabled=progress) as advance:
            for number, scenario in enumerate(todo):
                case = inventor.make(scenario, clock.most_steps(len(todo) - number))
                if case is None:  # the model accepts no such sizes
                    continue
                if self.cases and clock.is_over(case):
                    left = f"{len(todo) - number} of {len(todo)} cases"
                    self.left_out.append(f"{left}: the time budget of {budget:g} s is used up")
                    break
                try:
                    with clock.timing(case):
                        made = self._finite(inventor, scenario, case)
                except _CannotRunError as error:
                    failures.append(str(error))
                else:
                    (self.cases if _is_usable(made) else overflowed).append(made)
                advance()
        if todo and not self.cases:
            if overflowed:
                failures.append(f"{self._spec.name}: {_NOT_FINITE}, whatever the inputs")
            raise NpylstmError([*failures, f"{self._spec.name}: accepts no invented input"][0])
        if failures:
            self.left_out.append(f"{len(failures)} of {len(todo)} cases: {failures[0]}")
        if overflowed:
            left = f"{len(overflowed)} of {len(todo)} cases"
            self.left_out.append(f"{left}: {_NOT_FINITE}")

    def _inventor(self, count: int | None, seed: int, sizes: Mapping[str, int]) -> Inventor:
        states = self._is_runner and self._framework.sets_state  # type: ignore[attr-defined]
        lengths = bool(getattr(self._framework, "sets_lengths", False))
        return Inventor(self._spec, count, seed, sizes, states=states, lengths=lengths)

    def _sizes(self, seed: int) -> dict[str, int]:
        """Return the free sizes that the framework fixes, such as those of its example."""
        sizes = dict(getattr(self._framework, "sizes", {}))
        examples = getattr(self._framework, "example_sizes", {})
        if examples:
            inventor = self._inventor(1, seed, sizes)
            try:
                self._run(inventor.make(inventor.scenarios[0]) or Case({}, {}))
            except _CannotRunError:
                return {**sizes, **examples}
        return sizes

    def _finite(self, inventor: Inventor, scenario: Scenario, case: Case) -> Case:
        """Run a case, with smaller inputs if the framework's outputs overflow."""
        first = made = self._run_somehow(case)
        for _ in range(_TRIES):
            if _is_usable(made):
                return made
            scenario = replace(scenario, scale=scenario.scale * _SMALLER)
            made = self._run_somehow(inventor.make(scenario) or case)
        return first

    def _run_somehow(self, case: Case) -> Case:
        """Run a case, without its state if the framework accepts none."""
        try:
            return self._run(case)
        except _CannotRunError as error:
            if not case.state:
                raise
            made = self._run(replace(case, state={}, purpose="batch"))
            self.left_out.append(f"an initial state: {error}")
            return made

    def _run(self, case: Case) -> Case:
        inputs = {
            k: np.asarray(v, np.int64 if k in self._integer else self._spec.dtype)
            for k, v in case.inputs.items()
        }
        case = replace(case, inputs=inputs)
        y = self._outputs(case)
        case = replace(case, outputs=_by_name(self._spec, y))
        try:
            self._spec.with_cases([case])
        except FormatError as error:
            raise ParityError(f"the framework gave outputs of other shapes: {error}") from None
        return case

    def _outputs(self, case: Case) -> Any:
        if not self._is_runner:
            return self._framework(*(case.inputs[t.name] for t in self._spec.inputs))
        lengths = {} if case.lengths is None else {"lengths": case.lengths}
        try:
            return self._framework(case.inputs, case.state, **lengths)
        except NpylstmError as error:
            raise _CannotRunError(str(error)) from None


class _CannotRunError(NpylstmError):
    """The framework cannot run a case."""


def _is_usable(case: Case) -> bool:
    """Return whether outputs are finite; with padding some may be nan: the mean of no steps."""
    enough = np.any if case.purpose == "padding" else np.all
    return all(enough(np.isfinite(y)) for y in case.outputs.values())


class _Clock:
    """The time budget: the time used, and the steps that fit into the rest.

    The time to replay long cases is included.
    """

    def __init__(self, model: Model, budget: float) -> None:
        self._model, self._left, self._rate = model, budget, math.inf

    @contextlib.contextmanager
    def timing(self, case: Case) -> Iterator[None]:
        """Add the time of running a case."""
        start = time.monotonic()
        yield
        if _steps(case) >= _LONG:
            run = time.monotonic()
            with contextlib.suppress(NpylstmError):
                self._model.replay(case)
            start -= (_REPLAYS - 1) * (time.monotonic() - run)
        took = time.monotonic() - start
        self._left -= took
        self._rate = min(self._rate, took / _steps(case))  # the first calls take longer

    def most_steps(self, cases: int) -> int | None:
        """Return how many steps each of so many cases may have; None before the first case."""
        if math.isinf(self._rate):
            return None
        return max(FEW, int(min(self._left / cases / self._rate, 1e9)))

    def is_over(self, case: Case) -> bool:
        """Return whether the rest of the budget is too short for a case."""
        return self._left < self._rate * _steps(case)


def _steps(case: Case) -> int:
    """Return the number of steps of the longest input."""
    shapes = [x.shape if x.dtype.kind == "i" else x.shape[:-1] for x in case.inputs.values()]
    return max((math.prod(shape[1:]) for shape in shapes), default=1)


def _as_case(spec: ModelSpec, case: Any) -> Case:
    """Return a case of inputs that the model accepts."""
    given = case if isinstance(case, Case) else Case({}, {})
    inputs = bind(given.inputs if given is case else case, spec.inputs, spec.dtype)
    return replace(given, inputs=inputs)


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
