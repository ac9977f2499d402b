"""Weights in HDF5 as Keras 1 and 2 write them, and Keras 3 for ``.h5``.

There is one group per layer. Attributes list the names of the groups, and of the arrays in each.
Keras pairs both with a model by their order alone; the names are labels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from npylstm import FormatError, UnsupportedError
from npylstm_converters.errors import Refusal
from npylstm_converters.keras.graph import Graph, RawLayer
from npylstm_converters.keras.hdf5 import Dataset, File
from npylstm_converters.keras.layers import TRANSLATORS
from npylstm_converters.keras.tensors import Deal, LayerTensors, Source, conflict
from npylstm_converters.keras.weights import StackedCellStore, Store

__all__ = ["WITH_ARRAYS", "LegacyStore", "PathStore"]

# Layers that have arrays, except with a config in _BARE.
WITH_ARRAYS = (
    "LSTM", "GRU", "SimpleRNN", "RNN", "CuDNNLSTM", "CuDNNGRU", "Bidirectional", "TimeDistributed",
    "Dense", "Embedding", "Conv1D", "Convolution1D", "DepthwiseConv1D", "SeparableConv1D",
    "BatchNormalization", "LayerNormalization", "Normalization", "PReLU", "Attention",
    "AdditiveAttention", "MultiHeadAttention",
)  # fmt: skip
# Configs with which a layer has no arrays.
_BARE: dict[str, Callable[[Mapping[str, Any]], bool]] = {
    "LayerNormalization": lambda config: config.get("scale") is config.get("center") is False,
    "Normalization": lambda config: config.get("mean") is not None,
    "Attention": lambda c: not c.get("use_scale") and c.get("score_mode") != "concat",
    "AdditiveAttention": lambda config: config.get("use_scale") is False,
}  # fmt: skip


class LegacyStore:
    """Groups by layer name, with the attributes ``layer_names`` and ``weight_names``."""

    labels: Mapping[str, str] = {}
    configs: Mapping[str, Mapping[str, Any]] = {}

    def __init__(self, root: File) -> None:
        names = root.names("layer_names")
        if names is None:
            raise FormatError(
                f"{root.label}: no attribute layer_names, so these are not Keras weights"
            )
        self._layers: dict[str, list[tuple[str, Dataset]]] = {}
        self._models: list[Store] = []
        for name in names:
            group = root.group(name)
            if group is None:
                raise FormatError(f"{root.label}: no group {name!r}, which layer_names lists")
            datasets = []
            for weight in group.names("weight_names") or []:
                dataset = group.dataset(weight)
                if dataset is None:
                    raise FormatError(
                        f"{group.label}: no array {weight!r}, which weight_names lists"
                    )
                # Two groups may use the same name; paths are unique.
                datasets.append((weight, replace(dataset, path=f"{name}/{weight}")))
            self._layers[name] = datasets

    def listed(self) -> dict[str, list[Source]]:
        """Return the arrays of all layers that were not read yet, in the order of the file."""
        return {name: [d for _, d in datasets] for name, datasets in self._layers.items()}

    def pair(self, layers: Sequence[RawLayer], allowed: Collection[str]) -> list[str]:
        """Pair groups with a model's layers by order, as Keras does when it loads weights.

        Parameters
        ----------
        layers
            The model's layers, in order.
        allowed
            Paths of arrays that may stay unused.

        Returns
        -------
        list of str
            A note on paired groups and layers with different names, or nothing.

        Raises
        ------
        UnsupportedError
            If names and order disagree and the numbers of layers differ: Keras would load nothing.
        """
        filled = [
            n for n, own in self._layers.items() if any(d.path not in allowed for _, d in own)
        ]
        order = {layer.name: k for k, layer in enumerate(layers)}
        known = [order[name] for name in filled if name in order]
        if len(known) == len(filled) and known == sorted(known):
            return []
        readers = [layer.name for layer in layers if self._has_arrays(layer)]
        if len(readers) != len(filled):
            if known == sorted(known):
                return []  # missing and unused arrays are reported by name later
            raise UnsupportedError(
                [f"weights: the file has them for {', '.join(filled)}, in this order, the model's "
                 f"layers with weights are {', '.join(readers)}. Keras pairs them by order, which "
                 f"{len(filled)} and {len(readers)} layers do not allow"]
            )  # fmt: skip
        pairs = dict(zip(filled, readers, strict=True))
        rest = {n: own for n, own in self._layers.items() if n not in pairs and n not in readers}
        self._layers = {new: self._layers[old] for old, new in pairs.items()} | rest
        listed = ", ".join(f"{old} for {new}" for old, new in pairs.items() if old != new)
        return [f"weights paired by the order of the layers, as Keras does: {listed}"]

    def _has_arrays(self, layer: RawLayer) -> bool:
        """Whether Keras keeps arrays for a layer."""
        if layer.inner is not None:
            return any(self._has_arrays(inner) for inner in layer.inner.layers)
        if layer.custom or layer.class_name not in WITH_ARRAYS:
            own = layer.custom or layer.class_name not in TRANSLATORS
            return own and bool(self._layers.get(layer.name))
        bare = _BARE.get(layer.class_name)
        return bare is None or not bare(layer.config)

    def tensors(self, layer: RawLayer) -> LayerTensors:
        return LayerTensors(layer.name, [d for _, d in self._layers.pop(layer.name, [])], "order")

    def inner(self, layer: RawLayer) -> Store:
        self._models.append(_of_list(layer, self._layers.pop(layer.name, []), "order"))
        return self._models[-1]

    def unread(self) -> list[Source]:
        left: list[Source] = [d for datasets in self._layers.values() for _, d in datasets]
        return left + [source for model in self._models for source in model.unread()]


class PathStore:
    """Arrays of a model in one list; each array's path contains the name of its layer.

    Keras writes ``lstm/lstm_cell/kernel`` for a layer of the model, and with the names of further
    models before it (Keras 3) or without (Keras 2). Statistics that are not trained come last.
    """

    def __init__(self, model: Graph, arrays: Sequence[tuple[str, Source]], deal: Deal) -> None:
        self._left = list(arrays)
        self._deal = deal
        self._models: list[Store] = []
        names = Counter(layer.name for _, layer in model.leaves())
        self._twins = {name for name, count in names.items() if count > 1}
        if deal == "order":
            _check_order(model, [name for name, _ in arrays])

    def tensors(self, layer: RawLayer) -> LayerTensors:
        own = [entry for entry in self._left if entry[0].startswith(f"{layer.name}/")]
        if not own:
            own = self._below(layer)
            if own and layer.name in self._twins:
                raise Refusal(f"two layers inside one model are named {layer.name!r}")
        self._left = [entry for entry in self._left if entry not in own]
        return LayerTensors(layer.name, [d for _, d in own], self._deal)

    def _below(self, layer: RawLayer) -> list[tuple[str, Source]]:
        """Return the arrays whose paths contain the layer's name."""
        return [entry for entry in self._left if f"/{layer.name}/" in f"/{entry[0]}"]

    def inner(self, layer: RawLayer) -> Store:
        # Without the model's name in any path, each array of ours may belong to it.
        own = self._below(layer)
        if not own:
            return self
        self._left = [entry for entry in self._left if entry not in own]
        marked = [(f"/{name}".split(f"/{layer.name}/", 1)[-1], d) for name, d in own]
        self._models.append(_of_list(layer, marked, self._deal))
        return self._models[-1]

    def unread(self) -> list[Source]:
        left = [d for _, d in self._left]
        return left + [source for model in self._models for source in model.unread()]


def _of_list(
    layer: RawLayer, arrays: Sequence[tuple[str, Source]], deal: Deal
) -> StackedCellStore | PathStore:
    """Return the store for a layer's sublayers from one list of arrays."""
    assert layer.inner is not None  # the caller has checked it
    if layer.class_name == "RNN":
        return StackedCellStore([source for _, source in arrays])
    return PathStore(layer.inner, arrays, deal)


def _check_order(model: Graph, paths: Sequence[str]) -> None:
    """Raise UnsupportedError if the arrays' names show another order of layers than the model's.

    Keras lists trained arrays first and frozen ones last, both in the order of the layers.
    """
    found: dict[str, int] = {}
    for path in paths:
        inside = [raw for raw in model.layers if path.startswith(f"{raw.name}/")]
        inside = inside or [raw for raw in model.layers if f"/{raw.name}/" in f"/{path}"]
        for raw in inside[:1]:
            found.setdefault(raw.name, len(found))
    order = [raw for raw in model.layers if raw.name in found]
    order.sort(key=_frozen)
    if [raw.name for raw in order] != [*found]:
        raise UnsupportedError([f"weights: {conflict(f'the layers in {model.name}', [*found])}"])


def _frozen(raw: RawLayer) -> bool:
    """Whether none of a layer's arrays is trained."""
    if raw.inner is not None:
        return all(_frozen(inner) for inner in raw.inner.layers)
    scaled = [raw.config.get(name) for name in ("scale", "center")]
    statistics = raw.class_name == "Normalization"
    statistics |= raw.class_name == "BatchNormalization" and scaled == [False, False]
    return statistics or raw.config.get("trainable") is False
