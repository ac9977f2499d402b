"""Recorded cases: inputs that reach the traps, and what the framework itself gives for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from npylstm import Model, ModelSpec, NpylstmError, ShapeError, console
from npylstm.layers import Embedding
from npylstm.layers.base import BATCH, zeros
from npylstm.spec import Case

__all__ = ["DEFAULT_CASES", "make_cases", "record"]

Array = npt.NDArray[Any]

# Batch, time steps where they are free, scale of the inputs, scale of the initial state.
# 1 hides a mixed-up batch, short sequences hide what grows with time, large inputs saturate the
# gates, zeros show the biases alone, and a carried state shows whether c and h are told apart.
_SCENARIOS: tuple[tuple[int, int, float, float], ...] = (
    (1, 12, 1.0, 0.0),
    (3, 7, 1.0, 0.0),
    (2, 1, 1.0, 0.0),
    (2, 60, 1.0, 0.0),
    (3, 9, 40.0, 0.0),
    (2, 5, 0.0, 0.0),
    (3, 8, 1.0, 1.0),
    (2, 20, 0.3, 0.5),
)

DEFAULT_CASES = len(_SCENARIOS)


def make_cases(
    spec: ModelSpec,
    count: int = DEFAULT_CASES,
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
) -> list[Case]:
    """Invent inputs and states for a model from its own shapes. The outputs are empty.

    Parameters
    ----------
    spec
        The model.
    count
        How many; the scenarios repeat with other numbers.
    seed
        Of the random numbers.
    sizes
        Free sizes that the framework pins: ``{"batch": 175}``.
    """
    rng = np.random.default_rng(seed)
    cases = []
    for number in range(count):
        batch, steps, scale, state_scale = _SCENARIOS[number % len(_SCENARIOS)]
        pinned = {BATCH: batch, **(sizes or {})}
        batch = pinned[BATCH]
        inputs = {}
        for tensor in spec.inputs:
            shape = [pinned.get(d, steps) if isinstance(d, str) else d for d in tensor.shape]
            if tensor.whole:
                inputs[tensor.name] = rng.integers(0, _ids(spec, tensor.name), shape)
                continue
            # In float32 whatever the model computes in: a framework may cut inputs down to that.
            x = (scale * rng.standard_normal(shape)).astype(np.float32)
            inputs[tensor.name] = x.astype(spec.dtype)
        state: dict[str, dict[str, Array]] = {}
        if state_scale:
            for layer, shapes in spec.state_shapes().items():
                state[layer] = {}
                for name, zero in zeros(shapes, batch, np.float32).items():
                    values = (state_scale * rng.uniform(-1, 1, zero.shape)).astype(np.float32)
                    state[layer][name] = values.astype(spec.dtype)
        cases.append(Case(inputs, {}, state))
    return cases


def record(
    spec: ModelSpec,
    framework_fn: Callable[..., Any],
    cases: int | Iterable[Any] = DEFAULT_CASES,
    *,
    seed: int = 0,
    progress: bool = False,
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
    recorded = []
    model = Model(spec, "numpy")
    with console.progress("recording", len(todo), enabled=progress) as advance:
        for case in todo:
            whole = {t.name for t in spec.inputs if t.whole}
            inputs = {
                k: np.asarray(v, np.int64 if k in whole else spec.dtype)
                for k, v in case.inputs.items()
            }
            try:
                if is_runner:
                    y = framework_fn(inputs, case.state)
                else:
                    y = framework_fn(*(inputs[t.name] for t in spec.inputs))
            except NpylstmError:
                if not isinstance(cases, int) or _possible(model, replace(case, inputs=inputs)):
                    raise
            else:
                recorded.append(replace(case, inputs=inputs, outputs=_by_name(spec, y)))
            advance()
    if todo and not recorded:
        raise NpylstmError(f"{spec.name}: none of the invented inputs fits the model")
    by = getattr(framework_fn, "description", None)
    provenance = {**spec.provenance, **({"recorded_by": by} if by else {})}
    return replace(spec, cases=tuple(recorded), provenance=provenance)


def _ids(spec: ModelSpec, name: str) -> int:
    """How many ids the embeddings that read an input know; 10 where none reads it directly."""
    readers = [spec[edge.layer].layer for edge in spec.edges if name in edge.inputs]
    known = [layer.vocabulary for layer in readers if isinstance(layer, Embedding)]
    return min(known, default=10)


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
