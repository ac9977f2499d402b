"""From a config and weights to a ModelSpec: every layer translated, every call an edge."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import npylstm
from npylstm import FormatError, ModelSpec, UnsupportedError
from npylstm.errors import UnequalError
from npylstm.layers import (
    Arithmetic,
    Concatenate,
    Full,
    Identity,
    Layer,
    LayerNormalization,
)
from npylstm.layers.base import BATCH
from npylstm.spec import RESERVED, Edge, LayerSpec, TensorSpec
from npylstm_converters.errors import DamagedError, Reasons, Refusal
from npylstm_converters.keras.config import Writer, dtype_name
from npylstm_converters.keras.files import Container
from npylstm_converters.keras.graph import (
    INSIDE,
    Call,
    Graph,
    Tensor,
    inline,
    parse,
    shown,
)
from npylstm_converters.keras.inputs import by_a_call, read_inputs, reads_ids
from npylstm_converters.keras.layers import translate
from npylstm_converters.keras.masks import (
    Sources,
    also_masked,
    follow,
    joined_sources,
    made_mask,
    split_masks,
    taken,
    with_mask,
)
from npylstm_converters.keras.weights import Store

__all__ = ["convert_container"]

_UNSAFE = re.compile(r"[/\\#]")  # a second call is called lstm#2


def convert_container(container: Container) -> ModelSpec:
    """Convert a model whose config and weights are at hand.

    Raises
    ------
    UnsupportedError
        Listing everything that stands in the way.
    FormatError
        If the config or a weight is damaged.
    """
    graph = parse(container.document)
    reasons = Reasons()
    for reason in container.foreign:
        reasons.add(reason)
    names = _safe_names([path for path, _ in graph.leaves()])
    layers: dict[str, LayerSpec] = {}
    translate_all = functools.partial(
        _translate_all, graph, container.store, container.writer, names, reasons, layers
    )
    if any(raw.custom for _, raw in graph.leaves()):
        translate_all(frozenset())
        reasons.raise_if_any()
    calls, outputs = inline(graph)
    given_masks, calls = split_masks(graph, calls, outputs)
    translate_all(frozenset(call.layer for call in calls))
    for call in calls:
        if call.problem:
            reasons.add(f"{shown(call.layer)}: {call.problem}")
        if call.numbers:
            reasons.add(f"{shown(call.layer)}: is called with numbers {call.numbers}")
        made = layers.get(call.layer)
        if made is None:
            continue
        for option in call.options:
            if option != "initial_state" or not made.layer.state_shapes():
                reasons.add(f"{shown(call.layer)}: is called with {option}=a tensor")
        if call.number and getattr(made.layer, "stateful", False):
            reasons.add(f"{shown(call.layer)}: is stateful and called twice")
    for name in graph.inputs:
        dtype = dtype_name(graph.layer(name).config.get("dtype"))
        readers = [layers.get(c.layer) for c in calls if Tensor(name) in c.reads]
        ids = all(made is None or reads_ids(made.layer) for made in readers)
        if dtype not in (None, "float32", "float64") and not (ids and dtype in ("int32", "int64")):
            reasons.add(f"{name}: inputs of dtype {dtype!r} are not supported")
    if not reasons:
        _mask_layers(graph, calls, given_masks, layers, container.writer, reasons)
    arrays = {str(w.dtype) for layer in layers.values() for w in layer.weights.values()}
    if len(arrays) > 1:
        reasons.add(f"weights: expected one element type, got {' and '.join(sorted(arrays))}")
    if not reasons:  # with a layer missing, its arrays are left over, which says nothing new
        for path in container.store.unread():
            reasons.add(f"weights: {path} belongs to no layer")
    reasons.raise_if_any()
    flat = Flat(graph, calls, outputs, given_masks)
    return _assemble(flat, layers, names, container, arrays.pop() if arrays else "float32")


def _mask_layers(
    graph: Graph,
    calls: list[Call],
    given_masks: Mapping[Tensor, Sources | None],
    layers: dict[str, LayerSpec],
    writer: Writer,
    reasons: Reasons,
) -> None:
    """Let the layers that read a masked tensor in any of their calls take a mask."""
    raws = dict(graph.leaves())
    masks: dict[Tensor, Sources] = {}
    for call in calls:
        raw, layer = raws[call.layer], layers[call.layer].layer
        given = [masks.get(t) for t in call.inputs]
        main = Tensor(call.layer, call.number)
        if main in given_masks and given_masks[main] != given[0]:
            reasons.add(f"{shown(call.layer)}: is called with a mask of its own")
        try:
            own = made_mask(raw, call)
            mask = own or follow(raw, layer, given, writer.major, joined_sources)
        except Refusal as error:
            reasons.add(f"{shown(call.layer)}: {error}")
            continue
        if mask:
            masks |= {replace(main, output=k): mask for k in (0, *also_masked(layer))}
        mine = taken(layer, call, given, writer.major, main in given_masks)
        if mine and not getattr(layer, "masked", False):
            layers[call.layer] = replace(layers[call.layer], layer=with_mask(layer))


class Flat(NamedTuple):
    """A graph, its calls and outputs with models inside written out."""

    graph: Graph
    calls: list[Call]
    outputs: list[Tensor] | Tensor
    given_masks: Mapping[Tensor, Sources | None]


def _translate_all(
    graph: Graph,
    store: Store,
    writer: Writer,
    names: Mapping[str, str],
    reasons: Reasons,
    layers: dict[str, LayerSpec],
    called: Collection[str],
    prefix: str = "",
) -> None:
    """Translate every layer in the order of the config, into ``layers`` by path.

    Operations that nobody calls are passed over.
    """
    for raw in graph.layers:
        path = f"{prefix}{raw.name}"
        if raw.class_name.startswith("ops.") and path not in called:
            continue
        if raw.inner is not None:
            inner = store.inner(raw)
            _translate_all(
                raw.inner, inner, writer, names, reasons, layers, called, f"{path}{INSIDE}"
            )
            continue
        try:
            tensors = store.tensors(raw)
            if raw.is_input:
                continue
            layer, weights = translate(raw, tensors, writer)
        except DamagedError:
            raise
        except (Refusal, FormatError) as error:
            reasons.add(f"{shown(path)}: {error}")
            continue
        layers[path] = LayerSpec(names[path], layer, weights)


def _assemble(
    flat: Flat,
    layers: dict[str, LayerSpec],
    names: Mapping[str, str],
    container: Container,
    dtype: str,
) -> ModelSpec:
    graph = flat.graph
    tensors: dict[Tensor, str] = {Tensor(name): names[name] for name in graph.inputs}
    edges = []

    def find(tensor: Tensor) -> str:
        if tensor not in tensors:
            raise FormatError(f"model config: {shown(tensor.layer)} has no output {tensor.output}")
        return tensors[tensor]

    raws = dict(graph.leaves())
    masks: dict[Tensor, str] = {}
    helpers: dict[str, LayerSpec] = {}

    def call_helper(layer: Layer, near: str, *reads: str) -> str:
        """Add a layer that computes a mask."""
        name, count = f"{near}.mask", 1
        while name in names.values() or name in helpers:
            count += 1
            name = f"{near}.mask_{count}"
        helpers[name] = LayerSpec(name, layer)
        edges.append(Edge.call(helpers[name], *reads))
        return name

    for call in flat.calls:
        raw, named = raws[call.layer], layers[call.layer]
        given = [masks.get(t) for t in call.inputs]
        reads = [find(t) for t in call.reads]
        main = Tensor(call.layer, call.number)
        if getattr(named.layer, "masked", False):
            # A shared layer may read a sequence without a mask, too: then all steps count.
            major, explicit = container.writer.major, main in flat.given_masks
            mask = taken(named.layer, call, given, major, explicit) or call_helper(
                Full(((0, 0), (0, 1)), 1.0), named.name, reads[0]
            )
            reads.append(mask)
        edge = Edge.call(named, *reads, number=call.number + 1)

        def join(how: str, several: Sequence[str], near: str = named.name) -> str:
            if how == "steps":
                return call_helper(Concatenate(1), near, *several)
            if len(set(several)) == 1:
                return several[0]
            operation = "multiply" if how == "and" else "maximum"
            return call_helper(Arithmetic(operation), near, *several)

        made = list(edge.outputs)
        if made_mask(raw, call):
            masks[main] = made.pop()
        else:
            after = follow(raw, named.layer, given, container.writer.major, join)
            if after is not None:
                also = also_masked(named.layer)
                masks |= {replace(main, output=k): after for k in (0, *also)}
        edges.append(edge)
        tensors |= {replace(main, output=k): name for k, name in enumerate(made)}
    layers |= helpers
    if isinstance(flat.outputs, Tensor):
        last = flat.outputs
        outputs = [n for t, n in tensors.items() if (t.layer, t.call) == (last.layer, last.call)]
    else:
        outputs = [find(tensor) for tensor in flat.outputs]
    outputs = list(_told_apart(outputs, layers, edges))
    kinds = {path: layer.layer for path, layer in layers.items()}
    inputs = read_inputs(graph, flat.calls, kinds, names)
    writer = container.writer
    provenance = {
        "framework": writer.framework,
        "framework_version": writer.version,
        "source_format": container.format,
        "converter": f"npylstm {npylstm.__version__}",
        "decisions": [f"written by {writer.framework} {writer.version}: {writer.evidence}"]
        + [
            f"layer {shown(old)!r} is called {new!r} here"
            for old, new in names.items()
            if shown(old) != new
        ],
    }
    by_name = {layer.name: layer.layer for layer in layers.values()}
    inputs = _with_equal_sizes(inputs, edges, by_name)
    try:
        spec = ModelSpec(
            layers=tuple(layers.values()),
            edges=tuple(edges), inputs=inputs, outputs=tuple(outputs), name=graph.name,
            dtype=dtype, provenance=provenance,
        )  # fmt: skip
    except FormatError as error:
        raise FormatError(f"the model contradicts itself: {error}") from None
    return _freed(spec) if by_a_call(graph, kinds.values()) else spec


def _freed(spec: ModelSpec) -> ModelSpec:
    """Set the steps of a first call free, and tell of it."""
    freed = spec.with_free_steps()
    if freed.inputs == spec.inputs:
        return spec
    note = f"{spec.inputs[0]} is the shape of a first call: its steps are free here"
    decisions = [*spec.provenance["decisions"], note]
    return replace(freed, provenance={**spec.provenance, "decisions": decisions})


def _with_equal_sizes(
    inputs: tuple[TensorSpec, ...], edges: list[Edge], layers: Mapping[str, Layer]
) -> tuple[TensorSpec, ...]:
    """Let free sizes of inputs be one where a layer needs them to be equal."""
    shapes = {t.name: t.shape for t in inputs}
    for edge in edges:
        try:
            made = layers[edge.layer].output_shapes([shapes[t] for t in edge.inputs])
        except UnequalError as error:
            kept, other = error.sizes
            if isinstance(other, int):  # a free size gives way to a number
                kept, other = other, kept
            free = {d for t in inputs for d in t.shape if isinstance(d, str)} - {BATCH}
            if other not in free or (isinstance(kept, str) and kept not in free):
                break
            renamed = tuple(
                replace(t, shape=tuple(kept if d == other else d for d in t.shape)) for t in inputs
            )
            return _with_equal_sizes(renamed, edges, layers)
        except FormatError as error:
            layer, rank = layers[edge.layer], len(shapes[edge.inputs[0]]) if edge.inputs else 0
            piled = rank and isinstance(layer, Concatenate) and layer.axis in (0, -rank)
            odd_axes = isinstance(layer, LayerNormalization) or getattr(layer, "masked", False)
            if piled or odd_axes:  # legal in Keras
                raise UnsupportedError(f"{edge.layer}: {error}") from None
            break  # the spec will say what is wrong
        shapes |= dict(zip(edge.outputs, made, strict=False))
    return inputs


def _told_apart(
    outputs: list[str], layers: dict[str, LayerSpec], edges: list[Edge]
) -> Iterator[str]:
    """Give an output that the model returns twice a name of its own the second time."""
    seen: set[str] = set()
    for name in outputs:
        if name in seen:
            copy = f"{name.replace('/', '_')}_again"
            while copy in {layer.name for layer in layers.values()}:
                copy += "_"
            layers[copy] = LayerSpec(copy, Identity())
            edges.append(Edge.call(layers[copy], name))
            name = copy
        seen.add(name)
        yield name


def _safe_names(paths: list[str]) -> dict[str, str]:
    """Names that can be keys of the file: no slashes, none that the file uses itself."""
    names: dict[str, str] = {}
    taken = {".", "..", *RESERVED}
    for path in paths:
        name = _UNSAFE.sub("_", shown(path))
        while name in taken:
            name += "_"
        taken.add(name)
        names[path] = name
    return names
