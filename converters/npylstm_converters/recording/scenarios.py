"""The scenarios of recorded cases, the most informative first.

A recording may end early, so the order matters: a general case, then the features of this model
(masks, state, lengths, ids), then extremes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from npylstm_converters.recording.traits import Traits

__all__ = ["DEFAULT_CASES", "FEW", "Scenario", "list_scenarios"]

DEFAULT_CASES = 8  # at least; a model with masks, state or several free lengths has more

FEW, MANY = 7, 60

# Which steps of a row are padding.
PATTERNS = ("back", "front", "holes", "full", "empty")


@dataclass(frozen=True)
class Scenario:
    """The description of one random case.

    Attributes
    ----------
    purpose
        One word for the mistake or feature that the case can show.
    batch
        Number of samples, unless the framework fixes it.
    scale
        Standard deviation of the inputs.
    steps
        Length of the free axis ``axis``, or of every free axis if that is empty.
    state
        Largest value of the initial state; 0 for none.
    padding
        Patterns of padded steps, one per row in turn; empty for no padding.
    lengths
        Whether the samples have separate ``lengths``.
    draw
        Distinguishes cases that are otherwise equal.
    """

    purpose: str
    batch: int
    scale: float = 1.0
    steps: int = FEW
    axis: str = ""
    state: float = 0.0
    padding: tuple[str, ...] = ()
    lengths: bool = False
    draw: int = 0


def list_scenarios(traits: Traits, count: int | None, batch: int | None) -> list[Scenario]:
    """Return the scenarios of a model.

    Parameters
    ----------
    traits
        The properties of the model's inputs.
    count
        Number of scenarios; additional ones repeat with other numbers. None means all, and at least
        :data:`DEFAULT_CASES`.
    batch
        The batch size that the framework fixes.
    """
    own = [*_own(traits, batch)]
    count = max(len(own), DEFAULT_CASES) if count is None else count
    return [replace(own[k % len(own)], draw=k // len(own)) for k in range(count)]


def _own(traits: Traits, batch: int | None) -> Iterator[Scenario]:
    # Several samples show a batch that is mixed up; a single one shows what depends on the others.
    yield Scenario("batch", 3)
    if traits.padding:
        yield from _padded(batch)
    if traits.has_state:  # h and c differ, and every unit has its own
        pattern = PATTERNS if traits.padding else ()
        yield Scenario("state", 3, steps=FEW + 1, state=1.0, padding=pattern)
    if traits.has_lengths:
        yield Scenario("lengths", 4, lengths=True)
    if traits.vocabulary:
        yield Scenario("vocabulary", 2, steps=FEW - 2)
    for axis in traits.symbols:
        yield Scenario("one-step", 2, steps=1, axis=axis)
    yield Scenario("saturation", 3, scale=40.0)
    # Zeros show the biases alone; small inputs show an epsilon and the slope at zero.
    yield Scenario("zeros", 2, scale=0.0, steps=FEW - 2)
    yield Scenario("small", 2, scale=1e-3)
    yield Scenario("single", 1, steps=FEW + 5)
    for axis in traits.symbols:  # short sequences hide what grows with time
        yield Scenario("long", 2, scale=0.3, steps=MANY, axis=axis, state=0.5 * traits.has_state)
    yield Scenario("large", 2, scale=4.0)  # beyond the corners of piecewise functions


def _padded(batch: int | None) -> Iterator[Scenario]:
    """Yield cases that together have every padding pattern once."""
    size = batch or len(PATTERNS)
    for first in range(0, len(PATTERNS), size):
        patterns = PATTERNS[first:] + PATTERNS[:first]
        yield Scenario("padding", len(PATTERNS), steps=FEW + 2, padding=patterns)
