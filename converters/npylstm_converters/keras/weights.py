"""Weight stores with one interface.

* :class:`~npylstm_converters.keras.legacy.LegacyStore`: HDF5 of Keras 1 and 2.
* :class:`SavedStore`: ``model.weights.h5`` of Keras 3 and late Keras 2: groups named by class and
  number, arrays numbered.
* :class:`LiveStore`: a model object in memory.

A store returns a layer's arrays in the framework's order and records the unread ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from npylstm_converters.errors import Refusal
from npylstm_converters.keras.graph import RawLayer
from npylstm_converters.keras.tensors import LayerTensors, Source

__all__ = [
    "ListedStore", "LiveStore", "SavedStore", "StackedCellStore", "Store", "snake_case",
]  # fmt: skip

Array = npt.NDArray[Any]


class Store(Protocol):
    """Weights by layer."""

    def tensors(self, layer: RawLayer) -> LayerTensors:
        """Return the arrays of a layer; each array is returned once."""
        ...

    def inner(self, layer: RawLayer) -> Store:
        """Return the store of a nested model; call it once, instead of :meth:`tensors`."""
        ...

    def unread(self) -> list[Source]:
        """Return the arrays that no layer has read."""
        ...


@runtime_checkable
class ListedStore(Store, Protocol):
    """Weights of a file that lists its layers, so that a chain can name them.

    Attributes
    ----------
    labels
        The name of a layer in its model, by its name in the file, where the two differ.
    configs
        Class and config of a layer, by its name in the file, where that holds them.
    """

    labels: Mapping[str, str]
    configs: Mapping[str, Mapping[str, Any]]

    def listed(self) -> Mapping[str, Sequence[Source]]:
        """Return the arrays of each layer in the order of the file; roles end their paths."""
        ...


class StackedCellStore:
    """Arrays of stacked cells, in the order of the cells."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._left = list(sources)

    def tensors(self, layer: RawLayer) -> LayerTensors:
        if not layer.stored:  # not a cell
            return LayerTensors(layer.name, [])
        cell = layer.config["cell"]["config"]
        count = 3 if cell.get("use_bias", True) else 2
        own, self._left = self._left[:count], self._left[count:]
        return LayerTensors(layer.name, own)

    def inner(self, layer: RawLayer) -> Store:
        return self

    def unread(self) -> list[Source]:
        return self._left


class SavedStore:
    """Groups by class and number: ``layers/lstm_1/cell/vars/0``.

    The numbers rise with the model's layers, but not always by one: late Keras 2, whose root is
    ``_layer_checkpoint_dependencies``, counts a layer twice. So the n-th group of a class belongs
    to the n-th layer of that class.

    Parameters
    ----------
    groups
        Paths that may hold no arrays.
    datasets
        Arrays with their paths.
    """

    ROOTS = ("layers", "_layer_checkpoint_dependencies", "cells")
    # Optimizers, metrics and states of random generators: not used in inference.
    _ASIDE = ("optimizer", "metrics")
    _SEEDS = re.compile("seed_generator(_[0-9]{1,9})?")

    def __init__(self, groups: list[str], datasets: Sequence[tuple[str, Source]]) -> None:
        self._models: list[SavedStore] = []
        self._paths = groups
        paths = (p.split("/") for p in (*groups, *(path for path, _ in datasets)))
        names = {p[1] for p in paths if p[0] in self.ROOTS and len(p) > 1}
        self._queues: dict[str, list[str]] = {}
        for name in sorted(names, key=_count):
            self._queues.setdefault(_COUNT.sub("", name), []).append(name)
        self._groups: dict[str, list[tuple[str, Source]]] = {}
        self._others: list[Source] = []
        for path, dataset in datasets:
            parts = path.split("/")
            if parts[0].startswith(self._ASIDE) or any(map(self._SEEDS.fullmatch, parts)):
                continue
            if parts[0] in self.ROOTS and len(parts) > 2:
                self._groups.setdefault(parts[1], []).append(("/".join(parts[2:]), dataset))
            else:
                self._others.append(dataset)

    def claim(self, layer: RawLayer) -> str | None:
        """Return the group of the next layer of a class; call it in the model's order."""
        queue = self._queues.get(snake_case(layer.stored or layer.class_name))
        return queue.pop(0) if queue else None

    def tensors(self, layer: RawLayer) -> LayerTensors:
        """Return the arrays of a layer; call it in the model's order, which numbers the groups."""
        datasets = self._groups.pop(self.claim(layer) or "", [])
        return LayerTensors(
            layer.name, [d for _, d in sorted(datasets, key=lambda d: _numbered(d[0]))]
        )

    def inner(self, layer: RawLayer) -> Store:
        name, start = self.claim(layer) or "", f"{layer.below}/" if layer.below else ""
        below = [
            p.split("/", 2)[2].removeprefix(start)
            for p in self._paths
            if p.split("/")[1:2] == [name] and p.count("/") > 1
        ]
        own = [(path.removeprefix(start), d) for path, d in self._groups.pop(name, [])]
        self._models.append(SavedStore(below, own))
        return self._models[-1]

    def unread(self) -> list[Source]:
        left = [*(d for ds in self._groups.values() for _, d in ds), *self._others]
        return left + [source for model in self._models for source in model.unread()]


_COUNT = re.compile(r"_([0-9]{1,9})$")


def _count(name: str) -> int:
    match = _COUNT.search(name)
    return int(match[1]) if match else 0


# Keras starts a new word before a capital that a small letter follows, and between a small
# letter and a capital. ``LeakyReLU`` -> ``leaky_re_lu``, ``LSTM`` -> ``lstm``.
_WORD = re.compile(r"(?<=.)(?=[A-Z][a-z])|(?<=[a-z])(?=[A-Z])")


def snake_case(class_name: str) -> str:
    """Return the name of a class in Keras' files: ``LeakyReLU`` is ``leaky_re_lu``."""
    return _WORD.sub("_", class_name).lower()


def _numbered(path: str) -> list[tuple[int, int, str]]:
    """Return a sort key for numbered paths: ``vars/10`` after ``vars/9``."""
    parts = path.split("/")
    return [(0, int(p), "") if re.fullmatch("[0-9]{1,9}", p) else (1, 0, p) for p in parts]


@dataclass(frozen=True)
class LiveVariable:
    """A variable of a model in memory."""

    path: str
    variable: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(int(d) for d in self.variable.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        name = getattr(self.variable.dtype, "name", self.variable.dtype)
        try:
            return np.dtype(str(name))
        except TypeError:
            raise Refusal(f"{self.path}: expected float32 or float64, got {name}") from None

    def read(self) -> Array:
        numpy = getattr(self.variable, "numpy", None)
        return np.asarray(numpy() if callable(numpy) else self.variable)


class LiveStore:
    """The layers of a Keras 3 or tf_keras model object."""

    def __init__(self, model: Any) -> None:
        self._objects = {layer.name: layer for layer in model.layers}
        self._models: list[Store] = []

    def tensors(self, layer: RawLayer) -> LayerTensors:
        made = self._objects.pop(layer.name, None)
        return LayerTensors(layer.name, _variables(made) if made is not None else [])

    def inner(self, layer: RawLayer) -> Store:
        made = self._objects.pop(layer.name)
        if layer.class_name == "RNN":
            self._models.append(StackedCellStore(_variables(made)))
        else:
            self._models.append(LiveStore(made if layer.is_model else made.layer))
        return self._models[-1]

    def unread(self) -> list[Source]:
        left: list[Source] = [v for layer in self._objects.values() for v in _variables(layer)]
        return left + [source for model in self._models for source in model.unread()]


def _variables(layer: Any) -> list[LiveVariable]:
    return [
        LiveVariable(str(getattr(v, "path", getattr(v, "name", number))), v)
        for number, v in enumerate(layer.weights)
        if hasattr(v, "shape")  # the vocabulary of a lookup is no array
    ]
