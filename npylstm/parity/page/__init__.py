"""The report as one HTML page without scripts or external resources."""

from __future__ import annotations

import datetime
import os
from pathlib import Path

from npylstm.errors import NpylstmError
from npylstm.io.npz import atomic_write
from npylstm.parity.comparison import by_output
from npylstm.parity.diagnosis import Diagnosis
from npylstm.parity.page import graph, plots, sections
from npylstm.parity.page.markup import esc, plural, share, short_name
from npylstm.parity.page.style import STYLE
from npylstm.parity.report import ParityReport
from npylstm.spec import ModelSpec

__all__ = ["check_name", "render", "write"]

_SUFFIXES = (".html", ".htm")
_MOST_OUTPUTS = 24  # with plots
_OPEN = 3  # outputs whose plots are unfolded
_POINTS = 9000  # values drawn, shared by all outputs
_NARROW = 420  # pixels of a graph that leave room for a table beside it

# Nothing is loaded and nothing runs, whatever a name in the file holds.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def write(
    path: str | os.PathLike[str], report: ParityReport | None, diagnosis: Diagnosis | None = None
) -> None:
    """Write the page to a file; see :func:`render`.

    Raises
    ------
    NpylstmError
        If the name does not end in ``.html``.
    OSError
        If the file cannot be written.
    """
    check_name(path)
    page = render(report, diagnosis)
    with atomic_write(path) as stream:
        stream.write(page.encode("utf-8"))


def check_name(path: str | os.PathLike[str]) -> None:
    """Validate the name of a page's file.

    Raises
    ------
    NpylstmError
        If it does not end in ``.html``.
    """
    if Path(path).suffix.lower() not in _SUFFIXES:
        raise NpylstmError(f"{path}: expected a page ending in {' or '.join(_SUFFIXES)}")


def render(report: ParityReport | None, diagnosis: Diagnosis | None = None) -> str:
    """Return the page.

    Parameters
    ----------
    report
        The comparison; None if there is only a diagnosis.
    diagnosis
        The diagnosis; by default the report's.
    """
    if diagnosis is None and report is not None:
        diagnosis = report.diagnosis
    title, _ = sections.heading(report)
    spec = None if report is None else report.spec
    parts: list[str] = []

    def section(name: str, heading: str, note: str, content: str) -> None:
        if content:
            said = f'<p class="note">{note}</p>' if note else ""
            parts.append(
                f'<section id="{name}" aria-labelledby="{name}-h"><h2 id="{name}-h">{heading}</h2>'
                f"{said}{content}</section>"
            )

    if diagnosis is not None:
        if report is None or not report.passed:
            section("causes", "What explains the difference", "", sections.causes(diagnosis))
        if diagnosis.first_bad_layer and spec is not None:
            note = "The activations of the layers were compared, in the order of computation."
            section("strip", "The first layer that differs", note, sections.strip(diagnosis, spec))
    if report is not None:
        limit = (
            "The model is quantized: its budget is twice the errors on its recorded cases."
            if report.budget
            else "The tolerance is no constant: it is the rounding that this model shows on these "
            "inputs, measured with runs in float64."
        )
        note = f"{limit} The distances of both sides to float64 are facts, not judgements."
        section("numbers", "Numbers by output", note, sections.numbers(report))
        shown, note = _figures(report)
        section("figures", "Differences by output", note, shown)
    if spec is not None:
        section("model", "The model", _described(spec), _model(spec, diagnosis))
    if report is not None:
        note = "Inputs with the outputs that the framework gave, and what each case is there for."
        listed = report.comparisons or report.replayed
        section("cases", "Cases", note, sections.cases(report) if listed else "")
    if spec is not None:
        section("origin", "Where the model came from", "", sections.origin(spec))
    section("environment", "What computed", "", sections.machine(report))
    name = "" if spec is None else f" – {esc(spec.name)}"
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{title}{name}</title><style>{STYLE}</style></head>\n<body>"
        f"{sections.verdict(report)}\n<main class=\"wrap\">{chr(10).join(parts)}</main>\n"
        f'<footer><div class="wrap">Written by npylstm on {now} UTC.</div></footer></body></html>\n'
    )  # fmt: skip


def _figures(report: ParityReport) -> tuple[str, str]:
    """Draw the outputs in order of their share of the tolerance, the largest first."""
    grouped = by_output(report.comparisons)
    filled = {k: v for k, v in grouped.items() if any(p.ours.size for p in v)}
    ratios = {name: sections.largest_share(report, name) for name in filled}
    passed = {o.output: o.passed for o in report.outputs}
    order = sorted(filled, key=lambda name: -ratios[name])[:_MOST_OUTPUTS]
    axes = _time_axes(report.spec)
    most = min(1500, _POINTS // max(1, len(order)))
    framework = short_name(report.framework)
    parts = []
    for place, name in enumerate(order):
        found = filled[name]
        axis = axes.get(name, 1 if found[0].ours.ndim > 2 else None)
        drawn = (
            plots.scatter(found, framework, most),
            plots.residual(found, axis),
            plots.errors(found),
        )
        figures = "".join(
            f"<figure>{svg}<figcaption>{caption}</figcaption></figure>" for svg, caption in drawn
        )
        opened = " open" if place < _OPEN else ""
        parts.append(
            f"<details{opened}><summary><h3><code>{esc(name, 60)}</code></h3>"
            f"<small>{sections.state(passed[name])}, {share(ratios[name])} of the "
            f'tolerance</small></summary><div class="figures">{figures}</div></details>'
        )
    left = len(grouped) - len(order)
    return "".join(parts), (
        f"{plural(left, 'output')} without values, or closer to float64, have no pictures here."
        if left else ""
    )  # fmt: skip


def _time_axes(spec: ModelSpec | None) -> dict[str, int | None]:
    """Return the time axis by output; a fixed first axis is an axis of layers."""
    tensors = () if spec is None else spec.output_specs
    fixed = {t.name for t in tensors if t.time_axis == 0 and isinstance(t.shape[0], int)}
    return {t.name: None if t.name in fixed else t.time_axis for t in tensors}


def _described(spec: ModelSpec) -> str:
    return (
        f"{plural(len(spec.layers), 'layer')}, {plural(spec.parameters, 'parameter')} of "
        f"{esc(spec.dtype)}. The graph reads from top to bottom."
    )


def _model(spec: ModelSpec, diagnosis: Diagnosis | None) -> str:
    svg, width, grouped = graph.draw(spec, sections.marks(diagnosis, spec))
    note = "There are too many layers for a box each: neighbours share one." if grouped else ""
    caption = f"<figcaption>{note}</figcaption>" if note else ""
    figure = (
        f'<figure><div class="scroll" tabindex="0" role="group" aria-label="Graph of the model">'
        f"{svg}</div>{caption}</figure>"
    )
    kind = "beside" if width <= _NARROW else "stacked"
    return f'<div class="{kind}">{figure}<div>{sections.layer_rows(spec)}</div></div>'
