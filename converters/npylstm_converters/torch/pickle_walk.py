"""Walks through what a pickle holds: containers, and what foreign objects hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from npylstm_converters.torch.pickle_values import NumpyArray, Opaque, Storage, Tensor

__all__ = ["reachable", "walk"]

_DEEPEST, _LONGEST_KEY = 30, 1000
_CONTAINERS = (dict, list, tuple, set, frozenset, Opaque)
_LEAVES = (Tensor, NumpyArray)


def reachable(value: Any) -> Iterator[Any]:
    """Yield every container, tensor, array and storage, each once."""
    seen: set[int] = set()
    todo = [value]
    while todo:
        item = todo.pop()
        if not isinstance(item, (*_CONTAINERS, *_LEAVES, Storage)) or id(item) in seen:
            continue
        seen.add(id(item))
        yield item
        if isinstance(item, dict):
            todo += [*item.keys(), *item.values()]
        elif isinstance(item, Opaque):
            todo += item.children()
        elif isinstance(item, (list, tuple, set, frozenset)):
            todo += item


def walk(
    value: Any, optimizers: bool = True, closed: Callable[[Any], bool] = lambda _: False
) -> Iterator[tuple[str, Any]]:
    """Yield dotted paths and nested containers, tensors and foreign objects, each object once.

    The items and attributes of a foreign object are part of the path as those of a dictionary.

    Parameters
    ----------
    value
        The object of the file.
    optimizers
        Include the states of optimizers, which hold tensors by parameter.
    closed
        Whether to leave out what an item holds.
    """
    seen: set[int] = set()
    todo: list[tuple[str, Any]] = [("", value)]
    while todo:
        path, item = todo.pop()
        yield path, item
        shallow = path.count(".") < _DEEPEST and len(path) < _LONGEST_KEY
        names = item.attributes if isinstance(item, Opaque) else item
        optimizer = isinstance(names, Mapping) and {"state", "param_groups"} <= names.keys()
        if not isinstance(item, _CONTAINERS) or not shallow or (optimizer and not optimizers):
            continue
        if id(item) in seen or closed(item):
            continue
        seen.add(id(item))
        todo += [
            (f"{path}.{_short(k)}" if path else _short(k), v)
            for k, v in reversed(_pairs(item))
            if isinstance(v, (*_CONTAINERS, *_LEAVES))
        ]


def _pairs(item: Any) -> list[tuple[Any, Any]]:
    if isinstance(item, dict):
        return list(item.items())
    if isinstance(item, Opaque):
        parts = list(enumerate(item.parts or ()))
        return [*item.attributes.items(), *(item.items or {}).items(), *parts]
    return list(enumerate(item))


def _short(key: Any) -> str:
    return key[:_LONGEST_KEY] if isinstance(key, str) else f"{key!r:.{_LONGEST_KEY}}"
