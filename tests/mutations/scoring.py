"""What becomes of mutated files: refused, told by ``verify``, or a survivor and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import npylstm
from mutations.mutations import Mutant
from npylstm.spec import Case

__all__ = ["Verdict", "judge", "table"]

BATCHES = 12  # of random inputs, on which a survivor is compared with the model


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant: ``refused``, ``told``, ``same`` (function) or ``missed``."""

    model: str
    mutant: Mutant
    outcome: str
    difference: float = 0.0

    def __str__(self) -> str:
        text = f"{self.model}: {self.mutant.kind}: {self.mutant.text}"
        return f"{text} (off by {self.difference:.2g} elsewhere)" if self.difference else text


def judge(name: str, model: npylstm.Model, mutants: Iterable[Mutant]) -> Iterator[Verdict]:
    """Load and verify every mutant of a model."""
    for mutant in mutants:
        try:
            changed = npylstm.load(mutant.data, backend="numpy")
        except npylstm.NpylstmError:
            yield Verdict(name, mutant, "refused")
            continue
        try:
            survives = changed.verify().passed
        except npylstm.NpylstmError:  # the cases do not even fit
            survives = False
        if not survives:
            yield Verdict(name, mutant, "told")
            continue
        off = _difference(model, changed)
        yield Verdict(name, mutant, "missed" if off else "same", off)


def _difference(model: npylstm.Model, other: npylstm.Model) -> float:
    """How far a survivor is from the model on random inputs; 0 if rounding explains all of it."""
    rng = np.random.default_rng(0)
    worst = 0.0
    for number in range(BATCHES):
        case = _drawn(model, rng, 10.0 ** rng.uniform(-2, 1.5), number)
        report = other.verify(cases=[replace(case, outputs=model.replay(case))])
        if not report.passed:
            worst = max(worst, *(float(c.difference.max()) for c in report.comparisons))
    return worst


def _drawn(model: npylstm.Model, rng: np.random.Generator, scale: float, number: int) -> Case:
    """Draw inputs in the shapes of a recorded case, and its state in other numbers."""
    case = model.spec.cases[number % len(model.spec.cases)]
    inputs: dict[str, Any] = {}
    for tensor in model.spec.inputs:
        like = case.inputs[tensor.name]
        if tensor.integer:
            inputs[tensor.name] = rng.permuted(like)
        else:
            noise = rng.normal(0, scale, like.shape).astype(like.dtype)
            kept = rng.random(like.shape[: max(1, like.ndim - 1)]) < 0.3  # padding stays what it is
            inputs[tensor.name] = np.where(kept.reshape(*kept.shape, *[1] * (like.ndim - kept.ndim)), like, noise)
    state = {
        call: {k: rng.normal(0, 1, a.shape).astype(a.dtype) for k, a in own.items()}
        for call, own in case.state.items()
    }
    return replace(case, inputs=inputs, state=state)


def table(verdicts: Iterable[Verdict]) -> str:
    """Count by kind of change."""
    counts: dict[str, Counter[str]] = {}
    for v in verdicts:
        for kind in (v.mutant.kind, "all"):
            counts.setdefault(kind, Counter())[v.outcome] += 1
    rows = [f"{'changed':32} {'files':>6} {'refused':>8} {'told':>6} {'same':>6} {'missed':>7}"]
    for kind in sorted(counts, key=lambda k: (k == "all", k)):
        c = counts[kind]
        rows.append(
            f"{kind:32} {c.total():6} {c['refused']:8} {c['told']:6} {c['same']:6} {c['missed']:7}"
        )
    return "\n".join(rows)
