"""Read the model config of ``model.json`` and rename its keys to those of Keras 2.

TensorFlow.js writes configs with Keras' keys (``batch_input_shape``) and also reads its own
(``batchInputShape``). A null value equals a missing key, except for activations.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from npylstm import FormatError, UnsupportedError
from npylstm_converters.keras.config import Writer

__all__ = ["read_topology", "read_writer"]

_CAMEL = re.compile(r"[a-z][a-z0-9]*(?:[A-Z][a-z0-9]*)+")
_NAMES = ("name", "class_name", "registered_name", "module")  # values that are not renamed
_GRAPH = ("inbound_nodes", "input_layers", "output_layers")
# Keys for which null is a value: no activation, no merging. Not in simple recurrent layers.
_NULLABLE = ("activation", "recurrent_activation", "merge_mode")
# Arguments of Keras that TensorFlow.js ignores.
_IGNORED = ("time_major", "zero_output_for_mask")


def read_topology(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the model's config.

    Parameters
    ----------
    document
        The contents of ``model.json``.

    Returns
    -------
    Mapping
        ``class_name`` and ``config``, with Keras' keys.

    Raises
    ------
    UnsupportedError
        If it is a graph model, or has only weights.
    FormatError
        If it is not a model.
    """
    topology = document.get("modelTopology")
    if document.get("format") == "graph-model" or _is_graph(topology):
        raise UnsupportedError(
            "a graph model (operations of TensorFlow, no layers) is not supported; "
            "convert the Keras model that it was made of"
        )
    if topology is None:
        raise UnsupportedError(
            "no modelTopology: it holds weights only; save the model by model.save()"
        )
    if isinstance(topology, Mapping):
        inner = topology.get("model_config")
        topology = topology if inner is None else inner
    if not isinstance(topology, Mapping):
        raise FormatError(f"modelTopology: expected an object, got {topology!r:.60}")
    try:
        made: Mapping[str, Any] = _in_keras_words(topology)
    except RecursionError:
        raise FormatError("modelTopology: objects inside objects, too deep") from None
    if not isinstance(made.get("class_name"), str):
        raise FormatError("modelTopology: expected an object with a class_name")
    return made


def _is_graph(topology: Any) -> bool:
    return isinstance(topology, Mapping) and "node" in topology and "class_name" not in topology


def read_writer(document: Mapping[str, Any]) -> Writer:
    """Return the version of TensorFlow.js, or of the converter, that wrote a model."""
    topology = document.get("modelTopology")
    version = topology.get("keras_version") if isinstance(topology, Mapping) else None
    said = {
        "convertedBy": document.get("convertedBy"),
        "generatedBy": document.get("generatedBy"),
        "keras_version": version,
    }
    for key, text in said.items():
        found = (
            re.search(r"[0-9]{1,4}(?:\.[0-9]{1,6}){1,3}", text) if isinstance(text, str) else None
        )
        if found:
            evidence = f"it says {key} {text!r:.80}"
            return Writer("TensorFlow.js", found[0], evidence, tfjs=True)
    return Writer("TensorFlow.js", "0", "it names no version", tfjs=True)


def _in_keras_words(value: Any, class_name: str = "") -> Any:
    """Return a config with keys, and values that are TensorFlow.js names, in snake case."""
    if isinstance(value, list):
        return [_in_keras_words(entry, class_name) for entry in value]
    if not isinstance(value, Mapping):
        return value
    made: dict[str, Any] = {}
    entries = [(_snake(str(key)), entry) for key, entry in value.items()]
    own = next((e for k, e in entries if k == "class_name" and isinstance(e, str)), class_name)
    for key, entry in entries:
        if key in made:
            raise FormatError(f"modelTopology: {key!r} is there twice, in two spellings")
        if entry is None and not (key in _NULLABLE and own != "SimpleRNN"):
            continue
        if key in _IGNORED:
            continue
        elif key in _NAMES or key in _GRAPH:
            made[key] = entry
        elif isinstance(entry, str):
            made[key] = _snake(entry)
        else:
            made[key] = _in_keras_words(entry, own)
    return made


def _snake(text: str) -> str:
    """``batchInputShape`` -> ``batch_input_shape``; what is no such word stays."""
    if not _CAMEL.fullmatch(text):
        return text
    return re.sub(r"(?<!^)([A-Z])", r"_\1", text).lower()
