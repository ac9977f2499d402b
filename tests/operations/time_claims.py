"""Claims of a layer about time."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence

import numpy as np
from operations.movement import dependence, relation_along
from operations.probe import Probe, expect_close
from operations.sizes import Array, Sizes

from npylstm import UnsupportedError
from npylstm.ops.axis_map import FIXED, LAST_STEP, PER_PUSH, Time, time_axis
from npylstm.ops.base import Operation
from npylstm.ops.shapes import BATCH, Shape

PIECES = (2, 1)  # steps of the first pieces of a sequence; the last piece is the rest


def claimed_time_axes(
    layer: Operation, times: Sequence[Time], shapes: Sequence[Shape]
) -> tuple[Time, ...] | None:
    """Read off a layer what it claims about time: one entry per output; None if it refuses.

    The only place that knows how layers say it. An entry is the output's time axis, or ``LAST_STEP``:
    how things stand after the newest step; or ``FIXED`` or ``PER_PUSH``: no step changes it.
    """
    try:
        return tuple(time_axis(axes, times) for axes in layer.axis_map(shapes))
    except UnsupportedError:
        return None


def check_time(probe: Probe, sizes: Sizes) -> None:
    """What is claimed to pass through time does: no look ahead, and pieces give the whole."""
    for symbol in probe.symbols():
        for times in assignments(probe.shapes, symbol):
            claimed = claimed_time_axes(probe.layer, times, probe.shapes)
            if claimed is None:
                continue
            assert len(claimed) == len(probe.claimed), "time: not one claim per output"
            check_causal(probe, sizes, symbol, times, claimed)
            check_pieces(probe, sizes, symbol, times, claimed)


def assignments(shapes: Sequence[Shape], symbol: str) -> Iterator[tuple[Time, ...]]:
    """All ways in which the axes of one size may be the time of a stream.

    Whatever has the size has the time along it: a piece is as long in every input. Where it is
    merged with other axes no stream gets that far.
    """
    options: list[list[Time]] = []
    for shape in shapes:
        axes: list[Time] = [k for k, d in enumerate(shape) if d == symbol]
        within = any(symbol in re.findall(r"\w+", d) for d in shape if isinstance(d, str))
        options.append(axes if within else [FIXED])
    yield from itertools.product(*options)


def check_causal(
    probe: Probe, sizes: Sizes, symbol: str, times: Sequence[Time], claimed: Sequence[Time]
) -> None:
    """An output at a time moves with no later one; a fixed one moves with none."""
    inputs, steps = probe.draw(sizes, seed=3), sizes[symbol]
    tables = [dependence(probe, inputs, times, t) for t in range(steps)]
    for n, (name, time) in enumerate(zip(probe.layer.output_names(), claimed, strict=True)):
        mine = [found[n] for found in tables]
        where = f"time: output {name!r}, inputs {times}, claimed {time}"
        if isinstance(time, int):
            found = mine[0].shape[time : time + 1]
            assert found == (steps,), f"{where}: shape {mine[0].shape} has no {steps} steps there"
            kind = relation_along(mine, time)
            assert kind != "mixed", f"{where}: moves with a later step"
        elif time in (FIXED, PER_PUSH):
            assert not any(mask.any() for mask in mine), f"{where}: moves with the steps"
        else:
            assert time == LAST_STEP, f"{where}: no such claim"


def check_pieces(
    probe: Probe, sizes: Sizes, symbol: str, times: Sequence[Time], claimed: Sequence[Time]
) -> None:
    """Pieces of the time axis, one after the other with the state, give the whole."""
    layer, inputs, steps = probe.layer, probe.draw(sizes, seed=4), sizes[symbol]
    state = probe.state(sizes[BATCH])
    given = tuple(layer.initial_states(inputs))
    whole, after = probe.run(inputs, state)
    if given:  # the stream carries on what the call was given
        state = dict(zip(layer.state_shapes(), given, strict=True))
    kept = [n for n in range(len(inputs)) if not 1 <= n <= len(given)]
    made: list[list[Array]] = [[] for _ in claimed]
    cuts = [0, *itertools.accumulate(PIECES), steps]
    for begin, end in itertools.pairwise(cuts):
        pieces = []
        for n in kept:
            time = times[n]
            at = (slice(None),) * time + (slice(begin, end),) if isinstance(time, int) else ...
            pieces.append(inputs[n][at])
        outputs, state = probe.run(pieces, state)
        assert set(state) == set(layer.state_shapes()), "pieces: the state is not carried on"
        for entries, y in zip(made, outputs, strict=True):
            entries.append(y)
    atol = probe.rounding(inputs, whole, probe.dtype)
    for name, time, entries, expected in zip(
        layer.output_names(), claimed, made, whole, strict=True
    ):
        joined = np.concatenate(entries, time) if isinstance(time, int) else entries[-1]
        expect_close(joined, expected, atol, f"pieces: output {name!r}, inputs {times}")
        if time in (FIXED, PER_PUSH):
            for y in entries:
                expect_close(y, expected, atol, f"pieces: output {name!r} is claimed {time}")
    if not given:
        for name, array in after.items():
            expect_close(state[name], array, atol, f"pieces: state {name!r}")
