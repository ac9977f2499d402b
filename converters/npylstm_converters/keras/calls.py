"""Read tensors and calls as the configs of Keras 1, 2 and 3 write them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from npylstm import FormatError
from npylstm_converters.keras.graph import Call, Slot, Tensor, flat

__all__ = ["read_call", "read_tensors"]

_FIRST = ("inputs", "sequences", "sequence")  # names of a layer's first argument


def read_tensors(value: Any, label: str) -> tuple[list[Tensor], list[str]]:
    """Read the inputs or outputs of a model, in the order that Keras gives them.

    ``[["lstm", 0, 0], ...]``, the bare ``["lstm", 0, 0]`` of Keras 3, lists in lists, and
    dictionaries of these, whose keys Keras sorts.

    Returns
    -------
    tensors, names
        The keys of the tensors in a dictionary; empty for others.
    """
    tensors: list[Tensor] = []
    names: list[str] = []

    def read(value: Any, name: str) -> None:
        if isinstance(value, list) and value and isinstance(value[0], str):
            tensors.append(_tensor(value, label))
            names.append(name)
        elif isinstance(value, Mapping) and value:
            for key in sorted(value):
                read(value[key], key)
        elif isinstance(value, list) and value:
            for entry in value:
                read(entry, "")
        else:
            raise FormatError(
                f"model config: {label}: expected a list of tensors, got {value!r:.80}"
            )

    read(value, "")
    return tensors, names


def _tensor(entry: Any, label: str) -> Tensor:
    match entry:
        case [str(layer), int(call), int(output), *_]:
            return Tensor(layer, call, output)
    raise FormatError(f"model config: {label}: expected [layer, call, output], got {entry!r:.80}")


def read_call(layer: str, number: int, node: Any) -> Call:
    """Read one call, in the dialect of Keras 1 and 2 (lists) or 3 (args and kwargs)."""
    if isinstance(node, Mapping) and "args" in node:
        return _read_keras_3(layer, number, node)
    names: tuple[str, ...] = ()
    if isinstance(node, Mapping):
        names = tuple(sorted(node))
        node = [node[name] for name in names]
    if isinstance(node, list) and node and isinstance(node[0], str):
        node = [node]  # one tensor, not wrapped
    if not isinstance(node, list):
        raise FormatError(f"model config: {layer}: expected a call, got {node!r:.80}")
    inputs: list[Tensor] = []
    options: dict[str, tuple[Tensor, ...]] = {}
    positional: list[Any] = []
    keywords: dict[str, Any] = {}
    structures: dict[str, Any] = {}
    problem = ""
    for entry in _unwrap_list(node):
        if isinstance(entry, list) and entry and entry[0] == "_CONSTANT_VALUE":
            problem = "is called with a number"
            positional.append(entry[2] if len(entry) > 2 else None)
        else:
            positional.append(Slot(len(inputs)))
            inputs.append(_tensor(entry, layer))
        given = entry[3] if len(entry) > 3 else None
        if given is not None and not isinstance(given, Mapping):
            raise FormatError(f"model config: {layer}: expected an object, got {given!r:.80}")
        for key, value in (given or {}).items():
            tensors = tuple(_listed_tensors(value))
            if tensors:
                options[key] = tensors
                structures[key] = _listed_slots(value, itertools.count())
            else:
                keywords[key] = value
    return Call(
        layer, number, tuple(inputs), options, problem, (), tuple(positional), keywords,
        names=names, structures=structures,
    )  # fmt: skip


def _read_keras_3(layer: str, number: int, node: Mapping[str, Any]) -> Call:
    node, names = _with_lists(node)
    inputs = [*_keras_tensors(layer, node["args"])]
    options: dict[str, tuple[Tensor, ...]] = {}
    problems: list[str] = []
    for value in flat([node["args"], list(_values(node.get("kwargs")))]):
        if isinstance(value, Mapping) and "class_name" not in value:
            problems.append("is called with inputs by name")
        elif isinstance(value, Mapping) and value["class_name"] != "__keras_tensor__":
            problems.append("is called with a constant")
    kwargs = node.get("kwargs", {})
    if not isinstance(kwargs, Mapping):
        raise FormatError(f"model config: {layer}: kwargs: expected an object, got {kwargs!r:.80}")
    keywords: dict[str, Any] = {}
    structures: dict[str, Any] = {}
    for key, value in kwargs.items():
        tensors = tuple(_keras_tensors(layer, value))
        if tensors and not inputs and key in _FIRST:
            inputs += tensors
        elif tensors:
            options[key] = tensors
            structures[key] = _with_slots(value, itertools.count())
        else:
            keywords[key] = _with_slots(value, itertools.count())
    numbers = tuple(v for v in flat(node["args"]) if type(v) in (int, float))
    slots = itertools.count()
    given = node["args"] if isinstance(node["args"], list) else [node["args"]]
    positional = tuple(_with_slots(value, slots) for value in given)
    problem = "; ".join(problems)
    masks = tuple(_masks(layer, kwargs.get("mask")))
    return Call(
        layer, number, tuple(inputs), options, problem, numbers, positional, keywords,
        names=names, masks=masks, structures=structures,
    )  # fmt: skip


def _with_lists(node: Mapping[str, Any]) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """Return a call of a model with lists in place of dictionaries, and the names of its inputs."""
    args, kwargs = node["args"], node.get("kwargs", {})
    given = args[0] if isinstance(args, list) and len(args) == 1 else None
    if not isinstance(given, Mapping) or "class_name" in given or not isinstance(kwargs, Mapping):
        return node, ()
    names = tuple(sorted(given))
    mask = kwargs.get("mask")
    if isinstance(mask, Mapping) and "class_name" not in mask:
        kwargs = {**kwargs, "mask": [mask.get(name) for name in names]}
    return {**node, "args": [[given[name] for name in names]], "kwargs": kwargs}, names


def _masks(layer: str, value: Any) -> Iterator[Tensor | None]:
    """Yield the masks of a call's inputs, None for each one without."""
    for entry in flat(value) if value is not None else ():
        yield next(_keras_tensors(layer, entry), None)


def _unwrap_list(node: list[Any]) -> list[Any]:
    """Return the inner list of ``[[tensor, ...]]``, the form of TensorFlow's functions."""
    if len(node) == 1 and isinstance(node[0], list) and node[0] and isinstance(node[0][0], list):
        inner: list[Any] = node[0]
        return inner
    return node


def _with_slots(value: Any, slots: Iterator[int]) -> Any:
    """Return arguments with a slot for each tensor, in the order of :func:`_keras_tensors`."""
    if isinstance(value, Mapping) and value.get("class_name") == "__keras_tensor__":
        return Slot(next(slots))
    if isinstance(value, Mapping) and value.get("class_name") in ("__numpy__", "__tensor__"):
        return _constant(value.get("config"))
    if isinstance(value, (list, tuple)):
        return [_with_slots(entry, slots) for entry in value]
    return value


def _constant(config: Any) -> Any:
    """Return an array that a call of Keras 3 holds."""
    held = config if isinstance(config, Mapping) else {}
    try:
        array = np.asarray(held.get("value"), np.dtype(str(held.get("dtype"))))
    except (TypeError, ValueError, OverflowError):
        array = np.asarray(None)
    if array.dtype.kind not in "fiub":
        raise FormatError(f"model config: expected an array of numbers, got {config!r:.80}")
    return array


def _listed_slots(value: Any, slots: Iterator[int]) -> Any:
    """Return an argument of Keras 2 with a slot for each tensor, as :func:`_listed_tensors`."""
    match value:
        case [str(), int(), int(), *_]:
            return Slot(next(slots))
        case [*entries]:
            return [_listed_slots(entry, slots) for entry in entries]
    return value


def _values(arguments: Any) -> Iterator[Any]:
    return iter(arguments.values()) if isinstance(arguments, Mapping) else iter(())


def _listed_tensors(value: Any) -> Iterator[Tensor]:
    """Find tensors in an argument of Keras 2: ``["lstm", 0, 1]``, or a list of such."""
    match value:
        case [str(layer), int(call), int(output), *_]:
            yield Tensor(layer, call, output)
        case [*entries]:
            for entry in entries:
                yield from _listed_tensors(entry)


def _keras_tensors(layer: str, value: Any) -> Iterator[Tensor]:
    """Find every tensor in the nested arguments of a Keras 3 call."""
    if isinstance(value, Mapping):
        if value.get("class_name") == "__keras_tensor__":
            config = value.get("config")
            history = config.get("keras_history") if isinstance(config, Mapping) else None
            yield _tensor(history, layer)
        else:
            for entry in value.values():
                yield from _keras_tensors(layer, entry)
    elif isinstance(value, (list, tuple)):
        for entry in value:
            yield from _keras_tensors(layer, entry)
