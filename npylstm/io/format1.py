"""Convert documents of format version 1 to version 2: one row per changed kind.

Format 1 had operations that are special cases of others, and other names in some configs.
A kind that is not in the tables is the same in both versions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["upgraded"]

Config = dict[str, Any]
_BATCH = [0, 0]  # the size of axis 0 of input 0


def _flatten(config: Config) -> tuple[str, Config]:
    return "reshape", {**config, "shape": [_BATCH, -1]}


def _reshape(config: Config) -> tuple[str, Config]:
    return "reshape", _replaced(config, "target_shape", "shape", [_BATCH])


def _permute(config: Config) -> tuple[str, Config]:
    return "transpose", _replaced(config, "dims", "axes", [0])


def _repeat_vector(config: Config) -> tuple[str, Config]:
    return "stack", {**_renamed(config, {"n": "times"}), "axis": 1}


def _elementwise(config: Config) -> tuple[str, Config]:
    return "activation", _renamed(config, {"function": "activation"})


_OPERATIONS: dict[str, Callable[[Config], tuple[str, Config]]] = {
    "flatten": _flatten,
    "reshape": _reshape,
    "permute": _permute,
    "repeat_vector": _repeat_vector,
    "elementwise": _elementwise,
    "view": lambda config: ("reshape", config),
}
_KEYS: dict[str, dict[str, str]] = {
    "unit_normalization": {"shortest": "epsilon"},
    "attention": {"single": "mask_in_float32"},
    "multi_head_attention": {"single": "mask_in_float32", "blocked": "fully_masked"},
    "masked_softmax": {"zero_blocked": "zero_fully_masked", "added": "additive"},
}
_VALUES = {
    "fully_masked": {"lowered": "lowered", "added": "additive", "equal": "uniform", "zero": "zero"}
}


def upgraded(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document of format 1 as format 2; invalid entries are not changed."""
    changed = dict(document)
    for key, change in (("layers", _layer), ("inputs", _input)):
        entries = document.get(key)
        if isinstance(entries, list):
            changed[key] = [change(e) if isinstance(e, dict) else e for e in entries]
    return changed


def _layer(entry: Config) -> Config:
    kind, config = entry.get("kind"), entry.get("config")
    if not isinstance(kind, str) or not isinstance(config, dict):
        return entry
    config = {
        key: _layer(value) if isinstance(value, dict) and key.endswith("layer") else value
        for key, value in config.items()
    }
    if kind in _OPERATIONS:
        kind, config = _OPERATIONS[kind](config)
    config = _renamed(config, _KEYS.get(kind, {}))
    for key, words in _VALUES.items():
        if isinstance(config.get(key), str):
            config[key] = words.get(config[key], config[key])
    return {**entry, "kind": kind, "config": config}


def _input(entry: Config) -> Config:
    return _renamed(entry, {"whole": "integer"})


def _renamed(config: Config, names: Mapping[str, str]) -> Config:
    return {names.get(key, key): value for key, value in config.items()}


def _replaced(config: Config, old: str, new: str, first: list[Any]) -> Config:
    """Rename a list and prepend sizes to it."""
    value = config.get(old)
    if not isinstance(value, list):
        return _renamed(config, {old: new})
    return {**{k: v for k, v in config.items() if k != old}, new: [*first, *value]}
