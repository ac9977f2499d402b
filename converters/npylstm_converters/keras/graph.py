"""Model configs of Keras 1, 2 and 3, read into one graph form.

Nothing here knows what a layer does: a :class:`Graph` is layers with their raw configs, and
calls that join them. Translating the layers is the business of
:mod:`npylstm_converters.keras.layers`.
"""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from npylstm import FormatError, UnsupportedError

__all__ = [
    "INSIDE", "TURN", "Call", "Claims", "Graph", "RawLayer", "Slot", "Tensor", "inline", "parse",
    "shown",
]  # fmt: skip

INSIDE = "\x1f"  # between a model's name and a layer's in it; no name can hold it

TURN = "turned around"  # what is no layer of Keras': a sequence read from its end
_MODELS = ("Model", "Functional", "Sequential")
_FIRST = ("inputs", "sequences", "sequence")  # what layers call their first argument
_MOST_CALLS = 100_000  # models inside models multiply


@dataclass(frozen=True)
class RawLayer:
    """A layer as the config describes it; ``inner`` where it is a model itself.

    Attributes
    ----------
    custom
        Registered by the user, not one of Keras' own.
    times
        How many time axes it is called over, inside a model that is called step by step.
    below
        Where in a file the layers of ``inner`` lie, seen from this one.
    stored
        What the file counts it as, if not as its class.
    """

    name: str
    class_name: str
    config: Mapping[str, Any]
    custom: bool = False
    inner: Graph | None = None
    times: int = 0
    below: str = ""
    stored: str = ""

    @property
    def is_input(self) -> bool:
        return self.class_name == "InputLayer"

    @property
    def is_model(self) -> bool:
        """Whether it is a model itself, and not a layer that is written out as one here."""
        return self.inner is not None and self.class_name in _MODELS


@dataclass(frozen=True)
class Tensor:
    """An output of a call of a layer: which layer, which of its calls, which output."""

    layer: str
    call: int = 0
    output: int = 0


Place = tuple[int, str, int]  # the depth, the layer, which call of it


@dataclass(frozen=True)
class Slot:
    """The place of a tensor among the arguments of a call."""

    place: int


@dataclass(frozen=True)
class Call:
    """One call of a layer: on tensors, and with named arguments that may hold tensors.

    Attributes
    ----------
    options
        Named arguments that hold tensors.
    arguments
        Named arguments that hold none, other than None and False.
    problem
        What is not understood.
    numbers
        Positional arguments that are numbers.
    place
        When Keras runs it: for each model around it and itself the depth, which falls, and which
        call it is. Calls of one depth come one after the other, in whatever order.
    positional, told
        All positional arguments, with a :class:`Slot` for each of ``inputs``; all named ones that
        hold no tensors.
    """

    layer: str
    number: int
    inputs: tuple[Tensor, ...]
    options: Mapping[str, tuple[Tensor, ...]] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""
    numbers: tuple[float, ...] = ()
    positional: tuple[Any, ...] = ()
    told: Mapping[str, Any] = field(default_factory=dict)
    place: tuple[Place, ...] = ()

    @property
    def reads(self) -> tuple[Tensor, ...]:
        """All tensors, those of arguments last."""
        return (*self.inputs, *(t for tensors in self.options.values() for t in tensors))


@dataclass(frozen=True)
class Graph:
    """A model: its layers in the config's order, its calls in the order of computation."""

    name: str
    layers: tuple[RawLayer, ...]
    calls: tuple[Call, ...]
    inputs: tuple[str, ...]
    outputs: tuple[Tensor, ...]
    build_shape: tuple[int | None, ...] | None = None
    sequential: bool = False  # returns all that its last layer returns, not ``outputs``

    def layer(self, name: str) -> RawLayer:
        """Find a layer by name."""
        return next(layer for layer in self.layers if layer.name == name)

    def leaves(self, prefix: str = "") -> Iterator[tuple[str, RawLayer]]:
        """Walk through all layers that are no models, those of models inside with a path."""
        for layer in self.layers:
            if layer.inner is not None:
                yield from layer.inner.leaves(f"{prefix}{layer.name}{INSIDE}")
            else:
                yield f"{prefix}{layer.name}", layer


def shown(path: str) -> str:
    """Write a path of :meth:`Graph.leaves` as people read it: ``encoder.lstm``."""
    return path.replace(INSIDE, ".")


Claims = Sequence[tuple[Tensor, Tensor]]


class Inlined(NamedTuple):
    """A model without models inside.

    Attributes
    ----------
    calls
        In the order of computation; calls of a layer are numbered as the config numbers them.
    outputs
        One tensor for all outputs of a call, however many it has.
    claims
        What is claimed to be the mask of which tensor, where a model inside is called with both.
    steps
        For what comes out of a model that is called step by step, what that was called on.
    """

    calls: list[Call]
    outputs: list[Tensor] | Tensor
    claims: Claims
    steps: Mapping[Tensor, Tensor]


def inline(graph: Graph) -> Inlined:
    """Write the calls of models inside out, by the paths of :meth:`Graph.leaves`."""
    calls: list[Call] = []
    steps: dict[Tensor, Tensor] = {}
    claims: list[tuple[Tensor, Tensor]] = []
    counts: Counter[str] = Counter()
    trails: dict[str, list[tuple[int, ...]]] = {}

    def run(
        graph: Graph, prefix: str, around: tuple[Place, ...], inputs: Sequence[Tensor]
    ) -> list[Tensor] | Tensor:
        made: dict[tuple[str, int], list[Tensor] | Tensor] = {}
        raws = {layer.name: layer for layer in graph.layers}
        for name, tensor in zip(graph.inputs, inputs, strict=True):
            made[name, 0] = [tensor]

        def find(tensor: Tensor) -> Tensor:
            source = made.get((tensor.layer, tensor.call))
            if source is None:
                path = shown(f"{prefix}{tensor.layer}")
                raise FormatError(f"model config: {path}: call {tensor.call} is never computed")
            if isinstance(source, Tensor):
                return Tensor(source.layer, source.call, tensor.output)
            if not 0 <= tensor.output < len(source):
                path = shown(f"{prefix}{tensor.layer}")
                raise FormatError(f"model config: {path} has no output {tensor.output}")
            return source[tensor.output]

        for call in graph.calls:
            raw, path = raws[call.layer], f"{prefix}{call.layer}"
            given = tuple(map(find, call.inputs))
            options = {k: tuple(map(find, tensors)) for k, tensors in call.options.items()}
            place = (*around, *(call.place or ((0, call.layer, call.number),)))
            problem = call.problem
            if raw.inner is not None and not raw.is_model and len(given) != 1:
                problem = problem or f"is called with {len(given)} tensors"
            if raw.inner is not None and not problem:
                if len(given) != len(raw.inner.inputs):
                    raise FormatError(
                        f"model config: {shown(path)}: expected {len(raw.inner.inputs)} inputs, "
                        f"got {len(given)}"
                    )
                result = run(raw.inner, f"{path}{INSIDE}", place, given)
                made[call.layer, call.number] = result
                if raw.class_name == "TimeDistributed":
                    ends = [result] if isinstance(result, Tensor) else result
                    steps.update(dict.fromkeys(ends, given[0]))
                masks = options.pop("mask", ())
                if len(masks) in (0, len(given)) and not options and not call.arguments:
                    claims.extend(zip(given, masks, strict=False))
                    continue
                problem = f"is called with {', '.join([*options, *call.arguments]) or 'masks'}"
            made.setdefault((call.layer, call.number), Tensor(path, counts[path]))
            calls.append(
                replace(call, layer=path, number=counts[path], inputs=given, options=options,
                        problem=problem, place=place)
            )  # fmt: skip
            counts[path] += 1
            trails.setdefault(path, []).append(tuple(number for _, _, number in place))
            if len(calls) > _MOST_CALLS:
                raise FormatError(f"model config: more than {_MOST_CALLS} calls of layers")
        if graph.sequential:
            return made[graph.outputs[0].layer, 0]
        return [find(t) for t in graph.outputs]

    outputs = run(graph, "", (), [Tensor(name) for name in graph.inputs])
    ranks = {
        (path, k): rank
        for path, keys in trails.items()
        for rank, k in enumerate(sorted(range(len(keys)), key=keys.__getitem__))
    }

    def renumber(tensor: Tensor) -> Tensor:
        return replace(tensor, call=ranks.get((tensor.layer, tensor.call), tensor.call))

    renumbered = [
        replace(
            call,
            number=ranks[call.layer, call.number],
            inputs=tuple(map(renumber, call.inputs)),
            options={key: tuple(map(renumber, tensors)) for key, tensors in call.options.items()},
        )
        for call in calls
    ]
    claims = [(renumber(a), renumber(b)) for a, b in claims]
    steps = {renumber(a): renumber(b) for a, b in steps.items()}
    ends_here = renumber(outputs) if isinstance(outputs, Tensor) else [renumber(t) for t in outputs]
    return Inlined(renumbered, ends_here, claims, steps)


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
    try:
        return _graph(document["class_name"], document.get("config"))
    except RecursionError:
        raise FormatError("model config: models inside models, too deep") from None


def _graph(class_name: str, config: Any) -> Graph:
    if class_name == "Sequential":
        return _sequential(config)
    if class_name in _MODELS:
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
    # Calls refer to the entry's name; some layers' configs have another one.
    name = entry.get("name") or config.get("name")
    if not isinstance(name, str) or not name or INSIDE in name:
        raise FormatError(f"model config: {class_name}: expected a name, got {name!r}")
    custom = is_custom(entry)
    inner, below = None, ""
    if class_name in _MODELS and not custom:
        inner = _graph(class_name, config)
    elif class_name == "TimeDistributed" and not custom:
        inner, below = _step_by_step(config.get("layer")), "layer"
    elif class_name == "RNN" and not custom:
        inner, below = _stack_of_cells(config), "cell"
    if _is_operation(entry, config):
        class_name = f"ops.{class_name}"
    return RawLayer(name, class_name, config, custom, inner, below=below)


# What masks are made of; a layer of such a name there is but one, and that one is told apart.
_OF_MASKS = (
    "NotEqual", "Any", "LogicalOr", "ExpandDims", "OnesLike", "ZerosLike", "Concatenate",
    "ConvertToTensor",
)  # fmt: skip


def _is_operation(entry: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Whether it is an operation on tensors, not the layer of its name.

    In HDF5 files Keras 3 leaves out where a class is from.
    """
    if "module" in entry:
        return ".ops." in str(entry["module"])
    bare = (
        set(config) <= {"name", "axis", "keepdims", "dtype", "sparse", "ragged"}
        and "inbound_nodes" in entry
    )
    nodes = entry.get("inbound_nodes")
    of_keras_3 = isinstance(nodes, list) and any(isinstance(node, Mapping) for node in nodes)
    return bare and of_keras_3 and entry["class_name"] in _OF_MASKS


def _step_by_step(entry: Any) -> Graph | None:
    """A model inside TimeDistributed: each of its layers is called over one more time axis."""
    if not isinstance(entry, Mapping) or entry.get("class_name") not in _MODELS:
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
    """Several cells that are driven together: layers one upon the other."""
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
        if inner and config.get("go_backwards"):  # the next one goes backwards, too
            turn = RawLayer(f"turn_{number}", TURN, {"axis": 1})
            layers.append(turn)
            calls.append(Call(turn.name, 0, (tensor,)))
            tensor = Tensor(turn.name)
        if config.get("return_state"):
            states = 2 if stored == "LSTMCell" else 1
            outputs += [Tensor(name, 0, k) for k in range(1, 1 + states)]
    return Graph("cells", tuple(layers), tuple(calls), (start.layer,), (tensor, *outputs))


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
    """The input of a Sequential model that has no InputLayer: declared by its first layer."""
    config = dict(first.config)
    if first.is_model and first.inner is not None:
        config = dict(first.inner.layer(first.inner.inputs[0]).config)
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
        _read_call(layer.name, number, node)
        for layer in layers
        if not layer.is_input
        for number, node in enumerate(nodes[layer.name])
    ]
    inputs = tuple(t.layer for t in _tensor_list(config.get("input_layers"), "input_layers"))
    outputs = tuple(_tensor_list(config.get("output_layers"), "output_layers"))
    known = {layer.name for layer in layers}
    unknown = [n for n in (*inputs, *(t.layer for t in outputs)) if n not in known]
    if unknown:
        raise FormatError(f"model config: no layer {unknown[0]!r}")
    odd = [n for n in inputs if not next(layer for layer in layers if layer.name == n).is_input]
    if odd:
        raise FormatError(f"model config: input_layers: {odd[0]} is no InputLayer")
    # A model inside may count its own making as its first call: up to Keras 2 everywhere, in
    # Keras 3 only where outputs are listed and only functional models.
    begun = {t.layer for t in outputs if t.call == 0}
    if any(isinstance(node, Mapping) for entries in nodes.values() for node in entries):
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
    # Calls of classes of the user's own may be counted otherwise; such a model is refused anyway.
    foreign = any(layer.custom for layer in layers)
    if absent and not foreign:
        raise FormatError(f"model config: {absent[0].layer} has no call {absent[0].call}")
    ordered = _by_depth([*_in_order(calls, inputs, foreign)])
    return Graph(str(config.get("name", "model")), tuple(layers), ordered, inputs, outputs)


def _by_depth(calls: Sequence[Call]) -> tuple[Call, ...]:
    """Sort calls as Keras runs them: those first from which the way to an output is longest."""
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


def _tensor_list(value: Any, label: str) -> list[Tensor]:
    """Read ``[["lstm", 0, 0], ...]``, the bare ``["lstm", 0, 0]`` of Keras 3, lists in lists."""
    if isinstance(value, list) and value and isinstance(value[0], str):
        value = [value]
    if isinstance(value, Mapping):
        raise UnsupportedError(
            f"{label}: given by name, {', '.join(map(str, value))}; rebuild the model with a list"
        )
    if not isinstance(value, list) or not value:
        raise FormatError(f"model config: {label}: expected a list of tensors, got {value!r:.80}")
    tensors: list[Tensor] = []
    for entry in value:
        nested = isinstance(entry, list) and entry and isinstance(entry[0], list)
        tensors += _tensor_list(entry, label) if nested else [_tensor(entry, label)]
    return tensors


def _tensor(entry: Any, label: str) -> Tensor:
    match entry:
        case [str(layer), int(call), int(output), *_]:
            return Tensor(layer, call, output)
    raise FormatError(f"model config: {label}: expected [layer, call, output], got {entry!r:.80}")


def _read_call(layer: str, number: int, node: Any) -> Call:
    """Read one call, in the dialect of Keras 1 and 2 (lists) or 3 (args and kwargs)."""
    if isinstance(node, Mapping) and "args" in node:
        return _read_keras_3(layer, number, node)
    if isinstance(node, Mapping):
        return Call(layer, number, (), problem="is called with inputs by name")
    if isinstance(node, list) and node and isinstance(node[0], str):
        node = [node]  # one tensor, not wrapped
    if not isinstance(node, list):
        raise FormatError(f"model config: {layer}: expected a call, got {node!r:.80}")
    inputs: list[Tensor] = []
    options: dict[str, tuple[Tensor, ...]] = {}
    positional: list[Any] = []
    told: dict[str, Any] = {}
    problem = ""
    for entry in _unnested(node):
        if isinstance(entry, list) and entry and entry[0] == "_CONSTANT_VALUE":
            problem = "is called with a number"
            positional.append(entry[2] if len(entry) > 2 else None)
        else:
            positional.append(Slot(len(inputs)))
            inputs.append(_tensor(entry, layer))
        given = entry[3] if len(entry) > 3 else None
        if given is not None and not isinstance(given, Mapping):
            raise FormatError(f"model config: {layer}: expected an object, got {given!r:.80}")
        for key, value in (given or {}).items():
            tensors = tuple(_listed_tensors(value))
            if tensors:
                options[key] = tensors
            else:
                told[key] = value
    return Call(
        layer, number, tuple(inputs), options, _said(told), problem, (), tuple(positional), told
    )


def _read_keras_3(layer: str, number: int, node: Mapping[str, Any]) -> Call:
    inputs = [*_keras_tensors(layer, node["args"])]
    options: dict[str, tuple[Tensor, ...]] = {}
    problems: list[str] = []
    for value in _flat([node["args"], list(_values(node.get("kwargs")))]):
        if isinstance(value, Mapping) and "class_name" not in value:
            problems.append("is called with inputs by name")
        elif isinstance(value, Mapping) and value["class_name"] != "__keras_tensor__":
            problems.append("is called with a constant")
    kwargs = node.get("kwargs", {})
    if not isinstance(kwargs, Mapping):
        raise FormatError(f"model config: {layer}: kwargs: expected an object, got {kwargs!r:.80}")
    told: dict[str, Any] = {}
    for key, value in kwargs.items():
        tensors = tuple(_keras_tensors(layer, value))
        if tensors and not inputs and key in _FIRST:
            inputs += tensors
        elif tensors:
            options[key] = tensors
        else:
            told[key] = value
    numbers = tuple(v for v in _flat(node["args"]) if type(v) in (int, float))
    slots = itertools.count()
    given = node["args"] if isinstance(node["args"], list) else [node["args"]]
    positional = tuple(_with_slots(value, slots) for value in given)
    problem = "; ".join(problems)
    return Call(
        layer, number, tuple(inputs), options, _said(told), problem, numbers, positional, told
    )


def _said(told: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that say something: None and False are what calls leave out."""
    return {k: v for k, v in told.items() if any(e not in (None, False) for e in _flat(v))}


def _unnested(node: list[Any]) -> list[Any]:
    """Take a list of tensors out of the list around it, as TensorFlow's functions write it."""
    if len(node) == 1 and isinstance(node[0], list) and node[0] and isinstance(node[0][0], list):
        inner: list[Any] = node[0]
        return inner
    return node


def _with_slots(value: Any, slots: Iterator[int]) -> Any:
    """Put slots in the places of tensors, in the order of :func:`_keras_tensors`."""
    if isinstance(value, Mapping) and value.get("class_name") == "__keras_tensor__":
        return Slot(next(slots))
    if isinstance(value, (list, tuple)):
        return [_with_slots(entry, slots) for entry in value]
    return value


def _values(arguments: Any) -> Iterator[Any]:
    return iter(arguments.values()) if isinstance(arguments, Mapping) else iter(())


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, (list, tuple)):
        for entry in value:
            yield from _flat(entry)
    else:
        yield value


def _listed_tensors(value: Any) -> Iterator[Tensor]:
    """Find tensors in an argument of Keras 2: ``["lstm", 0, 1]``, or a list of such."""
    match value:
        case [str(layer), int(call), int(output), *_]:
            yield Tensor(layer, call, output)
        case [*entries]:
            for entry in entries:
                yield from _listed_tensors(entry)


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


def _in_order(calls: list[Call], inputs: tuple[str, ...], foreign: bool) -> Iterator[Call]:
    """Sort calls so that each comes after those whose tensors it reads.

    Those that never can are left out of a graph with foreign classes, and damage otherwise.
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
