"""Model configs of Keras 1, 2 and 3, read into one graph form.

Nothing here knows what a layer does: a :class:`Graph` is layers with their raw configs, and
calls that join them. Translating the layers is the business of
:mod:`npylstm_converters.keras.layers`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from npylstm import FormatError, UnsupportedError

__all__ = ["Call", "Graph", "RawLayer", "Tensor", "parse"]


@dataclass(frozen=True)
class RawLayer:
    """A layer as the config describes it."""

    name: str
    class_name: str
    config: Mapping[str, Any]
    custom: bool = False  # registered by the user, not one of Keras' own

    @property
    def is_input(self) -> bool:
        return self.class_name == "InputLayer"


@dataclass(frozen=True)
class Tensor:
    """An output of a call of a layer: which layer, which of its calls, which output."""

    layer: str
    call: int = 0
    output: int = 0


@dataclass(frozen=True)
class Call:
    """One call of a layer on tensors."""

    layer: str
    number: int
    inputs: tuple[Tensor, ...]


@dataclass(frozen=True)
class Graph:
    """A model: its layers in the config's order, its calls in the order of computation."""

    name: str
    layers: tuple[RawLayer, ...]
    calls: tuple[Call, ...]
    inputs: tuple[str, ...]
    outputs: tuple[Tensor, ...]
    build_shape: tuple[int | None, ...] | None = None

    def layer(self, name: str) -> RawLayer:
        """Find a layer by name."""
        return next(layer for layer in self.layers if layer.name == name)


def parse(document: Any) -> Graph:
    """Read a model config.

    Parameters
    ----------
    document
        The JSON document of ``model.to_json()``, or of a ``model_config`` attribute, or of
        ``config.json`` in a ``.keras`` file.

    Raises
    ------
    FormatError
        If it is not a model config.
    UnsupportedError
        If it is a model of a kind that has no graph (a subclassed model).
    """
    if not isinstance(document, Mapping) or not isinstance(document.get("class_name"), str):
        raise FormatError("model config: expected an object with a class_name")
    class_name, config = document["class_name"], document.get("config")
    if class_name == "Sequential":
        return _sequential(config)
    if class_name in ("Model", "Functional"):
        return _functional(config)
    raise UnsupportedError(
        f"model class {class_name!r} is not supported: its graph is code, not data; "
        "rebuild it as a Sequential or functional model around the same layers"
    )


def _raw_layer(entry: Any) -> RawLayer:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("class_name"), str):
        raise FormatError(f"model config: expected a layer, got {entry!r:.80}")
    config = entry.get("config")
    if not isinstance(config, Mapping):
        raise FormatError(f"model config: {entry['class_name']}: expected a config object")
    name = config.get("name", entry.get("name"))
    if not isinstance(name, str) or not name:
        raise FormatError(f"model config: {entry['class_name']}: expected a name, got {name!r}")
    return RawLayer(name, entry["class_name"], config, is_custom(entry))


def is_custom(entry: Mapping[str, Any]) -> bool:
    """Whether a serialised object is the user's own, also where it bears one of Keras' names."""
    registered, module = entry.get("registered_name"), entry.get("module", "keras")
    if isinstance(registered, str) and registered != entry.get("class_name"):
        return True
    # Keras writes null where it does not know the module of a class.
    own = ("keras", "tf_keras", "tensorflow")
    return module is None or (isinstance(module, str) and module.split(".")[0] not in own)


def _sequential(config: Any) -> Graph:
    # Up to Keras 2.2.2 the config was the bare list.
    entries = config.get("layers") if isinstance(config, Mapping) else config
    if not isinstance(entries, list) or not entries:
        raise FormatError("model config: Sequential: expected a list of layers")
    layers = [_raw_layer(entry) for entry in entries]
    build_shape = config.get("build_input_shape") if isinstance(config, Mapping) else None
    if not layers[0].is_input:
        first = layers[0]
        made = RawLayer(f"{first.name}_input", "InputLayer", dict(first.config))
        layers.insert(0, made)
    _refuse_twins(layers)
    tensor = Tensor(layers[0].name)
    calls = []
    for layer in layers[1:]:
        calls.append(Call(layer.name, 0, (tensor,)))
        tensor = Tensor(layer.name)
    name = str(config.get("name", "sequential")) if isinstance(config, Mapping) else "sequential"
    shape = tuple(build_shape) if isinstance(build_shape, list) else None
    return Graph(name, tuple(layers), tuple(calls), (layers[0].name,), (tensor,), shape)


def _functional(config: Any) -> Graph:
    if not isinstance(config, Mapping) or not isinstance(config.get("layers"), list):
        raise FormatError("model config: expected a list of layers")
    layers, calls = [], []
    for entry in config["layers"]:
        layer = _raw_layer(entry)
        layers.append(layer)
        nodes = entry.get("inbound_nodes", [])
        if not isinstance(nodes, list):
            raise FormatError(f"model config: {layer.name}: expected a list of inbound_nodes")
        if layer.is_input:
            continue
        calls += [
            Call(layer.name, k, tuple(_node_inputs(layer.name, n))) for k, n in enumerate(nodes)
        ]
    _refuse_twins(layers)
    inputs = tuple(t.layer for t in _tensor_list(config.get("input_layers"), "input_layers"))
    outputs = tuple(_tensor_list(config.get("output_layers"), "output_layers"))
    known = {layer.name for layer in layers}
    unknown = [n for n in (*inputs, *(t.layer for t in outputs)) if n not in known]
    if unknown:
        raise FormatError(f"model config: no layer {unknown[0]!r}")
    ordered = tuple(_in_order(calls, inputs))
    return Graph(str(config.get("name", "model")), tuple(layers), ordered, inputs, outputs)


def _refuse_twins(layers: list[RawLayer]) -> None:
    counts = Counter(layer.name for layer in layers)
    twins = sorted(name for name, count in counts.items() if count > 1)
    if twins:
        raise FormatError(f"model config: two layers are named {twins[0]!r}")


def _tensor_list(value: Any, label: str) -> list[Tensor]:
    """Read ``[["lstm", 0, 0], ...]``, or the bare ``["lstm", 0, 0]`` of Keras 3."""
    if isinstance(value, list) and value and isinstance(value[0], str):
        value = [value]
    if not isinstance(value, list) or not value:
        raise FormatError(f"model config: {label}: expected a list of tensors, got {value!r:.80}")
    return [_tensor(entry, label) for entry in value]


def _tensor(entry: Any, label: str) -> Tensor:
    match entry:
        case [str(layer), int(call), int(output), *_]:
            return Tensor(layer, call, output)
    raise FormatError(f"model config: {label}: expected [layer, call, output], got {entry!r:.80}")


def _node_inputs(layer: str, node: Any) -> Iterator[Tensor]:
    """Read one call, in the dialect of Keras 1 and 2 (lists) or 3 (args and kwargs)."""
    if isinstance(node, Mapping):
        yield from _keras_tensors(layer, node.get("args"))
        kwargs = node.get("kwargs", {})
        if not isinstance(kwargs, Mapping):
            raise FormatError(
                f"model config: {layer}: kwargs: expected an object, got {kwargs!r:.80}"
            )
        yield from _keras_tensors(layer, kwargs)
        return
    if isinstance(node, list) and node and isinstance(node[0], str):
        node = [node]  # one tensor, not wrapped
    if not isinstance(node, list):
        raise FormatError(f"model config: {layer}: expected a call, got {node!r:.80}")
    for entry in node:
        yield _tensor(entry, layer)
        options = entry[3] if len(entry) > 3 and isinstance(entry[3], Mapping) else {}
        for key, value in options.items():
            if key not in ("training", "mask") or value not in (None, False):
                yield from _tensor_list(value, f"{layer}: {key}")


def _keras_tensors(layer: str, value: Any) -> Iterator[Tensor]:
    """Find every tensor in the nested arguments of a Keras 3 call."""
    if isinstance(value, Mapping):
        if value.get("class_name") == "__keras_tensor__":
            config = value.get("config")
            history = config.get("keras_history") if isinstance(config, Mapping) else None
            yield _tensor(history, layer)
        else:
            for entry in value.values():
                yield from _keras_tensors(layer, entry)
    elif isinstance(value, (list, tuple)):
        for entry in value:
            yield from _keras_tensors(layer, entry)


def _in_order(calls: list[Call], inputs: tuple[str, ...]) -> Iterator[Call]:
    """Sort calls so that each comes after those whose tensors it reads."""
    needs = {(c.layer, c.number): {(t.layer, t.call) for t in c.inputs} for c in calls}
    readers: dict[tuple[str, int], list[Call]] = {}
    for call in calls:
        for source in needs[call.layer, call.number]:
            readers.setdefault(source, []).append(call)
    ready = deque([(name, 0) for name in inputs])
    ready.extend((c.layer, c.number) for c in calls if not c.inputs)
    done: set[tuple[str, int]] = set()
    by_key = {(c.layer, c.number): c for c in calls}
    while ready:
        key = ready.popleft()
        done.add(key)
        if key in by_key:
            yield by_key[key]
        for call in readers.pop(key, []):
            missing = needs[call.layer, call.number]
            missing.discard(key)
            if not missing:
                ready.append((call.layer, call.number))
    stuck = [c.layer for c in calls if (c.layer, c.number) not in done]
    if stuck:
        raise FormatError(f"model config: {stuck[0]}: its input is never computed")
