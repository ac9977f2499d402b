"""Print tables and show progress.

With rich (the extra ``cli``) tables and progress bars are prettier. Only this module uses rich.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence

__all__ = ["Text", "plain_table", "print_table", "progress", "wrapped"]


class Text(str):
    """A string whose repr in an interactive session is its text."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


WIDTH = 160  # columns; a longer cell continues on the next line
_NARROWEST = 16


def wrapped(text: str, indent: str = "") -> str:
    """Break a long line between words; indent the following lines by four more."""
    return textwrap.fill(
        text, WIDTH, initial_indent=indent, subsequent_indent=f"{indent}    ",
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def plain_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as plain text; columns of numbers are aligned right."""
    columns = list(zip(header, *rows, strict=True))
    widths = _narrowed([max(map(len, column)) for column in columns])
    right = [_is_numeric(column[1:]) for column in columns]

    def line(cells: Sequence[str]) -> str:
        parts = (
            c.rjust(w) if r else c.ljust(w) for c, w, r in zip(cells, widths, right, strict=True)
        )
        return "  ".join(parts).rstrip()

    def lines(cells: Sequence[str]) -> Iterator[str]:
        if all(len(cell) <= width for cell, width in zip(cells, widths, strict=True)):
            yield line(cells)
            return
        parts = [
            textwrap.wrap(cell, width, break_on_hyphens=False)
            for cell, width in zip(cells, widths, strict=True)
        ]
        for row in itertools.zip_longest(*parts, fillvalue=""):
            yield line(row)

    body = [text for row in rows for text in lines(row)]
    return "\n".join([line(header), "  ".join("-" * w for w in widths), *body])


def _narrowed(widths: list[int]) -> list[int]:
    """Narrow the widest columns until the table fits the line."""
    for _ in widths:
        excess = sum(widths) + 2 * (len(widths) - 1) - WIDTH
        widest = max(range(len(widths)), key=widths.__getitem__)
        if excess <= 0 or widths[widest] <= _NARROWEST:
            break
        widths[widest] = max(widths[widest] - excess, _NARROWEST)
    return widths


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """Print a table to stdout."""
    if not _has_rich() or not sys.stdout.isatty():
        if title:
            print(title)
        print(plain_table(header, rows))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, title_justify="left")
    for name, *cells in zip(header, *rows, strict=True):
        table.add_column(name, justify="right" if _is_numeric(cells) else "left")
    for row in rows:
        table.add_row(*(cell.replace("[", "\\[") for cell in row))
    Console().print(table)


@contextlib.contextmanager
def progress(label: str, total: int, enabled: bool = True) -> Iterator[Callable[[], None]]:
    """Show progress on stderr, if that is a terminal.

    The context manager yields a function to call after each part, from any thread.
    """
    if not enabled or total == 0 or not sys.stderr.isatty():
        yield lambda: None
    elif _has_rich():
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(label, total=total)
            yield lambda: bar.advance(task)
    else:
        done = 0

        def advance() -> None:
            nonlocal done
            done += 1
            end = "\n" if done == total else ""
            print(f"\r{label} {done}/{total}", end=end, file=sys.stderr, flush=True)

        yield advance


def _has_rich() -> bool:
    return importlib.util.find_spec("rich") is not None


def _is_numeric(cells: Sequence[str]) -> bool:
    return bool(cells) and all(c and (c[0].isdigit() or c[0] in "+-.") for c in cells if c)
