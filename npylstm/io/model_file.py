"""The model file: one plain ``.npz`` that ``numpy.load(path, allow_pickle=False)`` opens.

========================== =========================================================
key                        content
========================== =========================================================
``npylstm/spec``           the graph as UTF-8 JSON (uint8)
``LAYER/W_i`` ...          weights, one array per gate
``LAYER/W_i.scale`` ...    what the storage type of a weight keeps beside it
``case/0/input/NAME``      a recorded case: an input of the framework
``case/0/output/NAME``     an output of the framework
``case/0/state/LAYER/h``   the initial state, if it was not zero
``case/0/lengths``         the lengths of its sequences, if they differed
``case/0/purpose``         a word for what the case tests
========================== =========================================================

Files are not trusted: shapes and dtypes are compared with the spec before an array is read, and
unknown keys raise an error (:mod:`npylstm.io.npz` checks the rest).
"""

from __future__ import annotations

import json
import os
import re
import shlex
from typing import Any

import numpy as np

from npylstm.arrays import Array
from npylstm.errors import FormatError
from npylstm.graph.parts import scale_axis
from npylstm.io.document import graph_from_json
from npylstm.io.npz import Archive, NotAnArchiveError, Source, write_arrays
from npylstm.spec import Case, LayerSpec, ModelSpec
from npylstm.storage import StoredWeight, storage_type

__all__ = ["is_model", "read", "save"]

SPEC_KEY = "npylstm/spec"
_CASE = re.compile(r"case/(\d{1,6})/(input|output|state|lengths|purpose)(?:/(.+))?")
_SINGLE = ("lengths", "purpose")  # parts of a case without a tensor name
_MAX_SPEC_BYTES = 2 << 20  # Python needs up to thirty times as much memory for JSON


def is_model(path: str | os.PathLike[str]) -> bool:
    """Whether a file is an npylstm model, judged by its keys only.

    Raises
    ------
    OSError
        If it cannot be opened.
    """
    if os.path.isdir(path):
        return False
    with open(path, "rb") as stream:
        if stream.read(2) != b"PK":
            return False
    try:
        with Archive(path) as archive:
            return SPEC_KEY in archive.keys
    except FormatError:
        return False


def read(source: Source) -> ModelSpec:
    """Read and validate a file of :func:`save`.

    Raises
    ------
    FormatError
        If anything in the file is missing, unexpected, damaged or inconsistent.
    OSError
        If the file cannot be opened.
    """
    with _opened(source) as archive:
        name = archive.name
        if SPEC_KEY not in archive.keys:
            hint = "" if archive.holds_arrays else f"; {_convert_first(name)}"
            raise FormatError(f"{name}: no {SPEC_KEY}, so this is not an npylstm model{hint}")
        try:
            return _read_model(archive)
        except FormatError as error:
            named = str(error).startswith(name)
            raise FormatError(str(error) if named else f"{name}: {error}") from None


def _opened(source: Source) -> Archive:
    """Open a file; a path that is no zip file may be that of a framework's model."""
    path = source if isinstance(source, (str, os.PathLike)) else ""
    if path and os.path.isdir(path):
        raise FormatError(f"{path}: a folder, not an npylstm model; {_convert_first(str(path))}")
    try:
        return Archive(source)
    except NotAnArchiveError as error:
        hint = f"; {_convert_first(str(path))}" if path else ""
        raise FormatError(f"{error}{hint}") from None


def _convert_first(name: str) -> str:
    return (
        f"a framework's model is converted first: `npylstm convert {shlex.quote(name)} MODEL.npz`"
    )


def _read_model(archive: Archive) -> ModelSpec:
    shape, dtype = archive.header(SPEC_KEY)
    if dtype != np.uint8 or len(shape) != 1 or shape[0] > _MAX_SPEC_BYTES:
        raise FormatError(f"{SPEC_KEY}: expected up to {_MAX_SPEC_BYTES} bytes of JSON")
    try:
        text = archive.array(SPEC_KEY).tobytes().decode("utf-8")
        document = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{SPEC_KEY}: not JSON: {error}") from None
    if not isinstance(document, dict):
        raise FormatError(f"{SPEC_KEY}: expected a JSON object")
    try:
        graph = graph_from_json(document)
    except RecursionError:
        raise FormatError(f"{SPEC_KEY}: layers inside layers, too deep") from None
    layers = []
    unread = archive.keys - {SPEC_KEY}
    for name, operation, storage in graph.pop("layers"):
        weights, stored = {}, {}
        for key, shape in operation.weight_shapes().items():
            path = f"{name}/{key}"
            if key in storage:
                row, axis = storage_type(storage[key]), scale_axis(operation, key)
                arrays = {
                    suffix: _read_array(archive, unread, path + suffix, own, row.dtypes[suffix])
                    for suffix, own in row.shapes(shape, axis).items()
                }
                stored[key] = StoredWeight.decoded(storage[key], arrays, axis)
                weights[key] = stored[key].weight
            else:
                weights[key] = _read_array(archive, unread, path, shape, graph["dtype"])
        layers.append(LayerSpec(name, operation, weights, stored))
    model = ModelSpec(layers=tuple(layers), **graph)
    cases = _read_cases(archive, unread)
    if unread:
        raise FormatError(f"unexpected key {sorted(unread)[0]!r}")
    return model.with_cases(cases)


def _read_array(
    archive: Archive, unread: set[str], key: str, shape: tuple[int, ...], dtype: str
) -> Array:
    """Read an array of known shape and dtype, and remove its key from ``unread``."""
    if key not in archive.keys:
        raise FormatError(f"{key}: missing, expected shape {shape}")
    found, own = archive.header(key)
    if found != shape or own != dtype:
        raise FormatError(f"{key}: expected shape {shape} of {dtype}, got {found} of {own}")
    unread.discard(key)
    return archive.array(key)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _read_cases(archive: Archive, unread: set[str]) -> list[Case]:
    """Read recorded cases and remove their keys from ``unread``."""
    found: dict[int, dict[str, dict[str, Any]]] = {}
    for key in sorted(unread):
        match = _CASE.fullmatch(key)
        if match and (match[2] in _SINGLE) is (match[3] is None):
            kinds: dict[str, dict[str, Any]] = {"input": {}, "output": {}, "state": {}}
            parts = found.setdefault(int(match[1]), kinds | {"lengths": {}, "purpose": {}})
            read = archive.word if match[2] == "purpose" else archive.array
            parts[match[2]][match[3] or ""] = read(key)
            unread.discard(key)
    cases = []
    for _, parts in sorted(found.items()):
        state: dict[str, dict[str, Array]] = {}
        for path, array in parts["state"].items():
            layer, _, name = path.partition("/")
            state.setdefault(layer, {})[name] = array
        lengths, purpose = parts["lengths"].get(""), parts["purpose"].get("", "")
        cases.append(Case(parts["input"], parts["output"], state, lengths, purpose))
    return cases


def save(spec: ModelSpec, path: str | os.PathLike[str]) -> None:
    """Write a model to ``path``; equal specs give the same bytes.

    Parameters
    ----------
    spec
        The model, with its recorded cases.
    path
        The file to create, or to replace when the new one is complete.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    arrays: dict[str, Array] = {}
    document = json.dumps(spec.to_json(), ensure_ascii=False, indent=1, allow_nan=False)
    arrays[SPEC_KEY] = np.frombuffer(document.encode("utf-8"), np.uint8)
    for layer in spec.layers:
        arrays |= {f"{layer.name}/{key}": array for key, array in layer.arrays().items()}
    for number, case in enumerate(spec.cases):
        arrays |= {f"case/{number}/input/{k}": v for k, v in case.inputs.items()}
        if case.purpose:
            arrays[f"case/{number}/purpose"] = np.array(case.purpose)
        if case.lengths is not None:
            arrays[f"case/{number}/lengths"] = case.lengths
        arrays |= {f"case/{number}/output/{k}": v for k, v in case.outputs.items()}
        for name, entries in case.state.items():
            arrays |= {f"case/{number}/state/{name}/{k}": v for k, v in entries.items()}
    write_arrays(arrays, path)
