"""The keys of a pool: lists of them, and how a file holds them."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np

from npylstm.errors import StateError

__all__ = ["Keys", "check_distinct", "key_from_json", "key_to_json", "list_keys"]

_MANY: tuple[type, ...] = (list, tuple, set, frozenset, range, np.ndarray, type({}.keys()))
Keys = Hashable | Iterable[Hashable]


def list_keys(keys: Any) -> list[Hashable]:
    """Return one key, or several, as a list."""
    if isinstance(keys, np.ndarray):
        return list(keys.tolist())
    listed: list[Hashable] = list(keys) if isinstance(keys, _MANY) else [keys]  # type: ignore[call-overload]
    return listed


def check_distinct(keys: list[Hashable]) -> None:
    """Check that no key is repeated."""
    seen: set[Hashable] = set()
    for key in keys:
        if not isinstance(key, Hashable):
            raise StateError(f"key {key!r:.60}: expected something hashable")
        if key in seen:
            raise StateError(f"key {key!r}: is in one call twice")
        seen.add(key)


def key_to_json(key: Any) -> Any:
    """Return a key as JSON: a tuple as a list, bytes as an object."""
    if isinstance(key, np.generic):
        key = key.item()
    if type(key) is tuple:
        return [key_to_json(part) for part in key]
    if type(key) is bytes:
        return {"bytes": key.hex()}
    if key is None or type(key) in (str, int, bool) or (type(key) is float and math.isfinite(key)):
        return key
    raise StateError(
        f"key {key!r:.60}: cannot be saved; expected text, a number, bytes, None, or a tuple of "
        "these (pickle keeps any key)"
    )


def key_from_json(value: Any) -> Hashable:
    """Return a key from the JSON of :func:`key_to_json`."""
    if isinstance(value, list):
        return tuple(key_from_json(part) for part in value)
    return bytes.fromhex(value["bytes"]) if isinstance(value, dict) else value
