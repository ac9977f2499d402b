"""Finds the weights in the object of a file: a state_dict, or a pickled module."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from npylstm import FormatError, NpylstmError, UnsupportedError
from npylstm_converters.torch.containers import Contents
from npylstm_converters.torch.packed_parameters import is_packed, unpacked
from npylstm_converters.torch.pickle_values import NumpyArray, Opaque, Tensor
from npylstm_converters.torch.pickle_walk import reachable, walk
from npylstm_converters.torch.pickled_modules import (
    PickledModule,
    flatten,
    foreign_reason,
    is_module,
)
from npylstm_converters.torch.quantized import is_quantized
from npylstm_converters.torch.unpickler import refusals

__all__ = ["Choice", "choose"]

_MOST_LISTED, _MOST_COMPARED = 20, 8
# What trainers keep beside the weights. A state_dict in there is read only if it is named.
_BESIDE = {"hyper_parameters", "hparams", "callbacks", "optimizer_states", "lr_schedulers", "loops"}
_OF_OPTIMIZER = re.compile(r"(^|\.)state\.\d+$")
# A dictionary of NumPy arrays with such a name is a state_dict.
_WEIGHT = re.compile(r"(^|\.)(weight|bias)(_[ih]h_l\d+(_reverse)?|_[ih]h)?$")
_SAVE = "save it by torch.save(module.state_dict(), path)"


@dataclass(frozen=True)
class Choice:
    """The weights in a file.

    Attributes
    ----------
    tensors
        Tensors and arrays by name.
    modules
        For a pickled module: all modules by path.
    notes
        How they were found.
    halves
        Names of tensors that quantized modules hold in 16 bits.
    """

    tensors: Mapping[str, Tensor | NumpyArray]
    modules: Mapping[str, PickledModule] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    halves: frozenset[str] = frozenset()


def choose(contents: Contents, key: str | None) -> Choice:
    """Return the weights under a key, or the only weights in a file.

    Raises
    ------
    UnsupportedError
        If the weights, or a file without any, hold foreign objects; lists them.
    FormatError
        If there are no weights, or several.
    """
    found = _candidates(contents.value)
    if key is not None:
        if key not in found:
            raise _not_there(contents, key, found)
        return _opened(found[key], f"key {key!r}, as told")
    trained = _modules_with_weights(contents.value)
    likely = {
        path: item
        for path, item in found.items()
        if not _BESIDE & {*path.split(".")}
        and (id(item) in trained if is_module(item) else _has_weights(item))
    }
    if "" in likely:
        return _opened(likely[""])
    if 1 < len(likely) <= _MOST_COMPARED:
        likely = _without_copies(likely)
    if not likely:
        raise _nothing_found(contents)
    if len(likely) > 1:
        raise FormatError(
            f"holds {len(likely)} state_dicts, choose one by key (--key): {_listed(likely)}"
        )
    ((path, item),) = likely.items()
    return _opened(item, f"key {path!r}, the only state_dict in the file")


def _candidates(value: Any) -> dict[str, Any]:
    """Return all state_dicts and outermost modules by path, without the states of optimizers."""
    found: dict[str, Any] = {}
    judged: dict[int, bool] = {}  # one dictionary may occur at many paths
    for path, item in walk(value, optimizers=False, closed=is_module):
        if id(item) not in judged:
            judged[id(item)] = is_module(item) or _is_state_dict(item)
        if judged[id(item)] and not _OF_OPTIMIZER.search(path):
            if path in found and found[path] is not item:
                raise FormatError(f"holds two state_dicts under {path!r}; save one by itself")
            found[path] = item
    return found


def _opened(item: Any, note: str = "") -> Choice:
    notes = (note,) if note else ()
    if is_module(item):
        tensors, modules, halves = flatten(item)
        notes = (*notes, "a pickled module, read without running it")
        return Choice(tensors, modules, notes, halves)
    plain, halves = unpacked(item)
    return Choice(plain, {}, notes, halves)


def _is_state_dict(value: Any) -> bool:
    """Whether a value maps names to tensors, or to arrays of NumPy with names of weights.

    Parts of quantized modules count as tensors.
    """
    if not isinstance(value, dict) or not value or not all(isinstance(k, str) for k in value):
        return False
    arrays = [v for v in value.values() if isinstance(v, NumpyArray) and v.array is not None]
    tensors = sum(isinstance(v, Tensor) or is_packed(k, v) for k, v in value.items())
    return tensors + len(arrays) == len(value) and bool(tensors or any(map(_WEIGHT.search, value)))


def _has_weights(item: Mapping[str, Any]) -> bool:
    """Whether there are numbers with an axis: the scores of a trainer have none."""
    return any(
        v.size and v.dtype.startswith(("float", "bfloat", "qint"))
        if isinstance(v, Tensor)
        else v.array.ndim and v.array.dtype.kind == "f"
        if isinstance(v, NumpyArray)
        else is_packed(k, v)
        for k, v in item.items()
    )


def _modules_with_weights(value: Any) -> set[int]:
    """Return the identities of modules that have parameters, also in their submodules."""
    above: dict[int, list[int]] = {}
    todo: list[int] = []
    for item in reachable(value):
        if not is_module(item):
            continue
        tables = [item.attributes.get(name) for name in ("_modules", "_parameters")]
        children, own = (table.values() if isinstance(table, dict) else () for table in tables)
        for child in children:
            above.setdefault(id(child), []).append(id(item))
        if is_quantized(str(item.name)) or any(isinstance(v, (Tensor, Opaque)) for v in own):
            todo.append(id(item))
    found: set[int] = set()
    while todo:
        number = todo.pop()
        if number not in found:
            found.add(number)
            todo += above.get(number, ())
    return found


def _without_copies(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state_dicts without those of a module that is in the file, too."""
    kept: dict[str, Any] = {}
    of_modules: set[Any] = set()
    for path, item in sorted(found.items(), key=lambda pair: not is_module(pair[1])):
        try:
            tensors = flatten(item)[0] if is_module(item) else unpacked(item)[0]
        except UnsupportedError:
            tensors = {}
        same = frozenset(_place(v) for v in tensors.values() if isinstance(v, Tensor))
        if is_module(item) or same not in of_modules:
            kept[path] = item
        if is_module(item) and same:
            of_modules.add(same)
    return kept


def _place(tensor: Tensor) -> tuple[str, str]:
    """Return the place of a tensor's numbers in the file; texts cannot be made of equal hashes."""
    return tensor.storage.key, f"{tensor.offset} {tensor.size} {tensor.stride}"


def _listed(found: Mapping[str, Any]) -> str:
    return ", ".join(sorted(map(repr, found))[:_MOST_LISTED]) or "none"


def _not_there(contents: Contents, key: str, found: Mapping[str, Any]) -> NpylstmError:
    """Return the error for a key with no state_dict."""
    text = f"key {key!r:.80}: no state_dict there; there are: {_listed(found)}"
    there = (item for path, item in walk(contents.value) if path == key)
    reasons = _foreign_values(next(there, None))
    return UnsupportedError([text, *reasons]) if reasons else FormatError(text)


def _nothing_found(contents: Contents) -> NpylstmError:
    """Return the error for a file without weights, with every foreign object in it."""
    value = contents.value
    kind = (
        f"an object of {value.name}" if isinstance(value, Opaque) else f"a {type(value).__name__}"
    )
    text = f"expected a state_dict, names of tensors, got {kind}; {_SAVE}"
    if not contents.foreign:
        return FormatError(text)
    reasons = [reason for item in reachable(value) for reason in _foreign_values(item)]
    advice = "or convert the module where it is in memory: from_torch(module, example)"
    return UnsupportedError(
        [*reasons[:_MOST_LISTED], f"{text}; {advice}", *refusals(contents.foreign)]
    )


def _foreign_values(item: Any) -> list[str]:
    """Return a reason for each value of a dictionary of tensors that is a foreign object."""
    if not isinstance(item, dict) or not all(isinstance(k, str) for k in item):
        return []
    values = {k: v if isinstance(v, tuple) else (v,) for k, v in item.items()}
    return [
        f"{name:.200}: {foreign_reason(part)}"
        for name, parts in values.items()
        for part in parts
        if isinstance(part, Opaque) and not is_module(part)
    ]
