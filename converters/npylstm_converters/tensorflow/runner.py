"""Runs a SavedModel or a checkpoint in Keras.

The model is built from its config, and TensorFlow restores the checkpoint into it by its own
rules. The functions of a SavedModel are not run: they may do anything.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Sequence
from typing import Any

from npylstm import ModelSpec, NpylstmError
from npylstm_converters.keras.chains import with_chain
from npylstm_converters.keras.loading import find_keras, spelt_out
from npylstm_converters.keras.runner import KerasRunner
from npylstm_converters.keras.tensors import Source, direction_of, role_of
from npylstm_converters.keras.weights import ListedStore
from npylstm_converters.tensorflow.containers import Opened
from npylstm_converters.tensorflow.stores import NamedVariable, ObjectStore
from npylstm_converters.toolkit.runners import one_line

__all__ = ["load_runner"]


def load_runner(opened: Opened, spec: ModelSpec, layers: str | None) -> KerasRunner:
    """Load a source in the Keras whose formulas are those of its writer.

    Parameters
    ----------
    opened
        The source.
    spec
        The converted model.
    layers
        The chain that it was converted with.

    Raises
    ------
    NpylstmError
        If no such Keras is installed, it cannot load the source, or the model has code of its own.
    """
    container = opened.container
    if layers is not None:
        container = with_chain(container, layers)
    if any(layer.layer.innermost.user_function for layer in spec.layers):
        raise NpylstmError("the model has layers of the user's own, whose code is not run")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    major = container.writer.major
    name, keras = find_keras(major)
    document = spelt_out(container.document) if major < 3 else container.document
    try:
        model = keras.models.model_from_json(json.dumps(document))
        if isinstance(container.store, ListedStore):
            _assign_chain(model, container.store)
        elif isinstance(container.store, ObjectStore):
            _restore(model, opened)
        else:
            _assign(model, opened.variables)
    except Exception as error:  # frameworks raise anything
        text = one_line(error, 200)
        raise NpylstmError(f"{name} cannot load {opened.files.prefix}: {text}") from None
    runner = KerasRunner(model, spec)
    runner.description = name
    return runner


def _restore(model: Any, opened: Opened) -> None:
    """Have TensorFlow restore the checkpoint along its object graph."""
    checkpoints = importlib.import_module("tensorflow").train.Checkpoint
    root = model
    for attribute in reversed(opened.attributes):
        root = checkpoints(**{attribute: root})
    root = checkpoints(root) if root is model else root
    root.read(opened.files.prefix).assert_existing_objects_matched()


def _assign(model: Any, variables: Sequence[NamedVariable]) -> None:
    """Set the weights by their names, as a model of this architecture has them."""
    for weight in model.weights:
        path = f"/{_path(weight)}"  # without the names of models around it
        found = [v.variable for v in variables if f"/{v.full_name}".endswith(path)]
        if len(found) != 1:
            raise NpylstmError(f"{path[1:]}: {len(found)} variables could be its values")
        weight.assign(found[0].read())


def _assign_chain(model: Any, store: ListedStore) -> None:
    """Set the weights of each layer by the directions and roles in their names."""
    listed = store.listed()
    for layer in model.layers:
        if layer.weights:
            sources = listed[layer.name]
            layer.set_weights([_source(sources, layer.name, w).read() for w in layer.weights])


def _source(sources: Sequence[Source], layer: str, weight: Any) -> Source:
    path = _path(weight)
    wanted = direction_of(path), role_of(path, layer)
    found = [s for s in sources if (direction_of(s.path), role_of(s.path, layer)) == wanted]
    if len(found) != 1:
        raise NpylstmError(f"{path}: {len(found)} variables could be its values")
    return found[0]


def _path(weight: Any) -> str:
    """Return the name of a weight in the form of both versions of Keras."""
    return str(getattr(weight, "path", weight.name)).partition(":")[0]
