"""Calls of layers, as the configs of Keras 1, 2 and 3 write them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from npylstm import FormatError, UnsupportedError
from npylstm_converters.keras.graph import Call, Slot, Tensor

__all__ = ["read_call", "read_tensors"]

_FIRST = ("inputs", "sequences", "sequence")  # names of a layer's first argument


def read_tensors(value: Any, label: str) -> list[Tensor]:
    """Read ``[["lstm", 0, 0], ...]``, the bare ``["lstm", 0, 0]`` of Keras 3, lists in lists."""
    if isinstance(value, list) and value and isinstance(value[0], str):
        value = [value]
    if isinstance(value, Mapping):
        raise UnsupportedError(
            f"{label}: given by name, {', '.join(map(str, value))}; rebuild the model with a list"
        )
    if not isinstance(value, list) or not value:
        raise FormatError(f"model config: {label}: expected a list of tensors, got {value!r:.80}")
    tensors: list[Tensor] = []
    for entry in value:
        nested = isinstance(entry, list) and entry and isinstance(entry[0], list)
        tensors += read_tensors(entry, label) if nested else [_tensor(entry, label)]
    return tensors


def _tensor(entry: Any, label: str) -> Tensor:
    match entry:
        case [str(layer), int(call), int(output), *_]:
            return Tensor(layer, call, output)
    raise FormatError(f"model config: {label}: expected [layer, call, output], got {entry!r:.80}")


def read_call(layer: str, number: int, node: Any) -> Call:
    """Read one call, in the dialect of Keras 1 and 2 (lists) or 3 (args and kwargs)."""
    if isinstance(node, Mapping) and "args" in node:
        return _read_keras_3(layer, number, node)
    if isinstance(node, Mapping):
        return Call(layer, number, (), problem="is called with inputs by name")
    if isinstance(node, list) and node and isinstance(node[0], str):
        node = [node]  # one tensor, not wrapped
    if not isinstance(node, list):
        raise FormatError(f"model config: {layer}: expected a call, got {node!r:.80}")
    inputs: list[Tensor] = []
    options: dict[str, tuple[Tensor, ...]] = {}
    positional: list[Any] = []
    told: dict[str, Any] = {}
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
            else:
                told[key] = value
    return Call(
        layer, number, tuple(inputs), options, _said(told), problem, (), tuple(positional), told
    )


def _read_keras_3(layer: str, number: int, node: Mapping[str, Any]) -> Call:
    inputs = [*_keras_tensors(layer, node["args"])]
    options: dict[str, tuple[Tensor, ...]] = {}
    problems: list[str] = []
    for value in _flat([node["args"], list(_values(node.get("kwargs")))]):
        if isinstance(value, Mapping) and "class_name" not in value:
            problems.append("is called with inputs by name")
        elif isinstance(value, Mapping) and value["class_name"] != "__keras_tensor__":
            problems.append("is called with a constant")
    kwargs = node.get("kwargs", {})
    if not isinstance(kwargs, Mapping):
        raise FormatError(f"model config: {layer}: kwargs: expected an object, got {kwargs!r:.80}")
    told: dict[str, Any] = {}
    for key, value in kwargs.items():
        tensors = tuple(_keras_tensors(layer, value))
        if tensors and not inputs and key in _FIRST:
            inputs += tensors
        elif tensors:
            options[key] = tensors
        else:
            told[key] = value
    numbers = tuple(v for v in _flat(node["args"]) if type(v) in (int, float))
    slots = itertools.count()
    given = node["args"] if isinstance(node["args"], list) else [node["args"]]
    positional = tuple(_with_slots(value, slots) for value in given)
    problem = "; ".join(problems)
    return Call(
        layer, number, tuple(inputs), options, _said(told), problem, numbers, positional, told
    )


def _said(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments other than None and False."""
    return {k: v for k, v in told.items() if any(e not in (None, False) for e in _flat(v))}


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
    if isinstance(value, (list, tuple)):
        return [_with_slots(entry, slots) for entry in value]
    return value


def _values(arguments: Any) -> Iterator[Any]:
    return iter(arguments.values()) if isinstance(arguments, Mapping) else iter(())


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, (list, tuple)):
        for entry in value:
            yield from _flat(entry)
    else:
        yield value


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
