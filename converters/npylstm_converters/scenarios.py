"""Inputs that reach the traps: one scenario for each way in which a port goes wrong unseen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from npylstm import ModelSpec
from npylstm.layers import Embedding, Masking
from npylstm.layers.base import BATCH, zeros
from npylstm.spec import Case, TensorSpec

__all__ = ["DEFAULT_CASES", "make_cases"]

Array = npt.NDArray[Any]


class Scenario(NamedTuple):
    """How to invent a case.

    Attributes
    ----------
    purpose
        In a word, what the case is there to show.
    batch, steps
        Samples; time steps, where their number is free.
    scale, state_scale
        Of the inputs and of the initial state; 0 for no state.
    """

    purpose: str
    batch: int
    steps: int
    scale: float = 1.0
    state_scale: float = 0.0


# The most telling first, as a budget may end the list. One sample hides a mixed-up batch, short
# sequences hide what grows with time, large inputs saturate the gates, small ones show an epsilon,
# zeros show the biases alone, and a carried state shows whether c and h are exchanged.
_COMMON = (
    Scenario("batch", 3, 7), Scenario("state", 3, 8, 1.0, 1.0), Scenario("saturation", 3, 9, 40.0),
    Scenario("one-step", 2, 1), Scenario("long", 2, 60, 0.3, 0.5), Scenario("small", 2, 20, 0.02),
    Scenario("single", 1, 12), Scenario("zeros", 2, 5, 0.0),
)  # fmt: skip
_PADDING = Scenario("padding", 5, 9)
_VOCABULARY = Scenario("vocabulary", 2, 6)

DEFAULT_CASES = len(_COMMON)


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

    Returns
    -------
    list
        Cases with a purpose each, the most telling first. Models with masks get a batch with
        padding behind, in front and in the middle, a full and an empty row; models of ids get both
        ends of their vocabulary.
    """
    rng = np.random.default_rng(seed)
    extra = [_PADDING] * bool(dict(_paddings(spec)))
    extra += [_VOCABULARY] * any(t.integer for t in spec.inputs)
    plan = [*_COMMON[:1], *extra, *_COMMON[1:]][:DEFAULT_CASES]
    if not spec.state_shapes():
        plan = [s._replace(state_scale=0.0) for s in plan if s.purpose != "state"]
        plan.append(Scenario("batch", 4, 11))
    return [_invented(spec, plan[k % len(plan)], rng, sizes or {}) for k in range(count)]


def _invented(
    spec: ModelSpec, scenario: Scenario, rng: np.random.Generator, sizes: Mapping[str, int]
) -> Case:
    pinned = {BATCH: scenario.batch, **sizes}
    paddings = dict(_paddings(spec))
    inputs: dict[str, Array] = {}
    for tensor in spec.inputs:
        shape = [pinned.get(d, scenario.steps) if isinstance(d, str) else d for d in tensor.shape]
        if tensor.integer:
            x = _ids(spec, tensor, shape, scenario, rng, tensor.name in paddings)
        else:
            # In float32 whatever the model computes in: a framework may cut inputs down to that.
            x = (scenario.scale * rng.standard_normal(shape)).astype(np.float32)
            x = x.astype(spec.dtype)
        if scenario is _PADDING and tensor.name in paddings:
            _pad(x, tensor, paddings[tensor.name])
        inputs[tensor.name] = x
    state: dict[str, dict[str, Array]] = {}
    for layer, shapes in spec.state_shapes().items() if scenario.state_scale else ():
        state[layer] = {}
        for name, zero in zeros(shapes, pinned[BATCH], np.float32).items():
            values = (scenario.state_scale * rng.uniform(-1, 1, zero.shape)).astype(np.float32)
            state[layer][name] = values.astype(spec.dtype)
    return Case(inputs, {}, state, purpose=scenario.purpose)


def _ids(
    spec: ModelSpec, tensor: TensorSpec, shape: list[int], scenario: Scenario,
    rng: np.random.Generator, padded: bool,
) -> Array:  # fmt: skip
    """Draw ids; 0 is for padding where there is a mask and the scenario is about it."""
    readers = [spec[edge.layer].layer for edge in spec.edges if tensor.name in edge.inputs]
    known = [layer.vocabulary for layer in readers if isinstance(layer, Embedding)]
    count = min(known, default=10)  # 10 where no embedding reads the input directly
    lowest = 1 if scenario is _PADDING and padded and count > 1 else 0
    x: Array = rng.integers(lowest, count, shape)
    if scenario is _VOCABULARY:
        ends = x.reshape(-1)[:2]
        ends[:] = [count - 1, 0][: len(ends)]
    return x


def _paddings(spec: ModelSpec) -> Iterator[tuple[str, float]]:
    """Inputs that have a mask made of their own values, and the value that marks padding."""
    inputs = {t.name for t in spec.inputs}
    for edge in spec.edges:
        layer = spec[edge.layer].layer
        if edge.inputs[0] not in inputs:
            continue
        if isinstance(layer, Masking):
            yield edge.inputs[0], layer.mask_value
        elif isinstance(layer, Embedding) and layer.mask_zero:
            yield edge.inputs[0], 0.0


def _pad(x: Array, tensor: TensorSpec, value: float) -> None:
    """Pad samples in turn: behind, in front, in the middle, not at all, throughout."""
    axis = tensor.time_axis
    if axis is None:
        return
    steps = x.shape[axis]
    third = max(1, steps // 3)
    places = [
        slice(steps - third, steps), slice(0, third), slice(steps // 2, steps // 2 + third),
        slice(0, 0), slice(0, steps),
    ]  # fmt: skip
    by_sample = np.moveaxis(x, tensor.shape.index(BATCH), 0)
    for number, sample in enumerate(by_sample):
        sample[places[number % len(places)]] = value  # its first axis is time
