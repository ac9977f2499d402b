"""From a Keras source to a ModelSpec."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from npylstm import FormatError, ModelSpec, NpylstmError, UnsupportedError
from npylstm.ops.external import Function
from npylstm_converters.files import sha256_of
from npylstm_converters.keras.advice import ask_for_architecture, describe
from npylstm_converters.keras.alternatives import convert_others
from npylstm_converters.keras.archives import is_archive_folder
from npylstm_converters.keras.assembling import convert_container
from npylstm_converters.keras.chains import with_chain
from npylstm_converters.keras.config import Writer
from npylstm_converters.keras.execution import is_model
from npylstm_converters.keras.external import code_instead
from npylstm_converters.keras.files import (
    Container,
    is_foreign_zip,
    is_keras_file,
    is_list_of_shards,
    open_container,
    open_weights,
    shards_of,
)
from npylstm_converters.keras.graph import RawLayer
from npylstm_converters.keras.runner import KerasRunner
from npylstm_converters.keras.translating import Options
from npylstm_converters.keras.weights import ListedStore, LiveStore
from npylstm_converters.registry import Importer, on_disk

__all__ = ["IMPORTER", "from_keras"]


def from_keras(
    source: Any,
    architecture: str | os.PathLike[str] | None = None,
    *,
    layers: str | None = None,
    allow_unused: Sequence[str] | None = None,
    custom: Mapping[str, Function] | None = None,
) -> ModelSpec:
    """Convert a Keras model. Neither Keras nor TensorFlow is needed for a path.

    Parameters
    ----------
    source
        A ``.keras`` file, the folder that it was unzipped to, a full-model ``.h5``, or the weights
        of Keras 1, 2 or 3 alone (``.h5``, ``.weights.h5``, ``.weights.json`` with its shards): a
        path, the bytes, or an open binary file. Or a Keras 3 or tf_keras model object.
    architecture
        The text of ``model.to_json()`` or a JSON file with it, for weights-only files.
    layers
        The chain of layers, for weights-only files without an architecture:
        ``"lstm_1 -> dropout_1 -> dense_1(softmax)"``.
    allow_unused
        Paths of arrays that may stay unused.
    custom
        NumPy functions for custom layers, by class or by layer: ``y = f(x)``, or
        ``f(x, weights=(...))`` for a layer with weights. No code of the model is ever run. The file
        stores the function's name; you must pass the function again to load the file.

    Returns
    -------
    ModelSpec
        Without recorded cases.

    Raises
    ------
    UnsupportedError
        Lists every layer, option and array that is not supported.
    FormatError
        If a file is damaged or is not a Keras file.
    OSError
        If a file cannot be read.
    """
    options = Options(tuple(allow_unused or ()), dict(custom or {}))
    with on_disk(source) as source:
        return _convert(source, architecture, layers, options)


def _convert(
    source: Any, architecture: str | os.PathLike[str] | None, layers: str | None, options: Options
) -> ModelSpec:
    if not isinstance(source, (str, os.PathLike)):
        if architecture is not None or layers is not None:
            raise NpylstmError("architecture and layers go with a weights-only file")
        return convert_container(_open_object(source, options), options)
    with open_container(source, architecture) as container:
        if layers is not None:
            container = with_chain(container, layers)
        if container.document is None:
            raise FormatError(f"{os.fspath(source)}: {ask_for_architecture(container, source)}")
        try:
            spec = convert_container(container, options)
        except FormatError as error:
            text = str(error)
            label = os.fspath(source)
            raise FormatError(text if text.startswith(label) else f"{label}: {text}") from None
    files = IMPORTER.files(source)
    return replace(spec, provenance={**spec.provenance, "source_sha256": sha256_of(*files)})


def _open_object(model: Any, options: Options) -> Container:
    if not is_model(model):
        raise FormatError(f"expected a path or a Keras model, got {type(model).__name__}")
    try:
        if hasattr(model, "to_json"):
            document = json.loads(model.to_json())
        else:
            document = {"class_name": type(model).__name__, "config": model.get_config()}
    except Exception as error:  # user code: get_config of a subclass may raise anything
        raise UnsupportedError(
            f"{type(model).__name__}: its config cannot be had: {error}; rebuild it as a "
            "Sequential or functional model around the same layers"
        ) from None
    version = document.get("keras_version") or _module_version(model)
    writer = Writer("Keras", version, f"a model object of Keras {version}")
    foreign = tuple(_foreign_code(model, options.custom))

    def words(raw: RawLayer) -> list[Any] | None:
        layer = next(layer for layer in model.layers if layer.name == raw.name)
        found = layer.get_vocabulary() if hasattr(layer, "get_vocabulary") else None
        return None if found is None else [getattr(w, "item", lambda w=w: w)() for w in found]

    store = LiveStore(model)
    return Container(document, store, writer, "model object", foreign, vocabulary=words)


def _foreign_code(model: Any, known: Collection[str]) -> Iterator[str]:
    """Yield a message for each custom class or function; a config may give it a Keras name."""
    wrapped = [(getattr(outer, "layer", None), outer) for outer in model.layers]
    pairs = [(outer, outer) for outer in model.layers] + [p for p in wrapped if p[0] is not None]
    for layer, outer in pairs:
        if {layer.name, outer.name, type(layer).__name__} & {*known}:
            continue
        if getattr(layer, "causal", False) and "causal" not in layer.get_config():
            yield (
                f"{layer.name}: was made with causal=True, which Keras keeps out of the config and "
                "forgets in files; call it with use_causal_mask=True"
            )
        bases = type(layer).__mro__
        if not _of_keras(bases[0]) and any(map(_of_keras, bases)):
            yield f"{layer.name}: {code_instead(outer.name, type(layer).__name__, own=True)}"
        elif is_model(layer):
            yield from (f"{layer.name}.{reason}" for reason in _foreign_code(layer, known))
        for name in ("activation", "recurrent_activation"):
            function = getattr(layer, name, None)
            owner: Any = function if hasattr(function, "__name__") else type(function)
            if function is not None and not _of_keras(owner):
                yield f"{layer.name}: {name} {owner.__name__!r} is a function of the user's own"


def _of_keras(thing: Any) -> bool:
    return str(thing.__module__).split(".")[0] in ("keras", "tf_keras", "tensorflow")


def _module_version(model: object) -> str:
    """Return the version of the loaded Keras that defines the model's class or a base of it."""
    for cls in type(model).__mro__:
        package = cls.__module__.split(".")[0]
        if package in ("keras", "tf_keras"):
            return str(getattr(sys.modules.get(package), "__version__", "3"))
    return "3"


class _KerasImporter(Importer):
    name = "keras"
    options = ("architecture", "layers", "allow_unused", "custom")

    def accepts(self, source: Any, head: bytes) -> bool:
        if isinstance(source, (str, os.PathLike)) and os.path.isdir(source):
            return is_archive_folder(source)
        if not head:
            return is_model(source)
        if is_list_of_shards(head):
            return bool(shards_of(Path(source)))
        return is_keras_file(head) and not (head.startswith(b"PK") and is_foreign_zip(source))

    def convert(self, source: Any, **options: Any) -> ModelSpec:
        return from_keras(source, **options)

    def can_describe(self, source: Any, **options: Any) -> bool:
        if "architecture" in options or "layers" in options:
            return False
        with open_container(source) as container:
            return container.document is None and isinstance(container.store, ListedStore)

    def describe(self, source: Any, **options: Any) -> dict[str, Any]:
        with open_container(source) as container:
            return describe(container, source)

    def alternatives(self, source: Any, **options: Any) -> Iterator[tuple[str, ModelSpec]]:
        if "layers" not in options:
            return
        said = Options(tuple(options.get("allow_unused") or ()), dict(options.get("custom") or {}))
        with open_weights(source) as opened:
            yield from convert_others(opened, options["layers"], said)

    def files(self, source: Any) -> list[str]:
        files = super().files(source)
        if len(files) == 1 and not os.path.isdir(source):
            files += [os.fspath(shard) for shard in shards_of(Path(source))]
        return files

    def runner(self, source: Any, spec: ModelSpec, **options: Any) -> KerasRunner:
        return KerasRunner(source, spec, options.get("architecture"), options.get("layers"))


IMPORTER = _KerasImporter()
