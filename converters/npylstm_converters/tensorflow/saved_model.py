"""SavedModel folders: Keras' configs in ``keras_metadata.pb``, or in ``saved_model.pb`` itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from npylstm import FormatError
from npylstm_converters.keras.files import parse_json
from npylstm_converters.tensorflow.checkpoint import read_file
from npylstm_converters.tensorflow.graph_def import Program, read_program
from npylstm_converters.toolkit.wire import Message

__all__ = ["SavedModel", "read_functions", "read_saved_model"]

_FILE = "saved_model.pb"
_KERAS = "_tf_keras_"  # how the identifiers of Keras' objects begin
_SERVE = "serve"  # the tag of the graph for inference
# How Keras writes tuples and shapes into JSON.
_LISTS = ("__tuple__", "TensorShape")


@dataclass(frozen=True)
class SavedModel:
    """The Keras objects of a SavedModel.

    Attributes
    ----------
    version
        The version of TensorFlow that wrote it; empty if unknown.
    metadata
        The JSON text of each Keras object, by its number in the object graph.
    """

    version: str
    metadata: Mapping[int, bytes]

    def describe(self, number: int) -> Mapping[str, Any]:
        """Return the metadata of an object: ``name``, ``class_name``, ``config``; or nothing."""
        text = self.metadata.get(number)
        if text is None:
            return {}
        try:
            made = _plain(parse_json(text, f"metadata of object {number}"))
        except RecursionError:
            raise FormatError(
                f"metadata of object {number}: objects inside objects, too deep"
            ) from None
        if not isinstance(made, Mapping):
            raise FormatError(f"metadata of object {number}: expected an object, got {made!r:.60}")
        return made


def read_saved_model(folder: str) -> SavedModel:
    """Read the metadata of a SavedModel.

    Raises
    ------
    FormatError
        If a file is damaged.
    OSError
        If a file cannot be read.
    """
    path = os.path.join(folder, _FILE)
    beside = os.path.join(folder, "keras_metadata.pb")
    try:
        graph = _inference_graph(path, 1, 7)
        version = graph.message(1, 5).text(5)
        objects = graph.message(7, 1).messages(1, 4)
        users = (fields.message(4, 1, 3) for fields in objects)
        found = {number: _metadata(user, 1, 3) for number, user in enumerate(users)}
        if not any(found.values()) and os.path.isfile(beside):  # since TensorFlow 2.5
            path = beside
            nodes = Message(read_file(path), 1).messages(1, 2, 4, 5)
            found = {node.integer(2): _metadata(node, 4, 5) for node in nodes}
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from None
    return SavedModel(version, {number: text for number, text in found.items() if text})


def read_functions(folder: str) -> Program:
    """Read the functions and signatures of a SavedModel.

    Raises
    ------
    FormatError
        If the file is damaged.
    OSError
        If it cannot be read.
    """
    path = os.path.join(folder, _FILE)
    try:
        return read_program(_inference_graph(path, 1, 2, 5, 7))
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from None


def _inference_graph(path: str, *fields: int) -> Message:
    """Return the graph that is for inference, with some of its fields."""
    graphs = [*Message(read_file(path), 2).messages(2, *fields)]
    if not graphs:
        raise FormatError("holds no graph")
    tagged = [graph for graph in graphs if _SERVE in graph.message(1, 4).texts(4)]
    return (tagged or graphs)[0]


def _metadata(fields: Message, identifier: int, metadata: int) -> bytes:
    """Return the JSON text of an object; empty if it is no object of Keras."""
    if not fields.text(identifier).startswith(_KERAS):
        return b""
    return bytes(fields.data(metadata) or b"")


def _plain(value: Any) -> Any:
    """Return a JSON document with lists in place of serialised tuples and shapes."""
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    if not isinstance(value, Mapping):
        return value
    if value.get("class_name") in _LISTS and isinstance(value.get("items"), list):
        return _plain(value["items"])
    return {key: _plain(entry) for key, entry in value.items()}
