"""What can go wrong, as a small tree of exceptions.

Every message names the thing, the value and what was expected, for example
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
    "StateError",
    "UnequalError",
    "UnprovenError",
    "UnsupportedError",
]


class NpylstmError(Exception):
    """Base of all errors that npylstm raises on purpose."""


class FormatError(NpylstmError, ValueError):
    """A file or a specification is damaged, incomplete or contradicts itself."""


class MixedSamplesError(FormatError):
    """A layer would let what is computed for one sample of a batch depend on the others."""


class UnequalError(FormatError):
    """Two sizes that may differ must be equal.

    Parameters
    ----------
    message
        What needs them to be.
    sizes
        The two.
    """

    def __init__(self, message: str, sizes: tuple[int | str, int | str]) -> None:
        self.sizes = sizes
        super().__init__(message)


class UnsupportedError(NpylstmError, ValueError):
    """A model uses features that npylstm does not have; ``reasons`` lists every one.

    Parameters
    ----------
    reasons
        One sentence per feature, each naming the layer and the value.
    """

    def __init__(self, reasons: str | Iterable[str]) -> None:
        self.reasons = (reasons,) if isinstance(reasons, str) else tuple(reasons)
        super().__init__("; ".join(self.reasons))


class UnprovenError(NpylstmError):
    """Outputs agree, and prove nothing: all nan, the zeros of a dead relu, the noise of a chaos."""


class ShapeError(NpylstmError, ValueError):
    """An array has another shape or element type than the model expects."""


class StateError(NpylstmError, ValueError):
    """A recurrent state does not belong to this model or this batch."""


class ParityError(NpylstmError):
    """npylstm and the framework disagree by more than rounding explains."""
