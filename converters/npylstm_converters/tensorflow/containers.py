"""Opens a SavedModel or a checkpoint: its config if there is one, and the weights by layer."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from npylstm import FormatError, UnsupportedError
from npylstm_converters.keras.config import Writer, find_writer
from npylstm_converters.keras.files import Container, read_architecture
from npylstm_converters.keras.graph import MODELS
from npylstm_converters.keras.legacy import PathStore
from npylstm_converters.keras.parsing import parse
from npylstm_converters.keras.tensors import Deal
from npylstm_converters.keras.weights import Store
from npylstm_converters.tensorflow.checkpoint import Checkpoint, open_checkpoint
from npylstm_converters.tensorflow.listing import (
    ListedObjects,
    ListedVariables,
    described_layers,
    stored_name,
)
from npylstm_converters.tensorflow.objects import ObjectGraph
from npylstm_converters.tensorflow.saved_model import SavedModel, read_saved_model
from npylstm_converters.tensorflow.sources import SourceFiles
from npylstm_converters.tensorflow.stores import (
    NamedVariable,
    ObjectStore,
    model_variables,
    pair_layers,
)

__all__ = ["Opened", "open_tensorflow"]

_SEEDS = "seed_generator"
_VERSION = re.compile(r"[0-9A-Za-z.+_-]{1,40}")


@dataclass(frozen=True)
class Opened:
    """A source with its config and weights.

    Attributes
    ----------
    container
        Its ``document`` is None if the source holds no config and the user gave none.
    lacks
        Then the reason.
    files
        The files of the source.
    attributes
        The path of attributes from the saved object to the model.
    variables
        The variables of the model, with their names in TensorFlow.
    """

    container: Container
    lacks: str
    files: SourceFiles
    attributes: tuple[str, ...]
    variables: Sequence[NamedVariable]


def open_tensorflow(
    files: SourceFiles, architecture: str | os.PathLike[str] | None = None, key: str | None = None
) -> Opened:
    """Open the files of a source.

    Parameters
    ----------
    files
        The SavedModel or the checkpoint.
    architecture
        The config as JSON, or a file with it.
    key
        The attribute of the saved object that holds the model, if there are several.

    Raises
    ------
    UnsupportedError
        If the checkpoint is of a kind that is not supported, or has several models.
    FormatError
        If a file is damaged.
    OSError
        If a file cannot be read.
    """
    given = None if architecture is None else read_architecture(architecture)
    saved = None if files.folder is None else read_saved_model(files.folder)
    checkpoint = open_checkpoint(files.prefix)
    objects = None if checkpoint.objects is None else ObjectGraph(checkpoint.objects)
    attributes = _find_model(objects, key, saved is None)
    model = 0 if objects is None else objects.find(0, *attributes) or 0
    found = {} if saved is None else saved.describe(model)
    document = _document(found) if given is None else given
    variables = model_variables(checkpoint, objects, model)
    notes = [*_notes(saved, variables)]
    store: Store
    if document is None:
        if objects is not None:
            notes += _bare_layers(objects, model)
        store = _listed(checkpoint, objects, model, saved, variables)
    elif objects is not None and objects.layers(model):
        layers = pair_layers(objects, model, parse(document))
        if given is None and saved is not None:
            _check_names(saved, layers)
        else:
            notes += _other_names(objects, layers)
        store = ObjectStore(checkpoint, objects, layers)
    else:
        named = [(v.full_name, v.variable.named(v.full_name)) for v in variables]
        deal: Deal = "names" if objects is None else "either"  # plain names are sorted
        store = PathStore(parse(document), named, deal)
    writer = _writer(document, found, objects, model)
    form = "TensorFlow checkpoint" if saved is None else "TensorFlow SavedModel"
    container = Container(document, store, writer, form, notes=tuple(notes))
    return Opened(container, _lacks(saved, found, objects), files, attributes, variables)


def _listed(
    checkpoint: Checkpoint, objects: ObjectGraph | None, model: int, saved: SavedModel | None,
    variables: Sequence[NamedVariable],
) -> Store:  # fmt: skip
    """Return the layers for a chain: with their configs if the source holds them."""
    if objects is None or saved is None or not saved.describe(model):
        return ListedVariables(variables)
    found = described_layers(saved, objects, model)
    keys = {variable.key for node in found for _, variable in objects.variables(node)}
    others = [v.variable for v in variables if v.variable.path not in keys]
    layers = {name: node for node, name in found.items()}
    configs = {name: saved.describe(node) for name, node in layers.items()}
    return ListedObjects(checkpoint, objects, layers, configs, others)


def _find_model(objects: ObjectGraph | None, key: str | None, search: bool) -> tuple[str, ...]:
    """Return the attributes that lead to the model; none if it is the saved object.

    A checkpoint is searched for the only object with weights. What a SavedModel computes is its
    own function: a model inside it is another one, which the user has to name.
    """
    if key is not None:
        attributes = tuple(key.split("/"))
        if objects is None or objects.find(0, *attributes) is None:
            held = () if objects is None else objects.nodes[0].children
            raise FormatError(f"key: no object {key!r:.80}, expected one of {', '.join(held):.500}")
        return attributes
    if objects is None or objects.layers(0) or not search:
        return ()
    models, others = objects.parts()
    if len(models) > 1:
        listed = " or ".join(f"--key {shlex.quote(name)}" for name in models)
        raise UnsupportedError(f"the checkpoint holds several models: say which by {listed:.500}")
    return tuple(models) if not others else ()


def _document(found: Mapping[str, Any]) -> Any:
    """Return the config in the metadata of a model; None if its class is code of the user's own."""
    config = found.get("config")
    if found.get("class_name") not in MODELS or not isinstance(config, Mapping):
        return None
    if not config.get("layers"):  # a class of the user's own may be called Model
        return None
    shape = found.get("build_input_shape")
    if found.get("class_name") == "Sequential" and isinstance(shape, list):
        config = {"build_input_shape": shape, **config}
    return {
        "class_name": found.get("class_name"), "config": config,
        "keras_version": found.get("keras_version"),
    }  # fmt: skip


def _check_names(saved: SavedModel, layers: Mapping[str, int]) -> None:
    """Compare the names in a model's config with those in the metadata of its layers."""
    stored = {number: saved.describe(number).get("name") for number in {*layers.values()}}
    for name, number in layers.items():
        if stored[number] not in (None, name):
            raise FormatError(
                f"the model contradicts itself: layer {name!r:.80} is object {number}, "
                f"which is called {stored[number]!r:.80}"
            )


def _writer(
    document: Any, found: Mapping[str, Any], objects: ObjectGraph | None, model: int
) -> Writer:
    """Return the Keras that wrote a model, from its config or from what only Keras 3 stores."""
    version = found.get("keras_version")
    if document is not None or isinstance(version, str):
        return find_writer(document, version if isinstance(version, str) else None)
    own = {} if objects is None else objects.nodes[model].children
    listed = [] if objects is None else objects.listed_variables()
    if any(name in own for name in ("_operations", "_functional", "_layers")):
        return Writer("Keras", "3", "no version; these objects are Keras 3's")
    if any(_SEEDS in node.full_name for node in listed):
        return Writer("Keras", "3", "no version; seed generators are Keras 3's")
    return Writer("Keras", "2", "no version; nothing that only Keras 3 stores")


def _notes(saved: SavedModel | None, variables: list[NamedVariable]) -> Iterator[str]:
    if saved is not None and _VERSION.fullmatch(saved.version):
        yield f"saved by TensorFlow {saved.version}"
    for kind in sorted({v.variable.half for v in variables} - {""}):
        names = ", ".join(v.full_name for v in variables if v.variable.half == kind)
        yield f"stored as {kind}, and float32 here: {names}"


def _other_names(objects: ObjectGraph, layers: Mapping[str, int]) -> Iterator[str]:
    """Yield a note on layers whose variables have the name of another layer."""
    stored = {
        name: stored_name(variable.full_name for _, variable in objects.variables(node))
        for name, node in layers.items()
    }
    listed = [f"{old} for {new}" for new, old in stored.items() if old not in ("", new)]
    if listed:
        yield f"weights paired by the order of the layers, as Keras does: {', '.join(listed)}"


def _bare_layers(objects: ObjectGraph, model: int) -> Iterator[str]:
    """Yield a note on the layers of a model that no variable names."""
    layers = objects.layers(model)
    bare = [str(k + 1) for k, layer in layers.items() if not objects.variables(layer)]
    if bare:
        yield (
            f"layers without variables (number {', '.join(bare)} of {len(layers)}): what they are "
            "is not stored; it may be an input, Dropout, Flatten or an activation"
        )


def _lacks(saved: SavedModel | None, found: Mapping[str, Any], objects: ObjectGraph | None) -> str:
    """Return the reason why a source has no config."""
    if saved is None:
        return "a checkpoint holds weights only"
    if found:
        return (
            f"model class {str(found.get('class_name'))[:80]!r} is code, not data: its layers are "
            "in the folder, and how they are connected is not"
        )
    own = {} if objects is None else objects.nodes[0].children
    models = [name for name, number in own.items() if _document(saved.describe(number))]
    inside = (
        f" (the model inside it, without its functions: --key {shlex.quote(models[0])})"
        if models
        else ""
    )
    return (
        "the folder holds functions and weights, as model.export() and tf.saved_model.save write "
        "them, and no layers: save the model by model.save('model.keras') and convert that"
        f"{inside}"
    )
