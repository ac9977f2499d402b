"""From a ``model.json`` of TensorFlow.js to a ModelSpec."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from npylstm import FormatError, ModelSpec, UnsupportedError
from npylstm.ops.external import Function
from npylstm_converters.files import sha256_of
from npylstm_converters.keras.assembling import convert_container
from npylstm_converters.keras.files import Container, read_json
from npylstm_converters.keras.legacy import PathStore
from npylstm_converters.keras.parsing import parse
from npylstm_converters.keras.translating import Options
from npylstm_converters.keras.weights import SavedStore, Store
from npylstm_converters.registry import Importer
from npylstm_converters.tfjs.runner import TfjsRunner
from npylstm_converters.tfjs.shards import Weight, read_manifest
from npylstm_converters.tfjs.topology import read_topology, read_writer
from npylstm_converters.toolkit.json_files import is_json, top_keys

__all__ = ["IMPORTER", "from_tfjs"]

_NUMBERED = re.compile(f"(?:{'|'.join(SavedStore.ROOTS)})/.+/vars/[0-9]+")
_KEYS = frozenset({"modelTopology", "weightsManifest"})


def from_tfjs(
    source: str | os.PathLike[str],
    *,
    allow_unused: Sequence[str] | None = None,
    custom: Mapping[str, Function] | None = None,
) -> ModelSpec:
    """Convert a layers model of TensorFlow.js; nothing but NumPy is needed.

    Parameters
    ----------
    source
        ``model.json``, as ``model.save`` of TensorFlow.js or its converter wrote it, or the folder
        that holds it. The weight files are in the same folder.
    allow_unused, custom
        As for :func:`npylstm_converters.keras.from_keras`.

    Returns
    -------
    ModelSpec
        Without recorded cases; its formulas are those of TensorFlow.js.

    Raises
    ------
    UnsupportedError
        If something is not supported; the message lists every layer, option and array.
    FormatError
        If a file is damaged, missing, or outside the folder.
    OSError
        If ``model.json`` cannot be read.
    """
    path = Path(source)
    if path.is_dir():
        path = path / "model.json"
    document = read_json(path)
    try:
        options = Options(tuple(allow_unused or ()), dict(custom or {}))
        spec = _convert(document, path.parent, options)
    except UnsupportedError:
        raise
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from None
    return replace(spec, provenance={**spec.provenance, "source_sha256": sha256_of(path)})


def _convert(document: Any, folder: Path, options: Options) -> ModelSpec:
    if not isinstance(document, Mapping):
        raise FormatError("expected an object with modelTopology and weightsManifest")
    topology, writer = read_topology(document), read_writer(document)
    weights = read_manifest(document.get("weightsManifest", []), folder)
    store = _store(topology, weights)
    container = Container(topology, store, writer, "TensorFlow.js layers model")
    return convert_container(container, options)


def _store(topology: Mapping[str, Any], weights: list[Weight]) -> Store:
    """Sort weights by the layers in their names: ``lstm/kernel``, ``layers/lstm/cell/vars/0``."""
    named = [(weight.path, weight) for weight in weights]
    if any(_NUMBERED.fullmatch(weight.path) for weight in weights):
        return SavedStore([], named)
    return PathStore(parse(topology), named, "names")


class _TfjsImporter(Importer):
    name = "tfjs"
    options = ("allow_unused", "custom")

    def accepts(self, source: Any, head: bytes) -> bool:
        if not isinstance(source, (str, os.PathLike)):
            return False
        if os.path.isdir(source):
            path = os.path.join(source, "model.json")
            return os.path.isfile(path) and bool(_KEYS & top_keys(path))
        return is_json(head) and bool(_KEYS & top_keys(source))

    def convert(self, source: Any, **options: Any) -> ModelSpec:
        return from_tfjs(source, **options)

    def files(self, source: Any) -> list[str]:
        if os.path.isdir(source):
            return super().files(source)
        document = read_json(source)
        manifest = document.get("weightsManifest") if isinstance(document, Mapping) else None
        groups = manifest if isinstance(manifest, list) else [manifest]
        paths = [g.get("paths") for g in groups if isinstance(g, Mapping)]
        names = [n for listed in paths if isinstance(listed, list) for n in listed]
        folder = os.path.dirname(source)
        beside = [os.path.join(folder, n) for n in names if isinstance(n, str)]
        return [*super().files(source), *beside]

    def runner(self, source: Any, spec: ModelSpec, **options: Any) -> TfjsRunner:
        return TfjsRunner(source, spec)


IMPORTER = _TfjsImporter()
