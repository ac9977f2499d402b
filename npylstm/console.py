"""Text for people: tables and progress. The one module that knows whether rich is there.

With rich (the extra ``cli``) tables and progress bars are prettier; without it, plain.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence

__all__ = ["Text", "plain_table", "print_table", "progress"]


class Text(str):
    """A string that an interactive session shows as it prints."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def plain_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a table in plain text; numbers align to the right."""
    columns = list(zip(header, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    right = [_is_numeric(column[1:]) for column in columns]

    def line(cells: Sequence[str]) -> str:
        parts = (
            c.rjust(w) if r else c.ljust(w) for c, w, r in zip(cells, widths, right, strict=True)
        )
        return "  ".join(parts).rstrip()

    return "\n".join([line(header), "  ".join("-" * w for w in widths), *map(line, rows)])


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

    The context gives a function to call after each part, from any thread.
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
