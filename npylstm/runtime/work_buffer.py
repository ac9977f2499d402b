"""Where tensors and scratch memory are in a buffer that each operation of a program uses again."""

from __future__ import annotations

import bisect

from npylstm.kernels.packing import ALIGNMENT

__all__ = ["WorkBuffer"]


class WorkBuffer:
    """Parts of a buffer: reserved, and free for others when they are released.

    Attributes
    ----------
    size
        Of the buffer, in elements.
    """

    def __init__(self) -> None:
        self.size = 0
        self._free: list[tuple[int, int]] = []  # starts and ends, in order, none adjacent
        self._users: dict[int, tuple[int, int]] = {}  # by the start: the end, and how many use it

    def reserve(self, size: int) -> int:
        """Return the start of a part of this size, in the smallest free one or a new one.

        It is free again when it is released as often as it is used; :meth:`share` adds a use.
        """
        size = max(1, -(-size // ALIGNMENT)) * ALIGNMENT
        fitting = [(end - start, start) for start, end in self._free if end - start >= size]
        if fitting:
            found, start = min(fitting)
            self._free.remove((start, start + found))
            if found > size:
                bisect.insort(self._free, (start + size, start + found))
        else:
            start = self.append(size)
        self._users[start] = (start + size, 1)
        return start

    def append(self, size: int) -> int:
        """Return the start of a new part that is never used for anything else."""
        start = self.size
        self.size += -(-size // ALIGNMENT) * ALIGNMENT
        return start

    def share(self, start: int) -> None:
        """Add a use of the part that starts here."""
        end, users = self._users[start]
        self._users[start] = (end, users + 1)

    def is_shared(self, start: int) -> bool:
        """Whether the part that starts here has several uses."""
        return self._users[start][1] > 1

    def release(self, start: int) -> None:
        """End one use of a part."""
        end, users = self._users.pop(start)
        if users > 1:
            self._users[start] = (end, users - 1)
            return
        at = bisect.bisect(self._free, (start, end))
        if at < len(self._free) and self._free[at][0] == end:
            end = self._free.pop(at)[1]
        if at and self._free[at - 1][1] == start:
            start = self._free.pop(at - 1)[0]
        bisect.insort(self._free, (start, end))
