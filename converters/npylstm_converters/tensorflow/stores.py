"""The variables of a model in a checkpoint, and its weights by the objects of its layers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from npylstm import UnsupportedError
from npylstm_converters.errors import Refusal
from npylstm_converters.keras.graph import Graph, RawLayer
from npylstm_converters.keras.tensors import LayerTensors, Source
from npylstm_converters.keras.weights import Store
from npylstm_converters.tensorflow.checkpoint import Checkpoint, Variable
from npylstm_converters.tensorflow.objects import Node, ObjectGraph

__all__ = ["NamedVariable", "ObjectStore", "model_variables", "pair_layers", "public"]

_MOST_USES = 16  # of one variable in layers that models share
# Variables of training and of random generators, by the names of TensorFlow 1.
_TRAINING = re.compile(
    "(.*/)?(Adam|AdamW|Momentum|RMSProp|Adagrad|Adadelta|Ftrl|Nadam|SGD|Adamax)(_[0-9]+)?(/.*)?"
    "|(.*/)?beta[12]_power(_[0-9]+)?|(.*/)?global_step|save_counter|training/.*|optimizer/.*"
    "|(.*/)?seed_generator(_[0-9]+)?/.*"
)


@dataclass(frozen=True)
class NamedVariable:
    """A variable with its path in the object graph and its name in TensorFlow."""

    path: str
    full_name: str
    variable: Variable


def model_variables(
    checkpoint: Checkpoint, objects: ObjectGraph | None, model: int
) -> list[NamedVariable]:
    """Return the variables of a model, without those of training.

    In a Keras model their paths begin with the number of the layer. Objects that hold functions
    only list their variables; checkpoints of TensorFlow 1 have names and no objects: there the
    name is the path.
    """
    stored = checkpoint.variables
    if objects is None:
        return [NamedVariable(n, n, v) for n, v in stored.items() if not _TRAINING.fullmatch(n)]
    layers = objects.layers(model)
    found = [
        (f"layer-{k}/{path}", node)
        for k, layer in layers.items()
        for path, node in objects.variables(layer)
    ]
    found = found or objects.variables(model)
    if not found:
        found = [(_name(node), node) for node in objects.listed_variables()]
        found = [(path, node) for path, node in found if not _TRAINING.fullmatch(path)]
    return [
        NamedVariable(path, _name(node), stored[node.key])
        for path, node in found
        if node.key in stored
    ]


def _name(node: Node) -> str:
    return node.full_name.rpartition(":")[0] or node.full_name


def pair_layers(objects: ObjectGraph, model: int, graph: Graph) -> dict[str, int]:
    """Return the objects of a model's layers, by name; Keras lists both in one order.

    Raises
    ------
    UnsupportedError
        If their numbers differ.
    """
    found = objects.layers(model)
    without = [raw for raw in graph.layers if not raw.is_input]  # as in Sequential models
    for listed in (graph.layers, without):
        places = {k for k, raw in enumerate(listed) if not raw.is_operation}
        if places <= set(found) <= set(range(len(listed))):
            return {listed[k].name: node for k, node in found.items()}
    raise UnsupportedError(
        [f"weights: the checkpoint has {len(found)} layers, the model has {len(without)}: "
         f"{', '.join(raw.name for raw in without)}; is it the architecture of this checkpoint?"]
    )  # fmt: skip


class ObjectStore:
    """The weights of a Keras model, by the objects of its layers.

    Parameters
    ----------
    checkpoint, objects
        The variables and their objects.
    layers
        The object of each layer, by the layer's name.
    prefix
        The path of the model in the names of arrays: ``encoder/``.
    """

    def __init__(
        self, checkpoint: Checkpoint, objects: ObjectGraph, layers: Mapping[str, int],
        prefix: str = "",
    ) -> None:  # fmt: skip
        self._checkpoint, self._objects, self._prefix = checkpoint, objects, prefix
        self._layers = dict(layers)
        self._models: list[ObjectStore] = []
        self._uses: Counter[str] = Counter()  # of variables, in all models

    def tensors(self, layer: RawLayer) -> LayerTensors:
        node = self._layers.pop(layer.name, None)
        if node is None:
            return LayerTensors(layer.name, [])
        self._count_uses(node)
        return LayerTensors(layer.name, self.sources(layer.name, node))

    def inner(self, layer: RawLayer) -> Store:
        node = self._layers.pop(layer.name, None)
        assert layer.inner is not None  # the caller has checked it
        objects, layers = self._objects, {}
        if node is not None and layer.class_name == "RNN":
            cells = objects.find(node, "cell", "cells")
            count = sum(bool(raw.stored) for raw in layer.inner.layers)
            own = (objects.find(cells, str(k)) if cells is not None else None for k in range(count))
            layers = {f"cell_{k}": cell for k, cell in enumerate(own) if cell is not None}
        elif node is not None:
            model = objects.find(node, layer.below) if layer.below else node
            if model is not None:
                layers = pair_layers(objects, model, layer.inner)
        prefix = f"{self._prefix}{layer.name}/"
        self._models.append(ObjectStore(self._checkpoint, objects, layers, prefix))
        self._models[-1]._uses = self._uses
        return self._models[-1]

    def unread(self) -> list[Source]:
        left = [s for name, node in self._layers.items() for s in self.sources(name, node)]
        return left + [source for model in self._models for source in model.unread()]

    def sources(self, name: str, node: int) -> list[Source]:
        """Return the variables of an object, under the name of a layer."""
        stored = self._checkpoint.variables
        return [
            stored[variable.key].named(f"{self._prefix}{name}/{public(path)}")
            for path, variable in self._objects.variables(node)
            if variable.key in stored
        ]

    def _count_uses(self, node: int) -> None:
        """Check that the variables of a layer are stored, and not read again and again."""
        for path, variable in self._objects.variables(node):
            if variable.key not in self._checkpoint.variables:
                raise Refusal(f"{path}: the checkpoint has no variable {variable.key!r:.80}")
            self._uses[variable.key] += 1
            if self._uses[variable.key] > _MOST_USES:
                raise Refusal(f"{path}: is a variable of more than {_MOST_USES} layers")


def public(path: str) -> str:
    """Return a path whose last part is a role: Keras 3 stores the kernel as ``_kernel``."""
    start, slash, role = path.rpartition("/")
    return f"{start}{slash}{role.lstrip('_')}"
