"""Layers that refuse what would be possible, and those that mix samples."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from operations.movement import dependence, moves, relation_along
from operations.probe import Probe
from operations.sizes import SIZES, Array, Sizes, sample_numbers
from operations.time_claims import assignments, claimed_time_axes

from npylstm.ops.axis_map import Time
from npylstm.ops.shapes import BATCH


def mixes_samples(probe: Probe, sizes: Sizes = SIZES[0]) -> bool:
    """Whether there is an output without an axis along which samples stay apart.

    Asks for no shapes with symbols: for layers that refuse to say them.
    """
    inputs, batch = probe.draw(sizes, seed=1), sizes[BATCH]
    tables = None
    for k, shape in enumerate(probe.shapes):
        numbers = sample_numbers(shape, sizes)
        if numbers is None:
            continue
        found = [moves(probe, inputs, k, numbers == sample) for sample in range(batch)]
        tables = (
            found
            if tables is None
            else [
                [a | b for a, b in zip(*two, strict=True)]
                for two in zip(tables, found, strict=True)
            ]
        )
    assert tables is not None, "no input has samples"
    outputs = range(len(tables[0]))
    kinds = [best_relation([made[n] for made in tables], batch) for n in outputs]
    return any(not kind.endswith(("independent", "none")) for kind in kinds)


@dataclasses.dataclass(frozen=True)
class Missed:
    """A time axis that a layer refuses and the probe finds no fault with."""

    times: tuple[Time, ...]
    found: tuple[str, ...]  # of each output: its axis and the relation, "none" or "newest"


def missed_streams(probe: Probe, sizes: Sizes = SIZES[0]) -> Iterator[Missed]:
    """Find the time axes that a layer refuses, and along which its outputs could be cut.

    What needs a state that the layer does not declare is named ``carried``, as what has one.
    """
    for symbol in probe.symbols():
        for times in assignments(probe.shapes, symbol):
            if claimed_time_axes(probe.layer, times, probe.shapes) is not None:
                continue
            inputs, steps = probe.draw(sizes, seed=3), sizes[symbol]
            tables = [dependence(probe, inputs, times, t) for t in range(steps)]
            found = [
                best_relation([made[n] for made in tables], steps)
                for n in range(len(probe.claimed))
            ]
            if "mixed" not in found and any(f.startswith("axis") for f in found):
                yield Missed(times, tuple(found))


def best_relation(steps: Sequence[Array], count: int) -> str:
    """Name the axis along which an output can be cut best: its number and the relation."""
    if not any(mask.any() for mask in steps):
        return "none"
    if count not in steps[0].shape:
        return "newest"  # it may say how things stand after the last step
    kinds = {
        axis: relation_along(steps, axis)
        for axis, size in enumerate(steps[0].shape)
        if size == count
    }
    for wanted in ("independent", "carried"):
        for axis, kind in kinds.items():
            if kind == wanted:
                return f"axis {axis} {kind}"
    return "mixed"
