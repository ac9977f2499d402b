"""The file of a saved session or pool: one ``.npz``.

========================== =========================================================
key                        content
========================== =========================================================
``npylstm/session``        a header as UTF-8 JSON (uint8), or ``npylstm/pool``
``state/LAYER/h`` ...      the state, one row for each sequence
========================== =========================================================

The header contains a digest of the weights, because a state is valid only for its model.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from npylstm.arrays import Array
from npylstm.errors import FormatError, StateError
from npylstm.graph.state import State
from npylstm.io import npz
from npylstm.spec import ModelSpec

__all__ = ["read", "write"]

_VERSION = 1


def write(
    path: str | os.PathLike[str],
    owner: str,
    spec: ModelSpec,
    header: Mapping[str, Any],
    state: State,
) -> None:
    """Write a header of JSON values and the state of a ``"session"`` or ``"pool"`` of a model."""
    document = {"format_version": _VERSION, **header, "weights": _digest(spec)}
    text = json.dumps(document, allow_nan=False).encode()
    arrays: dict[str, Array] = {f"npylstm/{owner}": np.frombuffer(text, np.uint8)}
    for call, entries in state.items():
        arrays |= {f"state/{call}/{name}": array for name, array in entries.items()}
    npz.write_arrays(arrays, path)


def read(path: str | os.PathLike[str], owner: str, spec: ModelSpec) -> tuple[dict[str, Any], State]:
    """Return the header and the state of a file of :func:`write`, for the same model.

    Raises
    ------
    StateError
        If the file is of a model with other weights, or of another dtype.
    FormatError
        If it is damaged or holds something else.
    OSError
        If it cannot be opened.
    """
    key = f"npylstm/{owner}"
    with npz.Archive(path) as archive:
        if key not in archive.keys:
            raise FormatError(f"{path}: no {key}, so this is not a saved {owner}")
        document = _header(archive, key)
        if document.get("weights") != _digest(spec):
            raise StateError(f"{path}: saved with other weights, expected this model's")
        state: State = {}
        for entry in sorted(archive.keys - {key}):
            top, _, rest = entry.partition("/")
            call, _, name = rest.partition("/")
            if top != "state" or not name:
                raise FormatError(f"{path}: unexpected key {entry!r}")
            array = state.setdefault(call, {})[name] = archive.array(entry)
            if str(array.dtype) != spec.dtype:
                raise StateError(f"{path}: expected {spec.dtype}, got {array.dtype}")
    return document, state


def _digest(spec: ModelSpec) -> str:
    """Return a SHA-256 of the weights."""
    digest = hashlib.sha256()
    for layer in spec.layers:
        for key, array in layer.weights.items():
            digest.update(f"{layer.name}/{key}{array.shape}".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()


def _header(archive: npz.Archive, key: str) -> dict[str, Any]:
    try:
        document = json.loads(archive.array(key).tobytes())
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or document.get("format_version") != _VERSION:
        version = document.get("format_version") if isinstance(document, dict) else None
        raise FormatError(
            f"{archive.name}: {key}: expected format_version {_VERSION}, got {version!r:.40}"
        )
    return document
