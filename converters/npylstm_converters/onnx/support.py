"""The operators in docs/onnx.md: ``python -m npylstm_converters.onnx.support`` prints the table."""

from __future__ import annotations

import inspect

from npylstm_converters.onnx.rows import ROWS
from npylstm_converters.toolkit.translation import Row

__all__ = ["operator_table"]


def operator_table() -> str:
    """Return a Markdown table of all operators: the attributes that are used.

    Returns
    -------
    str
        The table; operators with the same attributes share a row, those without have the last one.
    """
    by_attributes: dict[str, list[str]] = {}
    for name in sorted(ROWS):
        since = f" (version {min(ROWS[name])} on)" if min(ROWS[name]) > 1 else ""
        newest = ROWS[name][max(ROWS[name])]
        by_attributes.setdefault(_attributes(newest), []).append(name + since)
    plain = by_attributes.pop("", [])
    rows = sorted((", ".join(names), text) for text, names in by_attributes.items())
    lines = ["| operators | attributes |", "|---|---|", *(f"| {n} | {text} |" for n, text in rows)]
    return "\n".join([*lines, f"| {', '.join(plain)} | |"])


def _attributes(row: Row) -> str:
    """Return the attributes that the function of a row takes."""
    theirs = {ours: name for name, ours in row.rename.items()}
    parameters = inspect.signature(row.function).parameters.values()
    names = [theirs.get(p.name, p.name) for p in parameters if p.kind is p.KEYWORD_ONLY]
    texts = [f"`{name}`" for name in names]
    texts += [f"`{name}`: only {', '.join(map(str, own))}" for name, own in row.only.items()]
    return ", ".join(texts)


if __name__ == "__main__":
    print(operator_table())
