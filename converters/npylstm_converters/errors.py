"""Collecting reasons: a model is refused once, with everything that stands in the way."""

from __future__ import annotations

from npylstm import FormatError, UnsupportedError

__all__ = ["DamagedError", "Reasons", "Refusal"]


class DamagedError(FormatError):
    """The file itself is damaged: no use in collecting further reasons."""


class Refusal(Exception):
    """One reason why one layer cannot be converted; caught by the importer, which collects."""


class Reasons:
    """A growing list of reasons."""

    def __init__(self) -> None:
        self._reasons: list[str] = []

    def add(self, reason: str) -> None:
        """Remember a reason, once."""
        if reason not in self._reasons:
            self._reasons.append(reason)

    def raise_if_any(self) -> None:
        """Raise :class:`UnsupportedError` with all reasons, if there is one."""
        if self._reasons:
            raise UnsupportedError(self._reasons)

    def __bool__(self) -> bool:
        return bool(self._reasons)
