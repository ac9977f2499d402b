"""What rounding explains, and whether a named cause is right for the model at hand.

A cause is right if it has the planted kind and an accepted layer, or if it is another name for the
same mistake: the oracle runs the corrected model (or, where a cause has none, every form of its kind)
and gets the outputs within rounding. A fitted cause is never another name for a mistake that is not:
a head solved by least squares reproduces much.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from planted.building import Architecture
from planted.functions import Maths
from planted.mistakes import FITTED, TABLE, Planting, plantings
from planted.oracle import UnknownToOracleError, exact_outputs, forward, outputs_of
from planted.program import Array, Outputs, Run, read_spec

VISIBLE = 4.0  # times what rounding explains; a smaller difference is not a mistake to be found
ORDERS = (0, 1, 2)


def tolerance(run: Run) -> dict[str, float]:
    """The largest difference that rounding explains, by output: from three float32 runs."""
    exact = exact_outputs(run)
    rounded = [outputs_of(run, np.float32, order) for order in ORDERS]
    eps = float(np.finfo(np.float32).eps)
    allowed = {}
    for name, y in exact.items():
        errors = [r[name] - y for r in rounded]
        noise = max(float(np.sqrt(np.mean(e * e))) for e in errors)
        noise = max(noise, eps * float(np.abs(y).max()))
        peak = max(float(np.abs(e).max()) for e in errors)
        allowed[name] = max(64 * noise, 8 * peak, 8 * eps)
    return allowed


def distance(a: Mapping[str, Array], b: Mapping[str, Array], unit: Mapping[str, float]) -> float:
    """The largest difference in units of what rounding explains; infinite for other shapes."""
    worst = 0.0
    for name in unit:
        if name not in a or a[name].shape != b[name].shape:
            return float("inf")
        gap = float(np.abs(a[name] - b[name]).max())
        worst = max(worst, gap / unit[name] if np.isfinite(gap) else float("inf"))
    return worst


@dataclass(frozen=True)
class Trial:
    """One planting in one architecture: the outputs that npylstm is asked about."""

    architecture: Architecture
    planting: Planting
    outputs: Outputs
    unit: Mapping[str, float]

    @property
    def name(self) -> str:
        a, p = self.architecture, self.planting
        return f"{a.name}/{a.seed}/{p.kind}/{p.variant}"


def trial(architecture: Architecture, planting: Planting) -> Trial | None:
    """Compute the wrong outputs in float32; None where they do not differ, or are not finite."""
    with np.errstate(all="ignore"):
        wrong = exact_outputs(planting.run)
        if not all(np.isfinite(y).all() for y in wrong.values()):
            return None
        a = b = tolerance(architecture.run)
        if not planting.run.precision:  # coarse values jump with the order of sums
            b = tolerance(planting.run)
    unit = {name: max(a[name], b[name]) for name in a}
    if distance(wrong, exact_outputs(architecture.run), unit) < VISIBLE:
        return None
    order = len(planting.variant) % len(ORDERS)
    return Trial(architecture, planting, outputs_of(planting.run, np.float32, order), unit)


def reproduces(cause: Any, trial: Trial) -> bool | None:
    """Whether the oracle gets the outputs from the corrected model; None where it cannot say."""
    if cause.spec is not None:
        try:
            made = forward(read_spec(cause.spec), trial.architecture.data, Maths())
        except (UnknownToOracleError, KeyError, TypeError):
            return None
        return distance(made, trial.outputs, trial.unit) <= 2
    partner = cause.detail.get("together_with")
    if partner is not None:
        return _together(cause.kind, str(partner), trial)
    if cause.kind == "scaling" and _affine_map(trial):
        return True
    for form in plantings(cause.kind, trial.architecture.run, trial.architecture.seed):
        if distance(exact_outputs(form.run), trial.outputs, trial.unit) <= 2:
            return True
    return None if cause.kind in ("scaling", "reduced_precision") else False


def _together(first: str, second: str, trial: Trial) -> bool:
    """Whether some form of each of two mistakes, both made at once, gives the outputs."""
    run, seed = trial.architecture.run, trial.architecture.seed
    for a, b in ((first, second), (second, first)):
        for one in plantings(a, run, seed):
            for two in plantings(b, one.run, seed):
                if distance(exact_outputs(two.run), trial.outputs, trial.unit) <= 2:
                    return True
    return False


def _affine_map(trial: Trial) -> bool:
    """Whether the outputs are the right ones, each feature times a factor plus an offset."""
    right = exact_outputs(trial.architecture.run)
    for name, y in trial.outputs.items():
        x, z = (v.reshape(-1, v.shape[-1]).astype(float) for v in (right[name], y))
        if len(x) < 4:
            return False
        for k in range(x.shape[1]):
            off, spread = x[:, k] - x[:, k].mean(), x[:, k].var()
            slope = (off @ z[:, k]) / len(x) / spread if spread else 0.0
            rest = z[:, k] - z[:, k].mean() - slope * off
            if np.abs(rest).max() > 8 * trial.unit[name]:
                return False
    return True


@dataclass(frozen=True)
class Verdict:
    """What came of one trial.

    ``answer``: ``first`` (the planted kind in an accepted layer), ``same`` (another name for the same
    outputs), ``layer`` (the planted kind elsewhere), ``wrong``, or ``none`` (no cause named).
    """

    trial: str
    planting: Planting
    answer: str
    named: str
    proven: bool
    false_proofs: tuple[str, ...]
    broken: tuple[str, ...]
    seconds: float


def judge(trial: Trial, diagnosis: Any, seconds: float) -> Verdict:
    """Score a diagnosis."""
    planting, causes = trial.planting, diagnosis.causes
    false = tuple(
        f"{c.kind} in {c.layer}" for c in causes if c.passed and reproduces(c, trial) is False
    )
    first = causes[0] if causes else None
    named = "nothing" if first is None else first.kind
    if first is None:
        answer = "none"
    elif first.kind == planting.kind and (not planting.layers or first.layer in planting.layers):
        answer = "first"
    elif first.kind in planting.also or (
        (first.kind not in FITTED or planting.kind in FITTED)
        and first.passed
        and reproduces(first, trial)
    ):
        answer = "same"
    else:
        answer = "layer" if first.kind == planting.kind else "wrong"
    proven = first is not None and bool(first.passed)
    return Verdict(trial.name, planting, answer, named, proven, false, tuple(_broken(causes)), seconds)  # fmt: skip


def _broken(causes: Any) -> Iterator[str]:
    """Say what does not keep to the contract of the class."""
    for c in causes:
        if c.kind not in TABLE:
            yield f"{c.kind}: not in the vocabulary"
        if not 0 <= c.explains <= 1:
            yield f"{c.kind}: explains {c.explains}"
        if not (isinstance(c.fix, str) and c.fix.strip()):
            yield f"{c.kind}: no fix"
        try:
            json.dumps(c.to_json(), allow_nan=False)
        except (TypeError, ValueError) as error:
            yield f"{c.kind}: {error}"
    rank = [(1 if _is_fit(c) else 0) if c.passed else 1 if _is_fit(c) else 2 for c in causes]
    if rank != sorted(rank):
        yield f"order: {[(c.kind, c.passed) for c in causes]}"


def _is_fit(cause: Any) -> bool:
    """Whether numbers were fitted to the outputs, not taken from the model."""
    detail = cause.detail
    fitted = detail.get("from") == "another training" or detail.get("of") == "one of two"
    return cause.kind == "scaling" or fitted
