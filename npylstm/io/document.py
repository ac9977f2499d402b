"""The JSON document of a model file: the graph, without its arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from npylstm.errors import FormatError, NpylstmError
from npylstm.io.format1 import upgraded
from npylstm.ops import operation_from_json
from npylstm.ops.base import Operation
from npylstm.ops.shapes import Shape
from npylstm.spec import FORMAT_VERSION, Edge, TensorSpec
from npylstm.storage import storage_type

__all__ = ["graph_from_json"]


def graph_from_json(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments of :class:`ModelSpec` from the JSON of :meth:`ModelSpec.to_json`.

    Layers are ``(name, operation, storage types by weight)``; the caller adds the weights.

    Raises
    ------
    FormatError
        If the format version is newer than this npylstm or a value has the wrong type.
    """
    version = _typed(document, "format_version", int)
    if version > FORMAT_VERSION:
        raise FormatError(
            f"format_version: this npylstm reads up to {FORMAT_VERSION}, the file has {version}; "
            "install a newer npylstm"
        )
    if version < 1:
        raise FormatError(f"format_version: expected a positive integer, got {version}")
    if version == 1:
        document = upgraded(document)
    layers = []
    for entry in _objects(document, "layers"):
        name = _typed(entry, "name", str)
        try:
            operation = operation_from_json(entry.get("kind"), entry.get("config"))
            layers.append((name, operation, _storage(entry, operation)))
        except NpylstmError as error:
            raise FormatError(f"{name}: {error}") from None
    return {
        "name": _typed(document, "name", str),
        "dtype": _typed(document, "dtype", str),
        "layers": layers,
        "edges": tuple(
            Edge(_typed(e, "layer", str), _strings(e, "inputs"), _strings(e, "outputs"))
            for e in _objects(document, "edges")
        ),
        "inputs": tuple(
            TensorSpec(_typed(t, "name", str), _shape(t), t.get("integer") is True)
            for t in _objects(document, "inputs")
        ),
        "outputs": _strings(document, "outputs"),
        "provenance": _typed(document, "provenance", dict),
        "state_pairs": _pairs({"state_pairs": [], **document}, "state_pairs"),
    }


def _storage(entry: Mapping[str, Any], operation: Operation) -> dict[str, str]:
    """Return the storage types of the weights that are stored in fewer bits."""
    found: dict[str, str] = _typed({"storage": {}, **entry}, "storage", dict)
    for key, name in found.items():
        if key not in operation.weight_shapes():
            raise FormatError(f"storage: the operation has no weight {key!r:.80}")
        storage_type(name)  # known
    return found


def _typed(entry: Mapping[str, Any], key: str, kind: type) -> Any:
    value = entry.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise FormatError(f"spec: {key}: expected {kind.__name__}, got {value!r:.80}")
    return value


def _objects(entry: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    values: list[Any] = _typed(entry, key, list)
    if not all(isinstance(v, dict) for v in values):
        raise FormatError(f"spec: {key}: expected a list of objects")
    return values


def _strings(entry: Mapping[str, Any], key: str) -> tuple[str, ...]:
    values: list[Any] = _typed(entry, key, list)
    if not all(isinstance(v, str) for v in values):
        raise FormatError(f"spec: {key}: expected a list of strings")
    return tuple(values)


def _pairs(entry: Mapping[str, Any], key: str) -> tuple[tuple[str, str], ...]:
    values: list[Any] = _typed(entry, key, list)
    for value in values:
        if not isinstance(value, list) or [type(v) for v in value] != [str, str]:
            raise FormatError(f"spec: {key}: expected pairs of names, got {value!r:.80}")
    return tuple((first, second) for first, second in values)


def _shape(entry: Mapping[str, Any]) -> Shape:
    values: list[Any] = _typed(entry, "shape", list)
    if any(isinstance(v, bool) or not isinstance(v, (int, str)) for v in values):
        raise FormatError(f"spec: shape: expected integers and symbols, got {values!r:.80}")
    return tuple(values)
