"""The tables of a run: by kind, what is confused with what and why, and what must not happen."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass, field

from planted.judge import Verdict
from planted.mistakes import TABLE

COMMAND = 'python tests/planted/matrix.py --only "{}"'
SHARE = 0.95  # of the listed forms, to be named first

# Why two names describe one thing, or why one hides another: (planted, named).
REASONS: dict[tuple[str, str], str] = {
    ("weights_stale", "scaling"): "another bias, or one output unit: a head's weights then are a factor and an offset",
    ("direction", "sequence_order"): "the only layer that reads steps in an order, or all of them, turned",
    ("activation", "logits"): "`softmax` against `log_softmax` at the output: the logarithm was taken on one side",
    ("initial_state", "direction"): "with a reset at every step only the last step counts, or the first",
    ("last_step", "sequence_order"): "one step is read: the first of the sequence turned is the last",
    ("layers_swapped", "output_order"): "two heads of one size: exchanged weights are exchanged outputs",
    ("reduced_precision", "nothing"): "TF32 products of a convolution leave an error that no other rounding resembles",
    ("unknown", "nothing"): "as it should be",
}  # fmt: skip

Row = list[str]


@dataclass
class Score:
    """All verdicts of a run."""

    verdicts: list[tuple[str, Verdict]] = field(default_factory=list)
    correct: int = 0
    alarms: list[str] = field(default_factory=list)

    def add(self, group: str, verdict: Verdict) -> None:
        self.verdicts.append((group, verdict))

    def of(self, group: str, listed: bool | None = None) -> list[Verdict]:
        """The verdicts of a group; of listed forms, of further ones, or of all."""
        return [v for g, v in self.verdicts if g == group and listed in (None, v.planting.listed)]

    @property
    def false_proofs(self) -> list[str]:
        return [f"{v.trial}: {p}" for _, v in self.verdicts for p in v.false_proofs]

    @property
    def broken(self) -> list[str]:
        return [f"{v.trial}: {p}" for _, v in self.verdicts for p in v.broken]

    @property
    def good(self) -> bool:
        """Whether everything that is required holds."""
        listed = self.of("planted", True)
        share = right(listed) / max(len(listed), 1)
        return not (self.alarms or self.false_proofs or self.broken) and share >= SHARE


def right(verdicts: list[Verdict]) -> int:
    return sum(v.answer in ("first", "same") for v in verdicts)


def by_kind(verdicts: list[Verdict]) -> list[Row]:
    """Kind, planted, named first, the same mistake, not found, proven of provable, median time."""
    rows = [["kind", "planted", "named first", "same mistake", "not right", "proven", "median time"]]  # fmt: skip
    for kind in [*TABLE, ""]:
        part = [v for v in verdicts if kind in ("", v.planting.kind)]
        if not part:
            continue
        count = Counter(v.answer for v in part)
        provable = [v for v in part if v.planting.provable]
        proven = sum(v.proven and v.answer in ("first", "same") for v in provable)
        rows.append(
            [kind or "all", str(len(part)), str(count["first"]), str(count["same"]),
             str(len(part) - right(part)), f"{proven} of {len(provable)}",
             f"{statistics.median(v.seconds for v in part):.2f} s"]
        )  # fmt: skip
    return rows


def confusions(verdicts: list[Verdict], answers: tuple[str, ...]) -> list[Row]:
    """Planted, named, how often, why, an example."""
    found: dict[tuple[str, str], list[Verdict]] = {}
    for v in verdicts:
        if v.answer in answers:
            named = f"{v.named}, another layer" if v.answer == "layer" else v.named
            found.setdefault((v.planting.kind, named), []).append(v)
    rows = [["planted", "named", "times", "why", "for example"]]
    for (planted, named), cases in sorted(found.items(), key=lambda item: -len(item[1])):
        why = REASONS.get((planted, named), "")
        rows.append([planted, named, str(len(cases)), why, cases[0].trial])
    return rows


def text(score: Score, markdown: bool = False) -> str:
    """Write all tables."""
    listed, further = score.of("planted", True), score.of("planted", False)
    parts = [_title("Planted mistakes and their diagnosis", markdown, 1)]
    if markdown:
        parts.append(_INTRODUCTION)
    share = 100 * right(listed) / max(len(listed), 1)
    parts.append(f"{right(listed)} of {len(listed)} named first, or by another name of the same mistake: {share:.1f} %.")  # fmt: skip
    sections = (
        ("By kind", by_kind(listed)),
        ("By kind: forms that people make but that no kind promises", by_kind(further)),
        ("Two names for the same mistake", confusions(listed + further, ("same",))),
        ("Confused, or not found", confusions(listed, ("layer", "wrong", "none"))),
        ("Confused, or not found, of the other forms", confusions(further, ("layer", "wrong", "none"))),
    )  # fmt: skip
    for title, rows in sections:
        if len(rows) > 1:
            parts += [_title(title, markdown, 2), _table(rows, markdown)]
    parts += [_title("What must not happen", markdown, 2), _forbidden(score)]
    if not markdown:
        wrong = [v.trial for v in listed + further if v.answer in ("layer", "wrong", "none")]
        parts += [COMMAND.format(name) for name in wrong]
    return "\n\n".join(parts) + "\n"


def _forbidden(score: Score) -> str:
    lines = [f"Causes named for {score.correct} correct models: {len(score.alarms)}."]
    for group, what in (("unknown", "unknown mistakes"), ("pair", "models with two mistakes")):
        part = score.of(group)
        proofs = sum(bool(v.false_proofs) for v in part)
        held = sum(v.proven and not v.false_proofs for v in part)
        lines.append(
            f"False proofs in {len(part)} {what}: {proofs}; in {held} a corrected model does "
            "reproduce the outputs."
        )
    planted = score.of("planted")
    lines.append(f"False proofs in {len(planted)} models with one mistake: {sum(bool(v.false_proofs) for v in planted)}.")  # fmt: skip
    lines += [*score.alarms[:20], *score.false_proofs[:40], *score.broken[:20]]
    return "\n".join(f"- {line}" for line in lines)


def _title(words: str, markdown: bool, level: int) -> str:
    return f"{'#' * level} {words}" if markdown else f"== {words}"


def _table(rows: list[Row], markdown: bool) -> str:
    if markdown:
        lines = ["| " + " | ".join(row) + " |" for row in rows]
        return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return "\n".join(
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows
    )


_INTRODUCTION = """\
`make diagnose-matrix` writes this page. Models of 3 to 48 units with random weights run in an oracle
of plain NumPy that shares no code with npylstm and makes one mistake; `npylstm.diagnose` gets the
model without the mistake, the inputs and the wrong outputs. An answer is right if the first cause has
the planted kind and layer. It is right, too, if its corrected model gives the same outputs within
rounding, as the oracle computes them: two mistakes that give the same outputs cannot be told apart."""
