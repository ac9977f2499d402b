"""Short HTML for notebooks: styles are inline, colours are the notebook's."""

from __future__ import annotations

from collections.abc import Sequence

from npylstm.parity.page.markup import esc, number, plural
from npylstm.parity.report import ParityReport
from npylstm.spec import ModelSpec
from npylstm.summary import layer_table, origin_of

__all__ = ["model_html", "report_html"]

_MOST_ROWS = 60
# Colours of signs: visible on white and on black.
_GOOD, _BAD, _WARN = "#2e9e63", "#e0493e", "#bd8211"
_CELL = "padding:3px 14px 3px 0;vertical-align:top;white-space:nowrap;"


def report_html(report: ParityReport) -> str:
    """Return verdict, table and causes of a report."""
    tone = _BAD if not report.passed else _GOOD if report.proof == "proven" else _WARN
    sign = "✗" if not report.passed else "✓" if report.proof == "proven" else "!"
    limit = "budget" if report.budget else "rounding explains"
    header = ["output", "largest difference", limit, "rms", "parity"]
    rows = [
        [
            esc(o.output, 60), number(o.max_abs), number(o.tolerance), number(o.rms),
            "✓ held" if o.passed else "✗ failed",
        ]
        for o in report.outputs
    ]  # fmt: skip
    text = _line(f'<b><span style="color:{tone}">{sign}</span> {esc(report.verdict, 600)}</b>')
    text += _table(header, rows, numeric=(1, 2, 3))
    if report.proof != "proven":
        text += _line(f"Structure {esc(report.proof, 20)}: {esc('; '.join(report.stated), 600)}")
    diagnosis = report.diagnosis
    if diagnosis is not None:
        causes = [str(cause) for cause in diagnosis.causes] or ["no known cause explains this"]
        items = "".join(f"<li>{esc(cause, 400)}</li>" for cause in causes)
        text += f'<ul style="margin:4px 0 0;padding-left:20px;text-align:left">{items}</ul>'
    return _box(text)


def model_html(spec: ModelSpec, backend: str = "") -> str:
    """Return name, layers and origin of a model."""
    engine = f", {esc(backend)} back end" if backend else ""
    size = f"{plural(spec.parameters, 'parameter')}, {esc(spec.dtype)}"
    text = _line(f"<b>{esc(spec.name)}</b>: {size}{engine}")
    header, rows = layer_table(spec)
    text += _table(header, [[esc(cell, 100) for cell in row] for row in rows], numeric=(3,))
    origin = esc(origin_of(spec.provenance), 100)
    return _box(text + _line(f"from {origin}, {plural(len(spec.cases), 'recorded case')}"))


def _box(content: str) -> str:
    return f'<div style="overflow-x:auto;line-height:1.5">{content}</div>'


def _line(content: str) -> str:
    return f'<div style="margin:2px 0;text-align:left">{content}</div>'


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[int]) -> str:
    def cells(tag: str, row: Sequence[str], weight: str) -> str:
        return "".join(
            f'<{tag} style="{_CELL}{weight}text-align:{"right" if k in numeric else "left"}">'
            f"{cell}</{tag}>"
            for k, cell in enumerate(row)
        )

    lines = [cells("th", header, "font-weight:600;opacity:.7;")]
    lines += [cells("td", row, "") for row in rows[:_MOST_ROWS]]
    if len(rows) > _MOST_ROWS:
        lines.append(f'<td style="{_CELL}">and {len(rows) - _MOST_ROWS:,} more</td>')
    body = "".join(f'<tr style="background:none">{line}</tr>' for line in lines)
    style = "border-collapse:collapse;border:none;font-variant-numeric:tabular-nums;font-size:90%"
    return f'<table style="{style};margin:4px 0">{body}</table>'
