"""The stack and the memo of the machine that reads pickles, and the containers on it."""

from __future__ import annotations

from typing import Any

from npylstm import FormatError
from npylstm_converters.torch.pickle_reader import PickleReader
from npylstm_converters.torch.pickle_values import Opaque, checked_key

__all__ = ["PickleStack"]

_DEEPEST = 1000  # marks that are open at once


class PickleStack:
    """A stack with marks, and a memo.

    Parameters
    ----------
    reader
        Counts the objects, which are limited.
    """

    def __init__(self, reader: PickleReader) -> None:
        self._reader = reader
        self._stack: list[Any] = []  # since the last mark
        self._marked: list[list[Any]] = []  # the stacks below each mark
        self._memo: dict[int, Any] = {}

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop(self) -> Any:
        if not self._stack:
            raise FormatError("pickle: takes from an empty stack")
        return self._stack.pop()

    def _pop_several(self, count: int) -> list[Any]:
        return [self._pop() for _ in range(count)][::-1]

    def _top(self) -> Any:
        value = self._pop()
        self._push(value)
        return value

    def _container(self, value: Any) -> None:
        self._reader.count_objects(1)
        self._stack.append(value)

    def _mark(self) -> None:
        if len(self._marked) >= _DEEPEST:
            raise FormatError(f"pickle: nested more than {_DEEPEST} deep")
        self._marked.append(self._stack)
        self._stack = []

    def _pop_mark(self) -> list[Any]:
        if not self._marked:
            raise FormatError("pickle: takes from a mark that was never set")
        items, self._stack = self._stack, self._marked.pop()
        return items

    def _get(self, index: int) -> None:
        if index not in self._memo:
            raise FormatError(f"pickle: no memo {index}")
        self._push(self._memo[index])

    def _put(self, index: int) -> None:
        self._reader.count_objects(1)
        self._memo[index] = self._top()

    # Containers.

    def _append(self, items: list[Any]) -> None:
        target = self._top()
        if isinstance(target, Opaque):
            target.parts = [] if target.parts is None else target.parts
            target.parts.extend(items)
        elif isinstance(target, list):
            target.extend(items)
        else:
            raise FormatError(f"pickle: appends to a {type(target).__name__}")

    def _add(self, items: list[Any]) -> None:
        target = self._top()
        if isinstance(target, Opaque):
            self._append(items)
        elif isinstance(target, set):
            target.update(checked_key(item) for item in items)
        else:
            raise FormatError(f"pickle: adds to a {type(target).__name__}")

    def _set_items(self, items: list[Any]) -> None:
        target = self._top()
        if isinstance(target, Opaque):
            target.items = {} if target.items is None else target.items
            target = target.items
        if not isinstance(target, dict) or len(items) % 2:
            raise FormatError(f"pickle: sets items of a {type(target).__name__}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[checked_key(key)] = value

    def _dict(self) -> None:
        items = self._pop_mark()
        self._container({})
        self._set_items(items)
