"""Draw random inputs and states for recorded cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from npylstm import Model, ModelSpec, NpylstmError
from npylstm.arrays import Array, zeros
from npylstm.ops.shapes import BATCH
from npylstm.spec import Case, TensorSpec
from npylstm_converters.recording.scenarios import FEW, Scenario, list_scenarios
from npylstm_converters.recording.traits import find_sizes, read_traits, shape_of

__all__ = ["Inventor", "make_cases"]


def make_cases(
    spec: ModelSpec,
    count: int | None = None,
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
) -> list[Case]:
    """Return cases with random inputs and states for a model's shapes. The outputs are empty.

    Parameters
    ----------
    spec
        The model.
    count
        Number of cases; None means one for every scenario of the model, and at least eight. If
        there are fewer scenarios, they repeat with other numbers.
    seed
        Seed of the random numbers.
    sizes
        Free sizes that the framework fixes: ``{"batch": 175}``.

    Returns
    -------
    list of Case
        Each with its ``purpose``. A scenario is omitted if the model accepts none of its sizes.
    """
    inventor = Inventor(spec, count, seed, sizes)
    made = (inventor.make(scenario) for scenario in inventor.scenarios)
    return [case for case in made if case is not None]


class Inventor:
    """Draws the arrays of scenarios.

    Parameters
    ----------
    spec, count, seed, sizes
        As for :func:`make_cases`.
    states, lengths
        Whether the framework accepts a state, and lengths.

    Attributes
    ----------
    scenarios
        The scenarios of this model, the most informative first.
    model
        The model, to test which sizes it accepts.
    """

    def __init__(
        self,
        spec: ModelSpec,
        count: int | None,
        seed: int,
        sizes: Mapping[str, int] | None,
        *,
        states: bool = True,
        lengths: bool = True,
    ) -> None:
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
            raise NpylstmError(f"seed: expected an integer from 0 on, got {seed!r:.60}")
        self._spec, self._seed, self._pinned = spec, int(seed), dict(sizes or {})
        self.model = Model(spec, "numpy")
        traits = read_traits(spec, self._pinned)
        self._traits = replace(
            traits,
            has_state=traits.has_state and states,
            has_lengths=traits.has_lengths and lengths,
        )
        self._found: dict[Any, dict[str, int] | None] = {}
        self.scenarios = list_scenarios(self._traits, count, self._pinned.get(BATCH))

    def make(self, scenario: Scenario, most_steps: int | None = None) -> Case | None:
        """Draw a case; None if the model accepts no such sizes.

        Parameters
        ----------
        scenario
            The scenario.
        most_steps
            The largest length of a free axis.
        """
        sizes = self._sizes(scenario, most_steps)
        if sizes is None:
            return None
        # The numbers do not depend on earlier cases.
        key = [self._seed, scenario.draw, *f"{scenario.purpose} {scenario.axis}".encode()]
        rng = np.random.default_rng(key)
        inputs = {t.name: self._draw(rng, scenario, t, sizes) for t in self._spec.inputs}
        for name, values in self._traits.padding.items() if scenario.padding else ():
            tensor = next(t for t in self._spec.inputs if t.name == name)
            _pad(inputs[name], tensor, values, scenario.padding, name in self._traits.vocabulary)
        state: dict[str, dict[str, Array]] = {}
        if scenario.state:
            for layer, shapes in self._spec.state_shapes().items():
                state[layer] = {}
                for name, zero in zeros(shapes, sizes[BATCH], np.float32).items():
                    drawn = (scenario.state * rng.uniform(-1, 1, zero.shape)).astype(np.float32)
                    state[layer][name] = drawn.astype(self._spec.dtype)
        lengths = None
        if scenario.lengths:
            lengths = _lengths(self._steps(sizes), sizes[BATCH])
        purpose = scenario.purpose
        if purpose == "one-step" and sizes.get(scenario.axis) != 1:
            purpose = "shortest"
        return Case(inputs, {}, state, lengths, purpose)

    def _sizes(self, scenario: Scenario, most_steps: int | None) -> dict[str, int] | None:
        """Return the free sizes of a scenario, or the nearest that the model accepts."""
        steps = scenario.steps if most_steps is None else min(scenario.steps, most_steps)
        wanted = {}
        for number, name in enumerate(self._traits.symbols):
            own = scenario.axis in ("", name)
            # Axes differ where they may: equal ones hide an exchange.
            wanted[name] = (steps if own else FEW) + 2 * number * (steps > 1)
        key = tuple(wanted.items())
        if key not in self._found:
            fixed = {k: n for k, n in self._pinned.items() if k != BATCH}
            found = find_sizes(self.model, {**wanted, **fixed})
            self._found[key] = None if found is None else {**found, **fixed}
        found = self._found[key]
        return None if found is None else {BATCH: scenario.batch, **found, **self._pinned}

    def _draw(
        self, rng: np.random.Generator, scenario: Scenario, tensor: TensorSpec, sizes: Any
    ) -> Array:
        shape = shape_of(tensor, sizes)
        if tensor.name in self._traits.lengths:
            counts = _lengths(sizes[self._traits.lengths[tensor.name]], shape[0])
            ordered: Array = np.sort(counts)[::-1].copy()  # packing may need this order
            return ordered
        if tensor.name in self._traits.vocabulary:
            return self._ids(rng, scenario, tensor, shape)
        # In float32 whatever the model computes in: a framework may cut inputs down to that.
        x = (scenario.scale * rng.standard_normal(shape)).astype(np.float32)
        return x.astype(self._spec.dtype)

    def _ids(
        self, rng: np.random.Generator, scenario: Scenario, tensor: TensorSpec, shape: Any
    ) -> Array:
        vocabulary = self._traits.vocabulary[tensor.name]
        # Where id 0 is padding, only the patterns of a scenario say which steps are padded.
        lowest = int(tensor.name in self._traits.padding and vocabulary > 1)
        ids = rng.integers(lowest, vocabulary, shape)
        if scenario.purpose == "vocabulary":  # the last and the first, in turn
            flat = ids.reshape(-1)
            flat[0::3], flat[1::3] = vocabulary - 1, 0
        if scenario.purpose == "zeros":
            ids[:] = lowest
        made: Array = ids.astype(np.int64 if tensor.integer else self._spec.dtype)
        return made

    def _steps(self, sizes: Mapping[str, int]) -> int:
        first = self._spec.inputs[0]
        axis = first.time_axis
        assert axis is not None  # or lengths would not be accepted
        return shape_of(first, sizes)[axis]


def _lengths(steps: int, batch: int) -> Array:
    """Return lengths: all steps, one, and some between."""
    few = [steps, 1, max(1, steps // 2), max(1, steps - 1)]
    return np.array([few[k % len(few)] for k in range(batch)], np.int64)


def _pad(
    x: Array, tensor: TensorSpec, values: Sequence[float], patterns: Sequence[str], ids: bool
) -> None:
    """Write padding into an input, in place: all features of a padded step have the value."""
    axes = [k for k in range(x.ndim - (not ids)) if tensor.shape[k] != BATCH]
    if not axes:
        return
    # The last axis is time; all other axes are rows.
    rows = np.moveaxis(x, axes[-1], -1 if ids else -2)
    places = [*np.ndindex(*rows.shape[: -1 if ids else -2])]
    for number, place in enumerate(places):
        pattern, value = patterns[number % len(patterns)], values[number % len(values)]
        row = rows[place]
        row[_padded_steps(pattern, len(row))] = value
        if pattern == "full" and not ids and row.shape[-1] > 1:
            row[len(row) // 2, 0] = value  # a step is not masked if any of its features differs


def _padded_steps(pattern: str, steps: int) -> Array:
    """Return which steps of a row are padding."""
    step, third = np.arange(steps), min(steps // 2, max(1, steps // 3))
    found: Array = {
        "back": step >= steps - third, "front": step < third, "holes": step % 3 == 1,
        "full": step < 0, "empty": step >= 0,
    }[pattern]  # fmt: skip
    return found
