"""Text from files, made safe to show."""

from __future__ import annotations

__all__ = ["clipped", "printable"]


def printable(text: str) -> str:
    """Return the text with every character that a terminal or a browser obeys written out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def clipped(text: str, limit: int) -> str:
    """Return the printable text, its middle left out where it is longer than ``limit``."""
    text = printable(text)
    if len(text) <= limit:
        return text
    tail = (limit - 1) // 3
    return f"{text[: limit - 1 - tail]}…{text[len(text) - tail :]}"
