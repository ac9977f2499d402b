"""Converts model configs of Keras 1, 2 and 3 into one graph form."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from npylstm import FormatError, UnsupportedError
from npylstm_converters.keras.calls import read_call, read_tensors
from npylstm_converters.keras.early_names import with_names_of_today
from npylstm_converters.keras.graph import (
    MODELS,
    PATH_SEPARATOR,
    REVERSED,
    Call,
    Graph,
    RawLayer,
    Tensor,
    is_custom,
)
from npylstm_converters.keras.operations import NAMES

__all__ = ["parse"]


def parse(document: Any) -> Graph:
    """Return the graph of a model config.

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
        If the model has no graph (a subclassed model).
    """
    if not isinstance(document, Mapping) or not isinstance(document.get("class_name"), str):
        raise FormatError("model config: expected an object with a class_name")
    try:
        document = with_names_of_today(document)
        return _graph(document["class_name"], document.get("config"))
    except RecursionError:
        raise FormatError("model config: models inside models, too deep") from None


def _graph(class_name: str, config: Any) -> Graph:
    if class_name == "Sequential":
        return _sequential(config)
    if class_name in MODELS:
        return _functional(config)
    raise UnsupportedError(
        f"model class {class_name!r} is not supported: its graph is code, not data; "
        "rebuild it as a Sequential or functional model around the same layers"
    )


def _raw_layer(entry: Any) -> RawLayer:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("class_name"), str):
        raise FormatError(f"model config: expected a layer, got {entry!r:.80}")
    class_name, config = entry["class_name"], entry.get("config")
    if class_name == "Sequential" and isinstance(config, list):  # up to Keras 2.2.2
        config = {"name": entry.get("name"), "layers": config}
    if not isinstance(config, Mapping):
        raise FormatError(f"model config: {class_name}: expected a config object")
    # Calls use the entry's name, which may differ from the config's.
    name = entry.get("name") or config.get("name")
    if not isinstance(name, str) or not name or PATH_SEPARATOR in name:
        raise FormatError(f"model config: {class_name}: expected a name, got {name!r}")
    custom = is_custom(entry)
    inner, below = None, ""
    if class_name in MODELS and not custom:
        inner = _graph(class_name, config)
    elif class_name == "TimeDistributed" and not custom:
        inner, below = _step_by_step(config.get("layer")), "layer"
    elif class_name == "RNN" and not custom:
        inner, below = _stack_of_cells(config), "cell"
    if not custom and _is_operation(entry, config):
        class_name = f"ops.{class_name}"
    return RawLayer(name, class_name, config, custom, inner, below=below)


# Operations that compute masks, in addition to those of models.
_OF_MASKS = ("NotEqual", "Any", "LogicalOr", "OnesLike", "ZerosLike", "ConvertToTensor")


def _is_operation(entry: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Whether an entry is an operation on tensors, not a layer of the same name.

    In HDF5 files Keras 3 omits the module of a class; only a layer has a key ``trainable``.
    """
    if "module" in entry:
        return ".ops." in str(entry["module"])
    nodes = entry.get("inbound_nodes")
    known = entry["class_name"] in (*NAMES, *_OF_MASKS)
    return _is_of_keras_3(nodes) and known and "trainable" not in config


def _is_of_keras_3(nodes: Any) -> bool:
    """Whether calls have the form of Keras 3; those of Keras 2 are lists, or inputs by name."""
    calls = nodes if isinstance(nodes, list) else []
    return any(isinstance(node, Mapping) and "args" in node for node in calls)


def _step_by_step(entry: Any) -> Graph | None:
    """Return a model inside TimeDistributed; its layers run over one more time axis."""
    if not isinstance(entry, Mapping) or entry.get("class_name") not in MODELS:
        return None
    raw = _raw_layer(entry)
    return None if raw.inner is None else _over_time(raw.inner)


def _over_time(graph: Graph) -> Graph:
    layers = tuple(
        replace(raw, inner=_over_time(raw.inner))
        if raw.inner is not None
        else replace(raw, times=raw.times + 1)
        for raw in graph.layers
    )
    return replace(graph, layers=layers)


def _stack_of_cells(config: Mapping[str, Any]) -> Graph | None:
    """Return an RNN over several cells as a stack of layers."""
    stack = config.get("cell")
    inside = stack.get("config") if isinstance(stack, Mapping) else None
    if not isinstance(stack, Mapping) or not isinstance(inside, Mapping):
        return None
    cells = inside.get("cells")
    if not isinstance(cells, list) or len(cells) < 2:
        return None
    if is_custom(stack) or inside.get("reverse_state_order"):
        return None
    aside = ("cell", "name", "return_sequences")
    plain = {k: v for k, v in config.items() if k not in aside}
    time_major = bool(config.get("time_major"))
    start = Tensor("sequence")
    layers, calls = [RawLayer(start.layer, "InputLayer", {})], []
    outputs: list[Tensor] = []
    tensor = start
    for number, cell in enumerate(cells):
        if not isinstance(cell, Mapping) or not isinstance(cell.get("config"), Mapping):
            raise FormatError(f"model config: RNN: expected a cell, got {cell!r:.80}")
        inner = number < len(cells) - 1
        own = {
            **plain, "cell": cell,
            "return_sequences": inner or config.get("return_sequences", False),
        }  # fmt: skip
        name = f"cell_{number}"
        stored = str(cell.get("class_name"))
        layers.append(RawLayer(name, "RNN", own, stored=stored))
        calls.append(Call(name, 0, (tensor,)))
        tensor = Tensor(name)
        if inner and config.get("go_backwards"):  # the next one runs backwards, too
            turn = RawLayer(f"turn_{number}", REVERSED, {"axis": 0 if time_major else 1})
            layers.append(turn)
            calls.append(Call(turn.name, 0, (tensor,)))
            tensor = Tensor(turn.name)
        if config.get("return_state"):
            states = 2 if stored == "LSTMCell" else 1
            outputs += [Tensor(name, 0, k) for k in range(1, 1 + states)]
    return Graph("cells", tuple(layers), tuple(calls), (start.layer,), (tensor, *outputs))


def _sequential(config: Any) -> Graph:
    # Up to Keras 2.2.2 the config was only the list.
    entries = config.get("layers") if isinstance(config, Mapping) else config
    if not isinstance(entries, list) or not entries:
        raise FormatError("model config: Sequential: expected a list of layers")
    layers = [_raw_layer(entry) for entry in entries]
    build_shape = config.get("build_input_shape") if isinstance(config, Mapping) else None
    if not layers[0].is_input:
        layers.insert(0, _input_before(layers[0]))
    _refuse_twins(layers)
    tensor = Tensor(layers[0].name)
    calls = []
    for layer in layers[1:]:
        calls.append(Call(layer.name, 0, (tensor,)))
        tensor = Tensor(layer.name)
    name = str(config.get("name", "sequential")) if isinstance(config, Mapping) else "sequential"
    shape = tuple(build_shape) if isinstance(build_shape, list) else None
    return Graph(name, tuple(layers), tuple(calls), (layers[0].name,), (tensor,), shape, True)


def _input_before(first: RawLayer) -> RawLayer:
    """Return the input of a Sequential model without InputLayer, declared by its first layer."""
    config = dict(first.config)
    if first.is_model and first.inner is not None:
        (own,) = (raw for raw in first.inner.layers if raw.name == first.inner.inputs[0])
        config = dict(own.config)
    return RawLayer(f"{first.name}_input", "InputLayer", config)


def _functional(config: Any) -> Graph:
    if not isinstance(config, Mapping) or not isinstance(config.get("layers"), list):
        raise FormatError("model config: expected a list of layers")
    layers, nodes = [], {}
    for entry in config["layers"]:
        layer = _raw_layer(entry)
        layers.append(layer)
        nodes[layer.name] = entry.get("inbound_nodes", [])
        if not isinstance(nodes[layer.name], list):
            raise FormatError(f"model config: {layer.name}: expected a list of inbound_nodes")
    _refuse_twins(layers)
    calls = [
        read_call(layer.name, number, node)
        for layer in layers
        if not layer.is_input
        for number, node in enumerate(nodes[layer.name])
    ]
    first, input_names = read_tensors(config.get("input_layers"), "input_layers")
    inputs = tuple(t.layer for t in first)
    last, output_names = read_tensors(config.get("output_layers"), "output_layers")
    outputs = tuple(last)
    known = {layer.name for layer in layers}
    unknown = [n for n in (*inputs, *(t.layer for t in outputs)) if n not in known]
    if unknown:
        raise FormatError(f"model config: no layer {unknown[0]!r}")
    odd = [n for n in inputs if not next(layer for layer in layers if layer.name == n).is_input]
    if odd:
        raise FormatError(f"model config: input_layers: {odd[0]} is no InputLayer")
    # A nested model may number its construction as call 0: up to Keras 2 always, in Keras 3
    # only in the list of outputs and only for functional models.
    begun = {t.layer for t in outputs if t.call == 0}
    if any(map(_is_of_keras_3, nodes.values())):
        late = {m.name for m in layers if m.is_model and m.class_name != "Sequential"}
        outputs = tuple(
            Tensor(t.layer, t.call - (t.layer in late - begun), t.output) for t in outputs
        )
    else:
        begun |= {t.layer for c in calls for t in c.reads if t.call == 0}
        late = {layer.name for layer in layers if layer.is_model} - begun
        calls = [replace(c, number=c.number + (c.layer in late)) for c in calls]
    made = {(c.layer, c.number) for c in calls} | {(name, 0) for name in inputs}
    absent = [t for t in outputs if (t.layer, t.call) not in made]
    # Custom classes may number their calls differently; such a model is unsupported anyway.
    foreign = any(layer.custom for layer in layers)
    if absent and not foreign:
        raise FormatError(f"model config: {absent[0].layer} has no call {absent[0].call}")
    ordered = _by_depth([*_in_order(calls, inputs, foreign)])
    name = str(config.get("name", "model"))
    return Graph(
        name, tuple(layers), ordered, inputs, outputs,
        input_names=tuple(input_names), output_names=tuple(output_names),
    )  # fmt: skip


def _by_depth(calls: Sequence[Call]) -> tuple[Call, ...]:
    """Return the calls in Keras' order: the longest path to an output first."""
    depths: Counter[tuple[str, int]] = Counter()
    layers: Counter[str] = Counter()  # all calls of a layer have the depth of the deepest
    for call in reversed(calls):
        depth = max(depths[call.layer, call.number], layers[call.layer])
        depths[call.layer, call.number] = layers[call.layer] = depth
        for tensor in call.reads:
            key = (tensor.layer, tensor.call)
            depths[key] = max(depths[key], depth + 1)
    placed = [
        replace(call, place=((depths[call.layer, call.number], call.layer, call.number),))
        for call in calls
    ]
    return tuple(sorted(placed, key=lambda call: -call.place[0][0]))


def _refuse_twins(layers: list[RawLayer]) -> None:
    counts = Counter(layer.name for layer in layers)
    twins = sorted(name for name, count in counts.items() if count > 1)
    if twins:
        raise FormatError(f"model config: two layers are named {twins[0]!r}")


def _in_order(calls: list[Call], inputs: tuple[str, ...], foreign: bool) -> Iterator[Call]:
    """Yield the calls so that each follows the calls whose outputs it reads.

    If that is impossible, a graph with custom classes omits the call; any other is damaged.
    """
    needs = {(c.layer, c.number): {(t.layer, t.call) for t in c.reads} for c in calls}
    readers: dict[tuple[str, int], list[Call]] = {}
    for call in calls:
        for source in needs[call.layer, call.number]:
            readers.setdefault(source, []).append(call)
    ready = deque([(name, 0) for name in inputs])
    ready.extend((c.layer, c.number) for c in calls if not c.reads)
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
    if stuck and not foreign:
        raise FormatError(f"model config: {stuck[0]}: its input is never computed")
