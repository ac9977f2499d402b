"""HTML from values: escaped text, formatted numbers, tables."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence

from npylstm.printable import clipped

__all__ = ["MARKS", "definitions", "esc", "number", "plural", "power", "share", "short_name",
           "table"]  # fmt: skip

_LONGEST = 160  # characters of a name or a value
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

# A sign for each state, so that colour is not the only cue.
MARKS = {"good": "✓", "bad": "✗", "warn": "!", "off": "–"}


def esc(text: object, limit: int = _LONGEST) -> str:
    """Return any value as text of limited length, safe inside elements and attributes."""
    return html.escape(clipped(str(text), limit), quote=True)


def number(value: float) -> str:
    """Format the size of an error: ``2.68e-07``, ``0``, ``∞``."""
    if value == 0:
        return "0"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return "NaN" if math.isnan(value) else f"{value:.2e}"


def power(exponent: int) -> str:
    """Format a power of ten: ``10⁻⁷``."""
    return "1" if exponent == 0 else f"10{str(exponent).translate(_SUPERSCRIPTS)}"


def share(ratio: float) -> str:
    """Format a share of the tolerance: ``7.6 %``, ``3,420 times``."""
    if ratio == 0:
        return "0 %"
    if not math.isfinite(ratio):
        return "∞ times"
    if ratio > 1:
        digits = 0 if ratio >= 100 else 2
        return f"{ratio:,.{digits}f} times" if ratio < 1e7 else f"{ratio:.1e} times"
    return f"{100 * ratio:.2g} %" if ratio > 1e-3 else "under 0.1 %"


def short_name(framework: str) -> str:
    """Return the framework without its version: ``keras`` of ``keras 3.15.0, seed 7``."""
    name, _, rest = framework.partition(" ")
    return name if rest[:1].isdigit() else clipped(framework, 24) or "framework"


def plural(count: int, noun: str) -> str:
    """Format a count with its noun: ``1 case``, ``8 cases``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def definitions(entries: Iterable[tuple[str, str]], kind: str) -> str:
    """Return a list of names (text) with values (HTML)."""
    rows = "".join(f"<div><dt>{esc(k)}</dt><dd>{v}</dd></div>" for k, v in entries)
    return f'<dl class="{kind}">{rows}</dl>'


def table(
    caption: str,
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    numeric: Iterable[int] = (),
    long: Iterable[int] = (),
) -> str:
    """Return a table in a scrolling container.

    Parameters
    ----------
    caption, header
        Text.
    rows
        Cells as HTML; the first of each row is its heading.
    numeric
        Columns of numbers, which align to the right.
    long
        Columns of text that may wrap.
    """
    classes = dict.fromkeys(numeric, "number") | dict.fromkeys(long, "long")
    kinds = [f' class="{classes[k]}"' if k in classes else "" for k in range(len(header))]
    head = "".join(
        f'<th scope="col"{kind}>{esc(text)}</th>' for kind, text in zip(kinds, header, strict=True)
    )
    body = "".join(
        f'<tr><th scope="row"{kinds[0]}>{row[0]}</th>'
        + "".join(f"<td{k}>{c}</td>" for k, c in zip(kinds[1:], row[1:], strict=True))
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{esc(caption)}"><table>'
        f"<caption>{esc(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
        "</table></div>"
    )
