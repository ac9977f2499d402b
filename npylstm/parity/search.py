"""Search corrections that explain a mismatch: cheap ones, then expensive ones, then pairs.

Every correction is *screened* on a few samples, and on the first steps if later steps do not change
them. A correction that explains nearly all of the mismatch there is *examined* on all examples. It
is proven if the corrected model agrees within the rounding rule of ``verify``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from npylstm import console
from npylstm.arrays import Array
from npylstm.errors import NpylstmError
from npylstm.ops.shapes import BATCH
from npylstm.parity.comparison import difference
from npylstm.parity.corrections import Correction, Outputs, Subject
from npylstm.parity.diagnosis import Cause
from npylstm.parity.examples import Example
from npylstm.parity.mistakes import MISTAKES, TIERS, Mistake
from npylstm.parity.proving import proves
from npylstm.parity.trial import FAILURES, corrected_outputs
from npylstm.parity.variants import CachedRun
from npylstm.spec import ModelSpec

__all__ = ["search"]

# A correction that leaves at most this share of the squared mismatch is examined. The right one
# leaves rounding, 1e-6 or less on a few samples; two mistakes at once, or noise, leave more.
_EXAMINED = 0.02
# One that leaves at most this share is reported, though not proven: it explains nine tenths.
_NAMED = 0.1
# A fit has free parameters: it must leave less, and needs this many data for each parameter.
_FITTED, _DATA_OF_FIT = 1e-3, 4
# Largest number of corrections of one tier that are examined.
_MOST_EXAMINED = 6
# Agreement within rounding alone is no proof: a corrected model may amplify rounding so much that
# any output agrees with it. So at most this share of the squared mismatch may be left.
_PROVEN = 1e-2
_VALUES, _PREFIX = 12, 12  # minimum of output values and maximum of steps in a screening
_SEEDS, _MOST_OF_SEED = 4, 0.7  # pairs: first corrections, and the share that each may leave
_FARTHEST = 1e6  # cap of a difference, in units of the output's size


@dataclass(frozen=True)
class _Tried:
    """A correction, its position in the table, and the share of the squared mismatch it leaves."""

    place: int
    mistake: Mistake
    correction: Correction
    left: float = 1.0
    passed: bool = False


def search(
    spec: ModelSpec, examples: Sequence[Example], progress: bool = True
) -> tuple[Cause, ...]:
    """Return the causes of a mismatch, best first.

    Parameters
    ----------
    spec
        The model, without cases.
    examples
        Runs of the other program.
    progress
        Show progress on stderr, if that is a terminal.
    """
    quiet = np.errstate(over="ignore", invalid="ignore", divide="ignore")  # wrong models overflow
    with quiet, console.progress("diagnosing", TIERS + 1, enabled=progress) as advance:
        bench = _Bench(spec, examples)
        tried: list[_Tried] = []
        examined: list[_Tried] = []
        for tier in range(1, TIERS + 1):
            now = bench.screen(tier)
            tried += now
            examined += bench.examine(now)
            advance()
            if any(t.passed and not t.mistake.fitted for t in examined):
                break
        ranked = _ranked(examined)
        causes = [_cause(spec, t) for t in _one_of_each(ranked)]
        if not any(t.passed for t in ranked):
            causes = _pair(spec, examples, tried) or causes
        advance()
    return tuple(causes)


def _ranked(examined: Sequence[_Tried]) -> list[_Tried]:
    """Return the proven corrections in order; if there are none, the likeliest three."""
    passed = sorted((t for t in examined if t.passed), key=lambda t: (t.mistake.fitted, t.place))
    if passed:
        return passed
    named = [t for t in examined if t.left <= _named_below(t)]
    return sorted(named, key=lambda t: (not t.mistake.fitted, t.left))[:3]


def _named_below(tried: _Tried) -> float:
    """Return the share of a mismatch that a correction may leave to be reported without proof."""
    correction = tried.correction
    if correction.free and correction.data < _DATA_OF_FIT * correction.free:
        return -1.0
    if correction.resembles is not None:
        return correction.resembles
    return _FITTED if correction.free else _NAMED


def _one_of_each(ranked: Sequence[_Tried]) -> Iterator[_Tried]:
    """Yield the first correction of every kind and layer."""
    seen: set[tuple[str, str | None]] = set()
    for tried in ranked:
        key = tried.mistake.kind, tried.correction.layer
        if key not in seen:
            seen.add(key)
            yield tried


def _cause(spec: ModelSpec, tried: _Tried, **more: str) -> Cause:
    correction = tried.correction
    corrected: ModelSpec | None = None
    changes_model = bool(correction.changes) or correction.spec is not None
    if changes_model and correction.around is None and correction.resembles is None:
        try:
            corrected = correction.corrected(spec)
        except NpylstmError:  # the corrected graph is no valid model
            corrected = None
    return Cause(
        tried.mistake.kind, correction.layer, {**correction.detail, **more},
        float(np.clip(1 - tried.left, 0, 1)), tried.passed,
        f"{correction.fix[:1].upper()}{correction.fix[1:]}.", corrected,
    )  # fmt: skip


def _pair(spec: ModelSpec, examples: Sequence[Example], tried: Sequence[_Tried]) -> list[Cause]:
    """Search pairs: a second correction on top of those that explain most."""
    seeds = [
        t for t in sorted(tried, key=lambda t: t.left)
        if t.left <= _MOST_OF_SEED and t.correction.around is None and not t.mistake.fitted
    ]  # fmt: skip
    for seed in seeds[:_SEEDS]:
        try:
            corrected = seed.correction.corrected(spec)
            bench = _Bench(corrected, examples)
            found = _ranked(bench.examine(bench.screen(1)))
        except FAILURES:
            continue
        if found and found[0].passed:
            second = _cause(corrected, found[0], together_with=seed.mistake.kind)
            first = _cause(spec, seed, together_with=found[0].mistake.kind)
            # A pair is proven only if one corrected model shows it.
            whole, proven = second.spec, second.spec is not None
            return [replace(c, spec=whole, passed=proven) for c in (first, second)]
    return []


class _Bench:
    """The model with all examples, with the few samples that differ most, and with first steps."""

    def __init__(self, spec: ModelSpec, examples: Sequence[Example]) -> None:
        self.spec = spec
        tapes = [CachedRun(spec, example) for example in examples]
        tapes.sort(key=lambda t: -_energy(t.outputs, t.example.outputs))
        self.subject = Subject(spec, tapes)
        self.small = CachedRun(spec, _rows_that_differ(spec, tapes[0]))
        self.first = _first_steps(spec, self.small)

    def screen(self, tier: int) -> list[_Tried]:
        """Return every correction of a tier with the mismatch that it leaves in a few samples."""
        tried: list[_Tried] = []
        for number, mistake in enumerate(MISTAKES):
            if mistake.tier == tier:
                try:
                    for k, correction in enumerate(mistake.find(self.subject)):
                        tried.append(_Tried(10_000 * number + k, mistake, correction))
                except FAILURES:  # this model has no more candidates of this kind
                    continue
        left = self._left_by_numbers([t.correction for t in tried])
        return [replace(t, left=share) for t, share in zip(tried, left, strict=True)]

    def _left_by_numbers(self, corrections: Sequence[Correction]) -> list[float]:
        """Return the share that each correction leaves; changes of numbers run together."""
        left = [1.0] * len(corrections)
        stacked = [
            k
            for k, c in enumerate(corrections)
            if c.spec is None and c.around is None and self.small.changes_numbers(c.changes)
        ]
        others = sorted({*range(len(corrections))} - {*stacked})
        for tape in (self.first, self.small):
            if tape is not None:
                variants = tape.run_variants([corrections[k].changes for k in stacked])
                before = _energy(tape.outputs, tape.example.outputs)
                for k, made in zip(stacked, variants, strict=True):
                    left[k] = _share(made, tape.example.outputs, before)
                stacked = [k for k in stacked if left[k] <= _EXAMINED]
        for k in others:
            # A change of the call may mix samples: it needs all of them.
            tape = self.small if corrections[k].around is None else self.subject.tapes[0]
            outputs = corrected_outputs(tape, corrections[k])
            before = _energy(tape.outputs, tape.example.outputs)
            left[k] = _share(outputs, tape.example.outputs, before)
        return left

    def examine(self, tried: Sequence[_Tried]) -> list[_Tried]:
        """Judge the corrections that explain most by the rounding rule, on all examples."""
        hopeful = sorted((t for t in tried if t.left <= _EXAMINED), key=lambda t: t.left)
        best = hopeful[0].left if hopeful else 0.0
        exact = [t for t in hopeful if t.left <= max(1e-6, 30 * best)]
        rest = [t for t in hopeful if t.left > max(1e-6, 30 * best)]
        examined = [self._judged(t) for t in sorted(exact, key=lambda t: t.place)[:_MOST_EXAMINED]]
        if not any(t.passed for t in examined):
            examined += [self._judged(t) for t in rest[:_MOST_EXAMINED]]
        likely = sorted(
            (t for t in tried if _EXAMINED < t.left <= _named_below(t)),
            key=lambda t: t.left,
        )
        return examined + [self._judged(t) for t in likely[:_MOST_EXAMINED]]

    def _judged(self, tried: _Tried) -> _Tried:
        """Return the correction with its result on all examples."""
        correction = tried.correction
        before = left = 0.0
        for tape in self.subject.tapes:
            outputs = corrected_outputs(tape, correction)
            energy = _energy(tape.outputs, tape.example.outputs)
            before += energy
            left += energy * _share(outputs, tape.example.outputs, energy)
        share = left / before if before else 1.0
        judged = replace(tried, left=share)
        if share > _PROVEN:
            return judged
        return replace(judged, passed=proves(self.spec, self.subject.tapes, correction))


def _energy(ours: Outputs | None, theirs: Outputs) -> float:
    """Return the sum of squared differences, each output divided by its root mean square."""
    if ours is None:
        return float("inf")
    total = 0.0
    for name, other in theirs.items():
        mine = ours[name]
        if mine.shape != other.shape:
            return float("inf")
        if not other.size:
            continue
        wide = other.astype(np.float64)
        finite = wide[np.isfinite(wide)]
        size = float(np.sqrt(np.mean(finite**2))) if finite.size else 1.0
        with np.errstate(over="ignore"):
            off = difference(mine, other) / (size or 1.0)
        total += float(np.sum(np.minimum(off, _FARTHEST) ** 2))
    return total


def _share(outputs: Outputs | None, theirs: Outputs, before: float) -> float:
    """Return the share of a mismatch that is left."""
    left = _energy(outputs, theirs)
    return min(left / before, 1e9) if before > 0 else (0.0 if left == 0 else 1e9)


def _rows_that_differ(spec: ModelSpec, tape: CachedRun) -> Example:
    """Return the few samples of an example with the largest mismatch."""
    count = spec.count_samples(tape.example.inputs)
    if any(BATCH not in t.shape for t in spec.output_specs):
        return tape.example
    values = sum(tape.outputs[name].size for name in spec.outputs)
    most = -(-_VALUES * count // max(values, 1))
    off = np.zeros(count)
    for t in spec.output_specs:
        d = difference(tape.outputs[t.name], tape.example.outputs[t.name])
        d[np.isinf(d)] = 1.0
        off += np.moveaxis(d, t.shape.index(BATCH), 0).reshape(count, -1).sum(axis=1)
    rows = sorted(np.argsort(-off, kind="stable")[:most].tolist())
    return tape.example.rows(spec, rows)


def _first_steps(spec: ModelSpec, tape: CachedRun) -> CachedRun | None:
    """Return the first steps of an example; None if outputs need later ones, or do not differ."""
    axes = {t.name: t.time_axis for t in (*spec.inputs, *spec.output_specs)}
    example = tape.example
    if any(axes[t.name] is None for t in spec.output_specs) or axes[spec.inputs[0].name] is None:
        return None
    inputs = {k: _first(x, axes[k]) for k, x in example.inputs.items()}
    outputs = {k: _first(y, axes[k]) for k, y in example.outputs.items()}
    mask = None if example.mask is None else example.mask[:, :_PREFIX]
    cut = replace(example, inputs=inputs, outputs=outputs, mask=mask)
    if all(inputs[k].shape == x.shape for k, x in example.inputs.items()):
        return None
    try:
        first = CachedRun(spec, cut)
    except FAILURES:
        return None
    for name, y in first.outputs.items():
        whole = _first(tape.outputs[name], axes[name])
        if y.shape != whole.shape or not np.allclose(
            y, whole, rtol=1e-4, atol=1e-6, equal_nan=True
        ):
            return None
    count = sum(y.size for y in outputs.values())
    return first if _energy(first.outputs, outputs) > 1e-10 * count else None


def _first(x: Array, axis: int | None) -> Array:
    return x if axis is None else x[(slice(None),) * axis + (slice(0, _PREFIX),)]
