"""The order in which a live Keras model calls its layers, with the spec's names of the calls."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from npylstm_converters.keras.graph import PATH_SEPARATOR, Keys, safe_names

__all__ = ["executions", "is_model", "leaf_layers", "packed", "without_first_layers"]


class Execution(NamedTuple):
    """One call of a layer in one run of a model.

    Attributes
    ----------
    layer
        The Keras layer, or the operation.
    names
        The spec's name of the call. A stack of cells in one RNN is several layers there.
    """

    layer: Any
    names: tuple[str, ...]


def is_model(layer: Any) -> bool:
    """Whether an object is a Keras model, or looks like one; does not import Keras."""
    return all(hasattr(layer, name) for name in ("get_config", "layers", "get_weights"))


def leaf_layers(model: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield all layers by path, including nested models' layers and input layers."""
    for layer in _members(model):
        path = f"{prefix}{layer.name}"
        if is_model(layer):
            yield from leaf_layers(layer, f"{path}{PATH_SEPARATOR}")
        else:
            yield path, layer


def executions(model: Any) -> list[Execution]:
    """Return the calls of one run in the order of execution.

    Keras runs a functional model node by node, the deepest first. A file numbers the calls of a
    layer by the order of its nodes, and so does the spec. In nested models, calls are ordered by
    the number of the outermost call first.
    """
    calls = [*_run(model, "", ())]
    trails: dict[str, list[tuple[int, ...]]] = {}
    for path, _, trail in calls:
        trails.setdefault(path, []).append(trail)
    paths: list[str] = []
    for path, layer in leaf_layers(model):
        paths += [path, *(f"{path}{PATH_SEPARATOR}cell_{k}" for k in range(_cells(layer)))]
    names = safe_names(paths, _keys(model))
    made = []
    for path, layer, trail in calls:
        number = sorted(trails[path]).index(trail)
        own = [f"{path}{PATH_SEPARATOR}cell_{k}" for k in range(_cells(layer))] or [path]
        end = f"#{number + 1}" if number else ""
        made.append(Execution(layer, tuple(f"{names[p]}{end}" for p in own)))
    return made


def _keys(model: Any) -> Keys:
    """Return the keys of dictionaries of inputs and outputs."""
    inputs = {layer: key for key, (layer, _) in _histories(model, "input").items()}
    outputs = {
        k: layer if first else "" for k, (layer, first) in _histories(model, "output").items()
    }
    return Keys(inputs, outputs)


def _histories(model: Any, which: str) -> dict[str, tuple[str, bool]]:
    """Return the layer of each tensor in a dictionary, and whether it is its main output."""
    try:
        tensors = getattr(model, which)
    except (AttributeError, ValueError, RuntimeError):  # a model without a graph has none
        return {}
    found = {}
    for key, tensor in tensors.items() if isinstance(tensors, dict) else ():
        history = getattr(tensor, "_keras_history", None)
        if history is not None:
            layer = getattr(history, "operation", None) or history.layer
            found[key] = layer.name, (history.node_index, history.tensor_index) == (0, 0)
    return found


def packed(structure: Any, tensors: Sequence[Any]) -> Any:
    """Return tensors in a structure of dictionaries and lists, in Keras' order of its leaves."""
    queue = iter(tensors)

    def fill(structure: Any) -> Any:
        if isinstance(structure, Mapping):
            filled = {key: fill(structure[key]) for key in sorted(structure)}
            return {key: filled[key] for key in structure}
        if isinstance(structure, (list, tuple)):
            return [fill(entry) for entry in structure]
        return next(queue)

    return fill(structure)


def without_first_layers(keras: Any, model: Any, layers: Sequence[str | None]) -> Any:
    """Return a model whose inputs are what its first layers compute.

    Parameters
    ----------
    keras
        The module of its Keras.
    model
        The model.
    layers
        For each input the name of its only layer, which the new model is without; or None.
    """
    if not any(layers):
        return model
    if type(model).__name__ == "Sequential":
        first, *others = model.layers
        x = keras.Input(batch_shape=first.compute_output_shape(model.input_shape), dtype="int64")
        return keras.Sequential([x, *others], name=model.name)
    inputs = [
        tensor if name is None else _output_for(model.get_layer(name), tensor)
        for name, tensor in zip(layers, model.inputs, strict=True)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the names of tensors are no keys of dictionaries
        return keras.Model(packed(model.input, inputs), model.output)


def _output_for(layer: Any, tensor: Any) -> Any:
    """Return the output of the call of a layer that reads a tensor."""
    for node in layer._inbound_nodes:
        read = node.input_tensors if hasattr(node, "input_tensors") else node.keras_inputs
        if any(x is tensor for x in (read if isinstance(read, (list, tuple)) else [read])):
            made = node.outputs
            return made[0] if isinstance(made, (list, tuple)) else made
    raise ValueError(f"{layer.name} is never called on {tensor.name}")


def _run(
    model: Any, prefix: str, trail: tuple[int, ...]
) -> Iterator[tuple[str, Any, tuple[int, ...]]]:
    """Yield the calls of all layers in the order of execution."""
    for layer, number in _calls(model):
        path, here = f"{prefix}{layer.name}", (*trail, number)
        if is_model(layer):
            yield from _run(layer, f"{path}{PATH_SEPARATOR}", here)
        else:
            yield path, layer, here


def _calls(model: Any) -> Iterator[tuple[Any, int]]:
    """Yield the layers that a model calls directly, with the number of each call."""
    by_depth = getattr(model, "_nodes_by_depth", None)
    if type(model).__name__ == "Sequential" or not by_depth:
        yield from ((layer, 0) for layer in _members(model) if not _is_input(layer))
        return
    nodes = [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]
    for node in nodes:
        if not node.is_input:
            layer = getattr(node, "operation", None) or node.layer
            yield layer, next(k for k, n in enumerate(layer._inbound_nodes) if n is node)


def _members(model: Any) -> Sequence[Any]:
    """Return the layers of a model; in Keras 3 also its operations."""
    operations: Sequence[Any] = getattr(model, "operations", None) or model.layers
    return operations


def _is_input(layer: Any) -> bool:
    return type(layer).__name__ == "InputLayer"


def _cells(layer: Any) -> int:
    """Return the number of stacked cells in an RNN; 0 for an ordinary layer."""
    count = len(getattr(getattr(layer, "cell", None), "cells", ()))
    return count if count > 1 and type(layer).__name__ == "RNN" else 0
