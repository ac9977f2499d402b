"""Loads a Keras source in its Keras."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from npylstm import NpylstmError
from npylstm_converters.keras.archives import as_plain_zip
from npylstm_converters.keras.chains import with_chain
from npylstm_converters.keras.early_names import with_names_of_today
from npylstm_converters.keras.files import open_container
from npylstm_converters.keras.numbered import NumberedStore
from npylstm_converters.keras.precision import in_float32

__all__ = ["find_keras", "load", "spelt_out"]


def load(source: Any, architecture: Any, layers: str | None, major: int) -> tuple[Any, str]:
    """Return a model loaded by Keras, computing in float32, and the framework's description.

    Parameters
    ----------
    source
        A path.
    architecture, layers
        As for :func:`npylstm_converters.from_keras`.
    major
        The major version of the Keras that wrote it.

    Raises
    ------
    FormatError
        If the file is damaged.
    NpylstmError
        If no suitable Keras is installed or it cannot load the source.
    """
    # Damaged files raise before the framework is imported.
    with open_container(source, architecture) as container:
        arrays: dict[str, list[Any]] = {}
        if layers is not None:
            document = with_chain(container, layers).document
            if isinstance(container.store, NumberedStore):
                arrays = _arrays_of(container.store)
        else:
            apart = container.format == "HDF5 weights" or architecture is not None
            silent = major == 2 and spelt_out(container.document) != container.document
            document = container.document if apart or silent else None
    name, keras = find_keras(major)
    try:
        if document is not None:
            text = json.dumps(spelt_out(document) if major == 2 else document)
            model = keras.models.model_from_json(text)
            # A chain may list the file's layers in any order.
            by_name = {"by_name": True} if layers is not None else {}
            if arrays:  # Keras would pair them by class and number
                for layer in model.layers:
                    layer.set_weights(arrays.get(layer.name, []))
            else:
                with as_plain_zip(Path(source)) as path:
                    model.load_weights(os.fspath(path), **by_name)
        else:
            with as_plain_zip(Path(source)) as path:
                model = keras.models.load_model(os.fspath(path), compile=False)
    except Exception as error:  # frameworks raise anything; it is theirs, not ours
        text = " ".join(str(error).split())[:200]
        raise NpylstmError(f"{name} cannot load {os.fspath(source)}: {text}") from None
    replaced = major == 2 and in_float32(document) != document
    if major > 2:
        replaced = _compute_in_float32(keras, model)
    return model, f"{name}{', in float32' if replaced else ''}"


def _compute_in_float32(keras: Any, model: Any) -> bool:
    """Let the layers of Keras 3 compute in float32; return whether that changes one.

    Layers with int8 weights read their inputs as they are, not rounded to 8 bits.
    """
    changed = False
    for layer in model._flatten_layers():
        policy = keras.dtype_policies.serialize(layer.dtype_policy)
        if in_float32(policy) != policy:
            layer.dtype_policy = keras.dtype_policies.deserialize(in_float32(policy))
            changed = True
        if getattr(layer, "inputs_quantizer", None):
            layer.inputs_quantizer = lambda inputs, axis=None: (inputs, 1.0)
            changed = True
    return changed


def _arrays_of(store: NumberedStore) -> dict[str, list[Any]]:
    """Return the arrays of every layer, in the order of ``set_weights``."""
    return {name: [a.read() for a in store.arrays(name)] for name in store.listed()}


def spelt_out(document: Any) -> Any:
    """Return a config of Keras 2 as its last version loads it, computing in float32.

    Early versions had other names of classes, and left out keys: a GRU without the key means
    ``reset_after=False``; later versions default to True. The dtype of an Embedding was that of
    the ids.
    """
    return _with_keys(in_float32(with_names_of_today(document)))


def _with_keys(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_keys(entry) for entry in value]
    if not isinstance(value, Mapping):
        return value
    said = {key: _with_keys(entry) for key, entry in value.items()}
    config = said.get("config")
    if isinstance(config, dict) and said.get("class_name") == "GRU":
        config.setdefault("reset_after", False)
    ids = isinstance(config, dict) and config.get("dtype") in ("int32", "int64")
    if isinstance(config, dict) and ids and said.get("class_name") == "Embedding":
        config["dtype"] = "float32"
    return said


def find_keras(major: int) -> tuple[str, Any]:
    """Return version and module of an installed Keras whose formulas are those of ``major``."""
    if major < 2:
        raise NpylstmError("no installed Keras runs models of Keras 1: they need Keras 1 itself")
    for package in ("keras",) if major >= 3 else ("tf_keras", "keras"):
        try:
            module = importlib.import_module(package)
        except ImportError:
            continue
        version = str(module.__version__)
        generation = 3 if package == "keras" and not version.startswith("2.") else 2
        if generation == min(major, 3):
            return f"{package} {version}", module
    wanted = "keras>=3 with a backend" if major >= 3 else "tf_keras"
    raise NpylstmError(f"running this model needs Keras {min(major, 3)}: pip install {wanted}")
