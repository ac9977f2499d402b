"""The rows of a pool: which stream is where."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np

from npylstm.arrays import Array
from npylstm.errors import StateError
from npylstm.runtime.pool_keys import Keys, check_distinct, list_keys

__all__ = ["PoolRows", "Slots"]


class Slots:
    """Streams of a pool that were found once: :meth:`npylstm.Pool.slots` returns them.

    Parameters
    ----------
    owner
        The rows of the pool.
    rows
        Rows of the streams, int64 ``(streams,)``.
    removed, removals
        How often a stream was removed from each of the rows, and from any.

    Examples
    --------
    >>> import npylstm
    >>> pool = npylstm.load("models/sine_keras/sine.npz").pool(capacity=100)
    >>> pool.add(["a", "b"])
    >>> len(pool.slots(["b", "a"]))
    2
    """

    __slots__ = ("_owner", "_removals", "_removed", "_rows")

    def __init__(self, owner: PoolRows, rows: Array, removed: Array, removals: int) -> None:
        self._owner, self._rows, self._removed, self._removals = owner, rows, removed, removals

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return f"<npylstm.Slots: {len(self)} streams>"


class PoolRows:
    """Keys with their rows, and the free rows. Used by one thread at a time."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._by_key: dict[Hashable, int] = {}
        self._free = list(range(capacity - 1, -1, -1))
        self._stamps = np.zeros(capacity, np.int64)
        # How often a stream was removed: from each row, and from any.
        self._removed, self._removals = np.zeros(capacity, np.int64), 0
        self._last: tuple[Any, Slots] | None = None  # keys of the last call

    def __len__(self) -> int:
        return len(self._by_key)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._by_key

    @property
    def keys(self) -> list[Hashable]:
        """All keys, in the order of their addition."""
        return list(self._by_key)

    def reserve(self, keys: list[Hashable]) -> Mapping[Hashable, int]:
        """Return free rows for new keys; :meth:`add` takes them.

        Raises
        ------
        StateError
            If a key exists or is repeated, or there is not enough room.
        """
        check_distinct(keys)
        taken = [key for key in keys if key in self._by_key]
        if taken:
            raise StateError(f"key {taken[0]!r}: is in the pool already")
        free = len(self._free)
        if len(keys) > free:
            raise StateError(
                f"pool: room for {free} more of {self._capacity}, got {len(keys)} keys"
            )
        return dict(zip(keys, self._free[free - len(keys) :][::-1], strict=True))

    def add(self, reserved: Mapping[Hashable, int]) -> None:
        """Add keys with the rows that :meth:`reserve` returned last."""
        del self._free[len(self._free) - len(reserved) :]
        self._by_key |= reserved

    def remove(self, keys: Keys | Slots) -> None:
        """Remove streams.

        Raises
        ------
        StateError
            As :meth:`find`.
        """
        rows = self.find(keys)
        for key in self.names(keys):
            self._free.append(self._by_key.pop(key))
        self._removed[rows] += 1
        self._removals += 1

    def names(self, keys: Keys | Slots) -> list[Hashable]:
        """Return keys as a list."""
        if not isinstance(keys, Slots):
            return list_keys(keys)
        by_row = {row: key for key, row in self._by_key.items()}
        return [by_row[row] for row in self.find(keys).tolist()]

    def slots(self, keys: Keys | Slots) -> Slots:
        """Return the rows of streams for later calls.

        Raises
        ------
        StateError
            As :meth:`find`.
        """
        rows = self.find(keys)
        return Slots(self, rows, self._removed[rows], self._removals)

    def find(self, keys: Keys | Slots) -> Array:
        """Return the rows of streams.

        Raises
        ------
        StateError
            If a key is unknown or repeated, or the stream of a slot was removed.
        """
        if isinstance(keys, Slots):
            return self._still(keys)
        if self._last is not None and _are_equal(keys, self._last[0]):
            try:
                return self.find(self._last[1])
            except StateError:  # one of the keys may be another stream now
                self._last = None
        rows = self._look_up(list_keys(keys))
        if type(keys) in (list, tuple, range):
            kept = [*keys] if type(keys) is list else keys
            self._last = kept, Slots(self, rows, self._removed[rows], self._removals)
        return rows

    def _still(self, slots: Slots) -> Array:
        """Return the rows of slots whose streams are still there."""
        if slots._owner is not self:
            raise StateError("slots: expected those of this pool, got another pool's")
        if slots._removals != self._removals:
            if (self._removed[slots._rows] != slots._removed).any():
                raise StateError("slots: a stream was removed; ask the pool for slots again")
            slots._removals = self._removals
        return slots._rows

    def _look_up(self, keys: list[Hashable]) -> Array:
        try:
            rows = np.fromiter(map(self._by_key.__getitem__, keys), np.int64, len(keys))
        except (KeyError, TypeError):
            unknown = next(k for k in keys if not isinstance(k, Hashable) or k not in self)
            raise StateError(f"key {unknown!r}: not in the pool") from None
        places = np.arange(len(rows))
        self._stamps[rows] = places
        if (self._stamps[rows] != places).any():  # a repeated key was overwritten
            check_distinct(keys)
        return rows


def _are_equal(keys: Any, before: Any) -> bool:
    """Whether keys are those of the last call: equal keys are the same streams."""
    try:
        return type(keys) is type(before) and bool(keys == before)
    except Exception:  # a key that compares in its own way, such as an array
        return False
