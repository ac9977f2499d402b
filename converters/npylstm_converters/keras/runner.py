"""A Keras source run by Keras itself, the only place that imports the framework."""

from __future__ import annotations

import importlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from npylstm import ModelSpec, NpylstmError
from npylstm.layers.base import BATCH
from npylstm_converters.keras.chains import with_chain
from npylstm_converters.keras.files import open_container

__all__ = ["KerasRunner"]

Arrays = Mapping[str, npt.NDArray[Any]]


class KerasRunner:
    """Runs a Keras model, from given states where a case has them.

    Parameters
    ----------
    source
        A path or a model object.
    spec
        What the importer made of it, for names.
    architecture, layers
        As for :func:`npylstm_converters.from_keras`.

    Attributes
    ----------
    description
        Framework and version.
    sizes
        The batch size, where the model pins it.

    Raises
    ------
    NpylstmError
        If no fitting Keras is installed or it cannot load the source.
    """

    sets_state = True

    def __init__(
        self,
        source: Any,
        spec: ModelSpec,
        architecture: str | os.PathLike[str] | None = None,
        layers: str | None = None,
    ) -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        self._spec = spec
        self._model = source
        version = re.match("[0-9]{1,4}", str(spec.provenance.get("framework_version", "3")))
        major = int(version[0]) if version else 3
        if isinstance(source, (str, os.PathLike)):
            self._model, self.description = _load(source, architecture, layers, major)
        else:
            self.description = f"Keras {spec.provenance.get('framework_version')}"
        self._leaves = [*_leaf_layers(self._model)]
        self._to_tensor = _converter_to_tensors(self._model)
        pinned = self._model.inputs[0].shape[spec.inputs[0].shape.index(BATCH)]
        self.sizes: Mapping[str, int] = {BATCH: pinned} if isinstance(pinned, int) else {}

    def __call__(self, inputs: Arrays, state: Mapping[str, Arrays]) -> dict[str, Any]:
        self._reset()
        try:
            y = self._walk(inputs, state) if state else self._run(inputs)
        except Exception as error:  # frameworks raise anything; it is theirs, not ours
            text = " ".join(str(error).split())[:200]
            shapes = ", ".join(str(x.shape) for x in inputs.values())
            raise NpylstmError(
                f"{self.description} cannot run the model on shape {shapes}: {text}"
            ) from None
        values = y if isinstance(y, (list, tuple)) else [y]
        return {n: np.asarray(v) for n, v in zip(self._spec.outputs, values, strict=True)}

    def _run(self, inputs: Arrays) -> Any:
        # Called, not `predict`: a traced graph fails where a call is well (TimeDistributed over
        # new lengths), and has computed other numbers (gelu in TensorFlow 2.13).
        given = [self._to_tensor(inputs[t.name]) for t in self._spec.inputs]
        return self._model(given[0] if len(given) == 1 else given, training=False)

    def _walk(self, inputs: Arrays, state: Mapping[str, Arrays]) -> list[Any]:
        """Call layer by layer, recurrent ones from the given states."""
        layers = dict(zip((layer.name for layer in self._spec.layers), self._leaves, strict=False))
        to_tensor = self._to_tensor
        tensors: dict[str, Any] = {name: to_tensor(x) for name, x in inputs.items()}
        for edge in self._spec.edges:
            if edge.layer not in layers:  # an output that the model returns twice, or a mask
                tensors[edge.outputs[0]] = tensors.get(edge.inputs[0])
                continue
            kind, layer = self._spec[edge.layer].layer, layers[edge.layer]
            # Keras finds masks by itself, attached to the tensors.
            read = [tensors[t] for t in (edge.inputs[:1] if kind.takes_mask else edge.inputs)]
            begin = [tensors[t] for t in kind.begins(edge.inputs)]
            if edge.name in state:
                begin = [to_tensor(s) for s in state[edge.name].values()]
            if begin:
                mask = getattr(read[0], "_keras_mask", None)
                # Keras 3 passes over the mask beside a state, unless it is told.
                told = {"mask": mask} if getattr(kind, "masked", False) else {}
                y = layer(read[0], initial_state=begin, **told)
            else:
                y = layer(read if len(read) > 1 else read[0])
            values = y if isinstance(y, (list, tuple)) else [y]
            tensors |= dict(zip(edge.outputs, values, strict=False))
        return [tensors[name] for name in self._spec.outputs]

    def _reset(self) -> None:
        """Forget what a stateful model remembers of the last case."""
        for layer in self._leaves:
            if getattr(layer, "stateful", False):
                layer.reset_states()


def _leaf_layers(model: Any) -> Iterator[Any]:
    """Walk through the layers as the importer does: those of models inside, no inputs."""
    for layer in model.layers:
        if all(hasattr(layer, name) for name in ("get_config", "layers", "get_weights")):
            yield from _leaf_layers(layer)
        elif type(layer).__name__ != "InputLayer":
            yield layer


def _converter_to_tensors(model: Any) -> Any:
    """Find the function that makes tensors in the Keras that a model belongs to."""
    packages = (cls.__module__.split(".")[0] for cls in type(model).__mro__)
    keras = importlib.import_module(next(p for p in packages if p in ("keras", "tf_keras")))
    if hasattr(keras, "ops"):
        return keras.ops.convert_to_tensor
    return importlib.import_module("tensorflow").convert_to_tensor


def _load(source: Any, architecture: Any, layers: str | None, major: int) -> tuple[Any, str]:
    # What is damaged is refused before the framework is imported.
    with open_container(source, architecture) as container:
        if layers is not None:
            document = with_chain(container, layers).document
        else:
            apart = container.format == "HDF5 weights" or architecture is not None
            silent = major == 2 and _spelt_out(container.document) != container.document
            document = container.document if apart or silent else None
    name, keras = _find_keras(major)
    try:
        if document is not None:
            text = json.dumps(_spelt_out(document) if major == 2 else document)
            model = keras.models.model_from_json(text)
            model.load_weights(os.fspath(source))
        else:
            model = keras.models.load_model(os.fspath(source), compile=False)
    except Exception as error:  # frameworks raise anything; it is theirs, not ours
        text = " ".join(str(error).split())[:200]
        raise NpylstmError(f"{name} cannot load {os.fspath(source)}: {text}") from None
    return model, name


def _spelt_out(value: Any) -> Any:
    """Say what early Keras 2 left out of a config because there was no choice.

    A GRU without the key was one of ``reset_after=False``; a later Keras takes it for the other.
    The type of an Embedding was that of the ids.
    """
    if isinstance(value, list):
        return [_spelt_out(entry) for entry in value]
    if not isinstance(value, Mapping):
        return value
    said = {key: _spelt_out(entry) for key, entry in value.items()}
    config = said.get("config")
    if isinstance(config, dict) and said.get("class_name") == "GRU":
        config.setdefault("reset_after", False)
    ids = isinstance(config, dict) and config.get("dtype") in ("int32", "int64")
    if isinstance(config, dict) and ids and said.get("class_name") == "Embedding":
        config["dtype"] = "float32"
    return said


def _find_keras(major: int) -> tuple[str, Any]:
    """Find a Keras of the generation that wrote the model: another one has other formulas."""
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
