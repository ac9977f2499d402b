"""Collect the reasons why a model cannot be converted, to raise one error with all of them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from npylstm import FormatError, UnsupportedError

__all__ = ["MALFORMED", "DamagedError", "Reasons", "Refusal", "named"]

# What attributes and constants of a wrong type, shape or value raise where they are used.
MALFORMED = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError)


class DamagedError(FormatError):
    """The file is damaged, so further reasons are not collected."""


class Refusal(Exception):
    """One reason why one layer cannot be converted; the importer catches and collects it."""


class Reasons:
    """A list of reasons."""

    def __init__(self) -> None:
        self._reasons: list[str] = []

    def add(self, reason: str) -> None:
        """Append a reason unless it is in the list."""
        if reason not in self._reasons:
            self._reasons.append(reason)

    def raise_if_any(self) -> None:
        """Raise :class:`UnsupportedError` with all reasons, if there is one."""
        if self._reasons:
            raise UnsupportedError(self._reasons)

    def __bool__(self) -> bool:
        return bool(self._reasons)


@contextlib.contextmanager
def named(path: str | os.PathLike[str]) -> Iterator[None]:
    """Prefix the errors of reading a file with its name; a refusal becomes UnsupportedError."""
    label = os.fspath(path)
    try:
        yield
    except Refusal as error:
        raise UnsupportedError([f"{label}: {error}"]) from None
    except UnsupportedError as error:
        raise UnsupportedError([f"{label}: {reason}" for reason in error.reasons]) from None
    except FormatError as error:
        raise FormatError(f"{label}: {error}") from None
    except RecursionError:
        raise FormatError(f"{label}: lists or objects are nested too deep") from None
