"""The exceptions that npylstm raises.

Every message states the thing, the value and the expectation, for example
``lstm_1/U_i: expected shape (32, 32), got (32, 16)``.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = [
    "FormatError",
    "MixedSamplesError",
    "NpylstmError",
    "ParityError",
    "ShapeError",
    "SizeMismatchError",
    "StateError",
    "UnprovenError",
    "UnsupportedError",
]


class NpylstmError(Exception):
    """Base of all errors that npylstm raises on purpose."""


class FormatError(NpylstmError, ValueError):
    """A file or a specification is damaged, incomplete or inconsistent."""


class MixedSamplesError(FormatError):
    """A layer would compute one sample of a batch from other samples."""


class SizeMismatchError(FormatError):
    """Two sizes must be equal, but may differ.

    Parameters
    ----------
    message
        Why they must be equal.
    sizes
        The two sizes.
    """

    def __init__(self, message: str, sizes: tuple[int | str, int | str]) -> None:
        self.sizes = sizes
        super().__init__(message)


class UnsupportedError(NpylstmError, ValueError):
    """A model uses features that npylstm does not support; ``reasons`` lists all of them.

    Parameters
    ----------
    reasons
        One sentence per feature, with the layer and the value.
    """

    def __init__(self, reasons: str | Iterable[str]) -> None:
        self.reasons = (reasons,) if isinstance(reasons, str) else tuple(reasons)
        super().__init__("; ".join(self.reasons))


class UnprovenError(NpylstmError):
    """Outputs agree, but prove nothing: all nan, all zero after a relu, or chaotic noise."""


class ShapeError(NpylstmError, ValueError):
    """An array has another shape or dtype than the model expects."""


class StateError(NpylstmError, ValueError):
    """A recurrent state does not belong to this model or this batch."""


class ParityError(NpylstmError):
    """npylstm and the framework disagree by more than rounding explains."""
