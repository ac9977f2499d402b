"""The layers of a checkpoint without a config, for a chain of ``--layers``.

A SavedModel of a user's own class holds the configs of its layers; elsewhere there are only the
names of variables.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from npylstm_converters.errors import Refusal
from npylstm_converters.keras.graph import RawLayer
from npylstm_converters.keras.tensors import LayerTensors, Source
from npylstm_converters.keras.weights import Store
from npylstm_converters.tensorflow.checkpoint import Checkpoint, Variable
from npylstm_converters.tensorflow.objects import LONGEST_PATH, ObjectGraph
from npylstm_converters.tensorflow.saved_model import SavedModel
from npylstm_converters.tensorflow.stores import NamedVariable, ObjectStore, public

__all__ = ["ListedObjects", "ListedVariables", "described_layers", "stored_name"]

# Parts of a layer in the path of a variable: attributes, or the scopes of its name.
_PART = re.compile(
    "(forward|backward)_.*|layer|(.*_)?cells?(_[0-9]+)?|_?(query|key|value|output)_dense"
)
_CELL = re.compile("(.*_)?cell(_[0-9]+)?")


def described_layers(saved: SavedModel, objects: ObjectGraph, model: int) -> dict[int, str]:
    """Return the layers that a model has as attributes or in lists: their names by object.

    A name that two layers have is replaced by the path of attributes.
    """
    found: dict[int, tuple[str, str]] = {}
    stack, seen = [("", model)], set()
    while stack:
        path, number = stack.pop()
        config = saved.describe(number).get("config") if path else None
        if number in seen or len(path) > LONGEST_PATH:
            continue
        seen.add(number)
        if isinstance(config, Mapping):
            found[number] = str(config.get("name") or path), path
            continue
        below = [(f"{path}/{name}" if path else name, k) for name, k in objects.attributes(number)]
        stack += reversed(below)
    names = _unique({path: name for name, path in found.values()})
    return {number: names[path] for number, (_, path) in found.items()}


class ListedObjects(ObjectStore):
    """Layers whose configs a SavedModel holds, of a model whose config is code.

    Parameters
    ----------
    checkpoint, objects, layers
        As for :class:`ObjectStore`.
    configs
        Class and config of each layer, by its name.
    others
        Variables of the model that belong to no layer.
    """

    def __init__(
        self, checkpoint: Checkpoint, objects: ObjectGraph, layers: Mapping[str, int],
        configs: Mapping[str, Mapping[str, Any]], others: Sequence[Source],
    ) -> None:  # fmt: skip
        super().__init__(checkpoint, objects, layers)
        self.labels: Mapping[str, str] = {}
        self.configs = configs
        self._nodes, self._others = dict(layers), others

    def listed(self) -> dict[str, list[Source]]:
        return {name: self.sources(name, node) for name, node in self._nodes.items()}

    def unread(self) -> list[Source]:
        return [*super().unread(), *self._others]


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
        self.configs: Mapping[str, Mapping[str, Any]] = {}
        groups: dict[str, list[tuple[str, NamedVariable]]] = {}
        for named in variables:
            layer, rest = _split(named.path)
            groups.setdefault(layer, []).append((rest, named))
        names = _unique({p: stored_name(v.full_name for _, v in g) for p, g in groups.items()})
        self._layers = {
            names[p]: _bare_cells([v.variable.named(f"{names[p]}/{rest}") for rest, v in group])
            for p, group in groups.items()
        }

    def listed(self) -> dict[str, list[Source]]:
        return {name: [*sources] for name, sources in self._layers.items()}

    def tensors(self, layer: RawLayer) -> LayerTensors:
        return LayerTensors(layer.name, self._layers.pop(layer.name, []), "names")

    def inner(self, layer: RawLayer) -> Store:
        raise Refusal("a model inside a model needs the architecture")

    def unread(self) -> list[Source]:
        return [source for sources in self._layers.values() for source in sources]


def _unique(names: Mapping[str, str]) -> dict[str, str]:
    """Return the names of layers by path, or the paths of those whose name is not their own."""
    counts = Counter(names.values())
    return {
        path: name if name and counts[name] == 1 and name not in names else path
        for path, name in names.items()
    }


def _split(path: str) -> tuple[str, str]:
    """Return the layer in the path of a variable, and the rest: ``cell/kernel``."""
    parts = public(path).split("/")
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
