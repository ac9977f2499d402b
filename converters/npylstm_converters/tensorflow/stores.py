"""The weights of a checkpoint by layer: along the object graph, or by the names of variables."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from npylstm import UnsupportedError
from npylstm_converters.errors import Refusal
from npylstm_converters.keras.graph import Graph, RawLayer
from npylstm_converters.keras.tensors import LayerTensors, Source
from npylstm_converters.keras.weights import Store
from npylstm_converters.tensorflow.checkpoint import Checkpoint, Variable
from npylstm_converters.tensorflow.objects import Node, ObjectGraph

__all__ = [
    "ListedVariables", "NamedVariable", "ObjectStore", "model_variables", "pair_layers",
    "stored_name",
]  # fmt: skip

# Parts of a layer in the path of a variable: attributes, or the scopes of its name.
_PART = re.compile(
    "(forward|backward)_.*|layer|cells|(.*_)?cells?(_[0-9]+)?|[0-9]+(?=/kernel)|.*_dense"
)
_CELL = re.compile("(.*_)?cell(_[0-9]+)?")
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

    def tensors(self, layer: RawLayer) -> LayerTensors:
        node = self._layers.pop(layer.name, None)
        sources = [] if node is None else [*self._sources(layer.name, node)]
        return LayerTensors(layer.name, sources)

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
        return self._models[-1]

    def unread(self) -> list[Source]:
        left = [s for name, node in self._layers.items() for s in self._sources(name, node)]
        return left + [source for model in self._models for source in model.unread()]

    def _sources(self, name: str, node: int) -> Iterator[Source]:
        for path, variable in self._objects.variables(node):
            stored = self._checkpoint.variables.get(variable.key)
            if stored is None:
                raise Refusal(f"{path}: the checkpoint has no variable {variable.key!r:.80}")
            yield stored.named(f"{self._prefix}{name}/{_public(path)}")


def _public(path: str) -> str:
    """Return a path whose last part is a role: Keras 3 stores the kernel as ``_kernel``."""
    start, slash, role = path.rpartition("/")
    return f"{start}{slash}{role.lstrip('_')}"


class ListedVariables:
    """Variables by layer without an architecture, for a chain.

    A layer is called as in the model, by the names of its variables, or by its path in the object
    graph where that is ambiguous.

    Parameters
    ----------
    variables
        The variables of the model.
    """

    def __init__(self, variables: Sequence[NamedVariable]) -> None:
        self.labels: Mapping[str, str] = {}
        groups: dict[str, list[tuple[str, NamedVariable]]] = {}
        for named in variables:
            layer, rest = _split(named.path)
            groups.setdefault(layer, []).append((rest, named))
        names = {p: stored_name(v.full_name for _, v in own) for p, own in groups.items()}
        counts = Counter(names.values())
        self._layers: dict[str, list[Source]] = {}
        for path, own in groups.items():
            name = names[path] if names[path] and counts[names[path]] == 1 else path
            sources = [v.variable.named(f"{name}/{rest}") for rest, v in own]
            self._layers[name] = _bare_cells(sources)

    def listed(self) -> dict[str, list[Source]]:
        return {name: [*sources] for name, sources in self._layers.items()}

    def tensors(self, layer: RawLayer) -> LayerTensors:
        return LayerTensors(layer.name, self._layers.pop(layer.name, []), "names")

    def inner(self, layer: RawLayer) -> Store:
        raise Refusal("a model inside a model needs the architecture")

    def unread(self) -> list[Source]:
        return [source for sources in self._layers.values() for source in sources]


def _split(path: str) -> tuple[str, str]:
    """Return the layer in the path of a variable, and the rest: ``cell/kernel``."""
    parts = _public(path).split("/")
    at = len(parts) - 1
    while at > 1 and _PART.fullmatch(parts[at - 1]):
        at -= 1
    return "/".join(parts[: max(at, 1)]), "/".join(parts[at:])


def stored_name(full_names: Iterable[str]) -> str:
    """Return the layer's name in the names of all its variables; empty if they differ."""
    names = {_split(name)[0].rpartition("/")[2] for name in full_names}
    return names.pop() if len(names) == 1 else ""


def _bare_cells(sources: Sequence[Variable]) -> list[Source]:
    """Return the variables, whose paths show a cell of TensorFlow 1.

    Its kernel is that of inputs and states in one, so it must not look like a Dense layer's.
    """
    parts = [variable.path.split("/") for variable in sources]
    in_cell = any(_CELL.fullmatch(part) for path in parts for part in path[1:-1])
    if not in_cell or any(path[-1] == "recurrent_kernel" for path in parts):
        return [*sources]
    return [v.named(f"{v.path.rpartition('/')[0]}.{v.path.rpartition('/')[2]}") for v in sources]
