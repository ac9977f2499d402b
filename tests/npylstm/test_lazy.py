"""Properties that are computed once, without a lock that a fork could find taken."""

from __future__ import annotations

import threading
from pathlib import Path

from npylstm.lazy import lazy_property


class Counted:
    computed = 0

    @lazy_property
    def value(self) -> list[int]:
        """The value."""
        self.computed += 1
        return [self.computed]


def test_a_value_is_computed_once_for_each_object() -> None:
    a, b = Counted(), Counted()
    assert a.value is a.value
    assert (a.computed, b.computed) == (1, 0)
    assert b.value == [1]
    assert Counted.value.__doc__ == "The value."


def test_no_thread_waits_for_another_one() -> None:
    """As functools.cached_property does before Python 3.12, for all objects of a class."""
    entered, leave = threading.Event(), threading.Event()

    class Slow:
        def __init__(self, is_slow: bool) -> None:
            self.is_slow = is_slow

        @lazy_property
        def value(self) -> int:
            if self.is_slow:
                entered.set()
                leave.wait(30)
            return 3

    thread = threading.Thread(target=lambda: Slow(True).value)
    thread.start()
    assert entered.wait(30)
    try:
        assert Slow(False).value == 3
        assert not leave.is_set()
    finally:
        leave.set()
        thread.join()


def test_the_runtime_has_no_property_with_a_lock(root: Path) -> None:
    users = {
        path.name
        for path in (root / "npylstm").rglob("*.py")
        if "@functools.cached_property" in path.read_text(encoding="utf-8")
    }
    assert users == set()
