"""Make text from files safe to print."""

from __future__ import annotations

__all__ = ["clipped", "printable"]


def printable(text: str) -> str:
    """Escape every character that is not printable, such as a terminal's control characters."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def clipped(text: str, limit: int) -> str:
    """Return the printable text; if it is longer than ``limit``, its middle is cut out."""
    text = printable(text)
    if len(text) <= limit:
        return text
    tail = (limit - 1) // 3
    return f"{text[: limit - 1 - tail]}…{text[len(text) - tail :]}"
