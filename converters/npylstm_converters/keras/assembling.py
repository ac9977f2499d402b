"""From a config and weights to a ModelSpec: every layer translated, every call an edge."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import npylstm
from npylstm import FormatError, ModelSpec, UnsupportedError
from npylstm.errors import UnequalError
from npylstm.layers import Bidirectional, Concatenate, Dense, Embedding, Identity, Layer
from npylstm.layers.base import BATCH, STEPS, Dim
from npylstm.layers.recurrent import Recurrent
from npylstm.spec import RESERVED, Edge, LayerSpec, TensorSpec
from npylstm_converters.errors import DamagedError, Reasons, Refusal
from npylstm_converters.keras.config import Writer, dtype_name
from npylstm_converters.keras.files import Container
from npylstm_converters.keras.graph import (
    INSIDE,
    Call,
    Graph,
    RawLayer,
    Tensor,
    inline,
    parse,
    shown,
)
from npylstm_converters.keras.layers import translate
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
    _translate_all(graph, container.store, container.writer, names, reasons, layers)
    if any(raw.custom for _, raw in graph.leaves()):
        reasons.raise_if_any()
    calls, outputs = inline(graph)
    for call in calls:
        if call.problem:
            reasons.add(f"{shown(call.layer)}: {call.problem}")
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
        ids = all(made is None or isinstance(made.layer, Embedding) for made in readers)
        if dtype not in (None, "float32", "float64") and not (ids and dtype in ("int32", "int64")):
            reasons.add(f"{name}: inputs of dtype {dtype!r} are not supported")
    arrays = {str(w.dtype) for layer in layers.values() for w in layer.weights.values()}
    if len(arrays) > 1:
        reasons.add(f"weights: expected one element type, got {' and '.join(sorted(arrays))}")
    if not reasons:  # with a layer missing, its arrays are left over, which says nothing new
        for path in container.store.unread():
            reasons.add(f"weights: {path} belongs to no layer")
    reasons.raise_if_any()
    flat = Flat(graph, calls, outputs)
    return _assemble(flat, layers, names, container, arrays.pop() if arrays else "float32")


class Flat(NamedTuple):
    """A graph, its calls and outputs with models inside written out."""

    graph: Graph
    calls: list[Call]
    outputs: list[Tensor] | Tensor


def _translate_all(
    graph: Graph,
    store: Store,
    writer: Writer,
    names: Mapping[str, str],
    reasons: Reasons,
    layers: dict[str, LayerSpec],
    prefix: str = "",
) -> None:
    """Translate every layer in the order of the config, into ``layers`` by path."""
    for raw in graph.layers:
        path = f"{prefix}{raw.name}"
        if raw.inner is not None:
            inner = store.inner(raw)
            _translate_all(raw.inner, inner, writer, names, reasons, layers, f"{path}{INSIDE}")
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

    for call in flat.calls:
        edge = Edge.call(layers[call.layer], *map(find, call.reads), number=call.number + 1)
        edges.append(edge)
        tensors |= {Tensor(call.layer, call.number, k): name for k, name in enumerate(edge.outputs)}
    if isinstance(flat.outputs, Tensor):
        last = flat.outputs
        outputs = [n for t, n in tensors.items() if (t.layer, t.call) == (last.layer, last.call)]
    else:
        outputs = [find(tensor) for tensor in flat.outputs]
    outputs = list(_told_apart(outputs, layers, edges))
    taken: dict[str, Any] = {}
    inputs = tuple(_input(flat, graph.layer(n), names[n], layers, taken) for n in graph.inputs)
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
    kinds = {layer.name: layer.layer for layer in layers.values()}
    inputs = _with_equal_sizes(inputs, edges, kinds)
    try:
        return ModelSpec(
            layers=tuple(layers.values()),
            edges=tuple(edges), inputs=inputs, outputs=tuple(outputs), name=graph.name,
            dtype=dtype, provenance=provenance,
        )  # fmt: skip
    except FormatError as error:
        raise FormatError(f"the model contradicts itself: {error}") from None


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
            if rank and isinstance(layer, Concatenate) and layer.axis in (0, -rank):
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


def _input(
    flat: Flat,
    raw: RawLayer,
    name: str,
    layers: Mapping[str, LayerSpec],
    taken: dict[str, Any],
) -> TensorSpec:
    """An input: its shape as declared, otherwise from the weights of the layer that reads it."""
    config = raw.config
    declared = config.get("batch_input_shape") or config.get("batch_shape")
    declared = declared or flat.graph.build_shape
    readers = [layers[c.layer].layer for c in flat.calls if Tensor(raw.name) in c.reads]
    first = readers[0] if readers else None
    features = getattr(first, "features", None)
    if declared is None and isinstance(config.get("input_shape"), list):
        declared = [None, *config["input_shape"]]
    if declared is None and isinstance(first, (Recurrent, Bidirectional)):
        declared = [None, config.get("input_length"), features]
    if declared is None and isinstance(first, Dense):
        declared = [None, features]
    if declared is None and isinstance(first, Embedding):
        declared = [None, config.get("input_length")]
    if declared is None:
        raise FormatError(f"{raw.name}: the input shape is nowhere declared")
    if not isinstance(declared, (list, tuple)) or not all(
        d is None or (isinstance(d, int) and not isinstance(d, bool)) for d in declared
    ):
        raise FormatError(f"{raw.name}: expected an input shape, got {declared!r:.80}")
    time_major = bool(getattr(first, "time_major", False))
    shape: list[Dim] = []
    for axis, size in enumerate(declared):
        if axis == int(time_major):
            shape.append(BATCH)  # a batch size that the framework pinned is set free
        elif size is None:
            used = sum(1 for t in shape if str(t).startswith(STEPS)) + taken.get(STEPS, 0)
            shape.append(STEPS if used == 0 else f"{STEPS}_{used + 1}")
        else:
            shape.append(int(size))
    taken[STEPS] = taken.get(STEPS, 0) + sum(1 for d in shape if str(d).startswith(STEPS))
    whole = bool(readers) and all(isinstance(layer, Embedding) for layer in readers)
    return TensorSpec(name, tuple(shape), whole)
