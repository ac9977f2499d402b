"""What `make test` leaves to `make test-all`: a seed, and what is drawn by it.

The seed is the date, so that every day runs other cases; the header of pytest's output names it, and
the environment variable ``NPYLSTM_SAMPLE_SEED`` repeats a draw.
"""

from __future__ import annotations

import datetime
import hashlib
import os
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

VARIABLE = "NPYLSTM_SAMPLE_SEED"
_seed: str | None = None


def start() -> None:
    """Sample from now on; worker processes inherit the seed."""
    global _seed
    _seed = os.environ.setdefault(VARIABLE, datetime.date.today().isoformat())


def seed() -> str | None:
    """Return the seed, None when everything runs."""
    return _seed


def checksum(name: str) -> int:
    """Return a number that a name and the seed determine."""
    return int.from_bytes(
        hashlib.blake2b(f"{_seed}:{name}".encode(), digest_size=8).digest(), "big"
    )


def one_of(values: Sequence[T]) -> Sequence[T]:
    """Return all values, in a sample one of them: another one for another test or day."""
    if _seed is None:
        return values
    at = checksum(os.environ["PYTEST_CURRENT_TEST"].rpartition(" ")[0]) % len(values)
    return values[at : at + 1]


def example_count(count: int) -> int:
    """Return how many examples hypothesis draws: in a sample a quarter."""
    return count if _seed is None else max(1, count // 4)
