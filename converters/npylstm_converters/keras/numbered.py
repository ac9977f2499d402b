"""Weights-only files of Keras 3 and late Keras 2: groups named by class and count.

Arrays are numbered, so the class of a layer determines the role of each array:
``layers/lstm_1/cell/vars/0`` is the kernel of the second LSTM.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from npylstm_converters.errors import Refusal
from npylstm_converters.keras.graph import RawLayer
from npylstm_converters.keras.hdf5 import Dataset, File
from npylstm_converters.keras.tensors import LayerTensors, Source
from npylstm_converters.keras.weights import Store

__all__ = ["NumberedStore"]

_PARTS = ("forward_layer", "backward_layer", "layer", "cell")
_ARRAY = re.compile(f"(?P<layer>.*?)(?P<part>(/({'|'.join(_PARTS)}))*)/vars/[0-9]+")
_COUNT = re.compile("_[0-9]{1,9}$")

_KERNEL = ("kernel", "bias")
_CELL = ("kernel", "recurrent_kernel", "bias")
_MOVING = ("moving_mean", "moving_variance")
# Roles by class and number of arrays; ambiguous numbers are not listed.
_ROLES: dict[str, tuple[tuple[str, ...], ...]] = {
    "dense": (("kernel",), _KERNEL),
    "conv1d": (("kernel",), _KERNEL),
    "embedding": (("embeddings",),),
    "batch_normalization": (_MOVING, ("gamma", "beta", *_MOVING)),
    "layer_normalization": (("gamma", "beta"),),
    "p_re_lu": (("alpha",),),
}


class NumberedStore:
    """The layers of a file by group name, in the order of writing.

    Attributes
    ----------
    labels
        The layer name that Keras 3 stored, by group name.
    """

    configs: Mapping[str, Mapping[str, Any]] = {}

    def __init__(self, root: File) -> None:
        paths = {path.replace("\\", "/"): root.group(path) for path in root.written()}
        owners = {p: paths[f"{p}/vars"] for p in paths if f"{p}/vars" in paths and not _is_part(p)}
        short = [layer.rpartition("/")[2] for layer in owners]
        self._names = {
            layer: name if short.count(name) == 1 else layer
            for layer, name in zip(owners, short, strict=True)
        }
        written = {self._names[k]: group.attribute("name") for k, group in owners.items() if group}
        self.labels = {name: label for name, label in written.items() if label}
        self._layers: dict[str, list[tuple[str, Dataset]]] = {n: [] for n in self._names.values()}
        self._others: list[Source] = []
        _, datasets = root.walk()
        for dataset in datasets:
            match = _ARRAY.fullmatch(dataset.path)
            name = self._names.get(match["layer"]) if match else None
            if match and name is not None:
                self._layers[name].append((match["part"], dataset))
            elif not dataset.path.startswith(("optimizer", "metrics")):
                self._others.append(dataset)

    def listed(self) -> dict[str, list[Source]]:
        """Return the arrays by layer, in the order of the file, each with the name of its role."""
        return {name: [*_labelled(name, own)] for name, own in self._layers.items()}

    def arrays(self, layer: str) -> list[Source]:
        """Return the arrays of a layer in the order of Keras' ``get_weights``."""
        parts = ("/forward_layer", "/backward_layer")
        rank = {part: k for k, part in enumerate(parts)}
        own = self._layers.get(layer, [])
        return [d for _, d in sorted(own, key=lambda a: rank.get(a[0].removesuffix("/cell"), 0))]

    def tensors(self, layer: RawLayer) -> LayerTensors:
        arrays = self.arrays(layer.name)
        self._layers.pop(layer.name, None)
        return LayerTensors(layer.name, arrays)

    def inner(self, layer: RawLayer) -> Store:
        raise Refusal("a model inside a model needs the architecture")

    def unread(self) -> list[Source]:
        return [d for own in self._layers.values() for _, d in own] + self._others


def _is_part(path: str) -> bool:
    """Whether a group is part of an enclosing layer, or not a layer."""
    last = path.rpartition("/")[2]
    aside = last.startswith("seed_generator") or path.startswith(("optimizer", "metrics"))
    return aside or last in _PARTS


def _labelled(name: str, own: Sequence[tuple[str, Dataset]]) -> list[Source]:
    labelled: list[Source] = []
    for part in dict.fromkeys(part for part, _ in own):
        datasets = [d for p, d in own if p == part]
        roles = _roles(name, part, datasets)
        labelled += [
            replace(dataset, path=f"{name}{part}/{role}")
            for role, dataset in zip(roles, datasets, strict=True)
        ]
    return labelled


def _roles(name: str, part: str, datasets: Sequence[Dataset]) -> Sequence[str]:
    """Return the roles of the arrays in one part of a layer, or their numbers if unknown."""
    count = len(datasets)
    numbers = [d.path.rpartition("/")[2] for d in datasets]
    if part.endswith("/cell"):
        return _CELL[:count] if count in (2, 3) else numbers
    known = _ROLES.get(_COUNT.sub("", name.rpartition("/")[2]))
    if known is None:  # named by an attribute, or inside TimeDistributed: infer from the shapes
        shapes = [d.shape for d in datasets]
        product = count == 2 and len(shapes[0]) in (2, 3) and shapes[1] == shapes[0][-1:]
        return _KERNEL if product else numbers
    return next((roles for roles in known if len(roles) == count), numbers)
