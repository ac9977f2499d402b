"""The parts of the page that are text and tables, from the verdict to the environment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from npylstm.environment import environment
from npylstm.ops.shapes import format_shape
from npylstm.parity.diagnosis import Cause, Diagnosis
from npylstm.parity.page.markup import (
    MARKS,
    definitions,
    esc,
    number,
    plural,
    share,
    short_name,
    table,
)
from npylstm.parity.report import ParityReport
from npylstm.spec import Case, ModelSpec
from npylstm.summary import layer_table, origin_of

__all__ = [
    "PROOF_SENTENCES", "cases", "causes", "heading", "layer_rows", "machine", "marks", "numbers",
    "origin", "state", "strip", "verdict",
]  # fmt: skip

_MOST_ROWS = 300
_LONG = 400  # characters of a sentence
_DEEPEST = 5  # lists inside lists

# The heading and its tone if parity held, by ``ParityReport.proof``.
_HEADINGS = {
    "proven": ("Parity held", "good"),
    "stated": ("Agrees, for what is stated", "warn"),
    "assumed": ("Agrees, for a structure that was assumed", "warn"),
}
PROOF_SENTENCES = {
    "proven": "The structure of the model comes from its source, or its author's own outputs "
              "confirm it.",
    "stated": "The user stated the structure of the model or a part of it, or the conversion "
              "changed what it computes. Whether the outputs are the author's is not proven.",
    "assumed": "A part of the structure was assumed: neither the source nor the user states it.",
}  # fmt: skip

_CIRCLE = '<circle cx="16" cy="16" r="14" fill="none" stroke="currentColor" stroke-width="3"/>'
_SIGNS = {
    "good": "M9.5 16.5l4.5 4.5l8.5-9.5",
    "bad": "M11 11l10 10m0-10l-10 10",
    "warn": "M16 8v10m0 4v1",
}


def heading(report: ParityReport | None) -> tuple[str, str]:
    """Return the heading of the page and its tone: good, warn or bad."""
    if report is None:
        return "Diagnosis", "bad"
    if not report.passed:
        return "Parity failed", "bad"
    return _HEADINGS.get(report.proof, _HEADINGS["assumed"])


def verdict(report: ParityReport | None) -> str:
    """Show the verdict, its numbers, and the proof of the structure."""
    title, tone = heading(report)
    spec = None if report is None else report.spec
    name = f" of <b>{esc(spec.name)}</b>" if spec is not None else ""
    sign = (
        f'<svg viewBox="0 0 32 32" aria-hidden="true">{_CIRCLE}<path d="{_SIGNS[tone]}" '
        'stroke="currentColor" stroke-width="3" stroke-linecap="round" stroke-linejoin="round"/>'
        "</svg>"
    )
    inner = f'<p class="kicker">npylstm parity report{name}</p><h1>{sign}{title}</h1>'
    if report is not None:
        inner += f'<p class="lead">{esc(_sentence(report.verdict), 900)}.</p>'
        inner += definitions(_tiles(report), "tiles")
        inner += _proof(report.proof, report.stated)
    return f'<header data-tone="{tone}"><div class="wrap">{inner}</div></header>'


def _sentence(text: str) -> str:
    """Return the verdict without the words of the heading."""
    for start in ("parity held: ", "parity FAILED: "):
        text = text.removeprefix(start)
    return (text[:1].upper() + text[1:]).rstrip(".")


def _tiles(report: ParityReport) -> Iterable[tuple[str, str]]:
    if not report.outputs:
        return
    worst = max(report.outputs, key=lambda o: largest_share(report, o.output))
    found = largest_share(report, worst.output)
    yield (
        "Worst difference",
        f"{number(worst.max_abs)}<small>output <code>{esc(worst.output, 40)}</code>, "
        f"{esc(_place(worst.where))}</small>",
    )
    title, source = "Rounding explains up to", "measured on this model and these inputs"
    if worst.output in report.budget:
        title, source = "Budget", "of the quantized model, twice the errors on its recorded cases"
    yield title, f"{number(worst.tolerance)}<small>{source}</small>"
    yield "Used of that", f"{share(found)}<small>100 % is the limit</small>"
    total = sum(part.ours.size for part in report.comparisons)
    held = sum(o.passed for o in report.outputs)
    yield (
        "Compared",
        f"{plural(total, 'value') if total else plural(report.cases, 'case')}"
        f"<small>{plural(report.cases, 'case')}, {held} of "
        f"{plural(len(report.outputs), 'output')} in parity</small>",
    )


def largest_share(report: ParityReport, output: str) -> float:
    """Return the largest share of the tolerance or of the budget that an output takes."""
    parts = [p for p in report.comparisons if p.output == output]
    if parts:
        return max(map(report.used, parts))
    found = next(o for o in report.outputs if o.output == output)
    return found.max_abs / found.tolerance if found.tolerance else 0.0


def _place(where: Mapping[str, int]) -> str:
    return ", ".join(f"{axis} {index}" for axis, index in where.items())


def _proof(proof: str, stated: Sequence[str]) -> str:
    tone = _HEADINGS.get(proof, _HEADINGS["assumed"])[1]
    sentence = PROOF_SENTENCES.get(proof, PROOF_SENTENCES["assumed"])
    mark = MARKS[tone]
    items = "".join(f"<li>{esc(text, _LONG)}</li>" for text in stated)
    return (
        f'<div class="proof"><p><span class="badge {tone}">{mark} structure {esc(proof, 20)}</span>'
        f" {sentence}</p>{f'<ul>{items}</ul>' if items else ''}</div>"
    )


def causes(diagnosis: Diagnosis) -> str:
    """Show the causes of the difference, and their fixes."""
    parts = [_cause(cause) for cause in diagnosis.causes]
    if not parts:
        parts = ["<p>No known mistake explains the difference. What is known of it:</p>"]
    if diagnosis.facts:
        items = "".join(f"<li>{esc(fact, _LONG)}</li>" for fact in diagnosis.facts)
        parts.append(f'<h3 class="after">What was measured</h3><ul class="facts">{items}</ul>')
    return "".join(parts)


def _cause(cause: Cause) -> str:
    title = cause.kind.replace("_", " ")
    title = esc(title[:1].upper() + title[1:])
    where = f" <span>in <code>{esc(cause.layer)}</code></span>" if cause.layer else ""
    kind, badge = ("proven", "solid") if cause.passed else ("fitted", "warn")
    status = "✓ proven" if cause.passed else "not proven"
    explains = min(max(cause.explains, 0.0), 1.0)
    text = f"explains {100 * explains:.4g} % of the squared difference"
    text += "; corrected, parity holds" if cause.passed else ""
    detail = [(k, f"<code>{esc(_value(v))}</code>") for k, v in cause.detail.items()]
    return (
        f'<article class="cause {kind}"><h3>{title}{where}'
        f'<span class="badge {badge}">{status}</span></h3>'
        f'<p class="fix"><b>What to change:</b> {esc(cause.fix, _LONG)}</p>'
        f'<p class="meter"><i aria-hidden="true"><i style="width:{100 * explains:.1f}%"></i></i>'
        f"{text}</p>{definitions(detail, 'pairs') if detail else ''}</article>"
    )


def _value(value: Any, depth: int = 0) -> str:
    if isinstance(value, (Mapping, list, tuple)) and depth == _DEEPEST:
        return "…"
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {_value(v, depth + 1)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_value(v, depth + 1) for v in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def numbers(report: ParityReport) -> str:
    """Show the numbers of every output."""
    framework = short_name(report.framework)
    limit = "budget" if report.budget else "rounding explains"
    header = ["output", "parity", "largest difference", limit, "used", "rms",
              f"{framework} to float64", "npylstm to float64", "largest at"]  # fmt: skip
    rows = [
        [
            f"<code>{esc(o.output, 60)}</code>", state(o.passed), number(o.max_abs),
            number(o.tolerance), share(largest_share(report, o.output)), number(o.rms),
            number(o.framework_to_float64), number(o.npylstm_to_float64), esc(_place(o.where)),
        ]
        for o in report.outputs[:_MOST_ROWS]
    ]  # fmt: skip
    return table("Numbers of every output", header, rows, numeric=range(2, 8))


def state(passed: bool) -> str:
    """Return whether parity held as text with a sign."""
    tone, text = ("good", "held") if passed else ("bad", "failed")
    return f'<span class="{tone}">{MARKS[tone]}&nbsp;{text}</span>'


def marks(diagnosis: Diagnosis | None, spec: ModelSpec) -> dict[str, str]:
    """Return the layers that the diagnosis names, with a label for each."""
    if diagnosis is None:
        return {}
    found = {_layer(c.layer, spec): "cause" for c in diagnosis.causes if c.passed and c.layer}
    if diagnosis.first_bad_layer:
        found[_layer(diagnosis.first_bad_layer, spec)] = "differs first"
    return found


def _layer(name: str, spec: ModelSpec) -> str:
    """Return the layer of a call, or of one direction of it."""
    makers = {tensor: edge.layer for edge in spec.edges for tensor in edge.outputs}
    for known in (name, name.rpartition("/")[0]):
        if any(layer.name == known for layer in spec.layers):
            return known
        if known in makers:
            return makers[known]
    return name


def strip(diagnosis: Diagnosis, spec: ModelSpec) -> str:
    """Show the calls in order of computation, with the first that differs."""
    calls = [edge.name for edge in spec.edges]
    layers = [edge.layer for edge in spec.edges]
    name = diagnosis.first_bad_layer or ""
    target = _layer(name, spec)
    if name not in calls and target not in layers:
        return f"<p>The first layer that differs is <code>{esc(name)}</code>.</p>"
    first = calls.index(name) if name in calls else layers.index(target)
    shown = range(max(0, first - 40), min(len(calls), first + 40))
    items = []
    for k in shown:
        kind, tone, text = (
            ("first", "bad", "✗ differs first") if k == first
            else ("after", "off", "– after it") if k > first
            else ("before", "good", "✓ agrees") if layers[k] in diagnosis.compared_layers
            else ("before", "off", "– not compared")
        )  # fmt: skip
        current = ' aria-current="true"' if k == first else ""
        items.append(
            f'<li class="{kind}"{current}><b class="mono">{esc(calls[k], 40)}</b>'
            f'<span class="{tone}">{text}</span></li>'
        )
    return f'<ol class="strip">{"".join(items)}</ol>'


def layer_rows(spec: ModelSpec) -> str:
    """Show every layer with its shapes and its config."""
    header, rows = layer_table(spec)
    cells = [[f"<code>{esc(r[0], 60)}</code>", *map(esc, r[1:])] for r in rows[:_MOST_ROWS]]
    text = table("Layers of the model", header, cells, numeric=[3], long=[4])
    if len(rows) > _MOST_ROWS:
        text += f'<p class="note">And {len(rows) - _MOST_ROWS:,} more.</p>'
    return text


def cases(report: ParityReport) -> str:
    """Show the purpose of each case, its sizes, and its share of the tolerance."""
    replayed: Mapping[int, Case] = dict(enumerate(report.replayed))
    parts: dict[int, float] = {}
    failed = {part.case for part in report.comparisons if not report.held(part)}
    for part in report.comparisons:
        parts[part.case] = max(parts.get(part.case, 0.0), report.used(part))
    rows = []
    for k in sorted({*replayed, *parts})[:_MOST_ROWS]:
        case, found = replayed.get(k), parts.get(k)
        sizes = "" if case is None else "<br>".join(
            f"<code>{esc(n, 40)}</code> {esc(format_shape(np.shape(x)))}"
            for n, x in list(case.inputs.items())[:8]
        )  # fmt: skip
        rows.append(
            [
                str(k), esc((case.purpose if case else "") or "–"), sizes or "–",
                _start(case), "–" if found is None else share(found),
                "–" if found is None else state(k not in failed),
            ]
        )  # fmt: skip
    header = ["case", "purpose", "inputs", "starts with", "used of the tolerance", "parity"]
    return table("Cases that were compared", header, rows, numeric=[4])


def _start(case: Case | None) -> str:
    if case is None:
        return "–"
    text = "a given state" if case.state else "zeros"
    if case.lengths is not None and np.size(case.lengths):
        low, high = int(np.min(case.lengths)), int(np.max(case.lengths))
        text += f", lengths {low} to {high}"
    return text


def origin(spec: ModelSpec) -> str:
    """Show the source of the model."""
    rows = [("model", esc(spec.name)), ("weights", f"{spec.parameters:,} of {esc(spec.dtype)}"),
            ("from", esc(origin_of(spec.provenance)))]  # fmt: skip
    for key, value in list(spec.provenance.items())[:60]:
        if key == "tensors" and isinstance(value, list):
            rows.append((key, f"{plural(len(value), 'tensor')} of the source"))
        elif key not in ("framework", "framework_version"):
            values = value if isinstance(value, list) else [value]
            lines = [esc(_value(v), _LONG) for v in values[:20]]
            rows.append((key.replace("_", " "), "<br>".join(lines) or "–"))
    return definitions(rows, "rows")


def machine(report: ParityReport | None) -> str:
    """Show the engine and the environment."""
    rows = [(name, esc(value, _LONG)) for name, value in environment().items()]
    if report is not None:
        rows.insert(1, ("engine", esc(report.backend)))
    return definitions(rows, "rows")
