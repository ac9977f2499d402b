"""What becomes of mutated files: refused, told by ``verify``, or a survivor and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import npylstm
from mutations.mutations import Mutant
from npylstm.spec import Case

__all__ = ["OUTCOMES", "REASONS", "Verdict", "judge", "markdown", "text", "unexplained"]

OUTCOMES = ("refused", "told", "same", "missed")
BATCHES = 12  # of random inputs, on which a survivor is compared with the model

# Why a changed file may pass: (outcome, kind of change) to the models for which it holds, or None
# for all, and the reason.
REASONS: dict[tuple[str, str], tuple[tuple[str, ...] | None, str]] = {
    ("same", "activation"): (("attention_of_heads",), "a `relu` of what is positive for all inputs"),
    ("same", "after_batch"): (None, "says how operands of different rank are aligned; these have one rank"),
    ("same", "bias lost"): (("attention_by_hand",), "a softmax does not change when all scores are moved by one number"),
    ("same", "fully_masked"): (("attention_of_heads",), "how masked scores are lowered matters where a whole row is masked and the scores are huge"),
    ("same", "count_padding"): (None, "of an average; a maximum does not count"),
    ("same", "epsilon"): (("norms", "torch_convolution"), "far below the variances and lengths of the model: what it changes is of the size of rounding"),
    ("same", "features"): (None, "attention without a learnt scale has no use for the number"),
    ("same", "go_backwards"): (("shapes_and_merges",), "the sequence repeats one step, both ways are one"),
    ("same", "inputs exchanged"): (None, "sums, products, maxima and distances do not depend on the order"),
    ("same", "number_first"): (None, "sums, products and maxima do not depend on the order"),
    ("same", "offset"): (("norms",), "a normalization follows, which takes any offset away"),
    ("same", "operation"): (("masked_merges",), "of masks that are equal: any way to join them gives the same"),
    ("same", "outputs exchanged"): (("states_returned",), "the last output of a GRU is its state: both are one array"),
    ("same", "padding"): (("convolutions_and_pools",), "`same` is set, and computes the padding itself"),
    ("same", "return_sequences"): (("encoder_and_decoder",), "nothing reads the output, only the states"),
    ("same", "same"): (("torch_convolution",), "the padding that is stored is what `same` computes for a stride of one"),
    ("same", "mask_in_float32"): (None, "says where float32 rounds masked scores; none of these scores is that large"),
    ("same", "slope or bound of an activation"): (("convolution_and_norms",), "a normalization keeps values below the bound"),
    ("same", "stateful"): (None, "says what a session does between calls; each case brings its own state"),
    ("same", "zero_output_for_mask, no mask"): (None, "no mask reaches the layer; or lengths do, and what reads the layer skips those steps"),
    ("same", "zero_output_for_mask"): (None, "what reads the layer skips masked steps, or reads the last that counts"),
    ("missed", "epsilon"): (("shapes_and_merges",), "of a normalized `Dot`: matters for vectors shorter than 0.0003, which no case has"),
}  # fmt: skip
UNEXPLAINED = "not explained"


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


def reason(verdict: Verdict) -> str:
    """Say why a survivor passes."""
    models, why = REASONS.get((verdict.outcome, verdict.mutant.kind), ((), ""))
    return why if models is None or verdict.model in models else UNEXPLAINED


def _difference(model: npylstm.Model, other: npylstm.Model) -> float:
    """How far a survivor is from the model on random inputs; 0 if rounding explains all of it."""
    rng = np.random.default_rng(0)
    worst = 0.0
    for number in range(BATCHES):
        case = _drawn(model, rng, 10.0 ** rng.uniform(-2, 1.5), number)
        try:
            report = other.verify(cases=[replace(case, outputs=model.replay(case))])
        except npylstm.NpylstmError:  # inputs that prove nothing
            continue
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
            inputs[tensor.name] = np.where(
                kept.reshape(*kept.shape, *[1] * (like.ndim - kept.ndim)), like, noise
            )
    state = {
        call: {k: rng.normal(0, 1, a.shape).astype(a.dtype) for k, a in own.items()}
        for call, own in case.state.items()
    }
    return replace(case, inputs=inputs, state=state)


Row = tuple[str, ...]


def rows(verdicts: Sequence[Verdict]) -> list[Row]:
    """Count by kind of change."""
    counts: dict[str, Counter[str]] = {}
    for v in verdicts:
        for kind in (v.mutant.kind, "all"):
            counts.setdefault(kind, Counter())[v.outcome] += 1
    made: list[Row] = [("changed", "files", *OUTCOMES)]
    for kind in sorted(counts, key=lambda k: (k == "all", k)):
        made.append((kind, *map(str, (counts[kind].total(), *(counts[kind][o] for o in OUTCOMES)))))
    return made


def survivors(verdicts: Sequence[Verdict]) -> list[Row]:
    """List what ``verify`` did not tell, by kind: how many, why, an example."""
    found: dict[tuple[str, str, str], list[Verdict]] = {}
    for v in verdicts:
        if v.outcome in ("same", "missed"):
            found.setdefault((v.outcome, v.mutant.kind, reason(v)), []).append(v)
    made: list[Row] = [("changed", "outcome", "files", "why", "for example")]
    for (outcome, kind, why), some in sorted(found.items()):
        made.append((kind, outcome, str(len(some)), why, str(some[0])))
    return made


def unexplained(verdicts: Sequence[Verdict]) -> list[Row]:
    """List survivors for which there is no reason."""
    return [row for row in survivors(verdicts) if row[3] == UNEXPLAINED]


def text(verdicts: Sequence[Verdict]) -> str:
    """Write both tables for a terminal."""
    return "\n".join(f"{_aligned(table)}\n" for table in (rows(verdicts), survivors(verdicts)))


def _aligned(table: Sequence[Row]) -> str:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in table)
    return "\n".join(line.rstrip() for line in lines)


def markdown(verdicts: Sequence[Verdict]) -> str:
    """Write both tables as a page."""
    first, second = (
        "\n".join(
            [f"| {' | '.join(table[0])} |", "|" + "---|" * len(table[0])]
            + [f"| {' | '.join(row)} |" for row in table[1:]]
        )
        for table in (rows(verdicts), survivors(verdicts))
    )
    models = len({v.model for v in verdicts})
    return _PAGE.format(models=models, first=first, second=second)


_PAGE = """\
# What `verify` tells of a changed file

`make mutate-models` writes this page. It takes {models} small models of Keras and PyTorch with the cases
that a conversion records, and changes their files: each option of each layer to other values of its kind, each pair of
gates, each bias, the order of what a layer reads, masks ignored. A changed file must be *refused* when it is read, because
sizes or arrays no longer fit, or be *told* by `verify`. What survives is compared with the unchanged model on random
inputs: *same* gives the same outputs there, too, within rounding; *missed* does not.

{first}

## What survives, and why

{second}
"""
